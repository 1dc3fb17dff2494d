//! A root puddle with bytes that nobody wrote: refused or survived, never a panic or a wild access.

mod common;

use common::*;
use vernal_pool::{Pool, tx};

#[test]
fn damaged_headers_and_pool_pages() {
    let _turn = turn();
    let dir = Scratch::new("hostile");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    tx::begin().unwrap();
    for n in 0..200 {
        push(&pool, n);
    }
    pool.alloc_bytes(3 << 20).unwrap();
    tx::commit().unwrap();
    pool.close().unwrap();
    let root = dir.0.join("root.puddle");
    let good = std::fs::read(&root).unwrap();
    let mut seed = 99u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed >> 24
    };
    let (mut opened, mut refused) = (0, 0);
    for round in 0..300 {
        let mut bad = good.clone();
        for _ in 0..1 + next() % 3 {
            // Words that mean something are hit more often than the zeros between them.
            let at = (next() % 8192) as usize & !7;
            let value = match next() % 4 {
                0 => u64::MAX,
                1 => next(),
                2 => 1 << (next() % 64),
                _ => 0x5800_0000_0000 + next() % (1 << 30),
            };
            bad[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        std::fs::write(&root, &bad).unwrap();
        // Sweeping takes a directory's word for what is an orphan; that must not cost the test its files.
        let saved: Vec<_> = std::fs::read_dir(&dir.0)
            .unwrap()
            .flatten()
            .map(|e| (e.path(), std::fs::read(e.path()).unwrap()))
            .collect();
        match Pool::open(&dir.0, CREATE) {
            Ok(pool) => {
                opened += 1;
                let _ = pool.check();
                if let Ok(at) = pool.alloc_bytes(100) {
                    let _ = pool.free(at);
                }
                let _ = pool.free(pool.root().unwrap_or(8));
                let _ = pool.clone().close();
                drop(pool);
            }
            Err(e) => {
                refused += 1;
                assert!(!e.to_string().is_empty(), "round {round}");
            }
        }
        for (path, bytes) in &saved {
            std::fs::write(path, bytes).unwrap();
        }
    }
    println!("{opened} opened, {refused} refused");
    std::fs::write(&root, &good).unwrap();
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    assert_eq!(list(&pool).len(), 200);
    pool.close().unwrap();
}
