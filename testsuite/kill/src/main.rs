//! `vernal-kill`: real processes, killed.
//!
//! - [`campaign`]: SIGKILL at every injection point of the list, B-tree and hash-table programs, inside recovery too, and
//!   at random moments; after each, the file must hold the last acknowledged state or the one that was being committed.
//! - [`cases`]: one process test per promise that the calls make: fork, signals, disk full, damaged files, …
//!
//! The last line is `N passed, M failed, K skipped`. Everything random follows from the seed that is printed.

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
        if json {
            eprintln!("{text}")
        } else {
            println!("{text}")
        }
    };
    let seed = seed.unwrap_or_else(fresh_seed);
    say(&format!(
        "seed {seed}; repeat with: vernal-kill run --seconds {seconds} --seed {seed}"
    ));
    let place = Place::new()?;
    let mut done: Vec<Finished> = Vec::new();
    for case in cases::all()
        .into_iter()
        .filter(|case| case.name.contains(only))
    {
        let start = Instant::now();
        let (outcome, detail) = match (case.run)(&place) {
            Ok(()) => (cases::Outcome::Passed, String::new()),
            Err(cases::Problem::Skip(why)) => (cases::Outcome::Skipped, why),
            Err(cases::Problem::Wrong(why)) => (cases::Outcome::Failed, why),
        };
        let name = format!("case {}", case.name);
        say(&line(&name, outcome, start.elapsed(), &detail));
        done.push(Finished {
            name,
            outcome,
            detail,
        });
    }
    let plans: Vec<campaign::Plan> = campaign::plans(seed)
        .into_iter()
        .filter(|p| p.name().contains(only))
        .collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    for (index, plan) in plans.iter().enumerate() {
        let start = Instant::now();
        // What earlier plans did not use is shared by those that are left.
        let share = end.saturating_duration_since(start) / (plans.len() - index) as u32;
        let (outcome, detail) = match plan.run(&place, start + share) {
            Ok(stats) if stats.failures.is_empty() => (cases::Outcome::Passed, stats.to_string()),
            Ok(stats) => (
                cases::Outcome::Failed,
                format!("{stats}\n{}", stats.failures.join("\n")),
            ),
            Err(error) => (cases::Outcome::Failed, error.to_string()),
        };
        say(&line(&plan.name(), outcome, start.elapsed(), &detail));
        done.push(Finished {
            name: plan.name(),
            outcome,
            detail,
        });
    }
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
        println!("{report}");
    } else {
        let skips = if skipped > 0 {
            format!(", {skipped} skipped")
        } else {
            String::new()
        };
        println!("{passed} passed, {failed} failed{skips}");
    }
    Ok(failed == 0)
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
    println!("{stats}");
    for failure in &stats.failures {
        println!("{failure}");
    }
    Ok(stats.failures.is_empty())
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(1, |d| d.as_nanos() as u64) % 1_000_000_007
}
