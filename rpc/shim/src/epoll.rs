//! epoll over connections of the shim and everything else.
//!
//! The program's epoll instance keeps what is not the shim's. Connections are in a second, *inner* one, which also holds the program's
//! instance: so one sleep waits for all of them. Inside, connections are edge-triggered for input only: a bell is an edge. What the
//! program asked for is in [`Watch`], and what it gets is decided here, from the rings.
//!
//! A look goes over all connections of the instance: this is for tens of connections for each thread, not for thousands.

use libc::{
    EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLRDHUP, c_int, epoll_event,
    sigset_t,
};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use vernal_ring::Step;

use crate::conn::Conn;
use crate::greet::move_away;
use crate::lock::{Lock, Locked};
use crate::ready::{Effort, look};
use crate::stream::{backoff, keep_backoff, last_error};
use crate::{real, table};

/// What the inner instance says of the program's own.
const OUTER: u64 = u64::MAX;
/// Waits that found something without the kernel, before it is asked for the other descriptors: none may starve.
const FAIR: u32 = 32;
/// What the inner instance hears of a connection.
const BELLS: EventFlags = EventFlags::IN
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);
/// Looks between two questions to the kernel while nothing is there.
const LOOKS: u32 = 256;
/// Events that one question takes from the inner instance.
const HEARD: usize = 64;

/// One connection of an instance.
#[derive(Debug)]
struct Watch {
    fd: RawFd,
    conn: Arc<Conn>,
    events: u32,
    data: u64,
    /// A one-shot that was reported.
    spent: bool,
    /// What was reported last, for edges.
    arrived: Option<u64>,
    full: Option<u64>,
    ended: u32,
    /// The kernel says when the socket has room: as long as the outgoing direction has not gone over.
    kernel_room: bool,
}

/// An instance with connections of the shim.
#[derive(Debug)]
pub struct Epoll {
    outer: RawFd,
    inner: OwnedFd,
    watches: Locked<Vec<Watch>>,
    quick: AtomicU32,
}

fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: used for one system call, which says so if the program has closed it meanwhile.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

impl Epoll {
    /// Beside the program's instance.
    pub fn new(outer: RawFd) -> Result<Epoll, Errno> {
        let inner = move_away(epoll::create(CreateFlags::CLOEXEC)?)?;
        let data = EventData::new_u64(OUTER);
        epoll::add(&inner, borrow(outer), data, EventFlags::IN)?;
        Ok(Epoll {
            outer,
            inner,
            watches: Locked::new(Vec::new()),
            quick: AtomicU32::new(0),
        })
    }

    /// The lock of the list, for `fork`.
    pub fn lock(&self) -> &Lock {
        self.watches.raw()
    }

    /// `epoll_ctl` of a connection.
    pub fn control(
        &self,
        op: c_int,
        fd: RawFd,
        conn: &Arc<Conn>,
        event: Option<epoll_event>,
    ) -> Result<(), Errno> {
        let mut watches = self.watches.lock();
        let at = watches.iter().position(|w| w.fd == fd);
        match (op, at, event) {
            (libc::EPOLL_CTL_ADD, None, Some(event)) => {
                let data = EventData::new_u64(fd as u64);
                epoll::add(&self.inner, borrow(fd), data, BELLS)?;
                watches.push(Watch {
                    fd,
                    conn: Arc::clone(conn),
                    events: event.events,
                    data: event.u64,
                    spent: false,
                    arrived: None,
                    full: None,
                    ended: 0,
                    kernel_room: false,
                });
                Ok(())
            }
            (libc::EPOLL_CTL_ADD, Some(_), Some(_)) => Err(Errno::EXIST),
            (libc::EPOLL_CTL_MOD, Some(at), Some(event)) => {
                if let Some(watch) = watches.get_mut(at) {
                    // What is ready now is an edge again.
                    (watch.events, watch.data, watch.spent) = (event.events, event.u64, false);
                    (watch.arrived, watch.full, watch.ended) = (None, None, 0);
                }
                Ok(())
            }
            (libc::EPOLL_CTL_DEL, Some(at), _) => {
                watches.swap_remove(at);
                // The kernel forgets descriptors that were closed by itself.
                let _ = epoll::delete(&self.inner, borrow(fd));
                Ok(())
            }
            (libc::EPOLL_CTL_ADD | libc::EPOLL_CTL_MOD, _, None) => Err(Errno::FAULT),
            (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, None, _) => Err(Errno::NOENT),
            _ => Err(Errno::INVAL),
        }
    }

    /// The program has closed the descriptor.
    pub fn forget(&self, fd: RawFd) {
        let gone: Vec<Watch> = self.watches.lock().extract_if(.., |w| w.fd == fd).collect();
        if !gone.is_empty() {
            let _ = epoll::delete(&self.inner, borrow(fd));
        }
    }

    /// Before the program changes something in its own instance.
    pub fn refresh(&self) {
        let mut watches = self.watches.lock();
        self.hand_back(&mut watches);
    }

    /// Connections that stay with their sockets go back to the program's instance.
    fn hand_back(&self, watches: &mut Vec<Watch>) {
        let gone: Vec<Watch> = watches.extract_if(.., |w| w.conn.is_socket()).collect();
        for watch in gone {
            let _ = epoll::delete(&self.inner, borrow(watch.fd));
            // A spent one waits for its next order, and must be there then.
            let events = if watch.spent {
                EPOLLONESHOT as u32
            } else {
                watch.events
            };
            let mut event = epoll_event {
                events,
                u64: watch.data,
            };
            // SAFETY: an event of this stack.
            unsafe { real::epoll_ctl(self.outer, libc::EPOLL_CTL_ADD, watch.fd, &mut event) };
        }
    }

    /// Reports what is ready.
    fn report(&self, out: &mut Vec<epoll_event>, max: usize, effort: Effort) {
        let mut watches = self.watches.lock();
        if effort == Effort::Kernel && watches.iter().any(|w| !w.conn.is_live()) {
            watches.iter().for_each(|w| drop(table::conn(w.fd)));
            self.hand_back(&mut watches);
        }
        let n = watches.len();
        for watch in watches.iter_mut().filter(|w| !w.spent) {
            if out.len() >= max {
                break;
            }
            if let Some(event) = watch.take(effort) {
                out.push(event);
            }
        }
        // Who comes last is first in the next call, or nobody behind a full answer would ever be heard.
        if out.len() >= max && n > 1 {
            watches.rotate_left(max.min(n - 1));
        }
    }

    /// Before sleeping: lets the kernel tell of room in sockets whose direction has not gone over, and of no others, where each bell
    /// that the peer takes would be news.
    fn hear_of_room(&self) {
        for watch in self.watches.lock().iter_mut().filter(|w| !w.spent) {
            let wanted = watch.events & EPOLLOUT as u32 != 0;
            let edge = watch.events & EPOLLET as u32 != 0;
            let full = if wanted {
                watch.conn.socket_room()
            } else {
                None
            };
            // Each order asks anew whether there is room already.
            let hear = full.is_some() && !(edge && full == watch.full);
            if hear || (watch.kernel_room && full.is_none()) {
                watch.kernel_room = hear;
                let flags = if hear { BELLS | EventFlags::OUT } else { BELLS };
                // A descriptor that was closed has nothing to say.
                let _ = epoll::modify(
                    &self.inner,
                    borrow(watch.fd),
                    EventData::new_u64(watch.fd as u64),
                    flags,
                );
            }
        }
    }

    /// Announces a sleep to all peers; who was told has to be told again that it is over, whatever the list is then.
    fn arm(&self) -> Vec<(Arc<Conn>, bool)> {
        let watches = self.watches.lock();
        let awake = watches.iter().filter(|w| !w.spent);
        let armed = awake.map(|watch| {
            let room = watch.events & EPOLLOUT as u32 != 0;
            watch.conn.arm(borrow(watch.fd), true, room);
            (Arc::clone(&watch.conn), room)
        });
        armed.collect()
    }

    /// Asks the kernel, and waits there for `timeout` milliseconds (-1: for ever). Adds what is not the shim's.
    fn kernel(
        &self,
        out: &mut Vec<epoll_event>,
        max: usize,
        timeout: c_int,
        mask: *const sigset_t,
    ) -> Result<(), Errno> {
        let mut heard = [epoll_event { events: 0, u64: 0 }; HEARD];
        let n = wait_real(
            rustix::fd::AsRawFd::as_raw_fd(&self.inner),
            &mut heard,
            timeout,
            mask,
        )?;
        for event in heard.iter().take(n) {
            let (events, data) = (event.events, event.u64);
            if data == OUTER {
                let mut others = vec![epoll_event { events: 0, u64: 0 }; max - out.len().min(max)];
                if !others.is_empty() {
                    let n = wait_real(self.outer, &mut others, 0, std::ptr::null())?;
                    out.extend(others.into_iter().take(n));
                }
            } else {
                let conn = {
                    let watches = self.watches.lock();
                    let watch = watches.iter().find(|w| w.fd as u64 == data);
                    watch.map(|w| Arc::clone(&w.conn))
                };
                let ended = events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR) as u32 != 0;
                if let Some(conn) = conn {
                    conn.heard(borrow(data as RawFd), ended);
                }
            }
        }
        Ok(())
    }

    /// `epoll_wait` and its family.
    pub fn wait(
        &self,
        max: usize,
        timeout: Option<Duration>,
        mask: *const sigset_t,
    ) -> Result<Vec<epoll_event>, Errno> {
        let deadline = timeout.map(|t| Instant::now() + t);
        let mut out = Vec::with_capacity(max.min(64));
        let mut effort = Effort::Kernel;
        let mut backoff = backoff();
        let mut waiting = backoff.begin(deadline);
        let mut looks = 0_u32;
        let result = loop {
            self.report(&mut out, max, effort);
            effort = Effort::Memory;
            if !out.is_empty() {
                if self.quick.fetch_add(1, Ordering::Relaxed) % FAIR == FAIR - 1 {
                    // What it cannot say now it says next time.
                    let _ = self.kernel(&mut out, max, 0, mask);
                }
                break Ok(());
            }
            let step = if timeout == Some(Duration::ZERO) {
                Step::Sleep
            } else {
                backoff.step(&mut waiting)
            };
            looks += 1;
            let asked = match step {
                Step::Look if !looks.is_multiple_of(LOOKS) => continue,
                Step::Look | Step::Check => self.kernel(&mut out, max, 0, mask),
                Step::Sleep => self.sleep(&mut out, max, deadline, mask),
            };
            if asked.is_err() || !out.is_empty() {
                break asked;
            }
            effort = Effort::Kernel;
            if deadline.is_some_and(|d| d <= Instant::now()) {
                self.report(&mut out, max, effort);
                break Ok(());
            }
        };
        backoff.end(waiting);
        keep_backoff(backoff);
        match result {
            Err(e) if out.is_empty() => Err(e),
            _ => Ok(out),
        }
    }

    fn sleep(
        &self,
        out: &mut Vec<epoll_event>,
        max: usize,
        deadline: Option<Instant>,
        mask: *const sigset_t,
    ) -> Result<(), Errno> {
        let armed = self.arm();
        self.report(out, max, Effort::Kernel);
        self.hear_of_room();
        let timeout = match (out.is_empty(), deadline) {
            (false, _) => 0,
            (true, None) => -1,
            (true, Some(d)) => milliseconds(d.saturating_duration_since(Instant::now())),
        };
        let slept = if out.is_empty() {
            self.kernel(out, max, timeout, mask)
        } else {
            Ok(())
        };
        armed
            .iter()
            .for_each(|(conn, room)| conn.disarm(true, *room));
        slept
    }
}

/// Rounded up: who waits for a millisecond must not be told that it is over before.
pub fn milliseconds(time: Duration) -> c_int {
    time.as_micros()
        .div_ceil(1000)
        .try_into()
        .unwrap_or(c_int::MAX)
}

fn wait_real(
    ep: RawFd,
    events: &mut [epoll_event],
    timeout: c_int,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    let max = events.len() as c_int;
    let size = size_of::<u64>();
    // SAFETY: the slice's memory; the program's mask or none.
    let n = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait,
            ep,
            events.as_mut_ptr(),
            max,
            timeout,
            mask,
            size,
        )
    };
    usize::try_from(n).map_err(|_| last_error())
}

impl Watch {
    /// The event to report, if there is one.
    #[inline]
    fn take(&mut self, effort: Effort) -> Option<epoll_event> {
        let ready = look(&self.conn, borrow(self.fd), self.events, effort);
        let wanted = self.events | (EPOLLERR | EPOLLHUP) as u32;
        let mut events = ready.events & wanted;
        if events == 0 {
            return None;
        }
        if self.events & EPOLLET as u32 != 0 {
            let ends = ready.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) as u32;
            // More bytes, room after there was none, or a new end.
            let more = events & EPOLLIN as u32 != 0 && self.arrived != Some(ready.arrived);
            let news = more || ends & !self.ended != 0;
            let room = self.full != Some(ready.full);
            let incoming = (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR) as u32;
            events &= if news { incoming } else { 0 } | if room { EPOLLOUT as u32 } else { 0 };
            if events == 0 {
                return None;
            }
            if news {
                (self.arrived, self.ended) = (Some(ready.arrived), self.ended | ends);
            }
            if events & EPOLLOUT as u32 != 0 {
                self.full = Some(ready.full);
            }
        }
        self.spent = self.events & EPOLLONESHOT as u32 != 0;
        Some(epoll_event {
            events,
            u64: self.data,
        })
    }
}

/// The instance beside the program's `ep`, made if there is none yet.
pub fn of(ep: RawFd) -> Result<Arc<Epoll>, Errno> {
    match table::get(ep) {
        Some(table::Entry::Epoll(epoll)) => Ok(epoll),
        Some(_) => Err(Errno::INVAL),
        None => {
            let epoll = Arc::new(Epoll::new(ep)?);
            table::insert_internal(&epoll.inner);
            table::insert(ep, table::Entry::Epoll(Arc::clone(&epoll)));
            Ok(epoll)
        }
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        table::remove_internal(self.inner.as_fd());
    }
}
