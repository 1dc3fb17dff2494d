//! Every scenario on every medium: no crash state may be inconsistent. The runner does the same at greater depth.

use vernal_crash::run::{Depth, Options, run};
use vernal_crash::scenarios::{SCENARIOS, Scenario};
use vernal_crash::world::Geometry;

const SEED: u64 = 1;

fn explore(name: &str) {
    let scenario = Scenario::by_name(name).expect("a scenario of the table");
    let options = Options {
        depth: Depth::Quick,
        seed: SEED,
        threads: 1,
        only_event: None,
    };
    for geometry in [Geometry::DAX, Geometry::SECTOR, Geometry::BLOCK] {
        let outcome =
            run(scenario, geometry, &options).unwrap_or_else(|violation| panic!("{violation}"));
        let totals = outcome.totals;
        println!(
            "{name} on {}: {} states, {} inside a recovery, {:.0} states/s, seed {SEED}",
            geometry.name(),
            totals.states,
            totals.nested,
            totals.states as f64 / outcome.seconds
        );
        assert!(totals.states > 100, "next to nothing was explored");
        assert!(
            geometry != Geometry::DAX || totals.nested > 100,
            "crashes inside recovery were not explored"
        );
    }
}

/// One test for each scenario, by its name.
macro_rules! scenarios {
    ($($test:ident $name:literal)*) => {
        $(
            #[test]
            fn $test() {
                explore($name);
            }
        )*

        #[test]
        fn every_scenario_has_its_test() {
            let tested = [$($name),*];
            let all: Vec<_> = SCENARIOS.iter().map(|s| s.name).collect();
            assert_eq!(tested.as_slice(), all);
        }
    };
}

scenarios! {
    list "list"
    btree "btree"
    kv "kv"
    two_files "two-files"
    runs "runs"
    resize "resize"
    checkpoint "checkpoint"
    growing_log "growing-log"
    asynchronous "async"
    grow_journal "grow-journal"
    abort "abort"
    sessions "sessions"
}
