//! `op` brackets: a commit waits until no other thread is inside one, so that it sees all or nothing of an operation.

use crate::thread::{self, Control};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use vernal_sys::os;

static USED: AtomicBool = AtomicBool::new(false);
static CLOSING: AtomicBool = AtomicBool::new(false);
/// Threads that sleep until the gate, or who is inside, changes. Counted up under `LOCK` before they look for the last time, so
/// that whoever changes something and sees none need not wake any.
static SLEEPERS: AtomicU32 = AtomicU32::new(0);
static LOCK: Mutex<()> = Mutex::new(());
static CHANGED: Condvar = Condvar::new();

/// How often a thread looks before it sleeps: some 10 microseconds. An operation and a commit are shorter than that, and a
/// sleeping thread takes longer to wake.
const LOOKS: u32 = 400;

fn lock() -> MutexGuard<'static, ()> {
    LOCK.lock().unwrap_or_else(|e| e.into_inner())
}

/// Looks for a while whether it is `done`.
pub(crate) fn look_until(done: impl Fn() -> bool) -> bool {
    static ALONE: OnceLock<bool> = OnceLock::new();
    // On one CPU what is waited for cannot happen while this thread looks.
    let alone =
        *ALONE.get_or_init(|| std::thread::available_parallelism().is_ok_and(|n| n.get() == 1));
    for _ in 0..if alone { 1 } else { LOOKS } {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    false
}

/// Waits until `done`: looking for a while, then asleep.
fn wait_until(done: impl Fn() -> bool) {
    if look_until(&done) {
        return;
    }
    let mut g = lock();
    SLEEPERS.fetch_add(1, Ordering::SeqCst);
    // With the fence of `wake`: either this thread sees what was changed, or who changed it sees this thread.
    fence(Ordering::SeqCst);
    while !done() {
        g = CHANGED.wait(g).unwrap_or_else(|e| e.into_inner());
    }
    SLEEPERS.fetch_sub(1, Ordering::SeqCst);
}

/// Wakes who sleeps, after a change.
fn wake() {
    fence(Ordering::SeqCst);
    if SLEEPERS.load(Ordering::Relaxed) != 0 {
        // A thread that has looked and does not sleep yet holds the lock.
        drop(lock());
        CHANGED.notify_all();
    }
}

/// Enters an operation; nests. Waits while a commit gathers.
#[inline]
pub fn enter() {
    let Some(c) = thread::current() else { return };
    let depth = c.op_depth.load(Ordering::Relaxed);
    if depth > 0 {
        c.op_depth.store(depth + 1, Ordering::Relaxed);
        return;
    }
    if os::single_threaded() {
        // Nobody gathers but this thread, and a thread that it creates later sees both.
        USED.store(true, Ordering::Relaxed);
        c.op_depth.store(1, Ordering::Relaxed);
        return;
    }
    enter_among_threads(c);
}

/// [`enter`] of the outermost operation in the process' only thread; `false`: it is inside one.
#[inline]
pub fn enter_alone(c: &Control) -> bool {
    if c.op_depth.load(Ordering::Relaxed) != 0 {
        return false;
    }
    // As in `enter`.
    USED.store(true, Ordering::Relaxed);
    c.op_depth.store(1, Ordering::Relaxed);
    true
}

fn enter_among_threads(c: &Control) {
    if !USED.load(Ordering::Relaxed) {
        // After any commit that is gathering without having looked at brackets.
        crate::runtime::exclusively(|| USED.store(true, Ordering::Relaxed));
    }
    loop {
        // Either this thread sees the commit's flag or the commit sees this thread inside (store, fence, load on both
        // sides: Dekker).
        c.op_depth.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !CLOSING.load(Ordering::Acquire) || c.in_commit.load(Ordering::Relaxed) {
            return;
        }
        c.op_depth.store(0, Ordering::Release);
        wake();
        wait_until(|| !CLOSING.load(Ordering::Acquire));
    }
}

/// Leaves an operation.
#[inline]
pub fn leave() {
    let Some(c) = thread::known() else { return };
    match c.op_depth.load(Ordering::Relaxed) {
        0 => {}
        1 if os::single_threaded() => c.op_depth.store(0, Ordering::Relaxed),
        1 => leave_among_threads(c),
        n => c.op_depth.store(n - 1, Ordering::Relaxed),
    }
}

fn leave_among_threads(c: &Control) {
    c.op_depth.store(0, Ordering::Release);
    wake();
}

/// Holds operations off while a commit gathers; reopens on drop.
#[derive(Debug)]
pub struct Closed(bool);

/// Waits until no thread but `own` is inside an operation and keeps new ones out. Costs nothing until a bracket has been
/// used. Call under the commit lock.
#[inline]
pub fn close(own: Option<&Control>) -> Closed {
    if USED.load(Ordering::Relaxed) && !os::single_threaded() {
        close_slowly(own)
    } else {
        Closed(false)
    }
}

#[cold]
fn close_slowly(own: Option<&Control>) -> Closed {
    CLOSING.store(true, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    let busy = || {
        thread::all().any(|c| {
            c.op_depth.load(Ordering::Acquire) != 0 && !own.is_some_and(|o| std::ptr::eq(o, c))
        })
    };
    wait_until(|| !busy());
    Closed(true)
}

impl Drop for Closed {
    fn drop(&mut self) {
        if self.0 {
            CLOSING.store(false, Ordering::Release);
            wake();
        }
    }
}
