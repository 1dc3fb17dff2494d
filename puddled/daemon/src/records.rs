//! What the registry keeps: one record for each pool, each grant and each quarantined journal.

use serde::{Deserialize, Serialize};
use vernal_puddled_proto::{Access, Id, PoolKind};

/// A puddle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PuddleRecord {
    /// Its identity; also in its metadata.
    pub id: Id,
    /// Its home address, which no other puddle of this machine overlaps.
    pub addr: u64,
    /// Its bytes, and the length of its file.
    pub size: u64,
}

/// How far a pool is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolStatus {
    /// There.
    Live,
    /// Waits for inspection.
    Quarantined {
        /// Why.
        reason: String,
        /// Names the [`QuarantineRecord`].
        journal: Id,
    },
    /// Is being removed: a crash does not bring it back.
    Removing,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Its identity.
    pub id: Id,
    /// Its name, which no other pool has.
    pub name: String,
    /// Its owner.
    pub owner: u32,
    /// Its group.
    pub group: u32,
    /// The bits 0o666.
    pub mode: u16,
    /// Buffered or direct.
    pub kind: PoolKind,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// How far it is.
    pub status: PoolStatus,
    /// Its puddles, the root first.
    pub puddles: Vec<PuddleRecord>,
}

impl PoolRecord {
    /// Bytes of all puddles.
    pub fn bytes(&self) -> u64 {
        self.puddles
            .iter()
            .fold(0, |sum, p| sum.saturating_add(p.size))
    }
}

/// What a client was granted of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedPool {
    /// The pool.
    pub pool: Id,
    /// How.
    pub access: Access,
    /// The puddles whose descriptors it got, and still has.
    pub puddles: Vec<PuddleRecord>,
    /// Puddles that it gave back: its journal may still name them, and nothing of that is replayed.
    pub released: Vec<Id>,
}

/// A log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Its identity.
    pub id: Id,
    /// The log that it is part of.
    pub log: Id,
    /// Its place in the log.
    pub position: u32,
    /// Its length.
    pub size: u64,
}

/// What a client can have changed, so that its journal and its logs are replayed for this and for nothing else. It is
/// durable before the first descriptor leaves, and goes only when everything is settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord {
    /// The client's number; the folder of its journal is named after it.
    pub client: u64,
    /// Its process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its journal for buffered pools.
    pub journal: Option<Id>,
    /// Its log files for direct pools.
    pub logs: Vec<LogRecord>,
    /// Its pools that are open for writing.
    pub pools: Vec<GrantedPool>,
}

/// A journal or a set of logs that could not be valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// Names the folder under `quarantine`.
    pub id: Id,
    /// Why.
    pub reason: String,
    /// What its client had been granted.
    pub grant: GrantRecord,
    /// When, in seconds since 1970.
    pub since: u64,
}
