//! What an archived pool is.

use super::wire::{Reader, Writer};
use super::{ARCHIVE_PAGE, ArchiveError};
use crate::Uuid;
use std::collections::HashSet;
use vernal_abi::puddle::{CHUNK_SIZE, MAX_PUDDLES, PUDDLE_MIN, is_puddle_size};
use vernal_abi::{DIRECT_BASE, DIRECT_SIZE, TRACKED_BASE, TRACKED_END};

/// The longest manifest in bytes.
pub const MANIFEST_MAX: u64 = 64 << 20;
/// The longest label in bytes.
pub const MAX_LABEL: usize = 255;
/// Types in one manifest.
pub const MAX_ARCHIVED_TYPES: usize = 1 << 16;
/// Extents of one puddle.
pub const MAX_EXTENTS: usize = 1 << 21;
/// The longest name of a type.
const MAX_NAME: usize = 4096;

const WHAT: &str = "manifest";
/// XXH3-64, the only checksum so far.
const SUMS_XXH3: u32 = 1;

/// How programs change the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// Working copies and a journal.
    Buffered,
    /// In place, under undo and redo logs.
    Direct,
}

/// A range of a puddle that has bytes; page-aligned, inside the puddle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// From the start of the puddle.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// One puddle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedPuddle {
    /// Its identity on the machine that wrote the archive.
    pub uuid: Uuid,
    /// Its size.
    pub size: u64,
    /// The address for which its pointers are valid.
    pub addr: u64,
    /// Where it has bytes; sorted, apart from each other. All else is zero.
    pub extents: Vec<Extent>,
}

/// A type that the pool's type table names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedType {
    /// Its identity.
    pub id: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its name.
    pub name: String,
}

/// What an archived pool is. Field by field in the order of [`Manifest::encode`]; texts and blobs have a length of 4 bytes before them:
///
/// ```text
/// checksum algorithm 4 (1: XXH3-64)   mode 4 (1 buffered, 2 direct)   pool uuid 16   root 8   label
/// puddles 4, then for each: uuid 16, size 8, address 8, extents 4, then for each: offset 8, length 8
/// types 4, then for each: id 8, size 8, name
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Identity of the pool on the machine that wrote the archive.
    pub pool: Uuid,
    /// The name under which it was known there.
    pub label: String,
    /// How programs change it.
    pub mode: PoolMode,
    /// Address of the root object; 0 without one.
    pub root: u64,
    /// The puddles; the first is the root puddle.
    pub puddles: Vec<ArchivedPuddle>,
    /// The types of its objects.
    pub types: Vec<ArchivedType>,
}

/// A chunk that has bytes in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredChunk {
    /// Index of the puddle in the manifest.
    pub puddle: usize,
    /// Index of the chunk in the puddle.
    pub chunk: u64,
    /// Bytes of extents in it.
    pub bytes: u64,
}

impl Manifest {
    /// The manifest's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u32(SUMS_XXH3);
        out.u32(match self.mode {
            PoolMode::Buffered => 1,
            PoolMode::Direct => 2,
        });
        out.uuid(self.pool);
        out.u64(self.root);
        out.blob(self.label.as_bytes());
        out.u32(self.puddles.len() as u32);
        for puddle in &self.puddles {
            out.uuid(puddle.uuid);
            out.u64(puddle.size);
            out.u64(puddle.addr);
            out.u32(puddle.extents.len() as u32);
            for extent in &puddle.extents {
                out.u64(extent.offset);
                out.u64(extent.len);
            }
        }
        out.u32(self.types.len() as u32);
        for ty in &self.types {
            out.u64(ty.id);
            out.u64(ty.size);
            out.blob(ty.name.as_bytes());
        }
        out.bytes
    }

    /// The manifest in `bytes`, checked by [`Manifest::validate`].
    pub fn decode(bytes: &[u8]) -> Result<Manifest, ArchiveError> {
        let mut from = Reader::new(bytes, WHAT);
        let sums = from.u32()?;
        if sums != SUMS_XXH3 {
            return Err(ArchiveError::field(WHAT, "checksum algorithm", sums.into()));
        }
        let mode = match from.u32()? {
            1 => PoolMode::Buffered,
            2 => PoolMode::Direct,
            other => return Err(ArchiveError::field(WHAT, "mode", other.into())),
        };
        let pool = from.uuid()?;
        let root = from.u64()?;
        let label = from.text("label", MAX_LABEL)?;
        let mut puddles = Vec::new();
        for _ in 0..from.count("number of puddles", 36, MAX_PUDDLES)? {
            puddles.push(puddle(&mut from)?);
        }
        let mut types = Vec::new();
        for _ in 0..from.count("number of types", 20, MAX_ARCHIVED_TYPES)? {
            types.push(ArchivedType {
                id: from.u64()?,
                size: from.u64()?,
                name: from.text("type name", MAX_NAME)?,
            });
        }
        from.end()?;
        let manifest = Manifest {
            pool,
            label,
            mode,
            root,
            puddles,
            types,
        };
        manifest.validate()?;
        Ok(manifest)
    }

    /// Checks what an importer relies on: puddles of right sizes at distinct places of the right space, distinct identities,
    /// extents that are sorted, apart, on pages and inside their puddle, and a root inside a puddle.
    pub fn validate(&self) -> Result<(), ArchiveError> {
        let bad = |field, value| Err(ArchiveError::field(WHAT, field, value));
        if self.puddles.is_empty() || self.puddles.len() > MAX_PUDDLES {
            return bad("number of puddles", self.puddles.len() as u64);
        }
        if self.label.len() > MAX_LABEL || self.label.chars().any(char::is_control) {
            return bad("label length", self.label.len() as u64);
        }
        let (low, high) = match self.mode {
            PoolMode::Buffered => (TRACKED_BASE, TRACKED_END),
            PoolMode::Direct => (DIRECT_BASE, DIRECT_BASE + DIRECT_SIZE),
        };
        let mut seen = HashSet::new();
        let mut places = Vec::new();
        for puddle in &self.puddles {
            if !is_puddle_size(puddle.size) {
                return bad("puddle size", puddle.size);
            }
            if puddle.uuid.is_nil() || !seen.insert(puddle.uuid) {
                return bad("puddle identity used twice", puddle.uuid.short());
            }
            let end = puddle.addr.checked_add(puddle.size);
            let inside = puddle.addr >= low && end.is_some_and(|end| end <= high);
            if !inside || !puddle.addr.is_multiple_of(PUDDLE_MIN) {
                return bad("puddle address", puddle.addr);
            }
            places.push((puddle.addr, puddle.addr.saturating_add(puddle.size)));
            extents(puddle)?;
        }
        places.sort_unstable();
        for pair in places.windows(2) {
            if let [(_, end), (start, _)] = pair
                && end > start
            {
                return bad("overlapping puddle address", *start);
            }
        }
        let root_inside = places
            .iter()
            .any(|(start, end)| (*start..*end).contains(&self.root));
        if self.root != 0 && !root_inside {
            return bad("root", self.root);
        }
        Ok(())
    }

    /// Bytes of all extents.
    pub fn stored_bytes(&self) -> u64 {
        let extents = self.puddles.iter().flat_map(|puddle| &puddle.extents);
        extents.fold(0, |sum, extent| sum.saturating_add(extent.len))
    }

    /// Sizes of all puddles.
    pub fn total_size(&self) -> u64 {
        let sizes = self.puddles.iter().map(|puddle| puddle.size);
        sizes.fold(0, u64::saturating_add)
    }

    /// The chunks that have bytes, in the order of their checksums in the trailer: by puddle, then by chunk. The extents
    /// must be valid.
    pub fn stored_chunks(&self) -> impl Iterator<Item = StoredChunk> + '_ {
        self.puddles
            .iter()
            .enumerate()
            .flat_map(|(index, puddle)| ChunkIter {
                puddle: index,
                extents: &puddle.extents,
                done: 0,
            })
    }
}

fn puddle(from: &mut Reader<'_>) -> Result<ArchivedPuddle, ArchiveError> {
    let uuid = from.uuid()?;
    let size = from.u64()?;
    let addr = from.u64()?;
    let mut extents = Vec::new();
    for _ in 0..from.count("number of extents", 16, MAX_EXTENTS)? {
        extents.push(Extent {
            offset: from.u64()?,
            len: from.u64()?,
        });
    }
    Ok(ArchivedPuddle {
        uuid,
        size,
        addr,
        extents,
    })
}

fn extents(puddle: &ArchivedPuddle) -> Result<(), ArchiveError> {
    let bad = |field, value| Err(ArchiveError::field(WHAT, field, value));
    let mut from = 0;
    for extent in &puddle.extents {
        let aligned =
            extent.offset.is_multiple_of(ARCHIVE_PAGE) && extent.len.is_multiple_of(ARCHIVE_PAGE);
        if extent.len == 0 || !aligned {
            return bad("extent length", extent.len);
        }
        if extent.offset < from {
            return bad("extent order", extent.offset);
        }
        match extent.offset.checked_add(extent.len) {
            Some(end) if end <= puddle.size => from = end,
            _ => return bad("extent offset", extent.offset),
        }
    }
    if puddle.extents.len() > MAX_EXTENTS {
        return bad("number of extents", puddle.extents.len() as u64);
    }
    Ok(())
}

/// The chunks that a puddle's sorted extents touch.
struct ChunkIter<'a> {
    puddle: usize,
    extents: &'a [Extent],
    /// Bytes of the first extent that earlier chunks have counted.
    done: u64,
}

impl Iterator for ChunkIter<'_> {
    type Item = StoredChunk;

    fn next(&mut self) -> Option<StoredChunk> {
        let first = self.extents.first()?;
        let chunk = first.offset.saturating_add(self.done) / CHUNK_SIZE;
        let end = chunk.saturating_add(1).saturating_mul(CHUNK_SIZE);
        let mut bytes = 0u64;
        while let Some((extent, rest)) = self.extents.split_first() {
            let start = extent.offset.saturating_add(self.done);
            let stop = extent.offset.saturating_add(extent.len);
            if start >= end {
                break;
            }
            let taken = stop.min(end).saturating_sub(start);
            bytes = bytes.saturating_add(taken);
            if stop <= end {
                self.extents = rest;
                self.done = 0;
            } else {
                self.done = self.done.saturating_add(taken);
                break;
            }
        }
        Some(StoredChunk {
            puddle: self.puddle,
            chunk,
            bytes,
        })
    }
}
