//! Two threads, each with a pool of its own: the aborts of one take transactions of the other along, which are run again.

use crate::Result;
use std::sync::Barrier;
use vernal::{Error, PBox, Persist, Pool};

#[derive(Persist)]
#[repr(C)]
struct Counter<'p> {
    count: u64,
    /// A copy in an object that every transaction makes anew.
    copy: Option<PBox<'p, u64>>,
}

/// Counts to `limit` in both pools; prints how often closures were run.
pub fn run(path: &str, limit: u64) -> Result<()> {
    let open = |name: &str| {
        Pool::<Counter>::open(format!("{path}-{name}"), |_| {
            Ok(Counter {
                count: 0,
                copy: None,
            })
        })
    };
    let mut pools = [open("a")?, open("b")?];
    let start = Barrier::new(pools.len());
    let runs: Vec<std::result::Result<u64, Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = pools
            .iter_mut()
            .map(|pool| {
                scope.spawn(|| {
                    start.wait();
                    count(pool, limit)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| {
                t.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    for (pool, runs) in pools.iter().zip(runs) {
        let (runs, root) = (runs?, pool.root());
        if root.count != limit || root.copy.as_deref() != Some(&limit) {
            return Err(format!("counted {} instead of {limit}", root.count).into());
        }
        println!("{limit} transactions in {runs} runs");
    }
    for pool in pools {
        pool.close()?;
    }
    Ok(())
}

fn count(pool: &mut Pool<Counter<'_>>, limit: u64) -> std::result::Result<u64, Error> {
    let mut runs = 0;
    while pool.root().count < limit {
        pool.tx(|tx, mut counter| {
            runs += 1;
            counter.count += 1;
            counter.copy = Some(tx.alloc(counter.count)?);
            Ok::<_, Error>(())
        })?;
        // One that fails, and takes along what the other thread is doing.
        let failed = pool.tx(|_, mut counter| {
            counter.count += 1000;
            counter.copy = None;
            Err::<(), Box<dyn std::error::Error>>("on purpose".into())
        });
        debug_assert!(failed.is_err());
    }
    Ok(runs)
}
