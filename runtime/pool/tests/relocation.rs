//! Pools that have moved: rewritten when they are first touched, and again after a crash or an abort.

mod common;

use common::*;
use std::path::Path;
use vernal_pool::dir::PoolDir;
use vernal_pool::{OpenOptions, Pool, tx};

const COUNT: u64 = 30_000;

/// A pool with a list that spans several puddles and chunks.
fn make(path: &Path) -> Pool {
    let pool = Pool::open(path, CREATE).unwrap();
    for part in 0..10 {
        tx::begin().unwrap();
        for n in 0..COUNT / 10 {
            push(&pool, part * COUNT / 10 + n);
            if n % 100 == 0 {
                pool.alloc_bytes(30_000).unwrap();
            }
        }
        tx::commit().unwrap();
    }
    pool
}

/// Gives every puddle another home, as an import or a conflict does.
fn displace(path: &Path) {
    let mut dir = PoolDir::open(path).unwrap();
    let mut seed = 7u64;
    dir.assign_addresses(|size| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (lo, hi) = vernal_pool::dir::EMBEDDED;
        Ok(vernal_snapshot::pick_puddle(size, lo, hi, seed >> 20).unwrap())
    })
    .unwrap();
}

fn expected() -> Vec<u64> {
    (0..COUNT).rev().collect()
}

#[test]
fn a_displaced_pool_is_rewritten_on_first_touch() {
    let _turn = turn();
    let dir = Scratch::new("moved");
    let pool = make(&dir.0);
    assert!(pool.directory().unwrap().len() > 2);
    let old_root = pool.root().unwrap();
    pool.close().unwrap();
    displace(&dir.0);

    // Readers rewrite for themselves, and leave the files alone.
    let pool = Pool::open(&dir.0, READ).unwrap();
    assert_ne!(pool.root().unwrap(), old_root);
    assert_eq!(list(&pool), expected());
    pool.close().unwrap();

    let pool = Pool::open(&dir.0, CREATE).unwrap();
    assert_ne!(pool.root().unwrap(), old_root);
    assert_eq!(list(&pool), expected());
    assert_sound(&pool);
    tx::begin().unwrap();
    push(&pool, COUNT);
    tx::commit().unwrap();
    pool.close().unwrap();

    let pool = Pool::open(&dir.0, CREATE).unwrap();
    assert_eq!(list(&pool)[1..], expected());
    assert_sound(&pool);
    pool.close().unwrap();
}

#[test]
fn an_abort_takes_the_rewriting_back_and_it_is_done_again() {
    let _turn = turn();
    let dir = Scratch::new("moved-abort");
    make(&dir.0).close().unwrap();
    displace(&dir.0);
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    tx::begin().unwrap();
    assert_eq!(list(&pool), expected());
    push(&pool, 1);
    tx::abort().unwrap();
    assert_eq!(list(&pool), expected());
    tx::begin().unwrap();
    push(&pool, COUNT);
    tx::commit().unwrap();
    assert_eq!(list(&pool)[1..], expected());
    assert_sound(&pool);
    pool.close().unwrap();
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    assert_eq!(list(&pool)[1..], expected());
    pool.close().unwrap();
}

#[test]
fn a_pool_that_moves_again_before_it_was_all_rewritten() {
    let _turn = turn();
    let dir = Scratch::new("moved-twice");
    make(&dir.0).close().unwrap();
    for round in 0..3 {
        displace(&dir.0);
        let pool = Pool::open(&dir.0, CREATE).unwrap();
        // Touches the root's chunk and a few more.
        let root = pool.root().unwrap();
        let first = load(root);
        assert_eq!(load(first + 8), COUNT - 1, "round {round}");
        pool.close().unwrap();
    }
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    assert_eq!(list(&pool), expected());
    pool.close().unwrap();
}

#[test]
fn everything_at_once() {
    let _turn = turn();
    let dir = Scratch::new("moved-eager");
    make(&dir.0).close().unwrap();
    displace(&dir.0);
    let eager = OpenOptions {
        eager: true,
        ..CREATE
    };
    let pool = Pool::open(&dir.0, eager).unwrap();
    assert_eq!(list(&pool), expected());
    assert_sound(&pool);
    pool.close().unwrap();
    displace(&dir.0);
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    pool.relocate_all().unwrap();
    assert_eq!(list(&pool), expected());
    pool.close().unwrap();
}

#[test]
fn several_threads_touch_a_moved_pool() {
    let _turn = turn();
    let dir = Scratch::new("moved-threads");
    make(&dir.0).close().unwrap();
    displace(&dir.0);
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| assert_eq!(list(&pool), expected()));
        }
        for _ in 0..20 {
            vernal_snapshot::runtime::commit().unwrap();
        }
    });
    pool.close().unwrap();
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    assert_eq!(list(&pool), expected());
    pool.close().unwrap();
}
