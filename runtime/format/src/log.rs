//! The logs of direct pools: the header of a log file, the control word, and entries.
//!
//! ```text
//! log file                                      entry, at a multiple of 64
//!    0  magic      8   "VRNLDLOG"                0  checksum  8   of bytes 8 .. 32 + size
//!    8  checksum   8   of bytes 16..128          8  address   8
//!   16  version    4                            16  size      4   of the data
//!   20  position   4   in the log's chain       20  index     4   in its transaction
//!   24  length     8                            24  tag       8   generation, unfenced, order, sequence, kind
//!   32  uuid      16   of this file             32  data, zero-padded to a multiple of 64
//!   48  log       16   of the first file
//!   64  log space 16
//!  128  control    8   generation, sequence range, check
//! 4096  entries
//! ```

mod space;

pub use space::{ChainGap, LOG_SPACE_LEN, LOG_SPACE_VERSION, LogRef, LogSpace, MAX_LOG_FILES};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::slot::FormatError;
use crate::uuid::Uuid;

/// Version of a log file that this code writes.
pub const LOG_VERSION: u32 = 1;
/// Bytes of a log file's header, without the control word.
pub const LOG_HEADER_LEN: usize = 128;
/// Where the control word of a log lies in its first file.
pub const LOG_CONTROL_OFFSET: u64 = 128;
/// Where the entries of a log file begin.
pub const LOG_ENTRIES_OFFSET: u64 = 4096;
/// Entries begin at multiples of this.
pub const LOG_ENTRY_ALIGN: u64 = 64;
/// Bytes of an entry before its data.
pub const LOG_ENTRY_HEADER: usize = 32;
/// The most data of one entry, so that a reader's work and memory are bounded; longer ranges are several entries.
pub const LOG_DATA_MAX: usize = 4096 - LOG_ENTRY_HEADER;
/// The shortest log file: room for one line of entries.
pub const LOG_FILE_MIN: u64 = 8192;
/// Generations are numbers below this.
pub const LOG_GENERATIONS: u64 = 1 << 40;
/// An entry with this many unfenced entries before it may have more.
pub const UNFENCED_MANY: u8 = u8::MAX;

const MAGIC: u64 = u64::from_le_bytes(*b"VRNLDLOG");
const WHAT: &str = "header of a log file";

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawHeader {
    magic: U64,
    checksum: U64,
    version: U32,
    position: U32,
    len: U64,
    file: [u8; 16],
    log: [u8; 16],
    space: [u8; 16],
    zero: [u8; 48],
}

const _: () = {
    assert!(size_of::<RawHeader>() == LOG_HEADER_LEN);
    assert!(std::mem::offset_of!(RawHeader, file) == 32);
    assert!(LOG_CONTROL_OFFSET as usize >= LOG_HEADER_LEN && LOG_CONTROL_OFFSET.is_multiple_of(64));
    assert!(LOG_ENTRIES_OFFSET.is_multiple_of(LOG_ENTRY_ALIGN));
    assert!(LOG_FILE_MIN >= LOG_ENTRIES_OFFSET + LOG_ENTRY_ALIGN);
};

/// What a log file says about itself. It never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHeader {
    /// Identity of the file.
    pub file: Uuid,
    /// Identity of the log: of its first file.
    pub log: Uuid,
    /// The log space that lists the file.
    pub space: Uuid,
    /// Place in the log's chain.
    pub position: u32,
    /// Length of the file.
    pub len: u64,
}

impl LogHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; LOG_HEADER_LEN] {
        let mut raw = RawHeader {
            magic: MAGIC.into(),
            checksum: 0.into(),
            version: LOG_VERSION.into(),
            position: self.position.into(),
            len: self.len.into(),
            file: self.file.0,
            log: self.log.0,
            space: self.space.0,
            zero: [0; 48],
        };
        raw.checksum = xxh3_64(raw.as_bytes().get(16..).unwrap_or_default()).into();
        let mut bytes = [0; LOG_HEADER_LEN];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// The header in these bytes.
    pub fn decode(bytes: &[u8; LOG_HEADER_LEN]) -> Result<LogHeader, FormatError> {
        let raw = RawHeader::ref_from_bytes(bytes).map_err(|_| FormatError::Field {
            what: WHAT,
            field: "length",
            value: bytes.len() as u64,
        })?;
        if raw.magic.get() != MAGIC {
            return Err(FormatError::NotFound {
                what: WHAT,
                expected: MAGIC,
                found: raw.magic.get(),
            });
        }
        let computed = xxh3_64(bytes.get(16..).unwrap_or_default());
        if raw.checksum.get() != computed {
            return Err(FormatError::Checksum {
                what: WHAT,
                found: raw.checksum.get(),
                computed,
            });
        }
        let field = |field, value| FormatError::Field {
            what: WHAT,
            field,
            value,
        };
        match raw.version.get() {
            LOG_VERSION => {}
            v if v > LOG_VERSION => {
                return Err(FormatError::NewerVersion {
                    what: WHAT,
                    found: v,
                    supported: LOG_VERSION,
                });
            }
            v => return Err(field("version", v.into())),
        }
        let len = raw.len.get();
        if len < LOG_FILE_MIN || !len.is_multiple_of(4096) {
            return Err(field("length", len));
        }
        let position = raw.position.get();
        if (position == 0) != (raw.file == raw.log) {
            return Err(field("position", position.into()));
        }
        Ok(LogHeader {
            file: Uuid(raw.file),
            log: Uuid(raw.log),
            space: Uuid(raw.space),
            position,
            len,
        })
    }
}

/// Which entries of a log are live: those whose sequence is greater than `lo` and less than `hi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceRange {
    /// Sequences up to this one are not live.
    pub lo: u8,
    /// Sequences from this one on are not live.
    pub hi: u8,
}

impl SequenceRange {
    /// Undo entries are live: the transaction runs, or its changes are being written back.
    pub const UNDO: SequenceRange = SequenceRange { lo: 0, hi: 2 };
    /// Redo entries are live: the transaction has committed, and they are being applied.
    pub const REDO: SequenceRange = SequenceRange { lo: 2, hi: 4 };
    /// No entries are live.
    pub const NONE: SequenceRange = SequenceRange { lo: 4, hi: 4 };

    /// Whether an entry with this sequence is live.
    pub fn selects(self, sequence: u8) -> bool {
        self.lo < sequence && sequence < self.hi
    }
}

/// Seeds of a log's checksums: they keep the entries of another log, or of an earlier transaction, from counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSeed(u64);

impl LogSeed {
    /// The seed of the log with this identity.
    pub fn new(log: Uuid) -> LogSeed {
        LogSeed(xxh3_64(&log.0))
    }

    #[inline]
    fn of(self, generation: u64) -> u64 {
        self.0.wrapping_add(generation)
    }
}

/// The control word: generation and sequence range, changed as one atom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogControl {
    /// Entries of other generations do not exist.
    pub generation: u64,
    /// Which entries of this generation are live.
    pub range: SequenceRange,
}

impl LogControl {
    /// The word.
    #[inline]
    pub fn encode(self, seed: LogSeed) -> u64 {
        let value = (self.generation & (LOG_GENERATIONS - 1)) << 8
            | u64::from(self.range.lo & 15) << 4
            | u64::from(self.range.hi & 15);
        value << 16 | Self::check(value, seed)
    }

    #[inline]
    fn check(value: u64, seed: LogSeed) -> u64 {
        xxh3_64_with_seed(&value.to_le_bytes(), seed.0) & 0xffff
    }

    /// The control word `word` says this, or it is damaged.
    pub fn decode(word: u64, seed: LogSeed) -> Option<LogControl> {
        let value = word >> 16;
        (Self::check(value, seed) == word & 0xffff).then_some(LogControl {
            generation: value >> 8,
            range: SequenceRange {
                lo: (value >> 4 & 15) as u8,
                hi: (value & 15) as u8,
            },
        })
    }
}

/// What an entry is for. Recovery does not need to know, except that volatile memory is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// What the place held before.
    Undo,
    /// What the place shall hold.
    Redo,
    /// What a place in the memory of the process held before.
    Volatile,
    /// All redo entries are there.
    Seal,
}

/// In which order live entries are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogOrder {
    /// From the first to the last, after those that go backward.
    Forward,
    /// From the last to the first.
    Backward,
}

/// The header of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEntry {
    /// Where the data belongs; for a seal, the number of redo entries.
    pub addr: u64,
    /// Bytes of data.
    pub size: u32,
    /// Which entry of its transaction it is.
    pub index: u32,
    /// Generation that it belongs to.
    pub generation: u64,
    /// Entries directly before it that were not known to be durable; [`UNFENCED_MANY`] or more.
    pub unfenced: u8,
    /// What it is for.
    pub kind: LogKind,
    /// Compared with the log's sequence range.
    pub sequence: u8,
    /// In which order it is applied.
    pub order: LogOrder,
}

/// Header words of an entry as they lie on the medium, checked for nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawLogEntry {
    checksum: u64,
    words: [u64; 3],
}

/// Why an entry with the right checksum is none: no version of Vernal writes this tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its tag {tag:#018x} has an unknown kind or order, or stray bits")]
pub struct BadTag {
    /// The tag.
    pub tag: u64,
}

impl LogEntry {
    /// Bytes that the entry takes in its log file.
    pub fn span(&self) -> u64 {
        entry_span(self.size)
    }

    #[inline]
    fn tag(&self) -> u64 {
        let kind = match self.kind {
            LogKind::Undo => 1,
            LogKind::Redo => 2,
            LogKind::Volatile => 3,
            LogKind::Seal => 4,
        };
        let order = match self.order {
            LogOrder::Forward => 1,
            LogOrder::Backward => 2,
        };
        (self.generation & (LOG_GENERATIONS - 1)) << 24
            | u64::from(self.unfenced) << 16
            | order << 8
            | u64::from(self.sequence & 15) << 4
            | kind
    }

    /// Writes the header, with the checksum over itself and the data, in front of the data: `bytes` is the entry, and the
    /// data is there already.
    #[inline]
    pub fn encode(&self, seed: LogSeed, bytes: &mut [u8]) {
        let sum_end = LOG_ENTRY_HEADER + self.size as usize;
        for (at, word) in [
            (8, self.addr),
            (16, u64::from(self.index) << 32 | u64::from(self.size)),
            (24, self.tag()),
        ] {
            if let Some(place) = bytes.get_mut(at..at + 8) {
                place.copy_from_slice(&word.to_le_bytes());
            }
        }
        let sum = xxh3_64_with_seed(
            bytes.get(8..sum_end).unwrap_or_default(),
            seed.of(self.generation),
        );
        if let Some(place) = bytes.get_mut(..8) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
    }
}

/// Bytes that an entry with `size` bytes of data takes.
#[inline]
pub fn entry_span(size: u32) -> u64 {
    (LOG_ENTRY_HEADER as u64 + u64::from(size)).next_multiple_of(LOG_ENTRY_ALIGN)
}

impl RawLogEntry {
    /// The header words in these bytes.
    pub fn read(bytes: &[u8; LOG_ENTRY_HEADER]) -> RawLogEntry {
        let word = |at: usize| {
            bytes
                .get(at..at + 8)
                .and_then(|b| b.try_into().ok())
                .map_or(0, u64::from_le_bytes)
        };
        RawLogEntry {
            checksum: word(0),
            words: [word(8), word(16), word(24)],
        }
    }

    /// The generation that it says.
    pub fn generation(&self) -> u64 {
        self.words[2] >> 24
    }

    /// The size that it says.
    pub fn size(&self) -> u32 {
        self.words[1] as u32
    }

    /// The index that it says.
    pub fn index(&self) -> u32 {
        (self.words[1] >> 32) as u32
    }

    /// How many entries before it were not known to be durable.
    pub fn unfenced(&self) -> u8 {
        (self.words[2] >> 16) as u8
    }

    /// Whether the checksum of the entry in `whole`, header and data, is right.
    pub fn verify(&self, seed: LogSeed, whole: &[u8]) -> bool {
        let end = LOG_ENTRY_HEADER + self.size() as usize;
        whole.get(8..end).is_some_and(|summed| {
            xxh3_64_with_seed(summed, seed.of(self.generation())) == self.checksum
        })
    }

    /// What the header of an entry says whose checksum is right.
    pub fn parse(&self) -> Result<LogEntry, BadTag> {
        let tag = self.words[2];
        let bad = BadTag { tag };
        let entry = LogEntry {
            addr: self.words[0],
            size: self.size(),
            index: self.index(),
            generation: self.generation(),
            unfenced: self.unfenced(),
            kind: match tag & 15 {
                1 => LogKind::Undo,
                2 => LogKind::Redo,
                3 => LogKind::Volatile,
                4 => LogKind::Seal,
                _ => return Err(bad),
            },
            sequence: (tag >> 4 & 15) as u8,
            order: match tag >> 8 & 15 {
                1 => LogOrder::Forward,
                2 => LogOrder::Backward,
                _ => return Err(bad),
            },
        };
        // Rebuilding the tag finds every stray bit.
        if entry.tag() == tag {
            Ok(entry)
        } else {
            Err(bad)
        }
    }
}
