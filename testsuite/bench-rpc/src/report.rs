//! The tables, and which of the floors hold.

use crate::floors::floors;
use crate::machine::Machine;
use crate::plan::{Contender, Part, Placement};
use crate::results::{Key, Results};
use std::fmt::Write;

/// All that the run prints at its end.
pub fn text(results: &Results, machine: &Machine, skipped: &[(String, String)]) -> String {
    let mut text = format!("{machine}\n");
    calls(&mut text, results);
    load(&mut text, results);
    clients(&mut text, results);
    cooldb(&mut text, results);
    graphs(&mut text, results);
    memcached(&mut text, results);
    let floors = floors(results);
    if !floors.is_empty() {
        text.push_str("\nfloors\n");
    }
    for floor in &floors {
        let state = if floor.holds() { "PASS" } else { "LOST" };
        let _ = writeln!(
            text,
            "{state}  {:<64}{:>10}  (at least {:.2})",
            floor.what,
            number(floor.ratio),
            floor.floor
        );
    }
    for (what, why) in skipped {
        // Infallible here and below: writing to a String.
        let _ = writeln!(text, "not measured: {what}: {why}");
    }
    text
}

/// A number with about three digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 100.0 => format!("{value:.1}"),
        v if v < 1e5 => format!("{value:.0}"),
        v if v < 1e7 => format!("{:.0}k", value / 1e3),
        _ => format!("{:.1}M", value / 1e6),
    }
}

/// The median of each measurement of a part, in a table of contenders and rows.
fn grid(
    text: &mut String,
    results: &Results,
    part: Part,
    title: &str,
    cell: impl Fn(&str, Contender) -> Option<String>,
) {
    let rows = results.rows(part);
    if rows.is_empty() {
        return;
    }
    let _ = write!(text, "\n{title:<34}");
    for row in &rows {
        let _ = write!(text, "{row:>15}");
    }
    text.push('\n');
    for contender in results.contenders(part) {
        let cells: Vec<_> = rows.iter().map(|row| cell(row, contender)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(text, "{:<34}", contender.to_string());
        for cell in cells {
            let _ = write!(text, "{:>15}", cell.unwrap_or_else(|| "-".to_owned()));
        }
        text.push('\n');
    }
}

fn calls(text: &mut String, results: &Results) {
    grid(
        text,
        results,
        Part::Calls,
        "ns per call, best placement",
        |row, contender| {
            let (placement, spread) = results.best(Part::Calls, row, contender)?;
            Some(format!("{} {}", number(spread.median), placement.name()))
        },
    );
    for placement in [Placement::Same, Placement::Two] {
        let title = match placement {
            Placement::Same => "ns per call, one CPU",
            _ => "ns per call, two CPUs",
        };
        grid(text, results, Part::Calls, title, |row, contender| {
            let key = find(results, Part::Calls, row, contender, placement)?;
            Some(number(results.get(key)?.median))
        });
    }
}

fn find<'a>(
    results: &'a Results,
    part: Part,
    row: &str,
    contender: Contender,
    placement: Placement,
) -> Option<&'a Key> {
    results
        .keys(part)
        .find(|k| k.row.1 == row && k.contender == contender && k.placement == placement)
}

/// Below this part of the wanted rate a system is saturated: its latencies only say how long the loop ran.
const KEPT_UP: f64 = 0.9;

fn load(text: &mut String, results: &Results) {
    for (at, name) in [(0, "p50"), (1, "p99"), (2, "p99.9")] {
        let title = format!("{name} in us, 64 B, calls/s due:");
        grid(text, results, Part::Load, &title, |row, contender| {
            let (placement, spread) = results.best(Part::Load, row, contender)?;
            let key = find(results, Part::Load, row, contender, placement)?;
            let latencies = results.latencies(key)?;
            let rate: f64 = row.parse().ok()?;
            if 1e9 / spread.median < KEPT_UP * rate {
                return Some("saturated".to_owned());
            }
            let all = [latencies.p50, latencies.p99, latencies.p999];
            Some(number(all.get(at)?.median / 1e3))
        });
    }
}

fn clients(text: &mut String, results: &Results) {
    grid(
        text,
        results,
        Part::Clients,
        "calls/s, 64 B, not pinned; clients:",
        |row, contender| {
            let (_, spread) = results.best(Part::Clients, row, contender)?;
            Some(number(1e9 / spread.median))
        },
    );
}

fn graphs(text: &mut String, results: &Results) {
    if results.graphs.is_empty() {
        return;
    }
    text.push_str("\ngraphs of a peer: B-tree nodes of 144 B      GB/s     M pointers/s\n");
    for t in &results.graphs {
        let _ = writeln!(
            text,
            "{:<8}{:>8} nodes {:>30}{:>17}",
            t.what,
            t.nodes,
            number(t.gb_per_s.median),
            number(t.mpointers_per_s.median)
        );
    }
}

fn memcached(text: &mut String, results: &Results) {
    let part = Part::Memcached;
    grid(
        text,
        results,
        part,
        "memcached, us per operation",
        |row, contender| {
            let (placement, spread) = results.best(part, row, contender)?;
            Some(format!(
                "{} {}",
                number(spread.median / 1e3),
                placement.name()
            ))
        },
    );
}

fn cooldb(text: &mut String, results: &Results) {
    grid(
        text,
        results,
        Part::Cooldb,
        "CoolDB, us per operation",
        |row, contender| {
            let (placement, spread) = results.best(Part::Cooldb, row, contender)?;
            Some(format!(
                "{} {}",
                number(spread.median / 1e3),
                placement.name()
            ))
        },
    );
}
