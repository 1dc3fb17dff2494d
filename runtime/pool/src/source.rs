//! Where a pool's puddles come from: a directory that this process owns, or puddled.

use std::fs::File;
use std::path::Path;
use vernal_format::Uuid;
use vernal_snapshot::runtime::OwnedPuddle;

use crate::Error;
use crate::direct::DirectGrant;

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

/// Gives a pool its files.
pub trait PoolSource: Send + Sync {
    /// What the pool is.
    fn describe(&self) -> PoolInfo;

    /// The puddles, recovered; the root puddle first. Their number and names may be anything: the pool's directory decides.
    fn puddles(&self) -> Result<Vec<GrantedPuddle>, Error>;

    /// A new puddle of `size` zero bytes. Until a commit that names it in the pool's directory it may be taken away again.
    fn grow(&self, size: u64) -> Result<GrantedPuddle, Error>;

    /// The metadata of a puddle that is about to be mapped for writing, when this process keeps them; afterwards the mapping
    /// has them. `None`: another process keeps them.
    fn take_owner(&self, _puddle: Uuid) -> Option<OwnedPuddle> {
        None
    }

    /// Gives a puddle whose home address is taken in this process another one. `None`: its addresses do not change.
    fn readdress(&self, _puddle: Uuid) -> Result<Option<u64>, Error> {
        Ok(None)
    }

    /// Deletes what the directory does not name: a crash left it. Called with the pool open for writing.
    fn sweep(&self, _named: &[Uuid]) -> Result<(), Error> {
        Ok(())
    }

    /// The directory of an embedded pool: the logs of a direct one lie there.
    fn directory(&self) -> Option<&Path> {
        None
    }

    /// The name of a puddle, for messages.
    fn puddle_name(&self, puddle: Uuid) -> String {
        puddle.to_string()
    }

    /// Takes a puddle away that the committed directory does not name any more, and that is not mapped.
    fn shrink(&self, puddle: Uuid) -> Result<(), Error>;

    /// The journal of this process. `None`: make one beside the root puddle.
    fn journal(&self) -> Result<Option<JournalGrant>, Error>;

    /// What a direct pool needs besides its puddles, when another process recovers it. `None`: all of that lies in
    /// [`directory`](Self::directory).
    fn direct(&self) -> Result<Option<DirectGrant>, Error> {
        Ok(None)
    }

    /// A puddle that another process has added to a direct pool since it was opened.
    fn added(&self, puddle: Uuid) -> Result<GrantedPuddle, Error> {
        Err(Error::invalid(format!(
            "puddle {puddle} of pool {}: no other process can have added it",
            self.describe().name
        )))
    }

    /// The pool is closed: nothing of it is mapped any more.
    fn close(self: Box<Self>) -> Result<(), Error>;
}
