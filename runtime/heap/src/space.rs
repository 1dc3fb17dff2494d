//! What a walker needs of a heap: objects, chunk by chunk, their words and their types.

use std::sync::atomic::AtomicU64;

use vernal_format::types::TypeDesc;

/// An allocated object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// Its first byte.
    pub addr: u64,
    /// Usable bytes, a multiple of 8. What the program did not ask for was zeroed at allocation.
    pub size: u64,
    /// Index into the pool's type table, or [`crate::TYPE_RAW`], [`crate::TYPE_META`].
    pub type_index: u32,
}

/// The objects of a pool. Chunks are numbered through all puddles, in the order of the directory.
pub trait ObjectSpace {
    /// The object that `addr` points to or into.
    fn object_at(&self, addr: u64) -> Option<Object>;
    /// Chunks of 2 MiB in all puddles.
    fn chunk_count(&self) -> usize;
    /// First address and end of a chunk.
    fn chunk_range(&self, chunk: usize) -> Option<(u64, u64)>;
    /// Calls `f` with each object that begins in the chunk, until `f` returns `false`.
    fn for_each_object(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool);
    /// Like [`for_each_object`](Self::for_each_object), and first with the object that reaches into the chunk from before.
    fn for_each_overlapping(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool);
    /// Like [`for_each_overlapping`](Self::for_each_overlapping), with the memory that has no type. A heap knows without
    /// visiting an object which of its pages have such memory.
    fn for_each_untyped(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        self.for_each_overlapping(chunk, &mut |object| {
            object.type_index != crate::TYPE_RAW || f(object)
        });
    }
    /// Calls `f` with the objects that lie in or reach into `[from, to)`, which is a part of one chunk; objects beside them on the
    /// same pages may come, too. Until `f` returns `false`.
    fn for_each_within(&self, from: u64, to: u64, f: &mut dyn FnMut(Object) -> bool) {
        let inside = |chunk: &usize| {
            self.chunk_range(*chunk)
                .is_some_and(|(start, end)| from >= start && from < end)
        };
        if let Some(chunk) = (0..self.chunk_count()).find(inside) {
            self.for_each_overlapping(chunk, &mut |object| {
                let meets = object.addr < to && object.addr.saturating_add(object.size) > from;
                !meets || f(object)
            });
        }
    }
    /// Calls `f` with each run of memory of the chunk that objects of one type lie in: address, bytes, type. Until `f` returns
    /// `false`. A heap knows them by its pages, without visiting an object.
    fn for_each_span(&self, chunk: usize, f: &mut dyn FnMut(u64, u64, u32) -> bool) {
        let Some((start, end)) = self.chunk_range(chunk) else {
            return;
        };
        self.for_each_overlapping(chunk, &mut |object| {
            let from = object.addr.max(start);
            let to = object.addr.saturating_add(object.size).min(end);
            f(from, to.saturating_sub(from), object.type_index)
        });
    }
    /// `count` words from `addr`.
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]>;
    /// The type with this index.
    fn type_desc(&self, index: u32) -> Option<&TypeDesc>;
    /// Address of the root object.
    fn root(&self) -> Option<u64>;
}

/// What the allocator says of the pages around an address, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Slots of one size and type.
    Slots {
        /// First byte of the span.
        start: u64,
        /// Index of the size class.
        class: usize,
        /// Type of the objects.
        type_index: u32,
        /// Which slots hold objects.
        taken: [u64; 4],
    },
    /// One object of whole pages.
    Whole(Object),
    /// Free, or the heap's own.
    Nothing,
}

/// A heap that can be asked for all that is known of a page at once, so that one answer serves for every object on it.
pub trait SpanSpace: ObjectSpace {
    /// First address and end of the puddle that holds `addr`. Puddles that were there stay.
    fn puddle_at(&self, addr: u64) -> Option<(u64, u64)>;
    /// What `addr` belongs to; an object of this span that holds `addr` is the one that [`ObjectSpace::object_at`] names.
    fn span_at(&self, addr: u64) -> Option<Span>;
}
