//! The table and the JSON rows.

use std::fmt::Write;

use crate::measure::Measured;

/// Pairs of (plain, vernal).
fn pairs(results: &[Measured]) -> Vec<(&Measured, &Measured)> {
    let plain = results.iter().filter(|r| !r.with_pass);
    plain
        .filter_map(|p| {
            results
                .iter()
                .find(|v| v.with_pass && v.row == p.row && v.mode == p.mode)
                .map(|v| (p, v))
        })
        .collect()
}

/// A table for people: medians, ratios, geometric means per build.
pub fn table(results: &[Measured]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:8} {:5} {:>9} {:>9} {:>7} {:>7} {:>9} {:>9} {:>7}  instructions",
        "row", "build", "plain ms", "vernal ms", "median", "min", "plain B", "vernal B", "code"
    );
    let mut modes = Vec::new();
    for (p, v) in pairs(results) {
        let ratio = |v: u64, p: u64| v as f64 / p.max(1) as f64;
        let ir = p
            .instructions
            .zip(v.instructions)
            .map(|(p, v)| format!("{:.3}", ratio(v, p)))
            .unwrap_or_default();
        let _ = writeln!(
            out,
            "{:8} {:5} {:9.1} {:9.1} {:7.3} {:7.3} {:9} {:9} {:7.3}  {ir}",
            p.row,
            p.mode.name(),
            p.median() as f64 / 1e6,
            v.median() as f64 / 1e6,
            ratio(v.median(), p.median()),
            ratio(v.times[0], p.times[0]),
            p.text,
            v.text,
            ratio(v.text, p.text),
        );
        if !modes.contains(&p.mode) {
            modes.push(p.mode);
        }
    }
    for mode in modes {
        let of = |f: &dyn Fn(&Measured) -> f64| {
            let logs: Vec<f64> = pairs(results)
                .into_iter()
                .filter(|(p, _)| p.mode == mode)
                .map(|(p, v)| (f(v) / f(p)).ln())
                .collect();
            (logs.iter().sum::<f64>() / logs.len().max(1) as f64).exp()
        };
        let _ = writeln!(
            out,
            "geometric mean, {}: time {:.3} (medians) {:.3} (minima), code {:.3}",
            mode.name(),
            of(&|m| m.median() as f64),
            of(&|m| m.times[0] as f64),
            of(&|m| m.text as f64)
        );
    }
    out
}

/// One JSON object per line.
pub fn json(results: &[Measured]) -> String {
    let mut out = String::new();
    for r in results {
        let row = serde_json::json!({
            "bench": "overhead",
            "row": r.row,
            "build": r.mode.name(),
            "system": if r.with_pass { "vernal" } else { "plain" },
            "time_ns": {"median": r.median(), "min": r.times[0], "max": r.times[r.times.len() - 1]},
            "runs": r.times.len(),
            "text_bytes": r.text,
            "instructions": r.instructions,
        });
        let _ = writeln!(out, "{row}");
    }
    out
}
