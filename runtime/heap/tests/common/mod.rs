//! Pools in ordinary memory, and memory that remembers what may be undone.
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use vernal_format::Uuid;
use vernal_heap::{Heap, HeapError, Mapped, OwnedMemory, PoolIdentity, PoolMemory};

pub const MIB: u64 = 1 << 20;
pub const BASE: u64 = 0x5800_0000_0000;

type Hook = Box<dyn FnOnce() + Send>;

/// Memory of several puddles that checks what the heap promises: each changed word was announced before, unless it was
/// fresh, and reported after.
pub struct TestMemory {
    pub inner: OwnedMemory,
    log: Mutex<Log>,
    /// `before_write` refuses after that many calls.
    pub budget: AtomicU64,
    /// Whether `pages_touched` counts.
    pub watch: AtomicBool,
    /// Called once, before the next change of a page descriptor: another thread's deed at the worst moment.
    pub hook: Mutex<Option<Hook>>,
    /// The same, before the next change of anything.
    pub hook_anywhere: Mutex<Option<Hook>>,
}

#[derive(Debug, Default)]
struct Log {
    before: HashMap<u64, u64>,
    after: std::collections::HashSet<u64>,
    before_calls: u64,
    after_bytes: u64,
    pages: std::collections::HashSet<u64>,
}

impl TestMemory {
    pub fn new(sizes: &[u64]) -> Arc<TestMemory> {
        let mut inner = OwnedMemory::new();
        let mut at = BASE;
        for size in sizes {
            inner.add_zeroed(at, *size);
            at += size;
        }
        Arc::new(TestMemory {
            inner,
            log: Mutex::default(),
            budget: AtomicU64::new(u64::MAX),
            watch: AtomicBool::new(false),
            hook: Mutex::new(None),
            hook_anywhere: Mutex::new(None),
        })
    }

    /// The puddles, with uuids 1, 2, …
    pub fn puddles(&self) -> Vec<Mapped> {
        let areas = self.inner.areas().enumerate();
        areas
            .map(|(i, (addr, words))| Mapped {
                uuid: uuid(i as u8 + 1),
                addr,
                size: words.len() as u64 * 8,
            })
            .collect()
    }

    /// All words.
    pub fn snapshot(&self) -> Vec<Vec<u64>> {
        let load = |words: &[AtomicU64]| words.iter().map(|w| w.load(Relaxed)).collect();
        self.inner.areas().map(|(_, words)| load(words)).collect()
    }

    /// Sets all words back; returns the ranges that changed, line by line.
    pub fn restore(&self, snapshot: &[Vec<u64>]) -> Vec<(u64, u64)> {
        let mut lines = Vec::new();
        for ((addr, words), old) in self.inner.areas().zip(snapshot) {
            for (line, (words, old)) in words.chunks(8).zip(old.chunks(8)).enumerate() {
                let mut changed = false;
                for (w, o) in words.iter().zip(old) {
                    if w.load(Relaxed) != *o {
                        w.store(*o, Relaxed);
                        changed = true;
                    }
                }
                if changed {
                    lines.push((addr + line as u64 * 64, 64));
                }
            }
        }
        lines
    }

    /// Forgets what was announced and reported.
    pub fn begin(&self) {
        *self.log.lock().unwrap() = Log::default();
    }

    /// Calls of `before_write`, and bytes reported by `after_write`, since `begin`.
    pub fn traffic(&self) -> (u64, u64) {
        let log = self.log.lock().unwrap();
        (log.before_calls, log.after_bytes)
    }

    /// Pages of which words were asked for, since `begin`.
    pub fn pages_touched(&self) -> usize {
        self.log.lock().unwrap().pages.len()
    }

    /// Every word that differs from `snapshot` was reported.
    pub fn assert_reported(&self, snapshot: &[Vec<u64>]) {
        let log = self.log.lock().unwrap();
        for ((addr, words), old) in self.inner.areas().zip(snapshot) {
            for (i, (w, o)) in words.iter().zip(old).enumerate() {
                let at = addr + i as u64 * 8;
                if w.load(Relaxed) != *o {
                    assert!(log.after.contains(&at), "{at:#x} changed unreported");
                }
            }
        }
    }

    /// Undoes what was announced, like the undo log of a direct pool; words that were not announced keep what they have.
    pub fn undo(&self) -> Vec<(u64, u64)> {
        let log = std::mem::take(&mut *self.log.lock().unwrap());
        for (addr, old) in &log.before {
            self.inner.words(*addr, 1).unwrap()[0].store(*old, Relaxed);
        }
        log.before.keys().map(|addr| (*addr, 8)).collect()
    }
}

impl PoolMemory for TestMemory {
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        assert_eq!(addr % 8, 0, "words are aligned");
        if count > 0 && self.watch.load(Relaxed) {
            let last = (addr + count as u64 * 8 - 1) / 4096;
            self.log.lock().unwrap().pages.extend(addr / 4096..=last);
        }
        self.inner.words(addr, count)
    }

    fn before_write(&self, addr: u64, len: u64) -> Result<(), HeapError> {
        if self.budget.load(Relaxed) == 0 {
            return Err(HeapError::Refused {
                addr,
                len,
                why: "the log is full".to_owned(),
            });
        }
        self.budget.fetch_sub(1, Relaxed);
        if (addr - BASE) % (2 * MIB) < 4096 {
            let hook = self.hook.lock().unwrap().take();
            hook.into_iter().for_each(|hook| hook());
        }
        let hook = self.hook_anywhere.lock().unwrap().take();
        hook.into_iter().for_each(|hook| hook());
        let mut log = self.log.lock().unwrap();
        log.before_calls += 1;
        for at in (addr & !7..addr + len).step_by(8) {
            let old = self.inner.words(at, 1).map_or(0, |w| w[0].load(Relaxed));
            log.before.entry(at).or_insert(old);
        }
        Ok(())
    }

    fn after_write(&self, addr: u64, len: u64) {
        let mut log = self.log.lock().unwrap();
        log.after_bytes += len;
        log.after.extend((addr & !7..addr + len).step_by(8));
    }
}

pub fn uuid(n: u8) -> Uuid {
    Uuid([n; 16])
}

pub fn identity() -> PoolIdentity {
    PoolIdentity {
        uuid: uuid(99),
        label: "test".to_owned(),
        direct: false,
    }
}

/// A new pool with all puddles of `sizes`.
pub fn pool(sizes: &[u64]) -> (Arc<TestMemory>, Heap<Arc<TestMemory>>) {
    let mem = TestMemory::new(sizes);
    let puddles = mem.puddles();
    Heap::format_root(&mem, puddles[0], &identity()).unwrap();
    let heap = Heap::open(Arc::clone(&mem), &puddles).unwrap();
    for puddle in &puddles[1..] {
        heap.add_puddle(*puddle).unwrap();
    }
    (mem, heap)
}

/// The report of a sound heap.
pub fn sound<M: PoolMemory>(heap: &Heap<M>) -> vernal_heap::CheckReport {
    let report = heap.check();
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
    let sum = report.all.bytes + report.free_pages + report.free_slots + report.overhead;
    assert_eq!(sum, report.total, "{report:#?}");
    report
}

/// Whether all words of the range are zero.
pub fn is_zero(mem: &TestMemory, addr: u64, len: u64) -> bool {
    let words = mem.words(addr, len as usize / 8).unwrap();
    words.iter().all(|w| w.load(Relaxed) == 0)
}

/// Fills the range.
pub fn fill(mem: &TestMemory, addr: u64, len: u64, value: u64) {
    for word in mem.words(addr, len as usize / 8).unwrap() {
        word.store(value, Relaxed);
    }
}

pub fn is_filled(mem: &TestMemory, addr: u64, len: u64, value: u64) -> bool {
    let words = mem.words(addr, len as usize / 8).unwrap();
    words.iter().all(|w| w.load(Relaxed) == value)
}

/// A small generator of numbers, so that a seed is all it takes to repeat a run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
