//! The heap of a pool: what a process keeps of it, and the lock under which pages change hands.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use vernal_abi::puddle::{CHUNK_SIZE, MAX_PUDDLES};
use vernal_format::puddle::{CHUNK_PAGES, CLASSES, Class, Extent, PAGE_BYTES, PageDesc, PoolHead};
use vernal_format::types::TypeDesc;

use crate::batch::Batch;
use crate::block::{self, Block, Kind, find_block, find_object, slab_header, walk_blocks};
use crate::cache::{Orphans, key_of};
use crate::locks::{HeapLock, Locks, StdLocks};
use crate::pages::Pages;
use crate::puddles::Puddles;
use crate::type_table::TypeTable;
use crate::{HeapError, Mapped, Object, ObjectSpace, PoolMemory, Span, SpanSpace, ThreadCache};

/// The heap of a pool.
///
/// Allocating and freeing are safe from several threads. While [`restored`](Self::restored), [`check`](Self::check) and
/// [`reset_caches`](Self::reset_caches) run, no other thread may be inside the heap.
#[derive(Debug)]
pub struct Heap<M: PoolMemory, L: Locks = StdLocks> {
    pub(crate) mem: M,
    /// Tells the caches of one heap from those of another.
    pub(crate) id: u64,
    pub(crate) head: PoolHead,
    pub(crate) puddles: Puddles,
    /// Counts aborts. A cache that has seen fewer gives its spans back.
    pub(crate) generation: AtomicU64,
    orphans: Orphans,
    pub(crate) slow: L::Lock<Slow>,
    pub(crate) types: TypeTable,
}

/// What is reached under the lock.
#[derive(Debug)]
pub(crate) struct Slow {
    /// By slot.
    pub pages: Vec<Option<Pages>>,
    /// Spans with free slots that nobody owns, by size class and type.
    pub partial: HashMap<u64, BTreeSet<u64>>,
    pub batch: Batch,
    /// Every puddle that was ever given: an abort can bring one back.
    pub known: Vec<Mapped>,
}

/// Bytes of a slab header.
const SLAB_LINE: u64 = 8 * Class::HEADER_WORDS as u64;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub(crate) fn damaged(what: &'static str, addr: u64, value: u64) -> HeapError {
    HeapError::Damaged { what, addr, value }
}

impl<M: PoolMemory, L: Locks> Heap<M, L> {
    pub(crate) fn new(mem: M, head: PoolHead, known: Vec<Mapped>) -> Self {
        Heap {
            mem,
            id: NEXT_ID.fetch_add(1, Relaxed),
            head,
            puddles: Puddles::new(),
            generation: AtomicU64::new(1),
            orphans: Arc::default(),
            slow: HeapLock::new(Slow {
                pages: (0..MAX_PUDDLES).map(|_| None).collect(),
                partial: HashMap::new(),
                batch: Batch::default(),
                known,
            }),
            types: TypeTable::new(),
        }
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.mem
    }

    pub(crate) fn lock(&self) -> <L::Lock<Slow> as HeapLock<Slow>>::Guard<'_> {
        self.slow.lock()
    }

    /// A cache for the calling thread.
    pub fn thread_cache(&self) -> ThreadCache {
        let generation = self.generation.load(SeqCst);
        ThreadCache::new(self.id, generation, Arc::clone(&self.orphans))
    }

    pub(crate) fn drain_orphans(&self, slow: &mut Slow) -> Result<(), HeapError> {
        for (generation, span) in self.orphans.take() {
            self.release_span(slow, generation, span)?;
        }
        Ok(())
    }

    /// Gives a span back that a cache with this generation owned.
    pub(crate) fn release_span(
        &self,
        slow: &mut Slow,
        generation: u64,
        span: u64,
    ) -> Result<(), HeapError> {
        let Some((slot, ext)) = self.puddles.locate(span) else {
            return Ok(());
        };
        let page = ext.page_of(span);
        if self.puddles.restored(slot, page / CHUNK_PAGES) > generation {
            // An abort took the span away; who owns it now, or what lies there, is not this cache's business.
            return Ok(());
        }
        self.puddles.set_owned(slot, page, false);
        self.place_span(slow, slot, ext, page)
    }

    /// Puts an unowned span where it belongs: free pages, the spans with free slots, or nowhere when it is full.
    pub(crate) fn place_span(
        &self,
        slow: &mut Slow,
        slot: usize,
        ext: Extent,
        page: u64,
    ) -> Result<(), HeapError> {
        let block = find_block(&self.mem, ext, page)?;
        let Kind::Slab {
            class: index,
            hint,
            type_index,
        } = block.kind
        else {
            return Ok(());
        };
        if block.page != page || self.puddles.is_owned(slot, page) {
            return Ok(());
        }
        let Some(class) = CLASSES.get(index) else {
            return Ok(());
        };
        let span = ext.page_addr(page);
        let bitmap = slab_header(&self.mem, span, class, type_index)?;
        let key = key_of(index, type_index);
        if bitmap.iter().all(|w| w.load(SeqCst) == 0) {
            if let Some(spans) = slow.partial.get_mut(&key) {
                spans.remove(&span);
            }
            return self.free_pages(slow, slot, &block);
        }
        let full = |bitmap: &[AtomicU64]| {
            let mut words = bitmap.iter().zip(class.valid);
            words.all(|(w, valid)| w.load(SeqCst) & valid == valid)
        };
        if full(bitmap) {
            if let Some(spans) = slow.partial.get_mut(&key) {
                spans.remove(&span);
            }
            if hint {
                self.set_hint(slow, ext, &block, false)?;
            }
            // A slot that was freed before the hint went is seen here; one freed later is announced by who frees it,
            // because that thread looks at the hint after it has changed the bitmap.
            if full(bitmap) {
                return Ok(());
            }
            self.set_hint(slow, ext, &block, true)?;
        } else if !hint {
            self.set_hint(slow, ext, &block, true)?;
        }
        slow.partial.entry(key).or_default().insert(span);
        Ok(())
    }

    fn set_hint(
        &self,
        slow: &mut Slow,
        ext: Extent,
        block: &Block,
        hint: bool,
    ) -> Result<(), HeapError> {
        if let Kind::Slab {
            class, type_index, ..
        } = block.kind
        {
            let desc = PageDesc::Slab {
                class,
                hint,
                type_index,
            };
            slow.batch.desc(ext, block.page, desc);
            let done = slow.batch.apply(&self.mem);
            slow.batch.clear();
            done?;
        }
        Ok(())
    }

    /// Makes the pages of a block free.
    pub(crate) fn free_pages(
        &self,
        slow: &mut Slow,
        slot: usize,
        block: &Block,
    ) -> Result<(), HeapError> {
        self.with_pages(slow, slot, |mem, pages, batch| {
            let ext = pages.ext;
            if matches!(block.kind, Kind::Slab { .. }) {
                // The same transaction may use the pages for something else, and then abort: the descriptor comes back,
                // so the header that it stands for must come back too.
                mem.before_write(ext.page_addr(block.page), SLAB_LINE)?;
            }
            batch.desc(ext, block.page, PageDesc::None);
            if block.pages > 1 {
                batch.desc(ext, block.page + 1, PageDesc::None);
            }
            pages.give(mem, batch, block.page, block.page + block.pages)
        })
    }

    /// Prepares changes of a puddle's pages with `plan` and makes them, or none of them.
    pub(crate) fn with_pages<R>(
        &self,
        slow: &mut Slow,
        slot: usize,
        plan: impl FnOnce(&M, &mut Pages, &mut Batch) -> Result<R, HeapError>,
    ) -> Result<R, HeapError> {
        let Slow { pages, batch, .. } = slow;
        let Some(pages) = pages.get_mut(slot).and_then(Option::as_mut) else {
            return Err(damaged("a puddle slot without a puddle", slot as u64, 0));
        };
        match plan(&self.mem, pages, batch) {
            Ok(result) => pages.commit(&self.mem, batch).map(|()| result),
            Err(e) => {
                pages.cancel(batch);
                Err(e)
            }
        }
    }

    /// Reads the descriptors of a puddle's chunks that were not read yet, all or until a span of `key` was found; `true`:
    /// there may be more to read.
    pub(crate) fn read_chunks(
        &self,
        slow: &mut Slow,
        slot: usize,
        key: Option<u64>,
    ) -> Result<bool, HeapError> {
        let Slow { pages, partial, .. } = slow;
        let Some(pages) = pages.get_mut(slot).and_then(Option::as_mut) else {
            return Ok(false);
        };
        let ext = pages.ext;
        while let Some(chunk) = pages.next_unread() {
            let range = chunk * CHUNK_PAGES..(chunk + 1) * CHUNK_PAGES;
            walk_blocks(&self.mem, ext, range, false, &mut |block| {
                match block.kind {
                    Kind::Free { order } => pages.found(block.page, order),
                    Kind::Slab {
                        class,
                        hint: true,
                        type_index,
                    } if !self.puddles.is_owned(slot, block.page) => {
                        let spans = partial.entry(key_of(class, type_index)).or_default();
                        spans.insert(ext.page_addr(block.page));
                    }
                    _ => {}
                }
                Ok(true)
            })?;
            pages.mark_read(chunk);
            if key.is_some_and(|k| partial.get(&k).is_some_and(|s| !s.is_empty())) {
                return Ok(pages.next_unread().is_some());
            }
        }
        Ok(false)
    }

    /// `len` bytes at `addr` were set back to earlier values by an abort. Only chunk headers and the pool page matter; any
    /// other range is ignored. No other thread is inside the heap.
    pub fn restored(&self, addr: u64, len: u64) {
        let end = addr.saturating_add(len);
        let headers = |ext: Extent| ext.base..ext.page_addr(ext.first_page());
        let pool_page = self.puddles.get(0).map(|ext| headers(ext).end);
        let pool_page = pool_page.is_some_and(|page| addr < page + PAGE_BYTES && end > page);
        let touched = |ext: Extent| addr < headers(ext).end && end > ext.base;
        // Most lines of an abort are the program's own.
        if !pool_page && !self.puddles.iter().any(|(_, ext)| touched(ext)) {
            return;
        }
        let mut slow = self.lock();
        let generation = self.generation.fetch_add(1, SeqCst).wrapping_add(1);
        for (slot, ext) in self.puddles.iter().filter(|(_, ext)| touched(*ext)) {
            let from = addr.max(ext.base);
            let to = end.min(headers(ext).end);
            let chunks = ext.page_of(from)..ext.page_of(to - 1) + 1;
            self.forget_chunks(&mut slow, slot, ext, chunks, generation);
        }
        if pool_page {
            self.reload_directory(&mut slow);
            drop(slow);
            // What was committed was valid when it was read before; types that are not any more are unknown.
            let _ = self.load_types();
        }
    }

    fn forget_chunks(
        &self,
        slow: &mut Slow,
        slot: usize,
        ext: Extent,
        chunks: std::ops::Range<u64>,
        generation: u64,
    ) {
        let start = ext.base + chunks.start * CHUNK_SIZE;
        let end = ext.base + chunks.end * CHUNK_SIZE;
        for spans in slow.partial.values_mut() {
            spans.retain(|s| !(start..end).contains(s));
        }
        for chunk in chunks {
            self.puddles.set_restored(slot, chunk, generation);
            if let Some(pages) = slow.pages.get_mut(slot).and_then(Option::as_mut) {
                pages.forget(chunk);
            }
        }
    }

    /// Takes all spans away from all thread caches, wherever they are. No other thread is inside the heap.
    pub fn reset_caches(&self) {
        let mut slow = self.lock();
        let generation = self.generation.fetch_add(1, SeqCst).wrapping_add(1);
        let puddles: Vec<_> = self.puddles.iter().collect();
        for (slot, ext) in puddles {
            self.forget_chunks(&mut slow, slot, ext, 0..ext.chunks(), generation);
        }
    }

    /// The puddle of a chunk that is numbered through all puddles, and its number there.
    pub(crate) fn chunk_place(&self, chunk: usize) -> Option<(usize, Extent, u64)> {
        let mut chunk = chunk as u64;
        for (slot, ext) in self.puddles.iter() {
            match chunk.checked_sub(ext.chunks()) {
                None => return Some((slot, ext, chunk)),
                Some(rest) => chunk = rest,
            }
        }
        None
    }
}

impl<M: PoolMemory, L: Locks> ObjectSpace for Heap<M, L> {
    fn object_at(&self, addr: u64) -> Option<Object> {
        let (_, ext) = self.puddles.locate(addr)?;
        find_object(&self.mem, ext, addr).ok().flatten()
    }

    fn chunk_count(&self) -> usize {
        self.puddles
            .iter()
            .map(|(_, ext)| ext.chunks() as usize)
            .sum()
    }

    fn chunk_range(&self, chunk: usize) -> Option<(u64, u64)> {
        let (_, ext, chunk) = self.chunk_place(chunk)?;
        let start = ext.base + chunk * CHUNK_SIZE;
        Some((start, start + CHUNK_SIZE))
    }

    fn for_each_object(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        if let Some((_, ext, chunk)) = self.chunk_place(chunk) {
            // Damage ends the enumeration here; `check` reports it.
            let _ = block::for_each_object_in(&self.mem, ext, chunk, false, f);
        }
    }

    fn for_each_overlapping(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        if let Some((_, ext, chunk)) = self.chunk_place(chunk) {
            let _ = block::for_each_object_in(&self.mem, ext, chunk, true, f);
        }
    }

    fn for_each_untyped(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        if let Some((_, ext, chunk)) = self.chunk_place(chunk) {
            let _ = block::for_each_untyped_in(&self.mem, ext, chunk, f);
        }
    }

    fn for_each_within(&self, from: u64, to: u64, f: &mut dyn FnMut(Object) -> bool) {
        if let Some((_, ext)) = self.puddles.locate(from) {
            let end = ext.page_of(to.saturating_sub(1)).saturating_add(1);
            let _ = block::for_each_object_of_pages(&self.mem, ext, ext.page_of(from)..end, f);
        }
    }

    fn for_each_span(&self, chunk: usize, f: &mut dyn FnMut(u64, u64, u32) -> bool) {
        if let Some((_, ext, chunk)) = self.chunk_place(chunk) {
            let _ = block::for_each_span_in(&self.mem, ext, chunk, f);
        }
    }

    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        self.mem.words(addr, count)
    }

    fn type_desc(&self, index: u32) -> Option<&TypeDesc> {
        self.types.get(index)
    }

    fn root(&self) -> Option<u64> {
        self.root_place().ok().and_then(|p| self.puddles.address(p))
    }
}

impl<M: PoolMemory, L: Locks> SpanSpace for Heap<M, L> {
    fn puddle_at(&self, addr: u64) -> Option<(u64, u64)> {
        self.puddles.locate(addr).map(|(_, e)| (e.base, e.end()))
    }

    fn span_at(&self, addr: u64) -> Option<Span> {
        let (_, ext) = self.puddles.locate(addr)?;
        block::find_span(&self.mem, ext, addr).ok()
    }
}
