//! The calls that libvernal interposes, as system calls: what the runtime and the pass-through paths use.

use libc::{c_char, c_int, c_long, c_void, mode_t, off_t, size_t};

/// `mmap`, setting errno.
pub unsafe fn mmap(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    off: off_t,
) -> *mut c_void {
    // SAFETY: the caller's arguments, unchanged.
    unsafe { libc::syscall(libc::SYS_mmap, addr, len, prot, flags, fd, off) as *mut c_void }
}

/// `munmap`, setting errno.
pub unsafe fn munmap(addr: *mut c_void, len: size_t) -> c_int {
    // SAFETY: the caller's arguments, unchanged.
    unsafe { libc::syscall(libc::SYS_munmap, addr, len) as c_int }
}

/// `mremap`, setting errno.
pub unsafe fn mremap(
    addr: *mut c_void,
    old: size_t,
    new: size_t,
    flags: c_int,
    to: *mut c_void,
) -> *mut c_void {
    // SAFETY: the caller's arguments, unchanged.
    unsafe { libc::syscall(libc::SYS_mremap, addr, old, new, flags, to) as *mut c_void }
}

/// `openat`, setting errno.
pub unsafe fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's arguments, unchanged.
    unsafe { libc::syscall(libc::SYS_openat, dir, path, flags as c_long, mode) as c_int }
}

/// `msync`, a cancellation point no longer.
pub unsafe fn msync(addr: *mut c_void, len: size_t, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments, unchanged.
    unsafe { libc::syscall(libc::SYS_msync, addr, len, flags) as c_int }
}

/// `ftruncate`, setting errno.
pub unsafe fn ftruncate(fd: c_int, len: off_t) -> c_int {
    // SAFETY: the caller's arguments, unchanged.
    unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) as c_int }
}

/// `fsync` or `fdatasync`, setting errno.
pub unsafe fn sync(fd: c_int, data_only: bool) -> c_int {
    let nr = if data_only {
        libc::SYS_fdatasync
    } else {
        libc::SYS_fsync
    };
    // SAFETY: the caller's argument, unchanged.
    unsafe { libc::syscall(nr, fd) as c_int }
}
