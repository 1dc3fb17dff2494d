//! Who gives names, memory and control sockets.
//!
//! puddled does, across processes. Its seam is this trait, so that an orchestrator of many hosts can take its place. The registry
//! is trusted with names and with who owns which memory; receivers check the seals of every segment themselves.

use std::os::fd::{BorrowedFd, OwnedFd};

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
    /// Its home address, the same in every process.
    pub addr: u64,
    /// Bytes: 2 MiB times a power of two.
    pub size: u64,
    /// The memfd: writable for the owner until [`Registry::ready`]; mapped read-only by everybody else.
    pub file: OwnedFd,
}

/// An open channel.
#[derive(Debug)]
pub struct ChannelGrant {
    /// Names it.
    pub id: ChannelId,
    /// Announces clients; given to [`Registry::next_client`] when it is readable. Its end means that the registry has restarted or
    /// taken the name away.
    pub announcements: OwnedFd,
}

/// A party's side of a new connection.
#[derive(Debug)]
pub struct ConnGrant {
    /// Names it.
    pub id: ConnId,
    /// The other party's user.
    pub uid: u32,
    /// The other party's group.
    pub gid: u32,
    /// The other party's process, in the registry's namespace.
    pub pid: u32,
    /// `SOCK_SEQPACKET`, the other end is the peer's: greetings, and its hang-up is the peer's death.
    pub control: OwnedFd,
    /// This side sleeps on it.
    pub own_event: OwnedFd,
    /// Wakes the other side.
    pub peer_event: OwnedFd,
}

/// Gives names and memory. Calls block for a round trip; none is on the path of a call.
pub trait Registry: Send + Sync {
    /// Takes the name for this process; the bits of `mode` say who may connect.
    fn open_channel(&self, name: &str, mode: u16) -> Result<ChannelGrant, Error>;

    /// The next client that was announced on `announcements`; does not block. `Err(Closed)`: the channel must be opened again.
    fn next_client(&self, announcements: BorrowedFd<'_>) -> Result<Option<ConnGrant>, Error>;

    /// Gives the name back.
    fn close_channel(&self, channel: ChannelId) -> Result<(), Error>;

    /// Connects to the server that has the name.
    fn connect(&self, name: &str) -> Result<ConnGrant, Error>;

    /// The connection is over on this side: leases that belong to it alone end with [`Registry::drop_segment`].
    fn disconnect(&self, conn: ConnId) -> Result<(), Error>;

    /// New memory that this process may write.
    fn segment(&self, scope: Scope, size: u64) -> Result<Segment, Error>;

    /// The owner has mapped the segment: from now on nobody can map it for writing, and others may have it.
    fn ready(&self, segment: SegmentId) -> Result<(), Error>;

    /// A segment of the other party of `conn`, to be mapped read-only. The registry records the lease.
    fn map(&self, segment: SegmentId, conn: ConnId) -> Result<Segment, Error>;

    /// This process has no mapping of the segment any more: its lease or ownership ends.
    fn drop_segment(&self, segment: SegmentId) -> Result<(), Error>;
}
