//! What a log holds: its control word, its entries, which of them are live. Total: any bytes are read, or refused.

use std::io;

use vernal_format::{
    LOG_CONTROL_OFFSET, LOG_DATA_MAX, LOG_ENTRIES_OFFSET, LOG_ENTRY_ALIGN, LOG_ENTRY_HEADER,
    LOG_HEADER_LEN, LogControl, LogEntry, LogHeader, LogKind, LogRef, LogSeed, RawLogEntry,
    SequenceRange, UNFENCED_MANY, Uuid, entry_span,
};
use vernal_sys::Media;

use super::error::LogProblem;

/// A live entry and where its data lies.
#[derive(Debug, Clone, Copy)]
pub struct LiveEntry {
    /// Its header.
    pub entry: LogEntry,
    pub(super) file: usize,
    pub(super) at: u64,
}

/// A log that was read to its end.
#[derive(Debug)]
pub struct LogReader<L> {
    pub(super) files: Vec<L>,
    log: Uuid,
    pub(super) seed: LogSeed,
    control: LogControl,
    live: Vec<LiveEntry>,
    entries: u32,
    torn: bool,
}

impl<L: Media> LogReader<L> {
    /// Reads the log whose files the log space names so, in the order of the chain.
    pub fn open(files: Vec<L>, named: &[LogRef]) -> Result<LogReader<L>, LogProblem> {
        let mut log = Uuid::NIL;
        for (position, media) in (0u32..).zip(&files) {
            let named = named.get(position as usize);
            log = check_header(media, position, named)?;
        }
        let seed = LogSeed::new(log);
        let mut reader = LogReader {
            log,
            seed,
            control: LogControl {
                generation: 0,
                range: SequenceRange::NONE,
            },
            live: Vec::new(),
            entries: 0,
            torn: false,
            files,
        };
        let mut word = [0; 8];
        reader.read(0, LOG_CONTROL_OFFSET, &mut word)?;
        let word = u64::from_le_bytes(word);
        reader.control = LogControl::decode(word, seed).ok_or(LogProblem::Control { word })?;
        reader.scan()?;
        Ok(reader)
    }

    /// The log's identity.
    pub fn uuid(&self) -> Uuid {
        self.log
    }

    /// Its generation and sequence range.
    pub fn control(&self) -> LogControl {
        self.control
    }

    /// Entries of this generation, live or not.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// The entries that recovery applies, in the order in which they were written.
    pub fn live(&self) -> &[LiveEntry] {
        &self.live
    }

    /// Whether the redo entries of the one fence of a commit were torn: the transaction never happened.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// The data of a live entry.
    pub fn data(&self, live: &LiveEntry, buf: &mut [u8]) -> Result<(), LogProblem> {
        self.read(live.file, live.at + LOG_ENTRY_HEADER as u64, buf)
    }

    fn read(&self, file: usize, at: u64, buf: &mut [u8]) -> Result<(), LogProblem> {
        let read = match self.files.get(file) {
            Some(media) => media.read(at, buf),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        read.map_err(|source| LogProblem::Read {
            position: file as u32,
            at,
            source,
        })
    }

    fn len(&self, file: usize) -> u64 {
        self.files.get(file).map_or(0, Media::len)
    }

    fn scan(&mut self) -> Result<(), LogProblem> {
        let (mut file, mut at) = (0, LOG_ENTRIES_OFFSET);
        let (mut undo, mut redo, mut sealed) = (0u32, 0u32, false);
        loop {
            let raw = match self.entry_at(file, at, self.entries)? {
                Some(raw) => raw,
                None => {
                    // The rest of this file was too short for it, or there is no further entry.
                    let Some(raw) = self.entry_at(file + 1, LOG_ENTRIES_OFFSET, self.entries)?
                    else {
                        break;
                    };
                    (file, at) = (file + 1, LOG_ENTRIES_OFFSET);
                    raw
                }
            };
            let entry = raw.parse().map_err(|source| LogProblem::Entry {
                index: self.entries,
                source,
            })?;
            sealed = entry.kind == LogKind::Seal && entry.addr == u64::from(redo);
            match entry.kind {
                LogKind::Undo => undo += 1,
                LogKind::Redo => redo += 1,
                LogKind::Volatile | LogKind::Seal => {}
            }
            if self.control.range.selects(entry.sequence)
                && matches!(entry.kind, LogKind::Undo | LogKind::Redo)
            {
                self.live.push(LiveEntry { entry, file, at });
            }
            at += entry.span();
            let Some(next) = self.entries.checked_add(1) else {
                break;
            };
            self.entries = next;
        }
        self.check_decay(file, at)?;
        if self.control.range == SequenceRange::REDO && !sealed {
            if undo > 0 {
                return Err(LogProblem::Unsealed { found: redo });
            }
            // Entries, seal and range share one fence when nothing was changed in place: it did not return.
            self.torn = true;
            self.live.clear();
        }
        Ok(())
    }

    /// The entry at this place, if there is one of this generation with this index and the right checksum.
    fn entry_at(
        &self,
        file: usize,
        at: u64,
        index: u32,
    ) -> Result<Option<RawLogEntry>, LogProblem> {
        Ok(self
            .any_entry_at(file, at)?
            .filter(|raw| raw.index() == index))
    }

    fn any_entry_at(&self, file: usize, at: u64) -> Result<Option<RawLogEntry>, LogProblem> {
        let len = self.len(file);
        if len.saturating_sub(at) < LOG_ENTRY_ALIGN {
            return Ok(None);
        }
        let mut head = [0; LOG_ENTRY_HEADER];
        self.read(file, at, &mut head)?;
        let raw = RawLogEntry::read(&head);
        if raw.generation() != self.control.generation
            || raw.size() as usize > LOG_DATA_MAX
            || entry_span(raw.size()) > len - at
        {
            return Ok(None);
        }
        let mut whole = [0; LOG_ENTRY_HEADER + LOG_DATA_MAX];
        let end = LOG_ENTRY_HEADER + raw.size() as usize;
        let Some(whole) = whole.get_mut(..end) else {
            return Ok(None);
        };
        self.read(file, at, whole)?;
        Ok(raw.verify(self.seed, whole).then_some(raw))
    }

    /// Looks behind the end of the log for an entry that says that the missing one had been durable.
    fn check_decay(&self, file: usize, at: u64) -> Result<(), LogProblem> {
        let missing = self.entries;
        let (mut file, mut at) = (file, at);
        while file < self.files.len() {
            while self.len(file).saturating_sub(at) >= LOG_ENTRY_ALIGN {
                if let Some(raw) = self.any_entry_at(file, at)? {
                    let first_unfenced = match raw.unfenced() {
                        UNFENCED_MANY => 0,
                        n => raw.index().saturating_sub(u32::from(n)),
                    };
                    if missing < first_unfenced {
                        return Err(LogProblem::Decayed {
                            missing,
                            witness: raw.index(),
                        });
                    }
                }
                at += LOG_ENTRY_ALIGN;
            }
            (file, at) = (file + 1, LOG_ENTRIES_OFFSET);
        }
        Ok(())
    }
}

/// Checks a file's header against the log space; the log that it belongs to.
fn check_header<L: Media>(
    media: &L,
    position: u32,
    named: Option<&LogRef>,
) -> Result<Uuid, LogProblem> {
    let Some(named) = named else {
        return Err(LogProblem::WrongFile {
            position,
            expected: "none".to_owned(),
            found: "a file".to_owned(),
        });
    };
    let mut bytes = [0; LOG_HEADER_LEN];
    media
        .read(0, &mut bytes)
        .map_err(|source| LogProblem::Read {
            position,
            at: 0,
            source,
        })?;
    let header = LogHeader::decode(&bytes).map_err(|source| LogProblem::Header {
        file: named.file,
        position,
        source,
    })?;
    if (header.file, header.log, header.position) != (named.file, named.log, position) {
        return Err(LogProblem::WrongFile {
            position,
            expected: format!("file {} of log {}", named.file, named.log),
            found: format!(
                "file {} at position {} of log {}",
                header.file, header.position, header.log
            ),
        });
    }
    let len = header.len.max(named.len);
    if media.len() < len {
        return Err(LogProblem::Truncated {
            file: named.file,
            found: media.len(),
            len,
        });
    }
    Ok(header.log)
}
