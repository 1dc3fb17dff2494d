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
