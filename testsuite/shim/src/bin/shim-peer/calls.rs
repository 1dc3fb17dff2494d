//! The calls, as a C program makes them.

use std::mem::{offset_of, zeroed};

/// The last error.
pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A result that is no error.
#[track_caller]
pub fn check(result: i32) -> i32 {
    assert!(result >= 0, "errno {}", errno());
    result
}

fn address(path: &str) -> (libc::sockaddr_un, u32) {
    // SAFETY: all-zero is an address.
    let mut addr: libc::sockaddr_un = unsafe { zeroed() };
    addr.sun_family = libc::AF_UNIX as u16;
    for (to, from) in addr.sun_path.iter_mut().zip(path.bytes()) {
        *to = from as libc::c_char;
    }
    (
        addr,
        (offset_of!(libc::sockaddr_un, sun_path) + path.len() + 1) as u32,
    )
}

fn socket() -> i32 {
    // SAFETY: a system call without memory.
    check(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) })
}

/// A socket that listens at `path`.
pub fn listen(path: &str) -> i32 {
    let (fd, (addr, len)) = (socket(), address(path));
    // SAFETY: an address of this stack.
    check(unsafe { libc::bind(fd, (&raw const addr).cast(), len) });
    // SAFETY: a system call without memory.
    check(unsafe { libc::listen(fd, 64) });
    fd
}

/// A socket that is connected to `path`.
pub fn connect(path: &str) -> i32 {
    let (fd, (addr, len)) = (socket(), address(path));
    // SAFETY: an address of this stack.
    check(unsafe { libc::connect(fd, (&raw const addr).cast(), len) });
    fd
}

/// The next connection.
pub fn accept(fd: i32, flags: i32) -> i32 {
    // SAFETY: no address is wanted.
    check(unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags) })
}

/// `read`.
pub fn read(fd: i32, bytes: &mut [u8]) -> isize {
    // SAFETY: the slice's memory.
    unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) }
}

/// `recv`.
pub fn recv(fd: i32, bytes: &mut [u8], flags: i32) -> isize {
    // SAFETY: the slice's memory.
    unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), flags) }
}

/// `write`; no signal kills this program.
pub fn write(fd: i32, bytes: &[u8]) -> isize {
    // SAFETY: the slice's memory.
    unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) }
}

/// `send`.
pub fn send(fd: i32, bytes: &[u8], flags: i32) -> isize {
    // SAFETY: the slice's memory.
    unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) }
}

/// `writev` of two parts.
pub fn writev(fd: i32, parts: [&[u8]; 2]) -> isize {
    let parts = parts.map(|part| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    });
    // SAFETY: the slices' memory.
    unsafe { libc::writev(fd, parts.as_ptr(), 2) }
}

/// `close`.
pub fn close(fd: i32) {
    // SAFETY: a descriptor of this program that nobody uses any more.
    check(unsafe { libc::close(fd) });
}

/// Calls no longer block.
pub fn set_nonblocking(fd: i32) {
    // SAFETY: system calls without memory.
    check(unsafe {
        libc::fcntl(
            fd,
            libc::F_SETFL,
            libc::fcntl(fd, libc::F_GETFL) | libc::O_NONBLOCK,
        )
    });
}

/// `poll` of one descriptor that does not wait: what is so.
pub fn poll_now(fd: i32, events: i16) -> i16 {
    let mut p = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one descriptor of this stack.
    check(unsafe { libc::poll(&mut p, 1, 0) });
    p.revents
}

/// `FIONREAD`.
pub fn waiting(fd: i32) -> i32 {
    let mut n = 0;
    // SAFETY: a number of this stack.
    check(unsafe { libc::ioctl(fd, libc::FIONREAD, &mut n) });
    n
}
