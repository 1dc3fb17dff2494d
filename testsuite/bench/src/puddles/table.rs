//! What the parts measured, and the floors among it.

use crate::compile::system_name;
use crate::machine::Machine;
use crate::plan::System;
use crate::results::Spread;
use crate::{Failure, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// What identifies a measurement.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    /// The part of the benchmark.
    pub part: &'static str,
    /// What was measured.
    pub row: String,
    /// On what.
    pub system: System,
}

/// A ratio of two systems that must not fall below a floor.
#[derive(Clone, Debug)]
pub struct Floor {
    /// The part of the benchmark.
    pub part: &'static str,
    /// The row of it.
    pub row: String,
    /// The system that shall be slower.
    pub slower: System,
    /// The system that shall be faster.
    pub faster: System,
    /// How many times.
    pub least: f64,
}

/// A time that a median must not exceed.
#[derive(Clone, Debug)]
pub struct Limit {
    /// The part of the benchmark.
    pub part: &'static str,
    /// The row of it.
    pub row: String,
    /// Nanoseconds.
    pub most_ns: f64,
}

/// All samples of a run, in nanoseconds.
pub struct Table {
    samples: BTreeMap<Key, Vec<f64>>,
    floors: Vec<Floor>,
    limits: Vec<Limit>,
    /// What could not be measured, and why.
    pub skipped: Vec<String>,
    raw: File,
}

impl Table {
    /// An empty table; every sample is also a line of the file `raw`.
    pub fn create(raw: &Path, machine: &Machine) -> Result<Self> {
        let file = File::create(raw).map_err(|e| Failure(format!("{}: {e}", raw.display())))?;
        let mut table = Self {
            samples: BTreeMap::new(),
            floors: Vec::new(),
            limits: Vec::new(),
            skipped: Vec::new(),
            raw: file,
        };
        table.line(&json!({ "machine": machine }))?;
        Ok(table)
    }

    fn line(&mut self, value: &serde_json::Value) -> Result<()> {
        writeln!(self.raw, "{value}").map_err(|e| Failure(format!("writing raw samples: {e}")))
    }

    /// Adds one round.
    pub fn add(&mut self, key: Key, round: u32, ns: f64) -> Result<()> {
        self.line(&json!({
            "part": key.part, "row": key.row, "system": system_name(key.system), "round": round, "ns": ns,
        }))?;
        self.samples.entry(key).or_default().push(ns);
        Ok(())
    }

    /// Adds a floor to judge.
    pub fn floor(&mut self, floor: Floor) {
        self.floors.push(floor);
    }

    /// Adds a limit to judge.
    pub fn limit(&mut self, limit: Limit) {
        self.limits.push(limit);
    }

    /// Notes that a system could not take part.
    pub fn skip(&mut self, part: &str, system: System, why: String) {
        self.skipped.push(format!(
            "not measured: {part} on {}: {why}",
            system_name(system)
        ));
    }

    fn median(&self, part: &'static str, row: &str, system: System) -> Option<f64> {
        let key = Key {
            part,
            row: row.to_owned(),
            system,
        };
        Some(Spread::of(self.samples.get(&key)?)?.median)
    }

    /// The tables, the floors, and what was not measured.
    pub fn text(&self, machine: &Machine) -> String {
        let mut text = format!("{machine}\nmedian (least to most) of the rounds\n");
        let mut part = "";
        for (key, samples) in &self.samples {
            let Some(s) = Spread::of(samples) else {
                continue;
            };
            if key.part != part {
                part = key.part;
                // Infallible: writing to a String.
                let _ = writeln!(text, "\n{part}");
            }
            let ratio = self
                .median(key.part, &key.row, System::Pmdk)
                .filter(|_| key.system != System::Pmdk)
                .map_or(String::new(), |p| {
                    format!("  pmdk / {} {:.2}", system_name(key.system), p / s.median)
                });
            let _ = writeln!(
                text,
                "  {:<24}{:<10}{:>12} ({} to {}){ratio}",
                key.row,
                system_name(key.system),
                duration(s.median),
                duration(s.min),
                duration(s.max)
            );
        }
        text.push_str("\nfloors\n");
        let mut lost = 0;
        for floor in &self.floors {
            let (Some(slow), Some(fast)) = (
                self.median(floor.part, &floor.row, floor.slower),
                self.median(floor.part, &floor.row, floor.faster),
            ) else {
                continue;
            };
            let ratio = slow / fast;
            let holds = ratio >= floor.least;
            lost += usize::from(!holds);
            let _ = writeln!(
                text,
                "{}  {}: {} / {} {ratio:.2}  (at least {:.2})",
                if holds { "PASS" } else { "LOST" },
                floor.row,
                system_name(floor.slower),
                system_name(floor.faster),
                floor.least
            );
        }
        for limit in &self.limits {
            let Some(median) = self.median(limit.part, &limit.row, System::Pool) else {
                continue;
            };
            let holds = median <= limit.most_ns;
            lost += usize::from(!holds);
            let _ = writeln!(
                text,
                "{}  {}: {}  (at most {})",
                if holds { "PASS" } else { "LOST" },
                limit.row,
                duration(median),
                duration(limit.most_ns)
            );
        }
        let _ = writeln!(text, "{lost} lost");
        for line in &self.skipped {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// One JSON object per line and measurement.
    pub fn json_lines(&self) -> String {
        let mut text = String::new();
        for (key, samples) in &self.samples {
            let Some(spread) = Spread::of(samples) else {
                continue;
            };
            let row = json!({
                "bench": "puddles", "part": key.part, "row": key.row, "system": system_name(key.system),
                "ns": spread, "rounds": samples.len(),
            });
            let _ = writeln!(text, "{row}");
        }
        text
    }
}

fn duration(ns: f64) -> String {
    match ns {
        _ if ns < 1e4 => format!("{ns:.1} ns"),
        _ if ns < 1e7 => format!("{:.1} us", ns / 1e3),
        _ => format!("{:.1} ms", ns / 1e6),
    }
}
