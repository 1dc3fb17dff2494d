//! The process's mapped files and their commits: what `libvernal` calls.
//!
//! One lock, the *commit lock*, guards everything but the dirty lists. A commit holds it from gathering to applying;
//! threads that ask for a commit meanwhile are served together by the next one (group commit).

use crate::commit::{Changed, Extent, Gather};
use crate::error::Error;
use crate::file::{self, Owned};
use crate::inject::{self, Site};
use crate::lock::{CommitLock, Guard};
use crate::space::Slot;
use crate::thread::{self, Control};
use crate::{audit, config, gate};
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, compiler_fence};
use vernal_abi as abi;
use vernal_journal::{Committer, HomeId, Journal, JournalConfig, JournalError};
use vernal_sys::pages::PageTracker;
use vernal_sys::{
    Backing, FileMedia, HomeView, JournalMedia, MappedMedia, Media, mem, os, probe_backing,
};

type Engine = Committer<JournalMedia, HomeView>;

/// Log bytes of a new journal on byte-addressable media.
const MAPPED_LOG: u64 = 8 << 20;
/// Log bytes of a new journal on a block device; it grows to [`FILE_LOG_MAX`] when commits fill it.
const FILE_LOG: u64 = 64 << 20;

#[derive(Debug)]
enum Place {
    /// No commit yet: the home is mapped, no journal knows it.
    Idle(HomeView),
    /// A member of the journal.
    Member(HomeId),
    /// Between the two, while a call that moves it runs, or after that call failed.
    Lost,
}

#[derive(Debug)]
struct Mapping {
    owned: Owned,
    place: Place,
    slot: Slot,
    /// The windows that the program has mapped: offset and length. The file is released with the last one.
    windows: Vec<(u64, u64)>,
    file: File,
    id: (u64, u64),
    /// A length that the next commit makes durable.
    new_len: Option<u64>,
    read_only: bool,
}

#[derive(Debug, Default)]
struct State {
    gather: Gather,
    /// Parallel to `gather.extents`.
    mappings: Vec<Mapping>,
    engine: Option<(Engine, PathBuf)>,
    tracker: Option<PageTracker>,
    /// Calls of commit() up to this one have been served, with this result.
    served: u64,
    served_ok: bool,
    stats: Stats,
    /// Tickets of asynchronous commits count up; those up to `durable` are durable.
    ticket: u64,
    durable: u64,
}

/// Counters since the process started; `vernal_stats` in `vernal.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Commits that wrote a record.
    pub commits: u64,
    /// Commits that found nothing to write.
    pub empty: u64,
    /// Commits that another thread's commit served.
    pub grouped: u64,
    /// Dirty lines looked at.
    pub lines: u64,
    /// Dirty lines that differed from home.
    pub lines_changed: u64,
    /// Journal bytes written.
    pub bytes: u64,
    /// Device flushes or store fences on the commit path.
    pub flushes: u64,
    /// Journal recycles.
    pub checkpoints: u64,
    /// Bytes that the audit found written without a mark.
    pub audit_missed: u64,
}

static STATE: CommitLock<Option<State>> = CommitLock::new(None);
static ARRIVED: AtomicU64 = AtomicU64::new(0);
static MAPPED: AtomicUsize = AtomicUsize::new(0);
static FORKED: AtomicBool = AtomicBool::new(false);
static READY: AtomicBool = AtomicBool::new(false);

thread_local! {
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// While one exists on this thread, interposed calls go straight to the kernel: the runtime's own calls are its own.
#[derive(Debug)]
pub struct Inside(());

/// Makes an [`Inside`].
pub fn enter() -> Inside {
    INSIDE.with(|c| c.set(c.get() + 1));
    Inside(())
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with(|c| c.set(c.get() - 1));
    }
}

/// Whether this thread is inside the runtime.
pub fn is_inside() -> bool {
    INSIDE.with(Cell::get) > 0
}

/// Whether the process is far enough along for interposed calls to read the environment.
pub fn reads_environment() -> bool {
    READY.load(Ordering::Relaxed)
}

/// Called by the library's constructor.
pub fn init() {
    let _inside = enter();
    inject::init();
    os::membarrier_register();
    // SAFETY: plain functions of this library, which is never unloaded once a program is instrumented.
    unsafe {
        libc::atexit(at_exit);
        libc::pthread_atfork(
            Some(before_fork),
            Some(after_fork_parent),
            Some(after_fork_child),
        );
    }
    READY.store(true, Ordering::Release);
}

/// Holds the commit lock and says so to signal handlers of this thread.
struct Locked {
    guard: Guard<'static, Option<State>>,
    own: Option<&'static Control>,
    _inside: Inside,
}

#[inline]
fn lock() -> Result<Locked, Error> {
    let own = thread::current();
    if let Some(c) = own {
        // Only this thread and its signal handlers use the flag: no atomic exchange is needed.
        if c.in_commit.load(Ordering::Relaxed) {
            return Err(Error::Nested);
        }
        c.in_commit.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }
    let inside = enter();
    // SAFETY: `in_commit` was clear, so this thread does not hold the lock (a thread without a control block cannot be in
    // a signal handler that interrupted a commit: that commit had one).
    let guard = unsafe { STATE.lock() };
    Ok(Locked {
        guard,
        own,
        _inside: inside,
    })
}

impl Drop for Locked {
    #[inline]
    fn drop(&mut self) {
        if let Some(c) = self.own {
            compiler_fence(Ordering::SeqCst);
            c.in_commit.store(false, Ordering::Relaxed);
        }
    }
}

impl Locked {
    #[inline]
    fn state(&mut self) -> &mut State {
        self.guard.get_or_insert_default()
    }
}

/// Runs `f` under the commit lock: after any commit that is running, before any other.
pub(crate) fn exclusively(f: impl FnOnce()) {
    if let Ok(l) = lock() {
        f();
        drop(l);
    }
}

/// A request to map a window of a file.
#[derive(Debug)]
pub struct MapRequest<'a> {
    /// Absolute path.
    pub path: &'a Path,
    /// The program's descriptor.
    pub fd: i32,
    /// Offset of the window.
    pub offset: u64,
    /// Its length.
    pub len: u64,
    /// Whether stores are wanted.
    pub writable: bool,
    /// An address that the program insists on.
    pub fixed: Option<u64>,
}

/// Maps a window of an opted-in file at its home address; what an interposed `mmap` does.
pub fn map_window(r: &MapRequest<'_>) -> Result<u64, Error> {
    let mut l = lock()?;
    let s = l.state();
    if !r.offset.is_multiple_of(mem::PAGE_SIZE) || r.len == 0 {
        return Err(invalid(format!(
            "{}: a mapping of {} bytes at offset {}: the offset must be a multiple of 4096 and the length not 0",
            r.path.display(),
            r.len,
            r.offset
        )));
    }
    let index = s.find_or_map(r.path, r.writable, |_| Ok(()))?;
    let m = &mut s.mappings[index];
    let at = m.slot.base + r.offset;
    let fits = r
        .offset
        .checked_add(r.len)
        .is_some_and(|end| end <= m.slot.len);
    let error = if !fits {
        Some(Error::TooLarge {
            path: r.path.display().to_string(),
            len: r.offset.saturating_add(r.len),
            what: "the address space kept for this file",
        })
    } else if r.fixed.is_some_and(|want| want != at) {
        Some(invalid(format!(
            "{}: MAP_FIXED at {:#x}, but the file's home address puts this window at {at:#x}: map without MAP_FIXED (the \
             address is the same in every run)",
            r.path.display(),
            r.fixed.unwrap_or(0)
        )))
    } else if r.writable && m.read_only {
        Some(invalid(format!(
            "{} is mapped read-only by this process already: unmap that first",
            r.path.display()
        )))
    } else {
        None
    };
    if let Some(e) = error {
        if s.mappings[index].windows.is_empty() {
            s.release(index)?;
        }
        return Err(e);
    }
    m.windows.push((r.offset, r.len));
    Ok(at)
}

/// Maps the whole of `path`, with `len` bytes (0: as long as it is); what `vernal_map` does.
pub fn map_file(path: &Path, len: u64, create: bool) -> Result<u64, Error> {
    let path = &std::path::absolute(path).map_err(|e| Error::io(path, "resolving", e))?;
    let path = &match (
        path.parent().and_then(|p| p.canonicalize().ok()),
        path.file_name(),
    ) {
        (Some(dir), Some(name)) => dir.join(name),
        _ => path.clone(),
    };
    let mut l = lock()?;
    let s = l.state();
    if create && !path.exists() {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|e| Error::io(path, "creating", e))?;
    }
    let index = s.find_or_map(path, true, |f| {
        let have = f
            .metadata()
            .map_err(|e| Error::io(path, "reading the length", e))?
            .len();
        if have == 0 && len > 0 {
            f.set_len(len)
                .map_err(|e| Error::io(path, "setting the length", e))?;
        } else if have == 0 {
            return Err(invalid(format!(
                "{} is empty: give a length in bytes",
                path.display()
            )));
        }
        Ok(())
    })?;
    let m = &s.mappings[index];
    let base = m.slot.base;
    if len > s.gather.extents[index].len {
        s.change_len(index, len)?;
    }
    let len = s.gather.extents[index].len;
    s.mappings[index].windows.push((0, len));
    Ok(base)
}

fn invalid(what: String) -> Error {
    Error::Invalid { what }
}

impl State {
    fn find_or_map(
        &mut self,
        path: &Path,
        writable: bool,
        prepare: impl FnOnce(&File) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(writable)
            .open(path)
            .map_err(|e| Error::io(path, "opening", e))?;
        let id = identity(&file).map_err(|e| Error::io(path, "looking at", e))?;
        if let Some(i) = self.mappings.iter().position(|m| m.id == id) {
            return Ok(i);
        }
        if FORKED.load(Ordering::Relaxed) && crate::space::is_mapped(abi::TRACKED_BASE) {
            return Err(Error::Forked);
        }
        prepare(&file)?;
        self.map(path, file, id, writable)
    }

    fn map(
        &mut self,
        path: &Path,
        file: File,
        id: (u64, u64),
        writable: bool,
    ) -> Result<usize, Error> {
        inject::point(Site::Map);
        let io = |what| move |e| Error::io(path, what, e);
        let len = file.metadata().map_err(io("reading the length"))?.len();
        let Some((mut owned, report)) = file::own(path, Some(len))? else {
            return Err(invalid(format!("{} has no metadata", path.display())));
        };
        if let Some(r) = report {
            config::say(format_args!(
                "{}: recovered {} commits of a process that died",
                path.display(),
                r.records
            ));
        }
        // Recovery may have changed the length.
        let len = file.metadata().map_err(io("reading the length"))?.len();
        if mem::page_up(len).is_none_or(|l| l > owned.meta.meta().slot_len) {
            widen(path, &mut owned, len)?;
        }
        let slot = owned.claim_slot()?;
        let backing = probe_backing(&file).map_err(io("finding out what backs"))?;
        let view = file
            .try_clone()
            .map_err(io("duplicating the descriptor of"))?;
        let home_at = slot.base + abi::HOME_DISTANCE;
        let home = if writable {
            // SAFETY: the home range is reserved by `space::reserve`, and this part of it belongs to the claimed slot.
            unsafe { HomeView::new(view, home_at, slot.len, backing) }
                .map_err(io("mapping the home view of"))?
        } else {
            // SAFETY: as above.
            unsafe { HomeView::new_read_only(view, home_at, slot.len, backing) }
                .map_err(io("mapping the home view of"))?
        };
        let prot = if writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // The whole slot: pages past the end of the file fault, as with any mapping, until the file grows.
        // SAFETY: inside our reservation, in the slot just claimed.
        unsafe { mem::mmap(slot.base, slot.len, prot, flags, file.as_raw_fd(), 0) }
            .map_err(io("mapping"))?;
        if config::get().tracking == config::Tracking::Pages && writable {
            self.track_pages(slot.base, slot.len, len)?;
        }
        let extent =
            Extent::new(slot.base, len, slot.len).map_err(io("allocating the bookkeeping of"))?;
        self.gather.extents.push(extent);
        self.mappings.push(Mapping {
            owned,
            place: Place::Idle(home),
            slot,
            windows: Vec::new(),
            file,
            id,
            new_len: None,
            read_only: !writable,
        });
        MAPPED.store(self.mappings.len(), Ordering::Release);
        Ok(self.mappings.len() - 1)
    }

    fn track_pages(&mut self, base: u64, slot: u64, len: u64) -> Result<(), Error> {
        let cannot = |e: std::io::Error| {
            invalid(format!(
                "page mode cannot track the pages at {base:#x}: {e}"
            ))
        };
        let tracker = self.tracker.get_or_insert_with(PageTracker::new);
        tracker.register(base, slot).map_err(cannot)?;
        tracker
            .protect(base, mem::page_up(len).unwrap_or(slot).min(slot))
            .map_err(cannot)
    }

    fn index_at(&self, addr: u64) -> Result<usize, Error> {
        self.mappings
            .iter()
            .position(|m| addr >= m.slot.base && addr - m.slot.base < m.slot.len)
            .ok_or(Error::NotMapped { addr })
    }

    fn home_mut(&mut self, index: usize) -> Option<&mut HomeView> {
        match &mut self.mappings[index].place {
            Place::Idle(h) => Some(h),
            Place::Member(id) => self.engine.as_mut()?.0.home_mut(*id),
            Place::Lost => None,
        }
    }

    /// Makes every mapped file a member of the journal; makes the journal if there is none.
    fn activate(&mut self) -> Result<(), Error> {
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
            self.engine = Some(new_engine(&first.owned.path, &first.file)?);
        }
        let (engine, journal_path) = self.engine.as_mut().expect("made above");
        for m in self.mappings.iter_mut().filter(|m| !m.read_only) {
            if !matches!(m.place, Place::Idle(_)) {
                continue;
            }
            let Place::Idle(home) = std::mem::replace(&mut m.place, Place::Lost) else {
                continue;
            };
            inject::point(Site::Meta);
            let meta_path = file::meta_path(&m.owned.path);
            let id = engine
                .add_home(
                    home,
                    &mut m.owned.meta,
                    meta_path.as_os_str().as_bytes(),
                    journal_path.as_os_str().as_bytes(),
                )
                .map_err(|e| journal_error(&m.owned.path, e))?;
            m.place = Place::Member(id);
        }
        Ok(())
    }

    /// Whether anything may have changed since the last commit.
    fn maybe_dirty(&self) -> bool {
        self.tracker.is_some()
            || self.mappings.iter().any(|m| m.new_len.is_some())
            || crate::commit::SCAN_SHADOW.load(Ordering::Relaxed)
            || self.engine.is_some()
            || thread::all().any(|c| {
                c.overflow.load(Ordering::Relaxed)
                    || c.produced.load(Ordering::Acquire) != c.consumed.load(Ordering::Relaxed)
            })
    }

    /// Stages everything that changed. On an error everything is as before.
    fn stage(&mut self, own: Option<&Control>) -> Result<(), Error> {
        let State {
            gather,
            mappings,
            engine,
            tracker,
            stats,
            ..
        } = self;
        let Some((engine, _)) = engine else {
            return Ok(());
        };
        let always = engine.has_pending();
        let mut changed = 0u64;
        let mut put = |c: Changed<'_>| -> Result<(), Error> {
            let m = &mappings[c.extent];
            let Place::Member(id) = m.place else {
                return Ok(());
            };
            if let Some(home) = engine.home_mut(id) {
                home.reserve(c.addr - m.slot.base)
                    .map_err(|e| no_space(&m.owned.path, e))?;
            }
            changed += 1;
            let line = abi::line_of(c.addr);
            if always {
                engine.stage_line(line, c.words, &crate::commit::read_home(c.addr));
            } else {
                engine.stage_words(line, c.mask, c.words);
            }
            Ok(())
        };
        let mut result = gather.run(own, always, &mut put);
        if let Some(tracker) = tracker.as_ref() {
            result = result
                .and_then(|n| Ok(n + stage_pages(tracker, gather, mappings, always, &mut put)?));
        }
        stats.lines_changed += changed;
        match result {
            Ok(looked) => stats.lines += looked,
            Err(e) => {
                engine.abort();
                gather.put_back();
                return Err(e);
            }
        }
        for m in mappings.iter() {
            if let (Some(len), Place::Member(id)) = (m.new_len, &m.place)
                && let Err(e) = engine.stage_set_len(*id, len)
            {
                engine.abort();
                gather.put_back();
                return Err(journal_error(&m.owned.path, e));
            }
        }
        Ok(())
    }

    fn commit(&mut self, own: Option<&Control>, durable: bool) -> Result<(), Error> {
        inject::point(Site::CommitStart);
        if !self.maybe_dirty() {
            self.stats.empty += 1;
            return Ok(());
        }
        let closed = gate::close(own);
        self.activate()?;
        if config::get().audit {
            audit::look(&self.gather, self.tracker.is_some());
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
                None => Ok(()),
            };
        }
        let bytes = engine.builder().record_bytes();
        let (flushes, checkpoints) = (
            engine.journal().media().flushes(),
            engine.stats().checkpoints,
        );
        let result = if durable {
            engine.commit()
        } else {
            engine.commit_async()
        };
        if let Err(e) = result {
            if e.is_recoverable() {
                engine.abort();
                self.gather.put_back();
            }
            return Err(journal_error(path, e));
        }
        self.stats.commits += 1;
        self.stats.bytes += bytes;
        self.stats.flushes += engine.journal().media().flushes() - flushes;
        self.stats.checkpoints += engine.stats().checkpoints - checkpoints;
        for m in &mut self.mappings {
            m.new_len = None;
        }
        inject::point(Site::CommitDone);
        Ok(())
    }

    fn change_len(&mut self, index: usize, len: u64) -> Result<(), Error> {
        let slot = self.mappings[index].slot.len;
        let path = self.mappings[index].owned.path.clone();
        if self.mappings[index].read_only {
            return Err(invalid(format!(
                "{} is mapped read-only: its length cannot change",
                path.display()
            )));
        }
        if mem::page_up(len).is_none_or(|l| l > slot) {
            return Err(Error::TooLarge {
                path: path.display().to_string(),
                len,
                what: "the address space kept for this file",
            });
        }
        let (base, old) = (
            self.gather.extents[index].base,
            self.gather.extents[index].len,
        );
        if len > old {
            let home = self.home_mut(index).ok_or_else(|| Error::Failed {
                why: "an earlier error".into(),
            })?;
            let have = home.len();
            if len > have {
                // The file is longer at once, so that the new pages can be touched; a crash before the commit cuts it.
                home.set_len(len).map_err(|e| no_space(&path, e))?;
            }
            // What lies between is zero, also where an uncommitted shrink has left old bytes.
            let stale = have.min(len);
            if stale > old {
                // SAFETY: old..stale lies in the file's pages, which are mapped and writable.
                unsafe {
                    std::ptr::write_bytes((base + old) as *mut u8, 0, (stale - old) as usize)
                };
            }
            self.gather.set_len(index, len);
            if stale > old {
                thread::mark_range(base + old, stale - old);
            }
            if let Some(t) = &self.tracker {
                let (from, to) = (
                    mem::page_up(old).unwrap_or(old),
                    mem::page_up(len).unwrap_or(len),
                );
                t.protect(base + from, to - from)
                    .map_err(|e| Error::io(&path, "tracking the new pages of", e))?;
            }
        } else if len < old {
            // The rest of the last page must read as zeros when the file grows again.
            let end = mem::page_up(len).unwrap_or(len).min(old);
            // SAFETY: len..end lies in the file's last page, mapped and writable.
            unsafe { std::ptr::write_bytes((base + len) as *mut u8, 0, (end - len) as usize) };
            if end > len {
                thread::mark_range(base + len, end - len);
            }
            self.gather.set_len(index, len);
        }
        self.mappings[index].new_len = Some(len);
        Ok(())
    }

    /// Unmaps a file without committing it. Its journal goes with the last member.
    fn release(&mut self, index: usize) -> Result<(), Error> {
        inject::point(Site::Map);
        let mut m = self.mappings.remove(index);
        let extent = self.gather.remove(index);
        if let Some(t) = &mut self.tracker {
            t.forget(m.slot.base);
        }
        MAPPED.store(self.mappings.len(), Ordering::Release);
        let mut result = Ok(());
        match std::mem::replace(&mut m.place, Place::Lost) {
            Place::Idle(mut home) => {
                if m.new_len.is_some() {
                    // Never committed: the length that the file had counts.
                    let committed = m.owned.meta.meta().committed_len;
                    if home.len() > committed {
                        result = home
                            .set_len(committed)
                            .map_err(|e| Error::io(&m.owned.path, "cutting", e));
                    }
                }
            }
            Place::Member(id) => {
                if let Some((engine, path)) = &mut self.engine {
                    inject::point(Site::Checkpoint);
                    // A length that was never committed goes.
                    let committed = engine.committed_len(id);
                    if let (Some(home), Some(len)) = (engine.home_mut(id), committed)
                        && home.len() > len
                        && let Err(e) = home.set_len(len)
                    {
                        result = Err(Error::io(&m.owned.path, "cutting", e));
                    }
                    let removed = engine.remove_home(id, &mut m.owned.meta);
                    inject::point(Site::CheckpointDone);
                    match removed {
                        Ok(_)
                            if self
                                .mappings
                                .iter()
                                .all(|m| !matches!(m.place, Place::Member(_))) =>
                        {
                            let path = path.clone();
                            self.engine = None;
                            file::remove_if_orphan(&path);
                        }
                        Ok(_) => {}
                        Err(e) => result = Err(journal_error(&m.owned.path, e)),
                    }
                }
            }
            Place::Lost => {}
        }
        // The marks of a discarded file go with its shadow, when the slot is dropped.
        drop(extent);
        result
    }
}

/// Page mode: stages what the pages that were written since the last commit changed.
fn stage_pages(
    tracker: &PageTracker,
    gather: &mut Gather,
    mappings: &[Mapping],
    always: bool,
    put: &mut impl FnMut(Changed<'_>) -> Result<(), Error>,
) -> Result<u64, Error> {
    let mut looked = 0;
    for (i, m) in mappings.iter().enumerate().filter(|(_, m)| !m.read_only) {
        let (base, len) = (gather.extents[i].base, gather.extents[i].len);
        let mut ranges = Vec::new();
        tracker
            .take_written(base, mem::page_up(len).unwrap_or(len), |lo, hi| {
                ranges.push((lo, hi))
            })
            .map_err(|e| Error::io(&m.owned.path, "scanning for written pages", e))?;
        for (lo, hi) in ranges {
            looked += gather.pages(i, lo, hi, always, &mut *put)?;
        }
    }
    Ok(looked)
}

fn identity(file: &File) -> std::io::Result<(u64, u64)> {
    file.metadata().map(|m| (m.dev(), m.ino()))
}

fn no_space(path: &Path, e: std::io::Error) -> Error {
    match e.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Error::NoSpace {
            what: path.display().to_string(),
        },
        _ => Error::io(path, "reserving space in", e),
    }
}

fn journal_error(path: &Path, e: JournalError) -> Error {
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

/// A file has outgrown its address space while no one had it mapped: gives it more, at the same address.
fn widen(path: &Path, owned: &mut Owned, len: u64) -> Result<(), Error> {
    let base = owned.meta.meta().home_addr;
    let slot = crate::space::slot_len_for(len)
        .filter(|s| base + s <= abi::TRACKED_END)
        .ok_or_else(|| Error::TooLarge {
            path: path.display().to_string(),
            len,
            what: "the addresses behind its home",
        })?;
    owned
        .meta
        .store(|m| m.slot_len = slot)
        .map_err(|e| journal_error(path, e))
}

fn new_engine(path: &Path, file: &File) -> Result<(Engine, PathBuf), Error> {
    let backing = probe_backing(file).map_err(|e| Error::io(path, "finding out what backs", e))?;
    let uuid = file::fresh_uuid(path)?;
    let at = file::journal_path(path, uuid);
    let name = at.display().to_string();
    let made = (|| {
        let wrap = |e| Error::io(&at, "creating the journal", e);
        let default = if backing == Backing::ByteAddressable {
            MAPPED_LOG
        } else {
            FILE_LOG
        };
        let log_len = config::get().journal_len.unwrap_or(default);
        let media = match backing {
            Backing::ByteAddressable => {
                let f = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(&at)
                    .map_err(wrap)?;
                f.set_len(mem::PAGE_SIZE).map_err(wrap)?;
                JournalMedia::Mapped(MappedMedia::new(f).map_err(wrap)?)
            }
            Backing::Blocks => {
                JournalMedia::File(FileMedia::create_new(&at).map_err(wrap)?.with_direct(&at))
            }
        };
        let config = JournalConfig {
            uuid,
            name: name.clone(),
            log_len,
        };
        let journal = Journal::create(media, config).map_err(|e| journal_error(&at, e))?;
        vernal_sys::sync_parent_dir(&at).map_err(wrap)?;
        Ok(Committer::new(journal))
    })();
    if made.is_err() {
        let _ = std::fs::remove_file(&at);
    }
    made.map(|engine| (engine, at))
}

/// Makes every update of every mapped file durable; all or nothing.
pub fn commit() -> Result<(), Error> {
    if FORKED.load(Ordering::Relaxed) && MAPPED.load(Ordering::Relaxed) == 0 {
        return Err(Error::Forked);
    }
    // Everything this thread has stored and marked precedes its arrival, and a leader reads the count of arrivals before
    // it gathers: whoever had arrived by then is served.
    let mine = if os::single_threaded() {
        let n = ARRIVED.load(Ordering::Relaxed) + 1;
        ARRIVED.store(n, Ordering::Relaxed);
        n
    } else {
        ARRIVED.fetch_add(1, Ordering::AcqRel) + 1
    };
    let mut l = lock()?;
    let own = l.own;
    let s = l.state();
    if s.served >= mine && s.served_ok {
        s.stats.grouped += 1;
        return Ok(());
    }
    let target = ARRIVED.load(Ordering::Acquire);
    let result = s.commit(own, true);
    s.served = target;
    s.served_ok = result.is_ok();
    if result.is_ok() {
        s.durable = s.ticket;
    }
    result
}

/// Makes the updates atomic now and durable by the time [`wait`] returns for the ticket.
pub fn commit_async() -> Result<u64, Error> {
    let mut l = lock()?;
    let own = l.own;
    let s = l.state();
    s.commit(own, false)?;
    s.ticket += 1;
    Ok(s.ticket)
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
    if let Some((engine, path)) = &mut s.engine {
        // Asynchronous commits are commits: they stay.
        engine.flush().map_err(|e| journal_error(path, e))?;
        s.durable = s.ticket;
    }
    for i in 0..s.mappings.len() {
        if s.mappings[i].new_len.take().is_some() {
            let committed = match s.mappings[i].place {
                Place::Member(id) => s.engine.as_ref().and_then(|(e, _)| e.committed_len(id)),
                _ => Some(s.mappings[i].owned.meta.meta().committed_len),
            };
            let (Some(len), path) = (committed, s.mappings[i].owned.path.clone()) else {
                continue;
            };
            let have = s.gather.extents[i].len;
            if len > have {
                // An uncommitted shrink: the old content is in the home still.
                s.gather.set_len(i, len);
            } else {
                s.gather.set_len(i, len);
                if let Some(home) = s.home_mut(i) {
                    home.set_len(len)
                        .map_err(|e| Error::io(&path, "cutting", e))?;
                }
            }
        }
    }
    s.gather.roll_back(own);
    if let Some(t) = &s.tracker {
        for m in s.mappings.iter().filter(|m| !m.read_only) {
            let len = mem::page_up(
                s.gather
                    .extents
                    .iter()
                    .find(|e| e.base == m.slot.base)
                    .map_or(0, |e| e.len),
            );
            let mut ranges = Vec::new();
            t.take_written(m.slot.base, len.unwrap_or(0), |lo, hi| {
                ranges.push((lo, hi))
            })
            .map_err(|e| Error::io(&m.owned.path, "scanning for written pages", e))?;
            for (lo, hi) in ranges {
                // SAFETY: drops the process's own copies of pages; they read as the home image again.
                unsafe { mem::madvise(lo, hi - lo, libc::MADV_DONTNEED) }
                    .map_err(|e| Error::io(&m.owned.path, "dropping pages of", e))?;
            }
        }
    }
    Ok(())
}

/// Unmaps the file at `addr`, committing it first unless `discard`.
pub fn unmap_file(addr: u64, discard: bool) -> Result<(), Error> {
    let mut l = lock()?;
    let own = l.own;
    let s = l.state();
    let index = s.index_at(addr)?;
    s.close(index, own, discard)
}

impl State {
    fn close(&mut self, index: usize, own: Option<&Control>, discard: bool) -> Result<(), Error> {
        let committed = if discard || self.mappings[index].read_only {
            Ok(())
        } else {
            self.commit(own, true)
        };
        if let Err(e) = &committed
            && matches!(e, Error::NoSpace { .. })
        {
            // Nothing is lost while the file stays mapped.
            return committed;
        }
        if discard {
            self.gather.forget_marks(index, own);
        }
        committed.and(self.release(index))
    }
}

/// Unmaps a window; the file is released with the last one.
pub fn unmap_window(addr: u64, len: u64) -> Result<(), Error> {
    let mut l = lock()?;
    let own = l.own;
    let s = l.state();
    let index = match s.index_at(addr) {
        Ok(i) => i,
        // munmap of an address that is not mapped is no error (munmap(2)).
        Err(_) => return Ok(()),
    };
    let m = &mut s.mappings[index];
    let off = addr - m.slot.base;
    let end = off.saturating_add(mem::page_up(len).unwrap_or(len));
    let mut left = Vec::new();
    for &(o, l) in &m.windows {
        let w_end = o + mem::page_up(l).unwrap_or(l);
        if end <= o || off >= w_end {
            left.push((o, l));
            continue;
        }
        if o < off {
            left.push((o, off - o));
        }
        if end < w_end {
            left.push((end, w_end - end));
        }
    }
    let close = left.is_empty();
    let before = std::mem::replace(&mut m.windows, left);
    if close {
        s.close(index, own, config::get().unmap_discards)
            .inspect_err(|e| {
                if matches!(e, Error::NoSpace { .. })
                    && let Ok(i) = s.index_at(addr)
                {
                    s.mappings[i].windows = before;
                }
            })?;
    }
    Ok(())
}

/// Grows or shrinks a window in place.
pub fn remap_window(addr: u64, old: u64, new: u64, moved: Option<u64>) -> Result<(), Error> {
    let mut l = lock()?;
    let s = l.state();
    let index = s.index_at(addr)?;
    let m = &mut s.mappings[index];
    let off = addr - m.slot.base;
    if moved.is_some_and(|to| to != addr) {
        return Err(invalid(
            "mremap: a mapped file stays at its home address (MREMAP_FIXED is not possible)".into(),
        ));
    }
    if new == 0 || off.checked_add(new).is_none_or(|end| end > m.slot.len) {
        return Err(Error::TooLarge {
            path: m.owned.path.display().to_string(),
            len: new,
            what: "the address space kept for this file",
        });
    }
    match m
        .windows
        .iter_mut()
        .find(|w| w.0 == off && mem::page_up(w.1) == mem::page_up(old))
    {
        Some(w) => {
            w.1 = new;
            Ok(())
        }
        None => Err(invalid(format!(
            "mremap: {old} bytes at {addr:#x} are not one mapping"
        ))),
    }
}

/// Changes the length of the file mapped at `addr`.
pub fn resize(addr: u64, len: u64) -> Result<(), Error> {
    let mut l = lock()?;
    let s = l.state();
    let index = s.index_at(addr)?;
    s.change_len(index, len)
}

/// `ftruncate` on a descriptor: `Ok(false)` when it is not a mapped file.
pub fn set_file_len(fd: i32, len: u64) -> Result<bool, Error> {
    let mut l = lock()?;
    let s = l.state();
    match s.index_of_fd(fd) {
        Some(index) => s.change_len(index, len).map(|()| true),
        None => Ok(false),
    }
}

impl State {
    fn index_of_fd(&self, fd: i32) -> Option<usize> {
        if fd < 0 {
            return None;
        }
        // SAFETY: only borrowed for this call; a closed descriptor makes try_clone fail.
        let file = unsafe { BorrowedFd::borrow_raw(fd) }
            .try_clone_to_owned()
            .ok()
            .map(File::from)?;
        let id = identity(&file).ok()?;
        self.mappings.iter().position(|m| m.id == id)
    }
}

/// Whether `fd` is open on a mapped file.
pub fn is_mapped_file(fd: i32) -> bool {
    lock().is_ok_and(|mut l| l.state().index_of_fd(fd).is_some())
}

/// Whether any file is mapped.
pub fn any_mapped() -> bool {
    MAPPED.load(Ordering::Acquire) > 0
}

/// What POSIX demands of msync's arguments.
pub fn check_msync(addr: u64, flags: i32) -> Result<(), Error> {
    if !addr.is_multiple_of(mem::PAGE_SIZE) {
        return Err(invalid(format!(
            "msync: {addr:#x} is not the start of a page"
        )));
    }
    if flags & !(libc::MS_SYNC | libc::MS_ASYNC | libc::MS_INVALIDATE) != 0
        || flags & (libc::MS_SYNC | libc::MS_ASYNC) == libc::MS_SYNC | libc::MS_ASYNC
    {
        return Err(invalid(format!("msync: flags {flags:#x} are not valid")));
    }
    Ok(())
}

/// Length of the mapping that holds `addr`; 0 if there is none.
pub fn length(addr: u64) -> u64 {
    lock().map_or(0, |mut l| {
        let s = l.state();
        s.index_at(addr).map_or(0, |i| s.gather.extents[i].len)
    })
}

/// The counters.
pub fn stats() -> Stats {
    let mut stats = lock().map_or_else(|_| Stats::default(), |mut l| l.state().stats);
    stats.audit_missed = audit::missed();
    stats
}

/// Recovers `path` if its last owner died. A file that is in use needs nothing.
pub fn recover_if_needed(path: &Path) -> Result<(), Error> {
    if !file::meta_path(path).exists() {
        return Ok(());
    }
    match file::recover_path(path) {
        Err(Error::Busy { .. }) => Ok(()),
        other => other.map(drop),
    }
}

extern "C" fn at_exit() {
    let _inside = enter();
    let audited = config::get().audit;
    if !FORKED.load(Ordering::Relaxed)
        && let Ok(mut l) = lock()
    {
        let s = l.state();
        if audited {
            audit::look(&s.gather, s.tracker.is_some());
        }
        while let Some(last) = s.mappings.len().checked_sub(1) {
            // What is uncommitted stays uncommitted: only msync, vernal_commit and munmap commit. The working copy stays
            // mapped for code that runs after this.
            let path = s.mappings[last].owned.path.clone();
            if let Err(e) = s.settle(last) {
                config::say(format_args!("closing {}: {e}", path.display()));
            }
        }
        if config::get().stats {
            config::say(format_args!("{:?}", s.stats));
        }
    }
    inject::report();
    if audited && audit::report() > 0 {
        // SAFETY: flushes the program's streams, which exit() would do after this handler, and ends with a status that
        // says what the audit found.
        unsafe {
            libc::fflush(std::ptr::null_mut());
            libc::_exit(audit::EXIT_STATUS);
        }
    }
}

impl State {
    /// As [`State::release`], but leaves the addresses in use, for what still runs at exit.
    fn settle(&mut self, index: usize) -> Result<(), Error> {
        let slot = std::mem::replace(&mut self.mappings[index].slot, Slot { base: 0, len: 0 });
        let result = self.release(index);
        std::mem::forget(slot);
        result
    }
}

static FORK_GUARD: Mutex<Option<Locked>> = Mutex::new(None);

// SAFETY: the guard in FORK_GUARD is stored and taken by the thread that forks, and nobody else.
unsafe impl Send for Locked {}

extern "C" fn before_fork() {
    // The child must not inherit a lock that a thread it does not have holds.
    if let Ok(l) = lock() {
        *FORK_GUARD.lock().unwrap_or_else(|e| e.into_inner()) = Some(l);
    }
}

extern "C" fn after_fork_parent() {
    drop(FORK_GUARD.lock().unwrap_or_else(|e| e.into_inner()).take());
}

/// The child keeps its copy of the working memory and loses the files: it can neither commit them nor harm them.
extern "C" fn after_fork_child() {
    let Some(mut l) = FORK_GUARD.lock().unwrap_or_else(|e| e.into_inner()).take() else {
        return;
    };
    let s = std::mem::take(l.state());
    if !s.mappings.is_empty() {
        FORKED.store(true, Ordering::SeqCst);
        MAPPED.store(0, Ordering::SeqCst);
    }
    for mut m in s.mappings {
        // Dropping the view unmaps the child's copy of the home mapping; the descriptors are the child's own, and the
        // lock stays with the parent's.
        drop(std::mem::replace(&mut m.place, Place::Lost));
        m.owned.forget_lock();
        std::mem::forget(m.slot);
    }
    // The journal's mapping and descriptors are closed; the files are untouched.
    drop(s.engine);
    drop(l);
}
