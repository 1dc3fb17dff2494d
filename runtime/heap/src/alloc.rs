//! Allocation: the fast path from a span that the thread owns, and where spans and large objects come from.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use vernal_abi::puddle::{PUDDLE_MAX_SHIFT, PUDDLE_MIN};
use vernal_format::puddle::{
    CHUNK_PAGES, CLASSES, Class, Extent, PAGE_BYTES, PAGE_SHIFT, PageDesc, class_for,
};

use crate::batch::Batch;
use crate::block::{Kind, block_at, slab_header};
use crate::cache::key_of;
use crate::heap::{Slow, damaged};
use crate::locks::Locks;
use crate::{Heap, HeapError, PoolMemory, ThreadCache};

const LINE_WORDS: usize = 8;

impl<M: PoolMemory> Heap<M> {
    /// Smallest puddle in which an object of `size` bytes fits.
    pub fn puddle_size_for(size: u64) -> Result<u64, HeapError> {
        let pages = size.div_ceil(PAGE_BYTES);
        (0..=PUDDLE_MAX_SHIFT)
            .map(|shift| PUDDLE_MIN << shift)
            .find(|bytes| {
                let chunks = bytes / PUDDLE_MIN;
                chunks * (CHUNK_PAGES - 1) >= pages
            })
            .ok_or(HeapError::TooLarge { size })
    }
}

impl<M: PoolMemory, L: Locks> Heap<M, L> {
    /// Allocates `size` bytes at a multiple of `align` and of 16. All bytes of the object are zero, those included that
    /// nobody asked for.
    ///
    /// [`HeapError::Full`] asks for another puddle.
    #[inline]
    pub fn alloc(
        &self,
        cache: &mut ThreadCache,
        size: u64,
        align: u64,
        type_index: u32,
    ) -> Result<u64, HeapError> {
        if !align.is_power_of_two() || align > PAGE_BYTES {
            return Err(HeapError::Align { align });
        }
        let Some(index) = class_for(size, align) else {
            return self.alloc_pages(cache, size, type_index);
        };
        let Some(class) = CLASSES.get(index) else {
            return Err(HeapError::Align { align });
        };
        if cache.generation != self.generation.load(Relaxed) || cache.heap != self.id {
            self.renew(cache)?;
        }
        let key = key_of(index, type_index);
        if let Some(entry) = cache.find(key)
            && let Some(words) = self.span_words(entry.span, class)
            && let Some((word, slot)) = self.claim(entry.span, words, class, entry.word)?
        {
            entry.word = word;
            return self.fresh(entry.span, words, class, slot);
        }
        self.alloc_slow(cache, key, index, class, type_index)
    }

    #[inline(always)]
    fn span_words(&self, span: u64, class: &Class) -> Option<&[AtomicU64]> {
        if span == 0 {
            return None;
        }
        self.mem.words(span, class.span_bytes() as usize / 8)
    }

    /// Takes a free slot of an owned span. `from`: the word of the bitmap where to begin.
    #[inline(always)]
    fn claim(
        &self,
        span: u64,
        words: &[AtomicU64],
        class: &Class,
        from: usize,
    ) -> Result<Option<(usize, u32)>, HeapError> {
        // The first word nearly always has one: that is where the last one was.
        for step in 0..Class::BITMAP_WORDS {
            let i = (from + step) % Class::BITMAP_WORDS;
            let (Some(word), Some(valid)) = (words.get(Class::BITMAP_WORD + i), class.valid.get(i))
            else {
                break;
            };
            loop {
                let free = !word.load(Relaxed) & valid;
                if free == 0 {
                    break;
                }
                let addr = span + ((Class::BITMAP_WORD + i) * 8) as u64;
                let bit = free & free.wrapping_neg();
                self.mem.before_write(addr, 8)?;
                // Claimed before it is zeroed: two processes that both believe to own the span still get two slots.
                if self.mem.change_bits(word, 0, bit) & bit == 0 {
                    self.mem.after_write(addr, 8);
                    let slot = i as u32 * 64 + bit.trailing_zeros();
                    return Ok(Some((i, slot)));
                }
            }
        }
        Ok(None)
    }

    /// Zeroes a slot that was just claimed. Its old content matters to nobody, whether the claim is undone or not, so there
    /// is nothing to log.
    #[inline(always)]
    fn fresh(
        &self,
        span: u64,
        words: &[AtomicU64],
        class: &Class,
        slot: u32,
    ) -> Result<u64, HeapError> {
        let offset = class.slot_offset(slot);
        let first = offset as usize / 8;
        let Some(object) = words.get(first..first + class.size as usize / 8) else {
            return Err(damaged("a slab span", span, offset));
        };
        let dirty = object.iter().fold(0, |all, w| all | w.load(Relaxed));
        if dirty != 0 {
            for word in object {
                word.store(0, Relaxed);
            }
        }
        // Lines that were zero stay clean: the program's own stores will mark them.
        if dirty != 0 || self.mem.reports_unchanged() {
            self.mem.after_write(span + offset, class.size);
        }
        Ok(span + offset)
    }

    /// Gives the spans of a cache back that has not seen the last abort.
    #[cold]
    fn renew(&self, cache: &mut ThreadCache) -> Result<(), HeapError> {
        if cache.heap != self.id {
            return Err(HeapError::ForeignCache);
        }
        let mut slow = self.lock();
        let seen = cache.generation;
        cache.generation = self.generation.load(SeqCst);
        for span in cache.take_spans() {
            self.release_span(&mut slow, seen, span)?;
        }
        Ok(())
    }

    #[cold]
    fn alloc_slow(
        &self,
        cache: &mut ThreadCache,
        key: u64,
        index: usize,
        class: &Class,
        type_index: u32,
    ) -> Result<u64, HeapError> {
        self.types.validate(type_index)?;
        let mut slow = self.lock();
        self.drain_orphans(&mut slow)?;
        if let Some(entry) = cache.find(key)
            && entry.span != 0
        {
            let span = std::mem::take(&mut entry.span);
            self.release_span(&mut slow, cache.generation, span)?;
        }
        loop {
            let span = self.span_for(&mut slow, key, index, class, type_index)?;
            let Some((slot, ext)) = self.puddles.locate(span) else {
                continue;
            };
            let Some(words) = self.span_words(span, class) else {
                let len = class.span_bytes();
                return Err(HeapError::Unmapped { addr: span, len });
            };
            self.puddles.set_owned(slot, ext.page_of(span), true);
            match self.claim(span, words, class, 0) {
                Ok(Some((_, free))) => {
                    cache.set(key, span);
                    drop(slow);
                    return self.fresh(span, words, class, free);
                }
                // Full, although it was among those with free slots: says so, and is not offered again.
                Ok(None) => self.release_span(&mut slow, u64::MAX, span)?,
                Err(e) => {
                    self.release_span(&mut slow, u64::MAX, span)?;
                    return Err(e);
                }
            }
        }
    }

    /// A span for the class and type that nobody owns: one with free slots, else a new one.
    fn span_for(
        &self,
        slow: &mut Slow,
        key: u64,
        index: usize,
        class: &Class,
        type_index: u32,
    ) -> Result<u64, HeapError> {
        let mut slots = self.puddles.iter().map(|(slot, _)| slot);
        let mut reading = slots.next();
        loop {
            while let Some(span) = slow.partial.get_mut(&key).and_then(BTreeSet::pop_first) {
                let Some((slot, ext)) = self.puddles.locate(span) else {
                    continue;
                };
                let page = ext.page_of(span);
                let wanted = match block_at(&self.mem, ext, page) {
                    Ok(block) => matches!(block.kind, Kind::Slab { class, type_index: t, .. }
                        if class == index && t == type_index),
                    Err(_) => false,
                };
                if !wanted || self.puddles.is_owned(slot, page) {
                    continue;
                }
                slab_header(&self.mem, span, class, type_index)?;
                return Ok(span);
            }
            let Some(slot) = reading else { break };
            if !self.read_chunks(slow, slot, Some(key))? {
                reading = slots.next();
            }
        }
        self.new_span(slow, index, class, type_index)
    }

    fn new_span(
        &self,
        slow: &mut Slow,
        index: usize,
        class: &Class,
        type_index: u32,
    ) -> Result<u64, HeapError> {
        let desc = PageDesc::Slab {
            class: index,
            hint: true,
            type_index,
        };
        let pages = 1 << class.order;
        let span = self.take_pages(slow, pages, |mem, batch, ext, page| {
            // Asked here too, because the line is written first: memory that takes no change must not be touched.
            mem.before_write(ext.desc_word(page).0, 8)?;
            // The line was free memory, so it is written without a log; the descriptor makes it count.
            let addr = ext.page_addr(page);
            let words = mem
                .words(addr, Class::HEADER_WORDS)
                .ok_or(HeapError::Unmapped { addr, len: 64 })?;
            for (i, word) in words.iter().enumerate() {
                let value = match i {
                    0 => class.head,
                    Class::TYPE_WORD => u64::from(type_index),
                    _ => 0,
                };
                word.store(value, Relaxed);
            }
            mem.after_write(addr, 64);
            batch.desc(ext, page, desc);
            Ok(())
        })?;
        span.ok_or(HeapError::Full {
            need: Heap::<M>::puddle_size_for(class.span_bytes())?,
        })
    }

    /// Takes consecutive pages from the first puddle that has them; `describe` adds their descriptors.
    fn take_pages(
        &self,
        slow: &mut Slow,
        pages: u64,
        describe: impl Fn(&M, &mut Batch, Extent, u64) -> Result<(), HeapError>,
    ) -> Result<Option<u64>, HeapError> {
        loop {
            for (slot, ext) in self.puddles.iter() {
                if pages > ext.pages() - ext.first_page() {
                    continue;
                }
                self.read_chunks(slow, slot, None)?;
                let page = self.with_pages(slow, slot, |mem, free, batch| {
                    let page = free.take(mem, batch, pages)?;
                    if let Some(page) = page {
                        describe(mem, batch, ext, page)?;
                    }
                    Ok(page)
                })?;
                if let Some(page) = page {
                    return Ok(Some(ext.page_addr(page)));
                }
            }
            // Spans that a dead process or an abort has left empty.
            if !self.release_empty_spans(slow)? {
                return Ok(None);
            }
        }
    }

    /// Allocates whole pages.
    fn alloc_pages(
        &self,
        cache: &mut ThreadCache,
        size: u64,
        type_index: u32,
    ) -> Result<u64, HeapError> {
        if cache.heap != self.id {
            return Err(HeapError::ForeignCache);
        }
        self.types.validate(type_index)?;
        let need = Heap::<M>::puddle_size_for(size)?;
        let (pages, unused) = shape(size);
        let addr = {
            let mut slow = self.lock();
            self.drain_orphans(&mut slow)?;
            self.take_pages(&mut slow, pages, |_, batch, ext, page| {
                describe_run(batch, ext, page, pages, unused, type_index);
                Ok(())
            })?
        };
        let addr = addr.ok_or(HeapError::Full { need })?;
        self.zero(addr, pages << PAGE_SHIFT)?;
        Ok(addr)
    }

    /// Zeroes memory that was free before.
    pub(crate) fn zero(&self, addr: u64, bytes: u64) -> Result<(), HeapError> {
        let end = addr + bytes;
        let mut at = addr;
        while at < end {
            let len = PAGE_BYTES.min(end - at);
            let unmapped = HeapError::Unmapped { addr: at, len };
            // A page that was never written, or not since it was freed, is the common case.
            if !self.mem.reports_unchanged() && self.mem.is_zero(at, len as usize / 8) == Some(true)
            {
                at += len;
                continue;
            }
            let words = self.mem.words(at, len as usize / 8).ok_or(unmapped)?;
            let mut line_addr = at;
            for line in words.chunks(LINE_WORDS) {
                let dirty = line.iter().fold(0, |all, w| all | w.load(Relaxed));
                if dirty != 0 {
                    for word in line {
                        word.store(0, Relaxed);
                    }
                }
                if dirty != 0 || self.mem.reports_unchanged() {
                    self.mem.after_write(line_addr, line.len() as u64 * 8);
                }
                line_addr += line.len() as u64 * 8;
            }
            at += len;
        }
        Ok(())
    }
}

/// Pages of an object of `size` bytes that does not fit a slab, or has to be aligned like a page; and the words of the last
/// page that it does not use.
pub(crate) fn shape(size: u64) -> (u64, u64) {
    // An object of no bytes still has an address that no other object has.
    let size = size.max(1).next_multiple_of(8);
    let pages = size.div_ceil(PAGE_BYTES);
    (pages, ((pages << PAGE_SHIFT) - size) / 8)
}

/// Adds the descriptors of an object of whole pages.
pub(crate) fn describe_run(
    batch: &mut Batch,
    ext: Extent,
    page: u64,
    pages: u64,
    unused: u64,
    type_index: u32,
) {
    if pages == 1 {
        batch.desc(ext, page, PageDesc::Page { unused, type_index });
    } else {
        batch.desc(ext, page, PageDesc::Run { unused, type_index });
        batch.desc(ext, page + 1, PageDesc::Ext { pages });
    }
}
