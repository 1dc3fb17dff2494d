//! The commit lock: a mutex that costs no locked instruction while the process has one thread.
//!
//! A locked instruction right after a commit's fence waits until the write-combining buffers have drained, which more than
//! doubled the cost of a small commit (docs/adr). With one thread there is nobody to exclude: a signal handler that
//! interrupts the holder is turned away by `Control::in_commit` before it gets here, and a second thread can only be
//! created by the one thread, which is not inside a commit then.

use crate::gate;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use vernal_sys::os;

/// A mutex; see the module's comment.
#[derive(Debug)]
pub struct CommitLock<T> {
    mutex: Mutex<()>,
    /// A thread holds the mutex, or is about to give it back: a hint to those who wait.
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a guard only; guards exclude each other by the mutex, or because there is one
// thread and its `in_commit` flag.
unsafe impl<T: Send> Sync for CommitLock<T> {}

/// Access to the value.
#[derive(Debug)]
pub struct Guard<'a, T> {
    // Given back behind `drop`.
    mutex: Option<MutexGuard<'a, ()>>,
    held: &'a AtomicBool,
    value: *mut T,
}

impl<T> CommitLock<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            mutex: Mutex::new(()),
            held: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock.
    ///
    /// # Safety
    ///
    /// The calling thread must not hold it.
    #[inline]
    pub unsafe fn lock(&self) -> Guard<'_, T> {
        // A panic under the lock is a bug of ours; the state is still the best there is.
        let mutex = if os::single_threaded() {
            None
        } else {
            Some(self.lock_among_threads())
        };
        Guard {
            mutex,
            held: &self.held,
            value: self.value.get(),
        }
    }

    /// The value, without the lock.
    ///
    /// # Safety
    ///
    /// The process has one thread, which holds neither the lock nor another reference of this kind.
    #[expect(clippy::mut_from_ref, reason = "the caller excludes everyone else")]
    #[inline]
    pub unsafe fn alone(&self) -> &mut T {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.value.get() }
    }
}

impl<T> CommitLock<T> {
    fn lock_among_threads(&self) -> MutexGuard<'_, ()> {
        // Whoever holds it commits, for this thread as well, and is soon done; a sleeping thread takes longer to wake.
        gate::look_until(|| !self.held.load(Ordering::Relaxed));
        let guard = self.mutex.lock().unwrap_or_else(|e| e.into_inner());
        self.held.store(true, Ordering::Relaxed);
        guard
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.mutex.is_some() {
            self.held.store(false, Ordering::Relaxed);
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: guards exclude each other.
        unsafe { &*self.value }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: guards exclude each other.
        unsafe { &mut *self.value }
    }
}
