//! The runner of the crash model.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vernal_crash::run::{Depth, Options, run};
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
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn enumerate(args: &Enumerate) -> Result<(), String> {
    let scenarios: Vec<&Scenario> = match &args.scenario {
        None => SCENARIOS.iter().collect(),
        Some(name) => vec![Scenario::by_name(name).ok_or_else(|| {
            let names: Vec<_> = SCENARIOS.iter().map(|s| s.name).collect();
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
    for scenario in scenarios {
        for &geometry in &media {
            let outcome = run(scenario, geometry, &options)?;
            let t = outcome.totals;
            let row = Row {
                scenario: scenario.name,
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
