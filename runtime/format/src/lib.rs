//! Every structure that Vernal keeps on a medium, and the only code that encodes or parses one.
//!
//! Nothing here does I/O: a structure becomes bytes, or bytes become a structure or a [`FormatError`]. Every parser takes
//! bytes that a crash, a bad disk or an attacker may have written: it is bounded and never panics. `docs/format.md` draws
//! the layouts and argues why a crash cannot hurt them.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod archive;
mod checksum;
mod log;
mod meta;
pub mod puddle;
mod record;
mod slot;
mod superblock;
pub mod types;
mod uuid;

pub use checksum::{Accumulate, RecordKey, accumulate};
pub use log::{
    BadTag, ChainGap, LOG_CONTROL_OFFSET, LOG_DATA_MAX, LOG_ENTRIES_OFFSET, LOG_ENTRY_ALIGN,
    LOG_ENTRY_HEADER, LOG_FILE_MIN, LOG_GENERATIONS, LOG_HEADER_LEN, LOG_SPACE_LEN,
    LOG_SPACE_VERSION, LOG_VERSION, LogControl, LogEntry, LogHeader, LogKind, LogOrder, LogRef,
    LogSeed, LogSpace, MAX_LOG_FILES, RawLogEntry, SequenceRange, UNFENCED_MANY, entry_span,
};
pub use meta::{JOURNAL_PATH_MAX, META_FILE_LEN, META_VERSION, Meta, MetaState};
pub use record::{
    Entries, Entry, HEADER_BYTES, HEADER_WORDS, LINE_BITS, MAX_ENTRIES, MAX_PAYLOAD_WORDS,
    MAX_RUN_LINES, RECORD_ALIGN, RecordHeader, RecordProblem, WORDS_PER_LINE, line_entry_header,
    own_entry, own_run, run_entry_header, seal_record, seal_record_by, set_len_entry_header,
    verify_record,
};
pub use slot::{FormatError, SLOT_COUNT, SLOT_LEN, Slot, newest_slot};
pub use superblock::{
    JOURNAL_VERSION, LOG_OFFSET, MAX_MEMBERS, MEMBER_PATH_LEN, MEMBER_PATH_MAX,
    MEMBER_PATHS_OFFSET, Member, MemberPath, Superblock,
};
pub use uuid::Uuid;
