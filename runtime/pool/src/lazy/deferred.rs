//! What commits leave out: chunks whose rewritten pointers are in this process only.
//!
//! A mark of a line that waits is no store (nothing can store there): it is dropped. A mark in a chunk that is shown is the
//! program's first store to it: the whole chunk, its epoch with it, becomes part of this commit. An abort does the same, and then
//! finds the chunk's epoch taken back, so that the chunk waits again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Once};
use vernal_snapshot::runtime::{self, Deferred};

use super::{DONE, PARTLY, SHOWN, Want};
use crate::pool::Inner;

/// Pools with such chunks, from when they are opened until their last puddle is unmapped: longer than they can be found by an
/// address, so that no commit of another thread takes a part of what a pool that is being closed has shown.
static POOLS: Mutex<Vec<Arc<Inner>>> = Mutex::new(Vec::new());

fn pools() -> MutexGuard<'static, Vec<Arc<Inner>>> {
    POOLS.lock().unwrap_or_else(|e| e.into_inner())
}

/// The pool has chunks that are not to be committed.
pub(super) fn begin(pool: &Arc<Inner>) {
    static ONCE: Once = Once::new();
    if pool.info.read_only {
        return;
    }
    ONCE.call_once(|| runtime::on_deferred(ask));
    pools().push(Arc::clone(pool));
    runtime::deferring(true);
}

/// The pool is unmapped.
pub(crate) fn end(pool: &Inner) {
    let mut pools = pools();
    let before = pools.len();
    pools.retain(|p| !std::ptr::eq(&**p, pool));
    if pools.len() < before {
        runtime::deferring(false);
    }
}

/// Called by commits and aborts, under the commit lock and with the gate closed: nobody builds a chunk meanwhile.
fn ask(line: u64, take: bool) -> Deferred {
    for pool in pools().iter() {
        let Some(lazy) = pool.lazy.get() else {
            continue;
        };
        let Some((_, r)) = lazy.at(line) else {
            continue;
        };
        // Whether the program may have stored there.
        let (stored, claimed) = match r.state.load(Ordering::Acquire) {
            DONE => return Deferred::No,
            SHOWN => (true, take && r.claim(SHOWN)),
            // The rest first: what is taken is a whole chunk.
            PARTLY if r.shows(Want::Address(line)) => (
                true,
                take && r.claim(PARTLY) && lazy.rest(r) && r.claim(SHOWN),
            ),
            _ => (false, false),
        };
        if claimed && lazy.take(pool, r, line) {
            return Deferred::Taken;
        }
        // What is closed has nothing that is to be committed.
        if take && stored && !lazy.image.load(Ordering::Acquire).is_null() {
            vernal_snapshot::config::say(format_args!(
                "pool {}: a chunk that the program has changed cannot be rewritten to the end: no memory; the process ends before a commit \
                 lacks it",
                pool.info.name
            ));
            std::process::abort();
        }
        return Deferred::Untouched;
    }
    Deferred::No
}
