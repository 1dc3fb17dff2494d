//! A value that one thread at a time may use, claimed with one exchange and given back with one store.
//!
//! The halves of an endpoint are behind it: who polls claims the receiving half, who sends the sending half. Holding the sending
//! half takes some tens of nanoseconds and never waits for anything, so that spinning for it is right. The receiving half is held
//! for as long as its holder waits for messages: nobody spins for it, [`Exclusive::try_claim`] says no at once.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The value and its claim.
pub(crate) struct Exclusive<T> {
    claimed: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a `Claim` alone, of which there is one at a time: what is shared is a value that moves
// between threads.
unsafe impl<T: Send> Sync for Exclusive<T> {}

/// The right to use the value.
pub(crate) struct Claim<'a, T>(&'a Exclusive<T>);

/// Looks at a claim that is taken before this thread lets others run.
const LOOKS: u32 = 64;
/// Times that it lets others run before it sleeps: the holder may have lost its processor.
const YIELDS: u32 = 64;

impl<T> Exclusive<T> {
    pub(crate) fn new(value: T) -> Exclusive<T> {
        Exclusive {
            claimed: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, unless another thread has it.
    #[inline]
    pub(crate) fn try_claim(&self) -> Option<Claim<'_, T>> {
        // Sequentially consistent: see `pass_on` of the client, which looks at a claim after it has announced a sleeper.
        (!self.claimed.swap(true, Ordering::SeqCst)).then(|| Claim(self))
    }

    /// Whether some thread has it right now.
    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::SeqCst)
    }

    /// The value. For claims that are held for a moment only.
    #[inline]
    pub(crate) fn claim(&self) -> Claim<'_, T> {
        match self.try_claim() {
            Some(claim) => claim,
            None => self.claim_slowly(),
        }
    }

    #[cold]
    fn claim_slowly(&self) -> Claim<'_, T> {
        let mut rounds = 0u32;
        loop {
            for _ in 0..LOOKS {
                if !self.claimed.load(Ordering::Relaxed)
                    && let Some(claim) = self.try_claim()
                {
                    return claim;
                }
                std::hint::spin_loop();
            }
            rounds = rounds.saturating_add(1);
            if rounds < YIELDS {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }
}

impl<T> Deref for Claim<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this claim is the only one; references live no longer than it.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Claim<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this claim is the only one, and it is borrowed mutably.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Claim<'_, T> {
    /// Gives the value back so that what this thread reads afterwards is newer: for protocols in which the giver looks for somebody
    /// who waits. A store with release order may become visible after that look.
    #[inline]
    pub(crate) fn give_back(self) {
        self.0.claimed.swap(false, Ordering::SeqCst);
        std::mem::forget(self);
    }
}

impl<T> Drop for Claim<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.claimed.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let value = Exclusive::new(0u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        *value.claim() += 1;
                    }
                });
            }
        });
        assert_eq!(*value.claim(), 40_000);
        let held = value.claim();
        assert!(value.try_claim().is_none() && value.is_claimed());
        drop(held);
        assert!(value.try_claim().is_some());
    }
}
