//! What the results must show.

use crate::plan::{Contender, Part, System, Wait};
use crate::results::Results;

/// A ratio and what it must reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Floor {
    /// What is compared: `slower / faster`.
    pub what: String,
    /// The measured ratio.
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

/// Rows of the store and how much faster they must be than over gRPC.
const STORE: [(&str, f64); 4] = [
    ("insert", 8.0),
    ("find 10", 20.0),
    ("find 100", 20.0),
    ("find 1000", 20.0),
];

/// Every floor that the results can judge. Each system is taken at its best placement, polling apart from blocking.
pub fn floors(results: &Results) -> Vec<Floor> {
    let mut all = Floors {
        results,
        floors: Vec::new(),
    };
    let poll = |system| contender(system, Wait::Poll);
    let block = |system| contender(system, Wait::Block);
    let (vernal, row) = (System::Vernal, "no-op");
    let calls = Part::Calls;
    // Ratios below 1: at most 2.5 times the memory's own ping-pong, 1.3 times the futex's.
    all.ratio(calls, row, &[poll(System::Lines)], poll(vernal), 1.0 / 2.5);
    all.ratio(calls, row, &[poll(System::Iceoryx2)], poll(vernal), 3.0);
    all.ratio(
        calls,
        row,
        &[block(System::Futex)],
        block(vernal),
        1.0 / 1.3,
    );
    let tonic = [block(System::Tonic), poll(System::Tonic)];
    all.ratio(calls, row, &tonic, poll(vernal), 30.0);
    all.ratio(calls, row, &[block(System::Tonic)], block(vernal), 2.0);
    for peer in [System::Tonic, System::Grpc] {
        for (row, floor) in STORE {
            all.ratio(Part::Cooldb, row, &[block(peer)], poll(vernal), floor);
        }
    }
    for row in ["A 50/50", "C GET"] {
        let part = Part::Memcached;
        let socket = [block(System::Uds)];
        all.ratio(part, row, &socket, poll(System::Shim), 5.0);
        all.ratio(part, row, &socket, block(System::Shim), 1.0);
    }
    for t in &results.graphs {
        let (gb, pointers) = (t.gb_per_s.median, t.mpointers_per_s.median);
        let (what, ratio) = match t.what {
            "verify" => (
                "2 GB/s or 100 M pointers/s",
                (gb / 2.0).max(pointers / 100.0),
            ),
            _ => ("1 GB/s", gb),
        };
        all.floors.push(Floor {
            what: format!("{} of {} nodes / {what}", t.what, t.nodes),
            ratio,
            floor: 1.0,
        });
    }
    all.floors
}

fn contender(system: System, wait: Wait) -> Contender {
    Contender { system, wait }
}

struct Floors<'a> {
    results: &'a Results,
    floors: Vec<Floor>,
}

impl Floors<'_> {
    /// `slow` is one system in its forms, of which the fastest counts.
    fn ratio(&mut self, part: Part, row: &str, slow: &[Contender], fast: Contender, floor: f64) {
        let best = |c| self.results.best(part, row, c).map(|(_, s)| s.median);
        let slow = slow.iter().filter_map(|&c| Some((c, best(c)?)));
        let slow = slow.min_by(|a, b| a.1.total_cmp(&b.1));
        if let (Some((name, a)), Some(b)) = (slow, best(fast))
            && b > 0.0
        {
            self.floors.push(Floor {
                what: format!("{row}: {name} / {fast}"),
                ratio: a / b,
                floor,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Placement;
    use crate::process::Sample;
    use crate::results::Key;

    #[test]
    fn floors_compare_best_placements_and_say_what_is_lost() {
        let mut results = Results::default();
        let mut add = |system, wait, placement, ns| {
            let key = Key {
                part: Part::Calls,
                row: (0, "no-op".to_owned()),
                contender: contender(system, wait),
                placement,
            };
            let sample = Sample {
                ns,
                units: 1,
                ..Sample::default()
            };
            results.add(key, &sample);
        };
        add(System::Futex, Wait::Block, Placement::Same, 4000);
        add(System::Futex, Wait::Block, Placement::Two, 20_000);
        add(System::Vernal, Wait::Block, Placement::Same, 5000);
        add(System::Vernal, Wait::Poll, Placement::Two, 200);
        add(System::Lines, Wait::Poll, Placement::Two, 70);
        add(System::Tonic, Wait::Block, Placement::Same, 30_000);
        let floors = floors(&results);
        let find = |what: &str| floors.iter().find(|f| f.what == what).unwrap();
        let futex = find("no-op: futex / vernal-block");
        assert!(futex.holds() && (futex.ratio - 0.8).abs() < 1e-9);
        assert!(!find("no-op: lines / vernal-poll").holds());
        assert!(find("no-op: tonic-block / vernal-poll").holds());
        assert!(
            !floors.iter().any(|f| f.what.contains("iceoryx2")),
            "not measured"
        );
    }
}
