//! What a client can ask for.

use serde::{Deserialize, Serialize};
use vernal_abi::puddle::{PUDDLE_MAX_SHIFT, PUDDLE_MIN, is_puddle_size};

use crate::error::ProtoError;
use crate::frame::{check_limit, decode, encode};
use crate::limits::{MAX_LOG, MAX_PAGE, MAX_PUDDLES};
use crate::name::check_name;
use crate::types::{Access, Id, PoolKind};

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
}

impl Request {
    /// The packet.
    pub fn encode(&self, version: u8) -> Result<Vec<u8>, ProtoError> {
        self.check()?;
        encode(version, self)
    }

    /// The request in a packet; all of its limits hold.
    pub fn decode(version: u8, packet: &[u8]) -> Result<Self, ProtoError> {
        let request: Request = decode(version, packet)?;
        request.check()?;
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
        }
    }

    fn check(&self) -> Result<(), ProtoError> {
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
            Request::Refresh { .. }
            | Request::Shrink { .. }
            | Request::Journal
            | Request::Close { .. }
            | Request::QuotaGet { .. }
            | Request::QuotaSet { .. }
            | Request::ImportFinish { .. }
            | Request::ImportAbort { .. }
            | Request::Metrics
            | Request::Status => Ok(()),
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
            remedy: "a pool can be readable and writable (0o666), nothing else",
        })
    }
}
