//! What can be wrong with an archive.

use thiserror::Error;

/// Why bytes are no archive, or none that can be used here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The bytes begin otherwise.
    #[error(
        "this is no Vernal archive: it begins with {found:#018x}; give a file that `vernal pool export` wrote"
    )]
    NotAnArchive {
        /// The first eight bytes.
        found: u64,
    },
    /// A newer Vernal wrote it.
    #[error(
        "the archive has format version {found}, and this Vernal reads versions up to {supported}: import it with the \
         newer Vernal that wrote it"
    )]
    NewerVersion {
        /// Version found.
        found: u32,
        /// Newest version that is read.
        supported: u32,
    },
    /// It comes from a machine or a Vernal with which pools cannot be exchanged.
    #[error(
        "the archive was made for another ABI: its {what} is {found}, here it is {expected}; a pool can only move between machines \
         that agree"
    )]
    Abi {
        /// Which property.
        what: &'static str,
        /// The archive's.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// Bytes changed since the archive was written.
    #[error(
        "the archive's {what} is damaged: its checksum is {found:#018x}, its contents give {computed:#018x}; transfer it again"
    )]
    Checksum {
        /// Which part.
        what: &'static str,
        /// Checksum stored.
        found: u64,
        /// Checksum of the bytes.
        computed: u64,
    },
    /// A chunk's bytes changed since the archive was written.
    #[error(
        "chunk {chunk} of puddle {puddle} is damaged in the archive: its checksum is {found:#018x}, its contents give \
         {computed:#018x}; transfer the archive again"
    )]
    Chunk {
        /// Index of the puddle in the manifest.
        puddle: usize,
        /// Index of the chunk in the puddle.
        chunk: u64,
        /// Checksum stored.
        found: u64,
        /// Checksum of the bytes.
        computed: u64,
    },
    /// A field has a value that cannot be.
    #[error("the archive's {what} is invalid: {field} is {value}")]
    Field {
        /// Which part.
        what: &'static str,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// It ends too early.
    #[error("the archive ends inside its {what}: it was cut off; transfer it again")]
    Truncated {
        /// Which part.
        what: &'static str,
    },
    /// A text is not UTF-8.
    #[error("the archive's {what} is not text")]
    Text {
        /// Which text.
        what: &'static str,
    },
}

impl ArchiveError {
    pub(crate) fn field(what: &'static str, field: &'static str, value: u64) -> ArchiveError {
        ArchiveError::Field { what, field, value }
    }
}
