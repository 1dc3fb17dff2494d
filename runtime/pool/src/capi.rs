//! What libvernal's C interface calls: handles and addresses in, checked.

use crate::pool::Bracket;
use crate::program::{self, VnType};
use crate::{Error, Pool, direct, registry, tx};
use vernal_heap::{ObjectSpace, TYPE_RAW};

/// The open pool with this handle.
pub fn pool(handle: usize) -> Result<Pool, Error> {
    Pool::from_handle(handle).ok_or_else(|| {
        Error::invalid(format!(
            "{handle:#x} is no open pool: it was closed, or never opened"
        ))
    })
}

/// The handle of the pool that holds `addr`; 0: none.
pub fn handle_of(addr: u64) -> usize {
    registry::handle_at(addr).unwrap_or(0)
}

fn owner(addr: u64, call: &str) -> Result<usize, Error> {
    registry::handle_at(addr).ok_or_else(|| {
        Error::invalid(format!(
            "{call}: {addr:#x} lies in no open pool: it was not allocated by vn_new"
        ))
    })
}

/// Allocates a zeroed object.
///
/// # Safety
///
/// `ty` is NULL or what the compiler emitted.
#[inline]
pub unsafe fn new(handle: usize, bytes: u64, ty: *const VnType) -> Result<u64, Error> {
    registry::with(handle, |l| {
        // SAFETY: the caller's promise.
        l.alloc_typed(bytes, ty as usize, || unsafe { program::lookup(ty) })
    })
}

/// Allocates zeroed bytes without pointers.
pub fn new_bytes(handle: usize, bytes: u64) -> Result<u64, Error> {
    registry::with(handle, |l| {
        let _bracket = Bracket::of(&l.pool);
        l.alloc(bytes, 16, TYPE_RAW)
    })
}

/// The root object, allocated at first.
///
/// # Safety
///
/// As for [`new`].
pub unsafe fn root(handle: usize, bytes: u64, ty: *const VnType) -> Result<u64, Error> {
    registry::with(handle, |l| {
        // SAFETY: the caller's promise.
        l.root(bytes, ty as usize, || unsafe { program::lookup(ty) })
    })
}

/// Frees the object at `addr`.
#[inline]
pub fn free(addr: u64) -> Result<(), Error> {
    registry::with(owner(addr, "vn_free")?, |l| l.pool.free(addr))
}

/// Changes the size of the object at `addr`.
pub fn realloc(addr: u64, bytes: u64) -> Result<u64, Error> {
    registry::with(owner(addr, "vn_realloc")?, |l| l.realloc(addr, bytes))
}

/// Copies the object at `addr`, and what it reaches in its pool, into another pool; in the open transaction.
pub fn copy(to: usize, addr: u64) -> Result<u64, Error> {
    pool(owner(addr, "vn_copy")?)?.copy_into(addr, &pool(to)?)
}

/// Bytes of the object at `addr`.
pub fn usable_size(addr: u64) -> Result<u64, Error> {
    registry::with(owner(addr, "vn_usable_size")?, |l| {
        let object = l.pool.heap.object_exact(addr);
        object.map(|o| o.size).map_err(|e| l.pool.heap_error(e))
    })
}

/// The id of the type of the object at `addr`.
pub fn type_id(addr: u64) -> Result<u64, Error> {
    registry::with(owner(addr, "vn_rpc")?, |l| {
        let object = l.pool.heap.object_exact(addr);
        let object = object.map_err(|e| l.pool.heap_error(e))?;
        let desc = l.pool.heap.type_desc(object.type_index);
        desc.map(|d| d.id()).ok_or_else(|| Error::Type {
            what: format!("the object at {addr:#x} has no type: allocate it with vn_new"),
        })
    })
}

/// Before a change of `[addr, addr + len)`. Buffered pools know of stores already, and volatile ones
/// take nothing back.
pub fn tx_add(addr: u64, len: u64) -> Result<(), Error> {
    check_range(addr, len, "vn_tx_add")?;
    if is_direct(addr) {
        tx::enlist_direct()?;
        direct::tx::undo(addr, len)?;
    }
    Ok(())
}

fn is_direct(addr: u64) -> bool {
    addr.wrapping_sub(vernal_abi::DIRECT_BASE) < vernal_abi::DIRECT_SIZE
}

/// Changes `[addr, addr + len)`.
///
/// # Safety
///
/// `value` points to `len` bytes.
pub unsafe fn tx_set(addr: u64, value: *const u8, len: usize) -> Result<(), Error> {
    check_range(addr, len as u64, "vn_tx_set")?;
    if is_direct(addr) {
        tx::enlist_direct()?;
        // SAFETY: the caller's promise.
        return direct::tx::redo(addr, unsafe { std::slice::from_raw_parts(value, len) });
    }
    // SAFETY: the range lies in an open pool, as the program's own stores would; `value` by the caller's promise. They may
    // overlap.
    unsafe { std::ptr::copy(value, addr as *mut u8, len) };
    vernal_snapshot::thread::mark_range(addr, len as u64);
    Ok(())
}

fn check_range(addr: u64, len: u64, call: &str) -> Result<(), Error> {
    if tx::depth() == 0 {
        return Err(Error::invalid(format!(
            "{call} without a transaction: begin one with vn_tx_begin or VN_TX"
        )));
    }
    let last = addr.checked_add(len.max(1) - 1);
    let owner_of_first = owner(addr, call)?;
    match last.and_then(registry::handle_at) {
        Some(handle) if handle == owner_of_first => Ok(()),
        _ => Err(Error::invalid(format!(
            "{call}: {len} bytes at {addr:#x} reach out of the pool"
        ))),
    }
}
