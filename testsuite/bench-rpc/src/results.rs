//! Result rows and what is computed from them.

use crate::graphs::Throughput;
use crate::plan::{Contender, Part, Placement, System, Wait};
use crate::process::Sample;
use serde::Serialize;
use std::collections::BTreeMap;

/// What identifies a measurement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The part of the benchmark.
    pub part: Part,
    /// The row, in the order of the tables.
    pub row: (usize, String),
    /// System and wait.
    pub contender: Contender,
    /// Where the sides ran.
    pub placement: Placement,
}

/// A value over the rounds.
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

/// Latencies of an open loop, each over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latencies {
    /// 50 % of the calls were done after so many nanoseconds.
    pub p50: Spread,
    /// 99 %.
    pub p99: Spread,
    /// 99.9 %.
    pub p999: Spread,
    /// All.
    pub max: Spread,
}

/// One row of the JSON result file.
#[derive(Serialize)]
struct JsonRow<'a> {
    bench: &'static str,
    part: &'a str,
    row: &'a str,
    system: System,
    wait: Wait,
    placement: Placement,
    ns_per_op: Spread,
    ops: u64,
    rounds: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ns: Option<Latencies>,
}

#[derive(Default)]
struct Samples {
    ns_per_op: Vec<f64>,
    latencies: Vec<[u64; 4]>,
    ops: u64,
}

/// All samples of a run.
#[derive(Default)]
pub struct Results {
    samples: BTreeMap<Key, Samples>,
    /// What is no call: throughput over graphs.
    pub graphs: Vec<Throughput>,
}

impl Results {
    /// Adds one round.
    pub fn add(&mut self, key: Key, sample: &Sample) {
        let samples = self.samples.entry(key).or_default();
        samples.ns_per_op.push(sample.per_call());
        samples.latencies.extend(sample.latencies);
        samples.ops += sample.units;
    }

    /// The spread of one measurement, in nanoseconds per call.
    pub fn get(&self, key: &Key) -> Option<Spread> {
        Spread::of(&self.samples.get(key)?.ns_per_op)
    }

    /// The latencies of one open loop.
    pub fn latencies(&self, key: &Key) -> Option<Latencies> {
        let samples = &self.samples.get(key)?.latencies;
        let spread = |at: usize| {
            let values: Vec<f64> = samples.iter().map(|l| l[at] as f64).collect();
            Spread::of(&values)
        };
        Some(Latencies {
            p50: spread(0)?,
            p99: spread(1)?,
            p999: spread(2)?,
            max: spread(3)?,
        })
    }

    /// The row of a contender at the placement where its median is best.
    pub fn best(&self, part: Part, row: &str, contender: Contender) -> Option<(Placement, Spread)> {
        let of = |(key, samples): (&Key, &Samples)| {
            let same = key.part == part && key.row.1 == row && key.contender == contender;
            same.then(|| Some((key.placement, Spread::of(&samples.ns_per_op)?)))?
        };
        self.samples
            .iter()
            .filter_map(of)
            .min_by(|a, b| a.1.median.total_cmp(&b.1.median))
    }

    /// The rows of a part, in order.
    pub fn rows(&self, part: Part) -> Vec<String> {
        let mut rows: Vec<_> = self.keys(part).map(|k| k.row.clone()).collect();
        rows.sort();
        rows.dedup();
        rows.into_iter().map(|(_, name)| name).collect()
    }

    /// The contenders of a part, in order.
    pub fn contenders(&self, part: Part) -> Vec<Contender> {
        let mut all: Vec<_> = self.keys(part).map(|k| k.contender).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The measurements of a part.
    pub fn keys(&self, part: Part) -> impl Iterator<Item = &Key> {
        self.samples.keys().filter(move |k| k.part == part)
    }

    /// One JSON object per line and measurement.
    pub fn json_lines(&self) -> String {
        let calls = self.lines(|key, samples| {
            let row = JsonRow {
                bench: "rpc",
                part: part_name(key.part),
                row: &key.row.1,
                system: key.contender.system,
                wait: key.contender.wait,
                placement: key.placement,
                ns_per_op: Spread::of(&samples.ns_per_op)?,
                ops: samples.ops,
                rounds: samples.ns_per_op.len(),
                latency_ns: self.latencies(key),
            };
            serde_json::to_string(&row).ok()
        });
        let graphs = self
            .graphs
            .iter()
            .filter_map(|t| serde_json::to_string(t).ok());
        graphs.fold(calls, |text, line| text + &line + "\n")
    }

    /// Every round, for those who want to compute something else.
    pub fn raw_lines(&self) -> String {
        self.lines(|key, samples| {
            let row = serde_json::json!({
                "bench": "rpc", "part": part_name(key.part), "row": key.row.1,
                "contender": key.contender.to_string(), "placement": key.placement,
                "ns_per_op": samples.ns_per_op, "latencies_ns": samples.latencies,
            });
            Some(row.to_string())
        })
    }

    fn lines(&self, line: impl Fn(&Key, &Samples) -> Option<String>) -> String {
        self.samples
            .iter()
            .filter_map(|(key, samples)| line(key, samples))
            .map(|line| line + "\n")
            .collect()
    }
}

/// The name of a part in result rows.
pub fn part_name(part: Part) -> &'static str {
    match part {
        Part::Calls => "calls",
        Part::Load => "load",
        Part::Clients => "clients",
        Part::Cooldb => "cooldb",
        Part::Graphs => "graphs",
        Part::Memcached => "memcached",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(placement: Placement) -> Key {
        Key {
            part: Part::Calls,
            row: (0, "no-op".to_owned()),
            contender: Contender {
                system: System::Futex,
                wait: Wait::Block,
            },
            placement,
        }
    }

    fn sample(ns: u64) -> Sample {
        Sample {
            ns,
            units: 10,
            ..Sample::default()
        }
    }

    #[test]
    fn a_contender_is_taken_at_its_best_placement() {
        let mut results = Results::default();
        for ns in [90, 50, 70] {
            results.add(key(Placement::Same), &sample(ns));
            results.add(key(Placement::Two), &sample(2 * ns));
        }
        let best = results.best(Part::Calls, "no-op", key(Placement::Two).contender);
        let (placement, spread) = best.unwrap();
        assert_eq!(placement, Placement::Same);
        assert_eq!((spread.median, spread.min, spread.max), (7.0, 5.0, 9.0));
        assert_eq!(results.rows(Part::Calls), ["no-op"]);
        assert!(results.rows(Part::Cooldb).is_empty());
    }

    #[test]
    fn json_rows_have_the_agreed_fields() {
        let mut results = Results::default();
        results.add(key(Placement::Same), &sample(300));
        let row: serde_json::Value = serde_json::from_str(results.json_lines().trim()).unwrap();
        assert_eq!(row["bench"], "rpc");
        assert_eq!(row["part"], "calls");
        assert_eq!(row["row"], "no-op");
        assert_eq!(row["system"], "futex");
        assert_eq!(row["wait"], "block");
        assert_eq!(row["placement"], "same");
        assert_eq!(row["ns_per_op"]["median"], 30.0);
        assert_eq!(row["ops"], 10);
        assert!(row.get("latency_ns").is_none());
    }
}
