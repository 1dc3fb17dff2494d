//! Reading and writing.

use libc::{
    c_char, c_int, c_uint, c_void, iovec, mmsghdr, msghdr, off_t, size_t, sockaddr, socklen_t,
    ssize_t, timespec,
};
use rustix::io::Errno;

use super::{borrow, long, set_errno};
use crate::conn::Conn;
use crate::stream::{self, Mode};
use crate::{real, table};

/// What is understood of the flags of `recv` and `send`. Others are refused before a byte is taken.
const RECV: c_int = libc::MSG_DONTWAIT
    | libc::MSG_PEEK
    | libc::MSG_WAITALL
    | libc::MSG_NOSIGNAL
    | libc::MSG_CMSG_CLOEXEC;
const SEND: c_int =
    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_MORE | libc::MSG_EOR | libc::MSG_CONFIRM;

fn one(buf: *const c_void, len: size_t) -> [iovec; 1] {
    [iovec {
        iov_base: buf.cast_mut(),
        iov_len: len,
    }]
}

/// The parts of a call, as far as they can be parts.
unsafe fn parts<'a>(iov: *const iovec, n: usize) -> Result<&'a [iovec], Errno> {
    match n {
        0 => Ok(&[]),
        1..=1024 if iov.is_null() => Err(Errno::FAULT),
        // SAFETY: the program's list of `n` parts.
        1..=1024 => Ok(unsafe { std::slice::from_raw_parts(iov, n) }),
        _ => Err(Errno::INVAL),
    }
}

/// `None`: the socket has to be asked.
fn read_from(conn: &Conn, fd: c_int, iov: &[iovec], flags: c_int) -> Option<ssize_t> {
    if flags & !RECV != 0 {
        set_errno(Errno::OPNOTSUPP);
        return Some(-1);
    }
    let mode = Mode {
        now: flags & libc::MSG_DONTWAIT != 0,
        peek: flags & libc::MSG_PEEK != 0,
        all: flags & libc::MSG_WAITALL != 0,
    };
    stream::read(conn, borrow(fd), iov, mode).map(long)
}

fn write_to(conn: &Conn, fd: c_int, iov: &[iovec], flags: c_int) -> ssize_t {
    if flags & !SEND != 0 {
        set_errno(Errno::OPNOTSUPP);
        return -1;
    }
    let mode = Mode {
        now: flags & libc::MSG_DONTWAIT != 0,
        peek: false,
        all: true,
    };
    let result = stream::write(conn, borrow(fd), iov, mode);
    if result == Err(Errno::PIPE) && flags & libc::MSG_NOSIGNAL == 0 {
        // SAFETY: what the kernel does to a thread that writes into a broken pipe.
        unsafe { libc::raise(libc::SIGPIPE) };
    }
    long(result)
}

/// `read(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    let ours = table::conn(fd).and_then(|conn| read_from(&conn, fd, &one(buf, len), 0));
    // SAFETY: passed through.
    ours.unwrap_or_else(|| unsafe { real::read(fd, buf, len) })
}

/// `read` as fortified programs call it.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __read_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    size: size_t,
) -> ssize_t {
    if len > size {
        overflow();
    }
    // SAFETY: the same call.
    unsafe { read(fd, buf, len) }
}

/// The end of a program that reads more than its buffer holds.
fn overflow() -> ! {
    eprintln!("vernal shim: a read is longer than its buffer: terminated");
    std::process::abort()
}

/// `readv(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn readv(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t {
    if let Some(conn) = table::conn(fd) {
        // SAFETY: the program's list.
        match unsafe { parts(iov, usize::try_from(n).unwrap_or(usize::MAX)) } {
            Ok(parts) => {
                if let Some(done) = read_from(&conn, fd, parts, 0) {
                    return done;
                }
            }
            Err(e) => return long(Err(e)),
        }
    }
    // SAFETY: passed through.
    unsafe { real::readv(fd, iov, n) }
}

/// `recv(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    let ours = table::conn(fd).and_then(|conn| read_from(&conn, fd, &one(buf, len), flags));
    // SAFETY: passed through.
    ours.unwrap_or_else(|| unsafe { real::recv(fd, buf, len, flags) })
}

/// `recv` as fortified programs call it.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __recv_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    size: size_t,
    flags: c_int,
) -> ssize_t {
    if len > size {
        overflow();
    }
    // SAFETY: the same call.
    unsafe { recv(fd, buf, len, flags) }
}

/// `recvfrom(2)`: a stream says no address.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> ssize_t {
    let ours = table::conn(fd).and_then(|conn| read_from(&conn, fd, &one(buf, len), flags));
    match ours {
        Some(done) => {
            // SAFETY: the program's length, or none.
            if let Some(len) = unsafe { addr_len.as_mut() } {
                *len = 0;
            }
            done
        }
        // SAFETY: passed through.
        None => unsafe { real::recvfrom(fd, buf, len, flags, addr, addr_len) },
    }
}

/// `recvfrom` as fortified programs call it.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    size: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> ssize_t {
    if len > size {
        overflow();
    }
    // SAFETY: the same call.
    unsafe { recvfrom(fd, buf, len, flags, addr, addr_len) }
}

/// `recvmsg(2)`: rings carry no ancillary data.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the program's message, or none.
    if let (Some(conn), Some(message)) = (table::conn(fd), unsafe { msg.as_mut() }) {
        // SAFETY: the program's list.
        match unsafe { parts(message.msg_iov, message.msg_iovlen) } {
            Ok(parts) => {
                if let Some(done) = read_from(&conn, fd, parts, flags) {
                    (
                        message.msg_namelen,
                        message.msg_controllen,
                        message.msg_flags,
                    ) = (0, 0, 0);
                    return done;
                }
            }
            Err(e) => return long(Err(e)),
        }
    }
    // SAFETY: passed through.
    unsafe { real::recvmsg(fd, msg, flags) }
}

/// `recvmmsg(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmmsg(
    fd: c_int,
    msgs: *mut mmsghdr,
    n: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    if table::conn(fd).is_none() || n == 0 {
        // SAFETY: passed through.
        return unsafe { real::recvmmsg(fd, msgs, n, flags, timeout) };
    }
    // One message is an answer that every caller understands, and of a stream as good as several.
    // SAFETY: the first of the program's messages.
    let got = unsafe { recvmsg(fd, &raw mut (*msgs).msg_hdr, flags & !libc::MSG_WAITFORONE) };
    if got < 0 {
        return -1;
    }
    // SAFETY: as above.
    unsafe { (*msgs).msg_len = got as c_uint };
    1
}

/// `write(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t {
    match table::conn(fd) {
        Some(conn) => write_to(&conn, fd, &one(buf, len), 0),
        // SAFETY: passed through.
        None => unsafe { real::write(fd, buf, len) },
    }
}

/// `writev(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t {
    match table::conn(fd) {
        // SAFETY: the program's list.
        Some(conn) => match unsafe { parts(iov, usize::try_from(n).unwrap_or(usize::MAX)) } {
            Ok(parts) => write_to(&conn, fd, parts, 0),
            Err(e) => long(Err(e)),
        },
        // SAFETY: passed through.
        None => unsafe { real::writev(fd, iov, n) },
    }
}

/// `send(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    match table::conn(fd) {
        Some(conn) => write_to(&conn, fd, &one(buf, len), flags),
        // SAFETY: passed through.
        None => unsafe { real::send(fd, buf, len, flags) },
    }
}

/// `sendto(2)`: a stream is connected, an address is refused as the kernel does.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendto(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    addr: *const sockaddr,
    addr_len: socklen_t,
) -> ssize_t {
    match table::conn(fd) {
        Some(_) if !addr.is_null() && addr_len > 0 => long(Err(Errno::ISCONN)),
        Some(conn) => write_to(&conn, fd, &one(buf, len), flags),
        // SAFETY: passed through.
        None => unsafe { real::sendto(fd, buf, len, flags, addr, addr_len) },
    }
}

/// Whether a message passes descriptors of the shim, and whether they can still be the sockets that the receiver expects.
unsafe fn passes_ours(message: &msghdr) -> Result<(), Errno> {
    // SAFETY: the program's message, whose ancillary data has the form that the macros of the C library walk.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: as above.
        let header = unsafe { &*next };
        if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: the data of this header.
            let data = unsafe { libc::CMSG_DATA(header) }.cast::<c_int>();
            // SAFETY: a computation.
            let count =
                (header.cmsg_len - unsafe { libc::CMSG_LEN(0) } as usize) / size_of::<c_int>();
            for at in 0..count {
                // SAFETY: one of `count` descriptors.
                let fd = unsafe { data.add(at).read_unaligned() };
                leave_to_socket(fd)?;
            }
        }
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    Ok(())
}

/// Something is about to use the descriptor that the shim does not see: the connection stays with the socket, or that is refused.
fn leave_to_socket(fd: c_int) -> Result<(), Errno> {
    match table::get(fd) {
        Some(table::Entry::Conn(conn)) if !conn.give_up() => Err(Errno::OPNOTSUPP),
        _ => Ok(()),
    }
}

/// `sendmsg(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the program's message, or none.
    if let Some(message) = unsafe { msg.as_ref() } {
        if !message.msg_control.is_null() && message.msg_controllen > 0 {
            // SAFETY: as above.
            let refused = leave_to_socket(fd).and_then(|()| unsafe { passes_ours(message) });
            if let Err(e) = refused {
                return long(Err(e));
            }
        } else if let Some(conn) = table::conn(fd) {
            // SAFETY: the program's list.
            return match unsafe { parts(message.msg_iov, message.msg_iovlen) } {
                Ok(parts) => write_to(&conn, fd, parts, flags),
                Err(e) => long(Err(e)),
            };
        }
    }
    // SAFETY: passed through.
    unsafe { real::sendmsg(fd, msg, flags) }
}

/// `sendmmsg(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmmsg(fd: c_int, msgs: *mut mmsghdr, n: c_uint, flags: c_int) -> c_int {
    if table::conn(fd).is_none() {
        // SAFETY: passed through.
        return unsafe { real::sendmmsg(fd, msgs, n, flags) };
    }
    let mut sent = 0;
    for at in 0..n.min(1024) {
        // SAFETY: one of the program's messages.
        let done = unsafe { sendmsg(fd, &raw const (*msgs.add(at as usize)).msg_hdr, flags) };
        if done < 0 {
            return if sent == 0 { -1 } else { sent };
        }
        // SAFETY: as above.
        unsafe { (*msgs.add(at as usize)).msg_len = done as c_uint };
        sent += 1;
    }
    sent
}

/// `sendfile(2)`: `EINVAL`, after which programs read and write.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendfile(
    to: c_int,
    from: c_int,
    offset: *mut off_t,
    len: size_t,
) -> ssize_t {
    if table::conn(to).is_some() || table::conn(from).is_some() {
        return long(Err(Errno::INVAL));
    }
    // SAFETY: passed through.
    unsafe { real::sendfile(to, from, offset, len) }
}

/// `sendfile64`, the same on x86-64.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendfile64(
    to: c_int,
    from: c_int,
    offset: *mut off_t,
    len: size_t,
) -> ssize_t {
    // SAFETY: the same call.
    unsafe { sendfile(to, from, offset, len) }
}

/// `splice(2)`: `EINVAL`, after which programs read and write.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn splice(
    from: c_int,
    at: *mut i64,
    to: c_int,
    to_at: *mut i64,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    if table::conn(to).is_some() || table::conn(from).is_some() {
        return long(Err(Errno::INVAL));
    }
    // SAFETY: passed through.
    unsafe { real::splice(from, at, to, to_at, len, flags) }
}

/// `fdopen(3)`: the C library's streams do not come through here.
///
/// # Safety
///
/// As the function's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdopen(fd: c_int, mode: *const c_char) -> *mut c_void {
    if let Err(e) = leave_to_socket(fd) {
        set_errno(e);
        return std::ptr::null_mut();
    }
    // SAFETY: passed through.
    unsafe { real::fdopen(fd, mode) }
}
