//! New identities for a pool that has arrived: the same objects at the same relative places, but another pool.
//!
//! Only the puddles' headers and the pool page hold identities. Addresses stay as the archive has them: they say for which
//! places the pointers are valid, and whoever opens the pool somewhere else relocates it from there.

use super::image::{read_pool_page, read_puddle_header};
use super::{ArchiveFailure, Arrived};
use std::os::unix::fs::FileExt;
use vernal_abi::puddle::{CHUNK_HEADER, CHUNK_SIZE};
use vernal_format::Uuid;
use vernal_format::archive::{Manifest, PoolMode};
use vernal_format::puddle::{
    DirectorySlot, LABEL_MAX, PAGE_BYTES, PUDDLE_HEADER_OFFSET, PUDDLE_ROOT, PoolHead, PuddleHeader,
};

/// What the pool is from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identities {
    /// The pool.
    pub pool: Uuid,
    /// Its name; shortened to what a pool page holds.
    pub label: String,
    /// The puddles, in the order of the manifest.
    pub puddles: Vec<Uuid>,
}

/// The ranges `(puddle, offset, length)` that [`set_identities`] changes.
pub fn identity_ranges(manifest: &Manifest) -> Vec<(usize, u64, u32)> {
    let headers = (0..manifest.puddles.len()).map(|index| (index, 0, CHUNK_HEADER as u32));
    let page = manifest
        .puddles
        .first()
        .map(|root| (0, root.size / CHUNK_SIZE * CHUNK_HEADER, PAGE_BYTES as u32));
    headers.chain(page).collect()
}

/// Checks that headers and pool page of the files say what the manifest says, then gives them new identities. Not durable yet.
pub fn set_identities(arrived: &Arrived, new: &Identities) -> Result<(), ArchiveFailure> {
    let (page, headers) = check(arrived)?;
    let mut label = new.label.clone();
    label.retain(|c| !c.is_control());
    while label.len() > LABEL_MAX {
        label.pop();
    }
    for ((header, (path, file)), uuid) in headers.iter().zip(&arrived.files).zip(&new.puddles) {
        let changed = PuddleHeader {
            uuid: *uuid,
            ..*header
        };
        write_words(file, PUDDLE_HEADER_OFFSET, &changed.encode())
            .map_err(|e| ArchiveFailure::io("writing", &path.display().to_string(), e))?;
    }
    let Some((path, root)) = arrived.files.first() else {
        return Ok(());
    };
    let io = |e| ArchiveFailure::io("writing", &path.display().to_string(), e);
    let head = PoolHead {
        uuid: new.pool,
        label,
        direct: page.head.direct,
    };
    let words = head.encode().unwrap_or_default();
    write_words(root, page.offset, &words).map_err(io)?;
    for ((slot, entry), uuid) in page.slots.iter().zip(&page.directory).zip(&new.puddles) {
        let changed = DirectorySlot {
            uuid: *uuid,
            ..*entry
        };
        let at = page.offset + DirectorySlot::offset(*slot);
        write_words(root, at, &changed.encode()).map_err(io)?;
    }
    Ok(())
}

fn write_words(file: &std::fs::File, at: u64, words: &[u64]) -> std::io::Result<()> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.write_all_at(&bytes, at)
}

/// An archive whose manifest and content disagree was put together by somebody: nothing of it is believed.
fn check(arrived: &Arrived) -> Result<(super::image::PoolPage, Vec<PuddleHeader>), ArchiveFailure> {
    let manifest = &arrived.manifest;
    let lie = |index: usize, what: &str| ArchiveFailure::Damaged {
        name: format!("puddle {index} of the archive"),
        why: format!("its {what} is not what the manifest says"),
    };
    let mut headers = Vec::new();
    for (index, ((path, file), puddle)) in arrived.files.iter().zip(&manifest.puddles).enumerate() {
        let header = read_puddle_header(file, path)?;
        if header.uuid != puddle.uuid || header.size != puddle.size {
            return Err(lie(index, "header"));
        }
        if (header.flags & PUDDLE_ROOT != 0) != (index == 0) {
            return Err(lie(index, "place"));
        }
        headers.push(header);
    }
    let Some((path, root)) = arrived.files.first() else {
        return Err(lie(0, "file"));
    };
    let page = read_pool_page(root, path)?;
    if page.head.uuid != manifest.pool || page.head.direct != (manifest.mode == PoolMode::Direct) {
        return Err(lie(0, "pool page"));
    }
    let same = page.directory.len() == manifest.puddles.len()
        && page
            .directory
            .iter()
            .zip(&manifest.puddles)
            .all(|(a, b)| a.uuid == b.uuid && a.size == b.size && a.current == b.addr);
    if !same {
        return Err(lie(0, "directory"));
    }
    Ok((page, headers))
}
