//! Log space and log files beside an embedded pool, and the recovery of those whose process is dead.
//!
//! ```text
//! root.puddle.vernal-logspace-<16 hex>  two slots, then the pools that its logs name, at the offsets of a journal's members
//! root.puddle.vernal-log-<16 hex>       a log file
//! root.puddle.vernal-loglink-<16 hex>   in each further pool of the process: where the log space is
//! ```
//!
//! The owner of a log space holds a lock on it as long as it lives; whoever recovers holds another one meanwhile, so that
//! everybody who opens the pool waits for recovery to end.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use vernal_format::{
    LOG_SPACE_LEN, LogHeader, LogRef, MAX_MEMBERS, MEMBER_PATH_LEN, MEMBER_PATH_MAX, MemberPath,
    Uuid,
};
use vernal_journal::direct::{
    DirectError, LogOutcome, LogReport, LogSpaceFile, Place, create_log_file, recover_space,
};
use vernal_sys::{MappedMedia, Media, create_like, os, reserve_space, sync_parent_dir};

use super::tx::LogSource;
use crate::Error;

const SPACE: &str = "vernal-logspace-";
const LOG: &str = "vernal-log-";
/// A log space that is being made.
const NEW: &str = "vernal-new-";
const LINK: &str = "vernal-loglink-";
/// First part of every name: what lies beside the root puddle.
const STEM: &str = "root.puddle";

fn beside(dir: &Path, what: &str, uuid: Uuid) -> PathBuf {
    dir.join(format!("{STEM}.{what}{:016x}", uuid.short()))
}

/// A file changed by system calls, for what is not on any hot path.
#[derive(Debug)]
pub struct SyncedFile {
    file: File,
    flushes: u64,
}

impl SyncedFile {
    /// The medium that is this file.
    pub fn new(file: File) -> SyncedFile {
        SyncedFile { file, flushes: 0 }
    }
}

impl Media for SyncedFile {
    fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.len())
    }
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn atom(&self) -> usize {
        8
    }
    fn write_unit(&self) -> usize {
        64
    }
    fn read(&self, off: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, off)
    }
    fn write(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, off)
    }
    fn persist(&mut self) -> io::Result<()> {
        self.flushes += 1;
        self.file.sync_all()
    }
    fn write_durable(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        self.write(off, data)?;
        self.persist()
    }
    fn flushes(&self) -> u64 {
        self.flushes
    }
}

/// The log space of this process and its log files, beside the first embedded direct pool that it has opened.
#[derive(Debug)]
pub struct DirLogs {
    dir: PathBuf,
    path: PathBuf,
    uuid: Uuid,
    /// Kept open for its lock.
    file: File,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    space: LogSpaceFile<SyncedFile>,
    members: Vec<PathBuf>,
}

impl DirLogs {
    /// Makes a log space in the directory of a pool.
    pub fn create(dir: &Path) -> Result<DirLogs, Error> {
        let uuid = os::random_uuid()
            .map(Uuid)
            .map_err(|e| Error::io(dir, "making an identity", e))?;
        let path = beside(dir, SPACE, uuid);
        let new = beside(dir, NEW, uuid);
        let fail = |what| {
            let path = path.clone();
            move |e| Error::io(path, what, e)
        };
        let like = fs::metadata(dir.join(STEM)).or_else(|_| fs::metadata(dir));
        let like = like.map_err(fail("reading whose it is"))?;
        let file = create_like(&new, &like).map_err(fail("creating"))?;
        let made = || -> Result<DirLogs, Error> {
            let duplicate = || file.try_clone().map_err(fail("opening"));
            // The owner has the lock before anybody can see the file under its name.
            if !os::try_lock(&file).map_err(fail("locking"))? {
                return Err(Error::invalid(format!(
                    "{} is locked by another process",
                    new.display()
                )));
            }
            let mut media = SyncedFile::new(duplicate()?);
            media
                .set_len(LOG_SPACE_LEN + (MAX_MEMBERS * MEMBER_PATH_LEN) as u64)
                .map_err(fail("setting its length"))?;
            let space = LogSpaceFile::create(media, uuid)?;
            let logs = DirLogs {
                dir: dir.to_owned(),
                path: path.clone(),
                uuid,
                file: duplicate()?,
                inner: Mutex::new(Inner {
                    space,
                    members: Vec::new(),
                }),
            };
            logs.add_pool(dir)?;
            fs::rename(&new, &path).map_err(fail("naming"))?;
            sync_parent_dir(&path).map_err(fail("naming"))?;
            Ok(logs)
        };
        made().inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }

    /// Where the log space is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says durably that logs of this process may name places of the pool in `dir`. Before the first transaction on it.
    pub fn add_pool(&self, dir: &Path) -> Result<(), Error> {
        let whole = fs::canonicalize(dir).map_err(|e| Error::io(dir, "finding", e))?;
        let bytes = whole.as_os_str().as_bytes();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.members.contains(&whole) {
            return Ok(());
        }
        if inner.members.len() >= MAX_MEMBERS || bytes.len() > MEMBER_PATH_MAX {
            return Err(Error::invalid(format!(
                "{}: a process has at most {MAX_MEMBERS} direct pools open, with paths of at most {MEMBER_PATH_MAX} bytes",
                whole.display()
            )));
        }
        let member = MemberPath {
            file: self.uuid,
            path: bytes.to_vec(),
        };
        self.file
            .write_all_at(&member.encode(), MemberPath::offset(inner.members.len()))
            .and_then(|()| self.file.sync_all())
            .map_err(|e| Error::io(&self.path, "naming a pool", e))?;
        if dir != self.dir {
            let link = beside(dir, LINK, self.uuid);
            let to = MemberPath {
                file: self.uuid,
                path: self.path.as_os_str().as_bytes().to_vec(),
            };
            fs::write(&link, to.encode())
                .and_then(|()| File::open(&link)?.sync_all())
                .and_then(|()| sync_parent_dir(&link))
                .map_err(|e| Error::io(&link, "writing", e))?;
        }
        inner.members.push(whole);
        Ok(())
    }

    /// Deletes the log space and its files. No transaction may be open in any thread, and none may begin.
    pub fn close(&self) -> Result<(), Error> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let members = inner.members.clone();
        let files = &inner.space.space().files;
        delete_space(&self.path, self.uuid, files, members)
    }
}

/// The space goes first: log files that no space names are nobody's, and not the other way round.
fn delete_space(
    path: &Path,
    uuid: Uuid,
    files: &[LogRef],
    members: Vec<PathBuf>,
) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::remove_file(path)
        .and_then(|()| sync_parent_dir(path))
        .map_err(|e| Error::io(path, "removing", e))?;
    for file in files {
        let _ = fs::remove_file(beside(dir, LOG, file.file));
    }
    for member in members {
        let _ = fs::remove_file(beside(&member, LINK, uuid));
    }
    Ok(())
}

impl LogSource for DirLogs {
    fn create(
        &self,
        log: Option<Uuid>,
        position: u32,
        len: u64,
    ) -> io::Result<(MappedMedia, LogHeader)> {
        let uuid = os::random_uuid().map(Uuid)?;
        let path = beside(&self.dir, LOG, uuid);
        let file = create_like(&path, &self.file.metadata()?)?;
        let made = || {
            // Who sweeps files that no space names leaves locked ones alone.
            if !os::try_lock(&file)? || file.metadata()?.nlink() == 0 {
                return Err(io::Error::other("a log file was swept while it was made"));
            }
            file.set_len(len)?;
            // A store to a page without a block behind it would end in SIGBUS.
            reserve_space(&file, 0, len)?;
            let header = LogHeader {
                file: uuid,
                log: log.unwrap_or(uuid),
                space: self.uuid,
                position,
                len,
            };
            let mut media = MappedMedia::new(file)?;
            create_log_file(&mut media, &header, 1)?;
            sync_parent_dir(&path)?;
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner
                .space
                .add(LogRef {
                    file: uuid,
                    log: header.log,
                    position,
                    len,
                })
                .map_err(io::Error::other)?;
            Ok((media, header))
        };
        made().inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })
    }
}

/// A puddle of a pool, as recovery changes it.
#[derive(Debug, Clone)]
pub struct PuddleFile {
    /// Its home address.
    pub addr: u64,
    /// Its bytes.
    pub size: u64,
    /// The file.
    pub path: PathBuf,
}

/// A dead process' log space.
#[derive(Debug)]
pub struct RecoveredSpace {
    /// Where it was.
    pub path: PathBuf,
    /// What was done with each log.
    pub logs: Vec<LogReport>,
}

/// Undoes or redoes what dead processes have left in the pool in `dir`, and deletes their logs. Waits for another process
/// that is doing so. `puddles_of` names the puddles of a pool's directory that its owner could write.
///
/// An error when a log is quarantined: the pool must not be opened then, and its logs are kept.
pub fn recover_dead(
    dir: &Path,
    puddles_of: &dyn Fn(&Path) -> Result<Vec<PuddleFile>, Error>,
) -> Result<Vec<RecoveredSpace>, Error> {
    let fail = |e| Error::io(dir, "reading the directory", e);
    let mut spaces = Vec::new();
    let mut logs = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let Some((STEM, what)) = name.split_at_checked(STEM.len()) else {
            continue;
        };
        if what.starts_with(&format!(".{SPACE}")) {
            spaces.push(path);
        } else if what.starts_with(&format!(".{LOG}")) || what.starts_with(&format!(".{NEW}")) {
            logs.push(path);
        } else if what.starts_with(&format!(".{LINK}")) {
            match read_link(&path) {
                Some(to) if to.exists() => spaces.push(to),
                // Recovered from another of its pools, or never finished.
                _ => drop(fs::remove_file(&path)),
            }
        }
    }
    let mut recovered = Vec::new();
    let mut named = HashSet::new();
    for path in spaces {
        if let Some(space) = recover_one(&path, puddles_of, &mut named)? {
            recovered.push(space);
        }
    }
    for path in logs.into_iter().filter(|path| !named.contains(path)) {
        // No space names it, and nobody holds it: the process died before it was used, or after its space was deleted.
        if let Ok(file) = File::open(&path)
            && matches!(os::try_lock(&file), Ok(true))
        {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(recovered)
}

fn read_link(path: &Path) -> Option<PathBuf> {
    let bytes = fs::read(path).ok()?;
    let link = MemberPath::decode(bytes.as_slice().try_into().ok()?)?;
    Some(PathBuf::from(OsStr::from_bytes(&link.path)))
}

fn recover_one(
    path: &Path,
    puddles_of: &dyn Fn(&Path) -> Result<Vec<PuddleFile>, Error>,
    named: &mut HashSet<PathBuf>,
) -> Result<Option<RecoveredSpace>, Error> {
    let fail = |what| move |e| Error::io(path, what, e);
    let open = OpenOptions::new().read(true).write(true).open(path);
    let file = match open {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(fail("opening"))?,
    };
    wait_for_recovery(&file).map_err(fail("waiting for recovery"))?;
    if file.metadata().map_err(fail("reading"))?.nlink() == 0 {
        return Ok(None);
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    let duplicate = file.try_clone().map_err(fail("opening"))?;
    let name = path.display().to_string();
    let alive = !os::try_lock(&file).map_err(fail("locking"))?;
    let loaded = LogSpaceFile::load(SyncedFile::new(duplicate), &name);
    if let Ok(space) = &loaded {
        let files = space.space().files.iter();
        named.extend(files.map(|f| beside(dir, LOG, f.file)));
    }
    if alive {
        return Ok(None);
    }
    let space = loaded.map_err(|e| quarantined(&name, e.to_string()))?;
    let mut puddles = Vec::new();
    let mut members = Vec::new();
    for index in 0..MAX_MEMBERS {
        let mut bytes = [0; MEMBER_PATH_LEN];
        if file
            .read_exact_at(&mut bytes, MemberPath::offset(index))
            .is_err()
        {
            break;
        }
        if let Some(member) = MemberPath::decode(&bytes) {
            // The first is the pool beside which the logs lie. It is meant here and now: the directory may have been moved, or
            // copied while another process still uses the original.
            let dir = match index {
                0 => dir.to_owned(),
                _ => PathBuf::from(OsStr::from_bytes(&member.path)),
            };
            // A pool that is gone needs no recovery; entries that name it quarantine their log.
            if dir.exists() {
                puddles.extend(puddles_of(&dir)?);
            }
            members.push(dir);
        }
    }
    let mut targets = Vec::new();
    for puddle in &puddles {
        let file = OpenOptions::new().read(true).write(true).open(&puddle.path);
        let file = file.map_err(|e| Error::io(&puddle.path, "opening for recovery", e))?;
        targets.push(SyncedFile::new(file));
    }
    let locate = |addr: u64, len: u64| locate(&puddles, addr, len);
    let open = |log: &LogRef| {
        let log = beside(dir, LOG, log.file);
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(log)
            .map(SyncedFile::new)
    };
    let logs = recover_space(space.space(), open, &locate, &mut targets)
        .map_err(|e: DirectError| Error::invalid(format!("{name}: {e}")))?;
    for report in &logs {
        if let LogOutcome::Quarantined(why) = &report.outcome {
            return Err(quarantined(&name, format!("log {}: {why}", report.log)));
        }
    }
    delete_space(path, space.space().uuid, &space.space().files, members)?;
    Ok(Some(RecoveredSpace {
        path: path.to_owned(),
        logs,
    }))
}

fn quarantined(name: &str, why: String) -> Error {
    Error::Quarantined {
        name: name.to_owned(),
        why,
    }
}

/// Which puddle `len` bytes at `addr` lie in.
fn locate(puddles: &[PuddleFile], addr: u64, len: u64) -> Option<Place> {
    puddles.iter().enumerate().find_map(|(target, puddle)| {
        let offset = addr.checked_sub(puddle.addr)?;
        (offset.checked_add(len)? <= puddle.size).then_some(Place { target, offset })
    })
}

/// Takes the lock of those who recover, on one byte of the file, and waits for it. It goes with the descriptor.
fn wait_for_recovery(file: &File) -> io::Result<()> {
    // SAFETY: all zeros is a valid flock structure.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = libc::F_WRLCK as libc::c_short;
    range.l_whence = libc::SEEK_SET as libc::c_short;
    range.l_start = 0;
    range.l_len = 1;
    // An open file description lock: it does not go when this process closes another descriptor of the file.
    // SAFETY: the structure outlives the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLKW, &range) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
