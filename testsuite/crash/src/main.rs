//! The runner of the crash model.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use vernal_crash::direct::scenarios::{DIRECT_SCENARIOS, DirectScenario};
use vernal_crash::litmus::{Protocol, Size, search};
use vernal_crash::mutants::{self, Fate, Mutant, Nursery, workspace_root};
use vernal_crash::run::{Depth, Options, Outcome, run, run_trace};
use vernal_crash::scenarios::{SCENARIOS, Scenario};
use vernal_crash::world::Geometry;

/// Crash states, enumerated on the simulator.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Enumerate the crash states of every scenario on every medium
    Enumerate(Enumerate),
    /// Search every interleaving of barrier and commit on a machine with store buffers
    Litmus,
    /// Plant bugs into a copy of the workspace and demand that each is caught
    Mutants(Mutants),
}

#[derive(clap::Args)]
struct Mutants {
    /// Only mutants whose name or file contains this
    #[arg(long)]
    only: Option<String>,
    /// Those of soak too; the tests of every run leave them out to save time
    #[arg(long)]
    all: bool,
    /// List them and do nothing
    #[arg(long)]
    list: bool,
}

#[derive(clap::Args)]
struct Enumerate {
    /// Only this scenario
    #[arg(long)]
    scenario: Option<String>,
    /// Only this medium: dax, sector or block
    #[arg(long)]
    media: Option<String>,
    /// Seed of the lives and of the samples
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this persistence event (to replay a violation)
    #[arg(long)]
    event: Option<usize>,
    /// Threads that share the work
    #[arg(long)]
    threads: Option<usize>,
    /// As little as the tests do
    #[arg(long)]
    quick: bool,
    /// One JSON object per scenario and medium on standard output
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Row {
    scenario: &'static str,
    media: &'static str,
    seed: u64,
    events: u64,
    exhaustive_events: u64,
    states: u64,
    nested_states: u64,
    seconds: f64,
    states_per_second: f64,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Enumerate(args) => enumerate(&args),
        Command::Litmus => litmus(),
        Command::Mutants(args) => mutants(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// A life of either kind.
#[derive(Clone, Copy)]
enum Life {
    Journal(&'static Scenario),
    Direct(&'static DirectScenario),
}

impl Life {
    fn all() -> impl Iterator<Item = Life> {
        let journal = SCENARIOS.iter().map(Life::Journal);
        journal.chain(DIRECT_SCENARIOS.iter().map(Life::Direct))
    }

    fn name(self) -> &'static str {
        match self {
            Life::Journal(s) => s.name,
            Life::Direct(s) => s.name,
        }
    }

    /// Direct pools are on byte-addressable media only.
    fn runs_on(self, geometry: Geometry) -> bool {
        matches!(self, Life::Journal(_)) || geometry == Geometry::DAX
    }

    fn run(self, geometry: Geometry, options: &Options) -> Result<Outcome, String> {
        match self {
            Life::Journal(s) => run(s, geometry, options),
            Life::Direct(s) => run_trace(s.name, &s.trace(options.seed)?, geometry, options),
        }
    }
}

fn enumerate(args: &Enumerate) -> Result<(), String> {
    let lives: Vec<Life> = match &args.scenario {
        None => Life::all().collect(),
        Some(name) => vec![Life::all().find(|l| l.name() == name).ok_or_else(|| {
            let names: Vec<_> = Life::all().map(|l| l.name()).collect();
            format!(
                "no scenario is called {name}; there are {}",
                names.join(", ")
            )
        })?],
    };
    let media = match &args.media {
        None => vec![Geometry::DAX, Geometry::SECTOR, Geometry::BLOCK],
        Some(name) => {
            vec![Geometry::by_name(name).ok_or(format!(
                "no medium is called {name}; there are dax, sector, block"
            ))?]
        }
    };
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let depth = if args.quick {
        Depth::Quick
    } else {
        Depth::Full
    };
    let options = Options {
        depth,
        seed: args.seed,
        threads: threads.max(1),
        only_event: args.event,
    };
    if !args.json {
        println!(
            "{:<14}{:<8}{:>7}{:>12}{:>12}{:>12}{:>10}{:>12}",
            "scenario", "media", "events", "exhaustive", "states", "nested", "seconds", "states/s"
        );
    }
    let (mut states, mut nested, mut seconds) = (0, 0, 0.0);
    for life in lives {
        for &geometry in media.iter().filter(|g| life.runs_on(**g)) {
            let outcome = life.run(geometry, &options)?;
            let t = outcome.totals;
            let row = Row {
                scenario: life.name(),
                media: geometry.name(),
                seed: args.seed,
                events: t.events,
                exhaustive_events: t.exhaustive,
                states: t.states,
                nested_states: t.nested,
                seconds: outcome.seconds,
                states_per_second: t.states as f64 / outcome.seconds.max(1e-9),
            };
            if args.json {
                println!(
                    "{}",
                    serde_json::to_string(&row).map_err(|e| e.to_string())?
                );
            } else {
                println!(
                    "{:<14}{:<8}{:>7}{:>12}{:>12}{:>12}{:>10.2}{:>12.0}",
                    row.scenario,
                    row.media,
                    row.events,
                    row.exhaustive_events,
                    row.states,
                    row.nested_states,
                    row.seconds,
                    row.states_per_second
                );
            }
            states += t.states;
            nested += t.nested;
            seconds += outcome.seconds;
        }
    }
    let summary = format!(
        "{states} crash states ({nested} inside a recovery), 0 inconsistent; {:.0} states/s on {threads} threads; seed {}",
        states as f64 / f64::max(seconds, 1e-9),
        args.seed
    );
    if args.json {
        eprintln!("{summary}")
    } else {
        println!("{summary}")
    }
    Ok(())
}

fn litmus() -> Result<(), String> {
    let size = Size {
        stores: [2, 1],
        commits: 2,
    };
    // A mark that is dropped takes more steps.
    let small = Size { commits: 1, ..size };
    for (correct, size) in [(Protocol::CORRECT, size), (Protocol::FULL, small)] {
        let verdict = search(correct, size);
        if let Some(story) = verdict.lost {
            return Err(format!(
                "'{}' loses an update:\n  {}",
                correct.name,
                story.join("\n  ")
            ));
        }
        println!(
            "{:<48}{:>9} states  loses nothing",
            correct.name, verdict.states
        );
    }
    for broken in Protocol::BROKEN {
        let verdict = search(broken, size);
        let Some(story) = verdict.lost else {
            return Err(format!(
                "'{}' loses nothing: the model is blind",
                broken.name
            ));
        };
        println!(
            "{:<48}{:>9} states  an update is lost in {} steps:",
            broken.name,
            verdict.states,
            story.len()
        );
        println!("  {}", story.join("\n  "));
    }
    Ok(())
}

fn mutants(args: &Mutants) -> Result<(), String> {
    let wanted = |m: &&Mutant| match &args.only {
        None => true,
        Some(part) => {
            m.name.contains(part.as_str()) || m.edits.iter().any(|e| e.file.contains(part.as_str()))
        }
    };
    let chosen: Vec<&Mutant> = if args.all {
        mutants::all().filter(wanted).collect()
    } else {
        mutants::usual().filter(wanted).collect()
    };
    if args.list {
        for m in &chosen {
            println!("{:<64}{}", m.name, m.test.join(" "));
        }
        return Ok(());
    }
    let begun = Instant::now();
    let nursery =
        Nursery::new(&workspace_root()).map_err(|e| format!("copying the workspace: {e}"))?;
    let mut tests: Vec<_> = chosen.iter().map(|m| m.test).collect();
    tests.sort();
    tests.dedup();
    let mut healthy = BTreeMap::new();
    for test in tests {
        match nursery.check_healthy(test).map_err(|e| e.to_string())? {
            (Fate::Survived, time) => {
                healthy.insert(test, time);
            }
            (fate, _) => {
                return Err(format!(
                    "cargo {} fails without any mutant: {fate:?}",
                    test.join(" ")
                ));
            }
        }
    }
    let mut failed = 0;
    for m in &chosen {
        let started = Instant::now();
        let time = healthy.get(m.test).copied().unwrap_or_default();
        let (fate, runs) = nursery
            .raise(m, time)
            .map_err(|e| format!("{}: {e}", m.name))?;
        let text = match &fate {
            Fate::Caught if runs > 1 => format!("caught in run {runs}"),
            Fate::Caught => "caught".to_owned(),
            Fate::CaughtHanging => "caught (the test hangs)".to_owned(),
            Fate::Survived => format!("SURVIVED {runs} runs"),
            Fate::Broken(why) => format!("BROKEN: {why}"),
        };
        failed += u32::from(!matches!(fate, Fate::Caught | Fate::CaughtHanging));
        println!(
            "{:<64}{:>6.1} s  {text}",
            m.name,
            started.elapsed().as_secs_f64()
        );
    }
    println!(
        "{} of {} mutants caught in {:.0} s",
        chosen.len() as u32 - failed,
        chosen.len(),
        begun.elapsed().as_secs_f64()
    );
    if failed == 0 {
        Ok(())
    } else {
        Err(format!("{failed} mutants were not caught"))
    }
}
