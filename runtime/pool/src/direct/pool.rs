//! One open direct pool of this process: recovered, mapped, with a share in the process' logs.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vernal_journal::MetaFile;
use vernal_sys::FileMedia;

use super::files::{DirLogs, PuddleFile, recover_dead};
use super::lock::{AllocLock, PoolLock, ServedLock};
use super::memory::DirectMemory;
use super::space::{DirectMapping, PoolNumber};
use super::tx::{self, LogSource};
use crate::Error;

/// Where the logs of this process are: all in one place, because one transaction may span all of its pools.
enum Logs {
    /// Beside the first embedded pool; gone with the last one.
    Beside(Arc<DirLogs>),
    /// At puddled. They stay when the last pool is closed, and serve the next one: puddled keeps them as long as the
    /// connection.
    Served(Arc<dyn LogSource>),
}

/// The logs of this process, and how many pools are open.
static PROCESS: Mutex<Option<(Logs, usize)>> = Mutex::new(None);

fn mixed(name: &str, other: &str) -> Error {
    Error::Access {
        what: format!(
            "pool {name}: this process has direct pools {other} open, and one log serves all direct pools of a process: close them first"
        ),
    }
}

/// What puddled gives for a direct pool besides its puddles.
#[derive(Debug)]
pub struct DirectGrant {
    /// The page of its allocator's lock.
    pub lock: File,
    /// The token by which puddled knows this process in that page.
    pub token: u32,
    /// The logs of this process: the same for all pools of one connection.
    pub logs: Arc<dyn LogSource>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open direct pool.
#[derive(Debug)]
pub struct DirectPool {
    number: PoolNumber,
    lock: Arc<dyn PoolLock>,
    mappings: Mutex<Vec<DirectMapping>>,
}

/// The puddles of the embedded pool in `dir`, as their metadata have them.
pub fn embedded_puddles(dir: &Path) -> Result<Vec<PuddleFile>, Error> {
    let entries = std::fs::read_dir(dir).map_err(|e| Error::io(dir, "reading the directory", e))?;
    let mut puddles = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|e| Error::io(dir, "reading the directory", e))?
            .path();
        if path.extension().is_none_or(|e| e != "puddle") {
            continue;
        }
        let meta = vernal_snapshot::meta_path(&path);
        let Ok(media) = FileMedia::open_read_only(&meta) else {
            // A puddle that is being made: nothing names it yet.
            continue;
        };
        let name = meta.display().to_string();
        let meta = MetaFile::load(media, &name).map_err(|e| Error::Puddle {
            pool: dir.display().to_string(),
            puddle: name,
            why: e.to_string(),
        })?;
        puddles.push(PuddleFile {
            addr: meta.meta().home_addr,
            size: meta.meta().slot_len,
            path,
        });
    }
    Ok(puddles)
}

impl DirectPool {
    /// Recovers what dead processes have left in the embedded pool in `dir`, and gives this process logs for it.
    /// Nothing is mapped yet.
    pub fn open_embedded(dir: &Path) -> Result<DirectPool, Error> {
        recover_dead(dir, &embedded_puddles)?;
        let at = dir.to_owned();
        let owner_died = move || recover_dead(&at, &embedded_puddles).map(drop);
        let alloc = AllocLock::open(dir, Box::new(owner_died))?;
        let number = PoolNumber::take()?;
        let mut process = lock(&PROCESS);
        let shared = match &mut *process {
            Some((Logs::Beside(logs), pools)) => logs.add_pool(dir).map(|()| *pools += 1),
            Some((Logs::Served(_), 1..)) => Err(mixed(&dir.display().to_string(), "of puddled")),
            none => DirLogs::create(dir).map(|logs| {
                let logs = Arc::new(logs);
                tx::attach(logs.clone());
                *none = Some((Logs::Beside(logs), 1));
            }),
        };
        Self::with_logs(shared, number, alloc)
    }

    /// A pool that puddled has opened for this process. puddled has recovered what dead processes left. Nothing is mapped yet.
    pub fn open_served(grant: DirectGrant, name: &str) -> Result<DirectPool, Error> {
        let alloc = Arc::new(ServedLock::new(&grant.lock, grant.token, name)?);
        let number = PoolNumber::take()?;
        let mut process = lock(&PROCESS);
        let same = |logs: &Arc<dyn LogSource>| {
            std::ptr::addr_eq(Arc::as_ptr(logs), Arc::as_ptr(&grant.logs))
        };
        let shared = match &mut *process {
            Some((Logs::Served(logs), pools)) if same(logs) => {
                *pools += 1;
                Ok(())
            }
            Some((Logs::Served(_), 1..)) => Err(mixed(name, "of another puddled")),
            Some((Logs::Beside(_), _)) => Err(mixed(name, "in directories of its own")),
            other => {
                tx::attach(Arc::clone(&grant.logs));
                *other = Some((Logs::Served(grant.logs), 1));
                Ok(())
            }
        };
        Self::with_logs(shared, number, alloc)
    }

    fn with_logs(
        shared: Result<(), Error>,
        number: PoolNumber,
        lock: Arc<dyn PoolLock>,
    ) -> Result<DirectPool, Error> {
        if let Err(e) = shared {
            number.give_back();
            return Err(e);
        }
        Ok(DirectPool {
            number,
            lock,
            mappings: Mutex::new(Vec::new()),
        })
    }

    /// Whether no other process had the pool open when this one opened it.
    pub fn was_alone(&self) -> bool {
        self.lock.was_alone()
    }

    /// Maps a puddle of the pool at its home address.
    pub fn map(&self, file: &File, name: &str, addr: u64, size: u64) -> Result<(), Error> {
        let mapping = DirectMapping::new(file, name, addr, size, self.number)?;
        lock(&self.mappings).push(mapping);
        Ok(())
    }

    /// Unmaps the puddle at `addr`. No transaction that has changed it is open.
    pub fn unmap(&self, addr: u64) {
        lock(&self.mappings).retain(|m| m.addr() != addr);
    }

    /// The pool as its heap sees it.
    pub fn memory(&self) -> DirectMemory {
        DirectMemory::new(self.number, Arc::clone(&self.lock))
    }

    /// Begins a transaction for one operation of the heap, or a level of the open one, and takes the allocator until the
    /// outermost one ends. `true` when what this process remembers of the heap is out of date. The caller ends the level
    /// with [`tx::commit`] or [`tx::abort`], also after an error of the operation.
    pub fn begin_heap(&self) -> Result<bool, Error> {
        tx::begin()?;
        tx::hold(&self.lock).inspect_err(|_| {
            let _ = tx::abort();
        })
    }
}

impl Drop for DirectPool {
    fn drop(&mut self) {
        lock(&self.mappings).clear();
        self.number.give_back();
        let mut process = lock(&PROCESS);
        let Some((logs, pools)) = &mut *process else {
            return;
        };
        *pools = pools.saturating_sub(1);
        if let (Logs::Beside(logs), 0) = (logs, *pools) {
            tx::detach();
            // What cannot be deleted holds nothing, and is swept when the pool is opened again.
            let _ = logs.close();
            *process = None;
        }
    }
}
