//! Channels, connections and segments: what replies and announces say of them.

use serde::{Deserialize, Serialize};

use crate::error::ProtoError;
use crate::frame::{VERSION_RPC, check_limit, decode, encode};
use crate::limits::MAX_LEASES;
use crate::name::check_channel_name;
use crate::types::{ChannelId, ConnId, SegmentId, SegmentOf};

/// A process, as puddled saw it when it connected. The kernel vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its number, as puddled sees it: in another PID namespace it has another one.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// A connection, as the client that made it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnInfo {
    /// The connection.
    pub conn: ConnId,
    /// The channel.
    pub channel: ChannelId,
    /// Who serves it.
    pub server: ProcessInfo,
}

/// A segment of memory and where every process maps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentInfo {
    /// The segment.
    pub segment: SegmentId,
    /// What it is for.
    pub of: SegmentOf,
    /// Its home address, in the RPC space.
    pub addr: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// A channel, in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelStat {
    /// The channel.
    pub channel: ChannelId,
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: u32,
    /// Its group.
    pub group: u32,
    /// The bits 0o666: readable and writable means that one may connect, readable that one may see it.
    pub mode: u16,
    /// Who serves it.
    pub server: ProcessInfo,
    /// Its connections.
    pub connections: u32,
    /// Connections since it was opened.
    pub connected: u64,
    /// Segments of the channel itself.
    pub segments: u32,
    /// Bytes of the segments of the channel and of its connections.
    pub bytes: u64,
}

/// A connection, in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnStat {
    /// The connection.
    pub conn: ConnId,
    /// The channel that it was made on.
    pub channel: ChannelId,
    /// That channel's name; the channel may be gone.
    pub name: String,
    /// The client, while it has not left.
    pub client: Option<ProcessInfo>,
    /// The server, while it has not left.
    pub server: Option<ProcessInfo>,
    /// Segments of the connection.
    pub segments: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// A segment, in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentStat {
    /// The segment.
    pub info: SegmentInfo,
    /// Whether its owner has mapped it and puddled has sealed it.
    pub ready: bool,
    /// Who may write it; nobody when only leases keep it.
    pub owner: Option<ProcessInfo>,
    /// Who has it mapped besides, as far as there is room.
    pub leases: Vec<ProcessInfo>,
}

/// What puddled does for RPC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcStatus {
    /// Channels.
    pub channels: u64,
    /// Connections that at least one side has not left.
    pub connections: u64,
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Address space given to them.
    pub address_bytes: u64,
    /// Mappings of segments by others than their owners.
    pub leases: u64,
    /// Segments whose owner is gone, and that leases keep.
    pub orphans: u64,
    /// Connections since puddled started.
    pub connected: u64,
    /// Requests on channels, connections and segments that were refused since then.
    pub refused: u64,
}

/// What puddled tells the server of a channel, on the channel's own socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Announce {
    /// A client has connected. The [`crate::limits::LINK_FDS`] descriptors of the connection travel with it.
    Client {
        /// The connection.
        conn: ConnId,
        /// The client.
        client: ProcessInfo,
    },
}

impl Announce {
    /// The packet.
    pub fn encode(&self, version: u8) -> Result<Vec<u8>, ProtoError> {
        encode(version, self)
    }

    /// The announce in a packet.
    pub fn decode(version: u8, packet: &[u8]) -> Result<Self, ProtoError> {
        check_version("an announce", version)?;
        decode(version, packet)
    }
}

pub(crate) fn check_version(what: &'static str, agreed: u8) -> Result<(), ProtoError> {
    if agreed >= VERSION_RPC {
        Ok(())
    } else {
        Err(ProtoError::TooOld {
            what,
            needs: VERSION_RPC,
            agreed,
        })
    }
}

impl ChannelStat {
    pub(crate) fn check(&self) -> Result<(), ProtoError> {
        Ok(check_channel_name(&self.name)?)
    }
}

impl ConnStat {
    pub(crate) fn check(&self) -> Result<(), ProtoError> {
        Ok(check_channel_name(&self.name)?)
    }
}

impl SegmentStat {
    pub(crate) fn check(&self) -> Result<(), ProtoError> {
        check_limit(
            "a list of leases",
            self.leases.len() as u64,
            MAX_LEASES as u64,
        )
    }
}
