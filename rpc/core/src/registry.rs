//! Who gives names, memory and control sockets.
//!
//! puddled does, across processes. Its seam is this trait, so that an orchestrator of many hosts can take its place. The registry
//! is trusted with names and with who owns which memory; receivers check the seals of every segment themselves.

mod puddled;

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};

pub use puddled::Puddled;

use crate::Error;

/// Names a segment of shared memory for as long as anybody has it.
pub type SegmentId = u64;
/// Names a connection.
pub type ConnId = u64;
/// Names an open channel.
pub type ChannelId = u64;

/// What a segment belongs to, which decides who may map it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One connection: its two parties.
    Conn(ConnId),
    /// A channel: its server and every client that is connected.
    Channel(ChannelId),
}

/// A segment and its file.
#[derive(Debug)]
pub struct Segment {
    /// Names it.
    pub id: SegmentId,
    /// What it belongs to.
    pub scope: Scope,
    /// Its home address, the same in every process.
    pub addr: u64,
    /// Bytes: 2 MiB times a power of two.
    pub size: u64,
    /// The memfd: writable for the owner until [`Registry::ready`]; mapped read-only by everybody else.
    pub file: File,
}

/// A party's side of a new connection.
#[derive(Debug)]
pub struct ConnGrant {
    /// Names it.
    pub id: ConnId,
    /// The channel that it belongs to.
    pub channel: ChannelId,
    /// The other party's user, as the kernel says.
    pub uid: u32,
    /// The other party's group.
    pub gid: u32,
    /// The other party's process, in the registry's namespace.
    pub pid: u32,
    /// `SOCK_SEQPACKET`, the other end is the peer's: greetings, and its hang-up is the peer's death.
    pub control: OwnedFd,
    /// This side sleeps on it; non-blocking.
    pub wait: OwnedFd,
    /// One byte wakes the other side; non-blocking.
    pub wake: OwnedFd,
}

/// An open channel's clients as they come.
pub trait Announcements: Send + Sync {
    /// The channel.
    fn channel(&self) -> ChannelId;

    /// Readable when a client has connected.
    fn event(&self) -> BorrowedFd<'_>;

    /// The next client; does not block. An error means that the channel must be opened again: the registry has ended or has taken
    /// the name away.
    fn next(&self) -> Result<Option<ConnGrant>, Error>;
}

/// Gives names and memory. Calls block for a round trip; none is on the path of a call.
pub trait Registry: Send + Sync {
    /// Takes the name for this process; the bits of `mode` say who may connect.
    fn open_channel(&self, name: &str, mode: u16) -> Result<Box<dyn Announcements>, Error>;

    /// Gives the name back.
    fn close_channel(&self, channel: ChannelId) -> Result<(), Error>;

    /// Connects to the server that has the name.
    fn connect(&self, name: &str) -> Result<ConnGrant, Error>;

    /// The connection is over on this side: what this side owns of it is given up, what it has mapped stays.
    fn disconnect(&self, conn: ConnId) -> Result<(), Error>;

    /// New memory that this process may write.
    fn segment(&self, scope: Scope, size: u64) -> Result<Segment, Error>;

    /// The owner has mapped the segment: from now on nobody can map it for writing, and others may have it.
    fn ready(&self, segment: SegmentId) -> Result<(), Error>;

    /// A segment of somebody else, to be mapped read-only. The registry records the lease.
    fn map(&self, segment: SegmentId) -> Result<Segment, Error>;

    /// This process has no mapping of the segment any more: its lease or ownership ends.
    fn drop_segment(&self, segment: SegmentId) -> Result<(), Error>;
}
