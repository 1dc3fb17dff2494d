//! The emulated CXL device for programs on libvernal: `VERNAL_MEDIA=cxl-ssd` puts the runtime's own mappings behind it;
//! these put others there, and count.

use std::ffi::{c_int, c_void};
use vernal_sys::cxl_emul;

/// `int vernal_cxl_emulate(void *addr, size_t len)`: puts a shared tmpfs mapping behind the device; 0, or -1 with a
/// message on standard error.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_cxl_emulate(addr: *mut c_void, len: usize) -> c_int {
    match cxl_emul::attach(addr as u64, len as u64) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("vernal: {e}");
            -1
        }
    }
}

/// `uint64_t vernal_cxl_misses(void)`: misses of the device's cache so far.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_cxl_misses() -> u64 {
    cxl_emul::misses()
}
