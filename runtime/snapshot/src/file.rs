//! One opted-in file: its metadata, its lock, its home address, and its recovery.

use crate::config;
use crate::error::Error;
use crate::inject::{self, Site};
use crate::space::{self, Slot};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use vernal_journal::{
    JournalReader, Meta, MetaFile, MetaState, Recovered, RecoveryError, RecoveryReport,
    Unrecovered, Uuid, recover_home,
};
use vernal_sys::{FileMedia, os, sync_parent_dir};

/// `F.vernal`, the metadata of file F.
pub fn meta_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".vernal");
    PathBuf::from(name)
}

/// The journal of a process whose first mapped file is `path`.
pub fn journal_path(path: &Path, journal: Uuid) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".vernal-journal-{:016x}", journal.short()));
    PathBuf::from(name)
}

/// An opted-in file that this process owns, recovered.
#[derive(Debug)]
pub struct Owned {
    /// Absolute path.
    pub path: PathBuf,
    /// The metadata, on a file whose lock this process holds.
    pub meta: MetaFile<FileMedia, Recovered>,
    /// The metadata file was made by this process, and its directory entry is not durable yet.
    pub fresh: bool,
    /// The lock is on this descriptor.
    lock: File,
}

fn new_uuid(path: &Path) -> Result<Uuid, Error> {
    os::random_uuid()
        .map(Uuid)
        .map_err(|e| Error::io(path, "reading random bytes for an identity", e))
}

/// A new identity.
pub fn fresh_uuid(path: &Path) -> Result<Uuid, Error> {
    new_uuid(path)
}

fn format_error(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Format {
        path: path.display().to_string(),
        why: why.to_string(),
    }
}

/// Makes the metadata of a file that has none, under another name first, so that a crash leaves either none or all.
fn create_meta(path: &Path, len: u64) -> Result<(), Error> {
    let slot = space::slot_len_for(len).ok_or_else(|| Error::TooLarge {
        path: path.display().to_string(),
        len,
        what: "1 TiB",
    })?;
    let file = new_uuid(path)?;
    let random = u64::from_le_bytes(new_uuid(path)?.0[..8].try_into().expect("8 of 16 bytes"));
    let home_addr = space::pick(slot, random).ok_or_else(|| Error::TooLarge {
        path: path.display().to_string(),
        len,
        what: "what is free of it",
    })?;
    let meta = Meta {
        update: 0,
        file,
        home_addr,
        slot_len: slot,
        committed_len: len,
        state: MetaState::Clean,
    };
    write_meta(path, meta)
}

/// Makes these metadata for `path`, which has none.
pub fn write_meta(path: &Path, meta: Meta) -> Result<(), Error> {
    let target = meta_path(path);
    let mut temp = target.as_os_str().to_owned();
    temp.push(format!("-new-{}", std::process::id()));
    let temp = PathBuf::from(temp);
    let _ = std::fs::remove_file(&temp);
    let like = std::fs::metadata(path).map_err(|e| Error::io(path, "looking at", e))?;
    let media = FileMedia::create_new(&temp, &like)
        .map_err(|e| Error::io(&temp, "creating the metadata file", e))?;
    let made = MetaFile::create(media, target.display().to_string(), meta)
        .map_err(|e| format_error(&target, e));
    let linked = made.and_then(|_| match std::fs::hard_link(&temp, &target) {
        // Another process was first: its metadata count.
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::io(&target, "creating the metadata file", e))
        }
        _ => Ok(()),
    });
    let _ = std::fs::remove_file(&temp);
    linked
}

/// Opens the metadata of `path` (making them when `len_if_new` is given and there are none), takes the lock, and recovers
/// the file if its last owner died. `Ok(None)`: there are no metadata.
pub fn own(
    path: &Path,
    len_if_new: Option<u64>,
) -> Result<Option<(Owned, Option<RecoveryReport>)>, Error> {
    let target = meta_path(path);
    let mut fresh = false;
    let file = match OpenOptions::new().read(true).write(true).open(&target) {
        Ok(f) => f,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let Some(len) = len_if_new else {
                return Ok(None);
            };
            inject::point(Site::Meta);
            create_meta(path, len)?;
            fresh = true;
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(&target)
                .map_err(|e| Error::io(&target, "opening", e))?
        }
        Err(e) => return Err(Error::io(&target, "opening the metadata file", e)),
    };
    if !os::try_lock(&file).map_err(|e| Error::io(&target, "locking", e))? {
        let holder = os::lock_holder(&file).map_or_else(
            || "another process".to_owned(),
            |pid| format!("process {pid}"),
        );
        return Err(Error::Busy {
            path: path.display().to_string(),
            holder,
        });
    }
    let lock = file
        .try_clone()
        .map_err(|e| Error::io(&target, "duplicating the descriptor", e))?;
    let media = FileMedia::from_file(file).map_err(|e| Error::io(&target, "reading", e))?;
    let meta =
        MetaFile::load(media, target.display().to_string()).map_err(|e| format_error(path, e))?;
    let (meta, report) = recover(path, meta)?;
    Ok(Some((
        Owned {
            path: path.to_owned(),
            meta,
            fresh,
            lock,
        },
        report,
    )))
}

/// Recovers `path`, whose lock the caller holds, when its metadata say that a journal may hold more.
fn recover(
    path: &Path,
    meta: MetaFile<FileMedia, Unrecovered>,
) -> Result<(MetaFile<FileMedia, Recovered>, Option<RecoveryReport>), Error> {
    let fail = |e: &dyn std::fmt::Display| format_error(path, e);
    let needed = meta
        .needed_journal()
        .map(|(id, p)| (id, PathBuf::from(std::ffi::OsString::from_vec(p.to_vec()))));
    let journal_path = needed.as_ref().map(|(_, p)| resolve_journal(path, p));
    inject::point(Site::Recover);
    let journal = match &journal_path {
        None => None,
        Some(p) => match FileMedia::open(p) {
            Ok(m) => Some((m, p.display().to_string())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::io(p, "opening the journal", e)),
        },
    };
    let reader = match journal {
        None => None,
        Some((media, name)) => Some(JournalReader::open(media, name).map_err(|e| fail(&e))?),
    };
    let mut home = FileMedia::open(path).map_err(|e| Error::io(path, "opening for recovery", e))?;
    let (meta, report) = recover_home(meta, reader.as_ref(), &mut home).map_err(|e| fail(&e))?;
    inject::point(Site::RecoverApplied);
    if let Some(journal) = journal_path {
        remove_if_orphan(&journal);
    }
    Ok((meta, Some(report).filter(|_| needed.is_some())))
}

/// A journal is looked for where the metadata say, then beside the file (they may have been moved together).
pub fn resolve_journal(path: &Path, named: &Path) -> PathBuf {
    if named.exists() {
        return named.to_owned();
    }
    match (path.parent(), named.file_name()) {
        (Some(dir), Some(name)) if dir.join(name).exists() => dir.join(name),
        _ => named.to_owned(),
    }
}

/// Removes a journal that no member's metadata names any more. Members that cannot be looked at keep it, and so do those that
/// lie beside it and not where they were: files that were moved or copied together before they were recovered still need it.
pub fn remove_if_orphan(journal: &Path) {
    let Ok(media) = FileMedia::open_read_only(journal) else {
        return;
    };
    let Ok(reader) = JournalReader::open(media, journal.display().to_string()) else {
        return;
    };
    let named = |p: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(p));
    let beside = |p: &[u8]| journal.with_file_name(named(p).file_name().unwrap_or_default());
    let look = |path: PathBuf| match FileMedia::open_read_only(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        // Whatever cannot be read keeps the journal.
        Err(source) => Err(RecoveryError::Io {
            name: journal.display().to_string(),
            op: "reading a member's metadata of",
            source,
        }),
        Ok(media) => {
            MetaFile::load(media, journal.display().to_string()).map(|m| Some(m.meta().clone()))
        }
    };
    let nobody = reader.is_deletable(|p| look(named(p))).is_ok_and(|yes| yes)
        && reader
            .is_deletable(|p| look(beside(p)))
            .is_ok_and(|yes| yes);
    if nobody && std::fs::remove_file(journal).is_ok() {
        let _ = sync_parent_dir(journal);
    }
}

/// Removes journals beside `path` that a killed process has left and nobody needs: it died after it had made its journal
/// and before it used it, or after it had emptied it and before it removed it. Call with the lock of `path` held: only its
/// holder makes journals of that name, and a journal that lives on for other files is locked by its process.
pub fn sweep_journals(path: &Path) {
    let Some((dir, name)) = path.parent().zip(path.file_name()) else {
        return;
    };
    let mut prefix = name.to_owned();
    prefix.push(".vernal-journal-");
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().as_bytes().starts_with(prefix.as_bytes()) {
            continue;
        }
        let at = entry.path();
        let Ok(file) = File::open(&at) else { continue };
        if !os::try_lock(&file).unwrap_or(false) {
            continue;
        }
        if is_blank(&file) {
            let _ = std::fs::remove_file(&at);
        } else {
            remove_if_orphan(&at);
        }
    }
}

/// Whether a journal never got its superblock.
fn is_blank(file: &File) -> bool {
    use std::io::Read;
    let mut head = Vec::new();
    let superblocks = vernal_journal::SUPERBLOCKS_LEN;
    file.take(superblocks).read_to_end(&mut head).is_ok() && head.iter().all(|&b| b == 0)
}

impl Owned {
    /// The slot of the tracked range that this file wants.
    pub fn claim_slot(&self) -> Result<Slot, Error> {
        let m = self.meta.meta();
        Slot::claim(m.home_addr, m.slot_len, &self.path.display().to_string())
    }

    /// In a forked child: gives up the child's copy of the lock without releasing the parent's.
    pub fn forget_lock(self) {
        drop(self.lock);
    }
}

/// Recovers `path` if its last owner died; what `vernal recover` and an interposed `open` do.
pub fn recover_path(path: &Path) -> Result<Option<RecoveryReport>, Error> {
    inject::init();
    let _ = config::get();
    match own(path, None)? {
        None => Ok(None),
        Some((_, report)) => Ok(report),
    }
}
