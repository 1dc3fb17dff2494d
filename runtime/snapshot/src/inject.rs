//! Fault injection for the test suite: the process kills itself at the n-th injection point.
//!
//! `VERNAL_TEST_KILL_AT=n` sends SIGKILL to this process at point n (counted from 1); `VERNAL_TEST_COUNT=FILE` appends
//! the number of points passed to FILE at exit. Without either, a point costs one load of a cold flag, and the mark hooks
//! have none at all (they are routed through the slow path only when injection is on).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Where a point lies. Every stage of the pipeline has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// A mark hook.
    Mark,
    /// A commit has the lock, nothing is gathered.
    CommitStart,
    /// The record is staged, not written.
    CommitStaged,
    /// The record is durable and applied.
    CommitDone,
    /// Before the home images are flushed and the journal recycled.
    Checkpoint,
    /// After that.
    CheckpointDone,
    /// Before metadata are written.
    Meta,
    /// Recovery starts.
    Recover,
    /// Recovery has applied the journal and not yet marked the file clean.
    RecoverApplied,
    /// A file is being mapped or unmapped.
    Map,
}

static ON: AtomicBool = AtomicBool::new(false);
static PASSED: AtomicU64 = AtomicU64::new(0);
static KILL_AT: AtomicU64 = AtomicU64::new(0);
static COUNT_FILE: OnceLock<std::ffi::OsString> = OnceLock::new();

/// Reads the environment. Called once, before the first mapping.
pub(crate) fn init() {
    let kill_at = std::env::var("VERNAL_TEST_KILL_AT")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0);
    let count = std::env::var_os("VERNAL_TEST_COUNT");
    if kill_at == 0 && count.is_none() {
        return;
    }
    KILL_AT.store(kill_at, Ordering::Relaxed);
    if let Some(f) = count {
        let _ = COUNT_FILE.set(f);
    }
    ON.store(true, Ordering::SeqCst);
    crate::thread::route_marks_slowly();
}

/// An injection point.
#[inline]
pub fn point(site: Site) {
    if ON.load(Ordering::Relaxed) {
        hit(site);
    }
}

#[cold]
fn hit(_site: Site) {
    let n = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    if n == KILL_AT.load(Ordering::Relaxed) {
        // SAFETY: kills this very process, which is what the tests ask for.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

/// Writes the count of points passed, at exit.
pub(crate) fn report() {
    if let Some(path) = COUNT_FILE.get() {
        use std::io::Write;
        if let Ok(mut f) = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
        {
            let _ = writeln!(f, "{}", PASSED.load(Ordering::SeqCst));
        }
    }
}
