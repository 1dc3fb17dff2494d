//! The open pools of this process: by address, by handle, and what each thread keeps of them.

use std::cell::RefCell;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once};
use vernal_abi as abi;
use vernal_abi::puddle::CHUNK_SIZE;

use crate::Error;
use crate::pool::{Inner, Local};

const TRACKED_CHUNKS: usize = (abi::TRACKED_SIZE / CHUNK_SIZE) as usize;
const DIRECT_CHUNKS: usize = (abi::DIRECT_SIZE / CHUNK_SIZE) as usize;
const RPC_CHUNKS: usize = (abi::RPC_SIZE / CHUNK_SIZE) as usize;
const ALL_CHUNKS: usize = TRACKED_CHUNKS + DIRECT_CHUNKS + RPC_CHUNKS;

/// The pool of each chunk of the tracked range, then of the direct space, which the RPC space follows.
static CHUNKS: [AtomicPtr<Inner>; ALL_CHUNKS] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; ALL_CHUNKS];

const _: () = assert!(abi::DIRECT_BASE + abi::DIRECT_SIZE == abi::RPC_BASE);

static POOLS: Mutex<Vec<Arc<Inner>>> = Mutex::new(Vec::new());
/// Changes whenever a pool is opened or closed: threads look again whether what they keep still counts.
static EPOCH: AtomicU64 = AtomicU64::new(1);
static ROLLED_BACK: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static LOCAL: RefCell<(u64, Vec<Local>)> = const { RefCell::new((0, Vec::new())) };
}

fn pools() -> MutexGuard<'static, Vec<Arc<Inner>>> {
    POOLS.lock().unwrap_or_else(|e| e.into_inner())
}

/// Does something while no pool is being opened, closed or looked for.
pub(crate) fn at_rest<R>(f: impl FnOnce() -> R) -> R {
    let _pools = pools();
    f()
}

#[inline]
fn chunk(addr: u64) -> Option<&'static AtomicPtr<Inner>> {
    if abi::is_tracked(addr) {
        return CHUNKS.get(((addr - abi::TRACKED_BASE) / CHUNK_SIZE) as usize);
    }
    let at = addr.wrapping_sub(abi::DIRECT_BASE);
    if at >= abi::DIRECT_SIZE + abi::RPC_SIZE {
        return None;
    }
    CHUNKS.get(TRACKED_CHUNKS + (at / CHUNK_SIZE) as usize)
}

/// The handle of the pool that holds `addr`.
#[inline]
pub(crate) fn handle_at(addr: u64) -> Option<usize> {
    let handle = chunk(addr)?.load(Ordering::Acquire) as usize;
    (handle != 0).then_some(handle)
}

fn set(addr: u64, size: u64, pool: *mut Inner) {
    for at in (addr..addr + size).step_by(CHUNK_SIZE as usize) {
        if let Some(c) = chunk(at) {
            c.store(pool, Ordering::Release);
        }
    }
}

/// Says that a puddle belongs to the pool.
pub(crate) fn cover(pool: &Inner, addr: u64, size: u64) {
    set(addr, size, std::ptr::from_ref(pool).cast_mut());
}

/// Forgets a puddle.
pub(crate) fn uncover(addr: u64, size: u64) {
    set(addr, size, std::ptr::null_mut());
}

/// Arranges for the heaps to hear of roll-backs. Called before the first pool is mapped.
pub(crate) fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| vernal_snapshot::runtime::on_roll_back(rolled_back_lines));
}

/// Makes an open pool known.
pub(crate) fn add(pool: &Arc<Inner>) {
    for p in pool
        .puddles
        .lock()
        .unwrap_or_else(|e| e.into_inner())
        .iter()
    {
        cover(pool, p.mapped.addr, p.mapped.size);
    }
    pools().push(Arc::clone(pool));
    EPOCH.fetch_add(1, Ordering::AcqRel);
}

/// Forgets a pool that is being closed.
pub(crate) fn remove(pool: &Arc<Inner>) {
    pools().retain(|p| !Arc::ptr_eq(p, pool));
    EPOCH.fetch_add(1, Ordering::AcqRel);
    for p in pool
        .puddles
        .lock()
        .unwrap_or_else(|e| e.into_inner())
        .iter()
    {
        uncover(p.mapped.addr, p.mapped.size);
    }
    // This thread's cache goes now, while the memory is mapped; those of other threads hold nothing that needs it.
    let _ = LOCAL.try_with(|l| {
        if let Ok(mut l) = l.try_borrow_mut() {
            l.1.retain(|e| !Arc::ptr_eq(&e.pool, pool));
        }
    });
}

/// The open pool with this handle.
pub(crate) fn find(handle: usize) -> Option<Arc<Inner>> {
    pools()
        .iter()
        .find(|p| Arc::as_ptr(p) as usize == handle)
        .cloned()
}

/// Counts roll-backs.
#[inline]
pub(crate) fn rolled_back() -> u64 {
    ROLLED_BACK.load(Ordering::Acquire)
}

/// The heap of a direct pool was changed behind this process' back.
pub(crate) fn note_roll_back() {
    ROLLED_BACK.fetch_add(1, Ordering::AcqRel);
}

/// Lines were taken back: the heaps look again at what they know of them.
fn rolled_back_lines(lines: &[u64]) {
    ROLLED_BACK.fetch_add(1, Ordering::AcqRel);
    let mut touched: Vec<usize> = Vec::new();
    for &line in lines {
        if let Some(handle) = handle_at(line)
            && touched.last() != Some(&handle)
        {
            touched.push(handle);
        }
    }
    touched.sort_unstable();
    touched.dedup();
    for handle in touched {
        let Some(pool) = find(handle) else { continue };
        for &line in lines.iter().filter(|l| handle_at(**l) == Some(handle)) {
            pool.heap.restored(line, abi::LINE_SIZE);
        }
        if let Some(lazy) = pool.lazy.get() {
            lazy.rolled_back(&pool);
        }
    }
}

fn closed() -> Error {
    Error::invalid("this is no open pool: it was closed, or never opened")
}

/// Calls `f` with what this thread keeps of the pool.
#[inline]
pub(crate) fn with<R>(
    handle: usize,
    f: impl FnOnce(&mut Local) -> Result<R, Error>,
) -> Result<R, Error> {
    let inside = LOCAL.try_with(|l| {
        let Ok(mut l) = l.try_borrow_mut() else {
            return Err(Error::invalid(
                "pools cannot be used from a signal handler that interrupted an allocation",
            ));
        };
        let (epoch, entries) = &mut *l;
        let now = EPOCH.load(Ordering::Acquire);
        if *epoch != now {
            refresh(entries);
            *epoch = now;
        }
        let at = entries
            .iter()
            .position(|e| Arc::as_ptr(&e.pool) as usize == handle);
        let at = match at {
            Some(at) => at,
            None => {
                let pool = find(handle).ok_or_else(closed)?;
                entries.push(Local::new(pool));
                entries.len() - 1
            }
        };
        f(&mut entries[at])
    });
    inside.unwrap_or_else(|_| {
        Err(Error::invalid(
            "this thread is ending: pools cannot be used by its last destructors",
        ))
    })
}

#[cold]
fn refresh(entries: &mut Vec<Local>) {
    let pools = pools();
    entries.retain(|e| pools.iter().any(|p| Arc::ptr_eq(p, &e.pool)));
}
