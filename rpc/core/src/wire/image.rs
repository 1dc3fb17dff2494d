//! An image that has arrived, as a heap: its bytes are private and only read, its pointers are worth what a peer's are.

use std::sync::atomic::AtomicU64;

use vernal_abi::puddle::CHUNK_SIZE;
use vernal_format::puddle::{CLASSES, Class, PAGE_BYTES, PAGE_SHIFT};
use vernal_format::types::TypeDesc;
use vernal_heap::walk::KnownTypes;
use vernal_heap::{Object, ObjectSpace, Span, SpanSpace, TYPE_FIRST, TYPE_RAW};

use super::address::{Cursor, IMAGE_BASE, region};

/// Objects of one size and type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// Offset of its first byte.
    pub start: u64,
    /// `None`: one object.
    pub class: Option<(usize, &'static Class)>,
    pub type_index: u32,
    pub count: u32,
    /// Bytes of each object.
    pub size: u64,
    /// Its first word in the image.
    pub word: usize,
}

impl Run {
    /// Bytes of addresses.
    fn bytes(&self) -> u64 {
        self.class
            .map_or(self.size, |(_, class)| class.span_bytes())
    }

    /// The object at an offset in the run: its number, and the byte in it.
    #[inline]
    fn at(&self, offset: u64) -> Option<(u32, u64)> {
        let (n, at) = match self.class {
            Some((_, class)) => class.slot_at(offset)?,
            None => (0, offset),
        };
        (n < self.count && at < self.size).then_some((n, at))
    }

    fn object(&self, n: u32) -> Object {
        let offset = self.class.map_or(0, |(_, class)| class.slot_offset(n));
        Object {
            addr: IMAGE_BASE + self.start + offset,
            size: self.size,
            type_index: self.type_index,
        }
    }
}

/// The image.
#[derive(Debug)]
pub(super) struct Image<'a> {
    known: &'a KnownTypes,
    runs: Vec<Run>,
    /// By page: one more than the run that begins or goes on there.
    pages: Vec<u32>,
    words: Box<[AtomicU64]>,
    end: u64,
    root: u64,
}

impl<'a> Image<'a> {
    /// An image of these runs, whose start is not yet known, and the words of all their objects. `Err`: the run for which there
    /// is no address.
    pub fn new(
        known: &'a KnownTypes,
        mut runs: Vec<Run>,
        words: Box<[AtomicU64]>,
        root: u64,
    ) -> Result<Image<'a>, usize> {
        let mut cursor = Cursor::default();
        let mut pages = Vec::new();
        for (index, run) in runs.iter_mut().enumerate() {
            run.start = cursor.take(run.bytes()).ok_or(index)?;
            pages.resize((run.start >> PAGE_SHIFT) as usize, 0);
            let end = cursor.end().div_ceil(PAGE_BYTES) as usize;
            pages.resize(end, index as u32 + 1);
        }
        Ok(Image {
            known,
            runs,
            pages,
            words,
            end: cursor.end(),
            root,
        })
    }

    #[inline]
    fn run_at(&self, addr: u64) -> Option<&Run> {
        let page = addr.checked_sub(IMAGE_BASE)? >> PAGE_SHIFT;
        let index = self.pages.get(page as usize)?.checked_sub(1)?;
        self.runs.get(index as usize)
    }

    fn chunk(&self, chunk: usize) -> Option<(u64, u64)> {
        let start = (chunk as u64).checked_mul(CHUNK_SIZE)?;
        (start < self.end).then(|| (IMAGE_BASE + start, IMAGE_BASE + start + CHUNK_SIZE))
    }
}

impl ObjectSpace for Image<'_> {
    fn object_at(&self, addr: u64) -> Option<Object> {
        let run = self.run_at(addr)?;
        let (n, _) = run.at(addr - IMAGE_BASE - run.start)?;
        Some(run.object(n))
    }

    fn chunk_count(&self) -> usize {
        self.end.div_ceil(CHUNK_SIZE) as usize
    }

    fn chunk_range(&self, chunk: usize) -> Option<(u64, u64)> {
        self.chunk(chunk)
    }

    fn for_each_object(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        let Some((from, to)) = self.chunk(chunk) else {
            return;
        };
        self.for_each_overlapping(chunk, &mut |o| o.addr < from || o.addr >= to || f(o));
    }

    fn for_each_overlapping(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        let Some((from, to)) = self.chunk(chunk) else {
            return;
        };
        let first = self
            .runs
            .partition_point(|r| IMAGE_BASE + r.start + r.bytes() <= from);
        for run in self
            .runs
            .iter()
            .skip(first)
            .take_while(|r| IMAGE_BASE + r.start < to)
        {
            for object in (0..run.count).map(|n| run.object(n)) {
                if object.addr < to && object.addr + object.size > from && !f(object) {
                    return;
                }
            }
        }
    }

    #[inline]
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        let run = self.run_at(addr)?;
        let (n, at) = run.at(addr - IMAGE_BASE - run.start)?;
        if !at.is_multiple_of(8) || count as u64 > (run.size - at) / 8 {
            return None;
        }
        let first = run.word + (u64::from(n) * run.size / 8 + at / 8) as usize;
        self.words.get(first..first.checked_add(count)?)
    }

    fn type_desc(&self, index: u32) -> Option<&TypeDesc> {
        self.known.desc(index.checked_sub(TYPE_FIRST)?)
    }

    fn root(&self) -> Option<u64> {
        Some(self.root)
    }
}

impl SpanSpace for Image<'_> {
    fn puddle_at(&self, addr: u64) -> Option<(u64, u64)> {
        let offset = addr.checked_sub(IMAGE_BASE)?;
        // Only regions with objects: what is learned of a region takes memory.
        if offset >= self.end {
            return None;
        }
        let (start, end) = region(offset);
        Some((IMAGE_BASE + start, IMAGE_BASE + end))
    }

    fn span_at(&self, addr: u64) -> Option<Span> {
        let run = self.run_at(addr)?;
        let Some((class, _)) = run.class else {
            return Some(Span::Whole(run.object(0)));
        };
        let taken = |n: u32| match run.count.saturating_sub(n * 64) {
            0 => 0,
            n @ 1..64 => (1 << n) - 1,
            _ => u64::MAX,
        };
        Some(Span::Slots {
            start: IMAGE_BASE + run.start,
            class,
            type_index: run.type_index,
            taken: [taken(0), taken(1), taken(2), taken(3)],
        })
    }
}

/// The class with this number on the wire.
pub(super) fn class(number: u8) -> Option<(usize, &'static Class)> {
    let index = usize::from(number);
    Some((index, CLASSES.get(index)?))
}

/// The index that objects of the type at a place in the known types have here.
pub(super) fn index_of(slot: Option<u32>) -> u32 {
    slot.map_or(TYPE_RAW, |slot| slot.saturating_add(TYPE_FIRST))
}
