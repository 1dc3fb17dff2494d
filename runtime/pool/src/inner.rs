//! What an open pool is made of: its mapped puddles, its heap, its source; growth and shrinking.

use std::fmt;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use vernal_abi::puddle::PUDDLE_MIN;
use vernal_format::Uuid;
use vernal_heap::types::Migration;
use vernal_heap::{Heap, HeapError, Mapped, ObjectSpace, ThreadCache};
use vernal_snapshot::runtime::{
    self, GrantedJournal, PuddleMapping, PuddleOwner, ReadOnlyPuddle, map_puddle,
    map_puddle_read_only, unmap_puddle,
};

use crate::direct::DirectPool;
use crate::lazy::Lazy;
use crate::locks::PoolLocks;
use crate::memory::Memory;
use crate::program::{self};
use crate::segment::Segment;
use crate::source::{GrantedPuddle, PoolInfo, PoolSource};
use crate::{Error, registry, tx};

/// A puddle that is mapped.
#[derive(Debug)]
pub(crate) struct Puddle {
    pub mapped: Mapped,
    pub file: File,
    /// Readers: the mapping.
    pub reader: Option<ReadOnlyPuddle>,
    /// Volatile pools: the mapping.
    pub segment: Option<Segment>,
}

pub(crate) struct Inner {
    pub info: PoolInfo,
    pub heap: Heap<Arc<Memory>, PoolLocks>,
    pub memory: Arc<Memory>,
    /// A pool that is changed in place.
    pub direct: Option<Arc<DirectPool>>,
    /// A pool that lasts as long as its process: no journal, no commits, no roll-backs.
    pub volatile: bool,
    pub source: Mutex<Option<Box<dyn PoolSource>>>,
    pub puddles: Mutex<Vec<Puddle>>,
    /// Counts growths, so that two threads that find the pool full do not both grow it.
    pub grown: AtomicU64,
    pub lazy: OnceLock<Lazy>,
    pub closed: AtomicBool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool {}", self.info.name)
    }
}

/// Unmaps what was mapped when opening fails.
pub(crate) struct Mapping {
    pub puddles: Vec<Puddle>,
    pub memory: Arc<Memory>,
    pub direct: Option<Arc<DirectPool>>,
    pub volatile: bool,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        for p in self.puddles.drain(..).rev() {
            self.memory.remove(p.mapped.addr);
            if let Some(direct) = &self.direct {
                direct.unmap(p.mapped.addr);
            } else if p.reader.is_none() && p.segment.is_none() {
                let _ = unmap_puddle(p.mapped.addr);
            }
        }
    }
}

pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

/// Holds commits off while this thread changes the heap outside a transaction; another thread's abort must not come in the
/// middle of it.
#[derive(Debug)]
pub(crate) struct Bracket(bool);

impl Bracket {
    #[inline]
    pub fn new() -> Self {
        let needed = tx::depth() == 0 && !vernal_sys::os::single_threaded();
        if needed {
            vernal_snapshot::op_begin();
        }
        Bracket(needed)
    }

    /// The same for a change of this pool only: no commit and no abort looks at a volatile one.
    #[inline]
    pub fn of(pool: &Inner) -> Self {
        match pool.volatile {
            true => Bracket(false),
            false => Bracket::new(),
        }
    }
}

impl Drop for Bracket {
    #[inline]
    fn drop(&mut self) {
        if self.0 {
            vernal_snapshot::op_end();
        }
    }
}

/// Maps a puddle; at another address when its own is taken.
pub(crate) fn map(
    source: &dyn PoolSource,
    info: &PoolInfo,
    mut g: GrantedPuddle,
    mapping: &mut Mapping,
) -> Result<Mapped, Error> {
    if !info.direct
        && !mapping.volatile
        && !vernal_snapshot::is_free(g.addr, g.size)
        && let Some(addr) = source.readdress(g.uuid)?
    {
        g.addr = addr;
    }
    let mapped = Mapped {
        uuid: g.uuid,
        addr: g.addr,
        size: g.size,
    };
    let damaged = |e: vernal_snapshot::Error| match e {
        vernal_snapshot::Error::Format { path, why } => Error::Puddle {
            pool: info.name.clone(),
            puddle: path,
            why,
        },
        other => other.into(),
    };
    let file = g
        .file
        .try_clone()
        .map_err(|e| Error::io(&g.name, "duplicating the descriptor", e))?;
    let mut segment = None;
    let reader = if mapping.volatile {
        segment = Some(Segment::own(&g.file, &g.name, g.addr, g.size)?);
        None
    } else if let Some(direct) = &mapping.direct {
        direct.map(&g.file, &g.name, g.addr, g.size)?;
        // Direct pools are shared: the lock on the metadata was for finding out what to map.
        drop(source.take_owner(g.uuid));
        None
    } else if info.read_only {
        Some(map_puddle_read_only(&g.name, g.file, g.addr, g.size).map_err(damaged)?)
    } else {
        let owner = match source.take_owner(g.uuid) {
            Some(owned) => PuddleOwner::Own(owned),
            None => PuddleOwner::Granted(g.uuid),
        };
        let request = PuddleMapping {
            path: g.name.into(),
            file: g.file,
            addr: g.addr,
            size: g.size,
            owner,
        };
        let mut failed = None;
        let journal = || match source.journal() {
            Ok(j) => Ok(j.map(|j| GrantedJournal {
                file: j.file,
                uuid: j.uuid,
                name: j.name,
                max_len: j.max_len,
            })),
            Err(e) => {
                let what = e.to_string();
                failed = Some(e);
                Err(vernal_snapshot::Error::Invalid { what })
            }
        };
        match map_puddle(request, journal) {
            Ok(()) => None,
            Err(e) => return Err(failed.unwrap_or_else(|| damaged(e))),
        }
    };
    mapping.puddles.push(Puddle {
        mapped,
        file,
        reader,
        segment,
    });
    if !mapping.memory.add(g.addr, g.size) {
        return Err(Error::Puddle {
            pool: info.name.clone(),
            puddle: g.uuid.to_string(),
            why: "is one too many: a pool has at most 64".into(),
        });
    }
    Ok(mapped)
}

impl Inner {
    pub fn heap_error(&self, source: HeapError) -> Error {
        Error::Heap {
            pool: self.info.name.clone(),
            source,
        }
    }

    /// Refuses changes of a pool that is open for reading. The heap relies on this: memory that is free it changes without
    /// asking.
    #[inline]
    pub fn check_writable(&self) -> Result<(), Error> {
        if self.info.read_only {
            return Err(Error::Access {
                what: format!(
                    "pool {} is open for reading: open it without VN_READONLY to change it",
                    self.info.name
                ),
            });
        }
        Ok(())
    }

    pub fn free(&self, addr: u64) -> Result<(), Error> {
        self.check_writable()?;
        if self.direct.is_some() && tx::depth() > 0 {
            // Not before the commit: what this transaction allocates next would overwrite the object, and an abort or a
            // crash would bring it back without its content.
            self.heap
                .object_exact(addr)
                .map_err(|e| self.heap_error(e))?;
            return tx::free_at_commit(std::ptr::from_ref(self) as usize, addr);
        }
        self.free_now(addr)
    }

    pub fn realloc(&self, cache: &mut ThreadCache, addr: u64, size: u64) -> Result<u64, Error> {
        let _bracket = Bracket::of(self);
        if self.direct.is_none() || tx::depth() == 0 {
            return self.with_room(|p| p.heap.realloc(cache, addr, size));
        }
        // As for `free`: no byte that the object has may be given away before the commit.
        let handle = std::ptr::from_ref(self) as usize;
        tx::check_kept("vn_realloc", handle, addr)?;
        let to = self.with_room(|p| {
            if !p.heap.gives_pages_back(addr, size)? && p.heap.resize_in_place(addr, size)? {
                return Ok(addr);
            }
            p.heap.move_to(cache, addr, size)
        })?;
        if to != addr {
            tx::free_at_commit(handle, addr)?;
        }
        Ok(to)
    }

    pub fn free_now(&self, addr: u64) -> Result<(), Error> {
        let _bracket = Bracket::of(self);
        self.in_heap(|| self.heap.free(addr).map_err(|e| self.heap_error(e)))
    }

    /// Runs operations of the heap. In a direct pool they are a transaction, or part of the open one, and exclude those of
    /// other threads and processes until it ends.
    #[inline]
    pub fn in_heap<R>(&self, f: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        match &self.direct {
            None => f(),
            Some(direct) => self.in_direct_heap(direct, f),
        }
    }

    fn in_direct_heap<R>(
        &self,
        direct: &DirectPool,
        f: impl FnOnce() -> Result<R, Error>,
    ) -> Result<R, Error> {
        if tx::depth() > 0 {
            tx::enlist_direct()?;
        }
        let done = match direct.begin_heap()? {
            false => f(),
            true => self.refresh().and_then(|()| f()),
        };
        match done {
            Ok(r) => crate::direct::tx::commit().map(|()| r),
            // What the heap refuses changes nothing: a transaction around it goes on.
            Err(e) if crate::direct::tx::depth() > 1 => {
                crate::direct::tx::commit()?;
                Err(e)
            }
            Err(e) => {
                crate::direct::tx::abort()?;
                Err(e)
            }
        }
    }

    /// Another process has used the heap since, or an abort has taken changes back.
    #[cold]
    fn refresh(&self) -> Result<(), Error> {
        registry::note_roll_back();
        let mut puddles = lock(&self.puddles);
        self.read_again(&puddles);
        let directory = self.heap.directory().map_err(|e| self.heap_error(e))?;
        let added: Vec<Uuid> = directory
            .iter()
            .map(|e| e.uuid)
            .filter(|uuid| !puddles.iter().any(|p| p.mapped.uuid == *uuid))
            .collect();
        if added.is_empty() {
            return Ok(());
        }
        for uuid in added {
            let mapped = self.take_in(&mut puddles, |source| source.added(uuid))?;
            self.heap.learn(mapped);
            registry::cover(self, mapped.addr, mapped.size);
        }
        // The directory once more, now that the heap knows where they are.
        self.read_again(&puddles);
        Ok(())
    }

    fn read_again(&self, puddles: &[Puddle]) {
        for p in puddles {
            self.heap.restored(p.mapped.addr, p.mapped.size);
        }
    }

    /// Maps a puddle that the source gives now.
    fn take_in(
        &self,
        puddles: &mut Vec<Puddle>,
        give: impl FnOnce(&dyn PoolSource) -> Result<GrantedPuddle, Error>,
    ) -> Result<Mapped, Error> {
        let source = lock(&self.source);
        let Some(source) = source.as_deref() else {
            return Err(Error::invalid("the pool is being closed"));
        };
        let _inside = runtime::enter();
        let granted = give(source)?;
        let mut mapping = Mapping {
            puddles: Vec::new(),
            memory: Arc::clone(&self.memory),
            direct: self.direct.clone(),
            volatile: self.volatile,
        };
        let mapped = map(source, &self.info, granted, &mut mapping)?;
        puddles.append(&mut mapping.puddles);
        Ok(mapped)
    }

    /// Refuses a program whose types have another layout than the pool's objects; those that it has a hook for are returned.
    pub fn check_types(&self) -> Result<Vec<Migration>, Error> {
        use vernal_heap::types::{PoolType, reconcile, unique};
        let pool: Vec<PoolType<'_>> = (vernal_heap::TYPE_FIRST..self.heap.type_end())
            .filter_map(|index| {
                let desc = self.heap.type_desc(index)?;
                Some(PoolType { index, desc })
            })
            .collect();
        if pool.is_empty() {
            return Ok(Vec::new());
        }
        let program = program::all();
        let program = unique(program.iter().map(|t| &t.desc));
        // Asked only for a type that has changed.
        let in_use = |index| {
            (0..self.heap.chunk_count()).any(|chunk| {
                let mut found = false;
                self.heap.for_each_object(chunk, &mut |o| {
                    found = o.type_index == index;
                    !found
                });
                found
            })
        };
        let mapping =
            reconcile(&pool, &program, &in_use, &crate::migrate::has_hook).map_err(|e| {
                Error::Type {
                    what: format!("pool {}: {e}", self.info.name),
                }
            })?;
        Ok(mapping.migrations().cloned().collect())
    }

    /// Makes room for an object that needs a puddle of `need` bytes. `seen` is [`Inner::grown`] from before the attempt.
    #[cold]
    pub fn grow(&self, need: u64, seen: u64) -> Result<(), Error> {
        let mut puddles = lock(&self.puddles);
        if self.grown.load(Ordering::Acquire) != seen {
            return Ok(());
        }
        let directory = self.heap.directory().map_err(|e| self.heap_error(e))?;
        let total: u64 = directory.iter().map(|e| e.size).sum();
        let spare = puddles
            .iter()
            .map(|p| p.mapped)
            .filter(|m| m.size >= need && !directory.iter().any(|e| e.uuid == m.uuid))
            .find(|m| self.heap.add_puddle(*m).is_ok());
        if spare.is_some() {
            self.grown.fetch_add(1, Ordering::AcqRel);
            return Ok(());
        }
        let largest = PUDDLE_MIN << vernal_abi::puddle::PUDDLE_MAX_SHIFT;
        let size = need
            .max(total.next_power_of_two())
            .clamp(PUDDLE_MIN, largest)
            .next_power_of_two();
        let granted = self.take_in(&mut puddles, |source| source.grow(size))?;
        registry::cover(self, granted.addr, granted.size);
        self.heap
            .add_puddle(granted)
            .map_err(|e| self.heap_error(e))?;
        self.grown.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Runs an operation of the heap until it does not ask for another puddle.
    #[inline]
    pub fn with_room<R>(&self, f: impl FnMut(&Inner) -> Result<R, HeapError>) -> Result<R, Error> {
        self.check_writable()?;
        self.in_heap(|| self.until_it_fits(f))
    }

    #[inline]
    fn until_it_fits<R>(
        &self,
        mut f: impl FnMut(&Inner) -> Result<R, HeapError>,
    ) -> Result<R, Error> {
        // A new puddle has room for what was asked, unless other threads are faster; not for ever.
        for _ in 0..1000 {
            let seen = self.grown.load(Ordering::Acquire);
            match f(self) {
                Ok(r) => return Ok(r),
                Err(HeapError::Full { need }) => self.grow(need, seen)?,
                Err(e) => return Err(self.heap_error(e)),
            }
        }
        Err(Error::invalid(format!(
            "pool {}: other threads use up every puddle that is added",
            self.info.name
        )))
    }

    pub fn shrink(&self, cache: &mut ThreadCache) -> Result<usize, Error> {
        // Other processes may have a direct pool's puddles mapped.
        if self.info.read_only
            || self.direct.is_some()
            || self.lazy.get().is_some_and(Lazy::any_pending)
        {
            return Ok(0);
        }
        let mut puddles = lock(&self.puddles);
        {
            let _bracket = Bracket::of(self);
            let directory = self.heap.directory().map_err(|e| self.heap_error(e))?;
            if directory.len() == puddles.len() && directory.len() == 1 {
                return Ok(0);
            }
            let empty = self
                .heap
                .empty_puddles(cache)
                .map_err(|e| self.heap_error(e))?;
            for uuid in empty {
                self.heap
                    .remove_puddle(uuid)
                    .map_err(|e| self.heap_error(e))?;
            }
        }
        let directory = self.heap.directory().map_err(|e| self.heap_error(e))?;
        let (keep, gone): (Vec<Puddle>, Vec<Puddle>) = puddles
            .drain(..)
            .partition(|p| directory.iter().any(|e| e.uuid == p.mapped.uuid));
        *puddles = keep;
        if gone.is_empty() {
            return Ok(0);
        }
        // The directory without them first: a crash leaves files that nobody names, and the next writer deletes them.
        if !self.volatile
            && let Err(e) = runtime::commit()
        {
            puddles.extend(gone);
            return Err(e.into());
        }
        let count = gone.len();
        for p in gone {
            registry::uncover(p.mapped.addr, p.mapped.size);
            self.memory.remove(p.mapped.addr);
            match p.segment {
                Some(segment) => drop(segment),
                None => unmap_puddle(p.mapped.addr)?,
            }
            if let Some(source) = lock(&self.source).as_deref() {
                source.shrink(p.mapped.uuid)?;
            }
        }
        Ok(count)
    }

    /// With `committed`, the directory is as a commit left it: puddles that it does not name are given back.
    pub fn unmap_all(&self, committed: bool) -> Result<(), Error> {
        let puddles = std::mem::take(&mut *lock(&self.puddles));
        let source = lock(&self.source).take();
        let directory: Vec<Uuid> = match self.heap.directory() {
            Ok(d) => d.iter().map(|e| e.uuid).collect(),
            Err(_) => puddles.iter().map(|p| p.mapped.uuid).collect(),
        };
        if let Some(lazy) = self.lazy.get() {
            lazy.forget();
        }
        let mut result = Ok(());
        // The root puddle's lock is the pool's: it goes last.
        for p in puddles.into_iter().rev() {
            self.memory.remove(p.mapped.addr);
            if let Some(direct) = &self.direct {
                direct.unmap(p.mapped.addr);
                continue;
            }
            // What is mapped for reading, or is volatile, is unmapped when it is dropped.
            if p.reader.is_some() || p.segment.is_some() {
                continue;
            }
            let spare = committed && !directory.contains(&p.mapped.uuid);
            if let Err(e) = unmap_puddle(p.mapped.addr) {
                result = Err(e.into());
            } else if let (true, Some(source)) = (spare, source.as_deref()) {
                result = result.and(source.shrink(p.mapped.uuid));
            }
        }
        crate::lazy::end_deferring(self);
        match source {
            Some(source) => result.and(source.close()),
            None => result,
        }
    }
}
