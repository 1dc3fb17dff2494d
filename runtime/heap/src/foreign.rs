//! The heap of another process, which may change under every look and hold anything: what a receiver may believe of it.
//!
//! Nothing is read outside the puddles that were named here, whatever the heap's own directory says. Types are read into
//! private memory once, and stay what they were then.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed};

use vernal_abi::puddle::{CHUNK_SIZE, MAX_PUDDLES};
use vernal_format::puddle::{
    DirectorySlot, Extent, Place, TYPE_BLOCK_COUNT, TYPE_ENTRY_WORDS, pool_field, type_block_of,
};
use vernal_format::types::{MAX_TYPE_LEN, TypeDesc};

use crate::block::{find_object, find_span, for_each_object_in, for_each_untyped_in, load};
use crate::type_table::split;
use crate::{Object, ObjectSpace, PoolMemory, Span, SpanSpace, TYPE_FIRST};

/// Types that are read of one foreign heap.
pub const FOREIGN_TYPES_MAX: u32 = 4096;
/// Bytes of descriptors that are read of one foreign heap, those included that turned out to be none.
pub const FOREIGN_TYPE_BYTES_MAX: u64 = 16 << 20;

const SHIFT_MASK: u64 = 63;

/// The heap of another process.
///
/// Every answer is of one moment: who needs an object to be what it was asks once and keeps the answer.
#[derive(Debug)]
pub struct ForeignSpace<M> {
    mem: M,
    /// Address | log2 of the size, the root puddle first; 0: none.
    spots: [AtomicU64; MAX_PUDDLES],
    top: AtomicUsize,
    types: [OnceLock<Box<[OnceLock<TypeDesc>]>>; TYPE_BLOCK_COUNT],
    type_bytes: AtomicU64,
}

impl<M: PoolMemory> ForeignSpace<M> {
    /// A heap of which no puddle is known yet.
    pub fn new(mem: M) -> Self {
        ForeignSpace {
            mem,
            spots: [const { AtomicU64::new(0) }; MAX_PUDDLES],
            top: AtomicUsize::new(0),
            types: [const { OnceLock::new() }; TYPE_BLOCK_COUNT],
            type_bytes: AtomicU64::new(0),
        }
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.mem
    }

    /// Makes a puddle known, which is mapped; the root puddle first. `false`: it is none, overlaps one, or there are too
    /// many. Callers exclude each other.
    pub fn add(&self, addr: u64, size: u64) -> bool {
        let Some(ext) = Extent::new(addr, size) else {
            return false;
        };
        let mut known = self.extents();
        if known.any(|(_, k)| k.contains(ext.base) || ext.contains(k.base)) {
            return false;
        }
        // The first place is the root puddle's as long as the heap is known.
        let free = self.spots.iter().position(|s| s.load(Relaxed) == 0);
        let Some((at, spot)) = free.and_then(|at| Some((at, self.spots.get(at)?))) else {
            return false;
        };
        spot.store(ext.base | u64::from(ext.shift), Relaxed);
        self.top
            .fetch_max(at + 1, std::sync::atomic::Ordering::AcqRel);
        true
    }

    fn extents(&self) -> impl Iterator<Item = (usize, Extent)> {
        let top = self.top.load(Acquire);
        let spots = self.spots.iter().take(top).enumerate();
        spots.filter_map(|(at, spot)| Some((at, extent_of(spot.load(Relaxed))?)))
    }

    /// The puddle that holds `addr`.
    #[inline]
    pub fn locate(&self, addr: u64) -> Option<Extent> {
        let spots = self.spots.get(..self.top.load(Acquire))?;
        // A heap grows by puddles as large as all before, so the last ones hold most objects.
        spots.iter().rev().find_map(|spot| {
            let ext = extent_of(spot.load(Relaxed))?;
            ext.contains(addr).then_some(ext)
        })
    }

    fn pool_page(&self) -> Option<u64> {
        let root = extent_of(self.spots.first()?.load(Relaxed))?;
        Some(root.page_addr(root.first_page()))
    }

    fn word(&self, addr: u64) -> Option<u64> {
        load::<M, 1>(&self.mem, addr).ok().map(|[w]| w)
    }

    /// The address of a place, if it lies in a puddle that is known here.
    fn address(&self, place: Place) -> Option<u64> {
        if place.is_none() || !place.offset().is_multiple_of(16) {
            return None;
        }
        let slot = self.pool_page()? + DirectorySlot::offset(place.slot());
        let entry = DirectorySlot::parse(&load(&self.mem, slot).ok()?).ok()??;
        let (_, ext) = self.extents().find(|(_, e)| e.base == entry.current)?;
        (place.offset() < ext.size()).then(|| ext.base + place.offset())
    }

    /// Reads the descriptor of type `n` of the table as it is now.
    fn read_type(&self, n: u64) -> Option<TypeDesc> {
        let page = self.pool_page()?;
        let (block, at) = type_block_of(n)?;
        if n >= self.word(page + pool_field::TYPES)? {
            return None;
        }
        let place = Place(self.word(page + pool_field::TYPE_BLOCKS + block as u64 * 8)?);
        let entry = self
            .address(place)?
            .checked_add(at * TYPE_ENTRY_WORDS as u64 * 8)?;
        let [id, place, len] = load(&self.mem, entry).ok()?;
        // Charged before it is read: a peer cannot make this process parse without end.
        let spent = self
            .type_bytes
            .fetch_add(len.min(MAX_TYPE_LEN as u64), Relaxed);
        if len > MAX_TYPE_LEN as u64 || spent.saturating_add(len) > FOREIGN_TYPE_BYTES_MAX {
            return None;
        }
        let words = self
            .mem
            .words(self.address(Place(place))?, (len as usize).div_ceil(8))?;
        let mut blob: Vec<u8> = words
            .iter()
            .flat_map(|w| w.load(Relaxed).to_le_bytes())
            .collect();
        blob.truncate(len as usize);
        TypeDesc::parse(&blob).ok().filter(|desc| desc.id() == id)
    }

    #[cold]
    fn keep_type(&self, n: u64) -> Option<&TypeDesc> {
        let desc = self.read_type(n)?;
        let (block, at) = split(n);
        let block = self.types.get(block)?.get_or_init(|| {
            let count = 64usize << block;
            (0..count).map(|_| OnceLock::new()).collect()
        });
        // Who comes first decides.
        Some(block.get(at)?.get_or_init(|| desc))
    }

    fn chunk_place(&self, chunk: usize) -> Option<(Extent, u64)> {
        let mut left = chunk as u64;
        for (_, ext) in self.extents() {
            if left < ext.chunks() {
                return Some((ext, left));
            }
            left -= ext.chunks();
        }
        None
    }
}

#[inline(always)]
fn extent_of(spot: u64) -> Option<Extent> {
    let shift = (spot & SHIFT_MASK) as u32;
    (spot != 0).then_some(Extent {
        base: spot & !SHIFT_MASK,
        shift,
    })
}

impl<M: PoolMemory> ObjectSpace for ForeignSpace<M> {
    #[inline]
    fn object_at(&self, addr: u64) -> Option<Object> {
        let ext = self.locate(addr)?;
        find_object(&self.mem, ext, addr).ok().flatten()
    }

    fn chunk_count(&self) -> usize {
        self.extents().map(|(_, e)| e.chunks() as usize).sum()
    }

    fn chunk_range(&self, chunk: usize) -> Option<(u64, u64)> {
        let (ext, local) = self.chunk_place(chunk)?;
        let start = ext.base + local * CHUNK_SIZE;
        Some((start, start + CHUNK_SIZE))
    }

    fn for_each_object(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        if let Some((ext, local)) = self.chunk_place(chunk) {
            let _ = for_each_object_in(&self.mem, ext, local, false, f);
        }
    }

    fn for_each_overlapping(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        if let Some((ext, local)) = self.chunk_place(chunk) {
            let _ = for_each_object_in(&self.mem, ext, local, true, f);
        }
    }

    fn for_each_untyped(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        if let Some((ext, local)) = self.chunk_place(chunk) {
            let _ = for_each_untyped_in(&self.mem, ext, local, f);
        }
    }

    #[inline]
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        self.mem.words(addr, count)
    }

    /// As it was when it was first asked for. Takes no lock when it is known.
    #[inline]
    fn type_desc(&self, index: u32) -> Option<&TypeDesc> {
        let n = u64::from(index.checked_sub(TYPE_FIRST)?);
        if n >= u64::from(FOREIGN_TYPES_MAX) {
            return None;
        }
        let (block, at) = split(n);
        let known = self.types.get(block).and_then(OnceLock::get);
        match known.and_then(|b| b.get(at)?.get()) {
            Some(desc) => Some(desc),
            None => self.keep_type(n),
        }
    }

    fn root(&self) -> Option<u64> {
        let place = self.word(self.pool_page()? + pool_field::ROOT)?;
        self.address(Place(place))
    }
}

impl<M: PoolMemory> SpanSpace for ForeignSpace<M> {
    fn puddle_at(&self, addr: u64) -> Option<(u64, u64)> {
        self.locate(addr).map(|ext| (ext.base, ext.end()))
    }

    fn span_at(&self, addr: u64) -> Option<Span> {
        find_span(&self.mem, self.locate(addr)?, addr).ok()
    }
}
