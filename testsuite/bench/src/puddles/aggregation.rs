//! The sensor network: copies of one structure, changed by 200 nodes, aggregated by a home node.

use super::Bench;
use super::table::{Floor, Key};
use crate::compile::system_name;
use crate::plan::System;
use crate::process::Process;
use crate::{Failure, Result};
use std::path::Path;
use std::process::Command;

/// Variables that each node's structure has.
const VARIABLES: [u64; 5] = [100, 200, 400, 800, 1600];

/// The thesis' figure 3.14.
pub fn run(bench: &mut Bench<'_>) -> Result<()> {
    let nodes = if bench.options.structures.quick {
        50
    } else {
        200
    };
    let sizes: &[u64] = if bench.options.structures.quick {
        &[100, 1600]
    } else {
        &VARIABLES
    };
    for &variables in sizes {
        let row = format!("aggregate/{variables}");
        let mut sums = Vec::new();
        for system in [System::Pmdk, System::Pool] {
            if !bench.persistent().contains(&system) {
                continue;
            }
            let dir = bench.shm.join(format!("nodes-{}", system_name(system)));
            match prepare(bench, system, &dir, nodes, variables) {
                Ok(()) => {}
                Err(Failure(why)) => {
                    bench.table.skip("aggregation", system, why);
                    continue;
                }
            }
            sums.push((system, dir));
        }
        let rounds = bench.rounds().min(5);
        for round in 0..=rounds {
            let mut seen = None;
            for i in 0..sums.len() {
                let (system, dir) = &sums[(round as usize + i) % sums.len()];
                let mut process = start(bench, *system)?;
                let sample = process.measure("aggregate", nodes, &dir.display().to_string())?;
                process.finish()?;
                let state = (sample.sum, sample.units);
                if seen.is_some_and(|s| s != state) {
                    return Err(Failure(format!(
                        "{row}: the systems have not aggregated the same"
                    )));
                }
                seen = Some(state);
                if round > 0 {
                    let key = Key {
                        part: "aggregation",
                        row: row.clone(),
                        system: *system,
                    };
                    bench.table.add(key, round, sample.ns as f64)?;
                }
            }
        }
        for (_, dir) in &sums {
            std::fs::remove_dir_all(dir).map_err(|e| Failure(format!("{}: {e}", dir.display())))?;
        }
        bench.table.floor(Floor {
            part: "aggregation",
            row,
            slower: System::Pmdk,
            faster: System::Pool,
            least: 10.0,
        });
    }
    Ok(())
}

/// A process with a home pool of its own.
fn start(bench: &Bench<'_>, system: System) -> Result<Process> {
    let name = format!("aggregate-{}", system_name(system));
    let home = bench.shm.join(format!("{name}.img"));
    if home.is_dir() {
        std::fs::remove_dir_all(&home).map_err(|e| Failure(format!("{}: {e}", home.display())))?;
    } else if home.exists() {
        std::fs::remove_file(&home).map_err(|e| Failure(format!("{}: {e}", home.display())))?;
    }
    bench.start("aggregate", system, &bench.cpu.to_string())
}

/// Makes the structure, copies it to the nodes, and lets each change its copy.
fn prepare(
    bench: &Bench<'_>,
    system: System,
    dir: &Path,
    nodes: u64,
    variables: u64,
) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| Failure(format!("{}: {e}", dir.display())))?;
    let node = |n: u64| dir.join(n.to_string());
    let mut process = start(bench, system)?;
    process.measure("node", variables, &node(0).display().to_string())?;
    process.finish()?;
    for n in 1..nodes {
        copy(bench, system, &node(0), &node(n))?;
    }
    let mut process = start(bench, system)?;
    for n in 0..nodes {
        process.measure("change", n, &node(n).display().to_string())?;
    }
    process.finish()
}

fn copy(bench: &Bench<'_>, system: System, from: &Path, to: &Path) -> Result<()> {
    if system == System::Pmdk {
        return std::fs::copy(from, to).map(|_| ()).map_err(|e| {
            Failure(format!(
                "copying {} to {}: {e}",
                from.display(),
                to.display()
            ))
        });
    }
    let mut clone = Command::new(bench.tools.vernal("vernal")?);
    clone.args(["pool", "clone"]).arg(from).arg(to);
    crate::compile::run(clone)
}
