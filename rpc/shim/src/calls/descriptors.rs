//! Descriptors are copied, changed and closed.

use libc::{c_int, c_uint, c_ulong, c_void};
use rustix::io::Errno;

use super::{borrow, int, set_errno};
use crate::table::{self, Entry};
use crate::{lock, real, stream};

/// Forgets a descriptor that is about to be closed. False: it is the shim's own, and the program does not have it.
fn forget(fd: c_int) -> bool {
    table::set_watched(fd, false);
    match table::get(fd) {
        None => return true,
        Some(Entry::Internal) => return false,
        Some(_) if lock::in_vfork_child() => return true,
        Some(Entry::Conn(_)) => {
            for ep in table::all() {
                if let Some(Entry::Epoll(epoll)) = table::get(ep) {
                    epoll.forget(fd);
                }
            }
        }
        Some(_) => {}
    }
    if let Some(Entry::Conn(conn)) = table::take(fd) {
        conn.drop_descriptor();
    }
    true
}

/// `new` is now what `old` is.
fn copied(old: c_int, new: c_int) -> c_int {
    if new < 0 || new == old || lock::in_vfork_child() {
        return new;
    }
    match table::get(old) {
        Some(Entry::Conn(conn)) => {
            conn.add_descriptors(1);
            if conn.is_live() {
                table::set_close_on_exec(new);
            }
            if !table::insert(new, Entry::Conn(std::sync::Arc::clone(&conn))) {
                conn.drop_descriptor();
            }
        }
        Some(entry @ (Entry::Listener(_) | Entry::Epoll(_))) => {
            table::insert(new, entry);
        }
        Some(Entry::Internal) | None => {}
    }
    new
}

/// `close(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    if !forget(fd) {
        return int(Err(Errno::BADF));
    }
    // SAFETY: passed through.
    unsafe { real::close(fd) }
}

/// `close_range(2)`: without the shim's own.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let inside = |fd: &c_int| (first..=last).contains(&(*fd as c_uint));
    // Only marked: they are closed by exec.
    let marks = flags & libc::CLOSE_RANGE_CLOEXEC as c_int != 0;
    let kept: Vec<c_int> = table::all()
        .filter(inside)
        .filter(|&fd| !marks && !forget(fd))
        .collect();
    let mut from = first;
    for fd in kept {
        let fd = fd as c_uint;
        if from < fd {
            // SAFETY: passed through, up to one of the shim's own.
            let done = unsafe { real::close_range(from, fd - 1, flags) };
            if done != 0 {
                return done;
            }
        }
        from = fd + 1;
    }
    if from > last {
        return if first > last {
            int(Err(Errno::INVAL))
        } else {
            0
        };
    }
    // SAFETY: passed through.
    unsafe { real::close_range(from, last, flags) }
}

/// `closefrom(3)`.
///
/// # Safety
///
/// As the function's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn closefrom(first: c_int) {
    // SAFETY: the same call.
    unsafe { close_range(first.max(0) as c_uint, c_uint::MAX, 0) };
}

/// `dup(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup(fd: c_int) -> c_int {
    // SAFETY: passed through.
    copied(fd, unsafe { real::dup(fd) })
}

/// `dup2(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup2(fd: c_int, to: c_int) -> c_int {
    if fd != to && !forget(to) {
        return int(Err(Errno::BUSY));
    }
    // SAFETY: passed through.
    copied(fd, unsafe { real::dup2(fd, to) })
}

/// `dup3(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    if fd != to && !forget(to) {
        return int(Err(Errno::BUSY));
    }
    // SAFETY: passed through.
    copied(fd, unsafe { real::dup3(fd, to, flags) })
}

/// `fcntl(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: c_int, cmd: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: passed through.
    let done = unsafe { real::fcntl(fd, cmd, arg) };
    if done < 0 {
        return done;
    }
    match cmd {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => return copied(fd, done),
        libc::F_SETFL => {
            if let Some(Entry::Conn(conn)) = table::get(fd) {
                conn.set_nonblocking(arg as c_int & libc::O_NONBLOCK != 0);
            }
        }
        libc::F_SETFD => {
            if let Some(Entry::Conn(conn)) = table::get(fd)
                && conn.is_live()
            {
                table::set_close_on_exec(fd);
            }
        }
        _ => {}
    }
    done
}

/// `fcntl` as programs with large files call it.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl64(fd: c_int, cmd: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: the same call.
    unsafe { fcntl(fd, cmd, arg) }
}

/// `ioctl(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, arg: *mut c_void) -> c_int {
    match request {
        libc::FIONREAD => {
            // SAFETY: the program's number, or none.
            let out = unsafe { arg.cast::<c_int>().as_mut() };
            if let (Some(conn), Some(out)) = (table::conn(fd), out) {
                *out = stream::available(&conn, borrow(fd))
                    .try_into()
                    .unwrap_or(c_int::MAX);
                return 0;
            }
        }
        libc::FIONBIO => {
            // SAFETY: as above.
            let on = unsafe { arg.cast::<c_int>().as_ref() };
            if let (Some(Entry::Conn(conn)), Some(on)) = (table::get(fd), on) {
                conn.set_nonblocking(*on != 0);
            }
        }
        _ => {}
    }
    if matches!(table::get(fd), Some(Entry::Internal)) {
        set_errno(Errno::BADF);
        return -1;
    }
    // SAFETY: passed through.
    unsafe { real::ioctl(fd, request, arg) }
}
