//! Persistent memory for Rust: pools of typed objects, and failure-atomic mapped files.
//!
//! # Pools
//!
//! A [`Pool`] holds objects that refer to each other with ordinary pointers, and are there again in the next run. They
//! are read like any other values, and changed in transactions; after a crash, everything is as the last transaction
//! left it.
//!
//! ```no_run
//! use vernal::{PBox, Persist, Pool};
//!
//! #[derive(Persist)]
//! #[repr(C)]
//! struct Node<'p> {
//!     value: u64,
//!     next: Option<PBox<'p, Node<'p>>>,
//! }
//!
//! #[derive(Persist)]
//! #[repr(C)]
//! struct List<'p> {
//!     length: u64,
//!     first: Option<PBox<'p, Node<'p>>>,
//! }
//!
//! # fn main() -> Result<(), vernal::Error> {
//! let mut pool = Pool::<List>::open("./list.pool", |_| Ok(List { length: 0, first: None }))?;
//! pool.tx(|tx, mut list| {
//!     let next = list.first.take();
//!     list.first = Some(tx.alloc(Node { value: 7, next })?);
//!     list.length += 1;
//!     Ok::<_, vernal::Error>(())
//! })?;
//! println!("{} nodes, the first holds {:?}", pool.root().length, pool.root().first.as_ref().map(|n| n.value));
//! # Ok(()) }
//! ```
//!
//! The rules are ordinary ownership, checked by the compiler:
//!
//! - [`PBox`], [`PVec`] and [`PString`] own what they point to; dropping one frees it. What leaves the tree of owners is
//!   freed with it, so nothing leaks but what `mem::forget` forgets (`vernal pool check --reclaim` finds that).
//! - Exclusive access exists only in [`Pool::tx`], and the brand `'p` keeps everything that comes from the pool in there: it
//!   cannot be returned, stored outside, sent to another thread, or put into another pool.
//! - An `Err` or a panic in the closure takes the whole transaction back.
//!
//! Works with plain `cargo`: exclusive access announces the object that it is for. With `cargo vernal` it works too.
//! `#[derive(Persist)]` describes the layout to the pool, so that pools can be moved to other addresses and machines, and so
//! that a program whose types have changed is refused instead of misreading the pool. A pool is trusted to have been written
//! by programs that keep these rules; `vernal pool import` verifies pools that come from elsewhere.
//!
//! # Mapped files
//!
//! A [`Map`] is a file at an address that is the same in every run, so that it can hold pointers to itself. Programs built
//! with `cargo vernal` change it with ordinary stores; [`commit`] makes all changes since the last commit durable, all or
//! nothing. After a crash the file holds the last commit.
//!
//! ```no_run
//! # fn main() -> Result<(), vernal::Error> {
//! let map = vernal::Map::options().create(true).len(1 << 20).open("counter.img")?;
//! // SAFETY: the file is at least 8 bytes long, aligned to a page, and nothing else refers to it.
//! let counter = unsafe { &mut *map.base().cast::<u64>() };
//! *counter += 1;
//! vernal::commit()?;
//! # Ok(()) }
//! ```
//!
//! # What this crate does not do
//!
//! It contains no runtime: it calls libvernal, which must not be instrumented. It does not make what is stored in a `Map`
//! safe: a `Map` gives out a raw address, and whoever reads it asserts that an earlier run of a program with the same types
//! wrote it. References to volatile memory, function pointers, vtables and thread-bound values do not survive a restart;
//! pools refuse them at compile time.
//!
//! # Threads and panics
//!
//! Every function may be called from any thread. A commit covers what happened before it in the happens-before order; an
//! [`op`] guard keeps commits of other threads out while an invariant is broken. While a thread unwinds, dropping a [`Map`]
//! discards what is uncommitted (the unwinding may have interrupted an update); otherwise it commits, and [`Map::close`]
//! reports whether that worked. Inside a transaction nothing else is committed or closed: that is an error, and a `Map` or
//! `Pool` that is dropped there stays open. What panics says so: exclusive access in direct pools whose log is full, indexing.

mod error;
pub mod layout;
mod map;
mod pool;
mod sys;

pub use error::{Error, ErrorCode};
pub use map::{Map, MapOptions};
pub use pool::{PBox, PString, PVec, Persist, Pool, PoolOptions, Ptr, RootMut, Tx};
pub use sys::Stats;
/// Implements [`Persist`](trait@Persist) for a struct with `#[repr(C)]`, or an enum without data and with `#[repr(u8)]` or
/// another integer.
pub use vernal_derive::Persist;

use std::marker::PhantomData;
use std::num::NonZeroI64;

/// Makes every update of every mapped file that happened before this call durable, all or nothing, with one device flush.
pub fn commit() -> Result<(), Error> {
    pool::refuse_inside("a commit")?;
    // SAFETY: may be called at any time from any thread.
    Error::check(unsafe { sys::vernal_commit() })
}

/// Makes the updates atomic now and durable later: at [`Ticket::wait`], or with any later [`commit`].
pub fn commit_async() -> Result<Ticket, Error> {
    pool::refuse_inside("a commit")?;
    // SAFETY: may be called at any time from any thread.
    Ticket::of(unsafe { sys::vernal_commit_async() })
}

/// An asynchronous commit that may not be durable yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "the commit is atomic, but not known to be durable before `wait` has returned"]
pub struct Ticket(NonZeroI64);

impl Ticket {
    /// What an asynchronous commit returned: a ticket, or an error code.
    pub(crate) fn of(ticket: i64) -> Result<Self, Error> {
        match NonZeroI64::new(ticket) {
            Some(ticket) if ticket.get() > 0 => Ok(Self(ticket)),
            _ => Err(Error::last(i32::try_from(ticket).unwrap_or(i32::MIN))),
        }
    }

    /// Returns when the commit is durable.
    pub fn wait(self) -> Result<(), Error> {
        // SAFETY: may be called at any time from any thread.
        Error::check(unsafe { sys::vernal_wait(self.0.get()) })
    }
}

/// Takes every mapped file back to its last commit.
///
/// # Safety
///
/// No reference into a mapped file may be alive, in any thread: what it refers to changes, or is gone.
pub unsafe fn abort() -> Result<(), Error> {
    // SAFETY: the caller's promise is the function's condition.
    Error::check(unsafe { sys::vernal_abort() })
}

/// Begins an operation: until the guard is dropped, commits by other threads wait, so that they see all of it or nothing.
/// Operations nest. A commit by the same thread inside one commits it half done.
pub fn op() -> Op {
    // SAFETY: may be called at any time from any thread; the guard pairs it with its end.
    unsafe { sys::vernal_op_begin() };
    Op {
        _bound_to_thread: PhantomData,
    }
}

/// An operation in progress; ends when dropped, by the thread that began it.
#[derive(Debug)]
#[must_use = "the operation ends when the guard is dropped"]
pub struct Op {
    _bound_to_thread: PhantomData<*const ()>,
}

impl Drop for Op {
    fn drop(&mut self) {
        // SAFETY: pairs with the begin in `op`, on the same thread, because the guard cannot be sent.
        unsafe { sys::vernal_op_end() }
    }
}

/// Says that `len` bytes at `address` were written by code that `cargo vernal` has not compiled (assembly, a foreign
/// library). Call it after the write and before the next commit. Any address is allowed.
pub fn mark(address: *const u8, len: usize) {
    // SAFETY: the runtime ignores what is outside mapped files and reads nothing through the address.
    unsafe { sys::vernal_mark(address.cast(), len) }
}

/// What the runtime has counted since the process started.
pub fn stats() -> Stats {
    let mut stats = Stats::default();
    // SAFETY: writes one `Stats` to the given place.
    unsafe { sys::vernal_get_stats(&mut stats) };
    stats
}
