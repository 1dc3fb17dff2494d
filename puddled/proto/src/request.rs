//! What a client can ask for.

use serde::{Deserialize, Serialize};
use vernal_abi::puddle::{PUDDLE_MAX_SHIFT, PUDDLE_MIN, is_puddle_size};
use vernal_abi::segment::is_segment_size;

use crate::error::ProtoError;
use crate::frame::{check_limit, decode, encode};
use crate::limits::{MAX_LOG, MAX_PAGE, MAX_PUDDLES};
use crate::name::{check_channel_name, check_name};
use crate::rpc::check_version;
use crate::types::{Access, ChannelId, ConnId, Id, PoolKind, SegmentId, SegmentOf};

/// A puddle of a pool that is being imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedPuddle {
    /// Its size in bytes.
    pub size: u64,
}

/// A request; each has one reply, which is named here. Every reply can be [`crate::Reply::Failed`] instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Request {
    /// Makes an empty pool with one puddle. [`crate::Reply::Pool`].
    Create {
        /// Its name.
        name: String,
        /// Its owner; the client's user if not given. Another one only for root.
        owner: Option<u32>,
        /// Its group; the client's if not given. Another one than the client's own groups only for root.
        group: Option<u32>,
        /// Who may read and write it, as for a file: the bits 0o666.
        mode: u16,
        /// Buffered or direct.
        kind: PoolKind,
        /// Bytes that the root puddle should hold; rounded up to a puddle's size.
        size: u64,
    },
    /// Opens a pool. [`crate::Reply::Opened`], with a descriptor for each puddle, the root puddle first. With
    /// [`Access::Write`] on a buffered pool the client must use the journal of [`Request::Journal`].
    Open {
        /// Its name.
        name: String,
        /// What for.
        access: Access,
    },
    /// The puddles of an open pool once more: in a direct pool, another writer may have added some.
    /// [`crate::Reply::Opened`], as for [`Request::Open`].
    Refresh {
        /// The pool.
        pool: Id,
    },
    /// Adds a puddle to a pool that is open for writing. [`crate::Reply::Grown`] with its descriptor. It stays if the pool page
    /// names it when the pool is closed or recovered.
    Grow {
        /// The pool.
        pool: Id,
        /// Bytes; rounded up to a puddle's size.
        size: u64,
    },
    /// Gives a puddle back. The client no longer has it mapped and its journal no longer serves it; the committed pool page does
    /// not name it. [`crate::Reply::Done`].
    Shrink {
        /// The pool.
        pool: Id,
        /// The puddle.
        puddle: Id,
    },
    /// The client's own journal for buffered pools, made at first use. [`crate::Reply::Journal`] with its descriptor.
    Journal,
    /// A log file for direct pools, empty and with its header in place. [`crate::Reply::Log`] with its descriptor.
    Log {
        /// Bytes of it; rounded up to whole pages.
        size: u64,
        /// The log that it continues; a new log if not given.
        log: Option<Id>,
    },
    /// Closes a pool: the client has unmapped it, and its journal no longer serves it. [`crate::Reply::Done`].
    Close {
        /// The pool.
        pool: Id,
    },
    /// Removes a pool that nobody has open. [`crate::Reply::Done`].
    Remove {
        /// Its name.
        name: String,
    },
    /// The pools that the client may read, by name. [`crate::Reply::Pools`].
    List {
        /// Names after this one.
        after: Option<String>,
        /// At most so many.
        limit: u16,
    },
    /// One pool and its puddles. [`crate::Reply::Stat`].
    Stat {
        /// Its name.
        name: String,
    },
    /// Changes who may read and write a pool. Owner or root. [`crate::Reply::Done`].
    SetMode {
        /// Its name.
        name: String,
        /// The bits 0o666.
        mode: u16,
    },
    /// Changes owner (root only) or group (the owner, to one of its own groups). [`crate::Reply::Done`].
    Chown {
        /// Its name.
        name: String,
        /// The new owner.
        owner: Option<u32>,
        /// The new group.
        group: Option<u32>,
    },
    /// A user's quota. Root and puddled's own user, or the user itself. [`crate::Reply::Quota`].
    QuotaGet {
        /// The user.
        uid: u32,
    },
    /// Sets a user's quota. Root and puddled's own user only. [`crate::Reply::Quota`].
    QuotaSet {
        /// The user.
        uid: u32,
        /// Bytes of puddles; `None`: the default of this puddled.
        bytes: Option<u64>,
    },
    /// Releases a pool from quarantine as it is, without replaying anything. Owner or root. [`crate::Reply::Done`].
    Accept {
        /// Its name.
        name: String,
    },
    /// Starts a pool whose content the client writes: [`crate::Reply::Import`] with a descriptor for each puddle, the root first.
    /// Nobody sees it before it is finished; it is gone when the connection ends before.
    ImportBegin {
        /// Its name.
        name: String,
        /// As in [`Request::Create`].
        owner: Option<u32>,
        /// As in [`Request::Create`].
        group: Option<u32>,
        /// As in [`Request::Create`].
        mode: u16,
        /// Buffered or direct.
        kind: PoolKind,
        /// The puddles, the root first.
        puddles: Vec<StagedPuddle>,
        /// Do not reserve space for what the client leaves unwritten: faster, and the disk may be found full later.
        sparse: bool,
    },
    /// Starts a pool as a copy of another one, which the client may read and nobody writes to. [`crate::Reply::Import`], with
    /// descriptors of the copies: the client adapts what has to differ, then finishes it.
    CloneBegin {
        /// The pool to copy.
        from: String,
        /// The name of the copy.
        name: String,
        /// As in [`Request::Create`].
        mode: u16,
    },
    /// Makes an import a pool, whole or not at all. [`crate::Reply::Pool`].
    ImportFinish {
        /// The import.
        import: Id,
    },
    /// Gives an import up. [`crate::Reply::Done`].
    ImportAbort {
        /// The import.
        import: Id,
    },
    /// The metrics as text, in the format of Prometheus. [`crate::Reply::Metrics`].
    Metrics,
    /// What puddled is doing. [`crate::Reply::Status`].
    Status,
    /// Opens a channel, whose server the client becomes; its name is free again when the client's connection ends.
    /// [`crate::Reply::Channel`] with a `SOCK_SEQPACKET` socket on which [`crate::Announce`]s come. From version 2 on, as all that
    /// follow.
    ChannelOpen {
        /// Its name: parts with slashes between them.
        name: String,
        /// Its owner; the client's user if not given. Another one only for root.
        owner: Option<u32>,
        /// Its group; the client's if not given. Another one than the client's own groups only for root.
        group: Option<u32>,
        /// The bits 0o666: who has both may connect, who may read can see it in lists.
        mode: u16,
    },
    /// Closes a channel: its name is free, its connections live on. [`crate::Reply::Done`].
    ChannelClose {
        /// The channel.
        channel: ChannelId,
    },
    /// Connects to a channel. [`crate::Reply::Connected`] with [`crate::limits::LINK_FDS`] descriptors; the server gets as many.
    Connect {
        /// Its name.
        name: String,
    },
    /// Leaves a connection, of which the client is one side: what it owns there is given up, what it has mapped stays mapped.
    /// [`crate::Reply::Done`].
    Disconnect {
        /// The connection.
        conn: ConnId,
    },
    /// Makes a segment, which the client owns. [`crate::Reply::Segment`] with its descriptor, writable. The client maps it at
    /// its home, once, and says [`Request::SegmentReady`]; before that nobody else gets it.
    Segment {
        /// What it is for.
        of: SegmentOf,
        /// Its size, which must be one of [`vernal_abi::segment::is_segment_size`].
        size: u64,
    },
    /// The client has mapped a segment of its own: puddled seals it, so that nobody can map it writable any more, nor change its
    /// length. [`crate::Reply::Done`].
    SegmentReady {
        /// The segment.
        segment: SegmentId,
    },
    /// Takes a lease on a segment of the other side, or of a channel that the client is connected to; users that own the segment's
    /// owner may look at it too. [`crate::Reply::Segment`] with its descriptor, read-only.
    SegmentMap {
        /// The segment.
        segment: SegmentId,
    },
    /// Gives up a segment, of which the client is the owner, or has a lease. [`crate::Reply::Done`].
    SegmentDrop {
        /// The segment.
        segment: SegmentId,
    },
    /// The channels that the client may see, by name. [`crate::Reply::Channels`].
    ChannelList {
        /// Names after this one.
        after: Option<String>,
        /// At most so many.
        limit: u16,
    },
    /// The connections that the client may see: its user's own ones, those of its user's channels, all for root.
    /// [`crate::Reply::Conns`].
    ConnList {
        /// Numbers after this one.
        after: Option<ConnId>,
        /// At most so many.
        limit: u16,
    },
    /// The segments that the client may see: those that its user owns or has mapped, or that belong to a connection that it may
    /// see. [`crate::Reply::Segments`].
    SegmentList {
        /// Numbers after this one.
        after: Option<SegmentId>,
        /// At most so many.
        limit: u16,
    },
    /// What puddled does for RPC. [`crate::Reply::RpcStatus`].
    RpcStatus,
    /// The lock of a direct pool's allocator, which all of its writers share. [`crate::Reply::Allocator`] with the descriptor of a
    /// page: its first 32-bit word is 0, or the token of the writer that has the lock, with the highest bit set when others
    /// wait for it (futex(2)); its second 64-bit word is the token of the one that had it last. puddled frees the lock of a
    /// client that has died after it has recovered what the client left, and sets the second word to 0.
    Allocator {
        /// The pool, open for writing.
        pool: Id,
    },
}

impl Request {
    /// The packet.
    pub fn encode(&self, version: u8) -> Result<Vec<u8>, ProtoError> {
        self.check(version)?;
        encode(version, self)
    }

    /// The request in a packet; all of its limits hold.
    pub fn decode(version: u8, packet: &[u8]) -> Result<Self, ProtoError> {
        let request: Request = decode(version, packet)?;
        request.check(version)?;
        Ok(request)
    }

    /// A word for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Request::Create { .. } => "create",
            Request::Open { .. } => "open",
            Request::Refresh { .. } => "refresh",
            Request::Grow { .. } => "grow",
            Request::Shrink { .. } => "shrink",
            Request::Journal => "journal",
            Request::Log { .. } => "log",
            Request::Allocator { .. } => "allocator",
            Request::Close { .. } => "close",
            Request::Remove { .. } => "remove",
            Request::List { .. } => "list",
            Request::Stat { .. } => "stat",
            Request::SetMode { .. } => "set_mode",
            Request::Chown { .. } => "chown",
            Request::QuotaGet { .. } => "quota_get",
            Request::QuotaSet { .. } => "quota_set",
            Request::Accept { .. } => "accept",
            Request::ImportBegin { .. } => "import_begin",
            Request::CloneBegin { .. } => "clone_begin",
            Request::ImportFinish { .. } => "import_finish",
            Request::ImportAbort { .. } => "import_abort",
            Request::Metrics => "metrics",
            Request::Status => "status",
            Request::ChannelOpen { .. } => "channel_open",
            Request::ChannelClose { .. } => "channel_close",
            Request::Connect { .. } => "connect",
            Request::Disconnect { .. } => "disconnect",
            Request::Segment { .. } => "segment",
            Request::SegmentReady { .. } => "segment_ready",
            Request::SegmentMap { .. } => "segment_map",
            Request::SegmentDrop { .. } => "segment_drop",
            Request::ChannelList { .. } => "channel_list",
            Request::ConnList { .. } => "conn_list",
            Request::SegmentList { .. } => "segment_list",
            Request::RpcStatus => "rpc_status",
        }
    }

    /// Whether it is about channels, connections or segments.
    pub fn is_rpc(&self) -> bool {
        matches!(
            self,
            Request::ChannelOpen { .. }
                | Request::ChannelClose { .. }
                | Request::Connect { .. }
                | Request::Disconnect { .. }
                | Request::Segment { .. }
                | Request::SegmentReady { .. }
                | Request::SegmentMap { .. }
                | Request::SegmentDrop { .. }
                | Request::ChannelList { .. }
                | Request::ConnList { .. }
                | Request::SegmentList { .. }
                | Request::RpcStatus
        )
    }

    fn check(&self, version: u8) -> Result<(), ProtoError> {
        // The allocator's lock came with the same version.
        if self.is_rpc() || matches!(self, Request::Allocator { .. }) {
            check_version(self.kind(), version)?;
        }
        match self {
            Request::Create {
                name, mode, size, ..
            } => {
                check_name(name)?;
                check_mode(*mode)?;
                check_limit("a pool size", *size, PUDDLE_MIN << PUDDLE_MAX_SHIFT)
            }
            Request::Open { name, .. }
            | Request::Remove { name }
            | Request::Stat { name }
            | Request::Chown { name, .. }
            | Request::Accept { name } => Ok(check_name(name)?),
            Request::SetMode { name, mode } => {
                check_name(name)?;
                check_mode(*mode)
            }
            Request::Grow { size, .. } => {
                check_limit("a puddle size", *size, PUDDLE_MIN << PUDDLE_MAX_SHIFT)
            }
            Request::Log { size, .. } => check_limit("a log size", *size, MAX_LOG),
            Request::List { after, limit } => {
                if let Some(after) = after {
                    check_name(after)?;
                }
                check_limit("a page length", u64::from(*limit), MAX_PAGE as u64)
            }
            Request::ImportBegin {
                name,
                mode,
                puddles,
                ..
            } => {
                check_name(name)?;
                check_mode(*mode)?;
                if puddles.is_empty() {
                    return Err(ProtoError::Value {
                        what: "a number of puddles",
                        value: 0,
                        remedy: "a pool has a root puddle",
                    });
                }
                check_limit(
                    "a number of puddles",
                    puddles.len() as u64,
                    MAX_PUDDLES as u64,
                )?;
                match puddles.iter().find(|p| !is_puddle_size(p.size)) {
                    None => Ok(()),
                    Some(p) => Err(ProtoError::Value {
                        what: "a puddle size",
                        value: p.size,
                        remedy: "puddles have 2 MiB, or that times a power of two, up to 256 GiB",
                    }),
                }
            }
            Request::CloneBegin { from, name, mode } => {
                check_name(from)?;
                check_name(name)?;
                check_mode(*mode)
            }
            Request::ChannelOpen { name, mode, .. } => {
                check_channel_name(name)?;
                check_mode(*mode)
            }
            Request::Connect { name } => Ok(check_channel_name(name)?),
            Request::Segment { size, .. } => {
                if is_segment_size(*size) {
                    Ok(())
                } else {
                    Err(ProtoError::Value {
                        what: "a segment size",
                        value: *size,
                        remedy: "segments have 2 MiB, or that times a power of two, up to 64 GiB",
                    })
                }
            }
            Request::ChannelList { after, limit } => {
                if let Some(after) = after {
                    check_channel_name(after)?;
                }
                check_limit("a page length", u64::from(*limit), MAX_PAGE as u64)
            }
            Request::ConnList { limit, .. } | Request::SegmentList { limit, .. } => {
                check_limit("a page length", u64::from(*limit), MAX_PAGE as u64)
            }
            Request::Refresh { .. }
            | Request::Shrink { .. }
            | Request::Journal
            | Request::Allocator { .. }
            | Request::Close { .. }
            | Request::QuotaGet { .. }
            | Request::QuotaSet { .. }
            | Request::ImportFinish { .. }
            | Request::ImportAbort { .. }
            | Request::Metrics
            | Request::Status
            | Request::ChannelClose { .. }
            | Request::Disconnect { .. }
            | Request::SegmentReady { .. }
            | Request::SegmentMap { .. }
            | Request::SegmentDrop { .. }
            | Request::RpcStatus => Ok(()),
        }
    }
}

fn check_mode(mode: u16) -> Result<(), ProtoError> {
    if mode & !0o666 == 0 {
        Ok(())
    } else {
        Err(ProtoError::Value {
            what: "a mode",
            value: u64::from(mode),
            remedy: "pools and channels can be readable and writable (0o666), nothing else",
        })
    }
}
