//! A helper's own side: it waits for a turn of the server, answers, and takes the memory that it is lent.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use vernal_ring::{Backoff, Step, WaitPolicy};

use crate::helper::sleepy;
use crate::page::{Page, Turn};

/// Memory that the server lends.
#[derive(Debug)]
pub struct Lent {
    /// What it is for; the crate above numbers it.
    pub kind: u64,
    /// Where it belongs.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// The memory.
    pub file: File,
}

/// What packets on the socket begin with.
pub(crate) const WAKE: u64 = 1;
pub(crate) const LEND: u64 = 2;
/// Words of a packet: what it is, kind, address, size.
pub(crate) const PACKET: usize = 32;

/// The helper's side of its page and socket.
#[derive(Debug)]
pub struct Inside {
    page: Page,
    socket: OwnedFd,
    backoff: Backoff,
    /// What came while something else was waited for.
    lent: Vec<Lent>,
}

impl Inside {
    pub(crate) fn new(page: Page, socket: OwnedFd, wait: WaitPolicy) -> Inside {
        Inside {
            page,
            socket,
            backoff: Backoff::new(sleepy(wait)),
            lent: Vec::new(),
        }
    }

    /// The server's next turn; it is the helper's turn to answer then. `None`: the server is gone.
    pub fn wait(&mut self, bytes: &mut Vec<u8>) -> Option<Turn> {
        let mut wait = self.backoff.begin(None);
        while !self.page.heard() {
            if self.backoff.step(&mut wait) != Step::Sleep {
                continue;
            }
            self.page.asleep(true);
            let gone = !self.page.heard() && !self.packet();
            self.page.asleep(false);
            if gone {
                return None;
            }
        }
        self.backoff.end(wait);
        Some(self.page.take(bytes))
    }

    /// Answers.
    pub fn say(&mut self, turn: &Turn, bytes: &[u8]) {
        if self.page.say(turn, bytes) {
            // It sleeps until the socket is readable. A full socket is as good.
            let _ = rustix::io::write(&self.socket, &[0]);
        }
    }

    /// The next memory that was lent; to be called as often as a turn says. `None`: the server is gone.
    pub fn lent(&mut self) -> Option<Lent> {
        while self.lent.is_empty() {
            if !self.packet() {
                return None;
            }
        }
        Some(self.lent.remove(0))
    }

    /// Takes a packet from the socket; `false`: there will be none.
    fn packet(&mut self) -> bool {
        let mut data = [0; PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut to = [IoSliceMut::new(&mut data)];
            match recvmsg(&self.socket, &mut to, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                done => break done,
            }
        };
        match received {
            Ok(r) if r.bytes == PACKET && !r.flags.contains(ReturnFlags::CTRUNC) => {}
            _ => return false,
        }
        let (words, _) = data.as_chunks::<8>();
        let &[what, kind, addr, size] = words else {
            return false;
        };
        if u64::from_le_bytes(what) != LEND {
            return true;
        }
        let fds = control.drain().filter_map(|m| match m {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let Some(fd) = fds.last() else {
            return false;
        };
        self.lent.push(Lent {
            kind: u64::from_le_bytes(kind),
            addr: u64::from_le_bytes(addr),
            size: u64::from_le_bytes(size),
            file: File::from(fd),
        });
        true
    }
}
