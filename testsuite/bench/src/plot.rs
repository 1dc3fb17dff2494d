//! The plot: for each medium and number of operations per commit, one panel of dots on a logarithmic axis, as SVG.

use crate::compile::system_name;
use crate::machine::Machine;
use crate::plan::{BATCHES, Media, Row, System};
use crate::results::{Results, media_name};
use std::fmt::Write;

const LEFT: f64 = 110.0;
const PLOT_WIDTH: f64 = 620.0;
const LINE: f64 = 18.0;
const PANEL_GAP: f64 = 56.0;
const HEAD: f64 = 74.0;
const LEGEND: f64 = 150.0;

/// Colours that stay apart for colour-blind readers (Okabe and Ito), and marks that stay apart without colour.
fn style(system: System) -> (&'static str, char) {
    match system {
        System::Vernal => ("#d55e00", 'o'),
        System::Volatile => ("#000000", '|'),
        System::Pmdk => ("#0072b2", 's'),
        System::Msync => ("#999999", 'd'),
        System::Lmdb => ("#009e73", 's'),
        System::Sqlite => ("#56b4e9", 'd'),
        System::Redb => ("#e69f00", 's'),
        System::KyotoWal => ("#cc79a7", 's'),
        System::KyotoNowal => ("#cc79a7", 'd'),
        System::KyotoVernal => ("#d55e00", 'd'),
        // `bench puddles` draws no plot.
        System::Pool | System::Direct => ("#000000", 's'),
    }
}

/// The whole plot.
pub fn svg(results: &Results, machine: &Machine) -> String {
    let panels: Vec<(Media, u64, Vec<Row>)> = results
        .media()
        .into_iter()
        .flat_map(|media| BATCHES.map(|batch| (media, batch)))
        .map(|(media, batch)| {
            let rows = results
                .lines(media)
                .into_iter()
                .filter(|l| l.1 == batch)
                .map(|l| l.0)
                .collect();
            (media, batch, rows)
        })
        .filter(|(_, _, rows): &(_, _, Vec<Row>)| !rows.is_empty())
        .collect();
    let medians = |media: Media, rows: &[Row], batch: u64| -> Vec<f64> {
        let cells = rows.iter().flat_map(|&r| {
            results
                .systems(media)
                .into_iter()
                .map(move |s| (media, r, batch, s))
        });
        cells
            .filter_map(|key| results.get(key))
            .map(|s| s.median)
            .filter(|&m| m > 0.0)
            .collect()
    };
    let all: Vec<f64> = panels
        .iter()
        .flat_map(|(m, b, rows)| medians(*m, rows, *b))
        .collect();
    let low = all
        .iter()
        .copied()
        .fold(f64::INFINITY, f64::min)
        .min(1e9)
        .log10()
        .floor();
    let high = all
        .iter()
        .copied()
        .fold(1.0, f64::max)
        .log10()
        .ceil()
        .max(low + 1.0);
    let x = |ns: f64| LEFT + (ns.max(1e-3).log10() - low) / (high - low) * PLOT_WIDTH;

    let mut body = String::new();
    let mut y = HEAD;
    for (media, batch, rows) in &panels {
        panel(
            &mut body,
            results,
            *media,
            *batch,
            rows,
            y,
            &x,
            (low as i32, high as i32),
        );
        y += rows.len() as f64 * LINE + PANEL_GAP;
    }
    let mut systems: Vec<System> = results
        .media()
        .into_iter()
        .flat_map(|m| results.systems(m))
        .collect();
    systems.sort_unstable();
    systems.dedup();
    for (i, &system) in systems.iter().enumerate() {
        let (cx, cy) = (LEFT + PLOT_WIDTH + 30.0, HEAD + 20.0 * i as f64);
        mark(&mut body, system, cx, cy);
        let _ = writeln!(
            body,
            r#"<text x="{}" y="{}">{}</text>"#,
            cx + 12.0,
            cy + 4.0,
            system_name(system)
        );
    }
    let (width, height) = (
        LEFT + PLOT_WIDTH + LEGEND,
        y.max(HEAD + 20.0 * systems.len() as f64 + 20.0),
    );
    let machine = escape(&machine.to_string());
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="16" y="22" font-size="15" font-weight="bold">bench persist: nanoseconds per operation, medians (lines: best to worst round)</text>
<text x="16" y="40" font-size="10" fill="#555555">{machine}</text>
{body}</svg>
"##
    )
}

#[allow(clippy::too_many_arguments)] // one call site; the values have nothing in common
fn panel(
    body: &mut String,
    results: &Results,
    media: Media,
    batch: u64,
    rows: &[Row],
    top: f64,
    x: &impl Fn(f64) -> f64,
    decades: (i32, i32),
) {
    let bottom = top + rows.len() as f64 * LINE;
    let commit = if batch == 1 {
        "a commit per operation".to_owned()
    } else {
        format!("{batch} operations per commit")
    };
    let _ = writeln!(
        body,
        r#"<text x="{LEFT}" y="{}" font-weight="bold">{}, {commit}</text>"#,
        top - 8.0,
        media_name(media)
    );
    for decade in decades.0..=decades.1 {
        let at = x(10f64.powi(decade));
        let label = match decade {
            ..=2 => format!("{} ns", 10f64.powi(decade)),
            3..=5 => format!("{} µs", 10f64.powi(decade - 3)),
            _ => format!("{} ms", 10f64.powi(decade - 6)),
        };
        let _ = writeln!(
            body,
            r##"<path d="M{at:.1} {top:.1}V{bottom:.1}" stroke="#dddddd"/>"##
        );
        let _ = writeln!(
            body,
            r##"<text x="{at:.1}" y="{:.1}" font-size="10" fill="#555555" text-anchor="middle">{label}</text>"##,
            bottom + 13.0
        );
    }
    for (i, &row) in rows.iter().enumerate() {
        let cy = top + (i as f64 + 0.5) * LINE;
        let _ = writeln!(
            body,
            r#"<text x="{}" y="{:.1}" text-anchor="end">{row}</text>"#,
            LEFT - 10.0,
            cy + 4.0
        );
        for system in results.systems(media) {
            if let Some(s) = results.get((media, row, batch, system)) {
                let (colour, _) = style(system);
                let _ = writeln!(
                    body,
                    r#"<path d="M{:.1} {cy:.1}H{:.1}" stroke="{colour}" stroke-opacity="0.4"/>"#,
                    x(s.min),
                    x(s.max)
                );
                mark(body, system, x(s.median), cy);
            }
        }
    }
}

fn mark(body: &mut String, system: System, x: f64, y: f64) {
    let (colour, shape) = style(system);
    let _ = match shape {
        'o' => writeln!(
            body,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.5" fill="{colour}"/>"#
        ),
        '|' => writeln!(
            body,
            r#"<path d="M{x:.1} {:.1}v12" stroke="{colour}" stroke-width="2.5"/>"#,
            y - 6.0
        ),
        's' => writeln!(
            body,
            r#"<rect x="{:.1}" y="{:.1}" width="7" height="7" fill="{colour}"/>"#,
            x - 3.5,
            y - 3.5
        ),
        _ => writeln!(
            body,
            r#"<path d="M{x:.1} {:.1}l5 5l-5 5l-5 -5z" fill="{colour}"/>"#,
            y - 5.0
        ),
    };
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Sample;

    #[test]
    fn every_measurement_is_a_mark() {
        let mut results = Results::default();
        for (system, ns) in [(System::Vernal, 100), (System::Pmdk, 1000)] {
            let sample = Sample {
                ns,
                units: 1,
                sum: 0,
                misses: 0,
            };
            results.add((Media::Shm, Row::Ycsb('A'), 1, system), &sample);
        }
        let machine = Machine::this(&std::env::temp_dir()).unwrap();
        let svg = svg(&results, &machine);
        // One in the panel and one in the legend each.
        assert_eq!(svg.matches("<circle").count(), 2);
        assert_eq!(svg.matches("<rect x=").count(), 2);
        assert!(svg.contains("shm, a commit per operation"));
        assert!(svg.trim_end().ends_with("</svg>"));
    }
}
