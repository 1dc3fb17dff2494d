//! Start, exit and fork of the process.

use super::{FORKED, Locked, MAPPED, Owner, Place, READY, State, enter, lock};
use crate::audit;
use crate::config;
use crate::error::Error;
use crate::inject;
use crate::space::Slot;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use vernal_sys::os;

/// Called by the library's constructor.
pub fn init() {
    let _inside = enter();
    inject::init();
    os::membarrier_register();
    // SAFETY: plain functions of this library, which is never unloaded once a program is instrumented.
    unsafe {
        libc::atexit(at_exit);
        libc::pthread_atfork(
            Some(before_fork),
            Some(after_fork_parent),
            Some(after_fork_child),
        );
    }
    READY.store(true, Ordering::Release);
}

extern "C" fn at_exit() {
    let _inside = enter();
    let audited = config::get().audit;
    if !FORKED.load(Ordering::Relaxed)
        && let Ok(mut l) = lock()
    {
        let s = l.state();
        if audited {
            s.audit();
        }
        while let Some(last) = s.mappings.len().checked_sub(1) {
            // What is uncommitted stays uncommitted: only msync, vernal_commit and munmap commit. The working copy stays
            // mapped for code that runs after this.
            let path = s.mappings[last].path.clone();
            if let Err(e) = s.settle(last) {
                config::say(format_args!("closing {}: {e}", path.display()));
            }
        }
        if config::get().stats {
            config::say(format_args!("{:?}", s.stats));
        }
    }
    inject::report();
    if audited && audit::report() > 0 {
        // SAFETY: flushes the program's streams, which exit() would do after this handler, and ends with a status that
        // says what the audit found.
        unsafe {
            libc::fflush(std::ptr::null_mut());
            libc::_exit(audit::EXIT_STATUS);
        }
    }
}

impl State {
    /// As [`State::release`], but leaves the addresses in use, for what still runs at exit.
    fn settle(&mut self, index: usize) -> Result<(), Error> {
        let slot = std::mem::replace(&mut self.mappings[index].slot, Slot { base: 0, len: 0 });
        let result = self.release(index);
        std::mem::forget(slot);
        result
    }
}

static FORK_GUARD: Mutex<Option<Locked>> = Mutex::new(None);

// SAFETY: the guard in FORK_GUARD is stored and taken by the thread that forks, and nobody else.
unsafe impl Send for Locked {}

extern "C" fn before_fork() {
    // The child must not inherit a lock that a thread it does not have holds.
    if let Ok(l) = lock() {
        *FORK_GUARD.lock().unwrap_or_else(|e| e.into_inner()) = Some(l);
    }
}

extern "C" fn after_fork_parent() {
    drop(FORK_GUARD.lock().unwrap_or_else(|e| e.into_inner()).take());
}

/// The child keeps its copy of the working memory and loses the files: it can neither commit them nor harm them.
extern "C" fn after_fork_child() {
    let Some(mut l) = FORK_GUARD.lock().unwrap_or_else(|e| e.into_inner()).take() else {
        return;
    };
    let s = std::mem::take(l.state());
    if !s.mappings.is_empty() {
        FORKED.store(true, Ordering::SeqCst);
        MAPPED.store(0, Ordering::SeqCst);
    }
    for mut m in s.mappings {
        // Dropping the view unmaps the child's copy of the home mapping; the descriptors are the child's own, and the
        // lock stays with the parent's.
        drop(std::mem::replace(&mut m.place, Place::Lost));
        if let Owner::Own(owned) = m.owner {
            owned.forget_lock();
        }
        std::mem::forget(m.slot);
    }
    // The journal's mapping and descriptors are closed; the files are untouched.
    drop(s.engine);
    drop(l);
}
