//! What puddled answers.

use serde::{Deserialize, Serialize};

use crate::error::{Failure, ProtoError};
use crate::frame::{check_limit, check_text, decode, encode};
use crate::limits::{MAX_METRICS, MAX_PAGE, MAX_PUDDLES, MAX_USERS};
use crate::name::check_name;
use crate::rpc::{
    ChannelStat, ConnInfo, ConnStat, RpcStatus, SegmentInfo, SegmentStat, check_version,
};
use crate::types::{ChannelId, Id, PoolKind};

/// A puddle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PuddleInfo {
    /// Its identity.
    pub id: Id,
    /// Its home address: where every process maps it.
    pub addr: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// Who has a pool open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UseInfo {
    /// The process that opened it.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Whether it may write.
    pub writes: bool,
}

/// How a pool is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing is wrong.
    Ready,
    /// What its last writer left is being recovered.
    Recovering,
    /// Its last writer's connection has ended, and a process still has it mapped.
    Lingering,
    /// Waits for inspection.
    Quarantined {
        /// Why.
        reason: String,
    },
    /// A file is missing or damaged.
    Damaged {
        /// Which, and how.
        reason: String,
    },
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStat {
    /// Its identity.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: u32,
    /// Its group.
    pub group: u32,
    /// The bits 0o666.
    pub mode: u16,
    /// Buffered or direct.
    pub kind: PoolKind,
    /// Bytes of all its puddles.
    pub bytes: u64,
    /// How many puddles it has.
    pub puddles: u32,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// How it is.
    pub condition: Condition,
    /// Who has it open, as far as there is room.
    pub users: Vec<UseInfo>,
}

/// A client's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalInfo {
    /// The identity that the client must give it.
    pub id: Id,
    /// Its name, for messages.
    pub name: String,
    /// The longest that it may become.
    pub max_len: u64,
}

/// A log file of a direct pool, as its header has it. Its generation is 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogInfo {
    /// Its identity.
    pub id: Id,
    /// The log that it is part of: the identity of the log's first file.
    pub log: Id,
    /// Its place in the log.
    pub position: u32,
    /// The client's log space.
    pub space: Id,
    /// Its length in bytes.
    pub size: u64,
    /// Its name, for messages.
    pub name: String,
}

/// What puddled is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime: u64,
    /// Connections.
    pub clients: u32,
    /// Pools.
    pub pools: u64,
    /// Puddles.
    pub puddles: u64,
    /// Bytes of all puddles.
    pub bytes: u64,
    /// Pools in quarantine.
    pub quarantined: u64,
    /// Pools that are being recovered, or still mapped by a process whose connection has ended.
    pub unsettled: u64,
    /// Recoveries that replayed something, since it started.
    pub recoveries: u64,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reply {
    /// Refused; nothing was changed.
    Failed(Failure),
    /// Done.
    Done,
    /// A pool.
    Pool(PoolStat),
    /// An open pool; a descriptor for each puddle, in this order.
    Opened {
        /// The pool.
        pool: PoolStat,
        /// Its puddles, the root first.
        puddles: Vec<PuddleInfo>,
    },
    /// A new puddle, with its descriptor.
    Grown(PuddleInfo),
    /// The journal, with its descriptor.
    Journal(JournalInfo),
    /// A log file, with its descriptor.
    Log(LogInfo),
    /// A page of pools.
    Pools {
        /// The pools, by name.
        pools: Vec<PoolStat>,
        /// Whether there are more behind the last one.
        more: bool,
    },
    /// A pool and its puddles.
    Stat {
        /// The pool.
        pool: PoolStat,
        /// Its puddles, the root first.
        puddles: Vec<PuddleInfo>,
    },
    /// A user's quota.
    Quota {
        /// The user.
        uid: u32,
        /// Bytes of the user's puddles.
        used: u64,
        /// What is allowed; `None`: no limit.
        limit: Option<u64>,
    },
    /// An import; a descriptor for each puddle, in this order.
    Import {
        /// Names it.
        import: Id,
        /// Identity, home address and size of each puddle.
        puddles: Vec<PuddleInfo>,
    },
    /// The metrics.
    Metrics(String),
    /// What puddled is doing.
    Status(Status),
    /// A channel, with its socket. From version 2 on, as all that follow.
    Channel(ChannelId),
    /// A connection, with its descriptors.
    Connected(ConnInfo),
    /// A segment, with its descriptor.
    Segment(SegmentInfo),
    /// A page of channels.
    Channels {
        /// In the order of their names.
        channels: Vec<ChannelStat>,
        /// There are more.
        more: bool,
    },
    /// A page of connections.
    Conns {
        /// In the order of their numbers.
        conns: Vec<ConnStat>,
        /// There are more.
        more: bool,
    },
    /// A page of segments.
    Segments {
        /// In the order of their numbers.
        segments: Vec<SegmentStat>,
        /// There are more.
        more: bool,
    },
    /// What puddled does for RPC.
    RpcStatus(RpcStatus),
    /// The lock of a direct pool's allocator, with the descriptor of its page.
    Allocator {
        /// What this client writes there when it takes the lock; neither 0 nor above 2^31 - 1.
        token: u32,
    },
}

impl Reply {
    /// The packet.
    pub fn encode(&self, version: u8) -> Result<Vec<u8>, ProtoError> {
        self.check(version)?;
        encode(version, self)
    }

    /// The reply in a packet; all of its limits hold.
    pub fn decode(version: u8, packet: &[u8]) -> Result<Self, ProtoError> {
        let reply: Reply = decode(version, packet)?;
        reply.check(version)?;
        Ok(reply)
    }

    fn check(&self, version: u8) -> Result<(), ProtoError> {
        match self {
            Reply::Channel(_) | Reply::Connected(_) | Reply::Segment(_) | Reply::RpcStatus(_) => {
                check_version("a reply on channels", version)
            }
            Reply::Allocator { .. } => check_version("the lock of an allocator", version),
            Reply::Channels { channels, .. } => {
                check_version("a list of channels", version)?;
                check_page("a page of channels", channels.len())?;
                channels.iter().try_for_each(ChannelStat::check)
            }
            Reply::Conns { conns, .. } => {
                check_version("a list of connections", version)?;
                check_page("a page of connections", conns.len())?;
                conns.iter().try_for_each(ConnStat::check)
            }
            Reply::Segments { segments, .. } => {
                check_version("a list of segments", version)?;
                check_page("a page of segments", segments.len())?;
                segments.iter().try_for_each(SegmentStat::check)
            }
            Reply::Failed(f) => check_text("an error text", &f.text),
            Reply::Pool(pool) => pool.check(),
            Reply::Opened { pool, puddles } | Reply::Stat { pool, puddles } => {
                pool.check()?;
                check_puddles(puddles)
            }
            Reply::Journal(j) => check_text("a journal name", &j.name),
            Reply::Log(l) => check_text("a log name", &l.name),
            Reply::Pools { pools, .. } => {
                check_page("a page of pools", pools.len())?;
                pools.iter().try_for_each(PoolStat::check)
            }
            Reply::Import { puddles, .. } => check_puddles(puddles),
            Reply::Metrics(text) => {
                check_limit("a metrics text", text.len() as u64, MAX_METRICS as u64)
            }
            Reply::Status(s) => check_text("a version", &s.version),
            Reply::Done | Reply::Grown(_) | Reply::Quota { .. } => Ok(()),
        }
    }
}

impl PoolStat {
    fn check(&self) -> Result<(), ProtoError> {
        check_name(&self.name)?;
        match &self.condition {
            Condition::Quarantined { reason } | Condition::Damaged { reason } => {
                check_text("a reason", reason)?;
            }
            Condition::Ready | Condition::Recovering | Condition::Lingering => {}
        }
        check_limit("a list of users", self.users.len() as u64, MAX_USERS as u64)
    }
}

fn check_page(what: &'static str, len: usize) -> Result<(), ProtoError> {
    check_limit(what, len as u64, MAX_PAGE as u64)
}

fn check_puddles(puddles: &[PuddleInfo]) -> Result<(), ProtoError> {
    check_limit(
        "a list of puddles",
        puddles.len() as u64,
        MAX_PUDDLES as u64,
    )
}
