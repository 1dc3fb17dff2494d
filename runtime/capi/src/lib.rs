//! libvernal: the C interface of `vernal.h`, the hooks that instrumented code calls, and the calls it interposes.
//!
//! This crate translates: pointers and integers in, `vernal_snapshot` calls, `errno` and error codes out. It contains no
//! logic of its own. It must never be compiled by `vernal-cc`: the runtime's own stores are not to be tracked.

mod cxl;
mod given;
mod hooks;
mod interpose;
mod libstdcxx;
mod pool;
mod real;
mod rpc;

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use vernal_snapshot::runtime::{self, Stats};
use vernal_snapshot::{Error, config};

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::new(CString::default());
    static LAST_CODE: Cell<c_int> = const { Cell::new(0) };
}

const FLAG_CREATE: c_uint = 1;

/// Marks `len` bytes at `addr` as written; any address is allowed.
#[inline]
pub(crate) fn mark(addr: *const u8, len: usize) {
    vernal_snapshot::thread::mark_range(addr as u64, len as u64);
}

/// The library's constructor: before any interposed call can concern a file.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = {
    extern "C" fn constructor() {
        given::find_all();
        runtime::init();
    }
    constructor
};

/// `vernal_error` of `vernal.h`.
pub(crate) fn code(e: &Error) -> c_int {
    match e {
        Error::NoSpace { .. } => -3,
        Error::Busy { .. } | Error::Nested => -4,
        Error::AddressTaken { .. }
        | Error::Reserve { .. }
        | Error::TooManyFiles { .. }
        | Error::TooLarge { .. } => -5,
        Error::BadHome { .. } | Error::Format { .. } => -6,
        Error::Forked => -7,
        Error::RolledBack => -10,
        Error::Failed { .. } => -9,
        Error::Io { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound => -8,
            std::io::ErrorKind::PermissionDenied => -7,
            std::io::ErrorKind::ReadOnlyFilesystem => -9,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => -3,
            _ => -2,
        },
        Error::NotMapped { .. } => -8,
        _ => -1,
    }
}

/// What `vernal_last_error` and `vernal_last_error_code` return.
pub(crate) fn remember_as(code: c_int, message: &str) {
    let text = CString::new(message.replace('\0', "?")).unwrap_or_default();
    LAST_CODE.set(code);
    LAST_ERROR.with(|l| {
        if let Ok(mut l) = l.try_borrow_mut() {
            *l = text;
        }
    });
}

/// The text of this thread's last failure.
pub(crate) fn last_error_text() -> String {
    LAST_ERROR.with(|l| match l.try_borrow() {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => String::new(),
    })
}

fn remember(e: &Error) {
    remember_as(code(e), &e.to_string());
}

fn status(r: Result<(), Error>) -> c_int {
    match r {
        Ok(()) => 0,
        Err(e) => {
            remember(&e);
            code(&e)
        }
    }
}

/// Reports the error of an interposed call: errno for the program, the message on standard error for its user.
pub(crate) fn mark_errno(e: &Error) {
    remember(e);
    config::say(format_args!("{e}"));
    // SAFETY: glibc's errno of this thread.
    unsafe { *libc::__errno_location() = e.errno() };
}

/// Maps a file at its home address. See `vernal.h`.
///
/// # Safety
///
/// `path` is NULL or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vernal_map(path: *const c_char, len: usize, flags: c_uint) -> *mut c_void {
    let _inside = runtime::enter();
    let result = if path.is_null() {
        Err(Error::Invalid {
            what: "vernal_map: path is NULL: give the name of a file".into(),
        })
    } else if flags & !FLAG_CREATE != 0 {
        Err(Error::Invalid {
            what: format!("vernal_map: flags {flags:#x} are not valid: 0 or VERNAL_CREATE"),
        })
    } else {
        // SAFETY: the caller's promise.
        let path = Path::new(std::ffi::OsStr::from_bytes(
            unsafe { CStr::from_ptr(path) }.to_bytes(),
        ));
        runtime::map_file(path, len as u64, flags & FLAG_CREATE != 0)
    };
    match result {
        Ok(at) => at as *mut c_void,
        Err(e) => {
            remember(&e);
            // SAFETY: glibc's errno of this thread.
            unsafe { *libc::__errno_location() = e.errno() };
            std::ptr::null_mut()
        }
    }
}

/// Commits and unmaps. See `vernal.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_unmap(addr: *mut c_void) -> c_int {
    status(runtime::unmap_file(addr as u64, false))
}

/// Unmaps and forgets. See `vernal.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_unmap_discard(addr: *mut c_void) -> c_int {
    status(runtime::unmap_file(addr as u64, true))
}

/// Changes a file's length. See `vernal.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_resize(addr: *mut c_void, len: usize) -> c_int {
    status(runtime::resize(addr as u64, len as u64))
}

/// Length of a mapping. See `vernal.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_length(addr: *const c_void) -> usize {
    runtime::length(addr as u64) as usize
}

/// Commits. See `vernal.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_commit() -> c_int {
    status(runtime::commit())
}

/// Commits without waiting for durability. See `vernal.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_commit_async() -> i64 {
    match runtime::commit_async() {
        Ok(ticket) => ticket as i64,
        Err(e) => {
            remember(&e);
            i64::from(code(&e))
        }
    }
}

/// Waits for a ticket. See `vernal.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_wait(ticket: i64) -> c_int {
    status(runtime::wait(u64::try_from(ticket).unwrap_or(0)))
}

/// Rolls back. See `vernal.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_abort() -> c_int {
    status(runtime::abort())
}

/// Enters an operation. See `vernal.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_op_begin() {
    vernal_snapshot::op_begin();
}

/// Leaves an operation. See `vernal.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_op_end() {
    vernal_snapshot::op_end();
}

/// The calling thread's last error. See `vernal.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_last_error() -> *const c_char {
    LAST_ERROR.with(|l| match l.try_borrow() {
        Ok(l) => l.as_ptr(),
        Err(_) => c"".as_ptr(),
    })
}

/// The code of the calling thread's last error. See `vernal.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_last_error_code() -> c_int {
    LAST_CODE.get()
}

/// The counters. See `vernal.h`.
///
/// # Safety
///
/// `out` is NULL or points to a `vernal_stats`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vernal_get_stats(out: *mut Stats) {
    if !out.is_null() {
        // SAFETY: the caller's promise; Stats is repr(C) with the header's fields.
        unsafe { out.write(runtime::stats()) };
    }
}

/// Says that code unknown to the compiler has written. See `vernal.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vernal_mark(addr: *const c_void, len: usize) {
    mark(addr.cast(), len);
}
