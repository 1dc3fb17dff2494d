//! The commit engine: one journal and the homes that it serves.
//!
//! The order of writes that the crash argument rests on (`docs/format.md`):
//!
//! 1. a home grows (reserving its space) before the record that says so, and shrinks after it;
//! 2. the record is durable before the first of its words goes to a home;
//! 3. every home is durable before the superblock starts a new generation;
//! 4. a file is a member before its metadata names the journal, and its metadata is clean before it stops being one.

use std::io;

use vernal_abi::LINE_SIZE;
use vernal_format::{Entry, Member, Uuid, own_entry, own_run};
use vernal_sys::Media;

use crate::apply::{apply_line, apply_run};
use crate::builder::RecordBuilder;
use crate::diff::diff_line;
use crate::error::JournalError;
use crate::journal::Journal;
use crate::meta_file::{MetaFile, Recovered};
use crate::pending::Pending;

/// Names a home of a [`Committer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HomeId(usize);

/// Counters since the committer was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// Records written.
    pub commits: u64,
    /// Bytes of records, without padding.
    pub bytes: u64,
    /// Generations started.
    pub checkpoints: u64,
    /// Times the journal grew.
    pub growths: u64,
}

#[derive(Debug)]
struct Home<H> {
    media: H,
    name: String,
    member: Member,
    /// Committed length, as applied.
    len: u64,
    /// Written since the last checkpoint.
    dirty: bool,
}

/// Where a home's lines are; apart from [`Home`], so that finding a line touches little memory.
#[derive(Debug, Clone, Copy)]
struct Range {
    base: u64,
    /// 0: no home.
    count: u64,
}

/// Commits changes of several files together.
///
/// A failure that leaves unknown what is durable stops the committer: every later commit fails and says why. The homes
/// stay readable and hold the last commit.
#[derive(Debug)]
pub struct Committer<J: Media, H: Media> {
    journal: Journal<J>,
    homes: Vec<Option<Home<H>>>,
    ranges: Vec<Range>,
    /// The range that the last line was found in.
    last: usize,
    builder: RecordBuilder,
    pending: Pending,
    stats: CommitStats,
    /// The journal grows up to this many bytes of log before it is recycled.
    grow_to: u64,
    /// The homes have been told in this generation that they will be flushed.
    announced: bool,
}

impl<J: Media, H: Media> Committer<J, H> {
    /// A committer without homes.
    pub fn new(journal: Journal<J>) -> Self {
        Committer {
            journal,
            homes: Vec::new(),
            ranges: vec![Range { base: 0, count: 0 }],
            last: 0,
            builder: RecordBuilder::new(),
            pending: Pending::new(),
            stats: CommitStats::default(),
            grow_to: 0,
            announced: false,
        }
    }

    /// Lets a full journal grow up to `log_len` bytes of log instead of being recycled: a small one is made quickly, and a
    /// large one spreads the cost of checkpoints over more commits.
    #[must_use]
    pub fn growing_to(mut self, log_len: u64) -> Self {
        self.grow_to = log_len;
        self
    }

    /// The journal.
    pub fn journal(&self) -> &Journal<J> {
        &self.journal
    }

    /// Gives the journal back; what was not flushed is lost.
    pub fn into_journal(self) -> Journal<J> {
        self.journal
    }

    /// The record in the making.
    pub fn builder(&mut self) -> &mut RecordBuilder {
        &mut self.builder
    }

    /// Counters.
    pub fn stats(&self) -> CommitStats {
        self.stats
    }

    /// Why the committer has stopped, if it has.
    pub fn poison(&self) -> Option<&str> {
        self.journal.poison()
    }

    /// The medium of a home.
    pub fn home(&self, id: HomeId) -> Option<&H> {
        self.homes.get(id.0)?.as_ref().map(|h| &h.media)
    }

    /// The medium of a home, to read through or to prepare it. Writing to it breaks the committed image.
    pub fn home_mut(&mut self, id: HomeId) -> Option<&mut H> {
        self.homes.get_mut(id.0)?.as_mut().map(|h| &mut h.media)
    }

    /// The committed length of a home, without what is staged.
    pub fn committed_len(&self, id: HomeId) -> Option<u64> {
        self.homes.get(id.0)?.as_ref().map(|h| h.len)
    }

    /// Adds a recovered file: makes it a member, and then active in its metadata. `meta_path` and `journal_path` are
    /// where recovery will look for them.
    pub fn add_home<M: Media>(
        &mut self,
        media: H,
        meta: &mut MetaFile<M, Recovered>,
        meta_path: &[u8],
        journal_path: &[u8],
    ) -> Result<HomeId, JournalError> {
        let len = media.len();
        let m = meta.meta();
        let member = Member {
            file: m.file,
            base_line: m.base_line(),
            line_count: m.line_count(),
            committed_len: len,
        };
        if len > m.slot_len {
            return Err(JournalError::BeyondSlot {
                name: meta.name().to_owned(),
                len,
                slot: m.slot_len,
            });
        }
        self.journal.add_member(member, meta_path)?;
        if let Err(e) = meta.activate(self.journal.uuid(), journal_path, len) {
            // An error of the medium leaves unknown whether the metadata names the journal: then the member stays.
            if e.is_recoverable() {
                self.journal.remove_member(member.file)?;
            } else {
                self.journal.set_poison(&e);
            }
            return Err(e);
        }
        Ok(self.insert_home(media, meta.name(), member))
    }

    /// Adds a file whose metadata another process keeps: puddled, which has stored already that this journal may hold
    /// commits of it, and which recovers it when this process ends.
    pub fn add_granted(
        &mut self,
        media: H,
        name: &str,
        member: Member,
    ) -> Result<HomeId, JournalError> {
        self.journal.add_member(member, &[])?;
        Ok(self.insert_home(media, name, member))
    }

    fn insert_home(&mut self, media: H, name: &str, member: Member) -> HomeId {
        let id = self
            .homes
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.homes.len());
        if id == self.homes.len() {
            self.homes.push(None);
        }
        if id == self.ranges.len() {
            self.ranges.push(Range { base: 0, count: 0 });
        }
        self.ranges[id] = Range {
            base: member.base_line,
            count: member.line_count,
        };
        self.homes[id] = Some(Home {
            media,
            name: name.to_owned(),
            member,
            len: member.committed_len,
            dirty: false,
        });
        HomeId(id)
    }

    /// Takes a file out: checkpoints, says in its metadata that it is clean, and gives its medium back. What is staged
    /// and not committed is forgotten, for every file.
    pub fn remove_home<M: Media>(
        &mut self,
        id: HomeId,
        meta: &mut MetaFile<M, Recovered>,
    ) -> Result<H, JournalError> {
        self.builder.clear();
        let Some(home) = self.homes.get(id.0).and_then(Option::as_ref) else {
            return Err(JournalError::UnknownMember {
                file: meta.meta().file,
            });
        };
        let (file, len) = (home.member.file, home.len);
        if file != meta.meta().file {
            return Err(JournalError::UnknownMember {
                file: meta.meta().file,
            });
        }
        self.checkpoint()?;
        if let Err(e) = meta.set_clean(len) {
            self.journal.set_poison(&e);
            return Err(e);
        }
        self.journal.remove_member(file)?;
        self.ranges[id.0] = Range { base: 0, count: 0 };
        Ok(self.homes[id.0].take().expect("found above").media)
    }

    /// Takes a file out that [`Committer::add_granted`] has added: checkpoints, so that this journal holds nothing that the
    /// file lacks, and gives its medium back. What is staged and not committed is forgotten, for every file.
    pub fn remove_granted(&mut self, id: HomeId) -> Result<H, JournalError> {
        self.builder.clear();
        let Some(file) = self
            .homes
            .get(id.0)
            .and_then(Option::as_ref)
            .map(|h| h.member.file)
        else {
            return Err(JournalError::UnknownMember {
                file: Uuid::default(),
            });
        };
        self.checkpoint()?;
        self.journal.remove_member(file)?;
        self.ranges[id.0] = Range { base: 0, count: 0 };
        Ok(self.homes[id.0].take().expect("found above").media)
    }

    /// The home in whose place `line` lies.
    #[inline]
    fn find(&mut self, line: u64) -> Option<usize> {
        let r = self.ranges[self.last];
        if line.wrapping_sub(r.base) < r.count {
            return Some(self.last);
        }
        self.find_other(line)
    }

    #[cold]
    fn find_other(&mut self, line: u64) -> Option<usize> {
        let found = self
            .ranges
            .iter()
            .position(|r| line.wrapping_sub(r.base) < r.count)?;
        self.last = found;
        Some(found)
    }

    /// Stages what differs between `work` and the committed content of `line`, whose home is `home`. `work` must be a
    /// copy that nobody writes to. Returns whether anything differs; a line that belongs to no home is ignored.
    #[inline]
    pub fn stage_line(&mut self, line: u64, work: &[u64; 8], home: &[u64; 8]) -> bool {
        if !self.pending.is_empty() {
            return self.stage_over_pending(line, work, home);
        }
        self.stage_words(line, diff_line(work, home), work)
    }

    #[cold]
    fn stage_over_pending(&mut self, line: u64, work: &[u64; 8], home: &[u64; 8]) -> bool {
        let committed = self.pending.committed(line, home);
        self.stage_words(line, diff_line(work, &committed), work)
    }

    /// Stages the words of `line` that `mask` selects. For callers with a comparison of their own; they must compare
    /// with [`Committer::committed_line`] while [`Committer::has_pending`].
    #[inline]
    pub fn stage_words(&mut self, line: u64, mask: u8, work: &[u64; 8]) -> bool {
        if mask == 0 || self.find(line).is_none() {
            return false;
        }
        // A run belongs to one file.
        if line == self.ranges[self.last].base {
            self.builder.end_run();
        }
        self.builder.push_line(line, mask, work);
        true
    }

    /// Whether asynchronous commits wait for a flush, so that the homes are not the committed content.
    #[inline]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The committed content of a line whose home is `home`: what an abort restores.
    #[inline]
    pub fn committed_line(&self, line: u64, home: &[u64; 8]) -> [u64; 8] {
        if self.pending.is_empty() {
            *home
        } else {
            self.pending.committed(line, home)
        }
    }

    /// Stages a new length. Lines beyond it in the same commit are cut.
    pub fn stage_set_len(&mut self, id: HomeId, len: u64) -> Result<(), JournalError> {
        let Some(home) = self.homes.get(id.0).and_then(Option::as_ref) else {
            return Err(JournalError::UnknownMember { file: Uuid::NIL });
        };
        let slot = home.member.line_count * LINE_SIZE;
        if len > slot {
            return Err(JournalError::BeyondSlot {
                name: home.name.clone(),
                len,
                slot,
            });
        }
        self.builder.push_set_len(home.member.base_line, len);
        Ok(())
    }

    /// Makes everything that is staged durable, with one flush, and applies it to the homes. Returns the sequence of the
    /// last durable record. After an error that [`JournalError::is_recoverable`], what is staged is still staged.
    #[inline]
    pub fn commit(&mut self) -> Result<u64, JournalError> {
        if self.builder.is_empty() {
            return self.flush();
        }
        self.make_room()?;
        if self.builder.has_set_len() {
            self.grow_homes()?;
        }
        let sequence = match self.journal.append(&mut self.builder) {
            Ok(sequence) => sequence,
            Err(e) => {
                // A failed medium may have the record all the same: recovery decides, and nothing more is written.
                if e.is_recoverable() {
                    self.ungrow_homes();
                }
                return Err(e);
            }
        };
        // The commit point is behind us: from here on an error stops the committer.
        self.count();
        self.apply_pending()?;
        self.apply_staged()?;
        self.builder.clear();
        Ok(sequence)
    }

    /// [`Committer::commit`] of at least one run and nothing else ([`RecordBuilder::push_run`]), when there is room and nothing
    /// pending; `None`, and nothing has happened: there is not.
    #[inline]
    pub fn commit_runs(&mut self) -> Option<Result<u64, JournalError>> {
        if !self.pending.is_empty() || !self.journal.admits(&self.builder) {
            return None;
        }
        let appended = self.journal.append_admitted(&mut self.builder);
        Some(appended.and_then(|sequence| {
            self.count();
            self.apply_staged_runs()?;
            self.builder.clear();
            Ok(sequence)
        }))
    }

    /// Counts the record that has become durable.
    #[inline]
    fn count(&mut self) {
        if !self.announced && self.journal.free_bytes() < self.journal.capacity() / 2 {
            self.announce();
        }
        self.stats.commits += 1;
        self.stats.bytes += self.builder.record_bytes();
    }

    /// Makes everything that is staged atomic now, and durable with the next [`Committer::flush`] or
    /// [`Committer::commit`]. Returns its sequence, to compare with [`Committer::durable_sequence`].
    pub fn commit_async(&mut self) -> Result<u64, JournalError> {
        if self.builder.is_empty() {
            return match self.journal.poison() {
                None => Ok(self.journal.next_sequence() - 1),
                Some(cause) => Err(JournalError::Poisoned {
                    cause: cause.to_owned(),
                }),
            };
        }
        // A length changes at one moment in the order of commits; it is rare enough to pay for its flush.
        if self.builder.has_set_len() {
            return self.commit();
        }
        self.make_room()?;
        let sequence = self.journal.append_unflushed(&mut self.builder)?;
        self.stats.commits += 1;
        self.stats.bytes += self.builder.record_bytes();
        self.pending.absorb(&self.builder);
        self.builder.clear();
        Ok(sequence)
    }

    /// Makes every commit so far durable, with at most one flush. Returns the last durable sequence.
    pub fn flush(&mut self) -> Result<u64, JournalError> {
        let sequence = self.journal.flush()?;
        self.apply_pending()?;
        Ok(sequence)
    }

    /// Sequence of the last durable record (0: none).
    pub fn durable_sequence(&self) -> u64 {
        self.journal.durable_sequence()
    }

    /// Forgets what is staged.
    pub fn abort(&mut self) {
        self.builder.clear();
    }

    /// Makes every home durable and empties the journal.
    pub fn checkpoint(&mut self) -> Result<(), JournalError> {
        self.flush()?;
        if self.journal.is_unused() {
            return Ok(());
        }
        for home in self.homes.iter_mut().flatten() {
            if home.dirty {
                if let Err(e) = home.media.persist() {
                    let e = JournalError::io(&home.name, "flushing", e);
                    self.journal.set_poison(&e);
                    return Err(e);
                }
                home.dirty = false;
            }
            self.journal.note_len(home.member.file, home.len);
        }
        self.journal.recycle()?;
        self.announced = false;
        self.stats.checkpoints += 1;
        Ok(())
    }

    /// Half of the journal is used: what the homes have so far may start on its way to the medium.
    #[cold]
    fn announce(&mut self) {
        self.announced = true;
        for home in self.homes.iter_mut().flatten().filter(|h| h.dirty) {
            home.media.start_persist();
        }
    }

    /// Makes the journal have room for what is staged: recycled, and when that is not enough, larger.
    #[inline]
    fn make_room(&mut self) -> Result<(), JournalError> {
        if self.journal.fits(&self.builder) {
            Ok(())
        } else {
            self.make_room_slowly()
        }
    }

    #[cold]
    fn make_room_slowly(&mut self) -> Result<(), JournalError> {
        let capacity = self.journal.capacity();
        if capacity < self.grow_to {
            match self
                .journal
                .grow(capacity.saturating_mul(4).min(self.grow_to))
            {
                Ok(()) => {
                    self.stats.growths += 1;
                    if self.journal.fits(&self.builder) {
                        return Ok(());
                    }
                }
                // No space for a larger one: this one can be recycled.
                Err(e) if e.is_recoverable() => self.grow_to = 0,
                Err(e) => return Err(e),
            }
        }
        self.checkpoint()?;
        if self.journal.fits(&self.builder) {
            return Ok(());
        }
        let needed = self.journal.needed_bytes(&self.builder);
        let ample = needed.max(self.journal.capacity().saturating_mul(2));
        match self.journal.grow(ample) {
            // What is needed may fit where more does not.
            Err(e) if e.is_recoverable() && needed < ample => self.journal.grow(needed)?,
            result => result?,
        }
        self.stats.growths += 1;
        Ok(())
    }

    /// Reserves the space of staged lengths, while failing is still harmless: recovery cuts what no record confirms.
    #[cold]
    fn grow_homes(&mut self) -> Result<(), JournalError> {
        for entry in self.builder.entries().flatten() {
            let Entry::SetLen { base_line, len } = entry else {
                continue;
            };
            let Some(home) = self
                .homes
                .iter_mut()
                .flatten()
                .find(|h| h.member.base_line == base_line)
            else {
                continue;
            };
            if len > home.media.len()
                && let Err(e) = home.media.set_len(len)
            {
                let e = JournalError::space(&home.name, len, e);
                if e.is_recoverable() {
                    self.ungrow_homes();
                } else {
                    self.journal.set_poison(&e);
                }
                return Err(e);
            }
        }
        Ok(())
    }

    /// Takes back what [`Self::grow_homes`] did, because there will be no record of it.
    #[cold]
    fn ungrow_homes(&mut self) {
        for home in self.homes.iter_mut().flatten() {
            if home.media.len() > home.len
                && let Err(e) = home.media.set_len(home.len)
            {
                self.journal
                    .set_poison(&JournalError::io(&home.name, "shrinking", e));
            }
        }
    }

    /// Writes what is staged (and durable in the journal) to the homes.
    #[inline]
    fn apply_staged(&mut self) -> Result<(), JournalError> {
        if self.builder.has_set_len() {
            self.apply_set_lens()?;
        }
        let Committer {
            journal,
            homes,
            ranges,
            last,
            builder,
            ..
        } = self;
        let mut rest = builder.payload();
        while !rest.is_empty() {
            let (entry, taken) = own_entry(rest);
            rest = &rest[taken..];
            let (line, mask, words) = match entry {
                Entry::Line { line, mask, words } => (line, Some(mask), words),
                Entry::Run { line, words } => (line, None, words),
                Entry::SetLen { .. } => continue,
            };
            apply_to_home(journal, homes, ranges, last, line, mask, words)?;
        }
        Ok(())
    }

    /// [`Self::apply_staged`] of runs.
    #[inline(always)]
    fn apply_staged_runs(&mut self) -> Result<(), JournalError> {
        let Committer {
            journal,
            homes,
            ranges,
            last,
            builder,
            ..
        } = self;
        let mut rest = builder.payload();
        while let Some((line, words, behind)) = own_run(rest) {
            apply_to_home(journal, homes, ranges, last, line, None, words)?;
            rest = behind;
        }
        Ok(())
    }

    #[cold]
    fn apply_set_lens(&mut self) -> Result<(), JournalError> {
        for entry in self.builder.entries().flatten() {
            let Entry::SetLen { base_line, len } = entry else {
                continue;
            };
            let Some(home) = self
                .homes
                .iter_mut()
                .flatten()
                .find(|h| h.member.base_line == base_line)
            else {
                continue;
            };
            home.dirty = true;
            home.len = len;
            if len != home.media.len()
                && let Err(e) = home.media.set_len(len)
            {
                return Err(fail(&mut self.journal, &home.name, "setting the length", e));
            }
        }
        Ok(())
    }

    /// Writes what asynchronous commits have made durable to the homes.
    #[inline]
    fn apply_pending(&mut self) -> Result<(), JournalError> {
        if self.pending.is_empty() {
            Ok(())
        } else {
            self.apply_pending_lines()
        }
    }

    #[cold]
    fn apply_pending_lines(&mut self) -> Result<(), JournalError> {
        let Committer {
            journal,
            homes,
            ranges,
            last,
            pending,
            ..
        } = self;
        for p in pending.lines() {
            let mut words = [0; 8];
            let mut count = 0;
            for (i, word) in p.words.iter().enumerate() {
                words[count] = word.to_le();
                count += usize::from(p.mask >> i & 1);
                if count == 8 {
                    break;
                }
            }
            apply_to_home(
                journal,
                homes,
                ranges,
                last,
                p.line,
                Some(p.mask),
                &words[..count],
            )?;
        }
        pending.clear();
        Ok(())
    }
}

/// Writes a part of a durable record to its home: the words of a line that the mask selects, or whole lines.
#[inline(always)]
fn apply_to_home<J: Media, H: Media>(
    journal: &mut Journal<J>,
    homes: &mut [Option<Home<H>>],
    ranges: &[Range],
    last: &mut usize,
    line: u64,
    mask: Option<u8>,
    words: &[u64],
) -> Result<(), JournalError> {
    if line.wrapping_sub(ranges[*last].base) >= ranges[*last].count {
        let Some(found) = ranges
            .iter()
            .position(|r| line.wrapping_sub(r.base) < r.count)
        else {
            return Ok(());
        };
        *last = found;
    }
    let Some(home) = &mut homes[*last] else {
        return Ok(());
    };
    home.dirty = true;
    let (media, len) = (&mut home.media, home.len);
    let index = line - home.member.base_line;
    match mask {
        Some(mask) => apply_line(media, len, index, mask, words),
        None => apply_run(media, len, index, words),
    }
    .map_err(|e| fail(journal, &home.name, "writing a commit", e))
}

/// The commit is durable in the journal and a home does not have it: nothing may be compared with that home any more.
#[cold]
fn fail<J: Media>(
    journal: &mut Journal<J>,
    name: &str,
    op: &'static str,
    source: io::Error,
) -> JournalError {
    let e = JournalError::io(name, op, source);
    journal.set_poison(&e);
    e
}
