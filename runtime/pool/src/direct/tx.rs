//! Transactions of a thread on direct pools. Each thread keeps one log between its transactions; threads that end hand theirs
//! to the next.

use std::cell::RefCell;
use std::ffi::c_void;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use vernal_format::{LogHeader, Uuid};
use vernal_journal::direct::{DirectError, DirectLog, LogSupply};
use vernal_sys::MappedMedia;

use super::home::MappedHome;
use super::lock::PoolLock;
use super::space;
use crate::Error;

/// Bytes of a log's first file; each further one is four times as long as the one before, up to [`LOG_FILE_MAX`].
pub const LOG_FILE_LEN: u64 = 256 << 10;
/// The longest log file.
pub const LOG_FILE_MAX: u64 = 64 << 20;

/// Where log files come from: beside an embedded pool, or from puddled.
pub trait LogSource: Send + Sync + std::fmt::Debug {
    /// A durable, registered, empty log file of `len` bytes; `log` is the log that it continues, or `None` for a new one.
    fn create(
        &self,
        log: Option<Uuid>,
        position: u32,
        len: u64,
    ) -> io::Result<(MappedMedia, LogHeader)>;
}

/// Further files of a log.
#[derive(Debug, Clone)]
pub(super) struct Supply(Arc<dyn LogSource>);

impl LogSupply<MappedMedia> for Supply {
    fn more(&mut self, log: Uuid, position: u32) -> io::Result<MappedMedia> {
        let len = LOG_FILE_LEN
            .checked_shl(2 * position)
            .map_or(LOG_FILE_MAX, |len| len.clamp(LOG_FILE_LEN, LOG_FILE_MAX));
        self.0
            .create(Some(log), position, len)
            .map(|(file, _)| file)
    }
}

type Log = DirectLog<MappedMedia, Supply>;

/// The logs of this process that no thread has.
struct Logs {
    source: Option<Arc<dyn LogSource>>,
    free: Vec<Log>,
}

static LOGS: Mutex<Logs> = Mutex::new(Logs {
    source: None,
    free: Vec::new(),
});
/// Counts sources: a thread's log of an earlier one is of no use. 0 before the first.
static EPOCH: AtomicU64 = AtomicU64::new(0);
/// Set in a forked child: logs and their locks are the parent's.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Logs come from `source` from now on. No transaction may be open in any thread.
pub fn attach(source: Arc<dyn LogSource>) {
    static FORK: Once = Once::new();
    extern "C" fn child() {
        FORKED.store(true, Ordering::Relaxed);
    }
    FORK.call_once(|| {
        // SAFETY: the handler only stores to an atomic, which is allowed in a forked child.
        unsafe { libc::pthread_atfork(None, None, Some(child)) };
    });
    let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    logs.source = Some(source);
    logs.free.clear();
    EPOCH.fetch_add(1, Ordering::Release);
}

/// There is no source of logs any more. No transaction may be open in any thread.
pub fn detach() {
    let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    logs.source = None;
    logs.free.clear();
    EPOCH.fetch_add(1, Ordering::Release);
}

/// A function that an abort calls, and its argument.
type OnAbort = (unsafe extern "C" fn(*mut c_void), *mut c_void);

/// A lock that this thread holds.
struct Held(Arc<dyn PoolLock>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

struct ThreadTx {
    epoch: u64,
    log: Option<Log>,
    on_abort: Vec<OnAbort>,
    locks: Vec<Held>,
}

impl Drop for ThreadTx {
    fn drop(&mut self) {
        if FORKED.load(Ordering::Relaxed) {
            // The parent's: neither its log nor its locks are ours to give back.
            std::mem::forget(self.log.take());
            std::mem::forget(std::mem::take(&mut self.locks));
            return;
        }
        let Some(mut log) = self.log.take() else {
            return;
        };
        // A thread that ends inside a transaction has aborted it.
        while log.depth() > 0 && log.abort(&mut MappedHome).is_ok() {}
        self.locks.clear();
        let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
        if log.depth() == 0 && self.epoch == EPOCH.load(Ordering::Acquire) {
            logs.free.push(log);
        }
    }
}

thread_local! {
    static TX: RefCell<ThreadTx> = const {
        RefCell::new(ThreadTx {
            epoch: 0,
            log: None,
            on_abort: Vec::new(),
            locks: Vec::new(),
        })
    };
}

#[cold]
fn take_log(tx: &mut ThreadTx) -> Result<(), Error> {
    let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(source) = logs.source.clone() else {
        return Err(Error::invalid(
            "no direct pool is open: open one with VN_DIRECT first",
        ));
    };
    tx.epoch = EPOCH.load(Ordering::Acquire);
    if let Some(log) = logs.free.pop() {
        tx.log = Some(log);
        return Ok(());
    }
    // Making one takes system calls, and the other threads have no need to wait.
    drop(logs);
    let (media, header) = source
        .create(None, 0, LOG_FILE_LEN)
        .map_err(|e| Error::invalid(format!("a log for this thread cannot be made: {e}")))?;
    tx.log = Some(DirectLog::new(media, &header, 1, Supply(source)));
    Ok(())
}

/// What the log of the open transaction does, or an error when none is open.
#[inline]
fn with<R>(act: impl FnOnce(&mut Log) -> Result<R, DirectError>) -> Result<R, Error> {
    TX.with(|tx| {
        let mut tx = tx.borrow_mut();
        match &mut tx.log {
            Some(log) => act(log).map_err(Error::from),
            None => Err(DirectError::NoTransaction.into()),
        }
    })
}

/// Begins a transaction in this thread, or one inside the open one.
#[inline]
pub fn begin() -> Result<(), Error> {
    TX.with(|tx| {
        let mut tx = tx.borrow_mut();
        if FORKED.load(Ordering::Relaxed) {
            return Err(Error::Access {
                what: "this process was forked from one that has direct pools open, and may not change them: open them \
                       after the fork"
                    .to_owned(),
            });
        }
        let idle = tx.log.as_ref().is_none_or(|log| log.depth() == 0);
        if idle && (tx.log.is_none() || tx.epoch != EPOCH.load(Ordering::Relaxed)) {
            take_log(&mut tx)?;
        }
        match &mut tx.log {
            Some(log) => log.begin().map_err(Error::from),
            None => Err(DirectError::NoTransaction.into()),
        }
    })
}

/// How many transactions are open in this thread, one inside the other.
#[inline]
pub fn depth() -> u32 {
    TX.with(|tx| tx.borrow().log.as_ref().map_or(0, DirectLog::depth))
}

/// Whether the open transaction was aborted and has not been left.
pub fn is_aborted() -> bool {
    TX.with(|tx| tx.borrow().log.as_ref().is_some_and(DirectLog::is_aborted))
}

#[inline]
fn check(addr: u64, len: u64) -> Result<(), Error> {
    if space::is_mapped(addr, len) {
        Ok(())
    } else {
        Err(not_direct(addr, len))
    }
}

#[cold]
fn not_direct(addr: u64, len: u64) -> Error {
    Error::invalid(format!(
        "{len} bytes at {addr:#x} lie in no open direct pool"
    ))
}

/// Logs what `len` bytes at `addr` hold, as far as the transaction has not: they may be changed afterwards.
#[inline]
pub fn undo(addr: u64, len: u64) -> Result<(), Error> {
    check(addr, len)?;
    with(|log| log.undo(&mut MappedHome, addr, len))
}

/// Logs what `addr` shall hold after the commit, which changes it.
#[inline]
pub fn redo(addr: u64, data: &[u8]) -> Result<(), Error> {
    check(addr, data.len() as u64)?;
    with(|log| log.redo(addr, data))
}

/// Remembers that memory which was free before has changed in place: the commit makes it durable.
#[inline]
pub fn touch(addr: u64, len: u64) -> Result<(), Error> {
    check(addr, len)?;
    with(|log| log.touch(addr, len))
}

/// Logs what memory of the process holds; an abort brings it back.
///
/// # Safety
///
/// The memory must be readable now, and writable until the outermost transaction has ended.
pub unsafe fn volatile(addr: *mut u8, len: usize) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    let old = unsafe { std::slice::from_raw_parts(addr, len) };
    with(|log| log.volatile(addr as u64, old))
}

/// Calls `function(argument)` if the transaction is aborted, after its changes were taken back; the last one given first.
///
/// # Safety
///
/// The function may be called with this argument, in this thread, until the outermost transaction has ended.
pub unsafe fn on_abort(
    function: unsafe extern "C" fn(*mut c_void),
    argument: *mut c_void,
) -> Result<(), Error> {
    TX.with(|tx| {
        let mut tx = tx.borrow_mut();
        if tx.log.as_ref().is_none_or(|log| log.depth() == 0) {
            return Err(DirectError::NoTransaction.into());
        }
        tx.on_abort.push((function, argument));
        Ok(())
    })
}

/// Leaves a transaction. Leaving the outermost one makes its changes durable; if it was aborted, the error says so.
#[inline]
pub fn commit() -> Result<(), Error> {
    let done = with(|log| log.commit(&mut MappedHome).map(|()| log.depth()));
    match done {
        Ok(0) => {
            TX.with(|tx| {
                let mut tx = tx.borrow_mut();
                tx.on_abort.clear();
                if !tx.locks.is_empty() {
                    tx.locks.clear();
                }
            });
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(e) => {
            if depth() == 0 {
                after_abort();
            }
            Err(e)
        }
    }
}

/// Rolls the whole transaction back, also from inside nested ones; those outside then find it aborted.
pub fn abort() -> Result<(), Error> {
    with(|log| log.abort(&mut MappedHome))?;
    after_abort();
    Ok(())
}

/// Calls what the transaction left to be called, and gives its locks back.
fn after_abort() {
    let (calls, locks) = TX.with(|tx| {
        let mut tx = tx.borrow_mut();
        (
            std::mem::take(&mut tx.on_abort),
            std::mem::take(&mut tx.locks),
        )
    });
    for (function, argument) in calls.into_iter().rev() {
        // SAFETY: who registered it promised that it may be called with this argument until the transaction ends.
        unsafe { function(argument) };
    }
    // The heap of an aborted transaction is read again, before anybody else allocates.
    for lock in &locks {
        lock.0.heap_was_restored();
    }
}

/// Holds `lock` until the outermost transaction ends. `true` when another process had it last, or the heap was rolled back:
/// what the caller remembers of the heap is out of date.
pub(super) fn hold(lock: &Arc<dyn PoolLock>) -> Result<bool, Error> {
    let is_it = |l: &Held| std::ptr::addr_eq(Arc::as_ptr(&l.0), Arc::as_ptr(lock));
    let held = TX.with(|tx| tx.borrow().locks.iter().any(is_it));
    if held {
        return Ok(false);
    }
    if depth() == 0 {
        return Err(DirectError::NoTransaction.into());
    }
    let stale = lock.lock()?;
    TX.with(|tx| tx.borrow_mut().locks.push(Held(Arc::clone(lock))));
    Ok(stale)
}
