//! A direct pool as the heap sees it: words in place, old values logged before each change.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use vernal_heap::{HeapError, PoolMemory};

use super::lock::PoolLock;
use super::space::{self, PoolNumber};
use super::tx;
use crate::Error;

/// The memory of a direct pool.
#[derive(Debug, Clone)]
pub struct DirectMemory {
    pool: PoolNumber,
    lock: Arc<dyn PoolLock>,
}

impl DirectMemory {
    /// The puddles that are mapped for `pool`.
    pub fn new(pool: PoolNumber, lock: Arc<dyn PoolLock>) -> DirectMemory {
        DirectMemory { pool, lock }
    }

    /// Which pool it is.
    pub fn pool(&self) -> PoolNumber {
        self.pool
    }

    /// Takes the pool's allocator for the open transaction, until its end: before the heap is asked to change anything.
    /// `true` when another process allocated since, or an abort took changes back: the caller then has the heap read
    /// itself again (`Heap::reset_caches`, `Heap::restored` for every puddle).
    pub fn enter(&self) -> Result<bool, Error> {
        tx::hold(&self.lock)
    }
}

impl PoolMemory for DirectMemory {
    #[inline]
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        let len = (count as u64).checked_mul(8)?;
        if !addr.is_multiple_of(8) || !space::belongs_to(self.pool, addr, len) {
            return None;
        }
        // SAFETY: the table says that the range is mapped for this pool, which stays mapped while its heap is in use; words
        // are only looked at as atomics.
        Some(unsafe { std::slice::from_raw_parts(addr as *const AtomicU64, count) })
    }

    #[inline]
    fn before_write(&self, addr: u64, len: u64) -> Result<(), HeapError> {
        tx::undo(addr, len).map_err(|e| HeapError::Refused {
            addr,
            len,
            why: e.to_string(),
        })
    }

    #[inline]
    fn after_write(&self, addr: u64, len: u64) {
        // Outside a transaction there was no `before_write` either: memory that only its allocation's transaction changes.
        let _ = tx::touch(addr, len);
    }

    fn reports_unchanged(&self) -> bool {
        true
    }
}
