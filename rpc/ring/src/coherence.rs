//! Whether the caches of the two sides agree by themselves, or lines have to be written back and invalidated by hand.

use std::sync::atomic::AtomicU64;

/// What keeps the caches of two sides in agreement.
pub trait CacheControl {
    /// Writes the line back to memory, and returns when it is there.
    fn write_back(&self, line: &AtomicU64);
    /// Drops the line from this side's cache, so that the next load comes from memory.
    fn invalidate(&self, line: &AtomicU64);
}

/// The hardware does it: two processes of one host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coherent;

impl CacheControl for Coherent {
    #[inline(always)]
    fn write_back(&self, _line: &AtomicU64) {}
    #[inline(always)]
    fn invalidate(&self, _line: &AtomicU64) {}
}

/// The choice for one ring, made when the memory is known.
///
/// `Explicit` is for memory that two hosts share without cross-host coherence. Its instructions (`clwb`, `clflushopt` and
/// their fences) come from the caller, who may contain unsafe code.
#[derive(Clone, Copy, Debug)]
pub enum Coherence<C> {
    /// The caches agree by themselves.
    Coherent,
    /// Each published line is written back, each polled line is invalidated first.
    Explicit(C),
}

impl<C: CacheControl> CacheControl for Coherence<C> {
    #[inline]
    fn write_back(&self, line: &AtomicU64) {
        if let Coherence::Explicit(c) = self {
            c.write_back(line);
        }
    }

    #[inline]
    fn invalidate(&self, line: &AtomicU64) {
        if let Coherence::Explicit(c) = self {
            c.invalidate(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mapped, OwnWords, PeerWords};
    use std::cell::RefCell;

    /// Notes which lines are written back (`true`) and invalidated.
    struct Notes<'a>(&'a RefCell<Vec<(bool, u64)>>);

    impl CacheControl for Notes<'_> {
        fn write_back(&self, line: &AtomicU64) {
            self.0
                .borrow_mut()
                .push((true, line.load(std::sync::atomic::Ordering::Relaxed)));
        }
        fn invalidate(&self, line: &AtomicU64) {
            self.0
                .borrow_mut()
                .push((false, line.load(std::sync::atomic::Ordering::Relaxed)));
        }
    }

    #[test]
    fn the_choice_reaches_the_line() {
        let words: Vec<AtomicU64> = (0..8).map(AtomicU64::new).collect();
        let notes = RefCell::new(Vec::new());
        for (cache, expected) in [
            (
                Coherence::Explicit(Notes(&notes)),
                vec![(true, 3), (false, 5)],
            ),
            (Coherence::Coherent, vec![]),
        ] {
            let mapped = Mapped::with_cache(words.as_slice(), cache);
            mapped.write_back(3);
            mapped.invalidate(5);
            // Outside of the memory: nothing to do, nothing to read.
            mapped.write_back(8);
            mapped.publish(8, 1);
            assert_eq!(mapped.load(8), 0);
            assert_eq!(notes.take(), expected);
        }
    }
}
