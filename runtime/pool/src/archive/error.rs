//! What can go wrong when a pool is exported or imported.

use std::io;
use thiserror::Error;
use vernal_format::archive::ArchiveError;

/// Why a pool could not be exported or imported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ArchiveFailure {
    /// The archive itself.
    #[error("{name}: {source}")]
    Format {
        /// The archive.
        name: String,
        /// What is wrong with it.
        source: ArchiveError,
    },
    /// The operating system refused.
    #[error("{doing} {name}: {source}{remedy}", remedy = remedy(source))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        name: String,
        /// What it said.
        source: io::Error,
    },
    /// A file of a pool that should not change did.
    #[error(
        "{name} has {found} bytes, its puddle has {expected}: the pool is damaged or is being changed"
    )]
    Length {
        /// The file.
        name: String,
        /// Its length.
        found: u64,
        /// The puddle's.
        expected: u64,
    },
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": make room and run it again, nothing is left behind"
        }
        io::ErrorKind::BrokenPipe => ": the reader of the archive has gone away",
        _ => "",
    }
}

impl ArchiveFailure {
    pub(crate) fn io(doing: &'static str, name: &str, source: io::Error) -> ArchiveFailure {
        ArchiveFailure::Io {
            doing,
            name: name.to_owned(),
            source,
        }
    }

    pub(crate) fn format(name: &str, source: ArchiveError) -> ArchiveFailure {
        ArchiveFailure::Format {
            name: name.to_owned(),
            source,
        }
    }
}
