//! The replaced calls, by what they are about. Each one looks whether the descriptor is the shim's; nearly all are not.

mod descriptors;
mod io;
mod sockets;
mod waits;

use libc::{c_int, ssize_t};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

/// A descriptor of the program, for one call.
fn borrow<'a>(fd: c_int) -> BorrowedFd<'a> {
    // SAFETY: the program's; the kernel says so if it is none.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn set_errno(e: Errno) {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = e.raw_os_error() };
}

/// A result as the C library gives it.
fn long(result: Result<usize, Errno>) -> ssize_t {
    match result {
        Ok(n) => n as ssize_t,
        Err(e) => {
            set_errno(e);
            -1
        }
    }
}

fn int(result: Result<usize, Errno>) -> c_int {
    long(result) as c_int
}
