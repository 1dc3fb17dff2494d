//! Barriers that every thread of the process passes, and when a commit is worth one.
//!
//! Lines that commits have cleared are looked at again until such a barrier (`commit.rs`). It interrupts every CPU on which the
//! process runs, which takes from less than a microsecond to ten; each look takes a few nanoseconds. So one is executed when the looks
//! since the last one have cost as much as that did; by a thread that has committed, without the commit lock, so that others
//! commit meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use vernal_sys::os;

/// Nanoseconds of a look at a line that has not changed.
const LOOK_NS: u64 = 5;
/// Looks that cost as much as a barrier: at least and at most.
const LEAST_LOOKS: u64 = 96;
const MOST_LOOKS: u64 = 16384;

/// Counts commits. Written under the commit lock; a forked child goes on counting.
static NUMBER: AtomicU64 = AtomicU64::new(0);
/// The number of the last commit since whose end every thread has passed a barrier.
static PASSED: AtomicU64 = AtomicU64::new(0);
/// A thread executes a barrier.
static PASSING: AtomicBool = AtomicBool::new(false);
/// Looks that cost as much as the last barrier did.
static WORTH: AtomicU64 = AtomicU64::new(512);

/// Numbers a commit. Call under the commit lock.
#[inline]
pub(crate) fn begin_commit() {
    let number = NUMBER.load(Ordering::Relaxed) + 1;
    NUMBER.store(number, Ordering::Relaxed);
}

/// The number of the running commit, or of the last. Call under the commit lock.
#[inline]
pub(crate) fn number() -> u64 {
    NUMBER.load(Ordering::Relaxed)
}

/// Every thread has passed a barrier since the end of the commit with this number. To be read before the looks that rely on it.
#[inline]
pub(crate) fn passed() -> u64 {
    PASSED.load(Ordering::Acquire)
}

/// Whether so many looks have cost as much as a barrier.
#[inline]
pub(crate) fn is_worth(looks: u64) -> bool {
    looks > WORTH.load(Ordering::Relaxed)
}

/// A barrier now, after the commit with this number; waits for it.
pub(crate) fn pass(after: u64) {
    if os::membarrier() {
        PASSED.fetch_max(after, Ordering::AcqRel);
    }
}

/// [`pass`], unless another thread is at it. Not to be called under the commit lock.
pub(crate) fn pass_aside(after: u64) {
    if PASSING.swap(true, Ordering::AcqRel) {
        return;
    }
    let began = Instant::now();
    pass(after);
    let looks = began.elapsed().as_nanos() as u64 / LOOK_NS;
    WORTH.store(looks.clamp(LEAST_LOOKS, MOST_LOOKS), Ordering::Relaxed);
    PASSING.store(false, Ordering::Release);
}
