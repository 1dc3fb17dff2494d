//! Two processes that take turns at shared memory: the floor under every call.
//!
//! ```text
//! 0     turn of the request   one cache line, written by the client
//! 128   turn of the reply     one cache line, written by the server
//! 4096  request               written by the client
//! ...   reply                 written by the server
//! ```
//! A turn is a number that grows by one with every call. How a side waits for the other's next turn is [`Signal`].

use super::fail;
use crate::worker::{Caller, Serving};
use crate::{Failure, Result, payload};
use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::thread::futex;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// How a side learns of the other's turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It looks again and again.
    Spin,
    /// It sleeps on the turn's futex.
    Futex,
    /// It sleeps on an eventfd.
    Eventfd,
}

const REPLY_TURN: usize = 128;
const REQUEST: usize = 4096;
const MAX: usize = 1 << 20;
const REPLY: usize = REQUEST + MAX;
const BYTES: usize = REPLY + MAX;

/// The shared memory and what wakes the two sides.
struct Shared {
    base: *mut u8,
    signal: Signal,
    /// Of the client, of the server.
    events: [OwnedFd; 2],
}

// SAFETY: the mapping lives as long as the process, and its bytes belong to one side at a time by the turns.
unsafe impl Send for Shared {}

/// The two sides.
#[derive(Clone, Copy)]
enum Side {
    Client = 0,
    Server = 1,
}

impl Shared {
    fn map(signal: Signal, memory: &OwnedFd, events: [OwnedFd; 2]) -> Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses; it is never unmapped.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                memory,
                0,
            )
        };
        Ok(Self {
            base: base.map_err(fail("mmap"))?.cast(),
            signal,
            events,
        })
    }

    /// The turn that `side` writes, and the size that goes with it.
    fn turn(&self, side: Side) -> (&AtomicU32, &AtomicU32) {
        let at = match side {
            Side::Client => 0,
            Side::Server => REPLY_TURN,
        };
        // SAFETY: inside the mapping, aligned, and only ever used as atomics.
        unsafe {
            let word = self.base.add(at).cast::<AtomicU32>();
            (&*word, &*word.add(1))
        }
    }

    /// The bytes that `side` writes.
    fn bytes(&mut self, side: Side, size: usize) -> &mut [u8] {
        let at = match side {
            Side::Client => REQUEST,
            Side::Server => REPLY,
        };
        // SAFETY: inside the mapping; the other side does not touch them until this side has taken its turn, and its
        // own turn is over, which the turns' release and acquire order.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(at), size.min(MAX)) }
    }

    /// Waits until `side` has taken turn `number`.
    fn wait(&self, side: Side, number: u32) -> Result<usize> {
        let (turn, size) = self.turn(side);
        loop {
            let now = turn.load(Ordering::Acquire);
            if now == number {
                return Ok(size.load(Ordering::Relaxed) as usize);
            }
            match self.signal {
                Signal::Spin => std::hint::spin_loop(),
                Signal::Futex => match futex::wait(turn, futex::Flags::empty(), now, None) {
                    Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(e) => return Err(fail("futex")(e)),
                },
                Signal::Eventfd => {
                    // Whoever waits for the client sleeps on the server's eventfd.
                    let mut count = [0; 8];
                    match rustix::io::read(&self.events[1 - side as usize], &mut count) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(e) => return Err(fail("eventfd")(e)),
                    }
                }
            }
        }
    }

    /// Takes turn `number`, with `bytes` of payload.
    fn take(&self, side: Side, number: u32, bytes: usize) -> Result<()> {
        let (turn, size) = self.turn(side);
        size.store(bytes as u32, Ordering::Relaxed);
        turn.store(number, Ordering::Release);
        match self.signal {
            Signal::Spin => {}
            Signal::Futex => {
                futex::wake(turn, futex::Flags::empty(), 1).map_err(fail("futex"))?;
            }
            Signal::Eventfd => {
                rustix::io::write(&self.events[1 - side as usize], &1u64.to_ne_bytes())
                    .map_err(fail("eventfd"))?;
            }
        }
        Ok(())
    }
}

/// One thread, and memory of its own, for each connection.
pub fn serve(signal: Signal, at: &Path, serving: &'static Serving) -> Result<()> {
    let listener = UnixListener::bind(at).map_err(fail("bind"))?;
    serving.ready();
    for stream in listener.incoming() {
        let stream = stream.map_err(fail("accept"))?;
        let mut shared = give(signal, &stream)?;
        std::thread::spawn(move || {
            for number in 1u32.. {
                let Ok(size) = shared.wait(Side::Client, number) else {
                    break;
                };
                if size == END {
                    break;
                }
                let request: *const [u8] = shared.bytes(Side::Client, size);
                let reply = shared.bytes(Side::Server, size);
                // SAFETY: the client's bytes, disjoint from the server's; it is the server's turn.
                payload::answer(unsafe { &*request }, reply);
                serving.answered();
                if shared.take(Side::Server, number, size).is_err() {
                    break;
                }
            }
        });
    }
    Ok(())
}

/// The size that says goodbye: a server's thread must not spin for a client that is gone.
const END: usize = u32::MAX as usize;

/// Makes the memory and the eventfds, and sends them to the client.
fn give(signal: Signal, stream: &UnixStream) -> Result<Shared> {
    let memory =
        rustix::fs::memfd_create("vernal-bench", MemfdFlags::CLOEXEC).map_err(fail("memfd"))?;
    rustix::fs::ftruncate(&memory, BYTES as u64).map_err(fail("ftruncate"))?;
    let event =
        || rustix::event::eventfd(0, EventfdFlags::CLOEXEC).map_err(fail::<Errno>("eventfd"));
    let events = [event()?, event()?];
    let fds = [memory.as_fd(), events[0].as_fd(), events[1].as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(
        stream,
        &[IoSlice::new(b"m")],
        &mut ancillary,
        SendFlags::empty(),
    )
    .map_err(fail("sendmsg"))?;
    Shared::map(signal, &memory, events)
}

/// The client's side.
pub struct Connection {
    shared: Shared,
    number: u32,
}

impl Connection {
    /// Connects, and maps what the server sends.
    pub fn open(signal: Signal, at: &Path) -> Result<Self> {
        let stream = UnixStream::connect(at).map_err(fail("connect"))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        rustix::net::recvmsg(
            &stream,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::empty(),
        )
        .map_err(fail("recvmsg"))?;
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(given) = message {
                fds.extend(given);
            }
        }
        let [memory, client, server] = <[OwnedFd; 3]>::try_from(fds)
            .map_err(|fds| Failure(format!("the server sent {} descriptors", fds.len())))?;
        Ok(Self {
            shared: Shared::map(signal, &memory, [client, server])?,
            number: 0,
        })
    }
}

impl Caller for Connection {
    fn call(&mut self, size: usize, seed: u64) -> Result<u64> {
        self.number += 1;
        payload::fill(self.shared.bytes(Side::Client, size), seed);
        self.shared.take(Side::Client, self.number, size)?;
        let size = self.shared.wait(Side::Server, self.number)?;
        Ok(payload::sum(self.shared.bytes(Side::Server, size)))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The server's process may be gone already.
        let _ = self.shared.take(Side::Client, self.number + 1, END);
    }
}
