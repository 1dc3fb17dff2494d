//! puddled is killed at every step of every operation that changes something, and started again, and killed while it starts.

use vernal_puddled_tests::{Actor, Place};

fn place() -> Place {
    Place::new(
        env!("CARGO_BIN_EXE_puddled-under-test"),
        env!("CARGO_BIN_EXE_puddled-actor"),
    )
}

const DATA: u64 = 8192;

/// More steps than any operation has.
const MOST_STEPS: u64 = 120;

/// Runs `act` against a puddled that dies at step 1, 2, 3, … until it survives; after each death `check` sees a puddled that was
/// started again, and then registry and files must agree.
fn at_every_step(
    prepare: impl Fn(&mut Actor),
    act: impl Fn(&mut Actor),
    check: impl Fn(&mut Actor, bool),
) {
    for step in 1..=MOST_STEPS {
        let mut place = place();
        place.start();
        let mut actor = place.actor("prepare", None);
        prepare(&mut actor);
        drop(actor);
        place.wait_settled();
        place.stop();
        let mut survived = place.try_start(Some(step));
        if survived {
            let mut actor = place.actor("act", None);
            act(&mut actor);
            actor.kill();
            survived = !place.has_died() && {
                // What the killed actor left is settled, or kills puddled.
                place.try_wait_settled()
            };
        }
        place.kill();
        // And once more while it puts things right.
        if !survived && place.try_start(Some(1)) {
            place.kill();
        }
        if !survived && place.try_start(Some(3)) {
            place.kill();
        }
        place.start();
        place.wait_settled();
        let mut actor = place.actor("check", None);
        check(&mut actor, survived);
        actor.end();
        place.wait_settled();
        place.stop();
        place.assert_tidy();
        if survived {
            assert!(step > 3, "there are steps to die at");
            eprintln!("{} steps", step - 1);
            return;
        }
    }
    panic!("more than {MOST_STEPS} steps");
}

#[test]
fn create() {
    at_every_step(
        |_| {},
        |a| {
            a.ask_or_end("create new 0600");
        },
        |a, survived| {
            let list = a.ok("list");
            assert!(list == "new" || (!survived && list.is_empty()), "{list}");
            if list.is_empty() {
                a.ok("create new 0600");
            }
            a.ok("open new w");
            a.ok(&format!("write new 0 {DATA} works"));
            a.ok("commit");
            a.ok("close new");
        },
    );
}

#[test]
fn remove() {
    at_every_step(
        |a| {
            a.ok("create old 0600");
        },
        |a| {
            a.ask_or_end("remove old");
        },
        |a, survived| {
            let list = a.ok("list");
            assert!(list.is_empty() || (!survived && list == "old"), "{list}");
            if list == "old" {
                a.ok("open old w");
                a.ok("close old");
                a.ok("remove old");
            }
        },
    );
}

#[test]
fn open_grow_commit_and_recovery() {
    at_every_step(
        |a| {
            a.ok("create pool 0600");
            a.ok("open pool w");
            a.ok(&format!("write pool 0 {DATA} first"));
            a.ok("commit");
            a.ok("close pool");
        },
        |a| {
            let steps = [
                "open pool w".to_owned(),
                "grow pool 2097152".to_owned(),
                "adopt pool".to_owned(),
                format!("write pool 0 {DATA} later"),
                format!("write pool 1 {DATA} grown"),
                "commit".to_owned(),
            ];
            for step in &steps {
                if !a.ask_or_end(step) {
                    return;
                }
            }
        },
        |a, survived| {
            let opened = a.ok("open pool r");
            let text = a.ok(&format!("read pool 0 {DATA} 5"));
            // Either all of the commit or nothing of it.
            match opened.split(' ').count() {
                3 => assert!(text == "first" && !survived, "{text}"),
                6 => {
                    assert_eq!(text, "later");
                    assert_eq!(a.ok(&format!("read pool 1 {DATA} 5")), "grown");
                }
                n => panic!("{n}: {opened}"),
            }
        },
    );
}

#[test]
fn shrink_and_close() {
    at_every_step(
        |a| {
            a.ok("create pool 0600");
            a.ok("open pool w");
            a.ok("grow pool 2097152");
            a.ok("adopt pool");
            a.ok(&format!("write pool 0 {DATA} first"));
            a.ok("commit");
            a.ok("close pool");
        },
        |a| {
            let Some(opened) = a.try_ok("open pool w") else {
                return;
            };
            let words: Vec<&str> = opened.split(' ').collect();
            for step in [
                format!("leave pool {}", words[3]),
                format!("shrink pool {}", words[3]),
                "close pool".to_owned(),
            ] {
                if !a.ask_or_end(&step) {
                    return;
                }
            }
        },
        |a, survived| {
            let opened = a.ok("open pool r");
            let count = opened.split(' ').count();
            assert!(count == 3 || (!survived && count == 6), "{opened}");
            assert_eq!(a.ok(&format!("read pool 0 {DATA} 5")), "first");
        },
    );
}

#[test]
fn import_and_clone() {
    at_every_step(
        |a| {
            a.ok("create source 0600");
            a.ok("open source w");
            a.ok(&format!("write source 0 {DATA} content"));
            a.ok("commit");
            a.ok("close source");
        },
        |a| {
            for step in [
                "import new 2097152 2097152",
                "finish",
                "clone source copy",
                "finish",
            ] {
                if !a.ask_or_end(step) {
                    return;
                }
            }
        },
        |a, survived| {
            let list = a.ok("list");
            let fine = ["copy new source", "new source", "source"];
            assert!(fine.contains(&list.as_str()), "{list}");
            assert!(!survived || list == fine[0], "{list}");
            for pool in list.split(' ') {
                a.ok(&format!("open {pool} r"));
                if pool != "new" {
                    assert_eq!(a.ok(&format!("read {pool} 0 {DATA} 7")), "content");
                }
            }
        },
    );
}

#[test]
fn quarantine_and_accept() {
    at_every_step(
        |a| {
            a.ok("create pool 0600");
            a.ok("open pool w");
            a.ok(&format!("write pool 0 {DATA} first"));
            a.ok("commit");
            a.ok("close pool");
        },
        |a| {
            for step in [
                "open pool w",
                "forge 000000000000000000000000000000ff 0x58f000000000 2097152 evil",
            ] {
                if !a.ask_or_end(step) {
                    return;
                }
            }
        },
        |a, survived| {
            let answer = a.ask("open pool r");
            if answer.starts_with("err Quarantine") {
                a.ok("accept pool");
                a.ok("open pool r");
            } else {
                assert!(!survived && answer.starts_with("ok"), "{answer}");
            }
            assert_eq!(a.ok(&format!("read pool 0 {DATA} 5")), "first");
        },
    );
}
