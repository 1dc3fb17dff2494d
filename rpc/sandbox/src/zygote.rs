//! The process that forks helpers: itself forked once, with one thread and nothing open, so that each helper begins clean.
//!
//! A server with many threads could not fork helpers while it runs: a lock that another thread holds at that moment stays locked in
//! the child. So it forks the zygote, at a moment of its choice, and the zygote forks helpers, whose memory is that of this moment.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use vernal_ring::WaitPolicy;

use crate::helper::Helper;
use crate::inside::Inside;
use crate::page::{self, Page, Side};
use crate::{Error, filter, jail, os};

/// What each helper may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of memory beyond those that it begins with.
    pub memory: u64,
    /// How both sides wait for each other.
    pub wait: WaitPolicy,
}

/// Requests: fork a helper, reap one.
const FORK: u64 = 1;
const REAP: u64 = 2;
/// A request and an answer: two words.
const PACKET: usize = 16;
/// How long an answer of the zygote may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server's end.
#[derive(Debug)]
pub(crate) struct Shared {
    control: Mutex<OwnedFd>,
}

/// The process that forks helpers. It ends, and they with it, when this and all helpers are dropped, or the server dies.
#[derive(Debug)]
pub struct Zygote {
    shared: Arc<Shared>,
    wait: WaitPolicy,
}

fn packet(words: [u64; 2]) -> [u8; PACKET] {
    let mut out = [0; PACKET];
    for (to, word) in out.chunks_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    out
}

fn send_packet(to: BorrowedFd<'_>, words: [u64; 2], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let data = packet(words);
    loop {
        match sendmsg(
            to,
            &[IoSlice::new(&data)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Err(Errno::INTR) => {}
            done => return done.map(drop),
        }
    }
}

/// A packet and its descriptors; `None`: the other side is gone.
fn receive_packet(from: BorrowedFd<'_>) -> Option<([u64; 2], Vec<OwnedFd>)> {
    let mut data = [0; PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let len = loop {
        let mut to = [IoSliceMut::new(&mut data)];
        match recvmsg(from, &mut to, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            done => break done.ok()?.bytes,
        }
    };
    if len != PACKET {
        return None;
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    let (words, _) = data.as_chunks::<8>();
    let &[a, b] = words else {
        return None;
    };
    Some(([u64::from_le_bytes(a), u64::from_le_bytes(b)], fds))
}

fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(os("making sockets"))
}

impl Zygote {
    /// Forks the zygote. `entry` is what each helper runs; it may keep what it likes of this process' memory, and returns when the server
    /// is gone. `fork` does the fork itself when it calls its argument: a caller that has locks which helpers need takes them around it.
    ///
    /// Other threads of this process are not in the child: locks that they hold stay locked there. Best called before there are any.
    pub fn start(
        limits: Limits,
        entry: impl FnOnce(Inside),
        fork: impl FnOnce(&mut dyn FnMut() -> i32) -> i32,
    ) -> Result<Zygote, Error> {
        let (control, theirs) = pair()?;
        // SAFETY: the child gives up everything and runs `entry` with one thread; it never returns from here.
        let child = fork(&mut || unsafe { libc::fork() });
        match child {
            -1 => Err(Error::Os {
                doing: "forking",
                source: io::Error::last_os_error(),
            }),
            0 => {
                // Forked once more: the program is the parent of none of these, and hears of none of them.
                // SAFETY: as above.
                let grandchild = unsafe { libc::fork() };
                if grandchild == 0 {
                    let run = || zygote(theirs.as_raw_fd(), limits, entry);
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
                }
                // SAFETY: ends without what a program does when it ends: all that is its parent's.
                unsafe { libc::_exit(i32::from(grandchild < 0)) }
            }
            child => {
                drop(theirs);
                // SAFETY: a child of ours, which ends at once. A program that reaps all children may have been quicker.
                unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
                let shared = Arc::new(Shared {
                    control: Mutex::new(control),
                });
                shared.hello()?;
                Ok(Zygote {
                    shared,
                    wait: limits.wait,
                })
            }
        }
    }

    /// A fresh helper.
    pub fn helper(&self) -> Result<Helper, Error> {
        let (socket, theirs) = pair()?;
        let page = page::create()?;
        let fds = [theirs.as_fd(), page.as_fd()];
        let (pid, mut fds) = self.shared.ask([FORK, 0], &fds)?;
        match (fds.pop(), u32::try_from(pid)) {
            (Some(process), Ok(pid)) if pid > 0 => {
                let page = Page::map(&page, Side::Server)?;
                let zygote = &self.shared;
                Ok(Helper::new(page, socket, process, pid, self.wait, zygote))
            }
            _ => Err(Error::Os {
                doing: "forking a helper",
                source: io::Error::other("there are too many processes, or too little memory"),
            }),
        }
    }
}

impl Shared {
    /// The zygote has given up what it has to give up.
    fn hello(&self) -> Result<(), Error> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        answer(control.as_fd()).map(drop)
    }

    fn ask(&self, words: [u64; 2], fds: &[BorrowedFd<'_>]) -> Result<(u64, Vec<OwnedFd>), Error> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        send_packet(control.as_fd(), words, fds).map_err(|_| Error::Gone)?;
        answer(control.as_fd())
    }

    /// The signal that ended a helper, which is dead or dying; 0: none.
    pub(crate) fn reap(&self, pid: u32) -> i32 {
        let signal = self.ask([REAP, pid.into()], &[]);
        signal.map_or(0, |(signal, _)| signal as i32)
    }
}

fn answer(control: BorrowedFd<'_>) -> Result<(u64, Vec<OwnedFd>), Error> {
    let spec = Timespec::try_from(PATIENCE).ok();
    let mut fds = [PollFd::from_borrowed_fd(control, PollFlags::IN)];
    while let Err(Errno::INTR) = poll(&mut fds, spec.as_ref()) {}
    if fds.iter().all(|fd| fd.revents().is_empty()) {
        return Err(Error::Gone);
    }
    match receive_packet(control) {
        Some(([FORK | REAP, value], fds)) => Ok((value, fds)),
        _ => Err(Error::Gone),
    }
}

/// The zygote's life.
fn zygote(control: RawFd, limits: Limits, entry: impl FnOnce(Inside)) {
    if jail::zygote(control).is_err() {
        return;
    }
    // SAFETY: the jail has made it this number, and nothing else has it.
    let control = unsafe { OwnedFd::from_raw_fd(jail::FIRST) };
    let me = std::process::id();
    if send_packet(control.as_fd(), [FORK, 0], &[]).is_err() {
        return;
    }
    let mut entry = Some(entry);
    while let Some((request, fds)) = receive_packet(control.as_fd()) {
        let answered = match request {
            [FORK, _] => {
                let [socket, page] = fds.as_slice() else {
                    return;
                };
                // SAFETY: this process has one thread.
                match unsafe { libc::fork() } {
                    0 => {
                        let keep = [socket.as_raw_fd(), page.as_raw_fd()];
                        if let Some(entry) = entry.take() {
                            helper(keep, me, limits, entry);
                        }
                        return;
                    }
                    -1 => send_packet(control.as_fd(), [FORK, 0], &[]),
                    // Not reaped before the server asks: the number is the helper's for as long.
                    pid => match rustix::process::Pid::from_raw(pid).map(|pid| {
                        let none = rustix::process::PidfdFlags::empty();
                        rustix::process::pidfd_open(pid, none)
                    }) {
                        Some(Ok(process)) => {
                            send_packet(control.as_fd(), [FORK, pid as u64], &[process.as_fd()])
                        }
                        _ => return,
                    },
                }
            }
            [REAP, pid] => {
                let mut status = 0;
                // SAFETY: a child of this process, which is dead or dying.
                let reaped = unsafe { libc::waitpid(pid as i32, &raw mut status, 0) };
                let signal = match reaped > 0 && libc::WIFSIGNALED(status) {
                    true => libc::WTERMSIG(status),
                    false => 0,
                };
                send_packet(control.as_fd(), [REAP, signal as u64], &[])
            }
            _ => return,
        };
        if answered.is_err() {
            return;
        }
    }
}

/// A helper's life.
fn helper(keep: [RawFd; 2], zygote: u32, limits: Limits, entry: impl FnOnce(Inside)) {
    if jail::helper(&keep, zygote, limits.memory).is_err() {
        return;
    }
    // SAFETY: the jail has made them these numbers, and nothing else has them.
    let (socket, page) = unsafe {
        (
            OwnedFd::from_raw_fd(jail::FIRST),
            OwnedFd::from_raw_fd(jail::FIRST + 1),
        )
    };
    let Ok(page) = Page::map(&page, Side::Helper) else {
        return;
    };
    if filter::install().is_err() {
        return;
    }
    entry(Inside::new(page, socket, limits.wait));
    // SAFETY: ends without what a program does when it ends.
    unsafe { libc::_exit(0) }
}
