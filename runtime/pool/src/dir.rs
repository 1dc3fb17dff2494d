//! A pool's directory: its files, without mapping them.
//!
//! ```text
//! POOL/root.puddle             the root puddle; the pool exists when this does
//! POOL/<32 hex digits>.puddle  further puddles, named after their identity
//! POOL/*.puddle.vernal         metadata of each: identity, home address, clean or active
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use vernal_abi as abi;
use vernal_format::Uuid;
use vernal_format::puddle::PoolHead;
use vernal_heap::{DirectoryEntry, Heap, Mapped, OwnedMemory, PoolIdentity, PoolMemory};
use vernal_journal::{Meta, MetaState};
use vernal_snapshot::runtime::{OwnedPuddle, own_puddle};
use vernal_sys::{WordMap, WordMode, os, sync_parent_dir};

use crate::Error;

/// File name of the root puddle.
pub const ROOT: &str = "root.puddle";
const EXTENSION: &str = "puddle";

/// Home addresses that embedded pools take; puddled takes the others.
pub const EMBEDDED: (u64, u64) = (abi::TRACKED_BASE, abi::TRACKED_BASE + abi::TRACKED_SIZE / 2);
/// The same for pools that are changed in place.
pub const EMBEDDED_DIRECT: (u64, u64) = (abi::DIRECT_BASE, abi::DIRECT_BASE + abi::DIRECT_SIZE / 2);

/// 8 random bytes.
pub(crate) fn random() -> Result<u64, Error> {
    let bytes = os::random_uuid().map_err(|e| Error::io("getrandom", "reading", e))?;
    Ok(u64::from_le_bytes(
        bytes[..8].try_into().unwrap_or_default(),
    ))
}

pub(crate) fn random_uuid() -> Result<Uuid, Error> {
    os::random_uuid()
        .map(Uuid)
        .map_err(|e| Error::io("getrandom", "reading", e))
}

/// A free home address for an embedded puddle.
pub(crate) fn pick(size: u64) -> Result<u64, Error> {
    vernal_snapshot::pick_puddle(size, EMBEDDED.0, EMBEDDED.1, random()?).ok_or_else(|| {
        Error::invalid(format!(
            "there are no {size} bytes free in the address range of pools: close some"
        ))
    })
}

/// The same for a pool of either kind.
pub(crate) fn pick_for(direct: bool, size: u64) -> Result<u64, Error> {
    if direct {
        crate::direct::space::pick(size)
    } else {
        pick(size)
    }
}

/// A directory that holds a pool, every puddle recovered and locked.
#[derive(Debug)]
pub struct PoolDir {
    path: PathBuf,
    /// The root puddle first.
    puddles: Vec<OwnedPuddle>,
    replayed: u64,
}

/// What a pool's files say.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Who the pool is.
    pub identity: PoolIdentity,
    /// Its puddles, as the pool's directory has them.
    pub puddles: Vec<DirectoryEntry>,
    /// Files of puddles that the directory does not name: a crash left them, and the next writer deletes them.
    pub orphans: Vec<PathBuf>,
}

/// Where the puddle with this identity lies.
pub fn puddle_path(pool: &Path, uuid: Uuid) -> PathBuf {
    pool.join(format!("{uuid}.{EXTENSION}"))
}

fn meta_of(path: &Path) -> PathBuf {
    vernal_snapshot::meta_path(path)
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(path, "removing", e)),
        _ => Ok(()),
    }
}

/// The error of a puddle that cannot be used.
pub(crate) fn bad_puddle(pool: &Path, puddle: &Path, why: impl Into<String>) -> Error {
    Error::Puddle {
        pool: pool.display().to_string(),
        puddle: puddle.file_name().map_or_else(
            || puddle.display().to_string(),
            |n| n.to_string_lossy().into(),
        ),
        why: why.into(),
    }
}

/// Makes an empty puddle file of `size` zero bytes with its metadata. Durable except for its directory entry.
pub(crate) fn make_puddle(path: &Path, uuid: Uuid, addr: u64, size: u64) -> Result<File, Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|e| Error::io(path, "creating", e))?;
    let made = (|| {
        file.set_len(size)
            .map_err(|e| Error::io(path, "setting the length", e))?;
        file.sync_all()
            .map_err(|e| Error::io(path, "flushing", e))?;
        let meta = Meta {
            update: 0,
            file: uuid,
            home_addr: addr,
            slot_len: size,
            committed_len: size,
            state: MetaState::Clean,
        };
        Ok(vernal_snapshot::write_meta(path, meta)?)
    })();
    if let Err(e) = made {
        let _ = std::fs::remove_file(path);
        return Err(e);
    }
    Ok(file)
}

impl PoolDir {
    /// Makes an empty pool in the directory `path`, which may exist but holds no pool. A crash leaves no pool, or this one.
    pub fn create(path: &Path, identity: &PoolIdentity) -> Result<(), Error> {
        let addr = pick_for(identity.direct, abi::puddle::PUDDLE_MIN)?;
        Self::create_at(path, identity, random_uuid()?, addr)
    }

    /// As [`PoolDir::create`], with an identity and a home address for the root puddle.
    pub fn create_at(
        path: &Path,
        identity: &PoolIdentity,
        uuid: Uuid,
        addr: u64,
    ) -> Result<(), Error> {
        let size = abi::puddle::PUDDLE_MIN;
        std::fs::create_dir_all(path).map_err(|e| Error::io(path, "creating the directory", e))?;
        let root = path.join(ROOT);
        if root.exists() {
            return Err(Error::Exists {
                name: path.display().to_string(),
            });
        }
        let mut mem = OwnedMemory::new();
        mem.add_zeroed(addr, size);
        let mapped = Mapped { uuid, addr, size };
        Heap::format_root(&mem, mapped, identity).map_err(|source| Error::Heap {
            pool: path.display().to_string(),
            source,
        })?;
        // Everything under another name, then one rename: whoever finds the root puddle finds a pool. The metadata come
        // first, so that nobody makes others for it.
        let temp = path.join(format!("new-{uuid}.{EXTENSION}"));
        let file = make_puddle(&temp, uuid, addr, size)?;
        let io = |e| Error::io(&temp, "writing", e);
        for (base, words) in mem.areas() {
            for (i, page) in words.chunks(512).enumerate() {
                let bytes: Vec<u8> = page
                    .iter()
                    .flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes())
                    .collect();
                if bytes.iter().any(|b| *b != 0) {
                    file.write_all_at(&bytes, base - addr + i as u64 * 4096)
                        .map_err(io)?;
                }
            }
        }
        file.sync_all().map_err(io)?;
        // A pool that lost its root puddle, or one whose making was cut short, leaves metadata that belong to nothing.
        remove(&meta_of(&root))?;
        std::fs::rename(meta_of(&temp), meta_of(&root)).map_err(io)?;
        let linked = std::fs::hard_link(&temp, &root);
        remove(&temp)?;
        match linked {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists {
                    name: path.display().to_string(),
                });
            }
            other => other.map_err(|e| Error::io(&root, "creating", e))?,
        }
        sync_parent_dir(&root).map_err(|e| Error::io(path, "flushing the directory", e))?;
        sync_parent_dir(path).map_err(|e| Error::io(path, "flushing the parent of", e))
    }

    /// Takes the lock of every puddle and recovers those whose last writer died.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = path.canonicalize().map_err(|e| not_found(path, e))?;
        let root = path.join(ROOT);
        if !root.exists() {
            return Err(Error::NotFound {
                name: path.display().to_string(),
            });
        }
        let mut dir = PoolDir {
            path,
            puddles: Vec::new(),
            replayed: 0,
        };
        // The root puddle's lock is the pool's.
        dir.own(&root)?;
        for file in dir.files()? {
            if file != root {
                dir.own(&file)?;
            }
        }
        vernal_snapshot::sweep_journals(&root);
        Ok(dir)
    }

    fn own(&mut self, file: &Path) -> Result<(), Error> {
        let owned = own_puddle(file).map_err(|e| match e {
            vernal_snapshot::Error::Busy { holder, .. } => Error::Busy {
                name: self.path.display().to_string(),
                holder,
            },
            vernal_snapshot::Error::Format { why, .. } => bad_puddle(&self.path, file, why),
            other => other.into(),
        })?;
        match owned {
            Some((owned, replayed)) => {
                self.replayed = self.replayed.max(replayed);
                self.puddles.push(owned);
                Ok(())
            }
            // A puddle that is being made gets its file first: without metadata nothing can name it.
            None if file.file_name() != Some(ROOT.as_ref()) => Ok(()),
            None => Err(bad_puddle(
                &self.path,
                file,
                "has no metadata: restore the file beside it that ends in .vernal",
            )),
        }
    }

    fn files(&self) -> Result<Vec<PathBuf>, Error> {
        let entries = std::fs::read_dir(&self.path)
            .map_err(|e| Error::io(&self.path, "reading the directory", e))?;
        let mut files: Vec<PathBuf> = entries
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == EXTENSION))
            .collect();
        files.sort();
        Ok(files)
    }

    /// Where the pool is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Commits that opening it replayed.
    pub fn replayed(&self) -> u64 {
        self.replayed
    }

    /// The puddles, the root first.
    pub fn puddles(&self) -> &[OwnedPuddle] {
        &self.puddles
    }

    /// Gives the puddles to whoever maps them.
    pub fn into_puddles(self) -> Vec<OwnedPuddle> {
        self.puddles
    }

    /// What the pool's files say.
    pub fn summary(&self) -> Result<Summary, Error> {
        let heap_error = |source| Error::Heap {
            pool: self.path.display().to_string(),
            source,
        };
        let Some(root) = self.puddles.first() else {
            return Err(Error::NotFound {
                name: self.path.display().to_string(),
            });
        };
        let file = File::open(root.path()).map_err(|e| Error::io(root.path(), "opening", e))?;
        let map = WordMap::new(&file, WordMode::Private)
            .map_err(|e| Error::io(root.path(), "mapping", e))?;
        let mem = Words {
            base: root.addr(),
            map,
        };
        let mapped = Mapped {
            uuid: root.uuid(),
            addr: root.addr(),
            size: root.size(),
        };
        let puddles = Heap::read_directory(&mem, mapped).map_err(heap_error)?;
        let identity = read_identity(&mem, mapped)
            .ok_or_else(|| bad_puddle(&self.path, root.path(), "has no pool page: restore it"))?;
        let orphans = self
            .puddles
            .iter()
            .filter(|p| !puddles.iter().any(|e| e.uuid == p.uuid()))
            .map(|p| p.path().to_owned())
            .collect();
        Ok(Summary {
            identity,
            puddles,
            orphans,
        })
    }

    /// Gives every puddle the home address that `pick` finds for its size. Its pointers stay as they are: they are
    /// rewritten when the pool is opened.
    pub fn assign_addresses(
        &mut self,
        mut pick: impl FnMut(u64) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        for p in &mut self.puddles {
            let addr = pick(p.size())?;
            p.set_addr(addr)?;
        }
        Ok(())
    }

    /// Deletes the pool: the root puddle first, so that a crash leaves no half of one.
    pub fn delete(self) -> Result<(), Error> {
        let PoolDir { path, puddles, .. } = self;
        for p in &puddles {
            remove(p.path())?;
            if p.path().ends_with(ROOT) {
                sync_parent_dir(p.path()).map_err(|e| Error::io(&path, "flushing", e))?;
            }
            remove(&meta_of(p.path()))?;
        }
        drop(puddles);
        match std::fs::remove_dir(&path) {
            // Files of others are theirs.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other.map_err(|e| Error::io(&path, "removing", e)),
        }
    }
}

pub(crate) fn not_found(path: &Path, e: io::Error) -> Error {
    if e.kind() == io::ErrorKind::NotFound {
        Error::NotFound {
            name: path.display().to_string(),
        }
    } else {
        Error::io(path, "resolving", e)
    }
}

/// The identity on the pool page: the first page behind the chunk headers.
pub(crate) fn read_identity<M: PoolMemory>(mem: &M, root: Mapped) -> Option<PoolIdentity> {
    let chunks = root.size / abi::puddle::CHUNK_SIZE;
    let page = root.addr + chunks * abi::puddle::CHUNK_HEADER;
    let words = mem.words(page, PoolHead::WORDS)?;
    let mut head = [0; PoolHead::WORDS];
    for (to, from) in head.iter_mut().zip(words) {
        *to = from.load(Ordering::Relaxed);
    }
    let head = PoolHead::parse(&head).ok()?;
    Some(PoolIdentity {
        uuid: head.uuid,
        label: head.label,
        direct: head.direct,
    })
}

/// One puddle file as pool memory.
struct Words {
    base: u64,
    map: WordMap,
}

impl PoolMemory for Words {
    fn words(&self, addr: u64, count: usize) -> Option<&[std::sync::atomic::AtomicU64]> {
        let at = usize::try_from(addr.checked_sub(self.base)? / 8).ok()?;
        self.map.words().get(at..at.checked_add(count)?)
    }

    fn before_write(&self, addr: u64, len: u64) -> Result<(), vernal_heap::HeapError> {
        Err(vernal_heap::HeapError::Refused {
            addr,
            len,
            why: "the file is open for reading".into(),
        })
    }

    fn after_write(&self, _addr: u64, _len: u64) {}
}
