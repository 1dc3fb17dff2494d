//! The files of puddles: made, checked, opened, with their metadata.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use vernal_format::{Meta, MetaState, Uuid};
use vernal_journal::{JournalError, MetaFile, Unrecovered};
use vernal_puddled_proto::PoolKind;
use vernal_sys::{FileMedia, reserve_space};

use crate::fail::{Outcome, io as io_failure};
use crate::layout::{Layout, create_file, open_rw};
use crate::records::PuddleRecord;

/// Whether puddles of such a pool have metadata beside them: only those that a journal serves.
pub(crate) fn has_meta(kind: PoolKind) -> bool {
    kind == PoolKind::Buffered
}

/// Makes the file of a puddle. Unless it is to be `sparse`, its blocks are reserved now: a full disk is found here, and never as
/// a fault in a client that writes to its mapping.
pub(crate) fn create(path: &Path, size: u64, sparse: bool) -> Outcome<File> {
    let make = || {
        let file = create_file(path)?;
        file.set_len(size)?;
        if !sparse {
            reserve_space(&file, 0, size)?;
        }
        file.sync_all()?;
        Ok(file)
    };
    make().map_err(|e: io::Error| {
        let _ = fs::remove_file(path);
        io_failure("making", path, &e)
    })
}

/// Makes the metadata of the puddle at `path`, under another name first, so that it is never half there. The caller makes the
/// directory durable.
pub(crate) fn create_meta(path: &Path, puddle: &PuddleRecord, state: MetaState) -> Outcome<()> {
    let target = Layout::meta(path);
    let temp = target.with_extension("vernal-new");
    let meta = Meta {
        update: 0,
        file: Uuid::from(puddle.id),
        home_addr: puddle.addr,
        slot_len: puddle.size,
        committed_len: puddle.size,
        state,
    };
    let make = || {
        let file = create_file(&temp)?;
        MetaFile::create(
            FileMedia::from_file(file)?,
            target.display().to_string(),
            meta,
        )
        .map_err(|e| match e {
            // The kind says whether the disk is full.
            JournalError::NoSpace { source, .. } | JournalError::Io { source, .. } => source,
            other => io::Error::other(other),
        })?;
        fs::rename(&temp, &target)
    };
    make().map_err(|e: io::Error| {
        let _ = fs::remove_file(&temp);
        io_failure("making", &target, &e)
    })
}

/// Why a puddle cannot be used; the text names the file.
pub(crate) type Damage = String;

/// Opens the file of a puddle, which must be as long as it should be.
pub(crate) fn open(path: &Path, size: u64, write: bool) -> Result<File, Damage> {
    let opened = if write {
        open_rw(path)
    } else {
        File::open(path)
    };
    let name = path.display();
    let file = opened.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            format!("the file {name} is missing: restore it from a backup, or remove the pool")
        }
        _ => format!("the file {name} cannot be opened ({e}): look at the disk"),
    })?;
    let len = file
        .metadata()
        .map_err(|e| format!("the file {name} cannot be looked at ({e}): look at the disk"))?
        .len();
    if len == size {
        Ok(file)
    } else {
        Err(format!(
            "the file {name} has {len} bytes and should have {size}: restore it from a backup, or remove the pool"
        ))
    }
}

/// Whether the file of a puddle is there with its length, without opening it.
pub(crate) fn look(path: &Path, size: u64) -> Result<(), Damage> {
    match fs::metadata(path) {
        Ok(m) if m.len() == size => Ok(()),
        _ => open(path, size, false).map(|_| ()),
    }
}

/// Opens the metadata of the puddle at `path`, which must be this puddle's.
pub(crate) fn open_meta(
    path: &Path,
    puddle: &PuddleRecord,
) -> Result<MetaFile<FileMedia, Unrecovered>, Damage> {
    let at = Layout::meta(path);
    let name = at.display().to_string();
    let media = FileMedia::open(&at).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            format!(
                "the metadata file {name} is missing: restore it from a backup, or remove the pool"
            )
        }
        _ => format!("the metadata file {name} cannot be opened ({e}): look at the disk"),
    })?;
    let meta = MetaFile::load(media, name).map_err(|e| e.to_string())?;
    let m = meta.meta();
    if m.file == Uuid::from(puddle.id) && m.home_addr == puddle.addr && m.slot_len == puddle.size {
        Ok(meta)
    } else {
        Err(format!(
            "the metadata file {} is of puddle {} at {:#x} with {} bytes, and the registry has {} at {:#x} with {}: restore both from one backup",
            at.display(),
            m.file,
            m.home_addr,
            m.slot_len,
            puddle.id,
            puddle.addr,
            puddle.size
        ))
    }
}
