//! Runs the programs interleaved, so that a noisy machine is noisy to all of them alike.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::Mode;

/// A program to measure.
pub struct Subject {
    /// Row.
    pub row: String,
    /// How it was built.
    pub mode: Mode,
    /// Whether with the pass.
    pub with_pass: bool,
    /// The program.
    pub path: PathBuf,
    /// Its argument.
    pub scale: u32,
}

/// How to measure.
pub struct Plan {
    /// Timed runs per program.
    pub runs: usize,
    /// Smaller arguments.
    pub quick: bool,
    /// Count instructions.
    pub callgrind: bool,
}

/// What was measured of one program.
pub struct Measured {
    /// Row.
    pub row: String,
    /// How it was built.
    pub mode: Mode,
    /// Whether with the pass.
    pub with_pass: bool,
    /// Times in nanoseconds, sorted.
    pub times: Vec<u64>,
    /// Bytes of executable sections.
    pub text: u64,
    /// Instructions, if counted.
    pub instructions: Option<u64>,
}

impl Measured {
    /// The middle time.
    pub fn median(&self) -> u64 {
        self.times[self.times.len() / 2]
    }
}

/// Measures all subjects, round by round.
pub fn measure(subjects: &[Subject], plan: &Plan) -> Result<Vec<Measured>, String> {
    let mut results = Vec::new();
    for s in subjects {
        results.push(Measured {
            row: s.row.clone(),
            mode: s.mode,
            with_pass: s.with_pass,
            times: vec![],
            text: text_bytes(&s.path)?,
            instructions: if plan.callgrind {
                Some(instructions(&s.path)?)
            } else {
                None
            },
        });
    }
    let mut sums: Vec<Option<String>> = vec![None; subjects.len()];
    // One round to warm up. Every other round runs backwards, so that no program always follows the same one.
    for round in 0..=plan.runs {
        let mut order: Vec<usize> = (0..subjects.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for n in order {
            let s = &subjects[n];
            let scale = if plan.quick {
                s.scale.div_ceil(2)
            } else {
                s.scale
            };
            let out = Command::new(&s.path).arg(scale.to_string()).output();
            let out = out.map_err(|e| format!("cannot run {}: {e}", s.path.display()))?;
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let mut words = text.split_whitespace();
            let (time, sum) = (
                words.next().and_then(|w| w.parse::<u64>().ok()),
                words.next().map(str::to_owned),
            );
            let (Some(time), Some(sum), true) = (time, sum, out.status.success()) else {
                return Err(format!(
                    "{} {scale}: {}: {text}",
                    s.path.display(),
                    out.status
                ));
            };
            if round > 0 {
                results[n].times.push(time);
            }
            sums[n] = Some(sum);
        }
    }
    for (n, s) in subjects.iter().enumerate() {
        let first = subjects.iter().position(|o| o.row == s.row).unwrap_or(n);
        if sums[n] != sums[first] {
            return Err(format!(
                "{} computed another result than {}",
                s.path.display(),
                subjects[first].path.display()
            ));
        }
    }
    results.iter_mut().for_each(|r| r.times.sort_unstable());
    Ok(results)
}

fn instructions(path: &Path) -> Result<u64, String> {
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(path)
        .arg("1")
        .output()
        .map_err(|e| format!("cannot run valgrind: {e}; install the Debian package valgrind"))?;
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let line = text.lines().find_map(|l| l.split_once("Collected :"));
    line.and_then(|l| l.1.trim().parse().ok())
        .ok_or_else(|| format!("valgrind did not count {}: {text}", path.display()))
}

/// Bytes of executable sections of a 64-bit ELF file.
fn text_bytes(path: &Path) -> Result<u64, String> {
    let file = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let bytes = |at: usize, n: usize| -> Option<u64> {
        let slice = file.get(at..at.checked_add(n)?)?;
        Some(slice.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)))
    };
    let sum = || -> Option<u64> {
        let (table, size, count) = (
            bytes(0x28, 8)? as usize,
            bytes(0x3a, 2)? as usize,
            bytes(0x3c, 2)? as usize,
        );
        let mut sum = 0;
        for n in 0..count {
            let at = table.checked_add(n.checked_mul(size)?)?;
            // sh_flags & SHF_EXECINSTR
            if bytes(at + 8, 8)? & 4 != 0 {
                sum += bytes(at + 0x20, 8)?;
            }
        }
        Some(sum)
    };
    sum().ok_or_else(|| format!("{} is no ELF file", path.display()))
}
