//! What a transaction costs: `cargo run --release -p vernal-pool --example tx_cost [DIRECTORY]`, nanoseconds for each
//! operation, the median of interleaved repetitions.

use std::path::PathBuf;
use std::time::Instant;
use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_pool::program::ProgramType;
use vernal_pool::{OpenOptions, Pool, tx};

const OPERATIONS: u32 = 20_000;
const REPETITIONS: usize = 15;

fn measure(mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..OPERATIONS {
        f();
    }
    start.elapsed().as_nanos() as f64 / f64::from(OPERATIONS)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os().nth(1).map_or_else(
        || PathBuf::from(format!("/dev/shm/vernal-tx-cost-{}", std::process::id())),
        PathBuf::from,
    );
    let blob = TypeBuilder::new("cell", 64, 8)
        .member("bytes", 0, Shape::Bytes(64))
        .build()?;
    let cell = ProgramType {
        desc: TypeDesc::parse(&blob)?,
        bound: Vec::new(),
    };
    vernal_snapshot::runtime::init();
    let pool = Pool::open(
        &dir,
        OpenOptions {
            create: true,
            ..OpenOptions::default()
        },
    )?;
    let word = pool.alloc(64, &cell, 1)?;
    let mut n = 0u64;
    let mut rows = [const { Vec::new() }; 5];
    for _ in 0..REPETITIONS {
        rows[0].push(measure(|| {
            tx::begin().expect("begin");
            tx::commit().expect("commit");
        }));
        rows[1].push(measure(|| {
            n += 1;
            tx::begin().expect("begin");
            // SAFETY: the object was allocated above, and is larger.
            unsafe { (word as *mut u64).write_volatile(n) };
            vernal_snapshot::thread::mark_range(word, 8);
            tx::commit().expect("commit");
        }));
        rows[2].push(measure(|| {
            tx::begin().expect("begin");
            let at = pool.alloc(64, &cell, 1).expect("alloc");
            pool.free(at).expect("free");
            tx::commit().expect("commit");
        }));
        rows[3].push(measure(|| {
            let at = pool.alloc(64, &cell, 1).expect("alloc");
            pool.free(at).expect("free");
        }));
        rows[4].push(measure(|| {
            tx::begin().expect("begin");
            let at = pool.alloc(64, &cell, 1).expect("alloc");
            // SAFETY: just allocated.
            unsafe { (at as *mut u64).write_volatile(n) };
            vernal_snapshot::thread::mark_range(at, 8);
            tx::commit().expect("commit");
        }));
    }
    let names = [
        "transaction without a store",
        "transaction with one 8-byte store",
        "transaction with alloc(64) and free",
        "alloc(64) and free, no transaction",
        "transaction with alloc(64) and a store",
    ];
    for (name, row) in names.iter().zip(&mut rows) {
        row.sort_by(f64::total_cmp);
        println!(
            "{name:40} {:8.0} ns (fastest {:.0})",
            row[REPETITIONS / 2],
            row[0]
        );
    }
    pool.close()?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
