//! A pool as it was when it was opened: in it the objects of chunks that wait are enumerated, and from it they are rewritten.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use vernal_abi::puddle::{CHUNK_HEADER, CHUNK_SIZE};
use vernal_format::puddle::DESC_OFFSET;
use vernal_heap::{HeapError, PoolMemory};
use vernal_sys::{Aside, WordMap, WordMode, mem};

use crate::Error;
use crate::pool::{Inner, Puddle};

/// Words of a chunk's header, where its descriptors begin, and how many words they have.
const HEADER_WORDS: usize = (CHUNK_HEADER / 8) as usize;
const DESC_AT: usize = (DESC_OFFSET / 8) as usize;
const DESC_WORDS: usize = HEADER_WORDS - DESC_AT;

/// Bytes at the front of a puddle that hold no objects: headers, and the pool page, which follows those of the root puddle.
pub(super) fn front_len(size: u64, root: bool) -> u64 {
    let headers = size / CHUNK_SIZE * CHUNK_HEADER;
    headers + if root { mem::PAGE_SIZE } else { 0 }
}

/// A pool's puddles as they were when it was opened.
pub(super) struct Image {
    areas: Vec<Area>,
    /// The page descriptors of all of them: they change while the chunks that they describe wait.
    descriptors: Aside,
}

/// A puddle of the image.
pub(super) struct Area {
    base: u64,
    /// Its first chunk among the descriptors.
    first: usize,
    map: WordMap,
    file: File,
}

impl Area {
    /// The puddle's file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where an address of the puddle is in its file.
    pub fn offset(&self, addr: u64) -> u64 {
        addr - self.base
    }

    /// Its descriptor, for mappings.
    pub fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }
}

impl Image {
    /// The image of what `puddles` hold now.
    pub fn new(pool: &Inner, puddles: &[Puddle]) -> Result<Self, Error> {
        let chunks = |p: &Puddle| p.mapped.size / CHUNK_SIZE;
        let all: u64 = puddles.iter().map(chunks).sum();
        let descriptors = Aside::zeroed(all * DESC_WORDS as u64 * 8)
            .map_err(|e| Error::io(&pool.info.name, "making room for the headers of", e))?;
        let mut areas = Vec::with_capacity(puddles.len());
        let mut to = descriptors.words().chunks(DESC_WORDS);
        let mut first = 0;
        for p in puddles {
            let name = || format!("{}: puddle {}", pool.info.name, p.mapped.uuid);
            let file = p
                .file
                .try_clone()
                .map_err(|e| Error::io(name(), "duplicating the descriptor", e))?;
            let map = WordMap::new(&file, WordMode::Private)
                .map_err(|e| Error::io(name(), "mapping the image", e))?;
            let count = chunks(p) as usize;
            let headers = map.words().chunks(HEADER_WORDS).take(count);
            for (header, to) in headers.zip(to.by_ref()) {
                for (from, to) in header.iter().skip(DESC_AT).zip(to) {
                    to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
            areas.push(Area {
                base: p.mapped.addr,
                first,
                map,
                file,
            });
            first += count;
        }
        Ok(Image { areas, descriptors })
    }

    /// The puddle that holds `addr`.
    pub fn area(&self, addr: u64) -> Option<&Area> {
        self.areas
            .iter()
            .find(|a| addr >= a.base && addr - a.base < a.map.len())
    }
}

impl PoolMemory for Image {
    #[inline]
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        let area = self.area(addr)?;
        let at = usize::try_from((addr - area.base) / 8).ok()?;
        let end = at.checked_add(count)?;
        let (chunk, within) = (at / HEADER_WORDS, at % HEADER_WORDS);
        if within >= DESC_AT && chunk < (area.map.len() / CHUNK_SIZE) as usize {
            let from = (area.first + chunk) * DESC_WORDS + within - DESC_AT;
            let inside = count <= HEADER_WORDS - within;
            return match inside {
                true => self.descriptors.words().get(from..from + count),
                false => None,
            };
        }
        area.map.words().get(at..end)
    }

    fn before_write(&self, addr: u64, len: u64) -> Result<(), HeapError> {
        Err(HeapError::Refused {
            addr,
            len,
            why: "this is the image that the pool was opened with".into(),
        })
    }

    fn after_write(&self, _addr: u64, _len: u64) {}
}
