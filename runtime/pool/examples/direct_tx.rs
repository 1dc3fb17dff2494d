//! What a transaction on a direct pool costs: nanoseconds for each kind, on memory that stands in for a device.
//!
//! `cargo run --release -p vernal-pool --example direct_tx [ITERATIONS]`

use std::sync::Arc;
use std::time::Instant;

use vernal_pool::direct::space::{DirectMapping, PoolNumber};
use vernal_pool::direct::{DirLogs, space, tx};

const SIZE: u64 = 2 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds: u64 = std::env::args()
        .nth(1)
        .map_or(Ok(1_000_000), |n| n.parse())?;
    let dir = std::path::PathBuf::from(format!("/dev/shm/vernal-direct-tx-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let done = measure(&dir, rounds);
    std::fs::remove_dir_all(&dir)?;
    done
}

fn measure(dir: &std::path::Path, rounds: u64) -> Result<(), Box<dyn std::error::Error>> {
    let path = dir.join("root.puddle");
    let file = std::fs::File::create_new(&path)?;
    file.set_len(SIZE)?;
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)?;
    let pool = PoolNumber::take()?;
    let addr = space::pick(SIZE)?;
    let mapping = DirectMapping::new(&file, "root.puddle", addr, SIZE, pool)?;
    let logs = Arc::new(DirLogs::create(dir)?);
    tx::attach(logs.clone());
    // One line, always the same, as a counter would be; and a line for each round.
    for (what, stride) in [("one line", 0), ("64 lines", 64)] {
        let place = |i: u64| addr + 4096 + (i % 64) * stride;
        time(&format!("nothing, {what}"), rounds, |_| {
            tx::begin()?;
            tx::commit()
        })?;
        time(&format!("undo 8 B, {what}"), rounds, |i| {
            tx::begin()?;
            tx::undo(place(i), 8)?;
            // SAFETY: inside the mapping, aligned, of this thread alone.
            unsafe { (place(i) as *mut u64).write(i) };
            tx::commit()
        })?;
        time(&format!("redo 8 B, {what}"), rounds, |i| {
            tx::begin()?;
            tx::redo(place(i), &i.to_le_bytes())?;
            tx::commit()
        })?;
        time(&format!("undo and redo 8 B, {what}"), rounds, |i| {
            tx::begin()?;
            tx::undo(place(i), 8)?;
            // SAFETY: as above.
            unsafe { (place(i) as *mut u64).write(i) };
            tx::redo(addr + 65536, &i.to_le_bytes())?;
            tx::commit()
        })?;
    }
    time("undo 4 KiB", rounds / 10, |i| {
        tx::begin()?;
        tx::undo(addr + 8192, 4096)?;
        // SAFETY: as above.
        unsafe { ((addr + 8192) as *mut u64).write(i) };
        tx::commit()
    })?;
    time("undo 8 B 100 times", rounds / 100, |i| {
        tx::begin()?;
        for k in 0..100 {
            tx::undo(addr + 4096 + k * 64, 8)?;
            // SAFETY: as above.
            unsafe { ((addr + 4096 + k * 64) as *mut u64).write(i) };
        }
        tx::commit()
    })?;
    tx::detach();
    drop(mapping);
    pool.give_back();
    logs.close()?;
    Ok(())
}

fn time(
    what: &str,
    rounds: u64,
    mut act: impl FnMut(u64) -> Result<(), vernal_pool::Error>,
) -> Result<(), vernal_pool::Error> {
    for i in 0..rounds / 10 {
        act(i)?;
    }
    let mut best = f64::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        for i in 0..rounds {
            act(i)?;
        }
        best = best.min(begun.elapsed().as_nanos() as f64 / rounds.max(1) as f64);
    }
    println!("{what:<32}{best:>10.0} ns");
    Ok(())
}
