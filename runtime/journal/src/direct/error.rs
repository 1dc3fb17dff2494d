//! What can go wrong in a direct transaction, and why a log is quarantined.

use std::io;

use thiserror::Error;
use vernal_format::{BadTag, ChainGap, FormatError, Uuid};

/// Errors of direct transactions and of log files.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DirectError {
    /// There is no transaction to log for.
    #[error("no transaction is open in this thread: begin one before changing a direct pool")]
    NoTransaction,
    /// The transaction was aborted, and its changes are gone.
    #[error("the transaction was aborted: leave it, and run it again if it is still wanted")]
    Aborted,
    /// A range that ends beyond the address space.
    #[error("{len} bytes at {addr:#x} are no range of memory")]
    Range {
        /// First address.
        addr: u64,
        /// Bytes.
        len: u64,
    },
    /// The log is full and cannot grow. The transaction is rolled back when it is committed or aborted.
    #[error(
        "log {log} has {files} files, all full, and cannot grow: {source}; the transaction has to be aborted"
    )]
    Full {
        /// The log.
        log: Uuid,
        /// Files that it has.
        files: usize,
        /// Why there are no more.
        source: io::Error,
    },
    /// The log space names as many log files as it can.
    #[error("log space {space} names {limit} log files and has no place for another one")]
    SpaceFull {
        /// The log space.
        space: Uuid,
        /// Log files that it can name.
        limit: usize,
    },
    /// An error of a medium: what is durable is unknown, and the log is not used any more.
    #[error(
        "{doing} failed: {source}; log {log} is not used any more, open the pool again to recover it"
    )]
    Io {
        /// The log.
        log: Uuid,
        /// What failed.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The log failed before.
    #[error("log {log} failed before and is not used any more: open the pool again to recover it")]
    Failed {
        /// The log.
        log: Uuid,
    },
    /// A log space or log file that is none.
    #[error("{what}: {source}")]
    Format {
        /// Which one.
        what: String,
        /// What is wrong with it.
        source: FormatError,
    },
}

/// Why a log is quarantined: nothing of it was applied.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogProblem {
    /// A file that the log space names is not there.
    #[error("its file {file} (position {position}) is missing: {source}")]
    Missing {
        /// The file.
        file: Uuid,
        /// Its place in the chain.
        position: u32,
        /// What opening it said.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("its file at position {position} cannot be read at {at}: {source}")]
    Read {
        /// Place in the chain.
        position: u32,
        /// Offset in the file.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// A file's header is not what the log space says.
    #[error("its file {file} (position {position}) has an unusable header: {source}")]
    Header {
        /// The file.
        file: Uuid,
        /// Its place in the chain.
        position: u32,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A file that belongs to another log, or elsewhere in the chain.
    #[error("the file at position {position} should be {expected} and says that it is {found}")]
    WrongFile {
        /// Place in the chain.
        position: u32,
        /// What belongs there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file that is shorter than its header says.
    #[error("its file {file} is truncated to {found} bytes of {len}")]
    Truncated {
        /// The file.
        file: Uuid,
        /// Bytes that it has.
        found: u64,
        /// Bytes that it should have.
        len: u64,
    },
    /// The control word fails its check.
    #[error("its sequence range is damaged: the control word is {word:#018x}")]
    Control {
        /// The word.
        word: u64,
    },
    /// A live entry with a right checksum that no version of Vernal writes.
    #[error("entry {index} is impossible: {source}")]
    Entry {
        /// Index of the entry.
        index: u32,
        /// What is wrong with it.
        source: BadTag,
    },
    /// A live entry that names memory which the owner of the log could not write.
    #[error(
        "entry {index} names {len} bytes at {addr:#x}, which the owner of the log could not write"
    )]
    NotWritable {
        /// Index of the entry.
        index: u32,
        /// Address that it names.
        addr: u64,
        /// Bytes.
        len: u32,
    },
    /// An entry that had been durable is gone.
    #[error(
        "entry {missing} is damaged although entry {witness} was written after it had been made durable"
    )]
    Decayed {
        /// Index of the damaged entry.
        missing: u32,
        /// Index of the entry that says so.
        witness: u32,
    },
    /// Redo entries are live and incomplete, which no crash leaves.
    #[error(
        "its {found} redo entries are not sealed although places had been changed: entries are missing"
    )]
    Unsealed {
        /// Redo entries found.
        found: u32,
    },
    /// The log space does not name a whole chain.
    #[error(transparent)]
    Gap(#[from] ChainGap),
}
