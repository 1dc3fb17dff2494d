//! The runtime in one process, without compiler or interposition: stores are marked by hand, and the home view is what a
//! commit has made of them. Crashes of real processes are the business of testsuite/kill.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vernal_abi as abi;
use vernal_snapshot::{op_begin, op_end, runtime, thread};

/// A mapped file that goes away with the test.
struct Map {
    base: u64,
    len: u64,
    path: PathBuf,
}

impl Map {
    fn new(len: u64) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Memory, where there is some: these tests are about threads and bytes, not about the speed of a disk.
        let memory = PathBuf::from("/dev/shm");
        let dir = if memory.is_dir() {
            memory
        } else {
            std::env::temp_dir()
        };
        Self::within(&dir, len, NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// On a disk, as a rule: commits compare with home there, and do not write whole lines unseen.
    fn on_disk(len: u64) -> Self {
        Self::within(Path::new(env!("CARGO_TARGET_TMPDIR")), len, 0)
    }

    fn within(dir: &Path, len: u64, n: u32) -> Self {
        let path = dir.join(format!("vernal-runtime-{}-{n}.img", std::process::id()));
        let base = runtime::map_file(&path, len, true).unwrap();
        Self { base, len, path }
    }

    fn word(&self, i: u64) -> &AtomicU64 {
        assert!(i * 8 < self.len.next_multiple_of(4096));
        // SAFETY: inside the mapping, aligned; every access in these tests is atomic.
        unsafe { AtomicU64::from_ptr((self.base + i * 8) as *mut u64) }
    }

    fn home(&self, i: u64) -> u64 {
        // SAFETY: the home view of a mapped word.
        unsafe { AtomicU64::from_ptr((self.base + i * 8 + abi::HOME_DISTANCE) as *mut u64) }
            .load(Ordering::Relaxed)
    }

    /// What compiled code does: store, then mark.
    fn set(&self, i: u64, v: u64) {
        self.word(i).store(v, Ordering::Relaxed);
        thread::mark_range(self.base + i * 8, 8);
    }

    fn get(&self, i: u64) -> u64 {
        self.word(i).load(Ordering::Relaxed)
    }

    /// Unmaps without committing and maps again: what a crash would leave.
    fn reopen(&mut self) {
        runtime::unmap_file(self.base, true).unwrap();
        let base = runtime::map_file(&self.path, 0, false).unwrap();
        assert_eq!(base, self.base, "a file keeps its home address");
        self.len = runtime::length(base);
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let _ = runtime::unmap_file(self.base, true);
        let mut meta = self.path.clone().into_os_string();
        meta.push(".vernal");
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(meta);
    }
}

// One process, one journal, one commit lock: tests that look at what *was not* committed must not run beside tests that
// commit. They take this lock.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

#[test]
fn a_commit_reaches_home_and_nothing_else_does() {
    let _alone = alone();
    let mut m = Map::new(1 << 16);
    m.set(5, 55);
    m.set(4000, 44);
    assert_eq!((m.home(5), m.home(4000)), (0, 0));
    runtime::commit().unwrap();
    assert_eq!((m.home(5), m.home(4000)), (55, 44));
    for i in 100..300 {
        m.word(i).store(i, Ordering::Relaxed);
    }
    thread::mark_range(m.base + 100 * 8, 200 * 8);
    runtime::commit().unwrap();
    assert!(
        (100..300).all(|i| m.home(i) == i),
        "every line of a marked range"
    );
    m.set(5, 56);
    m.reopen();
    assert_eq!((m.get(5), m.get(4000)), (55, 44));
}

#[test]
fn marks_beyond_the_ring_are_found_in_the_shadow() {
    let _alone = alone();
    let lines = 2 * thread::RING_SLOTS + 77;
    let m = Map::new(lines * abi::LINE_SIZE);
    for round in 1..3 {
        for line in 0..lines {
            m.set(line * 8 + line % 8, round);
        }
        runtime::commit().unwrap();
        for line in 0..lines {
            assert_eq!(m.home(line * 8 + line % 8), round, "line {line}");
        }
    }
}

#[test]
fn abort_goes_back_to_the_last_commit() {
    let _alone = alone();
    let m = Map::new(1 << 16);
    m.set(1, 10);
    runtime::commit().unwrap();
    m.set(1, 11);
    m.set(900, 12);
    runtime::abort().unwrap();
    assert_eq!((m.get(1), m.get(900)), (10, 0));
    m.set(1, 13);
    runtime::commit().unwrap();
    assert_eq!(m.home(1), 13);
}

#[test]
fn an_asynchronous_commit_counts_although_its_value_is_changed_back() {
    let _alone = alone();
    let mut m = Map::on_disk(1 << 16);
    m.set(3, 1);
    runtime::commit().unwrap();
    m.set(3, 2);
    let ticket = runtime::commit_async().unwrap();
    m.set(3, 1);
    runtime::commit().unwrap();
    runtime::wait(ticket).unwrap();
    assert_eq!(m.home(3), 1);
    m.set(3, 4);
    let ticket = runtime::commit_async().unwrap();
    m.set(3, 5);
    runtime::wait(ticket).unwrap();
    assert_eq!(
        m.home(3),
        4,
        "the commit that was waited for, and nothing later"
    );
    assert!(runtime::wait(ticket + 1).is_err());
    m.reopen();
    assert_eq!(m.get(3), 4);
}

#[test]
fn a_length_is_part_of_the_commit_and_what_comes_back_is_zero() {
    let _alone = alone();
    let mut m = Map::new(3 * 4096);
    m.set(1500, 7);
    m.set(1020, 8);
    runtime::commit().unwrap();
    runtime::resize(m.base, 2 * 4096 - 100).unwrap();
    runtime::resize(m.base, 5 * 4096).unwrap();
    m.len = 5 * 4096;
    assert_eq!(
        (m.get(1020), m.get(1500)),
        (0, 0),
        "what was cut reads as zeros"
    );
    m.set(2500, 9);
    runtime::commit().unwrap();
    m.reopen();
    assert_eq!(m.len, 5 * 4096);
    assert_eq!((m.get(1020), m.get(1500), m.get(2500)), (0, 0, 9));
    runtime::resize(m.base, 4096).unwrap();
    m.reopen();
    assert_eq!(m.len, 5 * 4096, "a length that was not committed never was");
    runtime::resize(m.base, 4096).unwrap();
    runtime::commit().unwrap();
    m.reopen();
    assert_eq!(m.len, 4096);
}

#[test]
fn several_files_commit_together() {
    let _alone = alone();
    let (mut a, mut b) = (Map::new(1 << 16), Map::new(1 << 16));
    for i in 0..200 {
        a.set(i, i);
        b.set(i * 3, i);
    }
    runtime::commit().unwrap();
    a.set(1, 1000);
    b.set(3, 1000);
    a.reopen();
    b.reopen();
    for i in 0..200 {
        assert_eq!((a.get(i), b.get(i * 3)), (i, i));
    }
}

#[test]
fn every_caller_of_a_group_commit_finds_its_update_at_home() {
    let _alone = alone();
    let m = Map::new(1 << 16);
    std::thread::scope(|s| {
        for t in 0..4 {
            let m = &m;
            s.spawn(move || {
                for v in 1..300 {
                    m.set(t * 64, v);
                    runtime::commit().unwrap();
                    assert!(
                        m.home(t * 64) >= v,
                        "a commit returned without the update that preceded it"
                    );
                }
            });
        }
    });
}

/// Case 2 of `commit.rs`: a store that sits in the store buffer while a commit clears and reads its line, and whose mark
/// still sees the byte set. Without the recheck list this test loses updates within a second on two cores.
/// A store whose mark has read the byte as set, before the clear became visible, and which itself became visible when the commit
/// had read the line: nobody lists it.
#[test]
fn a_line_that_was_cleared_is_looked_at_by_the_next_commit() {
    let _alone = alone();
    let m = Map::new(1 << 16);
    let store_late = |v| m.word(5).store(v, Ordering::Relaxed);
    m.set(5, 1);
    runtime::commit().unwrap();
    store_late(2);
    runtime::commit().unwrap();
    assert_eq!(m.home(5), 2);
    m.set(5, 3);
    runtime::commit().unwrap();
    store_late(2);
    runtime::commit().unwrap();
    assert_eq!(m.home(5), 2, "what the commit before the last had seen");
    m.set(5, 4);
    runtime::abort().unwrap();
    assert_eq!(m.get(5), 2);
    store_late(4);
    runtime::commit().unwrap();
    assert_eq!(m.home(5), 4, "what was taken back");
    m.set(405, 4);
    runtime::abort().unwrap();
    assert_eq!(m.get(405), 0);
    let store_late_elsewhere = |v| m.word(405).store(v, Ordering::Relaxed);
    store_late_elsewhere(4);
    runtime::commit().unwrap();
    assert_eq!(
        m.home(405),
        4,
        "what was taken back, on a line that no commit had cleared"
    );
    m.set(5, 6);
    m.set(5 + 8, 7);
    runtime::commit().unwrap();
    m.set(5 + 8, 8);
    store_late(9);
    runtime::commit().unwrap();
    assert_eq!((m.home(5), m.home(5 + 8)), (9, 8));
}

#[test]
fn a_store_that_races_with_a_commit_is_found_by_the_next() {
    let _alone = alone();
    const LINES: u64 = 4;
    const PASSES: i64 = 40_000;
    const ENOUGH: Duration = Duration::from_secs(30);
    let m = Map::new(1 << 16);
    let (turn, done) = (AtomicI64::new(0), AtomicBool::new(false));
    let mut lost = 0;
    std::thread::scope(|s| {
        s.spawn(|| {
            let begun = Instant::now();
            for p in 1..=PASSES {
                // Each pass waits for both threads' turns: on a machine that has much else to do they take milliseconds.
                if begun.elapsed() > ENOUGH {
                    println!("{p} of {PASSES} passes in {ENOUGH:?}");
                    break;
                }
                for word in 0..LINES * 8 {
                    m.set(word, p as u64);
                }
                turn.store(p, Ordering::Release);
                while turn.load(Ordering::Acquire) == p {
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            runtime::commit().unwrap();
            let p = turn.load(Ordering::Acquire);
            if p > 0 {
                runtime::commit().unwrap();
                lost += (0..LINES * 8).filter(|&w| m.home(w) != m.get(w)).count();
                turn.store(-p, Ordering::Release);
            }
        }
    });
    assert_eq!(lost, 0, "words that no commit found");
}

#[test]
fn a_commit_never_sees_half_an_operation() {
    let _alone = alone();
    let m = Map::new(1 << 16);
    std::thread::scope(|s| {
        let writers: Vec<_> = (0..2u64)
            .map(|t| {
                let m = &m;
                s.spawn(move || {
                    for v in 1..20_000 {
                        op_begin();
                        m.set(t * 512, v);
                        op_begin();
                        m.set(t * 512 + 256, v);
                        op_end();
                        op_end();
                    }
                })
            })
            .collect();
        while !writers.iter().all(|w| w.is_finished()) {
            runtime::commit().unwrap();
            for t in 0..2 {
                assert_eq!(
                    m.home(t * 512),
                    m.home(t * 512 + 256),
                    "thread {t}'s operation was cut in two"
                );
            }
        }
    });
}

/// An operation that is in no hurry: it goes on when a commit has cut it in two, or when it has waited long enough for one that does.
#[test]
fn a_commit_waits_for_a_long_operation() {
    let _alone = alone();
    let m = Map::new(1 << 16);
    let (inside, committing) = (AtomicI64::new(0), AtomicI64::new(0));
    let wait_for = |turn: &AtomicI64, v: i64| {
        while turn.load(Ordering::Acquire) < v {
            std::thread::yield_now();
        }
    };
    let mut cut = 0;
    std::thread::scope(|s| {
        s.spawn(|| {
            for v in 1..=20_i64 {
                op_begin();
                m.set(0, v as u64);
                inside.store(v, Ordering::Release);
                wait_for(&committing, v);
                let begun = Instant::now();
                while m.home(0) != v as u64 && begun.elapsed() < Duration::from_millis(5) {
                    std::thread::yield_now();
                }
                m.set(256, v as u64);
                op_end();
            }
        });
        for v in 1..=20_i64 {
            wait_for(&inside, v);
            committing.store(v, Ordering::Release);
            runtime::commit().unwrap();
            // The next operation may have begun, and waits for its commit.
            cut += u32::from(m.home(0) != m.home(256));
        }
    });
    assert_eq!(cut, 0, "operations were cut in two");
}

#[test]
fn wrong_arguments_have_answers() {
    let _alone = alone();
    let m = Map::new(1 << 16);
    assert!(runtime::unmap_file(m.base - 4096, false).is_err());
    assert!(runtime::resize(m.base, u64::MAX).is_err());
    assert!(runtime::check_msync(m.base + 1, libc::MS_SYNC).is_err());
    assert!(runtime::check_msync(m.base, libc::MS_SYNC | libc::MS_ASYNC).is_err());
    assert!(runtime::map_file(std::path::Path::new("/nonexistent/x.img"), 4096, true).is_err());
    thread::mark_range(0, 100);
    thread::mark_range(u64::MAX - 10, 100);
    thread::mark_range(m.base, u64::MAX - m.base);
    runtime::commit().unwrap();
}
