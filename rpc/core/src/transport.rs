//! What a transport is: one conformance suite runs on every implementation.
//!
//! One end of a connection is an [`Endpoint`]: two halves that move messages, each used by one thread at a time (`&mut`), and a
//! [`Link`] that every thread may ask. Nothing here blocks, but [`Dial::dial`]: how to wait is decided above, once for all transports.
//!
//! # Waiting
//!
//! A side that wants to sleep calls [`Rx::arm`]; if it says that nothing has arrived, the side sleeps until one of
//! [`Link::events`] is readable, calls [`Link::acknowledge`], then [`Rx::disarm`]. What the peer sends after `arm` makes an event
//! readable: there is no lost wake-up.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use vernal_pool::Pool;

use crate::latency::Latency;
use crate::message::{Body, Message};
use crate::options::{ConnectOptions, Passed};
use crate::registry::{Segment, SegmentId};

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// For messages: `client 17 (pid 4711, uid 1000)`, `server shop/stock (pid 42)`, `10.0.0.1:7000`.
    pub name: String,
    /// Its user, as the kernel or the registry says. `None`: another host.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
    /// Its process, in the registry's namespace.
    pub pid: Option<u32>,
}

/// The sending half.
pub trait Tx: Send {
    /// Sends a message if there is room: `Ok(false)` when there is none now. An object in the body must live in the memory that
    /// [`Link`] gives this side for sending, and stay unchanged until the peer is done with it.
    fn try_send(&mut self, message: &Message) -> Result<bool, Error>;

    /// Goes on with what was accepted and is not yet on its way; `true` when nothing is left. Shared memory has nothing to do here.
    fn flush(&mut self) -> Result<bool, Error> {
        Ok(true)
    }
}

/// The receiving half.
pub trait Rx: Send {
    /// Whether [`Rx::try_recv`] may say anything but that nothing is there. What polls asks this first: it is cheaper.
    #[inline]
    fn is_due(&mut self) -> bool {
        true
    }

    /// The next message, if one is there. What is wrong with its form is an error that ends the connection.
    fn try_recv(&mut self) -> Result<Option<Message>, Error>;

    /// As [`Rx::try_recv`], in the place of an older message: `true` if one was there. What is there after an error is nothing to
    /// rely on.
    #[inline]
    fn recv_into(&mut self, message: &mut Message) -> Result<bool, Error> {
        match self.try_recv()? {
            Some(received) => *message = received,
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Sleeps until the peer says something, but no longer than `longest`, by a way that costs less than [`Link::events`], if the
    /// transport has one. `true`: the side has to look again. `false`: nothing was said, or there is no such way. Neither the
    /// peer's death nor the end of the link is noticed meanwhile, so that `longest` has to be short.
    fn doze(&mut self, longest: Duration) -> Result<bool, Error> {
        let _ = longest;
        Ok(false)
    }

    /// This side is about to sleep. `true`: it may, the next message will make an event readable. `false`: something is there.
    fn arm(&mut self) -> Result<bool, Error>;

    /// This side does not sleep any more.
    fn disarm(&mut self);
}

/// What every thread may ask of one end.
pub trait Link: Send + Sync {
    /// Who is at the other end.
    fn peer(&self) -> &Peer;

    /// The descriptors to sleep on, at most a few: each becomes readable when there is something to read, or when the peer is gone.
    fn events(&self) -> Vec<BorrowedFd<'_>>;

    /// Takes back what made the events readable. `Err(PeerDied)` once the peer is gone and all its messages were read.
    fn acknowledge(&self) -> Result<(), Error>;

    /// Makes what a peer passed usable here, if it is sound: `body` names an object (plain bytes need no admission), `expected` the
    /// type that it must have. The result keeps alive what it needs.
    fn admit(&self, body: &Body, expected: u64) -> Result<Admitted, Error>;

    /// The heap whose objects this side may send over this connection; made at first use.
    fn heap(&self) -> Result<Pool, Error>;

    /// The memory of the connection, for a sandbox. `None`: the two sides share none.
    fn lend(&self) -> Option<&dyn Lend> {
        None
    }

    /// A call was measured: how long it took from sending it until its caller had the answer, or from reading it until its answer was
    /// sent. Called for few calls only.
    fn timed(&self, _took: Duration) {}

    /// What [`Link::timed`] was told.
    fn latency(&self) -> Latency {
        Latency::default()
    }

    /// This side is done: the peer sees the connection end. Idempotent.
    fn close(&self);
}

/// A segment of a peer's heap: its memory, address and bytes.
pub type PeerSegment = (Arc<File>, u64, u64);

/// Memory of a connection, so that another process can read what the peer passes, and write replies that this one reads.
pub trait Lend: Send + Sync {
    /// The segments of the peer's heap, from the nth on.
    fn peer_segments(&self, from: usize) -> Result<Vec<PeerSegment>, Error>;

    /// New memory for replies.
    fn segment(&self, size: u64) -> Result<Segment, Error>;

    /// Somebody has mapped such memory for writing; nobody can from now on.
    fn ready(&self, segment: SegmentId) -> Result<(), Error>;

    /// Nobody has it mapped any more.
    fn drop_segment(&self, segment: SegmentId);
}

/// An object of a peer that may be read.
pub struct Admitted {
    /// Where it lies in this process.
    pub addr: u64,
    /// How it got here.
    pub passed: Passed,
    /// Keeps it there; its drop gives copies and mappings back.
    pub guard: Box<dyn Send + Sync>,
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admitted")
            .field("addr", &format_args!("{:#x}", self.addr))
            .field("passed", &self.passed)
            .finish_non_exhaustive()
    }
}

/// One end of a connection.
pub struct Endpoint {
    /// The sending half.
    pub tx: Box<dyn Tx>,
    /// The receiving half.
    pub rx: Box<dyn Rx>,
    /// The rest.
    pub link: Arc<dyn Link>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("peer", self.link.peer())
            .finish_non_exhaustive()
    }
}

/// The client side of a transport.
pub trait Dial: Send + Sync {
    /// Connects and greets, within `options.timeout`.
    fn dial(&self, name: &str, options: &ConnectOptions) -> Result<Endpoint, Error>;
}

/// The server side of a transport.
pub trait Listen: Send + Sync {
    /// Readable when a client waits.
    fn event(&self) -> BorrowedFd<'_>;

    /// The next client that waits. Does not block; the client may still be silent or hostile.
    ///
    /// An error means that no client comes any more until [`Listen::reopen`] succeeds; what is wrong with one client is not an error
    /// here.
    fn accept(&self) -> Result<Option<Box<dyn Greeting>>, Error>;

    /// Listens again after [`Listen::accept`] failed; tried now and then until it succeeds. [`Listen::event`] is another one then.
    fn reopen(&mut self) -> Result<(), Error>;
}

/// A client that has not yet said all that is needed. The server drops it when it takes too long.
pub trait Greeting: Send {
    /// Readable when [`Greeting::advance`] can go on.
    fn event(&self) -> BorrowedFd<'_>;

    /// Goes on without blocking. An error ends this client only.
    fn advance(self: Box<Self>) -> Result<Advance, Error>;
}

/// How far a client has come.
pub enum Advance {
    /// It has not said everything yet.
    Waiting(Box<dyn Greeting>),
    /// It is connected.
    Connected(Endpoint),
}

impl std::fmt::Debug for Advance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Advance::Waiting(_) => f.write_str("Waiting"),
            Advance::Connected(endpoint) => f.debug_tuple("Connected").field(endpoint).finish(),
        }
    }
}

/// How long a side dozes at most: what happens besides messages (a peer dies, a client comes) is noticed that late.
pub(crate) const DOZE: Duration = Duration::from_millis(10);

/// How long a client may take to greet before the server drops it.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
