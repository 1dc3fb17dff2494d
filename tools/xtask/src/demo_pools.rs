//! The second half of `cargo xtask demo`: a pool whose writer is killed and deleted, recovered by puddled, and moved to a
//! second puddled, where two copies of it are opened side by side.

use crate::ui::Ui;
use crate::workspace::Workspace;
use crate::{Result, rng::Rng};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Writers that are killed, one after the other, on the same pool.
const KILLS: u64 = 20;
/// A kill comes at most this long after the first move of a writer.
const LONGEST: Duration = Duration::from_millis(30);
/// Whatever takes longer has gone wrong.
const HANG: Duration = Duration::from_secs(60);

/// What happened.
pub struct Outcome {
    kills: u64,
    lost: u64,
    torn: u64,
    moves: u64,
    same: String,
    page: PathBuf,
}

impl Outcome {
    /// Whether every promise was kept.
    pub fn holds(&self) -> bool {
        self.lost == 0 && self.torn == 0
    }

    /// For `--json`.
    pub fn json(&self) -> Value {
        json!({
            "kills": self.kills, "lost": self.lost, "torn": self.torn, "moves": self.moves, "copies": self.same,
            "page": self.page.display().to_string(),
        })
    }

    /// Lines of the summary.
    pub fn summary(&self, ui: &Ui) {
        ui.line("");
        ui.line(&format!(
            "  queue.c in a pool of puddled: {} writers killed, their program deleted; lost {}, torn {}",
            self.kills, self.lost, self.torn
        ));
        ui.line(&format!(
            "  two copies on a second puddled, in one process: {}",
            self.same
        ));
        ui.line(&format!(
            "  a page of the pool, to be opened in a browser: {}",
            self.page.display()
        ));
    }
}

/// A running puddled; ends when dropped.
struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    fn start(workspace: &Workspace, folder: &Path, name: &str) -> Result<Self> {
        let data = folder.join(name);
        fs::create_dir_all(&data)?;
        let socket = data.join("socket");
        let log = File::create(folder.join(format!("{name}.log")))?;
        let child = Command::new(workspace.tool("puddled")?)
            .arg("--data")
            .arg(&data)
            .arg("--socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let daemon = Self { child, socket };
        let start = Instant::now();
        while !daemon.socket.exists() {
            if start.elapsed() > HANG {
                return Err(format!(
                    "puddled does not listen: see {name}.log in {}",
                    folder.display()
                )
                .into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(daemon)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("VERNAL_PUDDLED", &self.socket)
            .env("VERNAL_QUIET", "1")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The demonstration is over: nobody has anything open.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it in `folder`.
pub fn run(ui: &Ui, workspace: &Workspace, folder: &Path, seed: u64) -> Result<Outcome> {
    let vernal = workspace.tool("vernal")?;
    ui.line(
        "5. Compile testsuite/examples/queue.c, which keeps its jobs in a pool, and start puddled",
    );
    let source = workspace.root.join("testsuite/examples/queue.c");
    let queue = folder.join("queue");
    let compiled = Command::new(workspace.tool("vernal-cc")?)
        .arg("-O2")
        .arg(&source)
        .arg("-o")
        .arg(&queue)
        .output()?;
    succeed("vernal-cc queue.c", &compiled)?;
    let first = Daemon::start(workspace, folder, "first")?;
    let mut outcome = Outcome {
        kills: 0,
        lost: 0,
        torn: 0,
        moves: 0,
        same: String::new(),
        page: workspace.target.join("demo-queue.html"),
    };

    ui.line(&format!("6. Kill {KILLS} writers, delete their program each time, and let puddled recover without it"));
    let bar = ui.bar("queue", KILLS);
    let mut rng = Rng::new(seed);
    for _ in 0..KILLS {
        let writer = folder.join("queue-writer");
        fs::copy(&queue, &writer)?;
        let said = killed(
            &first,
            &writer,
            folder,
            Duration::from_nanos(rng.below(LONGEST.as_nanos() as u64)),
        )?;
        fs::remove_file(&writer)?;
        outcome.kills += 1;
        // Recovered by puddled; nothing of the writer is left. `vernal pool check` only reads.
        let checked = first
            .command(&vernal)
            .args(["pool", "check", "jobs"])
            .output()?;
        if !checked.status.success() {
            outcome.torn += 1;
        }
        let found = first.command(&queue).args(["jobs", "check"]).output()?;
        let text = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        match (
            found.status.code(),
            text.rsplit_once("move ")
                .and_then(|(_, n)| n.parse::<u64>().ok()),
        ) {
            (Some(0), Some(n)) => {
                // The move in flight may have become durable before the program could say so.
                outcome.lost += u64::from(said.is_some_and(|s| n != s && n != s + 1));
                outcome.moves = n;
            }
            (Some(3), _) => outcome.torn += 1,
            _ => return Err(failure("queue check", &found)),
        }
        bar.inc(1);
        bar.set_message(format!(
            "moves {}, torn {}, lost {}",
            outcome.moves, outcome.torn, outcome.lost
        ));
    }
    bar.finish();

    ui.line("7. Export the pool, import it twice into a second puddled: both copies want the addresses of the first");
    let archive = folder.join("jobs.archive");
    let exported = first
        .command(&vernal)
        .args(["pool", "export", "jobs"])
        .arg(&archive)
        .output()?;
    succeed("vernal pool export", &exported)?;
    let second = Daemon::start(workspace, folder, "second")?;
    for name in ["jobs", "jobs-too"] {
        let imported = second
            .command(&vernal)
            .args(["pool", "import", "--as", name])
            .arg(&archive)
            .output()?;
        succeed("vernal pool import", &imported)?;
    }
    let compared = second
        .command(&queue)
        .args(["jobs", "same", "jobs-too"])
        .output()?;
    succeed("queue same", &compared)?;
    outcome.same = String::from_utf8_lossy(&compared.stdout).trim().to_owned();

    ui.line("8. Write a page that shows the pool: its puddles, its types, its graph of objects");
    let inspected = second
        .command(&vernal)
        .args(["inspect", "jobs", "--html"])
        .arg(&outcome.page)
        .output()?;
    succeed("vernal inspect", &inspected)?;
    Ok(outcome)
}

/// Starts a writer, kills it some time after its first move, and returns the last move that it said was durable.
fn killed(daemon: &Daemon, writer: &Path, folder: &Path, after: Duration) -> Result<Option<u64>> {
    let (log, errors) = (folder.join("queue.log"), folder.join("queue.err"));
    let mut child = daemon
        .command(writer)
        .args(["jobs", "stress", "100000000"])
        .stdout(File::create(&log)?)
        .stderr(File::create(&errors)?)
        .spawn()?;
    let start = Instant::now();
    while fs::metadata(&log)?.len() == 0 && child.try_wait()?.is_none() && start.elapsed() < HANG {
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(after);
    let ended = child.try_wait()?;
    child.kill()?;
    child.wait()?;
    if let Some(status) = ended {
        let text = fs::read_to_string(&errors).unwrap_or_default();
        return Err(format!("queue ended by itself ({status}): {}", text.trim()).into());
    }
    let text = fs::read_to_string(&log)?;
    // A line that the kill cut short says nothing.
    let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
    Ok(whole.lines().last().and_then(|line| line.parse().ok()))
}

fn succeed(what: &str, output: &Output) -> Result<()> {
    if output.status.success() {
        Ok(())
    } else {
        Err(failure(what, output))
    }
}

fn failure(what: &str, output: &Output) -> crate::Error {
    format!(
        "{what} failed ({}): {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
    .into()
}
