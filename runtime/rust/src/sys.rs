//! The C interface of libvernal, as in vernal.h.

use std::ffi::{c_char, c_int, c_uint, c_void};

pub(crate) const VERNAL_CREATE: c_uint = 1;

pub(crate) const VN_CREATE: c_uint = 1;
pub(crate) const VN_DIRECT: c_uint = 2;
pub(crate) const VN_READONLY: c_uint = 4;
pub(crate) const VN_EXCL: c_uint = 8;

/// An aborted transaction.
pub(crate) const EABORTED: c_int = -12;

/// An open pool (`vn_pool`).
#[repr(C)]
pub(crate) struct VnPool {
    _opaque: [u8; 0],
}

/// A type as libvernal takes it (`struct vn_type`).
#[repr(C)]
#[derive(Debug)]
pub(crate) struct VnType {
    pub blob: *const u8,
    pub len: u32,
    pub bound_count: u32,
    pub bound: *const *const c_void,
}

const _: () = assert!(size_of::<VnType>() == 24);

pub(crate) const VN_DEMAND_NOT_NULL: u32 = 0;
pub(crate) const VN_DEMAND_ONE_OF: u32 = 1;
pub(crate) const VN_DEMAND_TARGET: u32 = 2;

/// What a peer's values have to be (`struct vn_demand`).
#[repr(C)]
#[derive(Debug)]
pub(crate) struct VnDemand {
    pub offset: u64,
    pub size: u32,
    pub kind: u32,
    pub count: usize,
    pub values: *const u64,
}

const _: () = assert!(size_of::<VnDemand>() == 32);

/// Counters since the process started (`vernal_stats`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    /// Bytes that `VERNAL_AUDIT` found written without a mark.
    pub audit_missed: u64,
}

const _: () = assert!(size_of::<Stats>() == 72);

unsafe extern "C" {
    pub(crate) fn vernal_map(path: *const c_char, len: usize, flags: c_uint) -> *mut c_void;
    pub(crate) fn vernal_unmap(addr: *mut c_void) -> c_int;
    pub(crate) fn vernal_unmap_discard(addr: *mut c_void) -> c_int;
    pub(crate) fn vernal_resize(addr: *mut c_void, len: usize) -> c_int;
    pub(crate) fn vernal_length(addr: *const c_void) -> usize;
    pub(crate) fn vernal_commit() -> c_int;
    pub(crate) fn vernal_commit_async() -> i64;
    pub(crate) fn vernal_wait(ticket: i64) -> c_int;
    pub(crate) fn vernal_abort() -> c_int;
    pub(crate) fn vernal_op_begin();
    pub(crate) fn vernal_op_end();
    pub(crate) fn vernal_last_error() -> *const c_char;
    pub(crate) fn vernal_last_error_code() -> c_int;
    pub(crate) fn vernal_get_stats(out: *mut Stats);
    pub(crate) fn vernal_mark(addr: *const c_void, len: usize);

    pub(crate) fn vn_pool_open(name: *const c_char, flags: c_uint) -> *mut VnPool;
    pub(crate) fn vn_pool_close(pool: *mut VnPool) -> c_int;
    pub(crate) fn __vn_new_typed(pool: *mut VnPool, bytes: usize, ty: *const VnType)
    -> *mut c_void;
    pub(crate) fn __vn_root_typed(
        pool: *mut VnPool,
        bytes: usize,
        ty: *const VnType,
    ) -> *mut c_void;
    pub(crate) fn vn_free(object: *mut c_void) -> c_int;
    pub(crate) fn vn_get_root(pool: *mut VnPool) -> *mut c_void;
    pub(crate) fn vn_set_root(pool: *mut VnPool, object: *mut c_void) -> c_int;
    pub(crate) fn vn_tx_begin() -> c_int;
    pub(crate) fn vn_tx_commit() -> c_int;
    pub(crate) fn vn_tx_abort() -> c_int;
    pub(crate) fn vn_tx_commit_async() -> i64;
    pub(crate) fn vn_tx_add(at: *const c_void, len: usize) -> c_int;
    pub(crate) fn __vernal_register_types(start: *const *const VnType, stop: *const *const VnType);
    pub(crate) fn __vernal_demand(
        ty: *const VnType,
        demands: *const VnDemand,
        count: usize,
    ) -> c_int;
}
