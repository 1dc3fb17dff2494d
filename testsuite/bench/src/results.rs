//! Result rows and what is computed from them.

use crate::compile::system_name;
use crate::plan::{Media, Row, Suite, System};
use clap::ValueEnum;
use serde::Serialize;
use std::collections::BTreeMap;

/// What identifies a measurement.
pub type Key = (Media, Row, u64, System);

/// Nanoseconds per operation over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle round.
    pub median: f64,
    /// The best round.
    pub min: f64,
    /// The worst round.
    pub max: f64,
}

impl Spread {
    /// Of the rounds' values; none for none.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let median = if n % 2 == 1 {
            sorted[n / 2]
        } else {
            (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0
        };
        Some(Self { median, min, max })
    }
}

/// One row of the JSON result file.
#[derive(Serialize)]
struct JsonRow<'a> {
    bench: &'static str,
    media: &'a str,
    row: String,
    batch: u64,
    system: String,
    ns_per_op: Spread,
    ops: u64,
    rounds: usize,
    durability: &'static str,
}

/// All samples of a run.
#[derive(Default)]
pub struct Results {
    samples: BTreeMap<Key, Samples>,
}

#[derive(Default)]
struct Samples {
    ns_per_op: Vec<f64>,
    ops: u64,
    misses: u64,
}

/// The name of `media` in result rows.
pub fn media_name(media: Media) -> String {
    media
        .to_possible_value()
        .map(|v| v.get_name().to_owned())
        .unwrap_or_default()
}

impl Results {
    /// Adds one round.
    pub fn add(&mut self, key: Key, sample: &crate::process::Sample) {
        let s = self.samples.entry(key).or_default();
        s.ns_per_op
            .push(sample.ns as f64 / sample.units.max(1) as f64);
        s.ops += sample.units;
        s.misses += sample.misses;
    }

    /// The spread of one measurement.
    pub fn get(&self, key: Key) -> Option<Spread> {
        Spread::of(&self.samples.get(&key)?.ns_per_op)
    }

    /// Median of `a` over median of `b`; both are of the same run.
    pub fn ratio(&self, media: Media, row: Row, batch: u64, a: System, b: System) -> Option<f64> {
        let (a, b) = (
            self.get((media, row, batch, a))?,
            self.get((media, row, batch, b))?,
        );
        (b.median > 0.0).then_some(a.median / b.median)
    }

    /// Misses of the emulated device per operation.
    pub fn misses_per_op(&self, key: Key) -> Option<f64> {
        self.samples
            .get(&key)
            .map(|s| s.misses as f64 / s.ops.max(1) as f64)
    }

    /// The systems that have any row on `media`, in the order of the tables.
    pub fn systems(&self, media: Media) -> Vec<System> {
        let mut systems: Vec<System> = self
            .samples
            .keys()
            .filter(|k| k.0 == media)
            .map(|k| k.3)
            .collect();
        systems.sort_unstable();
        systems.dedup();
        systems
    }

    /// The measurements of `media`, in the order of the tables.
    pub fn lines(&self, media: Media) -> Vec<(Row, u64)> {
        let mut lines: Vec<(Row, u64)> = Row::all()
            .into_iter()
            .flat_map(|row| crate::plan::BATCHES.map(|batch| (row, batch)))
            .filter(|&(row, batch)| {
                self.samples
                    .keys()
                    .any(|k| (k.0, k.1, k.2) == (media, row, batch))
            })
            .collect();
        lines.dedup();
        lines
    }

    /// The media that were measured.
    pub fn media(&self) -> Vec<Media> {
        let mut media: Vec<Media> = self.samples.keys().map(|k| k.0).collect();
        media.dedup();
        media
    }

    /// One JSON object per line and measurement.
    pub fn json_lines(&self, suite: Suite) -> String {
        let mut text = String::new();
        for (&(media, row, batch, system), samples) in &self.samples {
            let Some(ns_per_op) = Spread::of(&samples.ns_per_op) else {
                continue;
            };
            let row = JsonRow {
                bench: suite.name(),
                media: &media_name(media),
                row: row.to_string(),
                batch,
                system: system_name(system),
                ns_per_op,
                ops: samples.ops,
                rounds: samples.ns_per_op.len(),
                durability: system.durability(media),
            };
            // Numbers and strings always serialise.
            text += &serde_json::to_string(&row).unwrap_or_default();
            text.push('\n');
        }
        text
    }
}

/// The geometric mean of ratios; none for none.
pub fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    if ratios.is_empty() {
        return None;
    }
    Some((ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_ones() {
        assert_eq!(
            Spread::of(&[4.0, 1.0, 2.0, 9.0]),
            Some(Spread {
                median: 3.0,
                min: 1.0,
                max: 9.0
            })
        );
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn geometric_means_are_of_ratios() {
        let mean = geometric_mean(&[2.0, 8.0]).unwrap();
        assert!((mean - 4.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), None);
    }

    #[test]
    fn json_rows_have_the_agreed_fields() {
        let mut r = Results::default();
        let sample = crate::process::Sample {
            ns: 300,
            units: 10,
            sum: 0,
            misses: 0,
        };
        r.add(
            (Media::CxlSsd, Row::Ycsb('A'), 10, System::KyotoWal),
            &sample,
        );
        let v: serde_json::Value =
            serde_json::from_str(r.json_lines(Suite::Persist).trim()).unwrap();
        assert_eq!(v["bench"], "persist");
        assert_eq!(v["media"], "cxl-ssd");
        assert_eq!(v["row"], "kv/A");
        assert_eq!(v["batch"], 10);
        assert_eq!(v["system"], "kyoto-wal");
        assert_eq!(v["ns_per_op"]["median"], 30.0);
        assert_eq!(v["ops"], 10);
    }
}
