//! `fork`: parent and child share the connections, as they would share the sockets.
//!
//! What they share lies in shared memory. What they do not share must not be copied half changed: all its locks are taken before, and
//! given back on both sides. Connections whose greetings are not over stay with their sockets, because only one of both would hear the
//! answer. A child of `vfork` runs in its parent's memory until it calls `exec`: calls that would change the table are left to the kernel
//! alone there.

use rustix::fd::RawFd;
use std::cell::RefCell;

use crate::lock::{self, Lock};
use crate::table::{self, Entry};

thread_local! {
    static HELD: RefCell<Vec<(RawFd, Option<Entry>)>> = const { RefCell::new(Vec::new()) };
}

/// The locks inside an entry.
fn inner(entry: &Entry) -> Option<&Lock> {
    match entry {
        Entry::Conn(conn) => Some(conn.side_lock()),
        Entry::Listener(listener) => Some(listener.lock()),
        Entry::Epoll(epoll) => Some(epoll.lock()),
        Entry::Internal => None,
    }
}

/// Several descriptors can have one entry, whose lock is taken once.
fn same(a: &Entry, b: &Entry) -> bool {
    match (inner(a), inner(b)) {
        (Some(a), Some(b)) => std::ptr::eq(a, b),
        _ => false,
    }
}

extern "C" fn prepare() {
    let mut held: Vec<(RawFd, Option<Entry>)> = Vec::new();
    for fd in table::all() {
        let Some(entry) = table::get(fd) else {
            continue;
        };
        if let Entry::Conn(conn) = &entry {
            conn.before_fork();
            // Counted before there are two: the first to close is not the last.
            conn.add_descriptors(1);
        }
        let known = held
            .iter()
            .any(|(_, other)| other.as_ref().is_some_and(|o| same(o, &entry)));
        held.push((fd, (!known).then_some(entry)));
    }
    // As everywhere: lists of epoll before connections, what is inside an entry before the table, the table before its slots.
    held.sort_by_key(|(_, entry)| !matches!(entry, Some(Entry::Epoll(_))));
    for (_, entry) in &held {
        if let Some(lock) = entry.as_ref().and_then(inner) {
            lock.lock();
        }
    }
    table::changes().lock();
    held.retain(|(fd, _)| match table::slot_lock(*fd) {
        Some(lock) => {
            lock.lock();
            true
        }
        None => true,
    });
    HELD.set(held);
}

fn release() {
    let held = HELD.take();
    for (fd, _) in &held {
        if let Some(lock) = table::slot_lock(*fd) {
            lock.unlock();
        }
    }
    table::changes().unlock();
    for (_, entry) in &held {
        if let Some(lock) = entry.as_ref().and_then(inner) {
            lock.unlock();
        }
    }
}

extern "C" fn parent() {
    release();
}

extern "C" fn child() {
    lock::note_process();
    release();
}

extern "C" fn load() {
    lock::note_process();
    // SAFETY: three functions of this library, which is never unloaded.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}

#[used]
#[unsafe(link_section = ".init_array")]
static LOAD: extern "C" fn() = load;
