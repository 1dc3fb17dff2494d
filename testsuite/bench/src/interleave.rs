//! `bench persist`, and the structures of `bench puddles`: the run itself.

use crate::compile::{Toolbox, system_name};
use crate::machine::Machine;
use crate::ops::Op;
use crate::plan::{Media, Row, Scale, Structure, Suite, System};
use crate::process::Sample;
use crate::results::{Results, media_name};
use crate::session::{Place, Session};
use crate::{Failure, Result, Structures, plot, report};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a quick run takes, of the 8 minutes that it may take.
const QUICK_BUDGET: Duration = Duration::from_secs(400);
/// Rounds that even a late measurement gets.
fn least_rounds(media: Media) -> u32 {
    if media == Media::Ext4 { 2 } else { 5 }
}

/// Runs everything that was asked for; false when a system could not be measured.
pub fn structures(options: &Structures, suite: Suite) -> Result<bool> {
    let target = target_dir();
    let out = options.out.clone().unwrap_or_else(|| target.join("bench"));
    let disk = options.disk.clone().unwrap_or_else(|| out.join("data"));
    let logs = out.join("log");
    for dir in [&disk, &logs] {
        std::fs::create_dir_all(dir).map_err(|e| Failure(format!("{}: {e}", dir.display())))?;
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let place = Place {
        tools: Toolbox::new(out.join("bin"))?,
        disk,
        logs,
        cpu: options.cpu.unwrap_or(cpus.saturating_sub(1)),
    };
    let machine = Machine::this(&place.disk)?;
    println!("{machine}");

    let media = options.media(suite);
    let mut run = Run {
        options,
        suite,
        rows: options.rows()?,
        batches: options.batches()?,
        scale: Scale {
            flush_us: machine.flush_us,
            ..options.scale()
        },
        raw: RawLog::create(&out.join(format!("{}-raw.jsonl", suite.name())), &machine)?,
        results: Results::default(),
        skipped: BTreeMap::new(),
        progress: progress_bar(),
        pace: Pace {
            start: Instant::now(),
            budget: options.quick.then_some(QUICK_BUDGET),
            total: 0.0,
            done: 0.0,
        },
    };
    run.progress
        .set_length(run.measurements() * media.len() as u64);
    run.pace.total = media
        .iter()
        .map(|&m| run.measurements() as f64 * Pace::weight(m))
        .sum();
    for media in media {
        for structure in Structure::ALL {
            run.session(&place, media, structure)?;
        }
    }
    run.progress.finish_and_clear();
    run.finish(&machine, &out)
}

/// The build's target folder, whose profile folder this program lies in.
pub fn target_dir() -> PathBuf {
    let this = std::env::current_exe().ok();
    let target = this
        .as_deref()
        .and_then(Path::parent)
        .and_then(Path::parent);
    target.map_or_else(|| PathBuf::from("target"), Path::to_owned)
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed_precise} left {eta} {msg}")
    {
        bar.set_style(style);
    }
    bar
}

/// One line of JSON per round and system.
struct RawLog(File);

impl RawLog {
    fn create(path: &Path, machine: &Machine) -> Result<Self> {
        let file = File::create(path).map_err(|e| Failure(format!("{}: {e}", path.display())))?;
        let mut log = Self(file);
        log.line(&serde_json::json!({ "machine": machine }))?;
        Ok(log)
    }

    fn line(&mut self, value: &serde_json::Value) -> Result<()> {
        writeln!(self.0, "{value}").map_err(|e| Failure(format!("writing raw samples: {e}")))
    }
}

struct Run<'a> {
    options: &'a Structures,
    suite: Suite,
    rows: Vec<Row>,
    batches: Vec<u64>,
    scale: Scale,
    raw: RawLog,
    results: Results,
    skipped: BTreeMap<System, String>,
    progress: ProgressBar,
    pace: Pace,
}

/// Keeps a quick run within its time on a machine that is slower, or busier, than the plan assumed: measurements that are
/// behind schedule get fewer rounds.
struct Pace {
    start: Instant,
    budget: Option<Duration>,
    total: f64,
    done: f64,
}

impl Pace {
    /// What a measurement may take, in proportion to others.
    fn weight(media: Media) -> f64 {
        match media {
            Media::Ext4 => 3.0,
            Media::Shm => 2.0,
            Media::CxlSsd => 1.0,
        }
    }

    fn behind(&self) -> bool {
        let late = |budget: Duration| {
            self.start.elapsed() > budget.mul_f64(0.05 + 0.95 * self.done / self.total.max(1.0))
        };
        self.budget.is_some_and(late)
    }
}

impl Run<'_> {
    fn selected(&self, row: Row, batch: u64) -> bool {
        self.rows.contains(&row)
            && self.batches.contains(&batch)
            && (batch == 1 || !row.reads_only())
    }

    /// Measurements on each medium.
    fn measurements(&self) -> u64 {
        let all = self
            .rows
            .iter()
            .flat_map(|&r| self.batches.iter().map(move |&b| (r, b)));
        all.filter(|&(r, b)| self.selected(r, b)).count() as u64
    }

    /// Counts `n` measurements as done.
    fn done(&mut self, media: Media, n: usize) {
        self.progress.inc(n as u64);
        self.pace.done += n as f64 * Pace::weight(media);
    }

    fn session(&mut self, place: &Place, media: Media, structure: Structure) -> Result<()> {
        if !self.rows.iter().any(|row| row.structure() == structure) {
            return Ok(());
        }
        self.progress.set_message(format!(
            "{} {}: loading",
            media_name(media),
            structure.name()
        ));
        let measured = |s: &System| {
            let only_batch_1 = *s == System::Pmdk && media == Media::Ext4;
            !self.skipped.contains_key(s) && (!only_batch_1 || self.batches.contains(&1))
        };
        let systems: Vec<System> = self
            .options
            .systems(self.suite)
            .into_iter()
            .filter(measured)
            .collect();
        let seed = self.options.seed;
        let mut session = Session::start(place, media, structure, &systems, &self.scale, seed)?;
        for (system, why) in session.skipped.drain(..) {
            self.progress
                .println(format!("{} is not measured: {why}", system_name(system)));
            self.skipped.insert(system, why);
        }
        for batch in self.batches.clone() {
            match structure {
                Structure::Kv => self.key_value(&mut session, media, batch)?,
                _ => self.structure(&mut session, media, structure, batch)?,
            }
            session.check()?;
            if media == Media::Ext4 {
                // libpmemobj flushes each range on its own there, so that batches change little and take minutes.
                session.retire(System::Pmdk)?;
            }
        }
        session.finish()
    }

    /// Insert, visit, delete, so that every round begins with the same size.
    fn structure(
        &mut self,
        session: &mut Session,
        media: Media,
        structure: Structure,
        batch: u64,
    ) -> Result<()> {
        let [insert, traverse, delete] =
            [Row::Insert, Row::Traverse, Row::Delete].map(|row| row(structure));
        let measured: Vec<Row> = [insert, traverse, delete]
            .into_iter()
            .filter(|&r| self.selected(r, batch))
            .collect();
        if measured.is_empty() {
            return Ok(());
        }
        // One round that is not counted: fresh memory is touched, logs get their size.
        for round in 0..=self.scale.rounds(media) {
            let (warm, count) = (
                self.scale.warm_ops(media, insert, batch),
                self.scale.ops(media, insert, batch),
            );
            let ops = session.ops.inserts(warm + count);
            self.round(session, (media, insert, batch), warm, &ops, round)?;
            if measured.contains(&traverse) {
                let ops = session.ops.traversals(3);
                self.round(session, (media, traverse, batch), 1, &ops, round)?;
            }
            let ops = session.ops.deletes(warm + count);
            self.round(session, (media, delete, batch), warm, &ops, round)?;
            if round >= least_rounds(media) && self.pace.behind() {
                break;
            }
        }
        self.done(media, measured.len());
        Ok(())
    }

    fn key_value(&mut self, session: &mut Session, media: Media, batch: u64) -> Result<()> {
        for workload in 'A'..='G' {
            let row = Row::Ycsb(workload);
            if !self.selected(row, batch) {
                continue;
            }
            let (warm, count) = (
                self.scale.warm_ops(media, row, batch),
                self.scale.ops(media, row, batch),
            );
            for round in 1..=self.scale.rounds(media) {
                let ops = session.ops.ycsb(workload, warm + count);
                self.round(session, (media, row, batch), warm, &ops, round)?;
                if round >= least_rounds(media) && self.pace.behind() {
                    break;
                }
            }
            self.done(media, 1);
        }
        Ok(())
    }

    fn round(
        &mut self,
        session: &mut Session,
        (media, row, batch): (Media, Row, u64),
        warm: u64,
        ops: &[Op],
        round: u32,
    ) -> Result<()> {
        self.progress
            .set_message(format!("{} {row}, {batch} per commit", media_name(media)));
        let scale = self.scale;
        let measured = |system| scale.takes_time(media, row, round, system);
        let samples: Vec<(System, Sample)> = session.round(warm as usize, ops, batch, measured)?;
        if round == 0 || !self.selected(row, batch) {
            return Ok(());
        }
        for (system, sample) in samples {
            self.results.add((media, row, batch, system), &sample);
            self.raw.line(&serde_json::json!({
                "media": media_name(media), "row": row.to_string(), "batch": batch, "system": system_name(system),
                "round": round, "ns": sample.ns, "ops": sample.units, "misses": sample.misses,
            }))?;
        }
        Ok(())
    }

    fn finish(self, machine: &Machine, out: &Path) -> Result<bool> {
        let text = report::text(
            &self.results,
            machine,
            &self.scale,
            &self.skipped,
            self.suite,
        );
        println!("{text}");
        let name = self.suite.name();
        let save = |name: &str, content: &str| {
            let path = out.join(name);
            std::fs::write(&path, content).map_err(|e| Failure(format!("{}: {e}", path.display())))
        };
        save(&format!("{name}.txt"), &text)?;
        if self.suite == Suite::Persist {
            save("persist.svg", &plot::svg(&self.results, machine))?;
        }
        let json = self.results.json_lines(self.suite);
        save(&format!("{name}.jsonl"), &json)?;
        if let Some(path) = &self.options.json {
            std::fs::write(path, &json).map_err(|e| Failure(format!("{}: {e}", path.display())))?;
        }
        println!(
            "{:.0} s; table, samples and raw samples: {}/{name}*",
            self.pace.start.elapsed().as_secs_f64(),
            out.display()
        );
        Ok(self.skipped.is_empty())
    }
}
