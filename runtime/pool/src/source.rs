//! Where a pool's puddles come from: a directory that this process owns, or puddled.

use std::fs::File;
use vernal_format::Uuid;

use crate::Error;

/// What a pool is, as its source knows it before it is mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolInfo {
    /// Its name, for messages: a directory, or what puddled calls it.
    pub name: String,
    /// Changed in place.
    pub direct: bool,
    /// This process may not write.
    pub read_only: bool,
}

/// A puddle that may be mapped.
#[derive(Debug)]
pub struct GrantedPuddle {
    /// Its identity.
    pub uuid: Uuid,
    /// Its home address.
    pub addr: u64,
    /// Its bytes.
    pub size: u64,
    /// The file, writable unless the pool is read-only.
    pub file: File,
    /// Its name, for messages.
    pub name: String,
}

/// A journal that another process recovers.
#[derive(Debug)]
pub struct JournalGrant {
    /// An empty file.
    pub file: File,
    /// The identity that the journal must get.
    pub uuid: Uuid,
    /// Its name, for messages.
    pub name: String,
    /// The longest that it may become, in bytes.
    pub max_len: u64,
}

/// A log file for direct pools.
#[derive(Debug)]
pub struct LogGrant {
    /// The file.
    pub file: File,
    /// The identity that it must get.
    pub uuid: Uuid,
    /// Its name, for messages.
    pub name: String,
    /// Its bytes.
    pub size: u64,
}

/// Who keeps the metadata of a pool's puddles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// This process, in `F.vernal` beside each file.
    Own,
    /// Another process, which recovers the files when this one ends.
    Other,
}

/// Gives a pool its files.
pub trait PoolSource: Send + Sync {
    /// What the pool is.
    fn describe(&self) -> PoolInfo;

    /// Who keeps the puddles' metadata.
    fn keeper(&self) -> Keeper {
        Keeper::Other
    }

    /// The puddles, recovered; the root puddle first. Their number and names may be anything: the pool's directory decides.
    fn puddles(&self) -> Result<Vec<GrantedPuddle>, Error>;

    /// A new puddle of `size` zero bytes. Until a commit that names it in the pool's directory it may be taken away again.
    fn grow(&self, size: u64) -> Result<GrantedPuddle, Error>;

    /// Takes a puddle away that the committed directory does not name any more, and that is not mapped.
    fn shrink(&self, puddle: Uuid) -> Result<(), Error>;

    /// The journal of this process. `None`: make one beside the root puddle.
    fn journal(&self) -> Result<Option<JournalGrant>, Error>;

    /// A log of `size` bytes for a direct pool.
    fn log(&self, size: u64) -> Result<LogGrant, Error>;

    /// The pool is closed: nothing of it is mapped any more.
    fn close(self: Box<Self>) -> Result<(), Error>;
}
