//! The source of embedded pools: a directory of puddles that this process owns.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use vernal_format::Uuid;
use vernal_heap::PoolIdentity;
use vernal_journal::{MetaFile, MetaState};
use vernal_snapshot::runtime::OwnedPuddle;
use vernal_sys::service::{Hold, try_lock_as};
use vernal_sys::{FileMedia, os};

use crate::Error;
use crate::dir::{self, PoolDir, bad_puddle, make_puddle, pick, puddle_path, random_uuid};
use crate::source::{GrantedPuddle, JournalGrant, PoolInfo, PoolSource};

#[derive(Debug)]
struct Known {
    path: PathBuf,
    /// Until the mapping takes it. Never there for readers.
    owned: Option<OwnedPuddle>,
    addr: u64,
    size: u64,
}

/// An embedded pool.
#[derive(Debug)]
pub struct DirSource {
    path: PathBuf,
    read_only: bool,
    direct: bool,
    known: Mutex<HashMap<Uuid, Known>>,
    root: Uuid,
    /// Readers: the shared lock on the root puddle's metadata.
    _shared: Option<File>,
}

impl DirSource {
    /// Opens the pool in `path` for writing; with `create` makes it when there is none.
    pub fn open(path: &Path, create: Option<bool>, exclusive: bool) -> Result<Self, Error> {
        if exclusive && path.join(dir::ROOT).exists() {
            return Err(Error::Exists {
                name: path.display().to_string(),
            });
        }
        if let Some(direct) = create
            && !path.join(dir::ROOT).exists()
        {
            let label = path
                .file_name()
                .map(|n| n.to_string_lossy().chars().take(15).collect())
                .unwrap_or_default();
            let identity = PoolIdentity {
                uuid: random_uuid()?,
                label,
                direct,
            };
            match PoolDir::create(path, &identity) {
                // Another process was first.
                Err(Error::Exists { .. }) if !exclusive => {}
                other => other?,
            }
        }
        let dir = PoolDir::open(path)?;
        let direct = dir.summary()?.identity.direct;
        let path = dir.path().to_owned();
        let puddles = dir.into_puddles();
        let root = puddles.first().map(OwnedPuddle::uuid).unwrap_or_default();
        let mut known = HashMap::new();
        for owned in puddles {
            let entry = Known {
                path: owned.path().to_owned(),
                addr: owned.addr(),
                size: owned.size(),
                owned: Some(owned),
            };
            let (uuid, path) = match &entry.owned {
                Some(o) => (o.uuid(), entry.path.clone()),
                None => continue,
            };
            if known.insert(uuid, entry).is_some() {
                return Err(bad_puddle(
                    &path,
                    &path,
                    "has the identity of another puddle: it is a copy; remove it, or copy pools with `vernal pool clone`",
                ));
            }
        }
        Ok(DirSource {
            path,
            read_only: false,
            direct,
            known: Mutex::new(known),
            root,
            _shared: None,
        })
    }

    /// Opens the pool in `path` for reading: a committed image, which no writer changes meanwhile.
    pub fn open_read_only(path: &Path) -> Result<Self, Error> {
        let path = path.canonicalize().map_err(|e| dir::not_found(path, e))?;
        let root_path = path.join(dir::ROOT);
        let meta_path = vernal_snapshot::meta_path(&root_path);
        // Twice: the second time it is recovered, unless a writer came between.
        for last in [false, true] {
            let lock = File::open(&meta_path).map_err(|e| dir::not_found(&path, e))?;
            if !try_lock_as(&lock, Hold::Shared).map_err(|e| Error::io(&meta_path, "locking", e))? {
                return Err(Error::Busy {
                    name: path.display().to_string(),
                    holder: os::lock_holder(&lock).map_or_else(
                        || "another process".to_owned(),
                        |pid| format!("process {pid}"),
                    ),
                });
            }
            let mut known = HashMap::new();
            let mut root = Uuid::NIL;
            let mut dirty = false;
            let entries = std::fs::read_dir(&path)
                .map_err(|e| Error::io(&path, "reading the directory", e))?;
            for file in entries.flatten().map(|e| e.path()) {
                if file.extension().is_none_or(|e| e != "puddle") {
                    continue;
                }
                let at = vernal_snapshot::meta_path(&file);
                let Ok(media) = FileMedia::open_read_only(&at) else {
                    continue;
                };
                let meta = MetaFile::load(media, at.display().to_string())
                    .map_err(|e| bad_puddle(&path, &file, e.to_string()))?;
                let m = meta.meta();
                dirty |= !matches!(m.state, MetaState::Clean);
                if file == root_path {
                    root = m.file;
                }
                known.insert(
                    m.file,
                    Known {
                        path: file,
                        owned: None,
                        addr: m.home_addr,
                        size: m.slot_len,
                    },
                );
            }
            if dirty && !last {
                // A reader that may write recovers; one that may not says who can.
                drop(lock);
                drop(PoolDir::open(&path).map_err(|e| match e {
                    Error::Snapshot(vernal_snapshot::Error::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::PermissionDenied =>
                    {
                        Error::Access {
                            what: format!(
                                "pool {} was left by a writer that died, and recovering it needs the right to write: run \
                                 `vernal recover` as its owner",
                                path.display()
                            ),
                        }
                    }
                    other => other,
                })?);
                continue;
            }
            if dirty {
                break;
            }
            let source = DirSource {
                path,
                read_only: true,
                direct: false,
                known: Mutex::new(known),
                root,
                _shared: Some(lock),
            };
            return Ok(source);
        }
        Err(Error::Busy {
            name: path.display().to_string(),
            holder: "a writer that has just died".to_owned(),
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Uuid, Known>> {
        self.known.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn grant(&self, uuid: Uuid, k: &Known) -> Result<GrantedPuddle, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(!self.read_only)
            .open(&k.path)
            .map_err(|e| Error::io(&k.path, "opening", e))?;
        Ok(GrantedPuddle {
            uuid,
            addr: k.addr,
            size: k.size,
            file,
            name: k.path.display().to_string(),
        })
    }
}

impl PoolSource for DirSource {
    fn describe(&self) -> PoolInfo {
        PoolInfo {
            name: self.path.display().to_string(),
            direct: self.direct,
            read_only: self.read_only,
        }
    }

    fn puddles(&self) -> Result<Vec<GrantedPuddle>, Error> {
        let known = self.known();
        let mut all = Vec::with_capacity(known.len());
        if let Some(root) = known.get(&self.root) {
            all.push(self.grant(self.root, root)?);
        }
        for (uuid, k) in known.iter().filter(|(u, _)| **u != self.root) {
            all.push(self.grant(*uuid, k)?);
        }
        Ok(all)
    }

    fn take_owner(&self, puddle: Uuid) -> Option<OwnedPuddle> {
        self.known().get_mut(&puddle)?.owned.take()
    }

    fn readdress(&self, puddle: Uuid) -> Result<Option<u64>, Error> {
        let mut known = self.known();
        let Some(k) = known.get_mut(&puddle) else {
            return Ok(None);
        };
        let addr = pick(k.size)?;
        if let Some(owned) = &mut k.owned {
            owned.set_addr(addr)?;
        }
        k.addr = addr;
        Ok(Some(addr))
    }

    fn sweep(&self, named: &[Uuid]) -> Result<(), Error> {
        let mut known = self.known();
        let gone: Vec<Uuid> = known
            .keys()
            .filter(|u| !named.contains(u))
            .copied()
            .collect();
        for uuid in gone {
            if let Some(k) = known.remove(&uuid) {
                delete(&k.path)?;
            }
        }
        let entries = std::fs::read_dir(&self.path)
            .map_err(|e| Error::io(&self.path, "reading the directory", e))?;
        for path in entries.flatten().map(|e| e.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Files that were being made: no metadata, or another name still.
            let unborn = name.ends_with(".puddle") && !vernal_snapshot::meta_path(&path).exists();
            let lone = name
                .strip_suffix(".vernal")
                .is_some_and(|f| f.ends_with(".puddle") && !path.with_file_name(f).exists());
            if unborn || lone || (name.starts_with("new-") && name.contains(".puddle")) {
                let _ = std::fs::remove_file(&path);
            }
        }
        Ok(())
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn puddle_name(&self, puddle: Uuid) -> String {
        match self.known().get(&puddle) {
            Some(k) => k.path.display().to_string(),
            None => puddle_path(&self.path, puddle).display().to_string(),
        }
    }

    fn grow(&self, size: u64) -> Result<GrantedPuddle, Error> {
        let uuid = random_uuid()?;
        let addr = dir::pick_for(self.direct, size)?;
        let path = puddle_path(&self.path, uuid);
        make_puddle(&path, uuid, addr, size)?;
        let Some((owned, _)) = vernal_snapshot::runtime::own_puddle(&path)? else {
            return Err(bad_puddle(
                &self.path,
                &path,
                "was taken away while it was made",
            ));
        };
        let k = Known {
            path,
            owned: Some(owned),
            addr,
            size,
        };
        let granted = self.grant(uuid, &k)?;
        self.known().insert(uuid, k);
        Ok(granted)
    }

    fn shrink(&self, puddle: Uuid) -> Result<(), Error> {
        match self.known().remove(&puddle) {
            Some(k) => delete(&k.path),
            None => Ok(()),
        }
    }

    fn journal(&self) -> Result<Option<JournalGrant>, Error> {
        Ok(None)
    }

    fn added(&self, puddle: Uuid) -> Result<GrantedPuddle, Error> {
        let path = puddle_path(&self.path, puddle);
        let at = vernal_snapshot::meta_path(&path);
        let media = FileMedia::open_read_only(&at)
            .map_err(|e| Error::io(&at, "reading the metadata", e))?;
        let meta = MetaFile::load(media, at.display().to_string())
            .map_err(|e| bad_puddle(&self.path, &path, e.to_string()))?;
        let k = Known {
            path,
            owned: None,
            addr: meta.meta().home_addr,
            size: meta.meta().slot_len,
        };
        let granted = self.grant(puddle, &k)?;
        self.known().insert(puddle, k);
        Ok(granted)
    }

    fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// The file before its metadata: what has metadata and no file is swept.
fn delete(path: &Path) -> Result<(), Error> {
    for p in [path.to_owned(), vernal_snapshot::meta_path(path)] {
        match std::fs::remove_file(&p) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(&p, "removing", e));
            }
            _ => {}
        }
    }
    Ok(())
}
