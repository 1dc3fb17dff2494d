//! The buffer in which a record grows: reused from commit to commit, sealed in place.

use vernal_format::{
    Entries, HEADER_WORDS, MAX_ENTRIES, MAX_PAYLOAD_WORDS, MAX_RUN_LINES, RECORD_ALIGN, RecordKey,
    WORDS_PER_LINE, line_entry_header, run_entry_header, seal_record_by, set_len_entry_header,
};
use vernal_sys::cpu;
use zerocopy::IntoBytes;

/// Words kept allocated between commits; what a giant commit needed beyond is given back.
const KEEP_WORDS: usize = 1 << 18;
/// Words that one line can need.
const LINE_ENTRY_WORDS: usize = 1 + WORDS_PER_LINE;
/// Room that is kept behind what is used.
const LINE_ENTRY_ROOM: usize = 16;
/// Lines of a run that are copied without a call.
const FEW_LINES: usize = 4;

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
    /// Lines in them.
    lines: usize,
    set_lens: usize,
    /// The last entry, when it is a run.
    run: Run,
}

/// A run that may go on: its header's place, its first line, how many lines it has (0: there is none).
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    at: usize,
    line: u64,
    count: u64,
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
            lines: 0,
            set_lens: 0,
            run: Run::default(),
        }
    }

    /// Adds the words of `line` that `mask` selects; an empty mask adds nothing.
    #[inline]
    pub fn push_line(&mut self, line: u64, mask: u8, words: &[u64; 8]) {
        if mask == u8::MAX {
            return self.push_whole_line(line, words);
        }
        if mask == 0 {
            return;
        }
        let out = self.room();
        out[0] = line_entry_header(line, mask).to_le();
        // Every word is stored, and the position moves only behind those that count: no branch to mispredict.
        let mut at = 1;
        for (i, word) in words.iter().enumerate() {
            out[at & 15] = word.to_le();
            at += usize::from(mask >> i & 1);
        }
        self.used += at;
        self.entries += 1;
        self.lines += 1;
        self.run.count = 0;
    }

    /// Adds a whole line: to the run before it, if that ends where the line begins.
    fn push_whole_line(&mut self, line: u64, words: &[u64; 8]) {
        let Run {
            at,
            line: first,
            count,
        } = self.run;
        if count != 0 && count < MAX_RUN_LINES && first + count == line {
            let out = self.room();
            for (to, word) in out.iter_mut().zip(words) {
                *to = word.to_le();
            }
            self.words[at] = run_entry_header(first, count + 1).to_le();
            self.run.count += 1;
            self.used += WORDS_PER_LINE;
            self.lines += 1;
        } else {
            self.push_run(line, std::slice::from_ref(words));
        }
    }

    /// The next line begins a run of its own: it belongs to another file.
    #[inline]
    pub(crate) fn end_run(&mut self) {
        self.run.count = 0;
    }

    /// Adds whole lines, one behind the other: 1 to [`MAX_RUN_LINES`] of them.
    #[inline(always)]
    pub fn push_run(&mut self, line: u64, lines: &[[u64; 8]]) {
        let count = lines.len();
        let end = self.used + 1 + count * WORDS_PER_LINE;
        if self.words.len() < end + LINE_ENTRY_ROOM {
            self.grow(end + LINE_ENTRY_ROOM);
        }
        let Some((header, out)) = self
            .words
            .get_mut(self.used..end)
            .and_then(<[u64]>::split_first_mut)
        else {
            return; // Grown above.
        };
        *header = run_entry_header(line, count as u64).to_le();
        // Line by line without a call, while they are few.
        if count <= FEW_LINES {
            for (to, line) in out.as_chunks_mut().0.iter_mut().zip(lines) {
                *to = line.map(u64::to_le);
            }
        } else {
            out.copy_from_slice(lines.as_flattened());
            if cfg!(target_endian = "big") {
                out.iter_mut().for_each(|w| *w = w.to_le());
            }
        }
        self.run = Run {
            at: self.used,
            line,
            count: count as u64,
        };
        self.used = end;
        self.entries += 1;
        self.lines += count;
    }

    /// Adds a new length for the file whose first line is `base_line`.
    pub fn push_set_len(&mut self, base_line: u64, len: u64) {
        let out = self.room();
        out[0] = set_len_entry_header(base_line).to_le();
        out[1] = len.to_le();
        self.used += 2;
        self.entries += 1;
        self.set_lens += 1;
        self.run.count = 0;
    }

    /// A window for one entry (16 words, so that an index needs a mask and no check).
    #[inline]
    fn room(&mut self) -> &mut [u64; LINE_ENTRY_ROOM] {
        const _: () = assert!(LINE_ENTRY_WORDS <= LINE_ENTRY_ROOM);
        if self.words.len() < self.used + LINE_ENTRY_ROOM {
            self.grow(self.used + LINE_ENTRY_ROOM);
        }
        self.words[self.used..]
            .first_chunk_mut()
            .expect("grown above")
    }

    #[cold]
    fn grow(&mut self, needed: usize) {
        self.words.resize(needed.max(self.words.len() * 2), 0);
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

    /// Lines in the entries so far.
    #[inline]
    pub fn line_count(&self) -> usize {
        self.lines
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
        self.lines = 0;
        self.set_lens = 0;
        self.run.count = 0;
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
        let end = align_up(self.used as u64 * 8, unit as u64) as usize / 8;
        if self.words.len() < end + LINE_ENTRY_ROOM {
            self.words.resize(end + LINE_ENTRY_ROOM, 0);
        }
        let (words, rest) = self.words.split_at_mut(self.used);
        seal_record_by(words, key, header, cpu::xxh3_accumulate);
        let padding = end - self.used;
        match rest.first_chunk_mut::<8>() {
            // Mostly fewer than eight: what is behind them is room.
            Some(few) if padding <= 8 => *few = [0; 8],
            _ => rest.iter_mut().take(padding).for_each(|w| *w = 0),
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
                Entry::Run { line, words: got } => {
                    seen += 1;
                    assert_eq!((line, got), (255 << 20, &words[..]));
                }
                Entry::SetLen { base_line, len } => assert_eq!((base_line, len), (77, 12345)),
            }
        }
        assert_eq!(seen, 255);
        assert_eq!(b.entry_count(), 256);
    }
    #[test]
    fn whole_lines_that_follow_each_other_are_one_run() {
        let lines: Vec<[u64; 8]> = (0..40).map(|i| [i; 8]).collect();
        let mut b = RecordBuilder::new();
        // 10 to 12 in a run, 13 behind it; 14 in parts; 15 to 54 at once; 7 again, and the end of a file between 8 and 9.
        b.push_run(10, &lines[..3]);
        b.push_line(13, u8::MAX, &lines[3]);
        b.push_line(14, 0x7f, &lines[4]);
        b.push_run(15, &lines);
        b.push_line(7, u8::MAX, &lines[7]);
        b.push_line(8, u8::MAX, &lines[8]);
        b.push_set_len(0, 64);
        b.push_line(9, u8::MAX, &lines[9]);
        let runs = [
            (10, lines[..4].as_flattened()),
            (15, lines.as_flattened()),
            (7, lines[7..9].as_flattened()),
            (9, lines[9].as_slice()),
        ];
        let found: Vec<(u64, &[u64])> = (b.entries().map(Result::unwrap))
            .filter_map(|e| match e {
                Entry::Run { line, words } => Some((line, words)),
                _ => None,
            })
            .collect();
        assert_eq!(found, runs);
        assert_eq!((b.entry_count(), b.line_count()), (6, 48));
        // What applies a record reads the same.
        let (mut rest, mut own) = (b.payload(), Vec::new());
        while !rest.is_empty() {
            let (entry, taken) = vernal_format::own_entry(rest);
            own.push(entry);
            rest = &rest[taken..];
        }
        assert_eq!(own, b.entries().map(Result::unwrap).collect::<Vec<_>>());
    }

    #[test]
    fn a_run_ends_when_its_header_is_full() {
        let lines = vec![[3; 8]; MAX_RUN_LINES as usize];
        let mut b = RecordBuilder::new();
        b.push_run(5, &lines);
        b.push_line(5 + MAX_RUN_LINES, u8::MAX, &lines[0]);
        let counts: Vec<usize> = (b.entries().map(Result::unwrap))
            .map(|e| match e {
                Entry::Run { words, .. } => words.len() / 8,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(counts, [MAX_RUN_LINES as usize, 1]);
    }
}
