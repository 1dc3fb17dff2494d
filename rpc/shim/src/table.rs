//! Which descriptors are the shim's, and what they are.

use rustix::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use crate::conn::Conn;
use crate::epoll::Epoll;
use crate::greet::Listener;
use crate::lock::{Lock, Locked};

/// Descriptors from here on are never the shim's.
const MAX: usize = 1 << 16;

/// What a descriptor is.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A connection.
    Conn(Arc<Conn>),
    /// A socket that clients with a shim connect to.
    Listener(Arc<Listener>),
    /// The program's epoll instance, with connections beside it.
    Epoll(Arc<Epoll>),
    /// The shim's own: the program must not have it.
    Internal,
}

/// Whether a descriptor has an entry: looked at by every call, also inside signal handlers.
static USED: [AtomicU8; MAX] = [const { AtomicU8::new(0) }; MAX];
static SLOTS: [Locked<Option<Entry>>; MAX] = [const { Locked::new(None) }; MAX];
/// No entry from here on.
static TOP: AtomicUsize = AtomicUsize::new(0);
/// Held while entries come and go: `fork` waits for that.
static CHANGES: Lock = Lock::new();

/// Descriptors that are not connections, and that an instance of epoll watches.
static WATCHED: [AtomicU8; MAX] = [const { AtomicU8::new(0) }; MAX];

/// Whether an instance of epoll watches the descriptor.
pub fn is_watched(fd: RawFd) -> bool {
    let at = usize::try_from(fd).ok();
    at.and_then(|at| WATCHED.get(at))
        .is_some_and(|w| w.load(Ordering::Relaxed) != 0)
}

/// Notes that, or that it is over.
pub fn set_watched(fd: RawFd, on: bool) {
    if let Some(watched) = usize::try_from(fd).ok().and_then(|at| WATCHED.get(at)) {
        watched.store(u8::from(on), Ordering::Relaxed);
    }
}

/// Nobody adds or removes entries while it is held.
pub fn changes() -> &'static Lock {
    &CHANGES
}

#[inline]
fn used(fd: RawFd) -> Option<usize> {
    let at = usize::try_from(fd).ok()?;
    let used = USED.get(at)?.load(Ordering::Acquire);
    (used != 0).then_some(at)
}

/// What the descriptor is.
#[inline]
pub fn get(fd: RawFd) -> Option<Entry> {
    SLOTS.get(used(fd)?)?.lock().clone()
}

/// The connection behind the descriptor, greeted as far as possible; `None` when the kernel has it all.
#[inline]
pub fn conn(fd: RawFd) -> Option<Arc<Conn>> {
    let at = used(fd)?;
    let conn = match &*SLOTS.get(at)?.lock() {
        Some(Entry::Conn(conn)) => Arc::clone(conn),
        _ => return None,
    };
    if !conn.settle() {
        // It stays with the socket. Instances of epoll notice by themselves.
        drop(take(fd));
        return None;
    }
    if conn.is_live() && conn.must_mark() {
        close_on_exec(&conn);
    }
    Some(conn)
}

/// A program that is started by `exec` has no shim state: it must not take bells for bytes, and finds the descriptor closed.
fn close_on_exec(conn: &Arc<Conn>) {
    for fd in all() {
        if let Some(Entry::Conn(other)) = get(fd)
            && Arc::ptr_eq(&other, conn)
        {
            set_close_on_exec(fd);
        }
    }
}

/// See [`close_on_exec`]; for new descriptors of a connection.
pub fn set_close_on_exec(fd: RawFd) {
    // SAFETY: a flag of the program's descriptor; nothing is read or written.
    unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Enters a descriptor. False: it is too high.
pub fn insert(fd: RawFd, entry: Entry) -> bool {
    let Some((at, slot)) = usize::try_from(fd)
        .ok()
        .and_then(|at| Some((at, SLOTS.get(at)?)))
    else {
        return false;
    };
    CHANGES.lock();
    let old = slot.lock().replace(entry);
    USED[at].store(1, Ordering::Release);
    TOP.fetch_max(at + 1, Ordering::Relaxed);
    CHANGES.unlock();
    drop(old);
    true
}

/// Takes the entry of a descriptor away.
pub fn take(fd: RawFd) -> Option<Entry> {
    let at = used(fd)?;
    CHANGES.lock();
    let old = SLOTS.get(at)?.lock().take();
    USED[at].store(0, Ordering::Release);
    CHANGES.unlock();
    old
}

/// A descriptor that the shim keeps for itself.
pub fn insert_internal(fd: impl AsFd) {
    insert(fd.as_fd().as_raw_fd(), Entry::Internal);
}

/// It is about to be closed.
pub fn remove_internal(fd: impl AsFd) {
    take(fd.as_fd().as_raw_fd());
}

/// The descriptors with entries.
pub fn all() -> impl Iterator<Item = RawFd> {
    let top = TOP.load(Ordering::Relaxed).min(MAX);
    (0..top as RawFd).filter(|&fd| used(fd).is_some())
}

/// The lock of a descriptor's entry, for `fork`.
pub fn slot_lock(fd: RawFd) -> Option<&'static Lock> {
    Some(SLOTS.get(used(fd)?)?.raw())
}
