//! The lock under which pages change hands: whoever opens a heap may bring its own.

use std::fmt::Debug;
use std::ops::DerefMut;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock around a value. The heap never takes one that its thread holds.
pub trait HeapLock<T>: Send + Sync + Debug {
    /// Access to the value.
    type Guard<'a>: DerefMut<Target = T>
    where
        Self: 'a;

    /// A lock around `value`.
    fn new(value: T) -> Self;

    /// Takes the lock.
    fn lock(&self) -> Self::Guard<'_>;
}

/// A family of locks.
pub trait Locks: Debug {
    /// The lock around a value.
    type Lock<T: Send + Debug>: HeapLock<T>;
}

/// Those of the standard library.
#[derive(Debug)]
pub struct StdLocks;

impl Locks for StdLocks {
    type Lock<T: Send + Debug> = Mutex<T>;
}

impl<T: Send + Debug> HeapLock<T> for Mutex<T> {
    type Guard<'a>
        = MutexGuard<'a, T>
    where
        Self: 'a;

    fn new(value: T) -> Self {
        Mutex::new(value)
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        // A panic under the lock leaves an index that is compared with the descriptors before it is believed.
        Mutex::lock(self).unwrap_or_else(PoisonError::into_inner)
    }
}
