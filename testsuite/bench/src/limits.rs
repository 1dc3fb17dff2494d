//! `bench limits`: what no commit can go below on this machine, and what opening a large file costs.

use crate::compile::Toolbox;
use crate::machine::Machine;
use crate::plan::System;
use crate::process::Process;
use crate::results::Spread;
use crate::{Failure, Limits, Result, interleave};
use serde_json::json;
use std::path::Path;

/// Cache lines that are written before a fence.
const LINES: [u64; 4] = [1, 2, 4, 8];
/// Bytes of the file that is opened.
const OPEN_BYTES: u64 = 1 << 30;
/// What the first access to it may take.
const OPEN_LIMIT_MS: f64 = 5.0;

/// Measures and prints; false when opening takes longer than it may.
pub fn run(options: &Limits) -> Result<bool> {
    let rounds = options.rounds.unwrap_or(9).max(1);
    let out = interleave::target_dir().join("bench");
    let shm = Path::new(crate::session::SHM).join(format!("vernal-limits-{}", std::process::id()));
    for dir in [&out.join("log"), &out.join("data"), &shm] {
        std::fs::create_dir_all(dir).map_err(|e| Failure(format!("{}: {e}", dir.display())))?;
    }
    let measured = measure(&out, &shm, rounds);
    let cleaned = std::fs::remove_dir_all(&shm);
    let rows = measured?;
    cleaned.map_err(|e| Failure(format!("{}: {e}", shm.display())))?;
    println!(
        "{}\n\nmedian (least to most) of {rounds} rounds",
        Machine::this(&out)?
    );
    let mut json = String::new();
    let mut ok = true;
    for (row, unit, samples) in &rows {
        let Some(s) = Spread::of(samples) else {
            continue;
        };
        println!(
            "  {row:<28}{:>10.2} {unit}  ({:.2} to {:.2})",
            s.median, s.min, s.max
        );
        json += &format!(
            "{}\n",
            json!({"bench": "limits", "row": row, "unit": unit, "value": s, "rounds": samples.len()})
        );
        if row.starts_with("open") && *unit == "ms" && s.median > OPEN_LIMIT_MS {
            println!("LOST  {row}: more than {OPEN_LIMIT_MS} ms");
            ok = false;
        }
    }
    if let Some(path) = &options.json {
        std::fs::write(path, json).map_err(|e| Failure(format!("{}: {e}", path.display())))?;
    }
    Ok(ok)
}

type Row = (String, &'static str, Vec<f64>);

fn measure(out: &Path, shm: &Path, rounds: u32) -> Result<Vec<Row>> {
    let tools = Toolbox::new(out.join("bin"))?;
    let file = shm.join("large.img");
    let disk = out.join("data").join("limits-flush");
    let start = || -> Result<Process> {
        let mut command = tools.build_micro("limits", System::Vernal)?;
        command.arg(shm.join("fence.log")).arg("0").arg("all");
        command.env("VERNAL_PATHS", &file);
        Process::start(
            "limits".to_owned(),
            command,
            out.join("log").join("limits.log"),
        )
    };
    let mut rows: Vec<Row> = LINES
        .map(|n| (format!("fence after {n} lines"), "ns", vec![]))
        .into();
    rows.push(("4 KiB O_DIRECT|O_DSYNC".to_owned(), "us", vec![]));
    for what in ["new file", "file with metadata"] {
        rows.push((format!("open 1 GiB, {what}"), "ms", vec![]));
        rows.push((format!("resident, {what}"), "MiB", vec![]));
    }
    for _ in 0..rounds {
        let mut process = start()?;
        let per = |s: crate::process::Sample| s.ns as f64 / s.units.max(1) as f64;
        for (i, n) in LINES.into_iter().enumerate() {
            rows[i].2.push(per(process.measure("fence", n, "")?));
        }
        rows[4]
            .2
            .push(per(process.measure("flush", 4096, &disk.display().to_string())?) / 1e3);
        process.finish()?;
        make(shm, &file)?;
        for at in [5, 7] {
            let mut process = start()?;
            let sample = process.measure("open", 0, &file.display().to_string())?;
            rows[at].2.push(sample.ns as f64 / 1e6);
            rows[at + 1].2.push(sample.sum as f64 / f64::from(1 << 20));
            process.measure("release", 0, "-")?;
            process.finish()?;
        }
    }
    Ok(rows)
}

/// A sparse file without metadata.
fn make(dir: &Path, file: &Path) -> Result<()> {
    let io = |e: std::io::Error| Failure(format!("{}: {e}", file.display()));
    for entry in std::fs::read_dir(dir).map_err(io)?.flatten() {
        std::fs::remove_file(entry.path()).map_err(io)?;
    }
    std::fs::File::create(file)
        .and_then(|f| f.set_len(OPEN_BYTES))
        .map_err(io)
}
