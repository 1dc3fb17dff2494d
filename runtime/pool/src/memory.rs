//! The mapped puddles of an open pool, as its heap sees them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use vernal_abi::puddle::MAX_PUDDLES;
use vernal_heap::{HeapError, PoolMemory};
use vernal_snapshot::thread::mark_range;

use crate::direct::DirectMemory;

const SHIFT_MASK: u64 = 63;

/// The puddles that are mapped: the heap's, and spare ones.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Address | log2 of the size; 0: none.
    spots: [AtomicU64; MAX_PUDDLES],
    top: AtomicUsize,
    read_only: AtomicBool,
    /// A pool that is changed in place, under logs.
    direct: Option<DirectMemory>,
    /// Nobody is told of changes.
    volatile: bool,
}

impl Memory {
    pub fn new(read_only: bool, direct: Option<DirectMemory>) -> Self {
        Memory {
            spots: [const { AtomicU64::new(0) }; MAX_PUDDLES],
            top: AtomicUsize::new(0),
            read_only: AtomicBool::new(read_only),
            direct,
            volatile: false,
        }
    }

    pub fn volatile() -> Self {
        Memory {
            volatile: true,
            ..Memory::new(false, None)
        }
    }

    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Adds a puddle, which is mapped; `false` when there are too many. Callers exclude each other.
    pub fn add(&self, addr: u64, size: u64) -> bool {
        let free = self
            .spots
            .iter()
            .position(|s| s.load(Ordering::Relaxed) == 0);
        let Some(i) = free else { return false };
        self.spots[i].store(addr | u64::from(size.trailing_zeros()), Ordering::Release);
        self.top.fetch_max(i + 1, Ordering::AcqRel);
        true
    }

    /// Takes a puddle out before it is unmapped.
    pub fn remove(&self, addr: u64) {
        for s in &self.spots {
            if s.load(Ordering::Relaxed) & !SHIFT_MASK == addr {
                s.store(0, Ordering::Release);
            }
        }
    }
}

impl PoolMemory for Memory {
    #[inline]
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        let len = (count as u64).checked_mul(8)?;
        let top = self.top.load(Ordering::Relaxed);
        // The last puddles are the largest.
        for s in self.spots.get(..top)?.iter().rev() {
            let spot = s.load(Ordering::Relaxed);
            let (base, size) = (spot & !SHIFT_MASK, 1u64 << (spot & SHIFT_MASK));
            let at = addr.wrapping_sub(base);
            if spot != 0 && at < size {
                if size - at < len || !addr.is_multiple_of(8) {
                    return None;
                }
                // SAFETY: the range lies in a puddle that stays mapped while the pool is open, aligned to 8; other threads
                // and the program use the same words, and atomics allow that.
                return Some(unsafe {
                    std::slice::from_raw_parts(addr as *const AtomicU64, count)
                });
            }
        }
        None
    }

    #[inline]
    fn before_write(&self, addr: u64, len: u64) -> Result<(), HeapError> {
        if self.is_read_only() {
            return Err(HeapError::Refused {
                addr,
                len,
                why: "the pool is open for reading".into(),
            });
        }
        match &self.direct {
            None => Ok(()),
            Some(direct) => direct.before_write(addr, len),
        }
    }

    #[inline]
    fn after_write(&self, addr: u64, len: u64) {
        match &self.direct {
            None if self.volatile => {}
            None => mark_range(addr, len),
            Some(direct) => direct.after_write(addr, len),
        }
    }

    fn reports_unchanged(&self) -> bool {
        self.direct.is_some()
    }

    /// Without a locked instruction in a process with one thread, which no other shares a buffered pool's memory with: such an
    /// instruction waits until the stores of the last commit have drained (docs/adr/0011). A signal handler does not come
    /// here: it may not use a pool that it has interrupted.
    #[inline]
    fn change_bits(&self, word: &AtomicU64, clear: u64, set: u64) -> u64 {
        if self.direct.is_none() && !self.volatile && vernal_sys::os::single_threaded() {
            let old = word.load(Ordering::Relaxed);
            word.store(old & !clear | set, Ordering::Relaxed);
            return old;
        }
        match word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| {
            Some(old & !clear | set)
        }) {
            Ok(old) | Err(old) => old,
        }
    }

    #[inline]
    fn is_zero(&self, addr: u64, count: usize) -> Option<bool> {
        let words = self.words(addr, count)?;
        // SAFETY: `words` are mapped. Other threads may write to them: what was zero a moment ago is all that is told, and
        // free memory, which nobody writes to, is all that the heap asks about.
        Some(unsafe { vernal_sys::cpu::is_zero(words.as_ptr().cast(), count) })
    }
}
