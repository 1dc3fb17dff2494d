//! Transactions of several threads: commits together, aborts of one and conflicts of the others.

mod common;

use common::*;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use vernal_pool::{Error, Pool, tx};

#[test]
fn an_abort_is_a_conflict_for_whoever_had_not_committed() {
    let _turn = turn();
    let dir = Scratch::new("conflict");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    tx::begin().unwrap();
    let (a, b) = (node(&pool), node(&pool));
    root(&pool);
    tx::commit().unwrap();
    // Both are inside when one aborts: the other is waited for, and rolled back with it or committed before it.
    let mut conflicts = 0;
    for round in 1..200 {
        let both = Barrier::new(2);
        std::thread::scope(|s| {
            let other = s.spawn(|| {
                tx::begin().unwrap();
                both.wait();
                store(b, round);
                tx::commit()
            });
            tx::begin().unwrap();
            both.wait();
            store(a, round);
            tx::abort().unwrap();
            match other.join().unwrap() {
                Ok(()) => assert_eq!(load(b), round),
                Err(Error::Conflict) => {
                    conflicts += 1;
                    assert_ne!(load(b), round);
                }
                Err(e) => panic!("{e}"),
            }
        });
        assert_eq!(load(a), 0);
    }
    println!("{conflicts} conflicts of 199");
    pool.close().unwrap();
}

#[test]
fn each_transaction_counts_once() {
    let _turn = turn();
    const THREADS: u64 = 4;
    const EACH: u64 = 300;
    let dir = Scratch::new("counts");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    tx::begin().unwrap();
    let counters: Vec<u64> = (0..THREADS).map(|_| node(&pool)).collect();
    tx::commit().unwrap();
    let objects = pool.check().all.objects;
    let conflicts = AtomicU64::new(0);
    std::thread::scope(|s| {
        for (t, &counter) in counters.iter().enumerate() {
            let (pool, conflicts) = (&pool, &conflicts);
            s.spawn(move || {
                for n in 0..EACH {
                    if (n + t as u64).is_multiple_of(7) {
                        // What aborts leaves nothing.
                        tx::begin().unwrap();
                        store(counter, u64::MAX);
                        pool.alloc_bytes(100 + n).unwrap();
                        tx::abort().unwrap();
                    }
                    let mut tries = 0;
                    loop {
                        tx::begin().unwrap();
                        let next = load(counter) + 1;
                        store(counter, next);
                        let object = pool.alloc_bytes(64).unwrap();
                        store(object, next);
                        pool.free(object).unwrap();
                        match tx::commit() {
                            Ok(()) => break,
                            Err(Error::Conflict) => {
                                conflicts.fetch_add(1, Ordering::Relaxed);
                                tries += 1;
                                assert!(tries < 10_000);
                            }
                            Err(e) => panic!("{e}"),
                        }
                    }
                    // A commit that was reported as rolled back must not count, one that was not must.
                    assert_eq!(load(counter), n + 1);
                }
            });
        }
    });
    println!("{} conflicts", conflicts.load(Ordering::Relaxed));
    assert_sound(&pool);
    pool.close().unwrap();
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    for counter in counters {
        assert_eq!(load(counter), EACH);
    }
    assert_eq!(pool.check().all.objects, objects, "nothing leaks");
    assert_sound(&pool);
    pool.close().unwrap();
}

#[test]
fn threads_grow_a_pool_together() {
    let _turn = turn();
    let dir = Scratch::new("grow-threads");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    std::thread::scope(|s| {
        for t in 0..4u64 {
            let pool = &pool;
            s.spawn(move || {
                for n in 0..12 {
                    tx::run(|| -> Result<(), Error> {
                        let at = pool.alloc_bytes(300_000)?;
                        store(at, t << 32 | n);
                        Ok(())
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_sound(&pool);
    assert_eq!(pool.check().all.objects, 48);
    pool.close().unwrap();
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    assert_eq!(pool.check().all.objects, 48);
    pool.close().unwrap();
}

#[test]
fn an_asynchronous_commit_survives_a_later_abort() {
    let _turn = turn();
    let dir = Scratch::new("async");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    tx::begin().unwrap();
    push(&pool, 1);
    let ticket = tx::commit_async().unwrap().unwrap();
    tx::begin().unwrap();
    push(&pool, 2);
    tx::abort().unwrap();
    assert_eq!(list(&pool), [1]);
    vernal_snapshot::runtime::wait(ticket).unwrap();
    pool.close().unwrap();
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    assert_eq!(list(&pool), [1]);
    pool.close().unwrap();
}
