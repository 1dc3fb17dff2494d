//! The words of a pool's puddles, as the allocator and the walker see them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::HeapError;

/// A pool's mapped memory. Whoever implements it decides how a change becomes durable and how it is undone.
///
/// The heap calls `before_write` before and `after_write` after every change of a word, with exact ranges. Memory that was
/// free before is the exception: its content matters to nobody after an abort, so only `after_write` is called for it.
pub trait PoolMemory {
    /// `count` words from `addr` (a multiple of 8); `None` when any of them lies outside the pool's puddles.
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]>;

    /// The words that overlap `len` bytes at `addr` are about to change. Direct pools log their old value.
    fn before_write(&self, addr: u64, len: u64) -> Result<(), HeapError>;

    /// The words that overlap `len` bytes at `addr` have changed. Buffered pools mark the lines.
    fn after_write(&self, addr: u64, len: u64);

    /// Whether a word may read as what an aborted change had stored there without that being durable (memory changed in
    /// place). The heap then also reports fresh words that it need not change because they are zero already.
    fn reports_unchanged(&self) -> bool {
        false
    }

    /// Takes the bits `clear` out of a word and sets the bits `set`; returns what it was. One step for every thread and
    /// process that uses the word, ordered before and after everything else that they do to this memory.
    #[inline]
    fn change_bits(&self, word: &AtomicU64, clear: u64, set: u64) -> u64 {
        let changed = word.fetch_update(SeqCst, SeqCst, |old| Some(old & !clear | set));
        changed.unwrap_or_else(|old| old)
    }

    /// Whether the `count` words at `addr` are all zero; `None` as for [`PoolMemory::words`].
    #[inline]
    fn is_zero(&self, addr: u64, count: usize) -> Option<bool> {
        let words = self.words(addr, count)?;
        Some(words.iter().all(|w| w.load(Relaxed) == 0))
    }
}

impl<M: PoolMemory + ?Sized> PoolMemory for &M {
    #[inline]
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        (**self).words(addr, count)
    }
    #[inline]
    fn before_write(&self, addr: u64, len: u64) -> Result<(), HeapError> {
        (**self).before_write(addr, len)
    }
    #[inline]
    fn after_write(&self, addr: u64, len: u64) {
        (**self).after_write(addr, len)
    }
    fn reports_unchanged(&self) -> bool {
        (**self).reports_unchanged()
    }
    #[inline]
    fn change_bits(&self, word: &AtomicU64, clear: u64, set: u64) -> u64 {
        (**self).change_bits(word, clear, set)
    }
    #[inline]
    fn is_zero(&self, addr: u64, count: usize) -> Option<bool> {
        (**self).is_zero(addr, count)
    }
}

impl<M: PoolMemory + ?Sized> PoolMemory for std::sync::Arc<M> {
    #[inline]
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        (**self).words(addr, count)
    }
    #[inline]
    fn before_write(&self, addr: u64, len: u64) -> Result<(), HeapError> {
        (**self).before_write(addr, len)
    }
    #[inline]
    fn after_write(&self, addr: u64, len: u64) {
        (**self).after_write(addr, len)
    }
    fn reports_unchanged(&self) -> bool {
        (**self).reports_unchanged()
    }
    #[inline]
    fn change_bits(&self, word: &AtomicU64, clear: u64, set: u64) -> u64 {
        (**self).change_bits(word, clear, set)
    }
    #[inline]
    fn is_zero(&self, addr: u64, count: usize) -> Option<bool> {
        (**self).is_zero(addr, count)
    }
}

/// Puddles in ordinary memory, at the addresses that their pointers mean: for building and examining pools without
/// mapping them.
#[derive(Debug, Default)]
pub struct OwnedMemory {
    areas: Vec<(u64, Vec<AtomicU64>)>,
}

impl OwnedMemory {
    /// No puddles.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `size` zero bytes at `addr`; both are rounded down to words.
    pub fn add_zeroed(&mut self, addr: u64, size: u64) {
        let words = usize::try_from(size / 8).unwrap_or(0);
        let mut area = Vec::new();
        area.resize_with(words, || AtomicU64::new(0));
        self.areas.push((addr & !7, area));
    }

    /// Adds the words of a puddle at `addr`.
    pub fn add_words(&mut self, addr: u64, words: Vec<AtomicU64>) {
        self.areas.push((addr & !7, words));
    }

    /// The areas: address and words.
    pub fn areas(&self) -> impl Iterator<Item = (u64, &[AtomicU64])> {
        self.areas.iter().map(|(addr, words)| (*addr, &words[..]))
    }
}

impl PoolMemory for OwnedMemory {
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        self.areas.iter().find_map(|(base, words)| {
            let at = usize::try_from(addr.checked_sub(*base)? / 8).ok()?;
            words.get(at..at.checked_add(count)?)
        })
    }
    fn before_write(&self, _addr: u64, _len: u64) -> Result<(), HeapError> {
        Ok(())
    }
    fn after_write(&self, _addr: u64, _len: u64) {}
}
