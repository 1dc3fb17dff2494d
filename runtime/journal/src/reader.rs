//! What a journal holds: superblock, members, and the records that are alive. Reads only.

use std::sync::OnceLock;

use vernal_format::{
    Entries, HEADER_WORDS, MAX_MEMBERS, MEMBER_PATH_LEN, Member, MemberPath, RECORD_ALIGN,
    RecordHeader, RecordKey, SLOT_COUNT, SLOT_LEN, Superblock, Uuid, newest_slot, verify_record,
};
use vernal_sys::Media;
use zerocopy::IntoBytes;

use crate::error::RecoveryError;
use crate::meta_file::read_slots;

/// How many times its length a log may claim in lookalikes of records behind its end.
const PROOF_BUDGET: u64 = 16;
/// Words of log that are read at a time, at most.
const WINDOW_WORDS: usize = 1 << 15;
/// Words that are read first: the log of a program that had just begun is short.
const FIRST_WINDOW_WORDS: usize = 1 << 11;

/// A journal, opened for reading.
#[derive(Debug)]
pub struct JournalReader<M> {
    media: M,
    name: String,
    sb: Superblock,
    key: RecordKey,
    /// What lies behind the last record, once somebody has looked: the same for every file that the journal serves.
    tail: OnceLock<Tail>,
}

/// Why the records end, for a log whose last one ends at `at` and before `sequence`.
#[derive(Debug, Clone, Copy)]
struct Tail {
    at: u64,
    sequence: u64,
    end: LogEnd,
}

/// A file that a journal serves, and where its metadata is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedFile {
    /// The file.
    pub member: Member,
    /// Path of its metadata; `None`: unreadable, so that nobody can say whether the file still needs the journal.
    pub meta_path: Option<Vec<u8>>,
}

/// A record that is alive: its checksum, generation and sequence are right. Its entries are not checked yet.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// Where it is, from the start of the log.
    pub offset: u64,
    /// Its header.
    pub header: RecordHeader,
    payload: &'a [u64],
}

impl<'a> RecordRef<'a> {
    /// Its entries.
    pub fn entries(&self) -> Entries<'a> {
        Entries::new(self.payload, self.header.entries)
    }
}

/// Why a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogEnd {
    /// The log is full to its end.
    Full,
    /// No valid record follows: the log was not written further, or its last record was torn by the crash.
    NoRecord,
    /// The next record is damaged: a later one is intact, which says that this one had been durable.
    Damaged {
        /// Sequence of the intact record.
        later: u64,
    },
}

/// What a scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanSummary {
    /// Records that are alive.
    pub records: u64,
    /// Bytes of log up to the end of the last one.
    pub bytes: u64,
    /// Sequence of the first record, if any, or of the one that would have come.
    pub first_sequence: u64,
    /// Sequence after the last.
    pub next_sequence: u64,
    /// Why the scan ended.
    pub end: LogEnd,
}

impl<M: Media> JournalReader<M> {
    /// Reads the superblock of the journal on `media`; `name` is for messages.
    pub fn open(media: M, name: impl Into<String>) -> Result<Self, RecoveryError> {
        let name = name.into();
        let mut slots = [[0; SLOT_LEN]; SLOT_COUNT];
        read_slots(&media, &mut slots).map_err(|e| RecoveryError::io(&name, "reading", e))?;
        let (_, sb) =
            newest_slot::<Superblock>(&slots).map_err(|e| RecoveryError::format(&name, e))?;
        let key = RecordKey::new(sb.journal, sb.generation);
        Ok(JournalReader {
            media,
            name,
            sb,
            key,
            tail: OnceLock::new(),
        })
    }

    /// The journal's identity.
    pub fn uuid(&self) -> Uuid {
        self.sb.journal
    }

    /// The name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the journal says about itself.
    pub fn superblock(&self) -> &Superblock {
        &self.sb
    }

    /// Gives the medium back.
    pub fn into_media(self) -> M {
        self.media
    }

    /// The files that the journal serves.
    pub fn members(&self) -> Result<Vec<ServedFile>, RecoveryError> {
        let mut members = Vec::with_capacity(MAX_MEMBERS);
        for (index, member) in self.sb.members.iter().enumerate() {
            let Some(member) = member else { continue };
            let mut bytes = [0; MEMBER_PATH_LEN];
            self.media
                .read(MemberPath::offset(index), &mut bytes)
                .map_err(|e| RecoveryError::io(&self.name, "reading", e))?;
            let path = MemberPath::decode(&bytes)
                .filter(|p| p.file == member.file)
                .map(|p| p.path);
            members.push(ServedFile {
                member: *member,
                meta_path: path,
            });
        }
        Ok(members)
    }

    /// Whether no file needs the journal any more, so that it can be deleted. `metadata` reads the metadata at a path:
    /// `None` when there is none there. Whatever cannot be read keeps the journal.
    pub fn is_deletable(
        &self,
        mut metadata: impl FnMut(&[u8]) -> Result<Option<vernal_format::Meta>, RecoveryError>,
    ) -> Result<bool, RecoveryError> {
        for ServedFile { member, meta_path } in self.members()? {
            let Some(path) = meta_path else {
                return Ok(false);
            };
            match metadata(&path)? {
                Some(meta) if meta.file == member.file && meta.needs_journal(self.uuid()) => {
                    return Ok(false);
                }
                _ => {}
            }
        }
        Ok(true)
    }

    /// Visits the records that are alive, in order. The visitor's first error ends the scan.
    pub fn scan(
        &self,
        visit: impl FnMut(RecordRef<'_>) -> Result<(), RecoveryError>,
    ) -> Result<ScanSummary, RecoveryError> {
        self.log()?.scan(visit)
    }

    /// The log, once it is known to be all there.
    pub(crate) fn log(&self) -> Result<Log<'_, M>, RecoveryError> {
        let expected = self.sb.log_offset + self.sb.log_len;
        if self.media.len() < expected {
            return Err(RecoveryError::JournalTruncated {
                name: self.name.clone(),
                len: self.media.len(),
                expected,
            });
        }
        Ok(Log {
            reader: self,
            window: Vec::new(),
            start: 0,
        })
    }

    /// Counts the records that are alive without looking into them.
    pub fn summary(&self) -> Result<ScanSummary, RecoveryError> {
        self.scan(|_| Ok(()))
    }
}

/// The log, read through a window that moves forward.
pub(crate) struct Log<'r, M> {
    reader: &'r JournalReader<M>,
    window: Vec<u64>,
    /// Log offset of the window's first word.
    start: u64,
}

impl<M: Media> Log<'_, M> {
    /// Visits the records that are alive, and finds out why they end.
    pub fn scan(
        &mut self,
        visit: impl FnMut(RecordRef<'_>) -> Result<(), RecoveryError>,
    ) -> Result<ScanSummary, RecoveryError> {
        let mut summary = self.records(visit)?;
        let at = summary.bytes.next_multiple_of(RECORD_ALIGN as u64);
        if at < self.reader.sb.log_len {
            summary.end = self.end_at(at, summary.next_sequence)?;
        }
        Ok(summary)
    }

    /// Visits the records that are alive, in order.
    pub fn records(
        &mut self,
        mut visit: impl FnMut(RecordRef<'_>) -> Result<(), RecoveryError>,
    ) -> Result<ScanSummary, RecoveryError> {
        let first_sequence = self.reader.sb.first_sequence;
        let mut summary = ScanSummary {
            records: 0,
            bytes: 0,
            first_sequence,
            next_sequence: first_sequence,
            end: LogEnd::Full,
        };
        let mut at = 0;
        while let Some((offset, header)) = self.next_record(at, summary.next_sequence)? {
            let words = self
                .words(offset, header.record_bytes())?
                .expect("just verified");
            visit(RecordRef {
                offset,
                header,
                payload: &words[HEADER_WORDS..],
            })?;
            summary.records += 1;
            summary.bytes = offset + header.record_bytes();
            // A sequence that wraps is no sequence: such a journal ends here.
            let Some(next) = summary.next_sequence.checked_add(1) else {
                break;
            };
            summary.next_sequence = next;
            at = summary.bytes.next_multiple_of(RECORD_ALIGN as u64);
        }
        Ok(summary)
    }

    /// `len` bytes at `offset` (both multiples of 8); `None` when they reach beyond the log.
    fn words(&mut self, offset: u64, len: u64) -> Result<Option<&[u64]>, RecoveryError> {
        let sb = &self.reader.sb;
        match offset.checked_add(len) {
            Some(end) if end <= sb.log_len => {}
            _ => return Ok(None),
        }
        let count = (len / 8) as usize;
        let have = offset
            .checked_sub(self.start)
            .map(|skip| (skip / 8) as usize);
        let inside = have.filter(|skip| skip + count <= self.window.len());
        let skip = match inside {
            Some(skip) => skip,
            None => {
                let rest = ((sb.log_len - offset) / 8) as usize;
                let more = (self.window.len() * 2).clamp(FIRST_WINDOW_WORDS, WINDOW_WORDS);
                self.window.resize(count.max(more).min(rest), 0);
                self.start = offset;
                self.reader
                    .media
                    .read(sb.log_offset + offset, self.window.as_mut_bytes())
                    .map_err(|e| RecoveryError::io(&self.reader.name, "reading", e))?;
                0
            }
        };
        Ok(Some(&self.window[skip..skip + count]))
    }

    /// The header at `offset`, if a record of this generation is there whose checksum is right and `wanted`.
    fn record_at(
        &mut self,
        offset: u64,
        wanted: impl Fn(&RecordHeader) -> bool,
    ) -> Result<Option<RecordHeader>, RecoveryError> {
        let (generation, key) = (self.reader.sb.generation, &self.reader.key);
        let Some(words) = self.words(offset, (HEADER_WORDS * 8) as u64)? else {
            return Ok(None);
        };
        let header = RecordHeader::parse(words.first_chunk().expect("as long as asked for"));
        let Some(header) = header.filter(|h| h.generation == generation && wanted(h)) else {
            return Ok(None);
        };
        let Some(words) = self.words(offset, header.record_bytes())? else {
            return Ok(None);
        };
        Ok(verify_record(words, key).then_some(header))
    }

    /// The record `sequence`: where the one before ends, or at the next write unit when a flush came between them.
    fn next_record(
        &mut self,
        at: u64,
        sequence: u64,
    ) -> Result<Option<(u64, RecordHeader)>, RecoveryError> {
        for offset in [at, at.next_multiple_of(self.reader.sb.write_unit)] {
            if let Some(header) = self.record_at(offset, |h| h.sequence == sequence)? {
                return Ok(Some((offset, header)));
            }
        }
        Ok(None)
    }

    /// Why the records end at `at`, where record `sequence` should be. Searching the rest of the log costs more than the rest of a
    /// small recovery, so that it is done once for all files.
    fn end_at(&mut self, at: u64, sequence: u64) -> Result<LogEnd, RecoveryError> {
        let known = self.reader.tail.get();
        if let Some(tail) = known.filter(|t| (t.at, t.sequence) == (at, sequence)) {
            return Ok(tail.end);
        }
        let end = self.proof_of_damage(at, sequence)?;
        // Whoever comes second has found the same, or a journal that changes while it is read: the first word stands.
        let _ = self.reader.tail.set(Tail { at, sequence, end });
        Ok(end)
    }

    /// Looks behind the end for a record that was written when record `sequence` was durable already.
    fn proof_of_damage(&mut self, at: u64, sequence: u64) -> Result<LogEnd, RecoveryError> {
        let knows = |h: &RecordHeader| {
            h.sequence
                .checked_sub(u64::from(h.unflushed))
                .is_some_and(|first_uncertain| first_uncertain > sequence)
        };
        let generation = self.reader.sb.generation;
        // What only looks like a record costs a checksum of all that it claims to be. A log that claims many times its own length
        // was made so, to keep its reader busy.
        let mut left = self.reader.sb.log_len.saturating_mul(PROOF_BUDGET);
        let mut at = at;
        while at < self.reader.sb.log_len {
            if !self.has(at) {
                at = self.behind_hole(at)?;
                if at >= self.reader.sb.log_len {
                    break;
                }
            }
            // Most of what lies here is no header: look through the window before asking for a whole record.
            let lines = self.window_at(at)?.chunks_exact(RECORD_ALIGN / 8);
            let count = lines.len();
            let mut lines = lines.enumerate();
            let candidate = lines.find(|(_, line)| {
                let header = line.first_chunk().and_then(RecordHeader::parse);
                header.is_some_and(|h| h.generation == generation && knows(&h))
            });
            let skip = candidate.map_or(count, |(i, _)| i);
            at += (skip * RECORD_ALIGN) as u64;
            if let Some((_, line)) = candidate {
                let claims = line.first_chunk().and_then(RecordHeader::parse);
                // One that claims more than the log has left costs no checksum: it is no record.
                let room = self.reader.sb.log_len - at;
                let bytes = claims.map_or(0, |h| h.record_bytes());
                let bytes = if bytes <= room { bytes } else { 0 };
                let later = claims.map_or(0, |h| h.sequence);
                match left.checked_sub(bytes) {
                    Some(rest) => left = rest,
                    None => return Ok(LogEnd::Damaged { later }),
                }
                if let Some(header) = self.record_at(at, knows)? {
                    return Ok(LogEnd::Damaged {
                        later: header.sequence,
                    });
                }
                at += RECORD_ALIGN as u64;
            }
        }
        Ok(LogEnd::NoRecord)
    }

    /// Whether the window holds the line at `offset`.
    fn has(&self, offset: u64) -> bool {
        let skip = offset.checked_sub(self.start).map(|b| (b / 8) as usize);
        skip.is_some_and(|skip| skip + RECORD_ALIGN / 8 <= self.window.len())
    }

    /// The first line at or behind `offset` that may hold anything: a log that was never written to its end need not be read to
    /// its end.
    fn behind_hole(&self, offset: u64) -> Result<u64, RecoveryError> {
        let from = self.reader.sb.log_offset;
        let data = self
            .reader
            .media
            .next_data(from + offset)
            .map_err(|e| RecoveryError::io(&self.reader.name, "reading", e))?;
        let line = RECORD_ALIGN as u64;
        Ok(data.saturating_sub(from).max(offset) / line * line)
    }

    /// What the window holds from `offset` (a record's place in the log) on: one line at least.
    fn window_at(&mut self, offset: u64) -> Result<&[u64], RecoveryError> {
        self.words(offset, RECORD_ALIGN as u64)?;
        Ok(&self.window[((offset - self.start) / 8) as usize..])
    }
}
