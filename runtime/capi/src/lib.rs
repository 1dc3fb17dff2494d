//! libvernal: the C interface of `vernal.h`, the hooks that instrumented code calls, and the calls it interposes.

/// Marks `len` bytes at `addr` as written; any address is allowed.
#[inline]
pub(crate) fn mark(addr: *const u8, len: usize) {
    let _ = (addr, len);
}
