//! An open pool.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use vernal_abi::puddle::PUDDLE_MIN;
use vernal_format::Uuid;
use vernal_heap::types::Migration;
use vernal_heap::{Heap, HeapError, Mapped, ObjectSpace, PoolMemory, TYPE_RAW, ThreadCache};
use vernal_snapshot::runtime::{
    self, GrantedJournal, PuddleMapping, PuddleOwner, ReadOnlyPuddle, map_puddle,
    map_puddle_read_only, unmap_puddle,
};

use crate::direct::DirectPool;
use crate::embedded::DirSource;
use crate::lazy::Lazy;
use crate::memory::Memory;
use crate::program::{self, ProgramType};
use crate::served::ClientSource;
use crate::source::{GrantedPuddle, PoolInfo, PoolSource};
use crate::{Error, registry, tx};

/// How to open a pool.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Make the pool when there is none.
    pub create: bool,
    /// With `create`: fail when there is one.
    pub exclusive: bool,
    /// Read a committed image.
    pub read_only: bool,
    /// A new pool is changed in place.
    pub direct: bool,
    /// Rewrite the pointers of a pool that has moved before the call returns, not when they are first reached.
    pub eager: bool,
}

/// A puddle that is mapped.
#[derive(Debug)]
pub(crate) struct Puddle {
    pub mapped: Mapped,
    pub file: File,
    /// Readers: the mapping.
    pub reader: Option<ReadOnlyPuddle>,
}

pub(crate) struct Inner {
    pub info: PoolInfo,
    pub heap: Heap<Arc<Memory>>,
    pub memory: Arc<Memory>,
    /// A pool that is changed in place.
    pub direct: Option<Arc<DirectPool>>,
    source: Mutex<Option<Box<dyn PoolSource>>>,
    pub puddles: Mutex<Vec<Puddle>>,
    /// Counts growths, so that two threads that find the pool full do not both grow it.
    grown: AtomicU64,
    pub lazy: OnceLock<Lazy>,
    closed: AtomicBool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool {}", self.info.name)
    }
}

/// What a thread keeps of a pool.
#[derive(Debug)]
pub(crate) struct Local {
    pub pool: Arc<Inner>,
    pub cache: ThreadCache,
    /// Types of the program by their place: index in the pool, alignment.
    pub types: HashMap<usize, (u32, u64)>,
    /// The type that was looked up last.
    pub last: (usize, u32, u64),
    /// Roll-backs that the types have seen.
    pub rolled_back: u64,
}

/// An open pool. Clones name the same one.
#[derive(Debug, Clone)]
pub struct Pool(pub(crate) Arc<Inner>);

/// Unmaps what was mapped when opening fails.
struct Mapping {
    puddles: Vec<Puddle>,
    memory: Arc<Memory>,
    direct: Option<Arc<DirectPool>>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        for p in self.puddles.drain(..).rev() {
            self.memory.remove(p.mapped.addr);
            if let Some(direct) = &self.direct {
                direct.unmap(p.mapped.addr);
            } else if p.reader.is_none() {
                let _ = unmap_puddle(p.mapped.addr);
            }
        }
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
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
}

impl Drop for Bracket {
    #[inline]
    fn drop(&mut self) {
        if self.0 {
            vernal_snapshot::op_end();
        }
    }
}

impl Pool {
    /// Opens the embedded pool in the directory `path`.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Pool, Error> {
        check_outside()?;
        let source = if options.read_only {
            DirSource::open_read_only(path)?
        } else {
            let create = options.create.then_some(options.direct);
            DirSource::open(path, create, options.exclusive)?
        };
        Self::open_source(Box::new(source), options)
    }

    /// Opens the pool of that name of puddled.
    pub fn open_served(name: &str, options: OpenOptions) -> Result<Pool, Error> {
        check_outside()?;
        let source = ClientSource::open(
            name,
            options.create,
            options.exclusive,
            options.read_only,
            options.direct,
        )?;
        Self::open_source(Box::new(source), options)
    }

    /// Opens the pool that `source` gives.
    pub fn open_source(source: Box<dyn PoolSource>, options: OpenOptions) -> Result<Pool, Error> {
        check_outside()?;
        registry::init();
        let info = source.describe();
        let read_only = info.read_only;
        let direct = match (info.direct, source.directory()) {
            (false, _) => None,
            (true, Some(dir)) if !read_only => {
                // What dead processes have left is undone before anything of the pool is read.
                Some(Arc::new(DirectPool::open_embedded(dir)?))
            }
            _ => {
                return Err(Error::Access {
                    what: format!(
                        "pool {} is changed in place, and can only be opened for writing and by its directory",
                        info.name
                    ),
                });
            }
        };
        let memory = direct.as_ref().map(|d| d.memory());
        let memory = Arc::new(Memory::new(read_only, memory));
        let mut mapping = Mapping {
            puddles: Vec::new(),
            memory: Arc::clone(&memory),
            direct: direct.clone(),
        };
        let heap_error = |source| Error::Heap {
            pool: info.name.clone(),
            source,
        };
        let mut granted = source.puddles()?;
        if granted.is_empty() {
            return Err(Error::NotFound {
                name: info.name.clone(),
            });
        }
        let root = map(&*source, &info, granted.remove(0), &mut mapping)?;
        let directory = Heap::read_directory(&memory, root).map_err(heap_error)?;
        let mut mapped = vec![root];
        for entry in directory.iter().filter(|e| e.slot != 0) {
            let at = granted.iter().position(|g| g.uuid == entry.uuid);
            let Some(at) = at else {
                return Err(Error::Puddle {
                    pool: info.name.clone(),
                    puddle: source.puddle_name(entry.uuid),
                    why: "is missing: restore the file, or import the pool from an archive".into(),
                });
            };
            let g = granted.swap_remove(at);
            if g.size != entry.size {
                return Err(Error::Puddle {
                    pool: info.name.clone(),
                    puddle: g.name,
                    why: format!(
                        "has {} bytes and the pool's directory says {}: it is damaged or of another pool",
                        g.size, entry.size
                    ),
                });
            }
            mapped.push(map(&*source, &info, g, &mut mapping)?);
        }
        drop(granted);
        // Another process may be adding a puddle that its transaction has not named yet.
        if !read_only && direct.as_ref().is_none_or(|d| d.was_alone()) {
            let named: Vec<Uuid> = directory.iter().map(|e| e.uuid).collect();
            source.sweep(&named)?;
        }
        let heap = Heap::open(Arc::clone(&memory), &mapped).map_err(heap_error)?;
        let puddles = std::mem::take(&mut mapping.puddles);
        let inner = Arc::new(Inner {
            info,
            heap,
            memory,
            direct,
            source: Mutex::new(Some(source)),
            puddles: Mutex::new(puddles),
            grown: AtomicU64::new(0),
            lazy: OnceLock::new(),
            closed: AtomicBool::new(false),
        });
        let pool = Pool(Arc::clone(&inner));
        if let Err(e) = pool.prepare(options) {
            let _ = inner.unmap_all(false);
            return Err(e);
        }
        registry::add(&inner);
        Ok(pool)
    }

    /// Compares types, and arranges for pointers and process-bound values to be rewritten where the pool or the program has
    /// moved.
    fn prepare(&self, options: OpenOptions) -> Result<(), Error> {
        let migrations = self.0.check_types()?;
        // Objects are converted with their pointers in order, all of them.
        crate::lazy::prepare(&self.0, options.eager || !migrations.is_empty())?;
        crate::migrate::run(&self.0, &migrations)
    }

    /// Its name: the directory, or what puddled calls it.
    pub fn name(&self) -> &str {
        &self.0.info.name
    }

    /// Whether it is open for reading.
    pub fn is_read_only(&self) -> bool {
        self.0.info.read_only
    }

    /// Names the pool towards C; valid until it is closed.
    pub fn handle(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// The open pool with this handle.
    pub fn from_handle(handle: usize) -> Option<Pool> {
        registry::find(handle).map(Pool)
    }

    /// The open pool that holds `addr`.
    pub fn containing(addr: u64) -> Option<Pool> {
        registry::find(registry::handle_at(addr)?).map(Pool)
    }

    /// What is known of the heap.
    pub fn check(&self) -> vernal_heap::CheckReport {
        let _bracket = Bracket::new();
        let checked = self.0.in_heap(|| Ok(self.0.heap.check()));
        // What another process has done to a direct pool may keep this one from looking at it together with others.
        checked.unwrap_or_else(|_| self.0.heap.check())
    }

    /// The heap, to be looked at.
    pub fn space(&self) -> &(impl ObjectSpace + use<>) {
        &self.0.heap
    }

    /// Who the pool is.
    pub fn identity(&self) -> vernal_heap::PoolIdentity {
        self.0.heap.identity()
    }

    /// The puddles as the pool's directory has them.
    pub fn directory(&self) -> Result<Vec<vernal_heap::DirectoryEntry>, Error> {
        self.0.heap.directory().map_err(|e| self.0.heap_error(e))
    }

    /// Address of the root object.
    pub fn root(&self) -> Option<u64> {
        self.0.heap.root()
    }

    /// Makes the object at `addr` the root object; 0: none.
    pub fn set_root(&self, addr: u64) -> Result<(), Error> {
        self.0.check_writable()?;
        let _bracket = Bracket::new();
        self.0
            .in_heap(|| self.0.heap.set_root(addr).map_err(|e| self.0.heap_error(e)))
    }

    /// Allocates a zeroed object of a type of the program. `type_key` names the type in this thread's cache, 0 does not.
    pub fn alloc(&self, size: u64, ty: &ProgramType, type_key: usize) -> Result<u64, Error> {
        registry::with(self.handle(), |l| l.alloc_typed(size, type_key, || Ok(ty)))
    }

    /// Allocates zeroed bytes in which there will be no pointers.
    pub fn alloc_bytes(&self, size: u64) -> Result<u64, Error> {
        registry::with(self.handle(), |l| {
            let _bracket = Bracket::new();
            l.alloc(size, 16, TYPE_RAW)
        })
    }

    /// Frees the object at `addr`.
    pub fn free(&self, addr: u64) -> Result<(), Error> {
        self.0.free(addr)
    }

    /// Gives puddles without objects back; durable when it returns. Returns how many.
    pub fn shrink(&self) -> Result<usize, Error> {
        check_outside()?;
        registry::with(self.handle(), |l| {
            let inner = Arc::clone(&l.pool);
            inner.shrink(&mut l.cache)
        })
    }

    /// Rewrites whatever still means the pool's old addresses, and makes it durable.
    pub fn relocate_all(&self) -> Result<(), Error> {
        check_outside()?;
        crate::lazy::finish(&self.0)
    }

    /// Commits what is uncommitted and unmaps the pool.
    pub fn close(self) -> Result<(), Error> {
        check_outside()?;
        let inner = &self.0;
        if inner.closed.load(Ordering::Acquire) {
            return Err(Error::invalid(format!(
                "pool {} is closed already",
                inner.info.name
            )));
        }
        let mut committed = false;
        if !inner.info.read_only {
            // A commit that fails leaves the pool open: nothing is lost.
            runtime::commit()?;
            let shrunk = registry::with(self.handle(), |l| {
                let inner = Arc::clone(&l.pool);
                inner.shrink(&mut l.cache)
            });
            // Giving space back is not what the caller asked for: it may fail, of no space or of a damaged heap. Its changes of
            // the directory stay uncommitted then, and no file may go.
            committed = shrunk.is_ok();
        }
        if inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        registry::remove(inner);
        inner.unmap_all(committed)
    }
}

fn check_outside() -> Result<(), Error> {
    if tx::depth() > 0 {
        return Err(Error::invalid(
            "a transaction is open in this thread: pools are opened, shrunk and closed outside of transactions",
        ));
    }
    Ok(())
}

/// Maps a puddle; at another address when its own is taken.
fn map(
    source: &dyn PoolSource,
    info: &PoolInfo,
    mut g: GrantedPuddle,
    mapping: &mut Mapping,
) -> Result<Mapped, Error> {
    if !info.direct
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
    let reader = if let Some(direct) = &mapping.direct {
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
        let _bracket = Bracket::new();
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
        let puddles = lock(&self.puddles);
        for p in puddles.iter() {
            self.heap.restored(p.mapped.addr, p.mapped.size);
        }
        let directory = self.heap.directory().map_err(|e| self.heap_error(e))?;
        match directory
            .iter()
            .find(|e| !puddles.iter().any(|p| p.mapped.uuid == e.uuid))
        {
            None => Ok(()),
            Some(entry) => Err(Error::Access {
                what: format!(
                    "another process has added puddle {} to pool {}: close the pool and open it again",
                    entry.uuid, self.info.name
                ),
            }),
        }
    }

    /// Refuses a program whose types have another layout than the pool's objects; those that it has a hook for are returned.
    fn check_types(&self) -> Result<Vec<Migration>, Error> {
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
    fn grow(&self, need: u64, seen: u64) -> Result<(), Error> {
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
        let granted = {
            let source = lock(&self.source);
            let Some(source) = source.as_deref() else {
                return Err(Error::invalid("the pool is being closed"));
            };
            let _inside = runtime::enter();
            let granted = source.grow(size)?;
            let mut mapping = Mapping {
                puddles: Vec::new(),
                memory: Arc::clone(&self.memory),
                direct: self.direct.clone(),
            };
            let mapped = map(source, &self.info, granted, &mut mapping)?;
            puddles.append(&mut mapping.puddles);
            mapped
        };
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

    fn shrink(&self, cache: &mut ThreadCache) -> Result<usize, Error> {
        // Other processes may have a direct pool's puddles mapped.
        if self.info.read_only
            || self.direct.is_some()
            || self.lazy.get().is_some_and(Lazy::any_pending)
        {
            return Ok(0);
        }
        let mut puddles = lock(&self.puddles);
        {
            let _bracket = Bracket::new();
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
        if let Err(e) = runtime::commit() {
            puddles.extend(gone);
            return Err(e.into());
        }
        let count = gone.len();
        for p in gone {
            registry::uncover(p.mapped.addr, p.mapped.size);
            self.memory.remove(p.mapped.addr);
            unmap_puddle(p.mapped.addr)?;
            if let Some(source) = lock(&self.source).as_deref() {
                source.shrink(p.mapped.uuid)?;
            }
        }
        Ok(count)
    }

    /// With `committed`, the directory is as a commit left it: puddles that it does not name are given back.
    fn unmap_all(&self, committed: bool) -> Result<(), Error> {
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
            if p.reader.is_some() {
                continue;
            }
            let spare = committed && !directory.contains(&p.mapped.uuid);
            if let Err(e) = unmap_puddle(p.mapped.addr) {
                result = Err(e.into());
            } else if let (true, Some(source)) = (spare, source.as_deref()) {
                result = result.and(source.shrink(p.mapped.uuid));
            }
        }
        match source {
            Some(source) => result.and(source.close()),
            None => result,
        }
    }
}

impl Local {
    pub fn new(pool: Arc<Inner>) -> Self {
        Local {
            cache: pool.heap.thread_cache(),
            pool,
            types: HashMap::new(),
            last: (0, 0, 0),
            rolled_back: registry::rolled_back(),
        }
    }

    /// Runs an operation of the heap until it does not ask for another puddle.
    #[inline]
    fn with_room<R>(
        &mut self,
        mut f: impl FnMut(&Inner, &mut ThreadCache) -> Result<R, HeapError>,
    ) -> Result<R, Error> {
        let Local { pool, cache, .. } = self;
        pool.with_room(|p| f(p, cache))
    }

    #[inline]
    pub fn alloc(&mut self, size: u64, align: u64, index: u32) -> Result<u64, Error> {
        self.with_room(|pool, cache| pool.heap.alloc(cache, size, align, index))
    }

    /// Allocates an object of the type that `key` stands for; `ty` tells when it is not known.
    #[inline]
    pub fn alloc_typed<T: std::ops::Deref<Target = ProgramType>>(
        &mut self,
        size: u64,
        key: usize,
        ty: impl FnOnce() -> Result<T, Error>,
    ) -> Result<u64, Error> {
        let _bracket = Bracket::new();
        let (index, align) = self.type_index(key, ty)?;
        self.alloc(size, align, index)
    }

    #[inline]
    pub fn type_index<T: std::ops::Deref<Target = ProgramType>>(
        &mut self,
        key: usize,
        ty: impl FnOnce() -> Result<T, Error>,
    ) -> Result<(u32, u64), Error> {
        let rolled_back = registry::rolled_back();
        if self.rolled_back != rolled_back {
            // A roll-back may have taken types out of the pool again.
            self.rolled_back = rolled_back;
            self.types.clear();
            self.last = (0, 0, 0);
        }
        if key != 0 && self.last.0 == key {
            return Ok((self.last.1, self.last.2));
        }
        self.type_index_slowly(key, ty)
    }

    #[cold]
    fn type_index_slowly<T: std::ops::Deref<Target = ProgramType>>(
        &mut self,
        key: usize,
        ty: impl FnOnce() -> Result<T, Error>,
    ) -> Result<(u32, u64), Error> {
        if let Some(&(index, align)) = self.types.get(&key)
            && key != 0
        {
            self.last = (key, index, align);
            return Ok((index, align));
        }
        let ty = ty()?;
        if let Some(field) = ty.desc.refused() {
            return Err(Error::Type {
                what: format!(
                    "objects of type {} cannot lie in a pool: its field {} is refused; say with an annotation what it holds, \
                     or change it",
                    ty.desc.name(),
                    field.name
                ),
            });
        }
        let align = u64::from(ty.desc.align()).max(16);
        let index = self.with_room(|pool, cache| pool.heap.intern_type(cache, ty.desc.blob()))?;
        crate::binding::note_type(&self.pool, &mut self.cache, index)?;
        if key != 0 {
            self.types.insert(key, (index, align));
            self.last = (key, index, align);
        }
        Ok((index, align))
    }

    pub fn realloc(&mut self, addr: u64, size: u64) -> Result<u64, Error> {
        let _bracket = Bracket::new();
        self.with_room(|pool, cache| pool.heap.realloc(cache, addr, size))
    }

    /// The root object; allocated when there is none.
    pub fn root<T: std::ops::Deref<Target = ProgramType>>(
        &mut self,
        size: u64,
        key: usize,
        ty: impl FnOnce() -> Result<T, Error>,
    ) -> Result<u64, Error> {
        let read_only = self.pool.info.read_only;
        if let Some(root) = self.pool.heap.root() {
            let ty = ty()?;
            let object = self.pool.heap.object_exact(root);
            let object = object.map_err(|e| self.pool.heap_error(e))?;
            if let Some(have) = self.pool.heap.type_desc(object.type_index)
                && (have.name() != ty.desc.name() || object.size < size)
            {
                return Err(Error::Type {
                    what: format!(
                        "the root object of pool {} is a {} of {} bytes, and the program asks for a {} of {size} bytes: ask for \
                         the type that it has",
                        self.pool.info.name,
                        have.name(),
                        object.size,
                        ty.desc.name()
                    ),
                });
            }
            return Ok(root);
        }
        if read_only {
            return Err(Error::Access {
                what: format!(
                    "pool {} has no root object yet, and is open for reading",
                    self.pool.info.name
                ),
            });
        }
        let _bracket = Bracket::new();
        let (index, align) = self.type_index(key, ty)?;
        // Two threads that both find no root agree on one.
        static MAKING: Mutex<()> = Mutex::new(());
        let _making = lock(&MAKING);
        if let Some(root) = self.pool.heap.root() {
            return Ok(root);
        }
        let pool = Arc::clone(&self.pool);
        pool.in_heap(|| {
            let root = self.alloc(size, align, index)?;
            let set = pool.heap.set_root(root);
            set.map_err(|e| pool.heap_error(e))?;
            Ok(root)
        })
    }
}

/// Words of the pool at `addr`, for tests and tools.
impl PoolMemory for Pool {
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        self.0.memory.words(addr, count)
    }

    fn before_write(&self, addr: u64, len: u64) -> Result<(), HeapError> {
        self.0.memory.before_write(addr, len)
    }

    fn after_write(&self, addr: u64, len: u64) {
        self.0.memory.after_write(addr, len);
    }
}
