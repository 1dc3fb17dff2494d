//! What can go wrong with a pool, in words a user can act on.

use std::io;
use thiserror::Error as ThisError;

/// Why a pool refused.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// The runtime below refused.
    #[error(transparent)]
    Snapshot(#[from] vernal_snapshot::Error),
    /// The heap refused.
    #[error("pool {pool}: {source}")]
    Heap {
        /// The pool.
        pool: String,
        /// Why.
        source: vernal_heap::HeapError,
    },
    /// A system call on a named file failed.
    #[error("{path}: {what}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A wrong argument or call.
    #[error("{what}")]
    Invalid {
        /// What is wrong, and what would be right.
        what: String,
    },
    /// There is no such pool.
    #[error("there is no pool at {name}: create it with VN_CREATE or `vernal pool create`")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The pool exists.
    #[error("there is a pool at {name} already: open it without VN_EXCL, or remove it")]
    Exists {
        /// The name.
        name: String,
    },
    /// The pool is open elsewhere.
    #[error(
        "pool {name} is open in {holder}; a buffered pool has one writer or any number of readers"
    )]
    Busy {
        /// The pool.
        name: String,
        /// Who has it.
        holder: String,
    },
    /// A puddle is missing or damaged.
    #[error("pool {pool}: puddle {puddle} {why}")]
    Puddle {
        /// The pool.
        pool: String,
        /// The file.
        puddle: String,
        /// What is wrong, and the remedy.
        why: String,
    },
    /// A type is unknown, refused, or differs.
    #[error("{what}")]
    Type {
        /// What, and the remedy.
        what: String,
    },
    /// Rolled back by another thread's abort.
    #[error(
        "the transaction was rolled back together with an abort in another thread: run it again"
    )]
    Conflict,
    /// The transaction was aborted.
    #[error("the transaction was aborted: nothing of it was kept")]
    Aborted,
    /// The pool may not be used this way.
    #[error("{what}")]
    Access {
        /// What was tried, and what is allowed.
        what: String,
    },
    /// puddled holds the pool back.
    #[error(
        "pool {name} is quarantined: {why}; look at it with `vernal pool check`, release it with `vernal pool accept`"
    )]
    Quarantined {
        /// The pool.
        name: String,
        /// Why.
        why: String,
    },
}

impl Error {
    /// Names the file and the action that an I/O error belongs to.
    pub fn io(path: impl AsRef<std::path::Path>, what: &'static str, source: io::Error) -> Self {
        Self::Io {
            path: path.as_ref().display().to_string(),
            what,
            source,
        }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }
}
