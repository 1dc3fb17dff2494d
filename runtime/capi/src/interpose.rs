//! Standard calls on opted-in files: `open`, `mmap`, `msync`, `munmap`, `mremap`, `ftruncate`, `fsync`, `fdatasync`.
//!
//! A file is opted in when its absolute path matches `VERNAL_PATHS`. Everything else is passed to the kernel unchanged,
//! and so is every call that the runtime makes itself (it holds an [`runtime::Inside`] guard then).

use crate::{mark_errno, real};
use libc::{c_char, c_int, c_void, mode_t, off_t, size_t};
use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use vernal_abi as abi;
use vernal_snapshot::config;
use vernal_snapshot::runtime::{self, MapRequest};

fn active() -> bool {
    !runtime::is_inside() && !config::get().paths.is_empty()
}

fn path_of(fd: c_int) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    path.is_absolute().then_some(path)
}

fn opted_in_fd(fd: c_int) -> Option<PathBuf> {
    if fd < 0 || !active() {
        return None;
    }
    let _inside = runtime::enter();
    path_of(fd).filter(|p| config::get().opted_in(p))
}

/// `mmap(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    off: off_t,
) -> *mut c_void {
    let shared = matches!(
        flags & libc::MAP_TYPE,
        libc::MAP_SHARED | libc::MAP_SHARED_VALIDATE
    );
    if fd >= 0
        && shared
        && flags & libc::MAP_ANONYMOUS == 0
        && let Some(path) = opted_in_fd(fd)
    {
        let fixed =
            (flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) != 0).then_some(addr as u64);
        let request = MapRequest {
            path: &path,
            fd,
            offset: off as u64,
            len: len as u64,
            writable: prot & libc::PROT_WRITE != 0,
            fixed,
        };
        return match runtime::map_window(&request) {
            Ok(at) => at as *mut c_void,
            Err(e) => {
                mark_errno(&e);
                libc::MAP_FAILED
            }
        };
    }
    // SAFETY: passed through.
    unsafe { real::mmap(addr, len, prot, flags, fd, off) }
}

/// `mmap64`, the same on x86-64.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    off: off_t,
) -> *mut c_void {
    // SAFETY: the same call.
    unsafe { mmap(addr, len, prot, flags, fd, off) }
}

/// `munmap(2)`: on a mapped file it commits first (`VERNAL_UNMAP=discard` changes that).
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn munmap(addr: *mut c_void, len: size_t) -> c_int {
    if abi::is_tracked(addr as u64) && !runtime::is_inside() {
        return status(runtime::unmap_window(addr as u64, len as u64));
    }
    // SAFETY: passed through.
    unsafe { real::munmap(addr, len) }
}

/// `msync(2)`: a commit. A sub-range commits everything, which includes the range; `MS_ASYNC` is atomic at once and
/// durable with the next commit that waits.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msync(addr: *mut c_void, len: size_t, flags: c_int) -> c_int {
    if abi::is_tracked(addr as u64) && !runtime::is_inside() {
        if let Err(e) = runtime::check_msync(addr as u64, flags) {
            return status(Err(e));
        }
        return if flags & libc::MS_ASYNC != 0 {
            status(runtime::commit_async().map(drop))
        } else {
            status(runtime::commit())
        };
    }
    // SAFETY: passed through.
    unsafe { real::msync(addr, len, flags) }
}

/// `mremap(2)`: a mapped file grows and shrinks in place.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mremap(
    addr: *mut c_void,
    old: size_t,
    new: size_t,
    flags: c_int,
    to: *mut c_void,
) -> *mut c_void {
    if abi::is_tracked(addr as u64) && !runtime::is_inside() {
        let moved = (flags & libc::MREMAP_FIXED != 0).then_some(to as u64);
        return match runtime::remap_window(addr as u64, old as u64, new as u64, moved) {
            Ok(()) => addr,
            Err(e) => {
                mark_errno(&e);
                libc::MAP_FAILED
            }
        };
    }
    // SAFETY: passed through.
    unsafe { real::mremap(addr, old, new, flags, to) }
}

/// `ftruncate(2)`: on a mapped file the new length is part of the next commit.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate(fd: c_int, len: off_t) -> c_int {
    if active() && runtime::any_mapped() && len >= 0 {
        let inside = runtime::enter();
        let result = runtime::set_file_len(fd, len as u64);
        drop(inside);
        match result {
            Ok(true) => return 0,
            Ok(false) => {}
            Err(e) => return status(Err(e)),
        }
    }
    // SAFETY: passed through.
    unsafe { real::ftruncate(fd, len) }
}

/// `ftruncate64`, the same on x86-64.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, len: off_t) -> c_int {
    // SAFETY: the same call.
    unsafe { ftruncate(fd, len) }
}

/// `fsync(2)`: on a mapped file also a commit.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: passed on.
    unsafe { sync_file(fd, false) }
}

/// `fdatasync(2)`: on a mapped file also a commit.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: passed on.
    unsafe { sync_file(fd, true) }
}

unsafe fn sync_file(fd: c_int, data_only: bool) -> c_int {
    if active() && runtime::any_mapped() && runtime::is_mapped_file(fd) {
        return status(runtime::commit());
    }
    // SAFETY: passed through.
    unsafe { real::sync(fd, data_only) }
}

/// Recovers an opted-in file before the program can read a half-applied image through a descriptor.
unsafe fn open_at(dir: c_int, path_arg: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    if !path_arg.is_null() && active() && runtime::reads_environment() {
        let _inside = runtime::enter();
        // SAFETY: open(2) takes a NUL-terminated path.
        let p = Path::new(std::ffi::OsStr::from_bytes(
            unsafe { CStr::from_ptr(path_arg) }.to_bytes(),
        ));
        let absolute = if p.is_absolute() {
            Some(p.to_path_buf())
        } else if dir == libc::AT_FDCWD {
            std::env::current_dir().ok().map(|d| d.join(p))
        } else {
            path_of(dir).map(|d| d.join(p))
        };
        if let Some(path) = absolute.filter(|p| config::get().opted_in(p)) {
            if let Err(e) = runtime::recover_if_needed(&path) {
                mark_errno(&e);
                return -1;
            }
            if flags & libc::O_TRUNC != 0 && runtime::any_mapped() {
                // SAFETY: the caller's arguments, without the truncation.
                return unsafe { open_mapped(dir, path_arg, flags, mode) };
            }
        }
    }
    // SAFETY: passed through.
    unsafe { real::openat(dir, path_arg, flags, mode) }
}

/// `O_TRUNC` on a file that is mapped: the new length is part of the next commit, as with `ftruncate`.
unsafe fn open_mapped(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's arguments.
    let fd = unsafe { real::openat(dir, path, flags & !libc::O_TRUNC, mode) };
    if fd < 0 {
        return fd;
    }
    match runtime::set_file_len(fd, 0) {
        Ok(true) => fd,
        // SAFETY: `fd` was opened above; the kernel checks the rest.
        Ok(false) if unsafe { real::ftruncate(fd, 0) } == 0 => fd,
        other => {
            // SAFETY: `fd` was opened above and nobody else knows it.
            unsafe { libc::close(fd) };
            if let Err(e) = other {
                mark_errno(&e);
            }
            -1
        }
    }
}

// `open` and its kin are variadic in C; on x86-64 the optional mode arrives in the same register as a fixed argument, and
// is ignored by the kernel when the flags do not ask for it.

/// `open(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: passed on.
    unsafe { open_at(libc::AT_FDCWD, path, flags, mode) }
}

/// `open64`, the same on x86-64.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: passed on.
    unsafe { open_at(libc::AT_FDCWD, path, flags, mode) }
}

/// `openat(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: passed on.
    unsafe { open_at(dir, path, flags, mode) }
}

/// `openat64`, the same on x86-64.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: passed on.
    unsafe { open_at(dir, path, flags, mode) }
}

fn status(r: Result<(), vernal_snapshot::Error>) -> c_int {
    match r {
        Ok(()) => 0,
        Err(e) => {
            mark_errno(&e);
            -1
        }
    }
}
