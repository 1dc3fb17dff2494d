//! Pools that come into being as a whole: import and clone into a directory.
//!
//! Everything is made in a staging directory beside the pool's, made durable, and renamed. An import that is interrupted leaves a
//! staging directory that nobody locks; whoever makes a pool in the same place next removes it.

use super::copy::Copier;
use super::image::{PoolImage, ROOT_FILE, member_file};
use super::read::{
    Arrived, ReadOptions, Staging, Target, read_directory, read_stream, remove_taken,
};
use super::{
    ArchiveFailure, Identities, Progress, extents_of, identity_ranges, save_before, set_identities,
};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use vernal_abi::puddle::PUDDLE_MIN;
use vernal_abi::{DIRECT_BASE, DIRECT_SIZE, TRACKED_BASE, TRACKED_SIZE};
use vernal_format::archive::{Manifest, PoolMode};
use vernal_format::{Meta, MetaState, Uuid};
use vernal_sys::os;

/// Part of the name of every staging directory.
const STAGING: &str = ".vernal-import-";
/// The file in a staging directory that its maker holds locked.
const LOCK: &str = "lock";

/// Where an archive comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// One stream: a file or a pipe, and its name for messages.
    Stream(&'a File, &'a str),
    /// A directory.
    Directory(&'a Path),
}

/// Imports an archive as the pool `pool`, a directory that must not exist.
///
/// With `take` the files of a directory archive become the pool's, where file system and place allow, and the archive is
/// gone afterwards. Pointers are not touched: the pool is relocated when it is opened, where it is first touched.
pub fn import(
    source: Source<'_>,
    pool: &Path,
    options: ReadOptions,
    progress: Progress<'_>,
) -> Result<Manifest, ArchiveFailure> {
    let staging = StagingDir::new(pool)?;
    let mut target = Staging(&staging.path);
    let arrived = match source {
        Source::Stream(file, name) => read_stream(file, name, &mut target, progress)?,
        Source::Directory(path) => read_directory(path, &mut target, options, progress)?,
    };
    if let Some(archive) = &arrived.taken {
        save_before(archive, &arrived.files, &identity_ranges(&arrived.manifest))?;
    }
    staging.publish(pool, &arrived)?;
    if let Some(archive) = &arrived.taken {
        remove_taken(archive, &arrived.manifest)
            .map_err(|e| ArchiveFailure::io("removing", &archive.display().to_string(), e))?;
    }
    Ok(arrived.manifest)
}

/// Makes `pool` a copy of the pool `image`, sharing blocks where the file system can.
pub fn clone(
    image: &PoolImage,
    pool: &Path,
    progress: Progress<'_>,
) -> Result<Manifest, ArchiveFailure> {
    let staging = StagingDir::new(pool)?;
    let arrived = copy_into(image, &mut Staging(&staging.path), progress)?;
    staging.publish(pool, &arrived)?;
    Ok(arrived.manifest)
}

/// Copies the files of `image` to `target`; identities are still those of `image`.
pub fn copy_into(
    image: &PoolImage,
    target: &mut dyn Target,
    progress: Progress<'_>,
) -> Result<Arrived, ArchiveFailure> {
    let manifest = image.manifest();
    manifest
        .validate()
        .map_err(|e| ArchiveFailure::format(image.name(), e))?;
    let files = target.files(&manifest)?;
    let copier = Copier::new(progress);
    for ((puddle, from), (path, to)) in manifest.puddles.iter().zip(image.files()).zip(&files) {
        let io = |e| ArchiveFailure::io("copying to", &path.display().to_string(), e);
        for extent in extents_of(from, puddle.size).map_err(io)? {
            copier
                .copy(from, extent.offset, to, extent.offset, extent.len)
                .map_err(io)?;
        }
    }
    let arrived = Arrived {
        manifest,
        files,
        taken: None,
    };
    Ok(arrived)
}

/// A staging directory, removed unless it became a pool.
struct StagingDir {
    path: PathBuf,
    _lock: File,
    done: std::cell::Cell<bool>,
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        if !self.done.get() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The directory in which `pool` lies.
fn parent_of(pool: &Path) -> PathBuf {
    match pool.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

impl StagingDir {
    fn new(pool: &Path) -> Result<StagingDir, ArchiveFailure> {
        let shown = pool.display().to_string();
        if pool.symlink_metadata().is_ok() {
            return Err(ArchiveFailure::Exists { name: shown });
        }
        let Some(name) = pool.file_name() else {
            return Err(ArchiveFailure::NoPool { name: shown });
        };
        let parent = parent_of(pool);
        sweep(&parent);
        let mut staged = std::ffi::OsString::from(".");
        staged.push(name);
        staged.push(format!("{STAGING}{}", fresh(pool)?));
        let path = parent.join(staged);
        let io = |e| ArchiveFailure::io("creating", &path.display().to_string(), e);
        DirBuilder::new().mode(0o700).create(&path).map_err(io)?;
        let lock = File::create_new(path.join(LOCK)).map_err(io)?;
        if !os::try_lock(&lock).map_err(io)? {
            // Swept by somebody between the two calls.
            return Err(io(io::ErrorKind::ResourceBusy.into()));
        }
        Ok(StagingDir {
            path,
            _lock: lock,
            done: false.into(),
        })
    }

    /// Gives the files in here identities, names and metadata, makes all of it durable, and renames it to `pool`.
    fn publish(&self, pool: &Path, arrived: &Arrived) -> Result<(), ArchiveFailure> {
        let manifest = &arrived.manifest;
        let label = pool.file_name().unwrap_or_default().to_string_lossy();
        let identities = Identities {
            pool: fresh(pool)?,
            label: label.into_owned(),
            puddles: (0..manifest.puddles.len())
                .map(|_| fresh(pool))
                .collect::<Result<_, _>>()?,
        };
        set_identities(arrived, &identities)?;
        let homes = home_addresses(manifest, pool)?;
        for (index, ((path, file), uuid)) in
            arrived.files.iter().zip(&identities.puddles).enumerate()
        {
            let shown = path.display().to_string();
            file.sync_all()
                .map_err(|e| ArchiveFailure::io("flushing", &shown, e))?;
            let named = match index {
                0 => self.path.join(ROOT_FILE),
                _ => self.path.join(member_file(*uuid)),
            };
            std::fs::rename(path, &named).map_err(|e| ArchiveFailure::io("renaming", &shown, e))?;
            let size = manifest.puddles.get(index).map_or(0, |p| p.size);
            let meta = Meta {
                update: 0,
                file: *uuid,
                home_addr: homes.get(index).copied().unwrap_or(0),
                slot_len: size,
                committed_len: size,
                state: MetaState::Clean,
            };
            vernal_snapshot::write_meta(&named, meta).map_err(ArchiveFailure::Snapshot)?;
        }
        let shown = pool.display().to_string();
        let io = |e| ArchiveFailure::io("publishing", &shown, e);
        std::fs::remove_file(self.path.join(LOCK)).map_err(io)?;
        sync_dir(&self.path).map_err(io)?;
        match rustix::fs::renameat_with(
            rustix::fs::CWD,
            &self.path,
            rustix::fs::CWD,
            pool,
            rustix::fs::RenameFlags::NOREPLACE,
        ) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Err(ArchiveFailure::Exists { name: shown }),
            Err(e) => return Err(io(e.into())),
        }
        self.done.set(true);
        sync_dir(&parent_of(pool)).map_err(io)
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn fresh(pool: &Path) -> Result<Uuid, ArchiveFailure> {
    vernal_snapshot::fresh_uuid(pool).map_err(ArchiveFailure::Snapshot)
}

/// Addresses for the puddles, apart from each other, in the half of the space that no puddled gives out.
fn home_addresses(manifest: &Manifest, pool: &Path) -> Result<Vec<u64>, ArchiveFailure> {
    let (base, size) = match manifest.mode {
        PoolMode::Buffered => (TRACKED_BASE, TRACKED_SIZE / 2),
        PoolMode::Direct => (DIRECT_BASE, DIRECT_SIZE / 2),
    };
    let mut taken: Vec<(u64, u64)> = Vec::new();
    let mut out = Vec::new();
    for puddle in &manifest.puddles {
        let none = || ArchiveFailure::NoAddress {
            name: pool.display().to_string(),
            size: puddle.size,
        };
        let places = size.checked_sub(puddle.size).ok_or_else(none)? / PUDDLE_MIN + 1;
        let mut found = None;
        // Puddles of one pool fill a small part of the space, or there is no hope.
        for _ in 0..1000 {
            let addr = base + fresh(pool)?.short() % places * PUDDLE_MIN;
            let end = addr + puddle.size;
            if taken.iter().all(|(from, to)| end <= *from || addr >= *to) {
                found = Some(addr);
                break;
            }
        }
        let addr = found.ok_or_else(none)?;
        taken.push((addr, addr + puddle.size));
        out.push(addr);
    }
    Ok(out)
}

/// Removes staging directories in `parent` whose makers are gone.
pub fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') || !name.contains(STAGING) {
            continue;
        }
        let free = match File::open(entry.path().join(LOCK)) {
            Ok(lock) => os::try_lock(&lock).unwrap_or(false),
            // Its maker had not made the lock yet, or was about to rename: it counts as gone when it is empty, or complete
            // and left behind; a race with a living maker makes that one fail, and nothing else.
            Err(e) => e.kind() == io::ErrorKind::NotFound && is_old(&entry.path()),
        };
        if free {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether nothing has happened in the directory for a minute: makers need microseconds where they hold no lock.
fn is_old(path: &Path) -> bool {
    let changed = std::fs::metadata(path).and_then(|m| m.modified());
    changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() > 60))
}
