//! Fault injection for the test suite: the process kills itself at the n-th step.
//!
//! `VERNAL_RPC_TEST_KILL_AT=n` sends SIGKILL to this process at step n, counted from 1; `VERNAL_RPC_TEST_COUNT=FILE` writes how many
//! steps were passed to FILE, at each of them. Without either, a step costs one load of a flag that nobody writes.

use std::ffi::OsString;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static ON: AtomicBool = AtomicBool::new(false);
static PASSED: AtomicU64 = AtomicU64::new(0);

struct Plan {
    kill_at: u64,
    count: Option<OsString>,
}

static PLAN: OnceLock<Plan> = OnceLock::new();

/// Reads the environment. Called by whatever opens the first channel or connection.
pub(crate) fn init() {
    PLAN.get_or_init(|| {
        let kill_at = std::env::var("VERNAL_RPC_TEST_KILL_AT");
        let plan = Plan {
            kill_at: kill_at.ok().and_then(|n| n.parse().ok()).unwrap_or(0),
            count: std::env::var_os("VERNAL_RPC_TEST_COUNT"),
        };
        ON.store(plan.kill_at > 0 || plan.count.is_some(), Ordering::Relaxed);
        plan
    });
}

/// A step: before or after something that another process can see.
#[inline(always)]
pub(crate) fn step() {
    if ON.load(Ordering::Relaxed) {
        hit();
    }
}

#[cold]
fn hit() {
    let n = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    let Some(plan) = PLAN.get() else {
        return;
    };
    if let Some(path) = &plan.count {
        let _ = std::fs::write(path, n.to_string());
    }
    if n == plan.kill_at {
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    }
}
