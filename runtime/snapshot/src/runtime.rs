//! The process's mapped files and their commits: what `libvernal` calls.
//!
//! One lock, the *commit lock*, guards everything but the dirty lists. A commit holds it from gathering to applying;
//! threads that ask for a commit meanwhile are served together by the next one (group commit).

mod files;
mod lifecycle;
mod pipeline;
mod plain;
mod puddles;
mod tx;
mod windows;

pub use crate::deferred::{Deferred, deferring, on_deferred};
pub use files::{
    is_mapped_file, length, map_file, recover_if_needed, resize, set_file_len, unmap_file,
};
pub use lifecycle::init;
pub use pipeline::{abort, commit, commit_async, wait};
pub use puddles::{
    GrantedJournal, OwnedPuddle, PuddleMapping, PuddleOwner, ReadOnlyPuddle, map_puddle,
    map_puddle_read_only, own_puddle, puddles_mapped, unmap_puddle,
};
pub use tx::{
    on_roll_back, tx_abort, tx_begin, tx_begin_plainly, tx_commit, tx_commit_async,
    tx_commit_plainly,
};
pub use windows::{MapRequest, check_msync, map_window, remap_window, unmap_window};

use crate::audit;
use crate::barrier;
use crate::commit::{Gather, Look};
use crate::error::Error;
use crate::file::Owned;
use crate::lock::{CommitLock, Guard};
use crate::space::Slot;
use crate::thread::{self, Control};
use std::cell::Cell;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, compiler_fence};
use vernal_journal::{Committer, HomeId, Uuid};
use vernal_sys::pages::PageTracker;
use vernal_sys::{HomeView, JournalMedia};

type Engine = Committer<JournalMedia, HomeView>;

#[derive(Debug)]
enum Place {
    /// No commit yet: the home is mapped, no journal knows it.
    Idle(HomeView),
    /// A member of the journal.
    Member(HomeId),
    /// Between the two, while a call that moves it runs, or after that call failed.
    Lost,
}

/// Who keeps the metadata of a mapped file.
#[derive(Debug)]
enum Owner {
    /// This process.
    Own(Owned),
    /// Another process (puddled), which recovers the file when this one ends.
    Granted(Uuid),
}

impl Owner {
    fn own(&self) -> Option<&Owned> {
        match self {
            Owner::Own(owned) => Some(owned),
            Owner::Granted(_) => None,
        }
    }
}

#[derive(Debug)]
struct Mapping {
    /// For messages, and where the metadata lie.
    path: PathBuf,
    owner: Owner,
    /// A puddle of a pool: its length never changes, and only its pool unmaps it.
    puddle: bool,
    place: Place,
    slot: Slot,
    /// The windows that the program has mapped: offset and length. The file is released with the last one.
    windows: Vec<(u64, u64)>,
    file: File,
    id: (u64, u64),
    /// A length that the next commit makes durable.
    new_len: Option<u64>,
    read_only: bool,
}

#[derive(Debug, Default)]
struct State {
    gather: Gather,
    /// Parallel to `gather.extents`.
    mappings: Vec<Mapping>,
    engine: Option<(Engine, PathBuf)>,
    tracker: Option<PageTracker>,
    /// How commits look at marked lines; chosen when the mappings change, or the first thread is created.
    look: Look,
    /// The process had one thread when that was chosen.
    single: bool,
    /// Every writable mapping is a member of the journal.
    active: bool,
    /// A mapping may have a `new_len`.
    resizing: bool,
    /// Each commit looks for writes without a mark.
    audited: bool,
    /// Calls of commit() up to this one have been served, with this result.
    served: u64,
    served_ok: bool,
    stats: Stats,
    /// Tickets of asynchronous commits count up; those up to `durable` are durable.
    ticket: u64,
    durable: u64,
    /// Arrivals up to this one are part of the commit that is running.
    target: u64,
    /// Arrivals up to this one are part of a commit that was made, durable or not.
    gathered: u64,
}

/// Counters since the process started; `vernal_stats` in `vernal.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Commits that wrote a record.
    pub commits: u64,
    /// Commits that found nothing to write.
    pub empty: u64,
    /// Commits that another thread's commit served.
    pub grouped: u64,
    /// Dirty lines looked at.
    pub lines: u64,
    /// Dirty lines that differed from home.
    pub lines_changed: u64,
    /// Journal bytes written.
    pub bytes: u64,
    /// Device flushes or store fences on the commit path.
    pub flushes: u64,
    /// Journal recycles.
    pub checkpoints: u64,
    /// Bytes that the audit found written without a mark.
    pub audit_missed: u64,
}

static STATE: CommitLock<Option<State>> = CommitLock::new(None);
static ARRIVED: AtomicU64 = AtomicU64::new(0);
static MAPPED: AtomicUsize = AtomicUsize::new(0);
static FORKED: AtomicBool = AtomicBool::new(false);
static READY: AtomicBool = AtomicBool::new(false);

thread_local! {
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// While one exists on this thread, interposed calls go straight to the kernel: the runtime's own calls are its own.
#[derive(Debug)]
pub struct Inside(());

/// Makes an [`Inside`].
#[inline]
pub fn enter() -> Inside {
    INSIDE.with(|c| c.set(c.get() + 1));
    Inside(())
}

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        INSIDE.with(|c| c.set(c.get() - 1));
    }
}

/// Whether this thread is inside the runtime.
pub fn is_inside() -> bool {
    INSIDE.with(Cell::get) > 0
}

/// Whether the process is far enough along for interposed calls to read the environment.
pub fn reads_environment() -> bool {
    READY.load(Ordering::Relaxed)
}

/// Holds the commit lock and says so to signal handlers of this thread.
struct Locked {
    guard: Guard<'static, Option<State>>,
    own: Option<&'static Control>,
    _inside: Inside,
}

#[inline]
fn lock() -> Result<Locked, Error> {
    let own = thread::current();
    if let Some(c) = own {
        // Only this thread and its signal handlers use the flag: no atomic exchange is needed.
        if c.in_commit.load(Ordering::Relaxed) {
            return Err(Error::Nested);
        }
        c.in_commit.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }
    let inside = enter();
    // SAFETY: `in_commit` was clear, so this thread does not hold the lock (a thread without a control block cannot be in
    // a signal handler that interrupted a commit: that commit had one).
    let guard = unsafe { STATE.lock() };
    Ok(Locked {
        guard,
        own,
        _inside: inside,
    })
}

impl Drop for Locked {
    #[inline]
    fn drop(&mut self) {
        if let Some(c) = self.own {
            compiler_fence(Ordering::SeqCst);
            c.in_commit.store(false, Ordering::Relaxed);
        }
    }
}

impl Locked {
    /// Gives the lock back, and does what is better done without it.
    #[inline]
    fn release(mut self) {
        let wanted = self.state().gather.wants_barrier();
        drop(self);
        if let Some(after) = wanted {
            barrier::pass_aside(after);
        }
    }

    #[inline]
    fn state(&mut self) -> &mut State {
        let s = self.guard.get_or_insert_default();
        s.absorb();
        s
    }
}

/// Runs `f` under the commit lock: after any commit that is running, before any other.
pub(crate) fn exclusively(f: impl FnOnce()) {
    if let Ok(l) = lock() {
        f();
        drop(l);
    }
}

fn invalid(what: String) -> Error {
    Error::Invalid { what }
}

/// Whether any file is mapped.
pub fn any_mapped() -> bool {
    MAPPED.load(Ordering::Acquire) > 0
}

/// The counters.
pub fn stats() -> Stats {
    let mut stats = lock().map_or_else(|_| Stats::default(), |mut l| l.state().stats);
    stats.audit_missed = audit::missed();
    stats
}
