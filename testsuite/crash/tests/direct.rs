//! Direct transactions: every crash state of every life, what a transaction costs in fences, and damaged or forged logs.

use vernal_crash::direct::scenarios::{DIRECT_SCENARIOS, DirectScenario};
use vernal_crash::direct::{DirectSession, DirectSetup};
use vernal_crash::run::{Depth, Options, run_trace};
use vernal_crash::world::Geometry;

const SEED: u64 = 1;

fn explore(name: &str) {
    let scenario = DirectScenario::by_name(name).expect("a scenario of the table");
    let options = Options {
        depth: Depth::Quick,
        seed: SEED,
        threads: 1,
        only_event: None,
    };
    let trace = scenario.trace(SEED).unwrap();
    let outcome = run_trace(name, &trace, Geometry::DAX, &options)
        .unwrap_or_else(|violation| panic!("{violation}"));
    let totals = outcome.totals;
    println!(
        "{name}: {} states, {} inside a recovery, {:.0} states/s, seed {SEED}",
        totals.states,
        totals.nested,
        totals.states as f64 / outcome.seconds
    );
    assert!(
        totals.states > 1000 && totals.nested > 10,
        "next to nothing was explored"
    );
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
            let all: Vec<_> = DIRECT_SCENARIOS.iter().map(|s| s.name).collect();
            assert_eq!(tested.as_slice(), all);
        }
    };
}

scenarios! {
    direct_undo "direct-undo"
    direct_redo "direct-redo"
    direct_hybrid "direct-hybrid"
    direct_fresh "direct-fresh"
    direct_abort "direct-abort"
    direct_mixed "direct-mixed"
    direct_chain "direct-chain"
    direct_threads "direct-threads"
    direct_generations "direct-generations"
}

fn session() -> DirectSession {
    DirectSession::start(&DirectSetup {
        pool: 4096,
        log: 16384,
        files: 1,
        threads: 1,
        generation: 1,
    })
    .unwrap()
}

/// The fences of what a life does.
fn fences(s: &mut DirectSession, act: impl FnOnce(&mut DirectSession)) -> u64 {
    let before = s.home(0).fences;
    act(s);
    s.home(0).fences - before
}

#[test]
fn a_transaction_takes_the_fences_that_the_format_states() {
    let mut s = session();
    let undo = |s: &mut DirectSession, n: u64| {
        for i in 0..n {
            s.set(0, 64 * i, s.load(0, 64 * i) + 1).unwrap();
        }
    };
    let redo = |s: &mut DirectSession, m: u64| {
        for i in 0..m {
            s.redo(0, 2048 + 64 * i, &[i as u8 + 1; 8]).unwrap();
        }
    };
    for round in 0..3 {
        let empty = fences(&mut s, |s| {
            s.begin(0);
            s.commit(0).unwrap();
        });
        assert_eq!(empty, 0, "round {round}");
        for n in [1, 2, 7] {
            let count = fences(&mut s, |s| {
                s.begin(0);
                undo(s, n);
                s.commit(0).unwrap();
            });
            assert_eq!(count, n + 2, "{n} undo entries");
            let count = fences(&mut s, |s| {
                s.begin(0);
                redo(s, n);
                s.commit(0).unwrap();
            });
            assert_eq!(count, 3, "{n} redo entries");
            let count = fences(&mut s, |s| {
                s.begin(0);
                undo(s, n);
                redo(s, 5);
                s.commit(0).unwrap();
            });
            assert_eq!(count, n + 4, "{n} undo entries and 5 redo entries");
            let count = fences(&mut s, |s| {
                s.begin(0);
                undo(s, n);
                redo(s, 5);
                s.abort(0).unwrap();
            });
            assert_eq!(count, n + 2, "abort with {n} undo entries");
        }
        let count = fences(&mut s, |s| {
            s.begin(0);
            redo(s, 5);
            s.log(0).volatile(7, &[1; 100]).unwrap();
            s.abort(0).unwrap();
        });
        assert_eq!(count, 0, "abort without undo entries");
        let count = fences(&mut s, |s| {
            s.begin(0);
            s.touch(0, 512, 200).unwrap();
            s.store(0, 512, 9 + round);
            s.commit(0).unwrap();
        });
        assert_eq!(count, 1, "memory that was free");
    }
}

#[test]
fn a_range_is_logged_once_and_exactly() {
    let mut s = session();
    s.begin(0);
    s.undo(0, 100, 50).unwrap();
    let logged = |s: &mut DirectSession, off, len| fences(s, |s| s.undo(0, off, len).unwrap());
    assert_eq!(logged(&mut s, 100, 50), 0, "the same range");
    assert_eq!(logged(&mut s, 120, 8), 0, "inside it");
    assert_eq!(logged(&mut s, 0, 0), 0, "nothing");
    assert_eq!(logged(&mut s, 149, 2), 1, "one byte beyond it");
    assert_eq!(logged(&mut s, 99, 52), 1, "one byte before it");
    assert_eq!(logged(&mut s, 64, 128), 1, "all around it, in pieces");
    assert_eq!(logged(&mut s, 64, 128), 0);
    for off in 64..192 {
        s.store_bytes(0, off, &[0xaa]);
    }
    s.abort(0).unwrap();
    s.begin(0);
    assert_eq!(logged(&mut s, 100, 50), 1, "another transaction");
    s.commit(0).unwrap();
}

#[test]
fn volatile_memory_comes_back_on_abort_and_stays_on_commit() {
    let mut s = session();
    s.begin(0);
    s.log(0).volatile(0x1000, &[1; 8]).unwrap();
    s.log(0).volatile(0x1000, &[2; 8]).unwrap();
    s.abort(0).unwrap();
    // The older value is restored last.
    assert_eq!(s.home(0).volatile.get(&0x1000), Some(&vec![1; 8]));
    s.home(0).volatile.clear();
    s.begin(0);
    s.log(0).volatile(0x1000, &[1; 8]).unwrap();
    s.commit(0).unwrap();
    assert!(s.home(0).volatile.is_empty());
}

#[test]
fn a_log_that_cannot_grow_rolls_its_transaction_back() {
    let mut s = DirectSession::start(&DirectSetup {
        pool: 8192,
        log: 8192,
        files: 1,
        threads: 1,
        generation: 1,
    })
    .unwrap();
    s.begin(0);
    for i in 0..64 {
        s.set(0, 128 * i, 1).unwrap();
    }
    let e = s.undo(0, 64, 8).unwrap_err().to_string();
    assert!(e.contains("cannot grow") && e.contains("aborted"), "{e}");
    s.undo(0, 64, 8).unwrap_err();
    s.abort(0).unwrap();
    s.begin(0);
    s.set(0, 0, 5).unwrap();
    s.commit(0).unwrap();
}
