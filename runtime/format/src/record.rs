//! The journal record: one commit.
//!
//! ```text
//!   0  checksum      u64   XXH3-64 over bytes 8..40+payload, seeded by journal and generation
//!   8  generation    u64
//!  16  sequence      u64   one more than the record before
//!  24  payload       u32   words behind the header
//!  28  entries       u32   in the payload
//!  32  magic         u32   "VRNR"
//!  36  unflushed     u32   records directly before this one that were not known to be durable when it was written
//!  40  payload             entries, one after the other
//! ```
//!
//! An entry is a header word and its data:
//!
//! ```text
//!  63      56 55         42 41                 8 7       0
//! +----------+-------------+--------------------+---------+
//! |   kind   |    more     |    line number     |  mask   |
//! +----------+-------------+--------------------+---------+
//! kind 0, line data:   more 0; one word for each bit of the mask, lowest first (mask is not 0)
//! kind 1, set length:  more 0, mask 0; the line is the file's first; one word, the new length in bytes
//! kind 2, run:         mask 0; the eight words of the line, and of as many lines behind it as `more` says
//! ```
//!
//! Runs are written since version 2 of the journal. All lines of a run belong to one file.
//!
//! Within a record lengths are set first, wherever they stand; then the words are written, as far as they lie below the
//! length. Everything is little-endian. A record starts at a multiple of 64 bytes.

use vernal_abi::{LINE_COUNT, LINE_SIZE};

use crate::checksum::{Accumulate, RecordKey, accumulate};

/// Words of a record's header.
pub const HEADER_WORDS: usize = 5;
/// Bytes of a record's header.
pub const HEADER_BYTES: usize = HEADER_WORDS * 8;
/// Records start at multiples of this many bytes.
pub const RECORD_ALIGN: usize = 64;
/// Words in a line.
pub const WORDS_PER_LINE: usize = (LINE_SIZE / 8) as usize;
/// Bits of a line number.
pub const LINE_BITS: u32 = LINE_COUNT.trailing_zeros();
/// Most words a payload can have: 32 GiB.
pub const MAX_PAYLOAD_WORDS: usize = u32::MAX as usize;
/// Most entries a record can have.
pub const MAX_ENTRIES: usize = u32::MAX as usize;

const MAGIC: u32 = u32::from_le_bytes(*b"VRNR");
const LINE_AT: u32 = 8;
const KIND_AT: u32 = 56;
const KIND_LINE: u64 = 0;
const KIND_SET_LEN: u64 = 1;
const KIND_RUN: u64 = 2;
const MORE_AT: u32 = LINE_AT + LINE_BITS;

/// Most lines of a run: 1 MiB.
pub const MAX_RUN_LINES: u64 = 1 << (KIND_AT - MORE_AT);

const _: () = {
    assert!(LINE_BITS == 34);
    assert!(LINE_AT + LINE_BITS <= KIND_AT);
    assert!(MAX_RUN_LINES * WORDS_PER_LINE as u64 <= 1 << 17);
    assert!(WORDS_PER_LINE == 8);
    assert!(HEADER_BYTES == 40);
};

/// The header word of a line's data. `line` must be below [`LINE_COUNT`].
#[inline]
pub const fn line_entry_header(line: u64, mask: u8) -> u64 {
    (line << LINE_AT) | mask as u64
}

/// The header word of a new length for the file whose first line is `base_line`.
#[inline]
pub const fn set_len_entry_header(base_line: u64) -> u64 {
    (KIND_SET_LEN << KIND_AT) | (base_line << LINE_AT)
}

/// The header word of `count` whole lines from `line` on: 1 to [`MAX_RUN_LINES`] of them, all below [`LINE_COUNT`].
#[inline]
pub const fn run_entry_header(line: u64, count: u64) -> u64 {
    (KIND_RUN << KIND_AT) | ((count - 1) << MORE_AT) | (line << LINE_AT)
}

/// Completes the record in `words`: `HEADER_WORDS` of any content, and then the payload, in little-endian words.
#[inline]
pub fn seal_record(
    words: &mut [u64],
    key: &RecordKey,
    generation: u64,
    sequence: u64,
    entries: u32,
    unflushed: u32,
) {
    let header = (generation, sequence, entries, unflushed);
    seal_record_by(words, key, header, accumulate);
}

/// As [`seal_record`], with a checksum by `accumulate`; `header` is generation, sequence, entries and `unflushed`.
#[inline]
pub fn seal_record_by(
    words: &mut [u64],
    key: &RecordKey,
    header: (u64, u64, u32, u32),
    accumulate: Accumulate,
) {
    let (generation, sequence, entries, unflushed) = header;
    let payload = (words.len() - HEADER_WORDS) as u64;
    let header: &mut [u64; HEADER_WORDS] = words.first_chunk_mut().expect("longer, as above");
    header[1] = generation.to_le();
    header[2] = sequence.to_le();
    header[3] = (payload | u64::from(entries) << 32).to_le();
    header[4] = (u64::from(MAGIC) | u64::from(unflushed) << 32).to_le();
    words[0] = key.checksum_by(&words[1..], accumulate).to_le();
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Generation of the journal that it belongs to.
    pub generation: u64,
    /// Its place in the order of commits.
    pub sequence: u64,
    /// Words behind the header.
    pub payload_words: u32,
    /// Entries in the payload.
    pub entries: u32,
    /// Records directly before this one that were not known to be durable when it was written.
    pub unflushed: u32,
}

impl RecordHeader {
    /// Reads a header; `None` if there is none.
    #[inline]
    pub fn parse(words: &[u64; HEADER_WORDS]) -> Option<RecordHeader> {
        let counts = u64::from_le(words[3]);
        let tail = u64::from_le(words[4]);
        (tail as u32 == MAGIC).then_some(RecordHeader {
            generation: u64::from_le(words[1]),
            sequence: u64::from_le(words[2]),
            payload_words: counts as u32,
            entries: (counts >> 32) as u32,
            unflushed: (tail >> 32) as u32,
        })
    }

    /// Bytes of header and payload, without padding.
    pub fn record_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.payload_words) * 8
    }
}

/// Whether the checksum of the record in `words` (header and payload, no padding) is right.
#[inline]
pub fn verify_record(words: &[u64], key: &RecordKey) -> bool {
    words.len() >= HEADER_WORDS && u64::from_le(words[0]) == key.checksum(&words[1..])
}

/// One entry of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// Words of a line.
    Line {
        /// Line number, counted from the start of the tracked range.
        line: u64,
        /// Which of the line's words follow.
        mask: u8,
        /// The words, in little-endian order, one for each bit of `mask`.
        words: &'a [u64],
    },
    /// Whole lines, one behind the other.
    Run {
        /// Number of the first line.
        line: u64,
        /// Their words, in little-endian order, eight for each line.
        words: &'a [u64],
    },
    /// The length of a file.
    SetLen {
        /// The file's first line.
        base_line: u64,
        /// New length in bytes.
        len: u64,
    },
}

/// What is wrong with the inside of a record whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordProblem {
    /// An entry header that no version of Vernal writes.
    #[error("entry {index} has the impossible header {header:#018x}")]
    Header {
        /// Index of the entry.
        index: u32,
        /// Its header word.
        header: u64,
    },
    /// An entry's data goes beyond the payload.
    #[error("entry {index} ends beyond the record")]
    Overrun {
        /// Index of the entry.
        index: u32,
    },
    /// The payload holds fewer or more entries than the header says.
    #[error(
        "the record says that it has {stated} entries, and {words_left} words are left after {index}"
    )]
    Count {
        /// Entries that the header names.
        stated: u32,
        /// Entries found.
        index: u32,
        /// Words of the payload that belong to no entry.
        words_left: usize,
    },
}

/// Words that each mask selects. The population count is no instruction of baseline x86-64.
const SELECTED: [u8; 256] = {
    let mut table = [0; 256];
    let mut mask = 0;
    while mask < 256 {
        table[mask] = (mask as u8).count_ones() as u8;
        mask += 1;
    }
    table
};

/// The entry at the front of `words`, and how many words it takes. For words that this process has encoded itself: nothing
/// is checked but the bounds of the slice. What comes from a medium goes through [`Entries`].
#[inline]
pub fn own_entry(words: &[u64]) -> (Entry<'_>, usize) {
    let header = u64::from_le(words[0]);
    let line = (header >> LINE_AT) & (LINE_COUNT - 1);
    let mask = header as u8;
    match header >> KIND_AT {
        KIND_LINE => {
            let end = 1 + SELECTED[usize::from(mask)] as usize;
            let words = &words[1..end];
            (Entry::Line { line, mask, words }, end)
        }
        KIND_RUN => {
            let end = 1 + run_lines(header) * WORDS_PER_LINE;
            let words = &words[1..end];
            (Entry::Run { line, words }, end)
        }
        _ => {
            let len = u64::from_le(words[1]);
            (
                Entry::SetLen {
                    base_line: line,
                    len,
                },
                2,
            )
        }
    }
}

/// Lines of the run with this header word.
#[inline]
const fn run_lines(header: u64) -> usize {
    (header >> MORE_AT & (MAX_RUN_LINES - 1)) as usize + 1
}

/// Whether a header word that says so is that of a run, which ends where the tracked range ends or before.
#[inline]
const fn is_run(header: u64, line: u64) -> bool {
    let count = run_lines(header) as u64;
    run_entry_header(line, count) == header && line + count <= LINE_COUNT
}

/// As [`own_entry`], if the first entry is a run: its first line, its words, and what is behind it.
#[inline]
pub fn own_run(words: &[u64]) -> Option<(u64, &[u64], &[u64])> {
    let (header, rest) = words.split_first()?;
    let header = u64::from_le(*header);
    if header >> KIND_AT != KIND_RUN {
        return None;
    }
    let (words, rest) = rest.split_at_checked(run_lines(header) * WORDS_PER_LINE)?;
    Some(((header >> LINE_AT) & (LINE_COUNT - 1), words, rest))
}

/// Iterates over the entries of a payload. Ends after the first problem.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    rest: &'a [u64],
    stated: u32,
    index: u32,
    failed: bool,
}

impl<'a> Entries<'a> {
    /// The entries in `payload`, of which the header stated `stated`.
    pub fn new(payload: &'a [u64], stated: u32) -> Self {
        Entries {
            rest: payload,
            stated,
            index: 0,
            failed: false,
        }
    }

    #[inline]
    fn parse(&mut self) -> Result<Option<Entry<'a>>, RecordProblem> {
        let Some((&raw, data)) = self.rest.split_first() else {
            return if self.index == self.stated {
                Ok(None)
            } else {
                Err(self.miscount())
            };
        };
        if self.index == self.stated {
            return Err(self.miscount());
        }
        let header = u64::from_le(raw);
        let line = (header >> LINE_AT) & (LINE_COUNT - 1);
        let mask = header as u8;
        let (kind, count) = (header >> KIND_AT, mask.count_ones() as usize);
        // Rebuilding the header finds every stray bit.
        let count = match kind {
            KIND_LINE if mask != 0 && line_entry_header(line, mask) == header => count,
            KIND_SET_LEN if set_len_entry_header(line) == header => 1,
            KIND_RUN if is_run(header, line) => run_lines(header) * WORDS_PER_LINE,
            _ => {
                return Err(RecordProblem::Header {
                    index: self.index,
                    header,
                });
            }
        };
        let Some((words, rest)) = data.split_at_checked(count) else {
            return Err(RecordProblem::Overrun { index: self.index });
        };
        self.rest = rest;
        self.index += 1;
        Ok(Some(match kind {
            KIND_LINE => Entry::Line { line, mask, words },
            KIND_RUN => Entry::Run { line, words },
            _ => Entry::SetLen {
                base_line: line,
                len: u64::from_le(words[0]),
            },
        }))
    }

    fn miscount(&self) -> RecordProblem {
        RecordProblem::Count {
            stated: self.stated,
            index: self.index,
            words_left: self.rest.len(),
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, RecordProblem>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.parse();
        self.failed = item.is_err();
        item.transpose()
    }
}
