//! The buffer in which a record grows: reused from commit to commit, sealed in place.

use vernal_format::{
    Entries, HEADER_WORDS, MAX_ENTRIES, MAX_PAYLOAD_WORDS, RECORD_ALIGN, RecordKey, WORDS_PER_LINE,
    line_entry_header, seal_record_by, set_len_entry_header,
};
use vernal_sys::cpu;
use zerocopy::IntoBytes;

/// Words kept allocated between commits; what a giant commit needed beyond is given back.
const KEEP_WORDS: usize = 1 << 18;
/// Words that one line can need.
const LINE_ENTRY_WORDS: usize = 1 + WORDS_PER_LINE;

/// `n` rounded up to a multiple of `unit`, a power of two: without the division of `next_multiple_of`.
#[inline]
pub(crate) const fn align_up(n: u64, unit: u64) -> u64 {
    (n + (unit - 1)) & !(unit - 1)
}

/// Where a record stands in its journal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub key: &'a RecordKey,
    pub generation: u64,
    pub sequence: u64,
    pub unflushed: u32,
}

/// A record in the making.
#[derive(Debug)]
pub struct RecordBuilder {
    /// Header, payload, and room; little-endian words. Always longer than `used` by one line's worth.
    words: Vec<u64>,
    /// Words of header and payload.
    used: usize,
    entries: usize,
    set_lens: usize,
}

impl Default for RecordBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl RecordBuilder {
    /// An empty record.
    pub fn new() -> Self {
        RecordBuilder {
            words: vec![0; 512],
            used: HEADER_WORDS,
            entries: 0,
            set_lens: 0,
        }
    }

    /// Adds the words of `line` that `mask` selects; an empty mask adds nothing.
    #[inline]
    pub fn push_line(&mut self, line: u64, mask: u8, words: &[u64; 8]) {
        if mask == 0 {
            return;
        }
        let out = self.room();
        out[0] = line_entry_header(line, mask).to_le();
        // A whole line is the common case where values are replaced; else every word is stored, and the position moves
        // only behind those that count: no branch to mispredict.
        let mut at = 1;
        if mask == u8::MAX {
            for (to, word) in out[1..].iter_mut().zip(words) {
                *to = word.to_le();
            }
            at += WORDS_PER_LINE;
        } else {
            for (i, word) in words.iter().enumerate() {
                out[at & 15] = word.to_le();
                at += usize::from(mask >> i & 1);
            }
        }
        self.used += at;
        self.entries += 1;
    }

    /// Adds a whole line.
    #[inline(always)]
    pub fn push_whole_line(&mut self, line: u64, words: &[u64; 8]) {
        let out = self.room();
        out[0] = line_entry_header(line, u8::MAX).to_le();
        for (to, word) in out[1..].iter_mut().zip(words) {
            *to = word.to_le();
        }
        self.used += LINE_ENTRY_WORDS;
        self.entries += 1;
    }

    /// Adds a new length for the file whose first line is `base_line`.
    pub fn push_set_len(&mut self, base_line: u64, len: u64) {
        let out = self.room();
        out[0] = set_len_entry_header(base_line).to_le();
        out[1] = len.to_le();
        self.used += 2;
        self.entries += 1;
        self.set_lens += 1;
    }

    /// A window for one entry (16 words, so that an index needs a mask and no check).
    #[inline]
    fn room(&mut self) -> &mut [u64; 16] {
        const _: () = assert!(LINE_ENTRY_WORDS <= 16);
        if self.words.len() < self.used + 16 {
            self.grow();
        }
        self.words[self.used..]
            .first_chunk_mut()
            .expect("grown above")
    }

    #[cold]
    fn grow(&mut self) {
        self.words.resize(self.words.len() * 2, 0);
    }

    /// Whether nothing was added.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Entries so far.
    pub fn entry_count(&self) -> usize {
        self.entries
    }

    /// Whether the record changes a file's length.
    #[inline]
    pub fn has_set_len(&self) -> bool {
        self.set_lens != 0
    }

    /// Forgets all entries and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.used = HEADER_WORDS;
        self.entries = 0;
        self.set_lens = 0;
        if self.words.len() > KEEP_WORDS {
            self.words = vec![0; KEEP_WORDS];
        }
    }

    /// Header (unfinished until the record is appended) and payload.
    pub fn bytes(&self) -> &[u8] {
        self.words[..self.used].as_bytes()
    }

    /// Bytes of header and payload.
    #[inline]
    pub fn record_bytes(&self) -> u64 {
        (self.used * 8) as u64
    }

    /// The entries so far.
    #[inline]
    pub fn entries(&self) -> Entries<'_> {
        Entries::new(&self.words[HEADER_WORDS..self.used], self.entries as u32)
    }

    /// The entries so far as words, for applying them: as they were pushed, so [`own_entry`] reads them without the checks of
    /// [`RecordBuilder::entries`].
    #[inline]
    pub(crate) fn payload(&self) -> &[u64] {
        self.words.get(HEADER_WORDS..self.used).unwrap_or_default()
    }

    /// Whether the record's header can describe it.
    pub(crate) fn is_describable(&self) -> bool {
        self.used - HEADER_WORDS <= MAX_PAYLOAD_WORDS && self.entries <= MAX_ENTRIES
    }

    /// Completes the header and returns the record, zero-padded to a multiple of `unit` bytes.
    #[inline]
    pub(crate) fn seal(&mut self, place: Place<'_>, unit: usize) -> &[u64] {
        debug_assert!(self.is_describable() && unit.is_multiple_of(RECORD_ALIGN));
        debug_assert!(unit.is_power_of_two());
        let Place {
            key,
            generation,
            sequence,
            unflushed,
        } = place;
        let header = (generation, sequence, self.entries as u32, unflushed);
        let words = &mut self.words[..self.used];
        seal_record_by(words, key, header, cpu::xxh3_accumulate);
        let end = align_up(self.used as u64 * 8, unit as u64) as usize / 8;
        if self.words.len() < end + 16 {
            self.words.resize(end + 16, 0);
        }
        // Not `fill`, which is a call: mostly fewer than eight.
        let mut at = self.used;
        while at < end {
            self.words[at] = 0;
            at += 1;
        }
        &self.words[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vernal_format::Entry;

    #[test]
    fn entries_come_back_as_pushed() {
        let words = std::array::from_fn(|i| 100 + i as u64);
        let mut b = RecordBuilder::new();
        for mask in 0..=255u8 {
            b.push_line(u64::from(mask) << 20, mask, &words);
        }
        b.push_set_len(77, 12345);
        let mut seen = 0;
        for entry in b.entries() {
            match entry.unwrap() {
                Entry::Line {
                    line,
                    mask,
                    words: got,
                } => {
                    seen += 1;
                    assert_eq!((line, mask), (seen << 20, seen as u8));
                    let want: Vec<u64> = (0..8)
                        .filter(|i| mask >> i & 1 == 1)
                        .map(|i| 100 + i)
                        .collect();
                    assert_eq!(got, want);
                }
                Entry::SetLen { base_line, len } => assert_eq!((base_line, len), (77, 12345)),
            }
        }
        assert_eq!(seen, 255);
        assert_eq!(b.entry_count(), 256);
    }
}
