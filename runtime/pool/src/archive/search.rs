//! What would mean nothing in a copy of a pool: pointers that lead out of it, and what looks like pointers where nobody can tell.

use super::ArchiveFailure;
use super::image::{ImageMemory, PoolImage};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use vernal_abi::puddle::CHUNK_SIZE;
use vernal_heap::walk::{Plans, PoolRanges, Untyped, scan_external, scan_untyped};
use vernal_heap::{Heap, ObjectSpace};

/// A pointer that leads out of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dangling {
    /// `type.field`.
    pub field: String,
    /// The object that holds it.
    pub object: u64,
    /// Where it leads.
    pub target: u64,
}

/// Things of which all are counted and the first are listed.
struct Findings<T> {
    count: AtomicU64,
    list: Mutex<Vec<T>>,
    most: usize,
}

impl<T> Findings<T> {
    fn new(most: usize) -> Self {
        Findings {
            count: AtomicU64::new(0),
            list: Mutex::default(),
            most,
        }
    }

    fn add(&self, one: impl FnOnce() -> T) {
        if self.count.fetch_add(1, Ordering::Relaxed) < self.most as u64 {
            self.list
                .lock()
                .unwrap_or_else(|e| e.into_inner())
                .push(one());
        }
    }

    fn take(&self) -> (u64, Vec<T>) {
        let mut list = self.list.lock().unwrap_or_else(|e| e.into_inner());
        (
            self.count.load(Ordering::Relaxed),
            std::mem::take(&mut *list),
        )
    }
}

/// A search of a pool, chunk by chunk, by any number of threads.
pub(super) struct Search<'a> {
    image: &'a PoolImage,
    /// Number of each puddle's first chunk.
    first: Vec<usize>,
    ranges: PoolRanges,
    plans: Plans,
    dangling: Option<Findings<Dangling>>,
    untyped: Option<Findings<Untyped>>,
}

impl<'a> Search<'a> {
    /// A search for pointers that lead out of the pool, and with `untyped` for words without type; `list` of them are named.
    pub(super) fn new(image: &'a PoolImage, list: usize, untyped: bool) -> Search<'a> {
        let mut search = Search::of_nothing(image);
        search.dangling = Some(Findings::new(list));
        search.untyped = untyped.then(|| Findings::new(list));
        search
    }

    fn of_nothing(image: &'a PoolImage) -> Search<'a> {
        let first = image.directory().iter().scan(0, |at, entry| {
            let this = *at;
            *at += (entry.size / CHUNK_SIZE) as usize;
            Some(this)
        });
        Search {
            image,
            first: first.collect(),
            ranges: PoolRanges::of(image.heap()),
            plans: Plans::of(image.heap()),
            dangling: None,
            untyped: None,
        }
    }

    /// Searches a chunk of a puddle whose bytes have just been read.
    pub(super) fn look(&self, puddle: usize, chunk: u64) {
        if let Some(first) = self.first.get(puddle) {
            self.image.prepare_chunk(puddle, chunk);
            self.chunk(first + chunk as usize);
        }
    }

    fn chunk(&self, chunk: usize) {
        let heap: &Heap<ImageMemory> = self.image.heap();
        if let Some(untyped) = &self.untyped {
            let here = |value: u64| self.ranges.contains(value).then_some(value);
            scan_untyped(heap, chunk, &here, &mut |found| {
                untyped.add(|| found);
                true
            });
        }
        if let Some(dangling) = &self.dangling {
            scan_external(
                heap,
                &self.plans,
                &self.ranges,
                chunk,
                false,
                &mut |finding| {
                    dangling.add(|| Dangling {
                        field: finding.name(heap),
                        object: finding.object.addr,
                        target: finding.value,
                    });
                    true
                },
            );
        }
    }

    /// Searches all chunks, on `jobs` threads.
    fn all(&self, jobs: usize) {
        let next = AtomicUsize::new(0);
        let count = self.image.heap().chunk_count();
        let work = || {
            loop {
                let chunk = next.fetch_add(1, Ordering::Relaxed);
                if chunk >= count {
                    return;
                }
                self.chunk(chunk);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..jobs.min(count) {
                scope.spawn(work);
            }
            work();
        });
    }

    /// The pointers that lead out of the pool. An error if there are words without type that may be addresses.
    pub(super) fn found(&self) -> Result<(u64, Vec<Dangling>), ArchiveFailure> {
        let (count, mut list) = self
            .untyped
            .as_ref()
            .map_or((0, Vec::new()), Findings::take);
        if count > 0 {
            list.sort_by_key(|untyped| untyped.addr);
            return Err(ArchiveFailure::Untyped {
                name: self.image.name().to_owned(),
                count,
                list,
            });
        }
        let (count, mut list) = self
            .dangling
            .as_ref()
            .map_or((0, Vec::new()), Findings::take);
        list.sort_by_key(|dangling| (dangling.object, dangling.target));
        Ok((count, list))
    }
}

impl PoolImage {
    /// Words of memory without type that are addresses of objects of the pool: nobody can rewrite them in a copy. Chunks by
    /// `jobs` threads; all are counted, the first `list` are named.
    pub fn untyped(&self, list: usize, jobs: usize) -> (u64, Vec<Untyped>) {
        let mut search = Search::of_nothing(self);
        search.untyped = Some(Findings::new(list));
        search.all(jobs);
        let (count, mut found) = search
            .untyped
            .as_ref()
            .map_or((0, Vec::new()), Findings::take);
        found.sort_by_key(|untyped| untyped.addr);
        (count, found)
    }

    /// Refuses a pool whose copy would crash at other addresses.
    pub fn refuse_untyped(&self, list: usize, jobs: usize) -> Result<(), ArchiveFailure> {
        match self.untyped(list, jobs) {
            (0, _) => Ok(()),
            (count, list) => Err(ArchiveFailure::Untyped {
                name: self.name().to_owned(),
                count,
                list,
            }),
        }
    }

    /// Pointers to data that lead out of the pool, chunks by `jobs` threads: all are counted, the first `list` are named.
    pub fn dangling(&self, list: usize, jobs: usize) -> (u64, Vec<Dangling>) {
        let mut search = Search::of_nothing(self);
        search.dangling = Some(Findings::new(list));
        search.all(jobs);
        search.found().unwrap_or_default()
    }
}
