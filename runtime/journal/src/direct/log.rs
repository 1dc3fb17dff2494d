//! One thread's log: entries are appended, and the stages of a commit move its sequence range.

use std::io;

use vernal_format::{
    LOG_CONTROL_OFFSET, LOG_DATA_MAX, LOG_ENTRIES_OFFSET, LOG_ENTRY_ALIGN, LOG_ENTRY_HEADER,
    LOG_GENERATIONS, LogControl, LogEntry, LogHeader, LogKind, LogOrder, LogSeed, SequenceRange,
    UNFENCED_MANY, Uuid, entry_span,
};
use vernal_sys::Media;

use super::Home;
use super::error::DirectError;
use super::lines::Lines;

const LINE: u64 = 64;
/// Sequences of undo and redo entries; the ranges of [`SequenceRange`] select them.
const UNDO: u8 = 1;
const REDO: u8 = 3;
/// Bytes of an entry, padded.
const ENTRY_MAX: usize = LOG_ENTRY_HEADER + LOG_DATA_MAX;

/// Where a log's further files come from.
pub trait LogSupply<L> {
    /// A log file for `position` of the chain: created with [`create_log_file`] and durably named by the log space.
    fn more(&mut self, log: Uuid, position: u32) -> io::Result<L>;
}

/// No further files: a transaction larger than the log fails.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSupply;

impl<L> LogSupply<L> for NoSupply {
    fn more(&mut self, _: Uuid, _: u32) -> io::Result<L> {
        Err(io::Error::other("it has no supply of log files"))
    }
}

/// Makes an empty log file of `media`, as long as `header` says, and durable.
pub fn create_log_file<L: Media>(
    media: &mut L,
    header: &LogHeader,
    generation: u64,
) -> io::Result<()> {
    let mut page = [0; 192];
    page[..128].copy_from_slice(&header.encode());
    let control = LogControl {
        generation,
        range: SequenceRange::UNDO,
    };
    page[128..136].copy_from_slice(&control.encode(LogSeed::new(header.log)).to_le_bytes());
    media.write(0, &page)?;
    media.persist()
}

/// Where an entry of this transaction lies.
#[derive(Debug, Clone, Copy)]
struct Written {
    addr: u64,
    at: u64,
    file: u32,
    size: u32,
    kind: LogKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Open,
    /// An entry could not be written: the transaction can only be rolled back.
    Doomed,
    /// Rolled back, and not yet left.
    Aborted,
    /// A medium failed.
    Failed,
}

/// One thread's log, kept between its transactions.
#[derive(Debug)]
pub struct DirectLog<L, S = NoSupply> {
    files: Vec<L>,
    supply: S,
    log: Uuid,
    seed: LogSeed,
    generation: u64,
    state: State,
    depth: u32,
    /// Where the next entry goes.
    file: usize,
    at: u64,
    /// Entries of this transaction, and how many of the last ones no fence has completed.
    index: u32,
    unfenced: u32,
    undo: u32,
    redo: u32,
    written: Vec<Written>,
    /// What redo entries hold, for applying them without reading the log.
    redo_data: Vec<u8>,
    lines: Lines,
    scratch: Box<[u8; ENTRY_MAX]>,
}

impl<L: Media, S: LogSupply<L>> DirectLog<L, S> {
    /// The log whose first file is `media`, fresh from [`create_log_file`] with the same header and generation.
    pub fn new(media: L, header: &LogHeader, generation: u64, supply: S) -> DirectLog<L, S> {
        DirectLog {
            files: vec![media],
            supply,
            log: header.log,
            seed: LogSeed::new(header.log),
            generation,
            state: State::Idle,
            depth: 0,
            file: 0,
            at: LOG_ENTRIES_OFFSET,
            index: 0,
            unfenced: 0,
            undo: 0,
            redo: 0,
            written: Vec::with_capacity(64),
            redo_data: Vec::with_capacity(4096),
            lines: Lines::new(),
            scratch: Box::new([0; ENTRY_MAX]),
        }
    }

    /// The log's identity.
    pub fn uuid(&self) -> Uuid {
        self.log
    }

    /// Transactions that are open, one inside the other.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Whether the open transaction was aborted and not yet left.
    pub fn is_aborted(&self) -> bool {
        self.state == State::Aborted
    }

    /// Files that the log has.
    pub fn files(&self) -> &[L] {
        &self.files
    }

    /// Begins a transaction, or one inside the open one. Writes nothing: the end of the last one was the beginning.
    #[inline]
    pub fn begin(&mut self) -> Result<(), DirectError> {
        match self.state {
            State::Failed => return Err(self.failed()),
            State::Idle => self.state = State::Open,
            _ => {}
        }
        self.depth += 1;
        Ok(())
    }

    /// Logs what `len` bytes at `addr` hold, as far as this transaction has not: after it returns they may be changed, and
    /// a crash or an abort brings them back.
    #[inline]
    pub fn undo<H: Home>(&mut self, home: &mut H, addr: u64, len: u64) -> Result<(), DirectError> {
        self.check_open()?;
        let end = range_end(addr, len)?;
        if len == 0 {
            return Ok(());
        }
        let before = self.index;
        // A run of bytes that are not logged yet, over any number of lines.
        let (mut run, mut run_end) = (addr, addr);
        let mut line = addr & !(LINE - 1);
        while line < end {
            let mask = mask(line, addr, end);
            let entry = self.lines.line(line);
            let mut missing = mask & !entry.logged;
            entry.logged |= mask;
            while missing != 0 {
                let first = missing.trailing_zeros();
                let count = (missing >> first).trailing_ones();
                missing &= !(u64::MAX >> (64 - count) << first);
                let start = line + u64::from(first);
                if start != run_end {
                    self.log_old(home, run, run_end - run)?;
                    run = start;
                }
                run_end = start + u64::from(count);
            }
            line += LINE;
        }
        self.log_old(home, run, run_end - run)?;
        if self.index != before {
            // Rule 1: the entries are durable before the caller's store can reach the medium.
            self.fence(home, "fencing undo entries")?;
        }
        Ok(())
    }

    /// Logs what `addr` shall hold once the transaction has committed. Nothing changes there before.
    #[inline]
    pub fn redo(&mut self, addr: u64, data: &[u8]) -> Result<(), DirectError> {
        self.check_open()?;
        range_end(addr, data.len() as u64)?;
        let mut addr = addr;
        let mut rest = data;
        while !rest.is_empty() {
            let size = self.room(rest.len() as u64)?;
            let (part, more) = rest.split_at(size);
            self.scratch[LOG_ENTRY_HEADER..LOG_ENTRY_HEADER + size].copy_from_slice(part);
            self.append(LogKind::Redo, REDO, LogOrder::Forward, addr, size)?;
            self.redo_data.extend_from_slice(part);
            self.redo += 1;
            addr += size as u64;
            rest = more;
        }
        Ok(())
    }

    /// Logs what memory of the process holds, for an abort; recovery ignores it.
    pub fn volatile(&mut self, addr: u64, old: &[u8]) -> Result<(), DirectError> {
        self.check_open()?;
        range_end(addr, old.len() as u64)?;
        let mut addr = addr;
        let mut rest = old;
        while !rest.is_empty() {
            let size = self.room(rest.len() as u64)?;
            let (part, more) = rest.split_at(size);
            self.scratch[LOG_ENTRY_HEADER..LOG_ENTRY_HEADER + size].copy_from_slice(part);
            self.append(LogKind::Volatile, UNDO, LogOrder::Backward, addr, size)?;
            addr += size as u64;
            rest = more;
        }
        Ok(())
    }

    /// Remembers that `len` bytes at `addr` change in place and need no undo entry (memory that was free before): stage 1
    /// writes them back.
    #[inline]
    pub fn touch(&mut self, addr: u64, len: u64) -> Result<(), DirectError> {
        self.check_open()?;
        let end = range_end(addr, len)?;
        let mut line = addr & !(LINE - 1);
        while line < end {
            self.lines.line(line);
            line += LINE;
        }
        Ok(())
    }

    /// Leaves a transaction; leaving the outermost one makes everything durable.
    #[inline]
    pub fn commit<H: Home>(&mut self, home: &mut H) -> Result<(), DirectError> {
        if self.depth == 0 {
            return Err(DirectError::NoTransaction);
        }
        if self.depth > 1 {
            self.depth -= 1;
            return match self.state {
                State::Open => Ok(()),
                State::Failed => Err(self.failed()),
                _ => Err(DirectError::Aborted),
            };
        }
        match self.state {
            State::Open => {}
            State::Failed => {
                self.depth = 0;
                return Err(self.failed());
            }
            State::Aborted => {
                self.leave();
                return Err(DirectError::Aborted);
            }
            _ => {
                self.roll_back(home)?;
                self.leave();
                return Err(DirectError::Aborted);
            }
        }
        self.stages(home)?;
        self.leave();
        Ok(())
    }

    /// Rolls the whole transaction back, also from inside nested ones. At depth 1 the transaction is left; deeper, what
    /// follows fails with [`DirectError::Aborted`] until the outermost one is left.
    pub fn abort<H: Home>(&mut self, home: &mut H) -> Result<(), DirectError> {
        if self.depth == 0 {
            return Err(DirectError::NoTransaction);
        }
        match self.state {
            State::Failed => {
                self.depth -= 1;
                return Err(self.failed());
            }
            State::Aborted => {}
            _ => self.roll_back(home)?,
        }
        self.state = State::Aborted;
        self.depth -= 1;
        if self.depth == 0 {
            self.leave();
        }
        Ok(())
    }

    fn stages<H: Home>(&mut self, home: &mut H) -> Result<(), DirectError> {
        if self.redo > 0 {
            self.room(1)?;
            let count = u64::from(self.redo);
            self.append(LogKind::Seal, REDO, LogOrder::Forward, count, 0)?;
        }
        // Stage 1. Rule 2: what was changed in place is durable before the range moves. The same fence completes the redo
        // entries and their seal.
        if !self.lines.is_empty() {
            let written = self.lines.iter().try_for_each(|l| home.write_back(l.addr));
            if let Err(e) = written {
                return Err(self.fail("writing back a changed line", e));
            }
            self.fence(home, "fencing changed lines")?;
        }
        // Stage 2. Rule 3: the range is durable, and with it the seal, before a redo entry is applied.
        if self.redo > 0 {
            self.set_control(SequenceRange::REDO)?;
            self.fence(home, "committing redo entries")?;
            self.apply_redo(home)?;
            // Rule 4.
            self.fence(home, "fencing applied redo entries")?;
        }
        // Stage 3.
        if self.index > 0 {
            self.next_generation(home)?;
            if self.undo > 0 || self.redo > 0 {
                // Rule 5: what another thread changes next must not be undone or redone by this log.
                self.fence(home, "ending a generation")?;
            }
        }
        Ok(())
    }

    fn apply_redo<H: Home>(&mut self, home: &mut H) -> Result<(), DirectError> {
        let mut at = 0;
        for w in self.written.iter().filter(|w| w.kind == LogKind::Redo) {
            let end = at + w.size as usize;
            if let Err(e) = home.store(w.addr, &self.redo_data[at..end]) {
                return Err(self.fail("applying a redo entry", e));
            }
            at = end;
        }
        Ok(())
    }

    fn roll_back<H: Home>(&mut self, home: &mut H) -> Result<(), DirectError> {
        for i in (0..self.written.len()).rev() {
            let w = self.written[i];
            if !matches!(w.kind, LogKind::Undo | LogKind::Volatile) {
                continue;
            }
            let old = &mut self.scratch[..w.size as usize];
            let done = self.files[w.file as usize]
                .read(w.at + LOG_ENTRY_HEADER as u64, old)
                .and_then(|()| match w.kind {
                    LogKind::Undo => home.store(w.addr, old),
                    _ => home.restore_volatile(w.addr, old),
                });
            if let Err(e) = done {
                return Err(self.fail("undoing a change", e));
            }
        }
        if self.undo > 0 {
            self.fence(home, "fencing what was undone")?;
        }
        if self.index > 0 {
            // Rule 6, also where nothing was undone: the entries that were written must not count for the next transaction.
            // Then the fence of the next entry completes this, for nothing is live meanwhile.
            self.next_generation(home)?;
            if self.undo > 0 {
                self.fence(home, "ending a generation")?;
            }
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.state = State::Idle;
        self.depth = 0;
        self.file = 0;
        self.at = LOG_ENTRIES_OFFSET;
        self.index = 0;
        self.unfenced = 0;
        self.undo = 0;
        self.redo = 0;
        self.written.clear();
        self.redo_data.clear();
        self.lines.clear();
    }

    #[inline]
    fn check_open(&self) -> Result<(), DirectError> {
        match self.state {
            State::Open => Ok(()),
            State::Idle => Err(DirectError::NoTransaction),
            State::Doomed | State::Aborted => Err(DirectError::Aborted),
            State::Failed => Err(self.failed()),
        }
    }

    #[inline]
    fn log_old<H: Home>(&mut self, home: &mut H, addr: u64, len: u64) -> Result<(), DirectError> {
        let (mut addr, mut rest) = (addr, len);
        while rest > 0 {
            let size = self.room(rest)?;
            let data = &mut self.scratch[LOG_ENTRY_HEADER..LOG_ENTRY_HEADER + size];
            if let Err(e) = home.load(addr, data) {
                // The range is marked as logged and is not.
                self.state = State::Doomed;
                return Err(DirectError::Io {
                    log: self.log,
                    doing: "reading what is to be changed",
                    source: e,
                });
            }
            self.append(LogKind::Undo, UNDO, LogOrder::Backward, addr, size)?;
            self.undo += 1;
            addr += size as u64;
            rest -= size as u64;
        }
        Ok(())
    }

    /// How many of `want` bytes the next entry can hold, after going to the next file if this one is full.
    #[inline]
    fn room(&mut self, want: u64) -> Result<usize, DirectError> {
        let left = self.files[self.file].len() - self.at;
        if left < LOG_ENTRY_ALIGN {
            self.next_file()?;
            return self.room(want);
        }
        Ok(want
            .min(LOG_DATA_MAX as u64)
            .min(left - LOG_ENTRY_HEADER as u64) as usize)
    }

    #[cold]
    fn next_file(&mut self) -> Result<(), DirectError> {
        if self.file + 1 == self.files.len() {
            match self.supply.more(self.log, self.files.len() as u32) {
                Ok(file) => self.files.push(file),
                Err(source) => {
                    // A range may be marked as logged that is not.
                    self.state = State::Doomed;
                    return Err(DirectError::Full {
                        log: self.log,
                        files: self.files.len(),
                        source,
                    });
                }
            }
        }
        self.file += 1;
        self.at = LOG_ENTRIES_OFFSET;
        Ok(())
    }

    /// Writes the entry whose `size` bytes of data lie in the scratch buffer. Nothing is durable before a fence.
    #[inline]
    fn append(
        &mut self,
        kind: LogKind,
        sequence: u8,
        order: LogOrder,
        addr: u64,
        size: usize,
    ) -> Result<(), DirectError> {
        let entry = LogEntry {
            addr,
            size: size as u32,
            index: self.index,
            generation: self.generation,
            unfenced: self.unfenced.min(u32::from(UNFENCED_MANY)) as u8,
            kind,
            sequence,
            order,
        };
        let end = LOG_ENTRY_HEADER + size;
        let span = entry_span(size as u32) as usize;
        entry.encode(self.seed, &mut self.scratch[..end]);
        self.scratch[end..span].fill(0);
        if let Err(e) = self.files[self.file].write(self.at, &self.scratch[..span]) {
            return Err(self.fail("writing a log entry", e));
        }
        self.written.push(Written {
            addr,
            at: self.at,
            file: self.file as u32,
            size: size as u32,
            kind,
        });
        self.at += span as u64;
        self.index += 1;
        self.unfenced += 1;
        Ok(())
    }

    #[inline]
    fn fence<H: Home>(&mut self, home: &mut H, doing: &'static str) -> Result<(), DirectError> {
        if let Err(e) = home.fence() {
            return Err(self.fail(doing, e));
        }
        self.unfenced = 0;
        Ok(())
    }

    /// Ends the generation: no entry is of the next one. Durable with the next fence.
    #[inline]
    fn next_generation<H: Home>(&mut self, home: &mut H) -> Result<(), DirectError> {
        if self.generation + 1 >= LOG_GENERATIONS {
            self.clear(home)?;
        } else {
            self.generation += 1;
        }
        self.set_control(SequenceRange::UNDO)
    }

    /// Generations start again: no old entry may be left that could count once more.
    #[cold]
    fn clear<H: Home>(&mut self, home: &mut H) -> Result<(), DirectError> {
        self.set_control(SequenceRange::NONE)?;
        self.fence(home, "clearing a log")?;
        let zeros = [0; 4096];
        for i in 0..self.files.len() {
            let mut at = LOG_ENTRIES_OFFSET;
            while at < self.files[i].len() {
                if let Err(e) = self.files[i].write(at, &zeros) {
                    return Err(self.fail("clearing a log", e));
                }
                at += zeros.len() as u64;
            }
        }
        self.fence(home, "clearing a log")?;
        self.generation = 1;
        Ok(())
    }

    #[inline]
    fn set_control(&mut self, range: SequenceRange) -> Result<(), DirectError> {
        let control = LogControl {
            generation: self.generation,
            range,
        };
        // The whole line, so that it is written without being read. Only its first word ever changes.
        let mut line = [0; LINE as usize];
        line[..8].copy_from_slice(&control.encode(self.seed).to_le_bytes());
        match self.files[0].write(LOG_CONTROL_OFFSET, &line) {
            Ok(()) => Ok(()),
            Err(e) => Err(self.fail("moving a sequence range", e)),
        }
    }

    #[cold]
    fn fail(&mut self, doing: &'static str, source: io::Error) -> DirectError {
        // What is durable is unknown now: recovery has to find out.
        self.state = State::Failed;
        DirectError::Io {
            log: self.log,
            doing,
            source,
        }
    }

    #[cold]
    fn failed(&self) -> DirectError {
        DirectError::Failed { log: self.log }
    }
}

#[inline]
fn range_end(addr: u64, len: u64) -> Result<u64, DirectError> {
    // The last line's end must be an address too.
    addr.checked_add(len)
        .filter(|end| *end < u64::MAX - LINE)
        .ok_or(DirectError::Range { addr, len })
}

/// The bytes of the line at `line` that lie in `[start, end)`, a bit for each.
#[inline]
fn mask(line: u64, start: u64, end: u64) -> u64 {
    let from = start.saturating_sub(line);
    let to = (end - line).min(LINE);
    u64::MAX >> (LINE - (to - from)) << from
}
