//! What the page descriptors say: which block a page belongs to, and which objects are in it.
//!
//! Only loads: no lock, no allocation, no panic, whatever the words hold. So a signal handler may enumerate the objects of a
//! chunk that another thread has just touched, over whatever memory it is given.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vernal_format::puddle::{
    CHUNK_PAGES, CLASSES, Class, Extent, PAGE_BYTES, PAGE_SHIFT, PageDesc,
};

use crate::{HeapError, Object, PoolMemory, Span};

/// Orders of blocks: the largest puddle has 2^26 pages.
pub(crate) const ORDERS: usize = 27;

/// A run of pages that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub page: u64,
    pub pages: u64,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Free {
        order: u32,
    },
    Slab {
        class: usize,
        hint: bool,
        type_index: u32,
    },
    /// An object of whole pages; `bytes` are its usable bytes.
    Object {
        bytes: u64,
        type_index: u32,
    },
    Pool,
}

/// One word.
#[inline(always)]
pub(crate) fn word<M: PoolMemory + ?Sized>(mem: &M, addr: u64) -> Result<&AtomicU64, HeapError> {
    mem.words(addr, 1)
        .and_then(|w| w.first())
        .ok_or_else(|| unmapped(addr, 8))
}

// Made out of line: an error that is made before it is known to be needed costs the fast paths its destructor.
#[cold]
pub(crate) fn unmapped(addr: u64, len: u64) -> HeapError {
    HeapError::Unmapped { addr, len }
}

/// Loads `N` words.
pub(crate) fn load<M: PoolMemory + ?Sized, const N: usize>(
    mem: &M,
    addr: u64,
) -> Result<[u64; N], HeapError> {
    let words = mem
        .words(addr, N)
        .ok_or_else(|| unmapped(addr, N as u64 * 8))?;
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(words) {
        *to = from.load(Relaxed);
    }
    Ok(out)
}

/// The bits of a page's descriptor.
#[inline(always)]
pub(crate) fn desc_bits<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    page: u64,
) -> Result<u32, HeapError> {
    let (addr, shift) = ext.desc_word(page);
    Ok((word(mem, addr)?.load(Relaxed) >> shift) as u32)
}

pub(crate) fn bad_desc(ext: Extent, page: u64, bits: u32) -> HeapError {
    let (addr, shift) = ext.desc_word(page);
    HeapError::Damaged {
        what: "a page descriptor",
        addr: addr + u64::from(shift / 8),
        value: bits.into(),
    }
}

/// The block that begins at `page`.
pub(crate) fn block_at<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    page: u64,
) -> Result<Block, HeapError> {
    let bits = desc_bits(mem, ext, page)?;
    let bad = || bad_desc(ext, page, bits);
    let aligned = |order: u32| page & ((1u64 << order) - 1) == 0;
    let (pages, kind) = match PageDesc::decode(bits).ok_or_else(bad)? {
        PageDesc::Free { order } if (order as usize) < ORDERS && aligned(order) => {
            (1 << order, Kind::Free { order })
        }
        PageDesc::Slab {
            class,
            hint,
            type_index,
        } => {
            let order = CLASSES.get(class).ok_or_else(bad)?.order;
            if !aligned(order) {
                return Err(bad());
            }
            let kind = Kind::Slab {
                class,
                hint,
                type_index,
            };
            (1 << order, kind)
        }
        PageDesc::Page { unused, type_index } => {
            let bytes = PAGE_BYTES - unused * 8;
            (1, Kind::Object { bytes, type_index })
        }
        PageDesc::Run { unused, type_index } => {
            let next = page + 1;
            if next >= ext.pages() {
                return Err(bad());
            }
            let ext_bits = desc_bits(mem, ext, next)?;
            let Some(PageDesc::Ext { pages }) = PageDesc::decode(ext_bits) else {
                return Err(bad_desc(ext, next, ext_bits));
            };
            let order = pages.max(1).next_power_of_two().trailing_zeros();
            if pages < 2 || !(aligned(order) || page == ext.first_page()) {
                return Err(bad_desc(ext, next, ext_bits));
            }
            let bytes = (pages << PAGE_SHIFT) - unused * 8;
            (pages, Kind::Object { bytes, type_index })
        }
        PageDesc::Pool if page == ext.first_page() => (1, Kind::Pool),
        _ => return Err(bad()),
    };
    if page < ext.first_page() || page.checked_add(pages).is_none_or(|end| end > ext.pages()) {
        return Err(bad());
    }
    Ok(Block { page, pages, kind })
}

/// The block that `page` belongs to.
///
/// Blocks are aligned to their size rounded up, so the block begins at the first page with a descriptor among those that
/// `page` rounds down to. The exception is an object that begins at the first page of the heap, whatever its size.
pub(crate) fn find_block<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    page: u64,
) -> Result<Block, HeapError> {
    let first = ext.first_page();
    if page < first || page >= ext.pages() {
        return Err(HeapError::Outside {
            addr: ext.page_addr(page),
        });
    }
    let mut last = u64::MAX;
    for order in 0..ORDERS as u32 {
        let candidate = page & !((1u64 << order) - 1);
        if candidate < first {
            break;
        }
        if candidate == last {
            continue;
        }
        last = candidate;
        let bits = desc_bits(mem, ext, candidate)?;
        if bits == 0 {
            continue;
        }
        let head = match PageDesc::decode(bits) {
            Some(PageDesc::Ext { .. }) => candidate - 1,
            _ => candidate,
        };
        let block = block_at(mem, ext, head)?;
        if block.page + block.pages > page {
            return Ok(block);
        }
        return Err(bad_desc(ext, candidate, bits));
    }
    let block = block_at(mem, ext, first)?;
    if block.pages > page - first {
        Ok(block)
    } else {
        Err(bad_desc(ext, page, 0))
    }
}

/// The bitmap of the span at `span`, if its header says what its descriptor says.
#[inline(always)]
pub(crate) fn slab_header<'a, M: PoolMemory + ?Sized>(
    mem: &'a M,
    span: u64,
    class: &Class,
    type_index: u32,
) -> Result<&'a [AtomicU64], HeapError> {
    let words = mem
        .words(span, Class::HEADER_WORDS)
        .ok_or_else(|| unmapped(span, Class::HEADER_WORDS as u64 * 8))?;
    let value = |i: usize| words.get(i).map_or(0, |w| w.load(Relaxed));
    if value(0) != class.head {
        return Err(damaged_slab(span, value(0)));
    }
    if value(Class::TYPE_WORD) != u64::from(type_index) {
        return Err(damaged_slab(span + 8, value(Class::TYPE_WORD)));
    }
    words
        .get(Class::BITMAP_WORD..Class::BITMAP_WORD + Class::BITMAP_WORDS)
        .ok_or_else(|| damaged_slab(span, 0))
}

#[cold]
fn damaged_slab(addr: u64, value: u64) -> HeapError {
    HeapError::Damaged {
        what: "a slab header that contradicts its page descriptor",
        addr,
        value,
    }
}

/// Calls `f` with every object of `block`, until it returns `false`; then returns `false`.
pub(crate) fn objects_of<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    block: &Block,
    f: &mut dyn FnMut(Object) -> bool,
) -> Result<bool, HeapError> {
    let addr = ext.page_addr(block.page);
    match block.kind {
        Kind::Free { .. } | Kind::Pool => Ok(true),
        Kind::Object { bytes, type_index } => Ok(f(Object {
            addr,
            size: bytes,
            type_index,
        })),
        Kind::Slab {
            class, type_index, ..
        } => {
            let Some(class) = CLASSES.get(class) else {
                return Ok(true);
            };
            let bitmap = slab_header(mem, addr, class, type_index)?;
            for (i, (word, valid)) in bitmap.iter().zip(class.valid).enumerate() {
                let mut bits = word.load(Relaxed) & valid;
                while bits != 0 {
                    let slot = i as u32 * 64 + bits.trailing_zeros();
                    bits &= bits - 1;
                    let object = Object {
                        addr: addr + class.slot_offset(slot),
                        size: class.size,
                        type_index,
                    };
                    if !f(object) {
                        return Ok(false);
                    }
                }
            }
            Ok(true)
        }
    }
}

/// Calls `f` with every block that begins in `pages`, in order, until it returns `false`. A block that covers the first of
/// the pages and begins before is skipped, or comes first if `overlapping`.
pub(crate) fn walk_blocks<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    pages: std::ops::Range<u64>,
    overlapping: bool,
    f: &mut dyn FnMut(&Block) -> Result<bool, HeapError>,
) -> Result<(), HeapError> {
    let mut page = pages.start.max(ext.first_page());
    let end = pages.end.min(ext.pages());
    if page >= end {
        return Ok(());
    }
    let block = find_block(mem, ext, page)?;
    if block.page < page {
        if overlapping && !f(&block)? {
            return Ok(());
        }
        page = block.page + block.pages;
    }
    while page < end {
        let block = block_at(mem, ext, page)?;
        if !f(&block)? {
            return Ok(());
        }
        page += block.pages;
    }
    Ok(())
}

/// Calls `f` with the objects of a chunk of the puddle `ext`, until it returns `false`: those that begin in it, and first,
/// if `overlapping`, the one that reaches into it. Takes no lock and allocates nothing.
pub fn for_each_object_in<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    chunk: u64,
    overlapping: bool,
    f: &mut dyn FnMut(Object) -> bool,
) -> Result<(), HeapError> {
    let first = chunk.saturating_mul(CHUNK_PAGES);
    let pages = first..first.saturating_add(CHUNK_PAGES);
    walk_blocks(mem, ext, pages, overlapping, &mut |block| {
        objects_of(mem, ext, block, f)
    })
}

/// Like [`for_each_object_in`] with `overlapping`, for the blocks of some pages of the puddle.
pub fn for_each_object_of_pages<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    pages: std::ops::Range<u64>,
    f: &mut dyn FnMut(Object) -> bool,
) -> Result<(), HeapError> {
    walk_blocks(mem, ext, pages, true, &mut |block| {
        objects_of(mem, ext, block, f)
    })
}

/// Whether a page of the chunk may begin a block without type. Looks at nothing but the chunk's descriptors.
fn may_begin_untyped<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    chunk: u64,
) -> Result<bool, HeapError> {
    let (addr, _) = ext.desc_word(chunk.saturating_mul(CHUNK_PAGES));
    let count = (CHUNK_PAGES / 2) as usize;
    let words = mem
        .words(addr, count)
        .ok_or_else(|| unmapped(addr, CHUNK_PAGES * 4))?;
    Ok(words.iter().any(|w| {
        let both = w.load(Relaxed);
        PageDesc::may_be_untyped(both as u32) || PageDesc::may_be_untyped((both >> 32) as u32)
    }))
}

/// Calls `f` with each run of pages of the chunk that objects lie in, cut to the chunk: address, bytes and type of the objects.
/// Until it returns `false`. Takes no lock and allocates nothing.
pub fn for_each_span_in<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    chunk: u64,
    f: &mut dyn FnMut(u64, u64, u32) -> bool,
) -> Result<(), HeapError> {
    let first = chunk.saturating_mul(CHUNK_PAGES);
    let pages = first..first.saturating_add(CHUNK_PAGES);
    let within = pages.clone();
    walk_blocks(mem, ext, pages, true, &mut |block| match block.kind {
        Kind::Object { type_index, .. } | Kind::Slab { type_index, .. } => {
            let from = block.page.max(within.start);
            let to = (block.page + block.pages).min(within.end);
            let bytes = to.saturating_sub(from) << PAGE_SHIFT;
            Ok(f(ext.page_addr(from), bytes, type_index))
        }
        _ => Ok(true),
    })
}

/// Like [`for_each_object_in`] with `overlapping`, for memory without type: other blocks are skipped as a whole.
pub fn for_each_untyped_in<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    chunk: u64,
    f: &mut dyn FnMut(Object) -> bool,
) -> Result<(), HeapError> {
    let first = chunk.saturating_mul(CHUNK_PAGES);
    // Most chunks have none: then only the block that reaches into the chunk is looked at.
    let last = match may_begin_untyped(mem, ext, chunk)? {
        true => CHUNK_PAGES,
        false => ext.first_page().saturating_sub(first) + 1,
    };
    let pages = first..first.saturating_add(last.min(CHUNK_PAGES));
    walk_blocks(mem, ext, pages, true, &mut |block| match block.kind {
        Kind::Object { type_index, .. } | Kind::Slab { type_index, .. }
            if type_index == crate::TYPE_RAW =>
        {
            objects_of(mem, ext, block, f)
        }
        _ => Ok(true),
    })
}

/// The object that `addr` points to or into; `None`: there is none.
pub fn find_object<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    addr: u64,
) -> Result<Option<Object>, HeapError> {
    let block = find_block(mem, ext, ext.page_of(addr))?;
    let start = ext.page_addr(block.page);
    match block.kind {
        Kind::Free { .. } | Kind::Pool => Ok(None),
        Kind::Object { bytes, type_index } => {
            let object = Object {
                addr: start,
                size: bytes,
                type_index,
            };
            Ok((addr - start < bytes).then_some(object))
        }
        Kind::Slab {
            class, type_index, ..
        } => {
            let Some(class) = CLASSES.get(class) else {
                return Ok(None);
            };
            let bitmap = slab_header(mem, start, class, type_index)?;
            let Some((slot, _)) = class.slot_at(addr - start) else {
                return Ok(None);
            };
            let bits = bitmap
                .get(slot as usize / 64)
                .map_or(0, |w| w.load(Relaxed));
            let object = Object {
                addr: start + class.slot_offset(slot),
                size: class.size,
                type_index,
            };
            Ok((bits >> (slot % 64) & 1 != 0).then_some(object))
        }
    }
}

/// What the page of `addr` belongs to. Each word of the metadata is read once.
pub(crate) fn find_span<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    addr: u64,
) -> Result<Span, HeapError> {
    let block = find_block(mem, ext, ext.page_of(addr))?;
    let start = ext.page_addr(block.page);
    match block.kind {
        Kind::Free { .. } | Kind::Pool => Ok(Span::Nothing),
        Kind::Object { bytes, type_index } => Ok(Span::Whole(Object {
            addr: start,
            size: bytes,
            type_index,
        })),
        Kind::Slab {
            class: index,
            type_index,
            ..
        } => {
            let Some(class) = CLASSES.get(index) else {
                return Ok(Span::Nothing);
            };
            let bitmap = slab_header(mem, start, class, type_index)?;
            let mut taken = [0; 4];
            for ((to, word), valid) in taken.iter_mut().zip(bitmap).zip(class.valid) {
                *to = word.load(Relaxed) & valid;
            }
            Ok(Span::Slots {
                start,
                class: index,
                type_index,
                taken,
            })
        }
    }
}
