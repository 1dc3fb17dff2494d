//! The tables, and which of the floors hold.

use crate::compile::system_name;
use crate::machine::Machine;
use crate::plan::{Media, Row, Scale, Suite, System};
use crate::results::{Results, geometric_mean, media_name};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A ratio that must not fall below a floor.
#[derive(Clone, Debug, PartialEq)]
pub struct Floor {
    /// What is compared.
    pub what: String,
    /// The measured ratio; larger is better.
    pub ratio: f64,
    /// What it must reach.
    pub floor: f64,
}

impl Floor {
    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.ratio >= self.floor
    }
}

/// All that `bench persist` prints at its end.
pub fn text(
    results: &Results,
    machine: &Machine,
    scale: &Scale,
    skipped: &BTreeMap<System, String>,
    suite: Suite,
) -> String {
    let mut text = format!(
        "{machine}\n{} elements per structure; medians of nanoseconds per operation\n",
        scale.elements
    );
    for media in results.media() {
        table(&mut text, results, media);
        ratios(&mut text, results, media);
    }
    floors_text(&mut text, &floors(results, suite));
    for (system, why) in skipped {
        // Infallible: writing to a String.
        let _ = writeln!(text, "not measured: {}: {why}", system_name(*system));
    }
    text
}

fn number(ns: f64) -> String {
    match ns {
        _ if ns < 10.0 => format!("{ns:.2}"),
        _ if ns < 100.0 => format!("{ns:.1}"),
        _ if ns < 100_000.0 => format!("{ns:.0}"),
        _ => format!("{:.0}k", ns / 1000.0),
    }
}

fn table(text: &mut String, results: &Results, media: Media) {
    let systems = results.systems(media);
    let _ = write!(text, "\n{:<16}{:>6}", media_name(media), "batch");
    for &system in &systems {
        let _ = write!(text, "{:>13}", system_name(system));
    }
    text.push('\n');
    for (row, batch) in results.lines(media) {
        let _ = write!(text, "{row:<16}{batch:>6}");
        for &system in &systems {
            let cell = results
                .get((media, row, batch, system))
                .map_or("-".to_owned(), |s| number(s.median));
            let _ = write!(text, "{cell:>13}");
        }
        text.push('\n');
    }
}

/// What each line compares; a ratio above 1 means that the first is slower.
const PAIRS: [(System, System); 13] = [
    (System::Vernal, System::Volatile),
    (System::Pool, System::Volatile),
    (System::Direct, System::Volatile),
    (System::Pmdk, System::Pool),
    (System::Pmdk, System::Direct),
    (System::Pmdk, System::Vernal),
    (System::Msync, System::Vernal),
    (System::Lmdb, System::Vernal),
    (System::Sqlite, System::Vernal),
    (System::Redb, System::Vernal),
    (System::KyotoWal, System::KyotoVernal),
    (System::KyotoNowal, System::KyotoVernal),
    (System::KyotoVernal, System::Vernal),
];

fn ratios(text: &mut String, results: &Results, media: Media) {
    let lines = results.lines(media);
    let ratio = |(row, batch): (Row, u64), (a, b)| results.ratio(media, row, batch, a, b);
    let pairs: Vec<_> = PAIRS
        .into_iter()
        .filter(|&p| lines.iter().any(|&l| ratio(l, p).is_some()))
        .collect();
    if pairs.is_empty() {
        return;
    }
    let _ = write!(
        text,
        "\n{:<16}{:>6}",
        format!("{}, ratios", media_name(media)),
        ""
    );
    for (a, b) in &pairs {
        let _ = write!(text, "{:>13}", system_name(*a));
        let _ = b;
    }
    let _ = write!(text, "\n{:<16}{:>6}", "", "batch");
    for (_, b) in &pairs {
        let _ = write!(text, "{:>13}", format!("/{}", system_name(*b)));
    }
    text.push('\n');
    for &line in &lines {
        let _ = write!(text, "{:<16}{:>6}", line.0, line.1);
        for &pair in &pairs {
            let cell = ratio(line, pair).map_or("-".to_owned(), |r| format!("{r:.2}"));
            let _ = write!(text, "{cell:>13}");
        }
        text.push('\n');
    }
    let _ = write!(text, "{:<22}", "geometric mean");
    for &pair in &pairs {
        let all: Vec<f64> = lines.iter().filter_map(|&l| ratio(l, pair)).collect();
        let cell = geometric_mean(&all).map_or("-".to_owned(), |r| format!("{r:.2}"));
        let _ = write!(text, "{cell:>13}");
    }
    text.push('\n');
    if media == Media::CxlSsd {
        let _ = write!(text, "\n{:<22}", "device misses per op");
        let systems = [System::Vernal, System::Pmdk, System::Msync];
        for system in systems {
            let _ = write!(text, "{:>13}", system_name(system));
        }
        text.push('\n');
        for &(row, batch) in &lines {
            let _ = write!(text, "{row:<16}{batch:>6}");
            for system in systems {
                let cell = results.misses_per_op((media, row, batch, system));
                let _ = write!(
                    text,
                    "{:>13}",
                    cell.map_or("-".to_owned(), |m| format!("{m:.3}"))
                );
            }
            text.push('\n');
        }
    }
}

/// Every floor that the results can judge.
pub fn floors(results: &Results, suite: Suite) -> Vec<Floor> {
    let mut floors = Vec::new();
    if suite == Suite::Puddles {
        pools(&mut floors, results);
        return floors;
    }
    for media in [Media::Shm, Media::CxlSsd] {
        against_pmdk(&mut floors, results, media);
    }
    against_volatile(&mut floors, results);
    against_engines(&mut floors, results);
    kyoto(&mut floors, results);
    floors
}

fn pools(floors: &mut Vec<Floor>, results: &Results) {
    for (system, least) in [(System::Pool, 2.0), (System::Direct, 1.3)] {
        for row in Row::all().into_iter().filter(|r| r.update_heavy()) {
            if let Some(ratio) = results.ratio(Media::Shm, row, 1, System::Pmdk, system) {
                floors.push(Floor {
                    what: format!("{row}: pmdk / {}", system_name(system)),
                    ratio,
                    floor: least,
                });
            }
        }
        for row in Row::all()
            .into_iter()
            .filter(|r| matches!(r, Row::Traverse(_)))
        {
            if let Some(ratio) = results.ratio(Media::Shm, row, 1, System::Volatile, system) {
                floors.push(Floor {
                    what: format!("{row}: volatile / {}", system_name(system)),
                    ratio,
                    floor: 1.0 / 1.03,
                });
            }
        }
    }
}

fn against_pmdk(floors: &mut Vec<Floor>, results: &Results, media: Media) {
    let name = media_name(media);
    let mut ratios = Vec::new();
    for row in Row::all().into_iter().filter(|r| r.update_heavy()) {
        if let Some(ratio) = results.ratio(media, row, 1, System::Pmdk, System::Vernal) {
            ratios.push(ratio);
            floors.push(Floor {
                what: format!("{name} {row}: pmdk / vernal"),
                ratio,
                floor: 2.5,
            });
        }
    }
    if let Some(ratio) = geometric_mean(&ratios) {
        floors.push(Floor {
            what: format!("{name} update-heavy rows, geometric mean: pmdk / vernal"),
            ratio,
            floor: 3.5,
        });
    }
}

fn against_volatile(floors: &mut Vec<Floor>, results: &Results) {
    for row in Row::all().into_iter().filter(|r| !r.update_heavy()) {
        if let Some(ratio) = results.ratio(Media::Shm, row, 1, System::Volatile, System::Vernal) {
            let (kind, floor) = if row.reads_only() {
                ("read-only", 1.0 / 1.05)
            } else {
                ("read-mostly", 1.0 / 1.25)
            };
            floors.push(Floor {
                what: format!("shm {row} ({kind}): volatile / vernal"),
                ratio,
                floor,
            });
        }
    }
}

fn against_engines(floors: &mut Vec<Floor>, results: &Results) {
    for workload in ['A', 'E', 'G'] {
        let row = Row::Ycsb(workload);
        for (peer, each) in [
            (System::Lmdb, 1.5),
            (System::Redb, 1.5),
            (System::Sqlite, 0.95),
        ] {
            for (batch, floor) in [(1, each), (1000, 10.0)] {
                if let Some(ratio) = results.ratio(Media::Ext4, row, batch, peer, System::Vernal) {
                    let what = format!(
                        "ext4 {row}, {batch} per commit: {} / vernal",
                        system_name(peer)
                    );
                    floors.push(Floor { what, ratio, floor });
                }
            }
        }
    }
}

fn kyoto(floors: &mut Vec<Floor>, results: &Results) {
    for batch in crate::plan::BATCHES {
        let wal = if batch == 1 { 3.0 } else { 8.0 };
        for (peer, floor) in [(System::KyotoWal, wal), (System::KyotoNowal, 1.0)] {
            if batch == 1 && peer == System::KyotoNowal {
                continue;
            }
            if let Some(ratio) = results.ratio(
                Media::Ext4,
                Row::Ycsb('G'),
                batch,
                peer,
                System::KyotoVernal,
            ) {
                let what = format!(
                    "ext4 kv/G, {batch} per commit: {} / kyoto-vernal",
                    system_name(peer)
                );
                floors.push(Floor { what, ratio, floor });
            }
        }
    }
}

fn floors_text(text: &mut String, floors: &[Floor]) {
    if floors.is_empty() {
        return;
    }
    text.push_str("\nfloors\n");
    for f in floors {
        let verdict = if f.holds() { "PASS" } else { "LOST" };
        let _ = writeln!(
            text,
            "{verdict}  {:<58} {:>8.2}  (at least {:.2})",
            f.what, f.ratio, f.floor
        );
    }
    let lost = floors.iter().filter(|f| !f.holds()).count();
    let _ = writeln!(
        text,
        "{} of {} floors hold, {lost} lost",
        floors.len() - lost,
        floors.len()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Sample;

    fn results(cells: &[(Media, Row, u64, System, u64)]) -> Results {
        let mut r = Results::default();
        for &(media, row, batch, system, ns) in cells {
            r.add(
                (media, row, batch, system),
                &Sample {
                    ns,
                    units: 1,
                    sum: 0,
                    misses: 0,
                },
            );
        }
        r
    }

    #[test]
    fn a_row_that_misses_its_floor_is_shown_as_lost() {
        let row = Row::Ycsb('G');
        let r = results(&[
            (Media::Shm, row, 1, System::Vernal, 100),
            (Media::Shm, row, 1, System::Pmdk, 240),
        ]);
        let floors = floors(&r, Suite::Persist);
        assert_eq!(floors.len(), 2);
        assert!(floors.iter().all(|f| !f.holds()));
        let mut text = String::new();
        floors_text(&mut text, &floors);
        assert!(text.contains("LOST  shm kv/G: pmdk / vernal"), "{text}");
        assert!(text.contains("0 of 2 floors hold, 2 lost"), "{text}");
    }

    #[test]
    fn reading_within_five_percent_of_volatile_passes() {
        let row = Row::Ycsb('C');
        let r = results(&[
            (Media::Shm, row, 1, System::Vernal, 105),
            (Media::Shm, row, 1, System::Volatile, 100),
        ]);
        assert!(floors(&r, Suite::Persist)[0].holds());
    }

    #[test]
    fn kyoto_without_its_log_is_compared_from_ten_on() {
        let row = Row::Ycsb('G');
        let mut cells = vec![];
        for batch in [1, 10] {
            cells.push((Media::Ext4, row, batch, System::KyotoVernal, 10));
            cells.push((Media::Ext4, row, batch, System::KyotoWal, 85));
            cells.push((Media::Ext4, row, batch, System::KyotoNowal, 9));
        }
        let floors = floors(&results(&cells), Suite::Persist);
        let verdicts: Vec<bool> = floors.iter().map(Floor::holds).collect();
        assert_eq!(verdicts, [true, true, false]);
    }
}
