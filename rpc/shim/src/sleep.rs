//! Sleeping on a connection: announcing it to the peer, and several threads with one socket to sleep in.

use rustix::event::Timespec;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::thread::futex;
use std::sync::atomic::Ordering;
use vernal_ring::Sleeper;

use crate::conn::{Conn, Memory, Rx};
use crate::lock::{alive, process};

/// How a thread has to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// In the socket.
    Leader,
    /// In [`Conn::await_turn`].
    Follower,
    /// Not at all: a bell was taken since it looked.
    Look,
}

impl Conn {
    /// Announces that a thread is about to sleep until there are bytes, or room. The caller looks once more then.
    pub fn arm(&self, fd: BorrowedFd<'_>, bytes: bool, room: bool) {
        if bytes {
            let mut guard = self.rx();
            let rx = &mut *guard;
            rx.sleepers += 1;
            if let Some(consumer) = &mut rx.consumer {
                consumer.give_credits();
                if consumer.must_wake() {
                    self.bell_for_room(fd);
                }
            }
            if let Some(sleeper) = &mut rx.sleeper {
                sleeper.arm();
            }
        }
        if room {
            let mut tx = self.tx();
            tx.sleepers += 1;
            if let Some(sleeper) = &mut tx.sleeper {
                sleeper.arm();
            }
        }
    }

    /// It is awake again. As long as others sleep, the next bytes wake them.
    pub fn disarm(&self, bytes: bool, room: bool) {
        let again = |sleepers: &mut u32, sleeper: &mut Option<Sleeper<Memory>>| {
            *sleepers = sleepers.saturating_sub(1);
            match sleeper {
                Some(sleeper) if *sleepers == 0 => sleeper.disarm(),
                Some(sleeper) => sleeper.arm(),
                None => {}
            }
        };
        if bytes {
            let mut guard = self.rx();
            let rx = &mut *guard;
            again(&mut rx.sleepers, &mut rx.sleeper);
        }
        if room {
            let mut guard = self.tx();
            let tx = &mut *guard;
            again(&mut tx.sleepers, &mut tx.sleeper);
        }
    }

    /// To be asked before a sleep is announced.
    pub fn turn(&self) -> u32 {
        self.control().turn.load(Ordering::SeqCst)
    }

    /// How to sleep, for a thread that announced it after [`turn`](Self::turn) and looked in vain. One bell wakes one thread in the
    /// socket, so only one sleeps there; and only it takes bells meanwhile.
    pub fn lead(&self, turn: u32) -> Turn {
        let mut rx = self.rx();
        if self.turn() != turn {
            Turn::Look
        } else if rx.leader == 0 {
            rx.leader = process();
            Turn::Leader
        } else {
            rx.followers += 1;
            Turn::Follower
        }
    }

    /// The leader is awake: others look, and one of them leads.
    pub fn unlead(&self) {
        let mut rx = self.rx();
        rx.leader = 0;
        self.next_turn(&mut rx);
    }

    pub(crate) fn next_turn(&self, rx: &mut Rx) {
        let turn = &self.control().turn;
        turn.fetch_add(1, Ordering::SeqCst);
        if rx.followers > 0 {
            // A wake-up that fails finds nobody.
            let _ = futex::wake(turn, futex::Flags::empty(), i32::MAX as u32);
        }
    }

    /// A follower that does not sleep after all.
    pub fn leave_turn(&self) {
        let mut rx = self.rx();
        rx.followers = rx.followers.saturating_sub(1);
    }

    /// Sleeps until somebody else has taken a bell.
    pub fn await_turn(&self, turn: u32) {
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        let flags = futex::Flags::empty();
        let slept = futex::wait(&self.control().turn, flags, turn, Some(&patience));
        let mut rx = self.rx();
        rx.followers = rx.followers.saturating_sub(1);
        // A forked sibling may have been killed in its sleep.
        if slept == Err(Errno::TIMEDOUT) && rx.leader != 0 && !alive(rx.leader) {
            rx.leader = 0;
        }
    }
}
