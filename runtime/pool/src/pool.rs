//! An open pool.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use vernal_format::Uuid;
use vernal_heap::{Heap, HeapError, ObjectSpace, PoolMemory, SpanSpace, TYPE_RAW};
use vernal_snapshot::runtime::{self};

use crate::direct::DirectPool;
use crate::embedded::DirSource;
pub(crate) use crate::inner::{Bracket, Inner, Puddle};
use crate::inner::{Mapping, map};
pub(crate) use crate::local::Local;
use crate::memory::Memory;
use crate::program::ProgramType;
use crate::served::ClientSource;
use crate::source::PoolSource;
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

/// An open pool. Clones name the same one.
#[derive(Debug, Clone)]
pub struct Pool(pub(crate) Arc<Inner>);

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
        let direct = if !info.direct {
            None
        } else if read_only {
            return Err(Error::Access {
                what: format!(
                    "pool {} is changed in place, and can only be opened for writing",
                    info.name
                ),
            });
        } else {
            let granted = source.direct()?;
            Some(Arc::new(match (granted, source.directory()) {
                (Some(grant), _) => DirectPool::open_served(grant, &info.name)?,
                // What dead processes have left is undone before anything of the pool is read.
                (None, Some(dir)) => DirectPool::open_embedded(dir)?,
                (None, None) => {
                    return Err(Error::invalid(format!(
                        "pool {} is changed in place, and its source has no logs for it",
                        info.name
                    )));
                }
            }))
        };
        let memory = direct.as_ref().map(|d| d.memory());
        let memory = Arc::new(Memory::new(read_only, memory));
        let mut mapping = Mapping {
            puddles: Vec::new(),
            memory: Arc::clone(&memory),
            direct: direct.clone(),
            volatile: false,
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
        let heap = Heap::open_with(Arc::clone(&memory), &mapped).map_err(heap_error)?;
        let puddles = std::mem::take(&mut mapping.puddles);
        let inner = Arc::new(Inner {
            info,
            heap,
            memory,
            direct,
            volatile: false,
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

    /// Makes an empty pool that lasts as long as this process keeps it open, in puddles that `source` gives: shared memory
    /// that this process alone may write.
    ///
    /// Everything works on it as on other pools, but nothing is ever committed, and nothing is rolled back: a transaction that
    /// spans pools of several kinds leaves what it did to a volatile one, whether it commits or aborts.
    pub fn create_volatile(source: Box<dyn PoolSource>) -> Result<Pool, Error> {
        let info = source.describe();
        if info.direct || info.read_only {
            return Err(Error::invalid(format!(
                "pool {} is volatile: it is neither changed under logs nor opened for reading",
                info.name
            )));
        }
        let memory = Arc::new(Memory::volatile());
        let mut mapping = Mapping {
            puddles: Vec::new(),
            memory: Arc::clone(&memory),
            direct: None,
            volatile: true,
        };
        let heap_error = |source| Error::Heap {
            pool: info.name.clone(),
            source,
        };
        let mut granted = source.puddles()?;
        let root = match granted.is_empty() {
            true => source.grow(vernal_abi::puddle::PUDDLE_MIN)?,
            false => granted.swap_remove(0),
        };
        let identity = vernal_heap::PoolIdentity {
            uuid: root.uuid,
            label: label_of(&info.name),
            direct: false,
        };
        let root = map(&*source, &info, root, &mut mapping)?;
        Heap::format_root(&memory, root, &identity).map_err(heap_error)?;
        let heap = Heap::open_with(Arc::clone(&memory), &[root]).map_err(heap_error)?;
        let puddles = std::mem::take(&mut mapping.puddles);
        let inner = Arc::new(Inner {
            info,
            heap,
            memory,
            direct: None,
            volatile: true,
            source: Mutex::new(Some(source)),
            puddles: Mutex::new(puddles),
            grown: AtomicU64::new(0),
            lazy: OnceLock::new(),
            closed: AtomicBool::new(false),
        });
        registry::add(&inner);
        Ok(Pool(inner))
    }

    /// Whether it lasts only as long as it is open.
    pub fn is_volatile(&self) -> bool {
        self.0.volatile
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
        let _bracket = Bracket::of(&self.0);
        let checked = self.0.in_heap(|| Ok(self.0.heap.check()));
        // What another process has done to a direct pool may keep this one from looking at it together with others.
        checked.unwrap_or_else(|_| self.0.heap.check())
    }

    /// The heap, to be looked at.
    pub fn space(&self) -> &(impl SpanSpace + use<>) {
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
        let _bracket = Bracket::of(&self.0);
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
            let _bracket = Bracket::of(&l.pool);
            l.alloc(size, 16, TYPE_RAW)
        })
    }

    /// Frees the object at `addr`.
    pub fn free(&self, addr: u64) -> Result<(), Error> {
        self.0.free(addr)
    }

    /// Copies the object at `addr`, and everything that can be reached from it in this pool, into the pool `to`, in the open
    /// transaction; returns the copy's address. What is shared or goes round in a circle does so in the copy, and pointers out
    /// of this pool are kept as they are. After an error there is no copy.
    pub fn copy_into(&self, addr: u64, to: &Pool) -> Result<u64, Error> {
        crate::copy::graph(&self.0, addr, Arc::clone(&to.0))
    }

    /// Gives puddles without objects back; durable when it returns. Returns how many.
    pub fn shrink(&self) -> Result<usize, Error> {
        if !self.0.volatile {
            check_outside()?;
        }
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

    /// Commits what is uncommitted and unmaps the pool. A volatile one is gone then.
    pub fn close(self) -> Result<(), Error> {
        let inner = &self.0;
        if !inner.volatile {
            check_outside()?;
        }
        if inner.closed.load(Ordering::Acquire) {
            return Err(Error::invalid(format!(
                "pool {} is closed already",
                inner.info.name
            )));
        }
        let mut committed = false;
        if !inner.info.read_only && !inner.volatile {
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

/// As much of a name as a label holds.
fn label_of(name: &str) -> String {
    let end = name.floor_char_boundary(vernal_format::puddle::LABEL_MAX);
    name.get(..end).unwrap_or_default().replace('\0', "?")
}

fn check_outside() -> Result<(), Error> {
    if tx::depth() > 0 {
        return Err(Error::invalid(
            "a transaction is open in this thread: pools are opened, shrunk and closed outside of transactions",
        ));
    }
    Ok(())
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
