//! Channels, connections and segments.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vernal_puddled_proto::limits::{LINK_FDS, MAX_PAGE};
use vernal_puddled_proto::{
    Announce, ChannelId, ChannelStat, ConnId, ConnInfo, ConnStat, ProcessInfo, Reply, Request,
    RpcStatus, SegmentId, SegmentInfo, SegmentOf, SegmentStat,
};

use crate::client::{Client, unexpected};
use crate::error::ClientError;
use crate::socket;

/// A buffer for announces: they are short.
const ANNOUNCE_BYTES: usize = 256;
const ACCEPT: &str = "accept";

/// How a channel is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSpec {
    /// Its name: parts with slashes between them.
    pub name: String,
    /// Its owner; this user if not given.
    pub owner: Option<u32>,
    /// Its group; this process' if not given.
    pub group: Option<u32>,
    /// The bits 0o666: who has both may connect.
    pub mode: u16,
}

/// The descriptors of one side of a connection.
#[derive(Debug)]
pub struct Link {
    /// One end of a `SOCK_SEQPACKET` pair, whose other end only the other side has: its hang-up means that the other side is gone.
    pub control: OwnedFd,
    /// The read end of a pipe, non-blocking: readable when the other side wants this one to wake up.
    pub wait: OwnedFd,
    /// The write end of the other side's pipe, non-blocking: one byte wakes it. A full pipe is awake enough.
    pub wake: OwnedFd,
}

impl Link {
    fn new(fds: Vec<OwnedFd>) -> Option<Self> {
        let [control, wait, wake] = <[OwnedFd; LINK_FDS]>::try_from(fds).ok()?;
        Some(Link {
            control,
            wait,
            wake,
        })
    }
}

/// A connection that this client has made.
#[derive(Debug)]
pub struct Connected {
    /// Which, and who serves it.
    pub info: ConnInfo,
    /// This side's descriptors.
    pub link: Link,
}

/// A client that has connected to a channel of this process.
#[derive(Debug)]
pub struct Arrival {
    /// The connection.
    pub conn: ConnId,
    /// Who it is; the kernel vouches for it.
    pub client: ProcessInfo,
    /// This side's descriptors.
    pub link: Link,
}

/// A segment and its descriptor.
#[derive(Debug)]
pub struct Segment {
    /// Which, and where it is mapped.
    pub info: SegmentInfo,
    /// Its memory: writable for the owner, read-only for others.
    pub file: File,
}

/// A channel that this process serves.
#[derive(Debug)]
pub struct Listener {
    channel: ChannelId,
    socket: OwnedFd,
    version: u8,
}

impl Listener {
    /// The channel.
    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    /// Waits for the next client. [`ClientError::Closed`]: puddled has ended, or the channel was closed; open it again.
    pub fn accept(&self) -> Result<Arrival, ClientError> {
        let mut buf = [0; ANNOUNCE_BYTES];
        let received = socket::receive(&self.socket, &mut buf)?;
        self.arrival(&buf, received)
    }

    /// The next client, if one has connected.
    pub fn try_accept(&self) -> Result<Option<Arrival>, ClientError> {
        let mut buf = [0; ANNOUNCE_BYTES];
        match socket::try_receive(&self.socket, &mut buf)? {
            None => Ok(None),
            Some(received) => self.arrival(&buf, received).map(Some),
        }
    }

    fn arrival(
        &self,
        buf: &[u8],
        (len, fds): (usize, Vec<OwnedFd>),
    ) -> Result<Arrival, ClientError> {
        if len == 0 {
            return Err(ClientError::Closed { request: ACCEPT });
        }
        let announce = Announce::decode(self.version, buf.get(..len).unwrap_or_default())?;
        let found = fds.len();
        match (announce, Link::new(fds)) {
            (Announce::Client { conn, client }, Some(link)) => Ok(Arrival { conn, client, link }),
            (Announce::Client { .. }, None) => Err(ClientError::Descriptors {
                request: ACCEPT,
                expected: LINK_FDS,
                found,
            }),
            _ => Err(ClientError::Unexpected { request: ACCEPT }),
        }
    }
}

/// The socket of the channel: readable when a client has connected.
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Channels, connections and segments.
impl Client {
    /// Opens a channel. It is closed when this connection to puddled ends, or by [`Client::channel_close`].
    pub fn channel_open(&mut self, spec: &ChannelSpec) -> Result<Listener, ClientError> {
        let request = Request::ChannelOpen {
            name: spec.name.clone(),
            owner: spec.owner,
            group: spec.group,
            mode: spec.mode,
        };
        let version = self.version();
        match self.call(&request)? {
            (Reply::Channel(channel), fds) => Ok(Listener {
                channel,
                socket: fds.into_iter().next().ok_or_else(|| unexpected(&request))?,
                version,
            }),
            _ => Err(unexpected(&request)),
        }
    }

    /// Closes a channel: its name is free, its connections live on.
    pub fn channel_close(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        self.done(&Request::ChannelClose { channel })
    }

    /// Connects to the channel `name`.
    pub fn connect_to(&mut self, name: &str) -> Result<Connected, ClientError> {
        let request = Request::Connect {
            name: name.to_owned(),
        };
        match self.call(&request)? {
            (Reply::Connected(info), fds) => Ok(Connected {
                info,
                link: Link::new(fds).ok_or_else(|| unexpected(&request))?,
            }),
            _ => Err(unexpected(&request)),
        }
    }

    /// Leaves a connection: what this process owns there is given up, what it has mapped stays mapped until
    /// [`Client::segment_drop`].
    pub fn disconnect(&mut self, conn: ConnId) -> Result<(), ClientError> {
        self.done(&Request::Disconnect { conn })
    }

    fn segment_call(&mut self, request: &Request) -> Result<Segment, ClientError> {
        match self.call(request)? {
            (Reply::Segment(info), fds) => Ok(Segment {
                info,
                file: fds
                    .into_iter()
                    .next()
                    .map(File::from)
                    .ok_or_else(|| unexpected(request))?,
            }),
            _ => Err(unexpected(request)),
        }
    }

    /// A new segment of `size` bytes, which this process owns: map it once, shared and writable, at its home, then say
    /// [`Client::segment_ready`].
    pub fn segment(&mut self, of: SegmentOf, size: u64) -> Result<Segment, ClientError> {
        self.segment_call(&Request::Segment { of, size })
    }

    /// A segment of this process is mapped: from now on nobody can map it writable, and others can map it for reading.
    pub fn segment_ready(&mut self, segment: SegmentId) -> Result<(), ClientError> {
        self.done(&Request::SegmentReady { segment })
    }

    /// Takes a lease on a segment of another process: its descriptor, read-only.
    pub fn segment_map(&mut self, segment: SegmentId) -> Result<Segment, ClientError> {
        self.segment_call(&Request::SegmentMap { segment })
    }

    /// Gives a segment up that this process owns or has a lease on; it has unmapped it.
    pub fn segment_drop(&mut self, segment: SegmentId) -> Result<(), ClientError> {
        self.done(&Request::SegmentDrop { segment })
    }

    /// All channels that this user may see, by name.
    pub fn channels(&mut self) -> Result<Vec<ChannelStat>, ClientError> {
        let limit = MAX_PAGE as u16;
        let mut all: Vec<ChannelStat> = Vec::new();
        loop {
            let after = all.last().map(|c| c.name.clone());
            let request = Request::ChannelList { after, limit };
            let (Reply::Channels { channels, more }, _) = self.call(&request)? else {
                return Err(unexpected(&request));
            };
            if !extend(&mut all, channels, more, |c| c.name.clone()) {
                return Ok(all);
            }
        }
    }

    /// All connections that this user may see.
    pub fn connections(&mut self) -> Result<Vec<ConnStat>, ClientError> {
        let limit = MAX_PAGE as u16;
        let mut all: Vec<ConnStat> = Vec::new();
        loop {
            let after = all.last().map(|c| c.conn);
            let request = Request::ConnList { after, limit };
            let (Reply::Conns { conns, more }, _) = self.call(&request)? else {
                return Err(unexpected(&request));
            };
            if !extend(&mut all, conns, more, |c| c.conn) {
                return Ok(all);
            }
        }
    }

    /// All segments that this user may see.
    pub fn segments(&mut self) -> Result<Vec<SegmentStat>, ClientError> {
        let limit = MAX_PAGE as u16;
        let mut all: Vec<SegmentStat> = Vec::new();
        loop {
            let after = all.last().map(|s| s.info.segment);
            let request = Request::SegmentList { after, limit };
            let (Reply::Segments { segments, more }, _) = self.call(&request)? else {
                return Err(unexpected(&request));
            };
            if !extend(&mut all, segments, more, |s| s.info.segment) {
                return Ok(all);
            }
        }
    }

    /// What puddled does for RPC.
    pub fn rpc_status(&mut self) -> Result<RpcStatus, ClientError> {
        match self.call(&Request::RpcStatus)? {
            (Reply::RpcStatus(status), _) => Ok(status),
            _ => Err(unexpected(&Request::RpcStatus)),
        }
    }
}

/// Appends a page; whether another one is to be asked for. Keys that do not go up would never end.
fn extend<T, K: Ord>(all: &mut Vec<T>, page: Vec<T>, more: bool, key: impl Fn(&T) -> K) -> bool {
    let goes_up = match (all.last(), page.first()) {
        (Some(last), Some(first)) => key(last) < key(first),
        (_, first) => first.is_some(),
    };
    all.extend(page);
    more && goes_up
}
