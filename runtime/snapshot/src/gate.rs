//! `op` brackets: a commit waits until no other thread is inside one, so that it sees all or nothing of an operation.

use crate::thread::{self, Control};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Condvar, Mutex, MutexGuard};
use vernal_sys::os;

static USED: AtomicBool = AtomicBool::new(false);
static CLOSING: AtomicBool = AtomicBool::new(false);
static LOCK: Mutex<()> = Mutex::new(());
static CHANGED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, ()> {
    LOCK.lock().unwrap_or_else(|e| e.into_inner())
}

/// Enters an operation; nests. Waits while a commit gathers.
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
    if !USED.load(Ordering::Relaxed) {
        // After any commit that is gathering without having looked at brackets.
        crate::runtime::exclusively(|| USED.store(true, Ordering::Relaxed));
    }
    loop {
        // Either this thread sees the commit's flag or the commit sees this thread inside (store, fence, load on both
        // sides: Dekker).
        c.op_depth.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !CLOSING.load(Ordering::Relaxed) || c.in_commit.load(Ordering::Relaxed) {
            return;
        }
        c.op_depth.store(0, Ordering::Release);
        let mut g = lock();
        CHANGED.notify_all();
        while CLOSING.load(Ordering::Relaxed) {
            g = CHANGED.wait(g).unwrap_or_else(|e| e.into_inner());
        }
    }
}

/// Leaves an operation.
pub fn leave() {
    let Some(c) = thread::current() else { return };
    match c.op_depth.load(Ordering::Relaxed) {
        0 => {}
        1 if os::single_threaded() => c.op_depth.store(0, Ordering::Relaxed),
        1 => {
            c.op_depth.store(0, Ordering::Release);
            fence(Ordering::SeqCst);
            if CLOSING.load(Ordering::Relaxed) {
                drop(lock());
                CHANGED.notify_all();
            }
        }
        n => c.op_depth.store(n - 1, Ordering::Relaxed),
    }
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
    let mut g = lock();
    while busy() {
        g = CHANGED.wait(g).unwrap_or_else(|e| e.into_inner());
    }
    Closed(true)
}

impl Drop for Closed {
    fn drop(&mut self) {
        if self.0 {
            let g = lock();
            CLOSING.store(false, Ordering::Relaxed);
            drop(g);
            CHANGED.notify_all();
        }
    }
}
