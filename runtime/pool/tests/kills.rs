//! A writer that is killed at every injection point, or at many of them: the pool that is left is whole.
//!
//! The child is this test binary, which runs the one test that `VERNAL_POOL_CHILD` names.

mod common;

use common::*;
use std::path::Path;
use std::process::Command;
use vernal_pool::dir::PoolDir;
use vernal_pool::{Error, Pool, tx};

const ROUNDS: u64 = 12;

/// Pushes one number for each transaction, with noise around it; aborts some; the pool grows and shrinks meanwhile.
fn work(path: &Path) {
    let pool = Pool::open(path, CREATE).unwrap();
    let done = list(&pool).len() as u64;
    for n in done..done + ROUNDS {
        tx::begin().unwrap();
        push(&pool, n);
        let noise = pool.alloc_bytes(700_000).unwrap();
        store(noise, n);
        if n % 3 == 0 {
            tx::abort().unwrap();
            tx::begin().unwrap();
            push(&pool, n);
        } else {
            pool.free(noise).unwrap();
            let keep = pool.alloc_bytes(300_000).unwrap();
            store(keep, n);
        }
        tx::commit().unwrap();
    }
    pool.close().unwrap();
}

#[test]
fn child() {
    if let Some(path) = std::env::var_os("VERNAL_POOL_CHILD") {
        vernal_snapshot::runtime::init();
        work(Path::new(&path));
    }
}

/// Runs the child; whether it came to its end.
fn run(path: &Path, kill_at: u64, count: Option<&Path>) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["child", "--exact", "--test-threads=1"])
        .env("VERNAL_POOL_CHILD", path)
        .env("VERNAL_QUIET", "1")
        .stdout(std::process::Stdio::null());
    if kill_at > 0 {
        child.env("VERNAL_TEST_KILL_AT", kill_at.to_string());
    }
    if let Some(count) = count {
        child.env("VERNAL_TEST_COUNT", count);
    }
    child.status().unwrap().success()
}

fn check(path: &Path, what: &str) -> u64 {
    let pool = match Pool::open(path, CREATE) {
        Ok(p) => p,
        Err(e) => panic!("{what}: {e}"),
    };
    let found = list(&pool);
    let expected: Vec<u64> = (0..found.len() as u64).rev().collect();
    assert_eq!(found, expected, "{what}: a torn or lost transaction");
    assert_sound(&pool);
    pool.close().unwrap();
    found.len() as u64
}

#[test]
fn a_killed_writer_leaves_whole_transactions() {
    let _turn = turn();
    let dir = Scratch::new("kills");
    let count = Scratch::new("kills-count");
    assert!(run(&dir.0, 0, Some(&count.0)));
    assert_eq!(check(&dir.0, "undisturbed"), ROUNDS);
    let text = std::fs::read_to_string(&count.0).unwrap();
    let _ = std::fs::remove_file(&count.0);
    let points: u64 = text.lines().next().unwrap().parse().unwrap();
    assert!(points > 100, "{points} injection points");
    // A seed for the places in between, printed with every failure.
    let mut seed = 20_26u64;
    let mut killed = 0;
    for _ in 0..40 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = 1 + (seed >> 33) % points;
        let _ = std::fs::remove_dir_all(&dir.0);
        let ended = run(&dir.0, at, None);
        killed += u64::from(!ended);
        // Killed before the first commit there may be no pool.
        check(&dir.0, &format!("killed at {at} of {points}"));
        // And once more where the first one was left.
        let again = 1 + (seed >> 21) % points;
        run(&dir.0, again, None);
        check(&dir.0, &format!("killed at {at}, then at {again}"));
    }
    assert!(killed > 20, "{killed} of 40 were killed");
}

#[test]
fn a_killed_writer_of_a_moved_pool_leaves_it_whole() {
    let _turn = turn();
    let dir = Scratch::new("kills-moved");
    assert!(run(&dir.0, 0, None));
    let before = check(&dir.0, "undisturbed");
    let mut seed = 4_711u64;
    let mut length = before;
    for round in 0..25 {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 20
        };
        if round % 2 == 0 {
            let mut pool = PoolDir::open(&dir.0).unwrap();
            pool.assign_addresses(|size| {
                let (lo, hi) = vernal_pool::dir::EMBEDDED;
                vernal_snapshot::pick_puddle(size, lo, hi, next()).ok_or_else(|| Error::Invalid {
                    what: "full".into(),
                })
            })
            .unwrap();
        } else {
            shuffle(&dir.0);
        }
        let at = 1 + next() % 900;
        run(&dir.0, at, None);
        let now = check(&dir.0, &format!("round {round}, killed at {at}"));
        assert!(now >= length);
        length = now;
    }
}

#[test]
fn a_reader_recovers_what_a_killed_writer_left() {
    let _turn = turn();
    let dir = Scratch::new("kills-reader");
    assert!(run(&dir.0, 0, None));
    run(&dir.0, 300, None);
    let pool = Pool::open(&dir.0, READ).unwrap();
    let found = list(&pool);
    assert!(found.len() as u64 >= ROUNDS);
    pool.close().unwrap();
}
