//! Every scenario on every medium: no crash state may be inconsistent. The runner does the same at greater depth.

use vernal_crash::run::{Depth, Options, run};
use vernal_crash::scenarios::SCENARIOS;
use vernal_crash::world::Geometry;

const SEED: u64 = 1;

#[test]
fn no_crash_state_is_inconsistent() {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let options = Options {
        depth: Depth::Quick,
        seed: SEED,
        threads,
        only_event: None,
    };
    let (mut states, mut nested, mut seconds) = (0, 0, 0.0);
    let mut failures = Vec::new();
    'all: for scenario in SCENARIOS {
        for geometry in [Geometry::DAX, Geometry::SECTOR, Geometry::BLOCK] {
            match run(scenario, geometry, &options) {
                Ok(outcome) => {
                    assert!(
                        outcome.totals.states > 100,
                        "{} explored next to nothing",
                        scenario.name
                    );
                    states += outcome.totals.states;
                    nested += outcome.totals.nested;
                    seconds += outcome.seconds;
                }
                Err(failure) => {
                    failures.push(failure);
                    // A few tell enough.
                    if failures.len() == 3 {
                        break 'all;
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(nested > 1000, "crashes inside recovery were not explored");
    println!(
        "{states} states ({nested} inside a recovery), {:.0} states/s, seed {SEED}",
        states as f64 / seconds
    );
}
