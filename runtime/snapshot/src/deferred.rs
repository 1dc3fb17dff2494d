//! Memory whose changes commits leave out until the program stores to it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a commit does with a marked line of memory that is *deferred*: its working copy differs from home by what can be made
/// again from home at any time (the rewritten pointers of a pool that has moved), and commits leave it out until the program
/// stores to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deferred {
    /// The line is not deferred.
    No,
    /// Nothing can have been stored there: the line is left out, and not even read.
    Untouched,
    /// The line was deferred, and its surroundings have been marked just now: marks are gathered once more.
    Taken,
}

/// Asked about a line; with the second argument it may take the line's surroundings into the commit, else the answer is
/// never [`Deferred::Taken`].
type AskDeferred = fn(u64, bool) -> Deferred;
static ASK_DEFERRED: OnceLock<AskDeferred> = OnceLock::new();
/// Pools that have deferred memory.
static DEFERRING: AtomicUsize = AtomicUsize::new(0);

/// Lets `ask` decide about lines while [`deferring`] is above zero. It is called under the commit lock with the gate closed,
/// and may mark.
pub fn on_deferred(ask: AskDeferred) {
    let _ = ASK_DEFERRED.set(ask);
}

/// One more, or one less, that has deferred memory.
pub fn deferring(more: bool) {
    match more {
        true => DEFERRING.fetch_add(1, Ordering::SeqCst),
        false => DEFERRING.fetch_sub(1, Ordering::SeqCst),
    };
}

/// What a commit does with the line.
#[inline]
pub(crate) fn deferred(line: u64, take: bool) -> Deferred {
    if DEFERRING.load(Ordering::Relaxed) == 0 {
        return Deferred::No;
    }
    ask_deferred(line, take)
}

#[cold]
fn ask_deferred(line: u64, take: bool) -> Deferred {
    ASK_DEFERRED
        .get()
        .map_or(Deferred::No, |ask| ask(line, take))
}

/// Whether no memory is deferred.
pub fn none_deferred() -> bool {
    DEFERRING.load(Ordering::Relaxed) == 0
}

/// Whether commits leave the line out as it is now.
#[inline]
pub fn is_deferred(line: u64) -> bool {
    deferred(line, false) != Deferred::No
}
