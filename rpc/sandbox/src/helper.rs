//! A helper as its server has it: said to, waited for with patience that ends, killed.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, send, sendmsg,
};
use rustix::process::{Signal, pidfd_send_signal};
use vernal_ring::{Backoff, Step, WaitPolicy};

use crate::inside::{LEND, PACKET, WAKE};
use crate::page::{Page, Turn};
use crate::zygote::Shared;

/// How long the server sleeps between two looks at whether anybody still waits.
const ROUND: Duration = Duration::from_millis(5);

/// How either side waits for the other. Nobody polls without end: a helper would keep a processor busy for each client, and a server
/// that is bound to one processor, as its helper is then, would keep it from the helper.
pub(crate) fn sleepy(wait: WaitPolicy) -> WaitPolicy {
    match wait {
        WaitPolicy::Spin => WaitPolicy::Adaptive,
        wait => wait,
    }
}

/// What the server says while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// Somebody waits for the answer.
    Wait,
    /// Nobody does: the helper is to end.
    Stop,
}

/// Why there is no answer. The helper is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It ended by itself: by this signal, or 0 when it left with `exit`.
    Died(i32),
    /// It was killed, because nobody waited any more.
    Stopped,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match *self {
            Ended::Stopped => return f.write_str("it was stopped"),
            Ended::Died(0) => return f.write_str("it left"),
            Ended::Died(signal) => match signal {
                libc::SIGSEGV => " (an address that is not its own)",
                libc::SIGBUS => " (an address without memory)",
                libc::SIGABRT => " (it gave up)",
                libc::SIGSYS => " (a forbidden system call)",
                libc::SIGILL | libc::SIGTRAP => " (it found itself wrong)",
                libc::SIGFPE => " (impossible arithmetic)",
                libc::SIGKILL => " (killed from outside, or out of memory)",
                _ => "",
            },
        };
        let Ended::Died(signal) = *self else {
            return Ok(());
        };
        write!(f, "signal {signal}{what}")
    }
}

/// A process that runs handlers for one party.
#[derive(Debug)]
pub struct Helper {
    pub(crate) page: Page,
    pub(crate) socket: OwnedFd,
    pub(crate) process: OwnedFd,
    pub(crate) pid: u32,
    pub(crate) backoff: Backoff,
    pub(crate) zygote: Arc<Shared>,
    ended: Option<Ended>,
}

impl Helper {
    pub(crate) fn new(
        page: Page,
        socket: OwnedFd,
        process: OwnedFd,
        pid: u32,
        wait: WaitPolicy,
        zygote: &Arc<Shared>,
    ) -> Helper {
        Helper {
            page,
            socket,
            process,
            pid,
            backoff: Backoff::new(sleepy(wait)),
            zygote: Arc::clone(zygote),
            ended: None,
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lends it memory: `file`, which belongs at `addr`. The next turn has to say that there is some.
    pub fn lend(
        &mut self,
        kind: u64,
        addr: u64,
        size: u64,
        file: BorrowedFd<'_>,
    ) -> Result<(), Ended> {
        let mut packet = [0; PACKET];
        let words = [LEND, kind, addr, size];
        for (to, word) in packet.chunks_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [file];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match sendmsg(&self.socket, &[IoSlice::new(&packet)], &mut control, flags) {
            Ok(_) => Ok(()),
            // It reads nothing, or is gone.
            Err(_) => Err(self.stop()),
        }
    }

    /// Says something and waits for the answer. `tick` is asked now and then whether anybody still waits.
    pub fn ask(
        &mut self,
        turn: &Turn,
        data: &[u8],
        answer: &mut Vec<u8>,
        tick: &mut dyn FnMut() -> Tick,
    ) -> Result<Turn, Ended> {
        if let Some(ended) = self.ended {
            return Err(ended);
        }
        if self.page.say(turn, data) {
            self.wake();
        }
        let mut wait = self.backoff.begin(None);
        while !self.page.heard() {
            match self.backoff.step(&mut wait) {
                Step::Look => {}
                Step::Check => self.check(Duration::ZERO, tick)?,
                Step::Sleep => {
                    self.page.asleep(true);
                    let checked = match self.page.heard() {
                        true => Ok(()),
                        false => self.check(ROUND, tick),
                    };
                    self.page.asleep(false);
                    checked?;
                }
            }
        }
        self.backoff.end(wait);
        Ok(self.page.take(answer))
    }

    fn wake(&self) {
        let mut packet = [0; PACKET];
        if let Some(first) = packet.first_mut() {
            *first = WAKE as u8;
        }
        // A full socket wakes as well; a broken one is seen by the next check.
        let _ = send(
            &self.socket,
            &packet,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        );
    }

    /// Sleeps until the helper says something, at most for that long, and looks whether it lives and somebody waits.
    fn check(&mut self, most: Duration, tick: &mut dyn FnMut() -> Tick) -> Result<(), Ended> {
        let spec = Timespec::try_from(most).ok();
        let mut fds = [
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::new(&self.process, PollFlags::IN),
        ];
        let _ = poll(&mut fds, spec.as_ref());
        let [socket, process] = fds.map(|fd| !fd.revents().is_empty());
        if socket {
            // Bells. Whatever else it writes there says nothing.
            let _ = recv(&self.socket, &mut [0u8; 16][..], RecvFlags::DONTWAIT);
        }
        if process && !self.page.heard() {
            return Err(self.stop());
        }
        match tick() {
            Tick::Wait => Ok(()),
            Tick::Stop if self.page.heard() => Ok(()),
            Tick::Stop => {
                let _ = self.stop();
                Err(Ended::Stopped)
            }
        }
    }

    /// Ends it, and says how it ended.
    pub fn stop(&mut self) -> Ended {
        if let Some(ended) = self.ended {
            return ended;
        }
        let _ = pidfd_send_signal(self.process.as_fd(), Signal::KILL);
        let ended = Ended::Died(self.zygote.reap(self.pid));
        self.ended = Some(ended);
        ended
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.stop();
    }
}
