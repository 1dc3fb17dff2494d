//! The redo journal: how a commit becomes durable with one flush, and how it is found again after a crash.
//!
//! Everything is generic over [`vernal_sys::Media`], so the crash model of the test suite runs this very code. The
//! invariants, the byte layouts and the crash argument are in `docs/format.md`.
//!
//! This crate knows nothing of mappings, threads, shadows or dirty lists: it is given lines that changed.
//!
//! * [`Committer`]: stage lines, commit, checkpoint; one [`Journal`] and the homes that it serves.
//! * [`MetaFile`]: a file's metadata; [`Unrecovered`] until [`recover_home`] has run.
//! * [`direct`]: the undo and redo logs of pools that are changed in place.
//! * [`JournalReader`]: what a journal holds, for recovery and for `vernal info`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod apply;
mod builder;
mod committer;
mod diff;
pub mod direct;
mod error;
mod journal;
mod meta_file;
mod pending;
mod reader;
mod recover;

pub use builder::RecordBuilder;
pub use committer::{CommitStats, Committer, HomeId};
pub use diff::diff_line;
pub use error::{JournalError, RecoveryError};
pub use journal::{DEFAULT_LOG_LEN, Journal, JournalConfig};
pub use meta_file::{MetaFile, Recovered, Unrecovered};
pub use reader::{JournalReader, LogEnd, RecordRef, ScanSummary, ServedFile};
pub use recover::{RecoveryReport, check_home, recover_home};
pub use vernal_format::{
    Entry, FormatError, JOURNAL_PATH_MAX, LOG_OFFSET, MAX_MEMBERS, MEMBER_PATH_MAX, Member, Meta,
    MetaState, Uuid,
};

/// Bytes at the front of a journal that hold its superblock, in both slots.
pub const SUPERBLOCKS_LEN: u64 = (vernal_format::SLOT_LEN * vernal_format::SLOT_COUNT) as u64;
