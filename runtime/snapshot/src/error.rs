//! What can go wrong, in words a user can act on.

use std::io;
use thiserror::Error as ThisError;

/// An error of the runtime. The message names the thing, the value and the remedy.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// Something occupies an address range that Vernal needs.
    #[error(
        "{what}, {start:#x}-{end:#x}, is taken by {by}: unmap that first, or map the file before it"
    )]
    AddressTaken {
        /// What needs the range.
        what: String,
        /// First address.
        start: u64,
        /// One past the last.
        end: u64,
        /// What is there.
        by: String,
    },
    /// The kernel refused a reservation.
    #[error(
        "cannot reserve the addresses {start:#x}-{end:#x}: {source}; a limit on address space (ulimit -v) must be lifted"
    )]
    Reserve {
        /// First address.
        start: u64,
        /// One past the last.
        end: u64,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Metadata name an impossible home.
    #[error(
        "{path}: its metadata give the home address {base:#x} with {len} bytes, which is outside the tracked range; the .vernal file is damaged or from another build"
    )]
    BadHome {
        /// The file.
        path: String,
        /// The address.
        base: u64,
        /// The length of the slot.
        len: u64,
    },
    /// Every entry of the mapping table is used.
    #[error("{path}: {max} files are mapped already, the most one process can have; unmap one")]
    TooManyFiles {
        /// The file.
        path: String,
        /// The limit.
        max: usize,
    },
    /// The file does not fit.
    #[error("{path}: {len} bytes do not fit the tracked range ({what}); use a smaller file")]
    TooLarge {
        /// The file.
        path: String,
        /// Its length.
        len: u64,
        /// What it does not fit.
        what: &'static str,
    },
    /// The file is open elsewhere.
    #[error("{path} is mapped by {holder}; one process at a time can map a file")]
    Busy {
        /// The file.
        path: String,
        /// Who has it.
        holder: String,
    },
    /// A wrong argument.
    #[error("{what}")]
    Invalid {
        /// What is wrong, and what would be right.
        what: String,
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
    /// No space for a commit; nothing changed.
    #[error(
        "no space left for this commit ({what}): nothing was written, the updates are still in memory; free space and commit again"
    )]
    NoSpace {
        /// Where the space was missing.
        what: String,
    },
    /// The medium failed; the mappings are read-only.
    #[error(
        "the medium has failed ({why}): the mapped files stay as of their last commit, further commits are refused; copy them to a sound medium"
    )]
    Failed {
        /// The first failure.
        why: String,
    },
    /// Metadata, journal or recovery refused.
    #[error("{path}: {why}")]
    Format {
        /// The file.
        path: String,
        /// The cause and the remedy.
        why: String,
    },
    /// A commit inside a commit.
    #[error(
        "a commit is already running in this thread: a signal handler that interrupts one cannot commit"
    )]
    Nested,
    /// A forked child.
    #[error(
        "a forked child cannot commit its parent's mapping: map the file in the child after the parent has unmapped it"
    )]
    Forked,
    /// Another thread aborted its transaction.
    #[error(
        "what was not committed was rolled back together with an abort in another thread: run the transaction again"
    )]
    RolledBack,
    /// No such mapping.
    #[error("{addr:#x} does not lie in a mapped file")]
    NotMapped {
        /// The address.
        addr: u64,
    },
}

impl Error {
    /// Names the file and the action that an I/O error belongs to.
    pub(crate) fn io(
        path: impl AsRef<std::path::Path>,
        what: &'static str,
        source: io::Error,
    ) -> Self {
        Self::Io {
            path: path.as_ref().display().to_string(),
            what,
            source,
        }
    }

    /// The `errno` that an interposed call reports for this error.
    pub fn errno(&self) -> i32 {
        match self {
            Self::AddressTaken { .. } => libc::EADDRINUSE,
            Self::Reserve { .. } | Self::TooManyFiles { .. } | Self::TooLarge { .. } => {
                libc::ENOMEM
            }
            Self::BadHome { .. } | Self::Format { .. } => libc::EBADMSG,
            Self::Busy { .. } | Self::Nested => libc::EBUSY,
            Self::Invalid { .. } | Self::NotMapped { .. } => libc::EINVAL,
            Self::Io { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            Self::NoSpace { .. } => libc::ENOSPC,
            Self::Failed { .. } => libc::EIO,
            Self::Forked => libc::EACCES,
            Self::RolledBack => libc::ECANCELED,
        }
    }
}
