//! What a thread keeps: the spans that it alone allocates from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Spans whose caches are gone, with the generation that their cache had seen.
pub(crate) type Orphans = Arc<OrphanSpans>;

/// See [`Orphans`].
#[derive(Debug, Default)]
pub(crate) struct OrphanSpans {
    /// There may be some: allocations of pages look here before they take a lock.
    any: AtomicBool,
    spans: Mutex<Vec<(u64, u64)>>,
}

impl OrphanSpans {
    /// Takes all of them.
    pub(crate) fn take(&self) -> Vec<(u64, u64)> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut *spans)
    }

    fn add(&self, more: impl Iterator<Item = (u64, u64)>) {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.extend(more);
        self.any.store(true, Ordering::Release);
    }
}

const SLOTS_AT_FIRST: usize = 32;

/// A thread's spans of one heap, from [`crate::Heap::thread_cache`]. It holds no objects: every allocated object is in its
/// span's bitmap. Dropping it gives the spans back.
#[derive(Debug)]
pub struct ThreadCache {
    pub(crate) heap: u64,
    /// Generation of the heap when the spans were taken.
    pub(crate) generation: u64,
    entries: Vec<Entry>,
    used: usize,
    orphans: Orphans,
}

/// The span for one size class and type.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Entry {
    /// 0: unused.
    pub key: u64,
    /// Address of the span; 0: none.
    pub span: u64,
    /// Word of the bitmap where the last free slot was.
    pub word: usize,
}

/// Names a size class and a type; never 0.
#[inline(always)]
pub(crate) fn key_of(class: usize, type_index: u32) -> u64 {
    u64::from(type_index) << 8 | (class as u64 + 1)
}

impl ThreadCache {
    pub(crate) fn new(heap: u64, generation: u64, orphans: Orphans) -> ThreadCache {
        ThreadCache {
            heap,
            generation,
            entries: vec![Entry::default(); SLOTS_AT_FIRST],
            used: 0,
            orphans,
        }
    }

    #[inline(always)]
    fn start(key: u64, len: usize) -> usize {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (len - 1)
    }

    /// The entry of `key`.
    #[inline(always)]
    pub(crate) fn find(&mut self, key: u64) -> Option<&mut Entry> {
        let len = self.entries.len();
        let mut at = Self::start(key, len);
        // At most half of the entries are used, so an unused one ends the search.
        loop {
            let entry = self.entries.get(at)?;
            if entry.key == key {
                return self.entries.get_mut(at);
            }
            if entry.key == 0 {
                return None;
            }
            at = (at + 1) & (len - 1);
        }
    }

    /// Sets the span of `key`.
    pub(crate) fn set(&mut self, key: u64, span: u64) {
        if let Some(entry) = self.find(key) {
            (entry.span, entry.word) = (span, 0);
            return;
        }
        if (self.used + 1) * 2 > self.entries.len() {
            let old = std::mem::take(&mut self.entries);
            self.entries = vec![Entry::default(); old.len() * 2];
            for entry in old.into_iter().filter(|e| e.key != 0) {
                self.insert(entry);
            }
        }
        self.used += 1;
        self.insert(Entry { key, span, word: 0 });
    }

    fn insert(&mut self, entry: Entry) {
        let len = self.entries.len();
        let start = Self::start(entry.key, len);
        let place = (start..start + len)
            .map(|at| at & (len - 1))
            .find(|at| self.entries.get(*at).is_some_and(|e| e.key == 0));
        if let Some(to) = place.and_then(|at| self.entries.get_mut(at)) {
            *to = entry;
        }
    }

    /// Takes all spans out.
    pub(crate) fn take_spans(&mut self) -> Vec<u64> {
        self.used = 0;
        let entries = self.entries.iter_mut().map(std::mem::take);
        entries.map(|e| e.span).filter(|s| *s != 0).collect()
    }
}

impl Drop for ThreadCache {
    fn drop(&mut self) {
        let generation = self.generation;
        let spans = self.take_spans();
        let orphans = spans.into_iter().map(|span| (generation, span));
        self.orphans.add(orphans);
    }
}
