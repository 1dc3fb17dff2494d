//! The committed image of a pool that nobody has open for writing: what exports, checks and inspections look at.

use super::ArchiveFailure;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use vernal_abi::puddle::{CHUNK_HEADER, CHUNK_SIZE, MAX_PUDDLES};
use vernal_format::Uuid;
use vernal_format::archive::{ArchivedPuddle, ArchivedType, MAX_LABEL, Manifest, PoolMode};
use vernal_format::puddle::{
    DIRECTORY_ENTRY_WORDS, DirectorySlot, PUDDLE_HEADER_OFFSET, PUDDLE_HEADER_WORDS, PUDDLE_ROOT,
    PoolHead, PuddleHeader,
};
use vernal_heap::walk::{Move, Plans, Rewrite, Translation};
use vernal_heap::{DirectoryEntry, Heap, HeapError, Mapped, ObjectSpace, PoolMemory, TYPE_FIRST};
use vernal_snapshot::Owned;
use vernal_sys::{WordMap, WordMode};

/// The root puddle of a pool's directory.
pub const ROOT_FILE: &str = "root.puddle";

/// The file of a puddle other than the root in the directory of its pool.
pub fn member_file(uuid: Uuid) -> String {
    format!("{uuid}.puddle")
}

/// Words of mapped puddles, at the addresses for which their pointers are valid.
#[derive(Debug, Default)]
pub struct ImageMemory {
    areas: Vec<(u64, WordMap)>,
}

impl PoolMemory for ImageMemory {
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        let after = self.areas.partition_point(|(base, _)| *base <= addr);
        let (base, map) = self.areas.get(after.checked_sub(1)?)?;
        let at = usize::try_from((addr - base) / 8).ok()?;
        map.words().get(at..at.checked_add(count)?)
    }

    fn before_write(&self, _addr: u64, _len: u64) -> Result<(), HeapError> {
        Ok(())
    }

    fn after_write(&self, _addr: u64, _len: u64) {}
}

/// A pool's committed image. What is changed in it stays in this process, unless it was opened with [`PoolImage::repair`].
#[derive(Debug)]
pub struct PoolImage {
    name: String,
    heap: Heap<ImageMemory>,
    directory: Vec<DirectoryEntry>,
    files: Vec<File>,
    paths: Vec<PathBuf>,
    /// Keeps writers away.
    _locks: Vec<Owned>,
}

impl PoolImage {
    /// Opens the pool in `directory`: takes its locks and recovers it, as a program that opens it would.
    pub fn open(directory: &Path) -> Result<PoolImage, ArchiveFailure> {
        Self::in_directory(directory, WordMode::Private)
    }

    /// Like [`PoolImage::open`], for changes that go to the files: [`PoolImage::sync`] makes them durable.
    pub fn repair(directory: &Path) -> Result<PoolImage, ArchiveFailure> {
        Self::in_directory(directory, WordMode::Shared)
    }

    fn in_directory(directory: &Path, mode: WordMode) -> Result<PoolImage, ArchiveFailure> {
        let name = directory.display().to_string();
        let root = directory.join(ROOT_FILE);
        if !root.exists() {
            return Err(ArchiveFailure::NoPool { name });
        }
        // The root puddle's lock is the pool's: with it held, no other puddle can come or go.
        let mut locks = vec![own(&root)?];
        let root_file = open(&root, mode)?;
        let entries = read_pool_page(&root_file, &root)?.directory;
        let (mut files, mut paths) = (vec![root_file], vec![root]);
        for entry in entries.iter().skip(1) {
            let path = directory.join(member_file(entry.uuid));
            locks.push(own(&path)?);
            files.push(open(&path, mode)?);
            paths.push(path);
        }
        // Recovery may have changed the directory itself.
        Self::build(name, files, paths, locks, mode)
    }

    /// The image of a pool whose files somebody else keeps from being written: `files` are its puddles, the root first, in any
    /// order after it.
    pub fn of_files(name: &str, files: Vec<File>) -> Result<PoolImage, ArchiveFailure> {
        let paths = vec![PathBuf::from(name); files.len()];
        Self::build(name.to_owned(), files, paths, Vec::new(), WordMode::Private)
    }

    fn build(
        name: String,
        files: Vec<File>,
        paths: Vec<PathBuf>,
        locks: Vec<Owned>,
        mode: WordMode,
    ) -> Result<PoolImage, ArchiveFailure> {
        let heap_error = |source| ArchiveFailure::Heap {
            name: name.clone(),
            source,
        };
        let (Some(root_file), Some(root_path)) = (files.first(), paths.first()) else {
            return Err(ArchiveFailure::NoPool { name });
        };
        let page = read_pool_page(root_file, root_path)?;
        let mut memory = ImageMemory::default();
        let mut mapped = Vec::new();
        let mut ordered = Vec::new();
        let mut given: Vec<Option<(File, PathBuf)>> =
            files.into_iter().zip(paths).map(Some).collect();
        for entry in &page.directory {
            let mut found = None;
            for slot in &mut given {
                let same = match slot {
                    Some((file, path)) => read_puddle_header(file, path)?.uuid == entry.uuid,
                    None => false,
                };
                if same {
                    found = slot.take();
                    break;
                }
            }
            let Some((file, path)) = found else {
                return Err(ArchiveFailure::Missing {
                    name,
                    uuid: entry.uuid,
                });
            };
            let shown = path.display().to_string();
            let len = file
                .metadata()
                .map_err(|e| ArchiveFailure::io("reading", &shown, e))?
                .len();
            if len != entry.size {
                return Err(ArchiveFailure::Length {
                    name: shown,
                    found: len,
                    expected: entry.size,
                });
            }
            let map =
                WordMap::new(&file, mode).map_err(|e| ArchiveFailure::io("mapping", &shown, e))?;
            memory.areas.push((entry.current, map));
            mapped.push(Mapped {
                uuid: entry.uuid,
                addr: entry.current,
                size: entry.size,
            });
            ordered.push((file, path));
        }
        memory.areas.sort_by_key(|(base, _)| *base);
        let heap = Heap::open(memory, &mapped).map_err(heap_error)?;
        let directory = heap.directory().map_err(heap_error)?;
        let (files, paths) = ordered.into_iter().unzip();
        let image = PoolImage {
            name,
            heap,
            directory,
            files,
            paths,
            _locks: locks,
        };
        if mode == WordMode::Private {
            image.settle()?;
        }
        Ok(image)
    }

    /// Rewrites, in this process only, the pointers of chunks that an unfinished relocation has left behind.
    fn settle(&self) -> Result<(), ArchiveFailure> {
        let heap_error = |source| ArchiveFailure::Heap {
            name: self.name.clone(),
            source,
        };
        let (epoch, _) = self.heap.epochs().map_err(heap_error)?;
        let mut behind = Vec::new();
        for chunk in 0..self.heap.chunk_count() {
            if self.heap.chunk_epochs(chunk).map_err(heap_error)?.0 != epoch {
                behind.push(chunk);
            }
        }
        if behind.is_empty() {
            return Ok(());
        }
        let moves: Vec<Move> = self
            .directory
            .iter()
            .map(|entry| Move {
                old: entry.previous,
                new: entry.current,
                len: entry.size,
            })
            .collect();
        let damaged = |why: String| ArchiveFailure::Damaged {
            name: self.name.clone(),
            why,
        };
        let translation = Translation::new(&moves).map_err(|e| damaged(e.to_string()))?;
        let plans = Plans::of(&self.heap);
        let rewrite = Rewrite {
            plans: &plans,
            pointers: &translation,
            binding: None,
        };
        for chunk in behind {
            let Some((start, end)) = self.heap.chunk_range(chunk) else {
                continue;
            };
            let count = usize::try_from((end - start) / 8).unwrap_or(0);
            let words = ObjectSpace::words(&self.heap, start, count).unwrap_or_default();
            rewrite
                .chunk(&self.heap, chunk, words, &mut |_| ())
                .map_err(|e| damaged(e.to_string()))?;
        }
        Ok(())
    }

    /// The name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The heap, at the addresses for which its pointers are valid.
    pub fn heap(&self) -> &Heap<ImageMemory> {
        &self.heap
    }

    /// The puddles.
    pub fn directory(&self) -> &[DirectoryEntry] {
        &self.directory
    }

    /// The puddles' files, in the order of the directory.
    pub fn files(&self) -> Vec<&File> {
        self.files.iter().collect()
    }

    /// The puddles' paths, in the order of the directory.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Makes the changes of a repair durable.
    pub fn sync(&self) -> Result<(), ArchiveFailure> {
        for (_, map) in &self.heap.memory().areas {
            map.sync()
                .map_err(|e| ArchiveFailure::io("flushing", &self.name, e))?;
        }
        Ok(())
    }

    /// What an archive of this pool says of it, without the extents.
    pub fn manifest(&self) -> Manifest {
        let identity = self.heap.identity();
        let mut label = identity.label;
        label.retain(|c| !c.is_control());
        while label.len() > MAX_LABEL {
            label.pop();
        }
        let puddles = self.directory.iter().map(|entry| ArchivedPuddle {
            uuid: entry.uuid,
            size: entry.size,
            addr: entry.current,
            extents: Vec::new(),
        });
        let types = (TYPE_FIRST..self.heap.type_end()).filter_map(|index| {
            let desc = self.heap.type_desc(index)?;
            Some(ArchivedType {
                id: desc.id(),
                size: desc.size(),
                name: desc.name().chars().take(1000).collect(),
            })
        });
        Manifest {
            pool: identity.uuid,
            label,
            mode: if identity.direct {
                PoolMode::Direct
            } else {
                PoolMode::Buffered
            },
            root: self.heap.root().unwrap_or(0),
            puddles: puddles.collect(),
            types: types
                .take(vernal_format::archive::MAX_ARCHIVED_TYPES)
                .collect(),
        }
    }

    /// Makes the words of chunk `chunk` of puddle `puddle` readable without a fault for each few pages.
    pub(super) fn prepare_chunk(&self, puddle: usize, chunk: u64) {
        if let Some(entry) = self.directory.get(puddle)
            && let Some((_, map)) =
                (self.heap.memory().areas.iter()).find(|(base, _)| *base == entry.current)
        {
            map.populate(chunk * CHUNK_SIZE, CHUNK_SIZE);
        }
    }
}

fn own(path: &Path) -> Result<Owned, ArchiveFailure> {
    match vernal_snapshot::own(path, None) {
        Ok(Some((owned, _))) => Ok(owned),
        Ok(None) => Err(ArchiveFailure::Damaged {
            name: path.display().to_string(),
            why: "its metadata file is missing: copy a pool with `vernal pool clone`, not file by file".to_owned(),
        }),
        Err(source) => Err(ArchiveFailure::Snapshot(source)),
    }
}

fn open(path: &Path, mode: WordMode) -> Result<File, ArchiveFailure> {
    OpenOptions::new()
        .read(true)
        .write(mode == WordMode::Shared)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .map_err(|e| ArchiveFailure::io("opening", &path.display().to_string(), e))
}

/// What a pool's root puddle says of it, read without lock or recovery: enough for a list of pools.
pub fn peek(directory: &Path) -> Result<(PoolHead, Vec<DirectorySlot>), ArchiveFailure> {
    let path = directory.join(ROOT_FILE);
    let file = open(&path, WordMode::Private)?;
    let page = read_pool_page(&file, &path)?;
    Ok((page.head, page.directory))
}

/// What the root puddle says of its pool.
pub(super) struct PoolPage {
    pub(super) head: PoolHead,
    pub(super) directory: Vec<DirectorySlot>,
    /// Where the page lies in the file.
    pub(super) offset: u64,
    /// Slot numbers of `directory`.
    pub(super) slots: Vec<usize>,
}

fn read_words<const N: usize>(
    file: &File,
    path: &Path,
    at: u64,
) -> Result<[u64; N], ArchiveFailure> {
    let mut bytes = vec![0; N * 8];
    file.read_exact_at(&mut bytes, at)
        .map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveFailure::Damaged {
                name: path.display().to_string(),
                why: "it is shorter than its headers".to_owned(),
            },
            _ => ArchiveFailure::io("reading", &path.display().to_string(), e),
        })?;
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    }
    Ok(words)
}

fn damaged(path: &Path, why: impl ToString) -> ArchiveFailure {
    ArchiveFailure::Damaged {
        name: path.display().to_string(),
        why: why.to_string(),
    }
}

pub(super) fn read_puddle_header(file: &File, path: &Path) -> Result<PuddleHeader, ArchiveFailure> {
    let words: [u64; PUDDLE_HEADER_WORDS] = read_words(file, path, PUDDLE_HEADER_OFFSET)?;
    PuddleHeader::parse(&words).map_err(|e| damaged(path, e))
}

pub(super) fn read_pool_page(file: &File, path: &Path) -> Result<PoolPage, ArchiveFailure> {
    let header = read_puddle_header(file, path)?;
    if header.flags & PUDDLE_ROOT == 0 {
        return Err(damaged(path, "it is not the root puddle of a pool"));
    }
    let offset = header.size / CHUNK_SIZE * CHUNK_HEADER;
    let head: [u64; PoolHead::WORDS] = read_words(file, path, offset)?;
    let head = PoolHead::parse(&head).map_err(|e| damaged(path, e))?;
    let (mut directory, mut slots) = (Vec::new(), Vec::new());
    for slot in 0..MAX_PUDDLES {
        let words: [u64; DIRECTORY_ENTRY_WORDS] =
            read_words(file, path, offset + DirectorySlot::offset(slot))?;
        if let Some(entry) = DirectorySlot::parse(&words).map_err(|e| damaged(path, e))? {
            directory.push(entry);
            slots.push(slot);
        }
    }
    match directory.first() {
        Some(root) if root.uuid == header.uuid && slots.first() == Some(&0) => Ok(PoolPage {
            head,
            directory,
            offset,
            slots,
        }),
        _ => Err(damaged(path, "its directory does not begin with itself")),
    }
}
