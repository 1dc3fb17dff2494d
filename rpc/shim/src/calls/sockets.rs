//! Connections come and go.

use libc::{c_int, sockaddr, sockaddr_un, socklen_t};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{borrow, long};
use crate::conn::Conn;
use crate::greet::{self, Listener};
use crate::table::{self, Entry};
use crate::{config, real};

/// The bytes of a Unix address's name.
unsafe fn name<'a>(addr: *const sockaddr, len: socklen_t) -> Option<&'a [u8]> {
    let head = std::mem::offset_of!(sockaddr_un, sun_path);
    let len = (len as usize)
        .min(size_of::<sockaddr_un>())
        .checked_sub(head)?;
    // SAFETY: the program's address of at least `head` bytes.
    if addr.is_null() || c_int::from(unsafe { (*addr).sa_family }) != libc::AF_UNIX {
        return None;
    }
    // SAFETY: inside of the address.
    Some(unsafe { std::slice::from_raw_parts(addr.cast::<u8>().add(head), len) })
}

/// The path in an address, if it has one and it is covered.
unsafe fn covered(addr: *const sockaddr, len: socklen_t) -> Option<PathBuf> {
    // SAFETY: the caller's address.
    let name = unsafe { name(addr, len) }?;
    let path = name
        .split(|&byte| byte == 0)
        .next()
        .filter(|path| !path.is_empty())?;
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    config::get().covers(path).then(|| path.to_owned())
}

/// A socket's own address.
fn own_path(fd: c_int) -> Option<PathBuf> {
    // SAFETY: all-zero is an address.
    let mut addr: sockaddr_un = unsafe { std::mem::zeroed() };
    let mut len = size_of::<sockaddr_un>() as socklen_t;
    // SAFETY: an address of this stack.
    let said = unsafe { real::getsockname(fd, (&raw mut addr).cast(), &mut len) };
    if said != 0 {
        return None;
    }
    // SAFETY: as above.
    unsafe { covered((&raw const addr).cast(), len) }
}

fn is_stream(fd: c_int) -> bool {
    rustix::net::sockopt::socket_type(borrow(fd)) == Ok(rustix::net::SocketType::STREAM)
}

fn is_nonblocking(fd: c_int) -> bool {
    rustix::fs::fcntl_getfl(borrow(fd))
        .is_ok_and(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK))
}

/// `connect(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the program's address.
    let path = unsafe { covered(addr, len) };
    // A socket that an instance of epoll knows already would be reported for its bells.
    let path = path.filter(|_| is_stream(fd) && !table::is_watched(fd) && table::get(fd).is_none());
    let called = path.and_then(|path| greet::call(borrow(fd), &path, config::get().ring).ok());
    // SAFETY: passed through.
    let connected = unsafe { real::connect(fd, addr, len) };
    if connected == 0
        && let Some(called) = called
        && greet::same_peer(borrow(fd), &called.side)
        && let Ok(conn) = Conn::called(called, is_nonblocking(fd))
    {
        // Too high a number: the conversation is dropped, and the connection stays with the socket.
        table::insert(fd, Entry::Conn(Arc::new(conn)));
    }
    connected
}

/// `listen(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    let path = own_path(fd).filter(|_| is_stream(fd) && table::get(fd).is_none());
    // Before the socket listens: its first client looks for this one first.
    let listener = path.and_then(|path| Listener::new(&path).ok());
    // SAFETY: passed through.
    let listening = unsafe { real::listen(fd, backlog) };
    if listening == 0
        && let Some(listener) = listener
    {
        listener.announce();
        table::insert(fd, Entry::Listener(Arc::new(listener)));
    }
    listening
}

/// `accept(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the same call.
    unsafe { accept4(fd, addr, len, 0) }
}

/// `accept4(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(
    fd: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: passed through.
    let accepted = unsafe { real::accept4(fd, addr, len, flags) };
    if accepted >= 0
        && let Some(Entry::Listener(listener)) = table::get(fd)
    {
        if let Some(conn) = greeted(&listener, accepted, flags) {
            table::insert(accepted, Entry::Conn(Arc::new(conn)));
        }
        // SAFETY: the program's address and length, as filled by the kernel.
        unsafe { hide(addr, len) };
    }
    accepted
}

fn greeted(listener: &Listener, accepted: c_int, flags: c_int) -> Option<Conn> {
    // SAFETY: all-zero is an address.
    let mut addr: sockaddr_un = unsafe { std::mem::zeroed() };
    let mut len = size_of::<sockaddr_un>() as socklen_t;
    // SAFETY: an address of this stack.
    let said = unsafe { real::getpeername(accepted, (&raw mut addr).cast(), &mut len) };
    if said != 0 {
        return None;
    }
    // SAFETY: as above.
    let nonce =
        greet::nonce_in(unsafe { name((&raw const addr).cast(), len) }?.strip_prefix(&[0])?)?;
    let (side, hello) = listener.find(borrow(accepted), &nonce)?;
    let nonblocking = flags & libc::SOCK_NONBLOCK != 0;
    Conn::accepted(side, &hello, config::get().ring, nonblocking).ok()
}

/// A client without a name of its own has none for the program either.
unsafe fn hide(addr: *mut sockaddr, len: *mut socklen_t) {
    if addr.is_null() || len.is_null() {
        return;
    }
    // SAFETY: the program's address and length.
    let named = unsafe { name(addr, *len) };
    if named
        .and_then(|n| n.strip_prefix(&[0]))
        .is_some_and(|n| greet::nonce_in(n).is_some())
    {
        // SAFETY: as above.
        unsafe { *len = std::mem::offset_of!(sockaddr_un, sun_path) as socklen_t };
    }
}

/// `getpeername(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: passed through.
    let said = unsafe { real::getpeername(fd, addr, len) };
    if said == 0 {
        // SAFETY: as filled by the kernel.
        unsafe { hide(addr, len) };
    }
    said
}

/// `getsockname(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: passed through.
    let said = unsafe { real::getsockname(fd, addr, len) };
    if said == 0 {
        // SAFETY: as filled by the kernel.
        unsafe { hide(addr, len) };
    }
    said
}

/// `shutdown(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    let known = (libc::SHUT_RD..=libc::SHUT_RDWR).contains(&how);
    if let Some(conn) = table::conn(fd).filter(|conn| known && !conn.give_up()) {
        let fd = borrow(fd);
        if how != libc::SHUT_WR {
            conn.end_reading();
        }
        let said = how == libc::SHUT_RD || conn.end_writing(fd);
        if how == libc::SHUT_WR && said {
            return 0;
        }
        if how == libc::SHUT_RD {
            return long(Ok(0)) as c_int;
        }
    }
    // SAFETY: passed through. No bell is needed after both directions have ended.
    unsafe { real::shutdown(fd, how) }
}
