//! Transactions of a thread: nested, across pools.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use vernal_snapshot::runtime;

use crate::{Error, direct};

/// A callback after a roll-back.
pub type OnAbort = Box<dyn FnOnce()>;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static ABORTED: Cell<bool> = const { Cell::new(false) };
    /// Objects of direct pools that the commit frees: pool and address.
    static FREES: RefCell<BTreeSet<(usize, u64)>> = const { RefCell::new(BTreeSet::new()) };
    static ON_ABORT: RefCell<Vec<OnAbort>> = const { RefCell::new(Vec::new()) };
}

/// How many transactions of this thread are open, one inside the other.
#[inline]
pub fn depth() -> u32 {
    DEPTH.get()
}

/// Whether an inner level has aborted, so that the outermost one will roll back.
pub fn is_aborted() -> bool {
    ABORTED.get()
}

/// Begins a transaction, or a level of the one that runs.
#[inline]
pub fn begin() -> Result<(), Error> {
    let depth = DEPTH.get();
    if depth == 0 {
        runtime::tx_begin()?;
    } else if ABORTED.get() {
        return Err(Error::Aborted);
    }
    DEPTH.set(depth + 1);
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
    match DEPTH.get() {
        0 => Err(none_open("vn_tx_commit")),
        1 if ABORTED.get() => finish_abort().and(Err(Error::Aborted)),
        1 => {
            free_all_or_abort()?;
            DEPTH.set(0);
            finish(runtime::tx_commit()).and_then(commit_direct)
        }
        n => {
            DEPTH.set(n - 1);
            if ABORTED.get() {
                Err(Error::Aborted)
            } else {
                Ok(())
            }
        }
    }
}

/// Ends a level; the outermost one makes everything atomic at once and durable when `vernal_wait` has returned for the
/// ticket. `None`: an inner level.
pub fn commit_async() -> Result<Option<u64>, Error> {
    match DEPTH.get() {
        1 if !ABORTED.get() => {
            free_all_or_abort()?;
            DEPTH.set(0);
            let ticket = finish(runtime::tx_commit_async())?;
            commit_direct(()).map(|()| Some(ticket))
        }
        _ => commit().map(|()| None),
    }
}

#[inline]
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
    match DEPTH.get() {
        0 => Err(none_open("vn_tx_abort")),
        1 => finish_abort(),
        n => {
            ABORTED.set(true);
            DEPTH.set(n - 1);
            Ok(())
        }
    }
}

/// Says that the transaction will be rolled back when its outermost level ends; ends no level.
pub fn doom() -> Result<(), Error> {
    if DEPTH.get() == 0 {
        return Err(none_open("vn_tx_abort"));
    }
    ABORTED.set(true);
    Ok(())
}

/// Takes direct pools into the open transaction: before the first thing that it does to one.
pub(crate) fn enlist_direct() -> Result<(), Error> {
    if ABORTED.get() {
        return Err(Error::Aborted);
    }
    if direct::tx::depth() == 0 {
        direct::tx::begin()?;
    }
    Ok(())
}

/// Frees an object of a direct pool when the transaction commits.
pub(crate) fn free_at_commit(pool: usize, addr: u64) -> Result<(), Error> {
    enlist_direct()?;
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

fn free_all_or_abort() -> Result<(), Error> {
    if FREES.with_borrow(BTreeSet::is_empty) {
        return Ok(());
    }
    free_all().or_else(|e| finish_abort().and(Err(e)))
}

/// What was done to direct pools becomes durable, after the buffered ones: those may refuse, with a conflict.
#[inline]
fn commit_direct(_buffered: ()) -> Result<(), Error> {
    match direct::tx::depth() {
        0 => Ok(()),
        _ => direct::tx::commit(),
    }
}

fn finish_abort() -> Result<(), Error> {
    DEPTH.set(0);
    ABORTED.set(false);
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
    if DEPTH.get() == 0 {
        return Err(none_open("vn_tx_on_abort"));
    }
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
