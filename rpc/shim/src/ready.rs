//! Whether a connection is ready, as `poll` and epoll see it.

use libc::{EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP};
use rustix::event::PollFlags;
use rustix::fd::BorrowedFd;

use crate::conn::{Conn, Source, kernel_events};

/// What a look has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Events of epoll, whose values are those of `poll`.
    pub events: u32,
    /// Bytes that have come in so far: more of them are a new edge.
    pub arrived: u64,
    /// How often there was no room so far: room after one more is a new edge.
    pub full: u64,
}

/// Whether system calls are worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Memory alone: what only the kernel knows is not ready.
    Memory,
    /// The kernel is asked where memory does not say.
    Kernel,
}

const IN: u32 = EPOLLIN as u32;
const OUT: u32 = EPOLLOUT as u32;
const GONE: u32 = (EPOLLIN | EPOLLRDHUP | EPOLLHUP) as u32;
const BROKEN: u32 = GONE | (EPOLLOUT | EPOLLERR) as u32;

/// Looks at a connection, for these events and those that always count.
#[inline]
pub fn look(conn: &Conn, fd: BorrowedFd<'_>, wanted: u32, effort: Effort) -> Ready {
    let mut ready = incoming(conn, fd, effort);
    if wanted & OUT != 0 || ready.events & GONE == GONE {
        outgoing(conn, fd, effort, &mut ready);
    }
    ready
}

fn incoming(conn: &Conn, fd: BorrowedFd<'_>, effort: Effort) -> Ready {
    let mut guard = conn.rx();
    let rx = &mut *guard;
    let mut ready = Ready::default();
    if rx.broken {
        ready.events = BROKEN;
        return ready;
    }
    conn.follow(rx);
    while rx.source != Source::Ring {
        if effort == Effort::Memory {
            return ready;
        }
        let before = rx.source;
        // Counted first: bytes that come in between are a new edge, and not one that was reported as no bytes.
        let there = rustix::io::ioctl_fionread(fd).unwrap_or(0);
        let said = kernel_events(fd, PollFlags::IN | PollFlags::RDHUP);
        conn.follow(rx);
        if rx.source != before {
            // What was counted may have been bells.
            continue;
        }
        let (most, tail) = match (rx.source, &mut rx.consumer) {
            // What comes behind the rest are bells; what the ring has comes on top.
            (Source::Rest(left), Some(consumer)) => (left, consumer.refresh().unwrap_or(0)),
            _ => (u64::MAX, 0),
        };
        ready.events = u32::from(said.bits());
        ready.arrived = (rx.from_socket + there.min(most)).wrapping_add(tail);
        return ready;
    }
    let Some(consumer) = &mut rx.consumer else {
        return ready;
    };
    let (Ok(tail), before) = (consumer.refresh(), rx.from_socket) else {
        rx.broken = true;
        ready.events = BROKEN;
        return ready;
    };
    ready.arrived = before.wrapping_add(tail);
    if tail != consumer.taken() {
        ready.events |= IN;
    }
    if rx.eof || rx.shut || conn.has_end() || conn.is_closed() {
        // Its other direction, too, if nobody reads there.
        ready.events |= if conn.is_gone() {
            GONE
        } else {
            GONE & !(EPOLLHUP as u32)
        };
    }
    ready
}

fn outgoing(conn: &Conn, fd: BorrowedFd<'_>, effort: Effort, ready: &mut Ready) {
    let mut guard = conn.tx();
    let tx = &mut *guard;
    ready.full = tx.full;
    conn.switch(tx);
    if !tx.switched {
        // A socket that has just begun has room; the kernel knows when it has none.
        if effort == Effort::Kernel && kernel_events(fd, PollFlags::OUT).contains(PollFlags::OUT) {
            ready.events |= OUT;
        }
        return;
    }
    let room = tx.producer.as_mut().is_none_or(|p| p.room() != Ok(0));
    if room || tx.broken || tx.shut || conn.is_gone() {
        ready.events |= OUT;
    }
}
