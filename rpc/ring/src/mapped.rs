//! Words of real memory: a slice of atomics, whoever keeps it mapped.

use crate::coherence::{CacheControl, Coherent};
use crate::layout::LINE_WORDS;
use crate::message::{BODY, has_body};
use crate::words::{OwnWords, PeerWords};
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Words of mapped memory.
///
/// `W` is whatever keeps the mapping alive and shows it as a slice: `&[AtomicU64]` in tests, a counted handle of a segment in
/// a connection. A slice that shrinks later reads as zeros, which the rings take for damage.
#[derive(Clone, Copy, Debug)]
pub struct Mapped<W, C = Coherent> {
    words: W,
    cache: C,
}

impl<W> Mapped<W, Coherent> {
    /// Words of coherent memory.
    pub fn new(words: W) -> Self {
        Mapped {
            words,
            cache: Coherent,
        }
    }
}

impl<W, C> Mapped<W, C> {
    /// Words whose lines need what `cache` does.
    pub fn with_cache(words: W, cache: C) -> Self {
        Mapped { words, cache }
    }
}

impl<W: AsRef<[AtomicU64]>, C: CacheControl> OwnWords for Mapped<W, C> {
    fn count(&self) -> usize {
        self.words.as_ref().len()
    }

    #[inline(always)]
    fn store(&self, word: usize, value: u64) {
        if let Some(w) = self.words.as_ref().get(word) {
            w.store(value, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn store_line(&self, first: usize, words: &[u64; LINE_WORDS], body: bool) {
        let line = self.words.as_ref().get(first..).unwrap_or_default();
        let Some([_, call, method, a, b, deadline, c, d]) = line.first_chunk() else {
            return;
        };
        call.store(words[1], Ordering::Relaxed);
        method.store(words[2], Ordering::Relaxed);
        deadline.store(words[5], Ordering::Relaxed);
        if body {
            for (to, from) in [a, b, c, d].into_iter().zip(BODY) {
                to.store(words[from], Ordering::Relaxed);
            }
        }
    }

    #[inline(always)]
    fn publish(&self, word: usize, value: u64) {
        if let Some(w) = self.words.as_ref().get(word) {
            w.store(value, Ordering::Release);
        }
    }

    fn bump(&self, word: usize) {
        if let Some(w) = self.words.as_ref().get(word) {
            w.fetch_add(1, Ordering::Release);
        }
    }

    #[inline(always)]
    fn write_back(&self, word: usize) {
        if let Some(w) = self.words.as_ref().get(word) {
            self.cache.write_back(w);
        }
    }

    #[inline(always)]
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}

impl<W: AsRef<[AtomicU64]>, C: CacheControl> PeerWords for Mapped<W, C> {
    fn count(&self) -> usize {
        self.words.as_ref().len()
    }

    #[inline(always)]
    fn load(&self, word: usize) -> u64 {
        // Relaxed, with a fence of its own in `acquire`: loads with an ordering are not defined on read-only pages.
        self.words
            .as_ref()
            .get(word)
            .map_or(0, |w| w.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn load_line(&self, first: usize) -> [u64; LINE_WORDS] {
        let mut words = [0; LINE_WORDS];
        let line = self.words.as_ref().get(first..).unwrap_or_default();
        let Some([_, call, method, a, b, deadline, c, d]) = line.first_chunk() else {
            return words;
        };
        words[1] = call.load(Ordering::Relaxed);
        words[2] = method.load(Ordering::Relaxed);
        words[5] = deadline.load(Ordering::Relaxed);
        if has_body(words[2]) {
            for (from, to) in [a, b, c, d].into_iter().zip(BODY) {
                words[to] = from.load(Ordering::Relaxed);
            }
        }
        words
    }

    #[inline(always)]
    fn acquire(&self) {
        fence(Ordering::Acquire);
    }

    #[inline(always)]
    fn invalidate(&self, word: usize) {
        if let Some(w) = self.words.as_ref().get(word) {
            self.cache.invalidate(w);
        }
    }

    #[inline(always)]
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}
