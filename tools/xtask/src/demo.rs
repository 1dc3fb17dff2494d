//! `cargo xtask demo`: the phone book, killed again and again, once compiled with vernal-cc and once with plain clang.
//!
//! The program keeps a tree and lists with native pointers in a mapped file and calls `msync` after each batch of changes. It
//! says which batch is durable; after each kill its own `check` follows every link, counts, and compares the contents with the
//! batches replayed in fresh memory. What follows, with pools, is [`demo_pools`].

use crate::packages::{self, Group};
use crate::rng::{self, Rng};
use crate::ui::{Ui, seconds};
use crate::{Result, build, demo_pools, demo_rpc, workspace::Workspace};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Changes between two msyncs.
const CHANGES: u64 = 200;
/// A kill comes at most this long after the first batch, or, one time in [`EARLY`], after the start: during start-up or
/// recovery.
const LONGEST: Duration = Duration::from_millis(30);
const EARLY: u64 = 4;
/// The first batch comes within this time, or something is wrong.
const HANG: Duration = Duration::from_secs(60);
/// The file starts over after so many kills, so that replaying it stays short.
const KILLS_PER_FILE: u64 = 20;
/// Batches of the run that measures the cost of a commit.
const MEASURED: u64 = 1000;
/// `phonebook check` exits with this when it finds an inconsistency.
const INCONSISTENT: i32 = 3;

/// What is demonstrated.
#[derive(clap::ValueEnum, Clone, Copy)]
enum Part {
    /// A phone book that is killed, and pools
    Persistence,
    /// A tree that two processes share, and a third one that cheats
    Rpc,
}

#[derive(clap::Args)]
pub struct Options {
    /// What to demonstrate
    #[arg(value_enum, default_value = "persistence")]
    part: Part,
    /// Kills of each of the two programs
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Use the moments and changes of the run that printed this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object on standard output; progress goes to standard error
    #[arg(long)]
    json: bool,
}

/// One of the two programs, and what happened to it.
struct Subject {
    label: &'static str,
    program: PathBuf,
    image: PathBuf,
    opted_in: bool,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    kills: u64,
    /// Batches that the program said were durable.
    commits: u64,
    /// The state was whole after a kill.
    whole: u64,
    /// The state was half of an update.
    torn: u64,
    /// A batch that had been acknowledged was gone.
    lost: u64,
    first_finding: String,
    nanos_per_commit: u64,
}

/// Runs the demonstration; true when Vernal kept its promise.
pub fn run(options: &Options) -> Result<bool> {
    if matches!(options.part, Part::Rpc) {
        return demo_rpc::run(options.json);
    }
    let start = Instant::now();
    let ui = Ui::new(options.json);
    let workspace = Workspace::load()?;
    packages::ensure(&ui, &[Group::Toolchain])?;
    ui.line("1. Build vernal-cc, its pass and libvernal");
    build::tools(&ui, &workspace)?;

    ui.line("2. Compile testsuite/examples/phonebook.c, which knows nothing of Vernal, twice");
    let folder = workspace.target.join("demo");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
    let folder = folder.canonicalize()?;
    let vernal_cc = workspace.tool("vernal-cc")?;
    let mut subjects = [
        subject(
            &ui,
            &workspace,
            &folder,
            "vernal",
            &vernal_cc.to_string_lossy(),
        )?,
        subject(&ui, &workspace, &folder, "plain", "clang-22")?,
    ];

    let seed = options
        .seed
        .unwrap_or_else(|| rng::fresh_seed() % 1_000_000);
    ui.line(&format!(
        "3. Kill each {} times with SIGKILL, at random moments of seed {seed}",
        options.kills
    ));
    ui.line(&format!("   (every batch of {CHANGES} changes ends in one msync; after each kill, restart and check)"));
    for subject in &mut subjects {
        torment(&ui, subject, options.kills, seed)?;
    }
    ui.line(&format!(
        "4. Measure {MEASURED} commits of each without kills"
    ));
    for subject in &mut subjects {
        subject.tally.nanos_per_commit = measure(subject, seed)?;
    }

    let pools = demo_pools::run(&ui, &workspace, &folder, seed)?;

    let [vernal, plain] = &subjects;
    summary(&ui, &[vernal, plain]);
    pools.summary(&ui);
    ui.line("");
    ui.line(&format!(
        "  {}; the same moments again: cargo xtask demo --seed {seed}",
        seconds(start.elapsed())
    ));
    let wall = start.elapsed().as_secs_f64();
    ui.report(&json!({
        "seed": seed, "vernal": vernal.json(), "plain": plain.json(), "pools": pools.json(), "seconds": wall,
    }));
    let _ = fs::remove_dir_all(&folder);
    Ok(vernal.tally.torn == 0 && vernal.tally.lost == 0 && pools.holds())
}

fn subject(
    ui: &Ui,
    workspace: &Workspace,
    folder: &Path,
    label: &'static str,
    compiler: &str,
) -> Result<Subject> {
    let program = folder.join(format!("phonebook-{label}"));
    let source = workspace.root.join("testsuite/examples/phonebook.c");
    let output = Command::new(compiler)
        .arg("-O2")
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .output();
    let output = output.map_err(|e| format!("cannot run {compiler}: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "{compiler} {} failed:\n{}",
            source.display(),
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    let shown = Path::new(compiler)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    ui.line(&format!("   {shown} -O2 phonebook.c -o phonebook-{label}"));
    Ok(Subject {
        label,
        program,
        image: folder.join(format!("{label}.img")),
        opted_in: label == "vernal",
        tally: Tally::default(),
    })
}

impl Subject {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(&self.image)
            .args(arguments)
            .stdin(Stdio::null());
        if self.opted_in {
            command.env("VERNAL_PATHS", &self.image);
        } else {
            command.env_remove("VERNAL_PATHS");
        }
        command
    }

    /// Removes the file and what belongs to it.
    fn start_over(&self) -> Result<()> {
        let (Some(folder), Some(name)) = (self.image.parent(), self.image.file_name()) else {
            return Ok(());
        };
        let name = name.to_string_lossy().into_owned();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with(&name))
            {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let t = &self.tally;
        json!({
            "kills": t.kills, "commits": t.commits, "whole": t.whole, "torn": t.torn, "lost": t.lost,
            "nanoseconds_per_commit": t.nanos_per_commit, "first_finding": t.first_finding,
        })
    }
}

/// When a kill comes.
struct Moment {
    /// Counted from the start of the process, not from its first batch.
    early: bool,
    after: Duration,
}

/// Kills the program `kills` times and checks what each kill left.
fn torment(ui: &Ui, subject: &mut Subject, kills: u64, seed: u64) -> Result<()> {
    let mut rng = Rng::new(seed);
    let bar = ui.bar(subject.label, kills);
    let mut durable = 0;
    for kill in 0..kills {
        let moment = Moment {
            early: rng.below(EARLY) == 0,
            after: Duration::from_nanos(rng.below(LONGEST.as_nanos() as u64)),
        };
        if kill % KILLS_PER_FILE == 0 {
            subject.start_over()?;
            durable = 0;
        }
        let said = kill_after(subject, seed, &moment)?;
        subject.tally.kills += 1;
        if let Some(last) = said {
            subject.tally.commits += last.saturating_sub(durable);
            durable = last;
        }
        match check(subject)? {
            // The batch in flight may have become durable before the program could say so.
            Ok(found) if found == durable || found == durable + 1 => {
                subject.tally.whole += 1;
                durable = found;
            }
            Ok(found) => {
                subject.tally.lost += 1;
                note(
                    subject,
                    &format!("batch {durable} had been acknowledged, the file holds {found}"),
                );
                durable = found;
            }
            Err(finding) => {
                subject.tally.torn += 1;
                note(subject, &finding);
                // What is torn stays torn: go on with a new file.
                subject.start_over()?;
                durable = 0;
            }
        }
        bar.inc(1);
        let t = &subject.tally;
        bar.set_message(format!(
            "whole {}, torn {}, lost {}",
            t.whole, t.torn, t.lost
        ));
        if !ui.is_terminal() && (kill + 1) % 50 == 0 {
            ui.line(&format!(
                "   {:<7} {:>4} kills: whole {}, torn {}, lost {}",
                subject.label,
                kill + 1,
                t.whole,
                t.torn,
                t.lost
            ));
        }
    }
    bar.finish();
    Ok(())
}

fn note(subject: &mut Subject, finding: &str) {
    if subject.tally.first_finding.is_empty() {
        subject.tally.first_finding = finding.to_owned();
    }
}

/// Starts the program, kills it at `moment`, and returns the last batch that it said was durable.
fn kill_after(subject: &Subject, seed: u64, moment: &Moment) -> Result<Option<u64>> {
    let log = subject.image.with_extension("log");
    let mut command = subject.command(&["stress", "0", &seed.to_string(), &CHANGES.to_string()]);
    let errors = subject.image.with_extension("err");
    command
        .stdout(File::create(&log)?)
        .stderr(File::create(&errors)?);
    let mut child = command
        .spawn()
        .map_err(|e| format!("cannot run {}: {e}", subject.program.display()))?;
    let start = Instant::now();
    while !moment.early
        && fs::metadata(&log)?.len() == 0
        && child.try_wait()?.is_none()
        && start.elapsed() < HANG
    {
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(moment.after);
    let early = child.try_wait()?;
    child.kill()?;
    child.wait()?;
    if let Some(status) = early {
        let text = fs::read_to_string(&errors).unwrap_or_default();
        return Err(format!(
            "phonebook-{} ended by itself ({status}): {}",
            subject.label,
            text.trim()
        )
        .into());
    }
    let text = fs::read_to_string(&log)?;
    // A line that the kill cut short says nothing.
    let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
    Ok(whole
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("batch ")?.parse().ok()))
}

/// Restarts the program to check its file: the batch that the file holds, or what is inconsistent.
fn check(subject: &Subject) -> Result<std::result::Result<u64, String>> {
    let output = subject.command(&["check", "replay"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.code() {
        Some(0) => {
            let batch = text.rsplit_once("batch ").and_then(|(_, n)| n.parse().ok());
            Ok(Ok(batch.ok_or_else(|| {
                format!("phonebook check said {text:?}, which names no batch")
            })?))
        }
        Some(INCONSISTENT) => Ok(Err(text)),
        // A check that follows a torn pointer may crash: that is torn, too.
        None => Ok(Err(format!("the check crashed on it ({})", output.status))),
        Some(code) => {
            let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if subject.opted_in {
                return Err(format!("phonebook check failed with {code}: {error}").into());
            }
            Ok(Err(error))
        }
    }
}

/// The time of one batch with its msync, in nanoseconds.
fn measure(subject: &Subject, seed: u64) -> Result<u64> {
    let run = |batches: u64| -> Result<Duration> {
        subject.start_over()?;
        let mut command = subject.command(&[
            "stress",
            &batches.to_string(),
            &seed.to_string(),
            &CHANGES.to_string(),
        ]);
        let start = Instant::now();
        let output = command.output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("phonebook-{} failed: {text}", subject.label).into());
        }
        Ok(start.elapsed())
    };
    // Start and end of the process are in both.
    let (one, many) = (run(1)?, run(MEASURED + 1)?);
    Ok((many.saturating_sub(one).as_nanos() / u128::from(MEASURED)) as u64)
}

fn summary(ui: &Ui, subjects: &[&Subject; 2]) {
    let [vernal, plain] = subjects.map(|subject| &subject.tally);
    let row = |what: &str, a: String, b: String| ui.line(&format!("  {what:<38} {a:>14} {b:>14}"));
    let number = |what: &str, get: fn(&Tally) -> u64| {
        row(what, get(vernal).to_string(), get(plain).to_string())
    };
    let micros = |t: &Tally| format!("{:.1} us", t.nanos_per_commit as f64 / 1000.0);
    ui.line("");
    row(
        "phonebook.c, -O2",
        "vernal-cc".to_owned(),
        "clang".to_owned(),
    );
    ui.line(&format!("  {}", "-".repeat(68)));
    number("kills (SIGKILL at random moments)", |t| t.kills);
    number("commits acknowledged before them", |t| t.commits);
    number("restarts that found a whole state", |t| t.whole);
    number("torn states", |t| t.torn);
    number("acknowledged commits lost", |t| t.lost);
    row(
        &format!("a batch of {CHANGES} changes and its msync"),
        micros(vernal),
        micros(plain),
    );
    ui.line("");
    if !plain.first_finding.is_empty() {
        ui.line(&format!(
            "  the first thing that the plain program found: {}",
            plain.first_finding
        ));
    }
    if !vernal.first_finding.is_empty() {
        ui.line(&format!("  VERNAL FAILED: {}", vernal.first_finding));
    }
}
