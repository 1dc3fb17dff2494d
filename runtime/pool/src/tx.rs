//! Transactions of a thread: nested, across pools.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use vernal_snapshot::runtime;
use vernal_snapshot::thread::{self, Control, TxLocal};

use crate::{Error, direct};

/// A callback after a roll-back.
pub type OnAbort = Box<dyn FnOnce()>;

/// An inner level has aborted, so that the outermost one will roll back.
const ABORTED: u32 = 1;
/// The commit frees objects of direct pools.
const FREEING: u32 = 2;
/// There are callbacks for a roll-back.
const CALLBACKS: u32 = 4;
/// A transaction of direct pools is open.
const DIRECT: u32 = 8;

thread_local! {
    /// Objects of direct pools that the commit frees: pool and address.
    static FREES: RefCell<BTreeSet<(usize, u64)>> = const { RefCell::new(BTreeSet::new()) };
    static ON_ABORT: RefCell<Vec<OnAbort>> = const { RefCell::new(Vec::new()) };
}

/// How many transactions of this thread are open, one inside the other.
#[inline]
pub fn depth() -> u32 {
    thread::known().map_or(0, |c| c.tx.depth.load(Relaxed))
}

/// The thread's transaction, when one is open.
#[inline]
fn open() -> Option<&'static TxLocal> {
    let tx = &thread::known()?.tx;
    (tx.depth.load(Relaxed) != 0).then_some(tx)
}

#[inline]
fn has(what: u32) -> bool {
    open().is_some_and(|tx| tx.extras.load(Relaxed) & what != 0)
}

fn add(what: u32) {
    if let Some(tx) = open() {
        tx.extras.store(tx.extras.load(Relaxed) | what, Relaxed);
    }
}

/// Whether an inner level has aborted, so that the outermost one will roll back.
pub fn is_aborted() -> bool {
    has(ABORTED)
}

/// [`begin`] of the outermost level in the process' only thread, whose block is `c`; `false`, and nothing has happened: this is
/// not that.
#[inline]
pub fn begin_plainly(c: &Control) -> bool {
    if c.tx.depth.load(Relaxed) != 0 || !runtime::tx_begin_plainly(c) {
        return false;
    }
    c.tx.extras.store(0, Relaxed);
    c.tx.depth.store(1, Relaxed);
    true
}

/// [`commit`] of the outermost level where the plain commit does it, in the thread whose block is `c`; `None`, and nothing has
/// happened: it does not.
#[inline]
pub fn commit_plainly(c: &'static Control) -> Option<Result<(), Error>> {
    if c.tx.depth.load(Relaxed) != 1 || c.tx.extras.load(Relaxed) != 0 {
        return None;
    }
    c.tx.depth.store(0, Relaxed);
    match runtime::tx_commit_plainly(c) {
        Some(Ok(())) => Some(Ok(())),
        Some(Err(e)) => Some(Err(finish_failed(*e))),
        None => {
            c.tx.depth.store(1, Relaxed);
            None
        }
    }
}

/// Begins a transaction, or a level of the one that runs.
#[inline]
pub fn begin() -> Result<(), Error> {
    let Some(c) = thread::current() else {
        return Err(Error::invalid(
            "a transaction needs memory for the list of its changes, and the system has none: free some",
        ));
    };
    let depth = c.tx.depth.load(Relaxed);
    if depth == 0 {
        runtime::tx_begin()?;
        c.tx.extras.store(0, Relaxed);
    } else if c.tx.extras.load(Relaxed) & ABORTED != 0 {
        return Err(Error::Aborted);
    }
    c.tx.depth.store(depth + 1, Relaxed);
    Ok(())
}

fn none_open(call: &str) -> Error {
    Error::invalid(format!(
        "{call} without a transaction: begin one with vn_tx_begin or VN_TX"
    ))
}

/// Ends a level; the outermost one makes everything durable.
#[inline]
pub fn commit() -> Result<(), Error> {
    let Some(tx) = open() else {
        return Err(none_open("vn_tx_commit"));
    };
    if tx.depth.load(Relaxed) > 1 {
        return leave_inner(tx);
    }
    if tx.extras.load(Relaxed) != 0 {
        return commit_with_extras(tx);
    }
    tx.depth.store(0, Relaxed);
    runtime::tx_commit().map_err(finish_failed)
}

#[cold]
fn leave_inner(tx: &TxLocal) -> Result<(), Error> {
    tx.depth.store(tx.depth.load(Relaxed) - 1, Relaxed);
    if tx.extras.load(Relaxed) & ABORTED != 0 {
        Err(Error::Aborted)
    } else {
        Ok(())
    }
}

/// The end of a transaction that has aborted inside, or has to do with direct pools, or has callbacks.
#[inline(never)]
fn commit_with_extras(tx: &TxLocal) -> Result<(), Error> {
    if tx.extras.load(Relaxed) & ABORTED != 0 {
        return finish_abort().and(Err(Error::Aborted));
    }
    free_all_or_abort(tx)?;
    let direct = tx.extras.load(Relaxed) & DIRECT != 0;
    tx.depth.store(0, Relaxed);
    finish(runtime::tx_commit())?;
    if direct { commit_direct() } else { Ok(()) }
}

/// Ends a level; the outermost one makes everything atomic at once and durable when `vernal_wait` has returned for the
/// ticket. `None`: an inner level.
pub fn commit_async() -> Result<Option<u64>, Error> {
    match open() {
        Some(tx) if tx.depth.load(Relaxed) == 1 && !is_aborted() => {
            free_all_or_abort(tx)?;
            tx.depth.store(0, Relaxed);
            let ticket = finish(runtime::tx_commit_async())?;
            commit_direct().map(|()| Some(ticket))
        }
        _ => commit().map(|()| None),
    }
}

fn finish<R>(committed: Result<R, vernal_snapshot::Error>) -> Result<R, Error> {
    match committed {
        Ok(r) => {
            ON_ABORT.with(|c| {
                if let Ok(mut c) = c.try_borrow_mut() {
                    c.clear();
                }
            });
            Ok(r)
        }
        Err(e) => Err(finish_failed(e)),
    }
}

#[cold]
fn finish_failed(e: vernal_snapshot::Error) -> Error {
    if direct::tx::depth() > 0 {
        let _ = direct::tx::abort();
    }
    let e = match e {
        vernal_snapshot::Error::RolledBack => Error::Conflict,
        vernal_snapshot::Error::NoSpace { .. } => {
            // What a transaction did is there as a whole or not at all: it is taken back.
            let undone = runtime::tx_begin().and_then(|()| runtime::tx_abort());
            match undone {
                Ok(()) => e.into(),
                Err(e) => e.into(),
            }
        }
        other => other.into(),
    };
    run_callbacks();
    e
}

/// Ends a level; the outermost one rolls back what every level did.
pub fn abort() -> Result<(), Error> {
    match open() {
        None => Err(none_open("vn_tx_abort")),
        Some(tx) if tx.depth.load(Relaxed) == 1 => finish_abort(),
        Some(tx) => {
            add(ABORTED);
            tx.depth.store(tx.depth.load(Relaxed) - 1, Relaxed);
            Ok(())
        }
    }
}

/// Says that the transaction will be rolled back when its outermost level ends; ends no level.
pub fn doom() -> Result<(), Error> {
    if depth() == 0 {
        return Err(none_open("vn_tx_abort"));
    }
    add(ABORTED);
    Ok(())
}

/// Takes direct pools into the open transaction: before the first thing that it does to one.
pub(crate) fn enlist_direct() -> Result<(), Error> {
    if is_aborted() {
        return Err(Error::Aborted);
    }
    if direct::tx::depth() == 0 {
        direct::tx::begin()?;
        add(DIRECT);
    }
    Ok(())
}

/// Frees an object of a direct pool when the transaction commits.
pub(crate) fn free_at_commit(pool: usize, addr: u64) -> Result<(), Error> {
    enlist_direct()?;
    add(FREEING);
    FREES.with_borrow_mut(|frees| {
        if !frees.insert((pool, addr)) {
            return Err(freed_before("vn_free", addr));
        }
        Ok(())
    })
}

#[cold]
fn freed_before(call: &str, addr: u64) -> Error {
    Error::invalid(format!(
        "{call}: {addr:#x} was freed before in this transaction"
    ))
}

/// Refuses an object that the commit will free.
pub(crate) fn check_kept(call: &str, pool: usize, addr: u64) -> Result<(), Error> {
    match FREES.with_borrow(|frees| frees.contains(&(pool, addr))) {
        true => Err(freed_before(call, addr)),
        false => Ok(()),
    }
}

/// Part of the transaction, after which nothing is allocated in it.
fn free_all() -> Result<(), Error> {
    for (pool, addr) in FREES.take() {
        match crate::registry::find(pool) {
            Some(pool) => pool.free_now(addr)?,
            None => return Err(Error::invalid("a pool was closed inside a transaction")),
        }
    }
    Ok(())
}

fn free_all_or_abort(tx: &TxLocal) -> Result<(), Error> {
    if tx.extras.load(Relaxed) & FREEING == 0 {
        return Ok(());
    }
    free_all().or_else(|e| finish_abort().and(Err(e)))
}

/// What was done to direct pools becomes durable, after the buffered ones: those may refuse, with a conflict.
fn commit_direct() -> Result<(), Error> {
    match direct::tx::depth() {
        0 => Ok(()),
        _ => direct::tx::commit(),
    }
}

fn finish_abort() -> Result<(), Error> {
    if let Some(tx) = open() {
        tx.depth.store(0, Relaxed);
        tx.extras.store(0, Relaxed);
    }
    FREES.take();
    let in_place = match direct::tx::depth() {
        0 => Ok(()),
        _ => direct::tx::abort(),
    };
    let result = runtime::tx_abort();
    run_callbacks();
    in_place?;
    Ok(result?)
}

/// Calls `f` after a roll-back of the running transaction, last registered first; forgets it when that commits.
pub fn on_abort(f: OnAbort) -> Result<(), Error> {
    if depth() == 0 {
        return Err(none_open("vn_tx_on_abort"));
    }
    add(CALLBACKS);
    ON_ABORT.with_borrow_mut(|c| c.push(f));
    Ok(())
}

fn run_callbacks() {
    let mut callbacks = ON_ABORT.with(|c| c.try_borrow_mut().map(|mut c| std::mem::take(&mut *c)));
    while let Some(f) = callbacks.as_mut().ok().and_then(Vec::pop) {
        f();
    }
}

/// Runs `f` in a transaction, again after a conflict. An error of `f` rolls back.
pub fn run<R, E: From<Error>>(mut f: impl FnMut() -> Result<R, E>) -> Result<R, E> {
    loop {
        begin()?;
        match f() {
            Ok(r) => match commit() {
                Ok(()) => return Ok(r),
                Err(Error::Conflict) if depth() == 0 => {}
                Err(e) => return Err(e.into()),
            },
            Err(e) => {
                abort()?;
                return Err(e);
            }
        }
    }
}
