//! Waiting for several descriptors.

use libc::{c_int, c_void, epoll_event, fd_set, nfds_t, pollfd, sigset_t, timespec, timeval};
use rustix::io::Errno;
use std::time::Duration;

use super::int;
use crate::poll::{self, timeout};
use crate::table::{self, Entry};
use crate::{epoll, real};

fn duration(time: &timespec) -> Duration {
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        nanoseconds.min(999_999_999),
    )
}

unsafe fn list<'a>(fds: *mut pollfd, n: nfds_t) -> Option<&'a mut [pollfd]> {
    let n = usize::try_from(n)
        .ok()
        .filter(|n| (1..=1 << 20).contains(n))?;
    // SAFETY: the program's list of `n` descriptors.
    (!fds.is_null()).then(|| unsafe { std::slice::from_raw_parts_mut(fds, n) })
}

/// `poll(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
#[allow(clippy::similar_names)]
pub unsafe extern "C" fn poll(fds: *mut pollfd, n: nfds_t, milliseconds: c_int) -> c_int {
    // SAFETY: the program's list.
    let ours = unsafe { list(fds, n) }
        .and_then(|l| poll::poll(l, timeout(milliseconds), std::ptr::null()));
    // SAFETY: passed through.
    ours.map_or_else(|| unsafe { real::poll(fds, n, milliseconds) }, int)
}

/// `poll` as fortified programs call it.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __poll_chk(
    fds: *mut pollfd,
    n: nfds_t,
    milliseconds: c_int,
    size: usize,
) -> c_int {
    if size / size_of::<pollfd>() < n as usize {
        std::process::abort();
    }
    // SAFETY: the same call.
    unsafe { poll(fds, n, milliseconds) }
}

/// `ppoll(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    n: nfds_t,
    time: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's time, or none.
    let limit = unsafe { time.as_ref() }.map(duration);
    // SAFETY: the program's list.
    let ours = unsafe { list(fds, n) }.and_then(|l| poll::poll(l, limit, mask));
    // SAFETY: passed through.
    ours.map_or_else(|| unsafe { real::ppoll(fds, n, time, mask) }, int)
}

/// `ppoll` as fortified programs call it.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __ppoll_chk(
    fds: *mut pollfd,
    n: nfds_t,
    time: *const timespec,
    mask: *const sigset_t,
    size: usize,
) -> c_int {
    if size / size_of::<pollfd>() < n as usize {
        std::process::abort();
    }
    // SAFETY: the same call.
    unsafe { ppoll(fds, n, time, mask) }
}

/// `select` as a list of `poll`: the descriptors of three sets.
struct Sets {
    sets: [*mut fd_set; 3],
    fds: Vec<pollfd>,
}

const WANTED: [i16; 3] = [libc::POLLIN, libc::POLLOUT, libc::POLLPRI];
/// Of what `poll` says, what each set means.
const MEANT: [i16; 3] = [
    libc::POLLIN | libc::POLLHUP | libc::POLLERR,
    libc::POLLOUT | libc::POLLERR,
    libc::POLLPRI,
];

impl Sets {
    /// `None`: no descriptor is the shim's.
    unsafe fn new(n: c_int, sets: [*mut fd_set; 3]) -> Option<Sets> {
        let mut fds = Vec::new();
        for fd in 0..n.clamp(0, libc::FD_SETSIZE as c_int) {
            let mut events = 0;
            for (set, wanted) in sets.iter().zip(WANTED) {
                // SAFETY: the program's set, or none.
                if !set.is_null() && unsafe { libc::FD_ISSET(fd, *set) } {
                    events |= wanted;
                }
            }
            if events != 0 {
                fds.push(pollfd {
                    fd,
                    events,
                    revents: 0,
                });
            }
        }
        fds.iter()
            .any(|p| table::conn(p.fd).is_some())
            .then_some(Sets { sets, fds })
    }

    unsafe fn wait(mut self, limit: Option<Duration>, mask: *const sigset_t) -> c_int {
        match poll::poll(&mut self.fds, limit, mask) {
            None => int(Err(Errno::AGAIN)),
            Some(Err(e)) => int(Err(e)),
            Some(Ok(_)) if self.fds.iter().any(|p| p.revents & libc::POLLNVAL != 0) => {
                int(Err(Errno::BADF))
            }
            Some(Ok(_)) => {
                let mut found = 0;
                for (set, (wanted, meant)) in self.sets.iter().zip(WANTED.into_iter().zip(MEANT)) {
                    if set.is_null() {
                        continue;
                    }
                    // SAFETY: the program's set.
                    unsafe { libc::FD_ZERO(*set) };
                    for p in self
                        .fds
                        .iter()
                        .filter(|p| p.events & wanted != 0 && p.revents & meant != 0)
                    {
                        // SAFETY: as above.
                        unsafe { libc::FD_SET(p.fd, *set) };
                        found += 1;
                    }
                }
                int(Ok(found))
            }
        }
    }
}

/// `select(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn select(
    n: c_int,
    r: *mut fd_set,
    w: *mut fd_set,
    e: *mut fd_set,
    time: *mut timeval,
) -> c_int {
    // SAFETY: the program's sets.
    if let Some(sets) = unsafe { Sets::new(n, [r, w, e]) } {
        // SAFETY: the program's time, or none.
        let limit = unsafe { time.as_ref() }.map(|t| {
            let micros = Duration::from_micros(u64::try_from(t.tv_usec).unwrap_or(0));
            Duration::from_secs(u64::try_from(t.tv_sec).unwrap_or(0)) + micros
        });
        // SAFETY: as above.
        return unsafe { sets.wait(limit, std::ptr::null()) };
    }
    // SAFETY: passed through.
    unsafe { real::select(n, r, w, e, time) }
}

/// `pselect(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pselect(
    n: c_int,
    r: *mut fd_set,
    w: *mut fd_set,
    e: *mut fd_set,
    time: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's sets.
    if let Some(sets) = unsafe { Sets::new(n, [r, w, e]) } {
        // SAFETY: the program's time, or none.
        let limit = unsafe { time.as_ref() }.map(duration);
        // SAFETY: as above.
        return unsafe { sets.wait(limit, mask) };
    }
    // SAFETY: passed through.
    unsafe { real::pselect(n, r, w, e, time, mask) }
}

/// `epoll_ctl(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_ctl(
    ep: c_int,
    op: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    match table::get(fd) {
        // Whoever watches the instance would not hear of its connections.
        Some(Entry::Epoll(_)) if op == libc::EPOLL_CTL_ADD => return int(Err(Errno::OPNOTSUPP)),
        Some(Entry::Conn(conn)) if table::is_watched(ep) && !conn.give_up() => {
            return int(Err(Errno::OPNOTSUPP));
        }
        _ => {}
    }
    if let Some(conn) = table::conn(fd) {
        // SAFETY: the program's event, or none; it may lie anywhere.
        let event = (!event.is_null()).then(|| unsafe { event.read_unaligned() });
        return int(epoll::of(ep)
            .and_then(|epoll| epoll.control(op, fd, &conn, event))
            .map(|()| 0));
    }
    if let Some(Entry::Epoll(epoll)) = table::get(ep) {
        // It may have been a connection of the shim when it came.
        epoll.refresh();
    }
    // SAFETY: passed through.
    let done = unsafe { real::epoll_ctl(ep, op, fd, event) };
    if done == 0 && op != libc::EPOLL_CTL_MOD {
        table::set_watched(fd, op == libc::EPOLL_CTL_ADD);
    }
    done
}

unsafe fn wait(
    ep: c_int,
    events: *mut epoll_event,
    n: c_int,
    limit: Option<Duration>,
    mask: *const sigset_t,
) -> Option<c_int> {
    let Some(Entry::Epoll(epoll)) = table::get(ep) else {
        return None;
    };
    let max = usize::try_from(n).ok().filter(|&max| max > 0)?;
    Some(int(epoll.wait(max, limit, mask).map(|found| {
        for (at, event) in found.iter().take(max).enumerate() {
            // SAFETY: the program's list has room for `n`; it may lie anywhere.
            unsafe { events.add(at).write_unaligned(*event) };
        }
        found.len()
    })))
}

/// `epoll_wait(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    ep: c_int,
    events: *mut epoll_event,
    n: c_int,
    milliseconds: c_int,
) -> c_int {
    // SAFETY: the same call.
    unsafe { epoll_pwait(ep, events, n, milliseconds, std::ptr::null()) }
}

/// `epoll_pwait(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_pwait(
    ep: c_int,
    events: *mut epoll_event,
    n: c_int,
    milliseconds: c_int,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's list.
    let ours = unsafe { wait(ep, events, n, timeout(milliseconds), mask) };
    // SAFETY: passed through.
    ours.unwrap_or_else(|| unsafe { real::epoll_pwait(ep, events, n, milliseconds, mask) })
}

/// `epoll_pwait2(2)`.
///
/// # Safety
///
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_pwait2(
    ep: c_int,
    events: *mut epoll_event,
    n: c_int,
    time: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's time, or none.
    let limit = unsafe { time.as_ref() }.map(duration);
    // SAFETY: the program's list.
    let ours = unsafe { wait(ep, events, n, limit, mask) };
    ours.unwrap_or_else(|| {
        let size = size_of::<u64>();
        let mask = mask.cast::<c_void>();
        // SAFETY: passed through; the C library of a stock system may not have it.
        unsafe { libc::syscall(libc::SYS_epoll_pwait2, ep, events, n, time, mask, size) as c_int }
    })
}
