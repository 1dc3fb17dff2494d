//! `vernal-kill`: real processes, killed.
//!
//! - [`campaign`]: SIGKILL at every injection point of the list, B-tree and hash-table programs, inside recovery too, and
//!   at random moments; after each, the file must hold the last acknowledged state or the one that was being committed.
//! - [`cases`]: one process test per promise that the calls make: fork, signals, disk full, damaged files, …
//!
//! The last line is `N passed, M failed, K skipped`. Everything random follows from the seed that is printed.
#![forbid(unsafe_code)]

mod campaign;
mod cases;
mod child;
mod model;
mod place;
mod rng;

use clap::{Parser, Subcommand};
use model::Workload;
use place::{Build, Medium, Place};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// What went wrong, for a person.
type Error = Box<dyn std::error::Error>;
type Result<T> = std::result::Result<T, Error>;

#[derive(Parser)]
#[command(
    name = "vernal-kill",
    about = "Kills real processes at every injection point, and checks what is left"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the process tests, then the campaign
    Run {
        /// Time for the campaign; points that do not fit are left out at random, and counted
        #[arg(long, default_value_t = 90)]
        seconds: u64,
        /// Repeat the run that printed this seed
        #[arg(long)]
        seed: Option<u64>,
        /// Only tests whose name contains this
        #[arg(long, default_value = "")]
        only: String,
        /// Report as JSON on standard output; progress goes to standard error
        #[arg(long)]
        json: bool,
    },
    /// Repeat one kill of the campaign, and say what it left
    Replay {
        /// list, btree or kv
        #[arg(long)]
        workload: String,
        /// O0, O2, lto or page
        #[arg(long)]
        build: String,
        /// shm or disk
        #[arg(long)]
        medium: String,
        /// The seed of the operations
        #[arg(long)]
        seed: u64,
        /// How many operations the program does
        #[arg(long)]
        ops: u64,
        /// The injection point
        #[arg(long)]
        at: u64,
    },
}

/// One test.
enum Test {
    Case(cases::Case),
    Plan(campaign::Plan),
}

impl Test {
    fn name(&self) -> String {
        match self {
            Test::Case(case) => format!("case {}", case.name),
            Test::Plan(plan) => plan.name(),
        }
    }

    fn run(&self, place: &Place, deadline: Instant) -> (cases::Outcome, String) {
        use cases::{Outcome, Problem};
        match self {
            Test::Case(case) => match (case.run)(place) {
                Ok(()) => (Outcome::Passed, String::new()),
                Err(Problem::Skip(why)) => (Outcome::Skipped, why),
                Err(Problem::Wrong(why)) => (Outcome::Failed, why),
            },
            Test::Plan(plan) => match plan.run(place, deadline) {
                Ok(stats) if stats.failures.is_empty() => (Outcome::Passed, stats.to_string()),
                Ok(stats) => (
                    Outcome::Failed,
                    format!("{stats}\n{}", stats.failures.join("\n")),
                ),
                Err(error) => (Outcome::Failed, error.to_string()),
            },
        }
    }
}

/// Runs `tests` on all processors; `seconds` are shared by the plans, and what one does not use is left to the others.
fn run_all(
    place: &Place,
    tests: &[Test],
    seconds: Duration,
    say: &(dyn Fn(&str) + Sync),
) -> Vec<Finished> {
    let workers = std::thread::available_parallelism()
        .map_or(1, |n| n.get())
        .min(8);
    let plans = tests
        .iter()
        .filter(|test| matches!(test, Test::Plan(_)))
        .count();
    let next = AtomicUsize::new(0);
    // Set when the first plan starts: the cases before it take as long as they take.
    let end: OnceLock<Instant> = OnceLock::new();
    let done: Mutex<Vec<(usize, Finished)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let index = tests
                        .iter()
                        .position(|t| std::ptr::eq(t, test))
                        .unwrap_or(0);
                    let deadline = match test {
                        Test::Case(_) => start,
                        Test::Plan(_) => {
                            let end = *end.get_or_init(|| start + seconds);
                            let left = plans.min(tests.len() - index).max(1);
                            let share =
                                end.saturating_duration_since(start) * workers as u32 / left as u32;
                            start + share.min(end.saturating_duration_since(start))
                        }
                    };
                    let (outcome, detail) = test.run(place, deadline);
                    let name = test.name();
                    say(&line(&name, outcome, start.elapsed(), &detail));
                    let finished = Finished {
                        name,
                        outcome,
                        detail,
                    };
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((index, finished));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, finished)| finished).collect()
}

/// One finished test.
struct Finished {
    name: String,
    outcome: cases::Outcome,
    detail: String,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run {
            seconds,
            seed,
            only,
            json,
        } => run(seconds, seed, &only, json),
        Command::Replay {
            workload,
            build,
            medium,
            seed,
            ops,
            at,
        } => replay(&workload, &build, &medium, seed, ops, at),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vernal-kill: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(seconds: u64, seed: Option<u64>, only: &str, json: bool) -> Result<bool> {
    let say = |text: &str| {
        if json { eprintln!("{text}") } else { out(text) }
    };
    let seed = seed.unwrap_or_else(fresh_seed);
    say(&format!(
        "seed {seed}; repeat with: vernal-kill run --seconds {seconds} --seed {seed}"
    ));
    let place = Place::new()?;
    let mut tests: Vec<Test> = cases::all().into_iter().map(Test::Case).collect();
    tests.extend(campaign::plans(seed).into_iter().map(Test::Plan));
    tests.retain(|test| test.name().contains(only));
    let done = run_all(&place, &tests, Duration::from_secs(seconds), &say);
    let count = |outcome| done.iter().filter(|f| f.outcome == outcome).count();
    let (passed, failed, skipped) = (
        count(cases::Outcome::Passed),
        count(cases::Outcome::Failed),
        count(cases::Outcome::Skipped),
    );
    if json {
        let tests = done.iter().map(|f| serde_json::json!({"name": f.name, "outcome": f.outcome.word(), "detail": f.detail}));
        let report = serde_json::json!({
            "seed": seed, "passed": passed, "failed": failed, "skipped": skipped, "tests": tests.collect::<Vec<_>>(),
        });
        out(&report.to_string());
    } else {
        let skips = if skipped > 0 {
            format!(", {skipped} skipped")
        } else {
            String::new()
        };
        out(&format!("{passed} passed, {failed} failed{skips}"));
    }
    Ok(failed == 0)
}

/// Prints a line. A reader that has gone away is no reason to stop.
fn out(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn line(name: &str, outcome: cases::Outcome, wall: Duration, detail: &str) -> String {
    let detail = if detail.is_empty() {
        String::new()
    } else {
        format!("  {}", detail.replace('\n', "\n        "))
    };
    format!(
        "{:<7} {name} ({:.1} s){detail}",
        outcome.word(),
        wall.as_secs_f64()
    )
}

fn replay(workload: &str, build: &str, medium: &str, seed: u64, ops: u64, at: u64) -> Result<bool> {
    let workload = Workload::ALL
        .into_iter()
        .find(|w| w.name() == workload)
        .ok_or("--workload is list, btree or kv")?;
    let build = Build::by_name(build).ok_or("--build is O0, O2, lto or page")?;
    let medium = match medium {
        "shm" => Medium::Shm,
        "disk" => Medium::Disk,
        _ => return Err("--medium is shm or disk".into()),
    };
    let place = Place::new()?;
    let plan = campaign::Plan::points(workload, build, medium, seed, ops);
    let stats = plan.replay(&place, at)?;
    out(&stats.to_string());
    for failure in &stats.failures {
        out(failure);
    }
    Ok(stats.failures.is_empty())
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(1, |d| d.as_nanos() as u64) % 1_000_000_007
}
