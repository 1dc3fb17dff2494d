//! What moving pools costs: relocation per pointer, import to first access, export against a plain copy, recovery.

use super::Bench;
use super::table::{Key, Limit};
use crate::plan::System;
use crate::process::Process;
use crate::{Failure, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Pointers of the pools that are relocated.
const POINTERS: u64 = 1 << 21;
/// Pointers of a pool of about one gibibyte: nodes of 16 bytes.
const LARGE: u64 = 60 << 20;

/// Clones opened beside their originals: what the first walk takes beyond the second one is the relocation.
pub fn relocation(bench: &mut Bench<'_>) -> Result<()> {
    for shape in ["list", "array"] {
        let (pool, clone) = (bench.shm.join("original"), bench.shm.join("clone"));
        let mut maker = start(bench)?;
        maker.measure(shape, POINTERS, &shown(&pool))?;
        maker.finish()?;
        for round in 0..=bench.rounds() {
            vernal(bench, &["pool", "clone"], &[&pool, &clone])?;
            let mut process = start(bench)?;
            process.measure("original", 0, &shown(&pool))?;
            process.measure("open", 0, &shown(&clone))?;
            let first = process.measure("walk", 0, "-")?;
            let second = process.measure("walk", 0, "-")?;
            process.measure("close", 0, "-")?;
            process.finish()?;
            if (first.sum, first.units) != (second.sum, second.units) {
                return Err(Failure(format!(
                    "{shape}: two walks have not read the same"
                )));
            }
            remove(&clone)?;
            if round > 0 {
                let per = first.ns.saturating_sub(second.ns) as f64 / first.units.max(1) as f64;
                bench.table.add(
                    key("relocation", &format!("{shape}, per pointer")),
                    round,
                    per,
                )?;
            }
        }
        // 50 million pointers per second.
        bench.table.limit(Limit {
            part: "relocation",
            row: format!("{shape}, per pointer"),
            most_ns: 20.0,
        });
        remove(&pool)?;
    }
    Ok(())
}

/// Export against a plain copy of the same files, and import to the first access.
pub fn archives(bench: &mut Bench<'_>) -> Result<()> {
    let sizes: &[(&str, u64)] = &[("2 MiB", 1 << 10), ("64 MiB", LARGE / 16), ("1 GiB", LARGE)];
    for &(size, pointers) in sizes {
        // A directory: its files become the pool's without being copied, on every file system.
        let (pool, archive) = (bench.shm.join("pool"), bench.shm.join("archive/"));
        let (copy, imported) = (bench.shm.join("copy"), bench.shm.join("imported"));
        let mut maker = start(bench)?;
        maker.measure("list", pointers, &shown(&pool))?;
        maker.finish()?;
        for round in 0..=bench.rounds().min(5) {
            let exported = timed(|| vernal(bench, &["pool", "export"], &[&pool, &archive]))?;
            let copied = timed(|| plain_copy(&pool, &copy))?;
            remove(&copy)?;
            let mut process = start(bench)?;
            process.measure("original", 0, &shown(&pool))?;
            let begin = Instant::now();
            vernal(
                bench,
                &["pool", "import", "--move", "--as"],
                &[&imported, &archive],
            )?;
            process.measure("open", 0, &shown(&imported))?;
            let opened = begin.elapsed().as_nanos() as f64;
            process.measure("close", 0, "-")?;
            process.finish()?;
            remove(&imported)?;
            let _ = std::fs::remove_file(&archive);
            if round > 0 {
                for (what, ns) in [
                    ("export", exported),
                    ("plain copy", copied),
                    ("import and first access", opened),
                ] {
                    bench
                        .table
                        .add(key("archives", &format!("{size}: {what}")), round, ns)?;
                }
            }
        }
        bench.table.limit(Limit {
            part: "archives",
            row: format!("{size}: import and first access"),
            most_ns: 5e6,
        });
        remove(&pool)?;
    }
    Ok(())
}

/// A process is killed inside a transaction: what opening the pool takes then, and what it takes otherwise.
pub fn recovery(bench: &mut Bench<'_>) -> Result<()> {
    let pool = bench.shm.join("recovered");
    let mut maker = start(bench)?;
    maker.measure("list", 1000, &shown(&pool))?;
    maker.finish()?;
    for round in 0..=bench.rounds() {
        for (what, dies) in [
            ("open a clean pool", false),
            ("open after a kill in a transaction", true),
        ] {
            if dies {
                let mut victim = start(bench)?;
                victim.measure("transaction", 0, &shown(&pool))?;
                victim.kill()?;
            }
            let mut process = start(bench)?;
            let sample = process.measure("open", 0, &shown(&pool))?;
            process.measure("close", 0, "-")?;
            process.finish()?;
            if round > 0 {
                bench
                    .table
                    .add(key("recovery", what), round, sample.ns as f64)?;
            }
        }
    }
    bench.table.limit(Limit {
        part: "recovery",
        row: "open after a kill in a transaction".to_owned(),
        most_ns: 1e6,
    });
    remove(&pool)
}

fn key(part: &'static str, row: &str) -> Key {
    Key {
        part,
        row: row.to_owned(),
        system: System::Pool,
    }
}

fn start(bench: &Bench<'_>) -> Result<Process> {
    bench.start("relocation", System::Pool, &bench.cpu.to_string())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_nanos() as f64)
}

fn vernal(bench: &Bench<'_>, words: &[&str], paths: &[&PathBuf]) -> Result<()> {
    let mut command = Command::new(bench.tools.vernal("vernal")?);
    command.args(words).args(paths);
    crate::compile::run(command)
}

/// The files of a pool, as `cp` copies them: holes stay holes.
fn plain_copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command
        .args(["-r", "--sparse=auto", "--reflink=never"])
        .arg(from)
        .arg(to);
    crate::compile::run(command)
}

fn remove(pool: &Path) -> Result<()> {
    std::fs::remove_dir_all(pool).map_err(|e| Failure(format!("{}: {e}", pool.display())))
}
