//! Chunks of a moved pool that the program has only read stay out of every commit; the first store takes them in as a whole.
//! The new addresses overlap the old ones, so that whatever is rewritten twice or in part leads somewhere wrong.

mod common;

use common::*;
use std::path::Path;
use std::sync::mpsc;
use vernal_heap::ObjectSpace;
use vernal_pool::archive::PoolImage;
use vernal_pool::{Pool, tx};
use vernal_snapshot::runtime::commit;
use vernal_snapshot::thread::mark_range;

const COUNT: u64 = 12_000;

fn make(path: &Path) {
    let pool = Pool::open(path, CREATE).unwrap();
    tx::begin().unwrap();
    for n in 0..COUNT {
        push(&pool, n);
        if n % 8 == 0 {
            // Memory that is allocated and holds no addresses, and some that is free in between.
            let bytes = pool.alloc_bytes(30_000).unwrap();
            if n % 24 == 0 {
                pool.free(bytes).unwrap();
            }
        }
    }
    tx::commit().unwrap();
    assert!(pool.directory().unwrap().len() > 2);
    pool.close().unwrap();
}

fn expected() -> Vec<u64> {
    (0..COUNT).rev().collect()
}

/// What the puddles' files hold.
fn files(path: &Path) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = std::fs::read_dir(path)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "puddle"))
        .map(|p| {
            let bytes = std::fs::read(&p).unwrap();
            let sum = vernal_format::archive::sum_of(&bytes);
            (p.display().to_string(), sum)
        })
        .collect();
    all.sort();
    all
}

/// Chunks that are of the pool's epoch, and chunks that are behind it.
fn chunks(path: &Path) -> (usize, usize) {
    let image = PoolImage::open(path).unwrap();
    let heap = image.heap();
    let (epoch, _) = heap.epochs().unwrap();
    let behind = (0..heap.chunk_count())
        .filter(|c| heap.chunk_epochs(*c).unwrap().0 != epoch)
        .count();
    (heap.chunk_count() - behind, behind)
}

/// Addresses of the list's nodes.
fn nodes(pool: &Pool) -> Vec<u64> {
    let mut all = Vec::new();
    let mut at = load(pool.root().unwrap());
    while at != 0 {
        all.push(at);
        at = load(at);
    }
    all
}

#[test]
fn what_is_only_read_is_in_no_commit() {
    let _turn = turn();
    let dir = Scratch::new("deferred-read");
    make(&dir.0);
    shuffle(&dir.0);
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    let before = files(&dir.0);
    assert_eq!(list(&pool), expected());
    commit().unwrap();
    pool.close().unwrap();
    assert_eq!(files(&dir.0), before, "reading has changed the files");
    let (current, behind) = chunks(&dir.0);
    assert!(behind > 4, "{behind} chunks are behind, {current} are not");

    // One store takes its chunk in, and no other.
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    let all = nodes(&pool);
    let some = all[all.len() / 2];
    tx::begin().unwrap();
    store(some + 8, 77_777);
    tx::commit().unwrap();
    pool.close().unwrap();
    assert_eq!(chunks(&dir.0), (current + 1, behind - 1));

    let mut want = expected();
    want[all.len() / 2] = 77_777;
    for _ in 0..2 {
        let pool = Pool::open(&dir.0, CREATE).unwrap();
        assert_eq!(list(&pool), want);
        assert_sound(&pool);
        pool.relocate_all().unwrap();
        assert_eq!(list(&pool), want);
        pool.close().unwrap();
        assert_eq!(chunks(&dir.0).1, 0);
    }
}

#[test]
fn a_mark_without_a_store_commits_no_part_of_a_chunk() {
    let _turn = turn();
    let dir = Scratch::new("deferred-mark");
    make(&dir.0);
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    let entries = pool.directory().unwrap();
    pool.close().unwrap();
    shuffle(&dir.0);
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    let at = |e: &vernal_heap::DirectoryEntry| {
        let now = pool.directory().unwrap();
        now.iter().find(|n| n.uuid == e.uuid).unwrap().current
    };
    // Nothing has been touched: a compiler that marks too much marks lines of chunks that nobody can reach.
    for e in &entries {
        for offset in (0..e.size).step_by(256 << 10) {
            mark_range(at(e) + offset, 64);
        }
    }
    commit().unwrap();
    pool.close().unwrap();
    let (_, behind) = chunks(&dir.0);
    assert!(behind > 4, "{behind}");

    let pool = Pool::open(&dir.0, CREATE).unwrap();
    let all = nodes(&pool);
    // Every 1500th node's line, of chunks that are shown.
    for node in all.iter().step_by(1500) {
        mark_range(*node, 16);
    }
    commit().unwrap();
    pool.close().unwrap();
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    assert_eq!(list(&pool), expected());
    assert_sound(&pool);
    pool.close().unwrap();
}

#[test]
fn aborts_and_commits_of_chunks_that_were_shown() {
    let _turn = turn();
    for threads in [false, true] {
        let dir = Scratch::new("deferred-abort");
        make(&dir.0);
        shuffle(&dir.0);
        let pool = Pool::open(&dir.0, CREATE).unwrap();
        // A second thread makes commits look at lines again that they have taken.
        let (stop, wait) = mpsc::channel::<()>();
        let other = threads.then(|| std::thread::spawn(move || wait.recv().is_err()));
        assert_eq!(list(&pool), expected());
        let mut want = expected();
        for round in 0..6u64 {
            let at = nodes(&pool);
            tx::begin().unwrap();
            for (n, node) in at.iter().enumerate().skip(round as usize).step_by(2999) {
                store(node + 8, round * 1_000_000 + n as u64);
            }
            if round % 2 == 0 {
                tx::abort().unwrap();
                // Commits of others meet chunks that wait again.
                commit().unwrap();
            } else {
                tx::commit().unwrap();
                for n in (round as usize..want.len()).step_by(2999) {
                    want[n] = round * 1_000_000 + n as u64;
                }
            }
            assert_eq!(list(&pool), want, "round {round}");
        }
        assert_sound(&pool);
        drop(stop);
        if let Some(other) = other {
            other.join().unwrap();
        }
        pool.close().unwrap();
        let (current, behind) = chunks(&dir.0);
        assert!(
            current > 0 && behind > 0,
            "{current} are current, {behind} behind"
        );
        let pool = Pool::open(&dir.0, CREATE).unwrap();
        assert_eq!(list(&pool), want);
        pool.close().unwrap();
    }
}

#[test]
fn the_kernel_reads_and_writes_what_was_touched_for_it() {
    use std::os::fd::AsRawFd;
    let _turn = turn();
    let dir = Scratch::new("touched");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    tx::begin().unwrap();
    // An object of two and a half chunks, which a system call gets as a whole, and small ones.
    const LONG: u64 = 5 << 20;
    let long = pool.alloc_bytes(LONG).unwrap();
    for at in (0..LONG).step_by(4096) {
        store(long + at, at);
    }
    for n in 0..2000 {
        push(&pool, n);
    }
    let root = pool.root().unwrap();
    store(root + 8, 2000);
    tx::commit().unwrap();
    let entry = |pool: &Pool, addr: u64| {
        let all = pool.directory().unwrap();
        let e = all
            .iter()
            .find(|e| addr >= e.current && addr < e.current + e.size);
        let e = e.unwrap();
        (e.uuid, addr - e.current)
    };
    let (puddle, offset) = entry(&pool, long);
    pool.close().unwrap();
    let here = |pool: &Pool| {
        let all = pool.directory().unwrap();
        all.iter().find(|e| e.uuid == puddle).unwrap().current + offset
    };
    let scratch = Scratch::new("touched-file");
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&scratch.0)
        .unwrap();
    let fd = file.as_raw_fd();
    shuffle(&dir.0);
    for (round, touch) in [false, true, true].into_iter().enumerate() {
        let pool = Pool::open(&dir.0, CREATE).unwrap();
        let long = here(&pool);
        let call = |nr: i64, at: u64, len: u64| {
            if touch {
                vernal_pool::touch_range(at, len);
            }
            // SAFETY: pread and pwrite of the test's file, to and from an object of the pool.
            match unsafe { libc::syscall(nr, fd, at, len, 0) } {
                -1 => Err(std::io::Error::last_os_error().raw_os_error()),
                n => Ok(n as u64),
            }
        };
        if !touch {
            let refused = call(libc::SYS_pwrite64, long, 4096);
            assert_eq!(
                refused,
                Err(Some(libc::EFAULT)),
                "the kernel got what nobody had touched"
            );
            pool.close().unwrap();
            continue;
        }
        // Some of it is there already in the second round.
        if round == 2 {
            assert_eq!(load(long + (3 << 20)), 3 << 20);
        }
        assert_eq!(call(libc::SYS_pwrite64, long, LONG), Ok(LONG));
        let mut bytes = vec![0; LONG as usize];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        for at in (0..LONG).step_by(4096) {
            let word = bytes[at as usize..][..8].try_into().unwrap();
            assert_eq!(u64::from_le_bytes(word), at);
        }
        assert_eq!(list(&pool).len(), 2000);
        pool.close().unwrap();
        shuffle(&dir.0);
    }
    // And into it.
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    let long = here(&pool);
    tx::begin().unwrap();
    vernal_pool::touch_range(long + 4096, LONG - 8192);
    // SAFETY: as above.
    let n = unsafe { libc::syscall(libc::SYS_pread64, fd, long + 4096, LONG - 8192, 8) };
    assert_eq!(n as u64, LONG - 8192);
    mark_range(long + 4096, LONG - 8192);
    tx::commit().unwrap();
    assert_eq!(load(long + 8192 - 8), 4096);
    pool.close().unwrap();
    let pool = Pool::open(&dir.0, READ).unwrap();
    assert_eq!(load(here(&pool) + 8192 - 8), 4096);
    assert_eq!(list(&pool).len(), 2000);
    pool.close().unwrap();
}
