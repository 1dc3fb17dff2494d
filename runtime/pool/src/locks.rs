//! The heap's lock in a process that has its pool mapped: no locked instruction while there is one thread.

use vernal_heap::{HeapLock, Locks};
use vernal_snapshot::lock::{CommitLock, Guard};

/// The locks of a mapped pool's heap.
#[derive(Debug)]
pub(crate) struct PoolLocks;

impl Locks for PoolLocks {
    type Lock<T: Send + std::fmt::Debug> = PoolLock<T>;
}

/// A lock as the one of commits (docs/adr/0011).
#[derive(Debug)]
pub(crate) struct PoolLock<T>(CommitLock<T>);

impl<T: Send + std::fmt::Debug> HeapLock<T> for PoolLock<T> {
    type Guard<'a>
        = Guard<'a, T>
    where
        Self: 'a;

    fn new(value: T) -> Self {
        PoolLock(CommitLock::new(value))
    }

    #[inline]
    fn lock(&self) -> Guard<'_, T> {
        // SAFETY: the heap takes no lock that its thread holds, and a signal handler that interrupts a holder cannot get
        // here: `registry::with` turns it away.
        unsafe { self.0.lock() }
    }
}
