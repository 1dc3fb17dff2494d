//! What can go wrong: one enum for writing, one for recovery.

use std::io;

use thiserror::Error;
use vernal_format::{FormatError, RecordProblem, Uuid};

/// Why a commit, a checkpoint or a change of members failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The record does not fit. Nothing was written: recycle or grow the journal and append again.
    #[error(
        "the record needs {needed} bytes of journal and {free} are free: checkpoint, or grow the journal"
    )]
    Full {
        /// Bytes of log that the record takes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The medium has no space. Nothing was changed and nothing is lost: free space, then commit again.
    #[error(
        "no space for {needed} bytes in {name}: nothing was changed; free disk space and commit again"
    )]
    NoSpace {
        /// The file that could not grow.
        name: String,
        /// The length that it needed.
        needed: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The medium failed. What is durable is unknown until recovery has run, so nothing more is written.
    #[error(
        "{op} of {name} failed: {source}; the last commit stays readable, open the file again to recover it"
    )]
    Io {
        /// The file.
        name: String,
        /// What was tried.
        op: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier failure has made the journal read-only.
    #[error("read-only since an earlier failure ({cause}); open the files again to recover them")]
    Poisoned {
        /// The earlier failure.
        cause: String,
    },
    /// A single commit beyond what a record can describe.
    #[error(
        "a commit of {bytes} bytes in {entries} entries is larger than a record can be: commit more often"
    )]
    TooLarge {
        /// Bytes of the record.
        bytes: u64,
        /// Entries of the record.
        entries: usize,
    },
    /// The journal serves as many files as it can.
    #[error("{limit} files are mapped, and one process can map no more: unmap one first")]
    TooManyMembers {
        /// How many it can serve.
        limit: usize,
    },
    /// Two files want the same addresses.
    #[error("file {file} wants lines that file {other} has: unmap one of them first")]
    Overlap {
        /// The file that was to be added.
        file: Uuid,
        /// The file that is there.
        other: Uuid,
    },
    /// No such member or home.
    #[error("file {file} is not served by this journal")]
    UnknownMember {
        /// The file.
        file: Uuid,
    },
    /// A path that does not fit its field.
    #[error(
        "the path {path} is longer than the {limit} bytes that Vernal can store: use a shorter one"
    )]
    PathTooLong {
        /// The path.
        path: String,
        /// The limit.
        limit: usize,
    },
    /// A length beyond the place of the file.
    #[error(
        "a length of {len} bytes does not fit the {slot} bytes of address space kept for {name}"
    )]
    BeyondSlot {
        /// The file.
        name: String,
        /// The length asked for.
        len: u64,
        /// What is kept for it.
        slot: u64,
    },
    /// A structure cannot be read.
    #[error("{name}: {source}")]
    Format {
        /// The file.
        name: String,
        /// What is wrong.
        source: FormatError,
    },
}

impl JournalError {
    /// Whether the committer stays usable: nothing was changed.
    pub fn is_recoverable(&self) -> bool {
        !matches!(
            self,
            JournalError::Io { .. } | JournalError::Poisoned { .. }
        )
    }

    pub(crate) fn io(name: &str, op: &'static str, source: io::Error) -> Self {
        JournalError::Io {
            name: name.to_owned(),
            op,
            source,
        }
    }

    /// The error of an attempt to get space, which has left everything as it was.
    pub(crate) fn space(name: &str, needed: u64, source: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, StorageFull};
        match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge | OutOfMemory => JournalError::NoSpace {
                name: name.to_owned(),
                needed,
                source,
            },
            _ => Self::io(name, "growing", source),
        }
    }
}

/// Why a file could not be recovered. The file is as it was found, unless the message says otherwise.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// A medium failed. Recovery can be repeated.
    #[error("{op} of {name} failed during recovery: {source}; recovery can be repeated")]
    Io {
        /// The file.
        name: String,
        /// What was tried.
        op: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The metadata or the journal cannot be read.
    #[error("{name}: {source}")]
    Format {
        /// The file.
        name: String,
        /// What is wrong.
        source: FormatError,
    },
    /// The journal is needed and not there.
    #[error(
        "{name} names the journal {path}, which is missing: it may hold commits that the file lacks, and the file may \
         hold parts of them; put the journal back, or restore the file from a backup"
    )]
    JournalMissing {
        /// The metadata file.
        name: String,
        /// Where the journal should be.
        path: String,
    },
    /// Another journal than the one that is needed.
    #[error(
        "{name} needs the journal {expected}, and {journal} is the journal {found}: put the right one back"
    )]
    WrongJournal {
        /// The metadata file.
        name: String,
        /// The journal file given.
        journal: String,
        /// The journal that the metadata names.
        expected: Uuid,
        /// The journal found.
        found: Uuid,
    },
    /// The journal does not serve this file, or has it at another place.
    #[error(
        "{journal} does not serve {name} (file {file}): they do not belong together; restore both from one backup"
    )]
    NotAMember {
        /// The journal.
        journal: String,
        /// The metadata file.
        name: String,
        /// The file.
        file: Uuid,
    },
    /// The journal is shorter than it says.
    #[error(
        "{name} is truncated: it has {len} bytes and says that it has {expected}; restore it from a backup"
    )]
    JournalTruncated {
        /// The journal.
        name: String,
        /// Its length.
        len: u64,
        /// The length that its superblock names.
        expected: u64,
    },
    /// The file is shorter than what was committed.
    #[error(
        "{name}: the file is truncated to {len} bytes, and {expected} were committed; restore it from a backup (removing \
         its metadata makes Vernal take it as it is)"
    )]
    Truncated {
        /// The metadata file.
        name: String,
        /// Length of the file.
        len: u64,
        /// Shortest length that it can have had.
        expected: u64,
    },
    /// A record is damaged although a later one proves that it had been durable.
    #[error(
        "{name}: record {sequence} (at log offset {offset}) is damaged although the later record {later} is intact: \
         commits from {sequence} on cannot be replayed, and nothing was; restore journal or file from a backup"
    )]
    Damaged {
        /// The journal.
        name: String,
        /// The record that is damaged.
        sequence: u64,
        /// Where it should be.
        offset: u64,
        /// The intact record behind it.
        later: u64,
    },
    /// A record whose checksum is right says something that no Vernal writes: the journal is quarantined.
    #[error(
        "{name}: record {sequence} is not valid ({problem}); the journal is quarantined and nothing was replayed"
    )]
    InvalidRecord {
        /// The journal.
        name: String,
        /// The record.
        sequence: u64,
        /// What is wrong with it.
        problem: RecordProblem,
    },
    /// A record names a place that belongs to no file of the journal.
    #[error(
        "{name}: record {sequence} names line {line:#x}, which belongs to no file of this journal; the journal is \
         quarantined and nothing was replayed"
    )]
    ForeignLine {
        /// The journal.
        name: String,
        /// The record.
        sequence: u64,
        /// The line.
        line: u64,
    },
    /// A record sets a length that the file's place cannot hold.
    #[error(
        "{name}: record {sequence} sets a length of {len} bytes for the file at line {line:#x}, which has no room for \
         it; the journal is quarantined and nothing was replayed"
    )]
    ImpossibleLength {
        /// The journal.
        name: String,
        /// The record.
        sequence: u64,
        /// The first line of the file.
        line: u64,
        /// The length.
        len: u64,
    },
}

impl RecoveryError {
    pub(crate) fn io(name: &str, op: &'static str, source: io::Error) -> Self {
        RecoveryError::Io {
            name: name.to_owned(),
            op,
            source,
        }
    }

    pub(crate) fn format(name: &str, source: FormatError) -> Self {
        RecoveryError::Format {
            name: name.to_owned(),
            source,
        }
    }
}
