//! Running scenarios: threads share the events of a trace, counts are added up, violations say how to replay them.

use std::time::Instant;

use crate::choices::Effort;
use crate::explore::{Plan, Totals, Trace, Violation, explore};
use crate::scenarios::Scenario;
use crate::world::Geometry;

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// For `cargo test`.
    Quick,
    /// For the runner.
    Full,
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How thoroughly.
    pub depth: Depth,
    /// Seed of the lives and of the samples.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// Only this persistence event.
    pub only_event: Option<usize>,
}

/// Counts and time of a scenario.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Counts.
    pub totals: Totals,
    /// Wall-clock seconds.
    pub seconds: f64,
}

fn plan(options: &Options) -> Plan {
    let (effort, nested, nested_every, depth) = match options.depth {
        Depth::Quick => (
            Effort {
                all: 1 << 8,
                in_flight: 1 << 6,
                stride: 3,
                samples: 60,
            },
            Effort {
                all: 1 << 4,
                in_flight: 1 << 3,
                stride: 29,
                samples: 6,
            },
            97,
            2,
        ),
        Depth::Full => (
            Effort {
                all: 1 << 11,
                in_flight: 1 << 10,
                stride: 1,
                samples: 1500,
            },
            Effort {
                all: 1 << 6,
                in_flight: 1 << 4,
                stride: 7,
                samples: 16,
            },
            499,
            3,
        ),
    };
    Plan {
        effort,
        nested,
        nested_every,
        depth: depth - 1,
        seed: options.seed,
        share: 0,
        shares: options.threads,
        only_event: options.only_event,
    }
}

/// Lives a scenario and explores its crash states.
pub fn run(scenario: &Scenario, geometry: Geometry, options: &Options) -> Result<Outcome, String> {
    let trace = scenario.trace(geometry, options.seed)?;
    run_trace(scenario.name, &trace, geometry, options)
}

/// Explores the crash states of a life.
pub fn run_trace(
    name: &str,
    trace: &Trace,
    geometry: Geometry,
    options: &Options,
) -> Result<Outcome, String> {
    let begun = Instant::now();
    let plan = plan(options);
    let results: Vec<Result<Totals, Violation>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..options.threads)
            .map(|share| scope.spawn(move || explore(trace, Plan { share, ..plan })))
            .collect();
        handles
            .into_iter()
            .map(|h| h.join().expect("an explorer panicked"))
            .collect()
    });
    let mut totals = Totals::default();
    for result in results {
        totals.add(&result.map_err(|v| explain(name, geometry, options, &v))?);
    }
    Ok(Outcome {
        totals,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

fn explain(name: &str, geometry: Geometry, options: &Options, v: &Violation) -> String {
    let quick = if options.depth == Depth::Quick {
        " --quick"
    } else {
        ""
    };
    format!(
        "{} on {}: event {}, crash depth {}: {}\n  values of the uncertain atoms: {}\n  replay: cargo run -p vernal-crash \
         --release -- enumerate --scenario {} --media {} --seed {} --event {}{quick}",
        name,
        geometry.name(),
        v.event,
        v.depth,
        v.what,
        v.choice,
        name,
        geometry.name(),
        options.seed,
        v.event,
    )
}
