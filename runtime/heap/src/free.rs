//! Freeing and resizing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use vernal_format::puddle::{
    CLASSES, Class, Extent, PAGE_BYTES, PAGE_SHIFT, PageDesc, SLAB_MAX, class_for,
};

use crate::alloc::{describe_run, shape};
use crate::block::{Block, Kind, find_block, slab_header};
use crate::heap::damaged;
use crate::locks::Locks;
use crate::{Heap, HeapError, Object, ObjectSpace, PoolMemory, ThreadCache};

/// An object that begins at the address in question.
struct Found {
    slot: usize,
    ext: Extent,
    block: Block,
    object: Object,
    in_slab: bool,
}

/// A slab object that begins at the address in question, ready to be freed.
struct SlabObject<'a> {
    /// First page of the span, the word of its descriptor and where it begins there.
    page: u64,
    desc: &'a AtomicU64,
    shift: u32,
    bitmap: &'a [AtomicU64],
    /// The object's word and bit in the bitmap.
    word: &'a AtomicU64,
    word_addr: u64,
    bit: u64,
}

/// log2 of the pages of the largest span.
const SPAN_ORDER_MAX: u32 = 3;

impl<M: PoolMemory, L: Locks> Heap<M, L> {
    /// The object at `addr`, or why that is no object.
    fn exact(&self, addr: u64) -> Result<Found, HeapError> {
        let Some((slot, ext)) = self.puddles.locate(addr) else {
            return Err(HeapError::Outside { addr });
        };
        let page = ext.page_of(addr);
        if page < ext.first_page() {
            return Err(HeapError::NotAllocated { addr });
        }
        let block = find_block(&self.mem, ext, page)?;
        let start = ext.page_addr(block.page);
        match block.kind {
            Kind::Free { .. } | Kind::Pool => Err(HeapError::NotAllocated { addr }),
            Kind::Object { .. } if addr != start => Err(HeapError::Interior {
                addr,
                object: start,
            }),
            Kind::Object { bytes, type_index } => Ok(Found {
                slot,
                ext,
                block,
                object: Object {
                    addr,
                    size: bytes,
                    type_index,
                },
                in_slab: false,
            }),
            Kind::Slab {
                class, type_index, ..
            } => {
                let Some(class) = CLASSES.get(class) else {
                    return Err(HeapError::NotAllocated { addr });
                };
                let bitmap = slab_header(&self.mem, start, class, type_index)?;
                let Some((index, inside)) = class.slot_at(addr - start) else {
                    return Err(HeapError::NotAllocated { addr });
                };
                let (word, bit) = (index as usize / 64, 1u64 << (index % 64));
                let bits = bitmap.get(word).map_or(0, |w| w.load(Relaxed));
                if bits & bit == 0 {
                    return Err(HeapError::NotAllocated { addr });
                }
                if inside != 0 {
                    let object = addr - inside;
                    return Err(HeapError::Interior { addr, object });
                }
                Ok(Found {
                    slot,
                    ext,
                    block,
                    object: Object {
                        addr,
                        size: class.size,
                        type_index,
                    },
                    in_slab: true,
                })
            }
        }
    }

    /// The object that begins at `addr`: what [`free`](Self::free) checks, without freeing.
    pub fn object_exact(&self, addr: u64) -> Result<Object, HeapError> {
        self.exact(addr).map(|found| found.object)
    }

    /// Frees the object at `addr`, from any thread.
    #[inline]
    pub fn free(&self, addr: u64) -> Result<(), HeapError> {
        let Some((slot, ext)) = self.puddles.locate(addr) else {
            return Err(HeapError::Outside { addr });
        };
        let Some(small) = self.slab_object(ext, addr) else {
            return self.free_pages_or_refuse(addr);
        };
        self.mem.before_write(small.word_addr, 8)?;
        // Of two threads that free the same object one finds the bit gone.
        let old = self.mem.change_bits(small.word, small.bit, 0);
        self.mem.after_write(small.word_addr, 8);
        if old & small.bit == 0 {
            return Err(HeapError::NotAllocated { addr });
        }
        // Looked at again after the bitmap has changed: the span's owner may just have found it full.
        let hint = PageDesc::slab((small.desc.load(SeqCst) >> small.shift) as u32)
            .is_some_and(|(_, hint, _)| hint);
        if hint
            && (old != small.bit
                || small.bitmap.iter().any(|w| w.load(SeqCst) != 0)
                || self.puddles.is_owned(slot, small.page))
        {
            return Ok(());
        }
        self.settle_span(slot, ext, small.page)
    }

    /// The slab object that begins at `addr`; `None`: there is none, for whatever reason.
    #[inline(always)]
    fn slab_object(&self, ext: Extent, addr: u64) -> Option<SlabObject<'_>> {
        let of = ext.page_of(addr);
        for order in 0..=SPAN_ORDER_MAX {
            let page = of & !((1 << order) - 1);
            if page < ext.first_page() {
                return None;
            }
            let (desc_addr, shift) = ext.desc_word(page);
            let desc = self.mem.words(desc_addr, 1)?.first()?;
            let bits = (desc.load(Relaxed) >> shift) as u32;
            if bits == 0 {
                continue;
            }
            let (class, _, type_index) = PageDesc::slab(bits)?;
            let class = CLASSES.get(class)?;
            let span = ext.page_addr(page);
            let words = self.mem.words(span, Class::HEADER_WORDS)?;
            let [head, type_word, bitmap @ .., _, _] = words else {
                return None;
            };
            let (index, inside) = class.slot_at(addr.wrapping_sub(span))?;
            let (at, bit) = (index as usize / 64, 1u64 << (index % 64));
            let word = bitmap.get(at)?;
            if head.load(Relaxed) != class.head
                || type_word.load(Relaxed) != u64::from(type_index)
                || inside != 0
                || word.load(Relaxed) & bit == 0
            {
                return None;
            }
            return Some(SlabObject {
                page,
                desc,
                shift,
                bitmap,
                word,
                word_addr: span + ((Class::BITMAP_WORD + at) * 8) as u64,
                bit,
            });
        }
        None
    }

    #[cold]
    fn settle_span(&self, slot: usize, ext: Extent, page: u64) -> Result<(), HeapError> {
        self.place_span(&mut self.lock(), slot, ext, page)
    }

    #[cold]
    fn free_pages_or_refuse(&self, addr: u64) -> Result<(), HeapError> {
        let Found {
            slot,
            ext,
            block,
            in_slab,
            ..
        } = self.exact(addr)?;
        if in_slab {
            // It was not there a moment ago.
            return Err(HeapError::NotAllocated { addr });
        }
        self.free_object_pages(slot, ext, block)
    }

    fn free_object_pages(&self, slot: usize, ext: Extent, block: Block) -> Result<(), HeapError> {
        let mut slow = self.lock();
        // Another thread may have freed it before this one had the lock.
        if find_block(&self.mem, ext, block.page)? != block {
            let addr = ext.page_addr(block.page);
            return Err(HeapError::NotAllocated { addr });
        }
        self.free_pages(&mut slow, slot, &block)
    }

    /// Whether the object at `addr` would leave pages to others if it were resized where it lies.
    pub fn gives_pages_back(&self, addr: u64, size: u64) -> Result<bool, HeapError> {
        let found = self.exact(addr)?;
        Ok(!found.in_slab && shape(size).0 < found.block.pages)
    }

    /// Changes the size of the object at `addr` where it lies; `false`: it has to move. Bytes that are new are zero, and so
    /// are those that no longer belong to it.
    pub fn resize_in_place(&self, addr: u64, size: u64) -> Result<bool, HeapError> {
        let found = self.exact(addr)?;
        let object = found.object;
        if found.in_slab {
            // A slab object stays while it fits and uses half of its slot.
            let stays = size <= object.size && (size * 2 >= object.size || object.size <= 16);
            if stays {
                self.clear(addr + size, addr + object.size)?;
            }
            return Ok(stays);
        }
        if size <= SLAB_MAX {
            return Ok(false);
        }
        Heap::<M>::puddle_size_for(size)?;
        let (pages, unused) = shape(size);
        let old_pages = found.block.pages;
        let mut slow = self.lock();
        let grown = self.with_pages(&mut slow, found.slot, |mem, free, batch| {
            let page = found.block.page;
            if pages > old_pages && !free.extend(mem, batch, page, old_pages, pages)? {
                return Ok(false);
            }
            if pages < old_pages {
                if pages == 1 {
                    batch.desc(found.ext, page + 1, PageDesc::None);
                }
                free.give(mem, batch, page + pages, page + old_pages)?;
            }
            let type_index = object.type_index;
            describe_run(batch, found.ext, page, pages, unused, type_index);
            Ok(true)
        })?;
        drop(slow);
        let new_end = addr + (pages << PAGE_SHIFT);
        let used_end = addr + object.size;
        if grown && size > object.size {
            self.zero(used_end, new_end - used_end)?;
        }
        if size < object.size {
            // The rest of the last page still was the object's: an abort gives it back, so it is logged.
            self.clear(addr + size, new_end.min(used_end))?;
        }
        Ok(grown)
    }

    /// Zeroes bytes that belong to an object.
    fn clear(&self, start: u64, end: u64) -> Result<(), HeapError> {
        let mut at = start & !7;
        while at < end {
            let len = PAGE_BYTES.min(end - at);
            let words = self
                .mem
                .words(at, len.div_ceil(8) as usize)
                .ok_or(HeapError::Unmapped { addr: at, len })?;
            for (i, word) in words.iter().enumerate() {
                let addr = at + i as u64 * 8;
                let old = word.load(Relaxed);
                let kept = start.saturating_sub(addr).min(8) as u32;
                let mask = u64::MAX.checked_shl(kept * 8).unwrap_or(0);
                if old & mask != 0 {
                    self.mem.before_write(addr, 8)?;
                    word.store(old & !mask, Relaxed);
                    self.mem.after_write(addr, 8);
                }
            }
            at += len;
        }
        Ok(())
    }

    /// Changes the size of the object at `addr` and returns where it lies now. Bytes that are new are zero. When it moves,
    /// its type and the alignment of its type are kept.
    ///
    /// A pool that frees at commit uses [`resize_in_place`](Self::resize_in_place), unless that
    /// [`gives_pages_back`](Self::gives_pages_back), [`move_to`](Self::move_to) and its own free instead.
    pub fn realloc(&self, cache: &mut ThreadCache, addr: u64, size: u64) -> Result<u64, HeapError> {
        if self.resize_in_place(addr, size)? {
            return Ok(addr);
        }
        let to = self.move_to(cache, addr, size)?;
        self.free(addr)?;
        Ok(to)
    }

    /// Allocates `size` bytes of the type of the object at `addr` and copies what fits. The old object stays.
    pub fn move_to(&self, cache: &mut ThreadCache, addr: u64, size: u64) -> Result<u64, HeapError> {
        let object = self.object_exact(addr)?;
        let align = self
            .type_desc(object.type_index)
            .map_or(16, |t| u64::from(t.align()).clamp(16, PAGE_BYTES))
            .next_power_of_two();
        let to = self.alloc(cache, size, align, object.type_index)?;
        self.copy(addr, to, size.min(object.size))?;
        Ok(to)
    }

    fn copy(&self, from: u64, to: u64, bytes: u64) -> Result<(), HeapError> {
        let mut done = 0;
        while done < bytes {
            let len = PAGE_BYTES.min(bytes - done);
            let count = len.div_ceil(8) as usize;
            let words = |addr| {
                let words = self.mem.words(addr, count);
                words.ok_or(HeapError::Unmapped { addr, len })
            };
            let (src, dst) = (words(from + done)?, words(to + done)?);
            for (i, (src, dst)) in src.iter().zip(dst).enumerate() {
                let left = len - i as u64 * 8;
                let mask = if left < 8 {
                    (1 << (left * 8)) - 1
                } else {
                    u64::MAX
                };
                dst.store(src.load(Relaxed) & mask, Relaxed);
            }
            self.mem.after_write(to + done, len);
            done += len;
        }
        Ok(())
    }
}

impl<M: PoolMemory> Heap<M> {
    /// Whether an object of `size` bytes would lie in a slab.
    pub fn is_small(size: u64, align: u64) -> bool {
        class_for(size, align).is_some()
    }
}

impl<M: PoolMemory, L: Locks> Heap<M, L> {
    pub(crate) fn check_place(&self, what: &'static str, addr: u64) -> Result<u64, HeapError> {
        if addr == 0 {
            return Ok(0);
        }
        self.object_exact(addr)?;
        let place = self.puddles.place(addr);
        place.map(|p| p.0).ok_or_else(|| damaged(what, addr, 0))
    }
}
