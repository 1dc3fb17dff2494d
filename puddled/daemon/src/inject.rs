//! Fault injection for the test suite: puddled kills itself at the n-th step.
//!
//! `PUDDLED_TEST_KILL_AT=n` sends SIGKILL to this process at step n, counted from 1. Steps lie before and after everything that
//! changes the registry or the data directory. Without the variable a step costs one load.

use std::sync::atomic::{AtomicU64, Ordering};

static LEFT: AtomicU64 = AtomicU64::new(0);

/// Reads the environment.
pub(crate) fn init() {
    let at = std::env::var("PUDDLED_TEST_KILL_AT")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0);
    LEFT.store(at, Ordering::Relaxed);
}

/// A step.
#[inline]
pub(crate) fn step() {
    if LEFT.load(Ordering::Relaxed) != 0 && LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
