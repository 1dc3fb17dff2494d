//! Mapping the puddles of pools.
//!
//! A puddle is a file of fixed length at a home address of its own. A pool grows inside transactions, and there the commit
//! lock must not be taken: its holder may be waiting for this very transaction. So a new mapping is put on a list, and
//! whoever next holds the lock takes it from there, a commit once it has closed the gate.

use super::files::{identity, map_home, mixed};
use super::pipeline::journal_error;
use super::{Engine, FORKED, MAPPED, Mapping, Owner, Place, State, invalid, lock};
use crate::config;
use crate::error::Error;
use crate::extent::Extent;
use crate::file::{self, Owned};
use crate::inject::{self, Site};
use crate::space::Slot;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use vernal_journal::{Committer, Journal, JournalConfig, MAX_MEMBERS, Uuid};
use vernal_sys::{Backing, FileMedia, JournalMedia, MappedMedia, mem, probe_backing};

/// A puddle file that this process owns: recovered, its lock held.
#[derive(Debug)]
pub struct OwnedPuddle(Owned);

impl OwnedPuddle {
    /// Its identity.
    pub fn uuid(&self) -> Uuid {
        self.0.meta.meta().file
    }

    /// Its home address.
    pub fn addr(&self) -> u64 {
        self.0.meta.meta().home_addr
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.0.meta.meta().slot_len
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Gives it another home address, durably. The pointers in it mean what they meant.
    pub fn set_addr(&mut self, addr: u64) -> Result<(), Error> {
        let path = self.0.path.clone();
        self.0
            .meta
            .store(|m| m.home_addr = addr)
            .map_err(|e| journal_error(&path, e))
    }

    /// Gives it another identity, durably.
    pub fn set_uuid(&mut self, uuid: Uuid) -> Result<(), Error> {
        let path = self.0.path.clone();
        self.0
            .meta
            .store(|m| m.file = uuid)
            .map_err(|e| journal_error(&path, e))
    }
}

/// Takes the lock of the puddle at `path` and recovers it if its last owner died; also says how many commits that replayed.
/// `None`: it has no metadata.
pub fn own_puddle(path: &Path) -> Result<Option<(OwnedPuddle, u64)>, Error> {
    inject::init();
    let owned = file::own(path, None)?;
    Ok(owned.map(|(o, report)| (OwnedPuddle(o), report.map_or(0, |r| r.records))))
}

/// Who keeps the metadata of a puddle that is mapped.
#[derive(Debug)]
pub enum PuddleOwner {
    /// This process.
    Own(OwnedPuddle),
    /// Another process, which recovers the file when this one ends; the puddle's identity.
    Granted(Uuid),
}

/// A puddle to map for writing.
#[derive(Debug)]
pub struct PuddleMapping {
    /// Where the file is; for messages only when another process keeps its metadata.
    pub path: PathBuf,
    /// The file.
    pub file: File,
    /// Its home address.
    pub addr: u64,
    /// Its bytes.
    pub size: u64,
    /// Who keeps its metadata.
    pub owner: PuddleOwner,
}

/// A journal that another process recovers.
#[derive(Debug)]
pub struct GrantedJournal {
    /// An empty file.
    pub file: File,
    /// The identity that it must get.
    pub uuid: Uuid,
    /// For messages.
    pub name: String,
    /// Its bytes at most.
    pub max_len: u64,
}

static ARRIVING: Mutex<Vec<(Mapping, Extent)>> = Mutex::new(Vec::new());
static ANY_ARRIVING: AtomicBool = AtomicBool::new(false);
/// Writable puddles that are mapped or arriving; as much as can be known without the commit lock.
static OWN: AtomicUsize = AtomicUsize::new(0);
static GRANTED: AtomicUsize = AtomicUsize::new(0);
static JOURNAL: Mutex<Option<GrantedJournal>> = Mutex::new(None);

/// How many writable puddles this process has mapped.
pub fn puddles_mapped() -> usize {
    OWN.load(Ordering::Relaxed) + GRANTED.load(Ordering::Relaxed)
}

/// Whether the granted puddle that is being unmapped is the last one: only then its process is done with its journal, for
/// one that is mapped and has not been committed yet will need it.
pub(super) fn is_last_granted() -> bool {
    GRANTED.load(Ordering::Acquire) <= 1
}

fn count(owner: &Owner) -> &'static AtomicUsize {
    match owner {
        Owner::Own(_) => &OWN,
        Owner::Granted(_) => &GRANTED,
    }
}

/// Maps a puddle for writing. The first granted one brings the journal, from `journal`, when there is none yet. May be
/// called inside an operation.
pub fn map_puddle(
    p: PuddleMapping,
    journal: impl FnOnce() -> Result<Option<GrantedJournal>, Error>,
) -> Result<(), Error> {
    inject::init();
    let path = p.path;
    if FORKED.load(Ordering::Relaxed) && crate::space::is_mapped(vernal_abi::TRACKED_BASE) {
        return Err(Error::Forked);
    }
    if config::get().tracking == config::Tracking::Pages {
        return Err(invalid(format!(
            "{}: page mode (`vernal run`) does not know the types of pools: compile the program with vernal-cc",
            path.display()
        )));
    }
    let owner = match p.owner {
        PuddleOwner::Own(o) => Owner::Own(o.0),
        PuddleOwner::Granted(uuid) => Owner::Granted(uuid),
    };
    let other = match owner {
        Owner::Own(_) => &GRANTED,
        Owner::Granted(_) => &OWN,
    };
    if other.load(Ordering::Relaxed) > 0 {
        return Err(mixed(&path));
    }
    let counted = count(&owner);
    if counted.fetch_add(1, Ordering::AcqRel) >= MAX_MEMBERS {
        counted.fetch_sub(1, Ordering::AcqRel);
        return Err(Error::TooManyFiles {
            path: path.display().to_string(),
            max: MAX_MEMBERS,
        });
    }
    let mapped = (|| {
        inject::point(Site::Map);
        let io = |what| {
            let path = path.clone();
            move |e| Error::io(path, what, e)
        };
        let len = p.file.metadata().map_err(io("reading the length"))?.len();
        if len != p.size || !vernal_abi::puddle::is_puddle_size(len) {
            return Err(Error::Format {
                path: path.display().to_string(),
                why: format!(
                    "the puddle has {len} bytes instead of {}: the file is damaged or not a puddle",
                    p.size
                ),
            });
        }
        let slot = Slot::claim(p.addr, p.size, &path.display().to_string())?;
        let home = map_home(&path, &p.file, &slot, true)?;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: inside our reservation, in the slot just claimed.
        unsafe { mem::mmap(slot.base, slot.len, prot, flags, p.file.as_raw_fd(), 0) }
            .map_err(io("mapping"))?;
        let extent =
            Extent::new(slot.base, len, slot.len).map_err(io("allocating the bookkeeping of"))?;
        let id = identity(&p.file).map_err(io("looking at"))?;
        if matches!(owner, Owner::Granted(_)) {
            let mut kept = JOURNAL.lock().unwrap_or_else(|e| e.into_inner());
            // The first one: what is kept may be of pools that are closed by now, and puddled no longer looks there.
            if GRANTED.load(Ordering::Relaxed) == 1 {
                *kept = journal()?;
            }
        }
        Ok((slot, home, extent, id))
    })();
    let (slot, home, extent, id) = match mapped {
        Ok(m) => m,
        Err(e) => {
            counted.fetch_sub(1, Ordering::AcqRel);
            return Err(e);
        }
    };
    let mapping = Mapping {
        path,
        owner,
        puddle: true,
        place: Place::Idle(home),
        slot,
        windows: Vec::new(),
        file: p.file,
        id,
        new_len: None,
        read_only: false,
    };
    let mut arriving = ARRIVING.lock().unwrap_or_else(|e| e.into_inner());
    arriving.push((mapping, extent));
    ANY_ARRIVING.store(true, Ordering::Release);
    Ok(())
}

/// Unmaps a puddle without committing what is uncommitted in it. Not inside an operation.
pub fn unmap_puddle(addr: u64) -> Result<(), Error> {
    let mut l = lock()?;
    let own = l.own;
    let s = l.state();
    let index = s.index_any(addr)?;
    s.gather.forget_marks(index, own);
    let counted = count(&s.mappings[index].owner);
    let result = s.release(index);
    counted.fetch_sub(1, Ordering::AcqRel);
    result
}

impl State {
    /// Takes over the mappings that were made without the lock.
    #[inline]
    pub(super) fn absorb(&mut self) {
        if any_arriving() {
            self.absorb_slowly();
        }
    }

    #[cold]
    fn absorb_slowly(&mut self) {
        let mut arriving = ARRIVING.lock().unwrap_or_else(|e| e.into_inner());
        for (mapping, extent) in arriving.drain(..) {
            self.mappings.push(mapping);
            self.gather.extents.push(extent);
            self.active = false;
        }
        MAPPED.store(self.mappings.len(), Ordering::Release);
        // After that store: `nothing_mapped` finds a puddle in one of the two places.
        ANY_ARRIVING.store(false, Ordering::Release);
    }
}

/// Whether puddles wait to be taken into the table of mappings.
#[inline]
pub(super) fn any_arriving() -> bool {
    ANY_ARRIVING.load(Ordering::Acquire)
}

/// Whether neither files nor puddles are mapped.
pub(super) fn nothing_mapped() -> bool {
    !ANY_ARRIVING.load(Ordering::Acquire) && MAPPED.load(Ordering::Acquire) == 0
}

/// Log bytes of a new journal that puddled gave: puddled reads all of it when the process dies, and others wait for that. It grows
/// with what is committed.
const GRANTED_LOG: u64 = 1 << 20;

/// The journal of a process whose puddles another process grants.
pub(super) fn granted_engine(path: &Path) -> Result<(Engine, PathBuf), Error> {
    let grant = JOURNAL.lock().unwrap_or_else(|e| e.into_inner()).take();
    let Some(g) = grant else {
        return Err(invalid(format!(
            "{}: its source has given no journal for this process",
            path.display()
        )));
    };
    let at = PathBuf::from(&g.name);
    let wrap = |e| Error::io(&at, "preparing the journal", e);
    let backing = probe_backing(&g.file).map_err(wrap)?;
    // Puddled may give the same journal again after all pools were closed: records of its first life would count as those of its
    // second, which has the same identity and begins with the same generation.
    g.file.set_len(0).map_err(wrap)?;
    let (media, first) = match backing {
        Backing::ByteAddressable => {
            g.file.set_len(mem::PAGE_SIZE).map_err(wrap)?;
            let media = JournalMedia::Mapped(MappedMedia::new(g.file).map_err(wrap)?);
            (media, GRANTED_LOG)
        }
        Backing::Blocks => {
            let media = FileMedia::from_file(g.file).map_err(wrap)?;
            (JournalMedia::File(media), GRANTED_LOG)
        }
    };
    let most = g.max_len.saturating_sub(vernal_journal::LOG_OFFSET);
    let config = JournalConfig {
        uuid: g.uuid,
        name: g.name.clone(),
        log_len: first.min(most),
    };
    let journal = Journal::create(media, config).map_err(|e| journal_error(&at, e))?;
    Ok((Committer::new(journal).growing_to(most), at))
}

/// A puddle that is mapped for reading, at its home address, and private: what is written to it stays in this process. It
/// is no member of a journal.
#[derive(Debug)]
pub struct ReadOnlyPuddle {
    slot: Slot,
    _file: File,
}

impl ReadOnlyPuddle {
    /// Where it is mapped.
    pub fn addr(&self) -> u64 {
        self.slot.base
    }
}

/// Maps a puddle for reading.
pub fn map_puddle_read_only(
    name: &str,
    file: File,
    addr: u64,
    size: u64,
) -> Result<ReadOnlyPuddle, Error> {
    let len = file
        .metadata()
        .map_err(|e| Error::io(name, "reading the length", e))?
        .len();
    if len != size || !vernal_abi::puddle::is_puddle_size(len) {
        return Err(Error::Format {
            path: name.to_owned(),
            why: format!("the puddle has {len} bytes instead of {size}: the file is damaged"),
        });
    }
    let slot = Slot::claim(addr, size, name)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: inside our reservation, in the slot just claimed.
    unsafe {
        mem::mmap(
            slot.base,
            slot.len,
            libc::PROT_READ,
            flags,
            file.as_raw_fd(),
            0,
        )
    }
    .map_err(|e| Error::io(name, "mapping", e))?;
    Ok(ReadOnlyPuddle { slot, _file: file })
}
