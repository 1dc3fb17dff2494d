//! Mapping, resizing and releasing opted-in files.

use super::pipeline::{journal_error, no_space};
use super::puddles;
use super::{FORKED, MAPPED, Mapping, Owner, Place, State, invalid, lock};
use crate::config;
use crate::error::Error;
use crate::extent::Extent;
use crate::file;
use crate::file::Owned;
use crate::inject;
use crate::inject::Site;
use crate::space::Slot;
use crate::thread;
use crate::thread::Control;
use std::fs::File;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use vernal_abi as abi;
use vernal_journal::MAX_MEMBERS;
use vernal_sys::HomeView;
use vernal_sys::Media;
use vernal_sys::mem;
use vernal_sys::pages::PageTracker;
use vernal_sys::probe_backing;

impl State {
    pub(super) fn find_or_map(
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

    pub(super) fn map(
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
        self.check_room(path, writable)?;
        self.check_home_free(&owned)?;
        let slot = owned.claim_slot()?;
        let home = map_home(path, &file, &slot, writable)?;
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
        self.active = false;
        self.mappings.push(Mapping {
            path: path.to_owned(),
            owner: Owner::Own(owned),
            puddle: false,
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

    /// A journal serves a limited number of files, and either this process's own or those that another one grants.
    fn check_room(&self, path: &Path, writable: bool) -> Result<(), Error> {
        let mut members = self.mappings.iter().filter(|m| !m.read_only);
        if writable
            && members
                .clone()
                .any(|m| matches!(m.owner, Owner::Granted(_)))
        {
            return Err(mixed(path));
        }
        if writable && members.by_ref().count() >= MAX_MEMBERS {
            return Err(Error::TooManyFiles {
                path: path.display().to_string(),
                max: MAX_MEMBERS,
            });
        }
        Ok(())
    }

    /// The error that names the file which has the addresses.
    fn check_home_free(&self, owned: &Owned) -> Result<(), Error> {
        let (base, len) = (owned.meta.meta().home_addr, owned.meta.meta().slot_len);
        let taken = |m: &&Mapping| {
            m.slot.base < base.saturating_add(len) && base < m.slot.base + m.slot.len
        };
        match self.mappings.iter().find(taken) {
            None => Ok(()),
            Some(m) => Err(Error::AddressTaken {
                what: format!("the home address of {}", owned.path.display()),
                start: base,
                end: base.saturating_add(len),
                by: format!("{}, which this process has mapped", m.path.display()),
            }),
        }
    }

    pub(super) fn track_pages(&mut self, base: u64, slot: u64, len: u64) -> Result<(), Error> {
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

    /// The mapping at `addr`, which must be a file that the program itself has mapped.
    pub(super) fn index_at(&self, addr: u64) -> Result<usize, Error> {
        let index = self.index_any(addr)?;
        if self.mappings[index].puddle {
            return Err(invalid(format!(
                "{addr:#x} belongs to the pool puddle {}: only closing the pool unmaps it, and its length does not change",
                self.mappings[index].path.display()
            )));
        }
        Ok(index)
    }

    pub(super) fn index_any(&self, addr: u64) -> Result<usize, Error> {
        self.mappings
            .iter()
            .position(|m| addr >= m.slot.base && addr - m.slot.base < m.slot.len)
            .ok_or(Error::NotMapped { addr })
    }

    pub(super) fn home_mut(&mut self, index: usize) -> Option<&mut HomeView> {
        match &mut self.mappings[index].place {
            Place::Idle(h) => Some(h),
            Place::Member(id) => self.engine.as_mut()?.0.home_mut(*id),
            Place::Lost => None,
        }
    }

    pub(super) fn change_len(&mut self, index: usize, len: u64) -> Result<(), Error> {
        let slot = self.mappings[index].slot.len;
        let path = self.mappings[index].path.clone();
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
        self.resizing = true;
        Ok(())
    }

    /// Unmaps a file without committing it. Its journal goes with the last member.
    pub(super) fn release(&mut self, index: usize) -> Result<(), Error> {
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
                    let committed = m.owner.own().map(|o| o.meta.meta().committed_len);
                    if let Some(committed) = committed
                        && home.len() > committed
                    {
                        result = home
                            .set_len(committed)
                            .map_err(|e| Error::io(&m.path, "cutting", e));
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
                        result = Err(Error::io(&m.path, "cutting", e));
                    }
                    let removed = match &mut m.owner {
                        Owner::Own(owned) => engine.remove_home(id, &mut owned.meta),
                        Owner::Granted(_) => engine.remove_granted(id),
                    };
                    inject::point(Site::CheckpointDone);
                    match removed {
                        Ok(_)
                            if m.owner.own().is_some()
                                && self
                                    .mappings
                                    .iter()
                                    .all(|m| !matches!(m.place, Place::Member(_))) =>
                        {
                            let path = path.clone();
                            self.engine = None;
                            self.active = false;
                            file::remove_if_orphan(&path);
                        }
                        Ok(_) => {}
                        Err(e) => result = Err(journal_error(&m.path, e)),
                    }
                }
            }
            Place::Lost => {}
        }
        // The journal of granted puddles is for all of them, also those that have not been committed yet.
        if m.owner.own().is_none() && puddles::is_last_granted() && result.is_ok() {
            self.engine = None;
            self.active = false;
        }
        // The marks of a discarded file go with its shadow, when the slot is dropped.
        drop(extent);
        result
    }

    pub(super) fn close(
        &mut self,
        index: usize,
        own: Option<&Control>,
        discard: bool,
    ) -> Result<(), Error> {
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

    pub(super) fn index_of_fd(&self, fd: i32) -> Option<usize> {
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

/// Maps the home view of a claimed slot.
pub(super) fn map_home(
    path: &Path,
    file: &File,
    slot: &Slot,
    writable: bool,
) -> Result<HomeView, Error> {
    let io = |what| move |e| Error::io(path, what, e);
    let backing = probe_backing(file).map_err(io("finding out what backs"))?;
    let view = file
        .try_clone()
        .map_err(io("duplicating the descriptor of"))?;
    let at = slot.base + abi::HOME_DISTANCE;
    // SAFETY: the home range is reserved by `space::reserve`, and this part of it belongs to the claimed slot, whose only
    // view this is.
    let home = unsafe {
        if writable {
            HomeView::new(view, at, slot.len, backing)
        } else {
            HomeView::new_read_only(view, at, slot.len, backing)
        }
    };
    home.map_err(io("mapping the home view of"))
}

impl Mapping {
    /// The home view anew, after the first one was given away and lost.
    pub(super) fn map_home(&self) -> Result<HomeView, Error> {
        map_home(&self.path, &self.file, &self.slot, !self.read_only)
    }
}

/// A process writes either its own files or those that another process grants.
pub(super) fn mixed(path: &Path) -> Error {
    invalid(format!(
        "{}: a process writes either pools of puddled or files and pools of its own, because one journal serves them all: \
         close the others first, or open this one read-only",
        path.display()
    ))
}

pub(super) fn identity(file: &File) -> std::io::Result<(u64, u64)> {
    file.metadata().map(|m| (m.dev(), m.ino()))
}

/// Maps the whole of `path`, with `len` bytes (0: as long as it is); what `vernal_map` does.
pub fn map_file(path: &Path, len: u64, create: bool) -> Result<u64, Error> {
    let path = &std::path::absolute(path).map_err(|e| Error::io(path, "resolving", e))?;
    let mut l = lock()?;
    let s = l.state();
    // The metadata lie beside the file itself, whichever link leads to it.
    let directory = path.parent().and_then(|p| p.canonicalize().ok());
    let path = &match (path.canonicalize(), directory, path.file_name()) {
        (Ok(real), _, _) => real,
        (Err(_), Some(dir), Some(name)) => dir.join(name),
        _ => path.clone(),
    };
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

/// Unmaps the file at `addr`, committing it first unless `discard`.
pub fn unmap_file(addr: u64, discard: bool) -> Result<(), Error> {
    let mut l = lock()?;
    let own = l.own;
    let s = l.state();
    let index = s.index_at(addr)?;
    s.close(index, own, discard)
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

/// Whether `fd` is open on a mapped file.
pub fn is_mapped_file(fd: i32) -> bool {
    lock().is_ok_and(|mut l| l.state().index_of_fd(fd).is_some())
}

/// Length of the mapping that holds `addr`; 0 if there is none.
pub fn length(addr: u64) -> u64 {
    lock().map_or(0, |mut l| {
        let s = l.state();
        s.index_at(addr).map_or(0, |i| s.gather.extents[i].len)
    })
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
