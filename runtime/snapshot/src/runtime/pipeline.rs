//! The commit pipeline: activate, stage, append, apply.

use super::{
    ARRIVED, Engine, FORKED, MAPPED, Mapping, Owner, Place, State, invalid, lock, plain, puddles,
    tx,
};
use crate::audit;
use crate::commit::{Changed, Gather, Look};
use crate::config;
use crate::error::Error;
use crate::file;
use crate::gate;
use crate::inject;
use crate::inject::Site;
use crate::thread;
use crate::thread::Control;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use vernal_abi as abi;
use vernal_journal::Journal;
use vernal_journal::JournalConfig;
use vernal_journal::JournalError;
use vernal_journal::{Committer, Entry, Member};
use vernal_sys::Backing;
use vernal_sys::FileMedia;
use vernal_sys::JournalMedia;
use vernal_sys::MappedMedia;
use vernal_sys::Media;
use vernal_sys::mem;
use vernal_sys::os;
use vernal_sys::pages::PageTracker;
use vernal_sys::{create_like, probe_backing, sync_parent_dir};

/// Log bytes of a new journal on byte-addressable media: small, because its pages are made before the first commit, which opening
/// a pool that has moved waits for.
const MAPPED_LOG: u64 = 1 << 20;
/// Log bytes up to which it grows: the longer between checkpoints, the more updates of a line are written back as one.
const MAPPED_LOG_MAX: u64 = 32 << 20;
/// Log bytes of a new journal on a block device: small, because its blocks are written once before the first commit.
const FILE_LOG: u64 = 4 << 20;
/// Log bytes up to which a journal on a block device grows, so that a checkpoint is paid for by many commits.
const FILE_LOG_MAX: u64 = 64 << 20;

impl State {
    /// Makes every mapped file a member of the journal; makes the journal if there is none.
    pub(super) fn activate(&mut self) -> Result<(), Error> {
        if self
            .mappings
            .iter()
            .all(|m| m.read_only || matches!(m.place, Place::Member(_)))
        {
            return Ok(());
        }
        if self.engine.is_none() {
            let Some(first) = self.mappings.iter().find(|m| !m.read_only) else {
                return Ok(());
            };
            self.engine = Some(match &first.owner {
                Owner::Own(_) => new_engine(&first.path, &first.file)?,
                Owner::Granted(_) => puddles::granted_engine(&first.path)?,
            });
        }
        let (engine, journal_path) = self.engine.as_mut().expect("made above");
        for m in self.mappings.iter_mut().filter(|m| !m.read_only) {
            if !matches!(m.place, Place::Idle(_)) {
                continue;
            }
            inject::point(Site::Meta);
            let meta_path = file::meta_path(&m.path);
            if let Owner::Own(owned) = &mut m.owner
                && std::mem::take(&mut owned.fresh)
            {
                // A crash before the first commit may take the new metadata away; no pointer depends on them yet.
                sync_parent_dir(&meta_path)
                    .map_err(|e| Error::io(&meta_path, "making durable the entry of", e))?;
            }
            let Place::Idle(home) = std::mem::replace(&mut m.place, Place::Lost) else {
                continue;
            };
            let added = match &mut m.owner {
                Owner::Own(owned) => engine.add_home(
                    home,
                    &mut owned.meta,
                    meta_path.as_os_str().as_bytes(),
                    journal_path.as_os_str().as_bytes(),
                ),
                Owner::Granted(file) => {
                    let member = Member {
                        file: *file,
                        base_line: abi::line_of(m.slot.base),
                        line_count: m.slot.len / abi::LINE_SIZE,
                        committed_len: home.len(),
                    };
                    engine.add_granted(home, &m.path.display().to_string(), member)
                }
            };
            m.place = match added {
                Ok(id) => Place::Member(id),
                Err(e) => {
                    // The next commit tries again.
                    if let Ok(home) = m.map_home() {
                        m.place = Place::Idle(home);
                    }
                    return Err(journal_error(&m.path, e));
                }
            };
        }
        Ok(())
    }

    pub(super) fn audit(&self) {
        let name = |i: usize| self.mappings[i].path.display().to_string();
        audit::look(&self.gather, self.tracker.is_some(), name);
    }

    /// Whole lines where every medium is byte-addressable; else, and in page mode, comparison.
    fn choose_look(&mut self) {
        let State {
            mappings,
            engine,
            tracker,
            ..
        } = self;
        let bytes = |m: &Mapping| match (&m.place, engine.as_ref()) {
            (Place::Member(id), Some((e, _))) => e
                .home(*id)
                .is_some_and(|h| h.backing() == Backing::ByteAddressable),
            _ => true,
        };
        let whole = tracker.is_none() && mappings.iter().all(bytes);
        self.look = if whole {
            Look::WholeLines
        } else {
            Look::Compare
        };
        for (extent, m) in self.gather.extents.iter_mut().zip(&self.mappings) {
            extent.member = matches!(m.place, Place::Member(_));
        }
        self.single = os::single_threaded();
        self.audited = config::get().audit;
        thread::set_prefetch(!whole);
    }

    /// Whether anything may have changed since the last commit.
    #[inline]
    pub(super) fn maybe_dirty(&self) -> bool {
        self.tracker.is_some()
            || self.mappings.iter().any(|m| m.new_len.is_some())
            // A racing store to one of these lines may be listed nowhere else.
            || !self.gather.nothing_to_recheck()
            || thread::dropping()
            || crate::commit::SCAN_SHADOW.load(Ordering::Relaxed)
            || thread::all().any(Control::has_marks)
    }

    /// Stages everything that changed. On an error everything is as before.
    #[inline]
    pub(super) fn stage(&mut self, own: Option<&Control>) -> Result<(), Error> {
        let State {
            gather,
            mappings,
            engine,
            tracker,
            stats,
            look,
            ..
        } = self;
        let Some((engine, _)) = engine else {
            return Ok(());
        };
        let pending = engine.has_pending();
        let look = if pending { Look::Pending } else { *look };
        let mut changed = 0u64;
        let mut put = |c: Changed<'_>| -> Result<(), Error> {
            if c.reserve {
                let m = &mappings[c.extent];
                if let Place::Member(id) = m.place
                    && let Some(home) = engine.home_mut(id)
                {
                    home.reserve(c.addr - m.slot.base)
                        .map_err(|e| no_space(&m.path, e))?;
                }
            }
            changed += 1;
            let line = abi::line_of(c.addr);
            if pending {
                engine.stage_line(line, c.words, &crate::commit::read_home(c.addr));
            } else {
                engine.stage_words(line, c.mask, c.words);
            }
            Ok(())
        };
        let mut result = gather.run(own, look, &mut put);
        if let Some(tracker) = tracker.as_ref() {
            result = result
                .and_then(|n| Ok(n + stage_pages(tracker, gather, mappings, pending, &mut put)?));
        }
        stats.lines_changed += changed;
        match result {
            Ok(looked) => stats.lines += looked,
            Err(e) => {
                give_back(engine, gather);
                return Err(e);
            }
        }
        for m in mappings.iter() {
            if let (Some(len), Place::Member(id)) = (m.new_len, &m.place)
                && let Err(e) = engine.stage_set_len(*id, len)
            {
                give_back(engine, gather);
                return Err(journal_error(&m.path, e));
            }
        }
        Ok(())
    }

    #[inline]
    pub(super) fn commit(&mut self, own: Option<&Control>, durable: bool) -> Result<(), Error> {
        inject::point(Site::CommitStart);
        self.target = ARRIVED.load(Ordering::Acquire);
        if !self.active && !self.maybe_dirty() {
            self.stats.empty += 1;
            return Ok(());
        }
        let closed = gate::close(own);
        // Whoever has arrived by now has left its operation, and what it stored is seen below.
        self.target = ARRIVED.load(Ordering::Acquire);
        if tx::abort_pending() {
            self.roll_back(own)?;
            return Err(Error::RolledBack);
        }
        self.absorb();
        if self.single && !os::single_threaded() {
            self.choose_look();
        }
        if !self.active {
            self.activate()?;
            self.active = true;
            self.choose_look();
        }
        if config::get().audit {
            self.audit();
        }
        self.stage(own)?;
        drop(closed);
        inject::point(Site::CommitStaged);
        let Some((engine, path)) = &mut self.engine else {
            return Ok(());
        };
        if engine.builder().is_empty() && !engine.has_pending() {
            self.stats.empty += 1;
            return match engine.poison() {
                Some(why) => Err(Error::Failed {
                    why: why.to_owned(),
                }),
                None => {
                    self.gathered = self.target;
                    Ok(())
                }
            };
        }
        let bytes = engine.builder().record_bytes();
        let (flushes, checkpoints) = (
            engine.journal().media().flushes(),
            engine.stats().checkpoints,
        );
        // The audit compares with home, which lacks what is committed but not yet durable: then nothing waits.
        let result = if durable || config::get().audit {
            engine.commit()
        } else {
            engine.commit_async()
        };
        if let Err(e) = result {
            if e.is_recoverable() {
                give_back(engine, &mut self.gather);
            }
            return Err(journal_error(path, e));
        }
        self.gathered = self.target;
        self.stats.commits += 1;
        self.stats.bytes += bytes;
        self.stats.flushes += engine.journal().media().flushes() - flushes;
        self.stats.checkpoints += engine.stats().checkpoints - checkpoints;
        if self.resizing {
            self.resizing = false;
            for m in &mut self.mappings {
                m.new_len = None;
            }
        }
        inject::point(Site::CommitDone);
        Ok(())
    }

    /// A durable commit for all that have arrived.
    #[inline]
    pub(super) fn lead(&mut self, own: Option<&Control>) -> Result<(), Error> {
        let result = self.commit(own, true);
        self.served = self.target;
        self.served_ok = result.is_ok();
        if result.is_ok() {
            self.durable = self.ticket;
        }
        result
    }
}

/// Takes a commit that failed before its record was written apart again: nothing has changed, everything is still dirty.
pub(super) fn give_back(engine: &mut Engine, gather: &mut Gather) {
    let staged: Vec<u64> = (engine.builder().entries().flatten())
        .flat_map(|e| match e {
            Entry::Line { line, .. } => line..line + 1,
            Entry::Run { line, words } => line..line + (words.len() / 8) as u64,
            Entry::SetLen { .. } => 0..0,
        })
        .map(abi::line_addr)
        .collect();
    engine.abort();
    gather.put_back(staged.into_iter());
}

/// Page mode: stages what the pages that were written since the last commit changed.
pub(super) fn stage_pages(
    tracker: &PageTracker,
    gather: &mut Gather,
    mappings: &[Mapping],
    pending: bool,
    put: &mut impl FnMut(Changed<'_>) -> Result<(), Error>,
) -> Result<u64, Error> {
    // A page has 64 lines, of which few have changed: these are always compared.
    let look = if pending {
        Look::Pending
    } else {
        Look::Compare
    };
    let mut looked = 0;
    for (i, m) in mappings.iter().enumerate().filter(|(_, m)| !m.read_only) {
        let (base, len) = (gather.extents[i].base, gather.extents[i].len);
        let mut ranges = Vec::new();
        tracker
            .take_written(base, mem::page_up(len).unwrap_or(len), |lo, hi| {
                ranges.push((lo, hi))
            })
            .map_err(|e| Error::io(&m.path, "scanning for written pages", e))?;
        for (n, &(lo, hi)) in ranges.iter().enumerate() {
            match gather.pages(i, lo, hi, look, &mut *put) {
                Ok(lines) => looked += lines,
                Err(e) => {
                    // These pages count as unwritten by now: marks stand in for them until the next commit.
                    for &(lo, hi) in &ranges[n..] {
                        thread::mark_range(lo, hi - lo);
                    }
                    return Err(e);
                }
            }
        }
    }
    Ok(looked)
}

pub(super) fn no_space(path: &Path, e: std::io::Error) -> Error {
    match e.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Error::NoSpace {
            what: path.display().to_string(),
        },
        _ => Error::io(path, "reserving space in", e),
    }
}

pub(super) fn journal_error(path: &Path, e: JournalError) -> Error {
    match e {
        JournalError::NoSpace { .. } => Error::NoSpace {
            what: e.to_string(),
        },
        JournalError::Poisoned { cause } => Error::Failed { why: cause },
        JournalError::Io { .. } => Error::Failed { why: e.to_string() },
        other => Error::Format {
            path: path.display().to_string(),
            why: other.to_string(),
        },
    }
}

pub(super) fn new_engine(path: &Path, file: &File) -> Result<(Engine, PathBuf), Error> {
    let backing = probe_backing(file).map_err(|e| Error::io(path, "finding out what backs", e))?;
    file::sweep_journals(path);
    let uuid = file::fresh_uuid(path)?;
    let at = file::journal_path(path, uuid);
    let name = at.display().to_string();
    let made = (|| {
        let wrap = |e| Error::io(&at, "creating the journal", e);
        let like = file.metadata().map_err(wrap)?;
        let (first, most) = match (config::get().journal_len, backing) {
            (Some(len), _) => (len, len),
            (None, Backing::ByteAddressable) => (MAPPED_LOG, MAPPED_LOG_MAX),
            (None, Backing::Blocks) => (FILE_LOG, FILE_LOG_MAX),
        };
        let media = match backing {
            Backing::ByteAddressable => {
                let f = create_like(&at, &like).map_err(wrap)?;
                os::try_lock(&f).map_err(wrap)?;
                f.set_len(mem::PAGE_SIZE).map_err(wrap)?;
                JournalMedia::Mapped(MappedMedia::new(f).map_err(wrap)?)
            }
            Backing::Blocks => {
                let media = FileMedia::create_new(&at, &like).map_err(wrap)?;
                os::try_lock(media.file()).map_err(wrap)?;
                JournalMedia::File(media.with_direct(&at))
            }
        };
        let config = JournalConfig {
            uuid,
            name: name.clone(),
            log_len: first,
        };
        let journal = Journal::create(media, config).map_err(|e| journal_error(&at, e))?;
        sync_parent_dir(&at).map_err(wrap)?;
        Ok(Committer::new(journal).growing_to(most))
    })();
    if made.is_err() {
        let _ = std::fs::remove_file(&at);
    }
    made.map(|engine| (engine, at))
}

/// A number for a call of commit: whoever leads a commit serves all that have theirs by then.
#[inline]
pub(super) fn arrive() -> u64 {
    if os::single_threaded() {
        let n = ARRIVED.load(Ordering::Relaxed) + 1;
        ARRIVED.store(n, Ordering::Relaxed);
        n
    } else {
        ARRIVED.fetch_add(1, Ordering::AcqRel) + 1
    }
}

/// Makes every update of every mapped file durable; all or nothing.
#[inline]
pub fn commit() -> Result<(), Error> {
    if FORKED.load(Ordering::Relaxed) && MAPPED.load(Ordering::Relaxed) == 0 {
        return Err(Error::Forked);
    }
    if let Some(own) = thread::known()
        && let Some(done) = plain::commit(own)
    {
        return done.map_err(|e| *e);
    }
    // Everything this thread has stored and marked precedes its arrival, and a leader reads the count of arrivals before
    // it gathers: whoever had arrived by then is served.
    let epoch = tx::epoch();
    let mine = arrive();
    let mut l = lock()?;
    let own = l.own;
    let s = l.state();
    if s.served >= mine && s.served_ok {
        s.stats.grouped += 1;
        return Ok(());
    }
    if tx::epoch() != epoch {
        // An abort in another thread came between: what this thread had stored is gone.
        return Err(Error::RolledBack);
    }
    let done = s.lead(own);
    l.release();
    done
}

/// Makes the updates atomic now and durable by the time [`wait`] returns for the ticket.
pub fn commit_async() -> Result<u64, Error> {
    let mut l = lock()?;
    let own = l.own;
    let s = l.state();
    s.commit(own, false)?;
    s.ticket += 1;
    let ticket = s.ticket;
    l.release();
    Ok(ticket)
}

/// Waits until the commit with this ticket is durable.
pub fn wait(ticket: u64) -> Result<(), Error> {
    let mut l = lock()?;
    let s = l.state();
    if ticket == 0 || ticket > s.ticket {
        return Err(invalid(format!(
            "{ticket} is not a ticket of vernal_commit_async (the last one was {})",
            s.ticket
        )));
    }
    if s.durable < ticket
        && let Some((engine, path)) = &mut s.engine
    {
        let before = engine.journal().media().flushes();
        engine.flush().map_err(|e| journal_error(path, e))?;
        s.stats.flushes += engine.journal().media().flushes() - before;
        s.durable = s.ticket;
    }
    Ok(())
}

/// Takes every mapped file back to its last commit. No other thread may be storing to them.
pub fn abort() -> Result<(), Error> {
    let mut l = lock()?;
    let own = l.own;
    let s = l.state();
    let _closed = gate::close(own);
    s.absorb();
    s.roll_back(own)
}
