//! Primitives and threads: one process per system, the systems in turn in every round.

use super::Bench;
use super::table::{Floor, Key};
use crate::compile::system_name;
use crate::plan::System;
use crate::process::{Process, Sample};
use crate::{Failure, Result};

/// Name, operations of a round, and what PMDK must take at least as a multiple of a buffered pool.
const PRIMITIVES: [(&str, u64, Option<f64>); 7] = [
    ("tx-nop", 20_000, None),
    ("tx-add-8", 10_000, Some(3.0)),
    ("tx-add-4k", 2_000, Some(3.0)),
    ("tx-alloc-8", 8_192, Some(3.0)),
    ("tx-alloc-4k", 2_048, Some(3.0)),
    ("tx-alloc-free-8", 8_192, None),
    ("tx-alloc-free-4k", 2_048, None),
];

/// The thesis' table 3.3.
pub fn primitives(bench: &mut Bench<'_>) -> Result<()> {
    let mut processes = bench.start_all("primitives", &bench.cpu.to_string());
    for round in 0..=bench.rounds() {
        for (name, count, _) in PRIMITIVES {
            each(
                bench,
                &mut processes,
                round,
                ("primitives", name),
                name,
                count,
            )?;
        }
    }
    for (name, _, floor) in PRIMITIVES {
        if let Some(least) = floor {
            bench.table.floor(Floor {
                part: "primitives",
                row: name.to_owned(),
                slower: System::Pmdk,
                faster: System::Pool,
                least,
            });
        }
    }
    finish(processes)
}

/// The thesis' figure 3.12.
pub fn threads(bench: &mut Bench<'_>) -> Result<()> {
    let mut processes = bench.start_all("euler", "all");
    let mut counts = vec![1];
    while let Some(&n) = counts.last()
        && n < bench.cpus as u64
    {
        counts.push((n * 2).min(bench.cpus as u64));
    }
    for round in 0..=bench.rounds() {
        for &n in &counts {
            let row = format!("euler/{n}");
            each(bench, &mut processes, round, ("threads", &row), "euler", n)?;
        }
    }
    finish(processes)
}

/// One measurement on every system, in an order that rotates; all must have computed the same.
fn each(
    bench: &mut Bench<'_>,
    processes: &mut [(System, Process)],
    round: u32,
    (part, row): (&'static str, &str),
    name: &str,
    count: u64,
) -> Result<()> {
    let n = processes.len();
    let mut samples: Vec<(System, Sample)> = Vec::with_capacity(n);
    for i in 0..n {
        let (system, process) = &mut processes[(round as usize + i) % n];
        samples.push((*system, process.measure(name, count, "")?));
    }
    if let [(first, a), rest @ ..] = &samples[..]
        && let Some((other, _)) = rest.iter().find(|(_, b)| b.sum != a.sum)
    {
        return Err(Failure(format!(
            "{row}: {} and {} have not computed the same",
            system_name(*first),
            system_name(*other)
        )));
    }
    if round > 0 {
        for (system, sample) in samples {
            let key = Key {
                part,
                row: row.to_owned(),
                system,
            };
            bench
                .table
                .add(key, round, sample.ns as f64 / sample.units.max(1) as f64)?;
        }
    }
    Ok(())
}

fn finish(processes: Vec<(System, Process)>) -> Result<()> {
    processes.into_iter().try_for_each(|(_, p)| p.finish())
}
