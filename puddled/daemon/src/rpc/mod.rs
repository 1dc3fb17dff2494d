//! Channels, connections and segments: who serves what, who is connected, who has which memory mapped.
//!
//! All of it lives in memory only. Nothing here outlives the processes that it is about: a channel ends with its server's connection
//! to puddled, a side of a connection with that side's, and a segment when its owner and all who lease it have let go of it. When
//! puddled dies, connections live on without it, and servers open their channels again.
//!
//! A channel's and a connection's entries name segments, a segment's entry names who holds it, and [`Rpc::held`] has all of it by
//! client, so that the end of a client costs what the client had.

mod addresses;
mod memfd;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vernal_puddled_proto::{ChannelId, ConnId, ProcessInfo, SegmentId, SegmentInfo};

use crate::access::Peer;

pub(crate) use addresses::Addresses;
pub(crate) use memfd::{NotMapped, create, read_only, seal};

/// A client of puddled in a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Party {
    /// Its connection to puddled.
    pub client: u64,
    pub info: ProcessInfo,
}

impl Party {
    pub fn new(client: u64, peer: &Peer) -> Self {
        Party {
            client,
            info: ProcessInfo {
                pid: peer.pid,
                uid: peer.uid,
                gid: peer.gid,
            },
        }
    }
}

/// A channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub id: ChannelId,
    pub name: String,
    pub owner: u32,
    pub group: u32,
    pub mode: u16,
    pub server: Party,
    /// Where arrivals are announced; the server has the other end.
    pub socket: Arc<OwnedFd>,
    pub conns: BTreeSet<ConnId>,
    pub segments: BTreeSet<SegmentId>,
    /// Connections since it was opened.
    pub connected: u64,
}

/// A connection. It is there until both sides have left.
#[derive(Debug)]
pub(crate) struct Conn {
    pub id: ConnId,
    pub channel: ChannelId,
    /// Name and owner of the channel, which may be gone.
    pub name: String,
    pub channel_owner: u32,
    pub client: Option<Party>,
    pub server: Option<Party>,
    pub segments: BTreeSet<SegmentId>,
}

impl Conn {
    /// Whether `client` is one of its sides.
    pub fn has(&self, client: u64) -> bool {
        [self.client, self.server]
            .iter()
            .flatten()
            .any(|p| p.client == client)
    }
}

/// A segment. It is there while somebody holds it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub info: SegmentInfo,
    /// Who made it; the only one that may write it.
    pub maker: Party,
    /// Whether its maker still has it.
    pub owned: bool,
    /// Whether it is mapped and sealed.
    pub ready: bool,
    /// Who has it mapped besides, by client.
    pub leases: BTreeMap<u64, ProcessInfo>,
    /// How many of those who hold it a user has: the user pays once.
    uids: BTreeMap<u32, u32>,
    /// Writable until it is ready, read-only from then on.
    pub file: Arc<File>,
}

/// What a client has.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub channels: BTreeSet<ChannelId>,
    pub conns: BTreeSet<ConnId>,
    pub segments: BTreeSet<SegmentId>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Rpc {
    pub names: BTreeMap<String, ChannelId>,
    pub channels: HashMap<ChannelId, Channel>,
    pub conns: BTreeMap<ConnId, Conn>,
    pub segments: BTreeMap<SegmentId, Segment>,
    pub held: HashMap<u64, Held>,
    pub addresses: Addresses,
    /// Most segments: each keeps a descriptor of puddled open.
    pub max_segments: usize,
    /// Connections since the start.
    pub connected: u64,
    next: u64,
}
