//! Direct pools of puddled in programs, through `vernal-pool`: several writers of several users, each killed at any point.

use std::collections::BTreeSet;
use std::path::Path;

use vernal_puddled_tests::{Actor, Place, USER_A, USER_B, need_root};

fn place() -> Place {
    Place::new_in_memory(
        env!("CARGO_BIN_EXE_puddled-under-test"),
        env!("CARGO_BIN_EXE_puddled-actor"),
    )
}

fn program(place: &Place, name: &str, uid: Option<u32>) -> Actor {
    place.run(Path::new(env!("CARGO_BIN_EXE_puddled-program")), name, uid)
}

#[test]
fn a_writer_dies_with_the_allocator_and_the_others_go_on() {
    if !need_root("direct pools of two users") {
        return;
    }
    let mut place = place();
    place.start();
    let mut a = program(&place, "a", Some(USER_A));
    a.ok("open both d");
    place.client().set_mode("both", 0o666).unwrap();
    a.ok("push both 1 2");
    let mut b = program(&place, "b", Some(USER_B));
    b.ok("open both w");
    assert_eq!(b.ok("list both"), "2,1");
    b.ok("push both 3 1");
    a.ok("push both 4 1");
    assert_eq!(b.ok("list both"), "4,3,2,1");
    // It has changed the root in place, and holds the lock of the allocator.
    a.ok("torn both 99");
    b.send("push both 5 1");
    std::fs::remove_file(&a.program).unwrap();
    a.kill();
    // puddled undoes what it left, and frees the lock.
    assert_eq!(b.answer(), "ok");
    assert_eq!(b.ok("list both"), "5,4,3,2,1");
    // One that aborts gives it back, too.
    b.ok("torn both 98");
    b.ok("abort");
    let mut c = program(&place, "c", Some(USER_A));
    c.ok("open both w");
    c.ok("push both 6 1");
    b.ok("push both 7 1");
    assert_eq!(c.ok("list both"), "7,6,5,4,3,2,1");
    b.ok("close both");
    c.ok("close both");
    b.end();
    c.end();
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}

#[test]
fn puddles_that_another_writer_adds_are_mapped_when_they_are_met() {
    let mut place = place();
    place.start();
    let mut a = program(&place, "a", None);
    let mut b = program(&place, "b", None);
    a.ok("open pool d");
    b.ok("open pool w");
    a.ok("push pool 1 1");
    a.ok("big pool 3000000");
    b.ok("push pool 2 1");
    // Each adds one that the other one does not know.
    b.ok("big pool 9000000");
    a.ok("push pool 3 1");
    a.ok("big pool 9000000");
    b.ok("push pool 4 1");
    assert_eq!(a.ok("list pool"), "4,3,2,1");
    a.ok("torn pool 99");
    a.kill();
    b.ok("push pool 5 1");
    assert_eq!(b.ok("list pool"), "5,4,3,2,1");
    b.ok("close pool");
    // The log serves the next pool.
    b.ok("open other d");
    b.ok("push other 1 1");
    b.ok("torn other 2");
    b.kill();
    let mut c = program(&place, "c", None);
    c.ok("open other w");
    assert_eq!(c.ok("list other"), "1");
    c.end();
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}

#[test]
fn writers_are_killed_again_and_again_and_nothing_durable_is_lost() {
    let mut place = place();
    place.start();
    let mut steady = program(&place, "steady", None);
    steady.ok("open pool d");
    let mut durable = BTreeSet::new();
    for round in 0..12u64 {
        let mut toiler = program(&place, "toiler", None);
        toiler.ok("open pool w");
        let first = round * 1000 + 1;
        toiler.send(&format!("toil pool {first} 500"));
        for value in first..first + 3 + round * 7 {
            assert_eq!(toiler.answer(), format!("ok {value}"));
            durable.insert(value);
        }
        let mine = 100_000 + round;
        steady.send(&format!("push pool {mine} 1"));
        // Somewhere inside one of its transactions, and while the other one waits for it or does not.
        toiler.kill();
        assert_eq!(steady.answer(), "ok");
        durable.insert(mine);
    }
    let list: Vec<u64> = steady
        .ok("list pool")
        .split(',')
        .map(|v| v.parse().unwrap())
        .collect();
    let found: BTreeSet<u64> = list.iter().copied().collect();
    assert_eq!(found.len(), list.len(), "a value is there twice");
    let lost: Vec<_> = durable.difference(&found).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    steady.ok("close pool");
    steady.end();
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}

#[test]
fn puddled_dies_and_what_is_open_goes_on() {
    let mut place = place();
    place.start();
    let mut p = program(&place, "p", None);
    p.ok("open pool d");
    p.ok("push pool 1 1");
    place.kill();
    p.ok("push pool 2 1");
    p.ok("torn pool 99");
    place.start();
    p.kill();
    let mut q = program(&place, "q", None);
    q.ok("open pool w");
    assert_eq!(q.ok("list pool"), "2,1");
}

#[test]
fn one_log_serves_one_kind_of_home() {
    let mut place = place();
    place.start();
    let mut p = program(&place, "p", None);
    let dir = place.dir().join("own.pool");
    p.ok("open pool d");
    let text = p.refused(&format!("embed {}", dir.display()), "Access");
    assert!(text.contains("close them first"), "{text}");
    p.ok("close pool");
    p.ok(&format!("embed {}", dir.display()));
    let text = p.refused("open pool w", "Access");
    assert!(text.contains("close them first"), "{text}");
    p.ok(&format!("close {}", dir.display()));
    p.ok("open pool w");
    p.refused("open missing r", "NotFound");
    p.ok("close pool");
    let text = p.refused("open pool r", "Access");
    assert!(text.contains("only be opened for writing"), "{text}");
    p.end();
}
