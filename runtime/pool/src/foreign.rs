//! The heap of a peer, mapped for reading: its segments, and the objects that it says are there.

use std::fs::File;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use vernal_abi::puddle::MAX_PUDDLES;
use vernal_format::types::TypeDesc;
use vernal_heap::walk::{Budget, Examiner, GraphError, GraphReport, GraphTarget, Placed};
use vernal_heap::{
    ForeignSpace, HeapError, Object, ObjectSpace, PoolMemory, Span, SpanSpace, TYPE_RAW,
};

use crate::segment::Segment;
use crate::{Error, Pool, registry, tx};

/// The volatile pool of another process, mapped for reading. Any word of it may change at any time.
///
/// Looking at it takes no lock. What lies outside the segments that were added is never read. Dropping it unmaps them all.
#[derive(Debug)]
pub struct ForeignHeap {
    name: String,
    space: ForeignSpace<Views>,
    adding: Mutex<()>,
}

/// The mapped segments.
#[derive(Debug)]
struct Views {
    segments: [OnceLock<Segment>; MAX_PUDDLES],
    count: AtomicUsize,
}

impl ForeignHeap {
    /// A heap without segments; `name` is for messages.
    pub fn new(name: &str) -> ForeignHeap {
        ForeignHeap {
            name: name.to_owned(),
            space: ForeignSpace::new(Views {
                segments: [const { OnceLock::new() }; MAX_PUDDLES],
                count: AtomicUsize::new(0),
            }),
            adding: Mutex::new(()),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Maps a segment at its home address, after a look at the file's seals. The first one is the root puddle.
    pub fn add(&self, file: &File, addr: u64, size: u64) -> Result<(), Error> {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let views = self.space.memory();
        let at = views.count.load(Ordering::Relaxed);
        let Some(place) = views.segments.get(at) else {
            return Err(Error::invalid(format!(
                "heap {}: its {} segments are the limit",
                self.name,
                views.segments.len()
            )));
        };
        if !vernal_abi::puddle::is_puddle_size(size) {
            return Err(Error::invalid(format!(
                "heap {}: a segment of {size} bytes at {addr:#x} is no puddle",
                self.name
            )));
        }
        let segment = Segment::peer(file, &self.name, addr, size)?;
        let _ = place.set(segment);
        views.count.store(at + 1, Ordering::Release);
        self.space.add(addr, size);
        Ok(())
    }

    /// Whether `len` bytes at `addr` lie in one of its segments.
    pub fn contains(&self, addr: u64, len: u64) -> bool {
        let end = addr.checked_add(len);
        let ext = self.space.locate(addr);
        ext.is_some_and(|ext| end.is_some_and(|end| end <= ext.end()))
    }

    /// The segments: address and bytes.
    pub fn segments(&self) -> Vec<(u64, u64)> {
        let views = self.space.memory().known();
        views.map(|s| (s.addr(), s.size())).collect()
    }
}

impl Views {
    fn known(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        let count = self.count.load(Ordering::Acquire).min(MAX_PUDDLES);
        let known = self.segments.get(..count).unwrap_or_default();
        known.iter().filter_map(OnceLock::get)
    }
}

impl PoolMemory for Views {
    #[inline]
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        if !addr.is_multiple_of(8) {
            return None;
        }
        // The last segments are the largest.
        let segment = self
            .known()
            .rev()
            .find(|s| addr.wrapping_sub(s.addr()) < s.size())?;
        let first = (addr.wrapping_sub(segment.addr()) / 8) as usize;
        segment.words().get(first..first.checked_add(count)?)
    }

    fn before_write(&self, addr: u64, len: u64) -> Result<(), HeapError> {
        Err(HeapError::Refused {
            addr,
            len,
            why: "it is the heap of another process".into(),
        })
    }

    fn after_write(&self, _addr: u64, _len: u64) {}
}

impl ObjectSpace for ForeignHeap {
    #[inline]
    fn object_at(&self, addr: u64) -> Option<Object> {
        self.space.object_at(addr)
    }
    fn chunk_count(&self) -> usize {
        self.space.chunk_count()
    }
    fn chunk_range(&self, chunk: usize) -> Option<(u64, u64)> {
        self.space.chunk_range(chunk)
    }
    fn for_each_object(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        self.space.for_each_object(chunk, f);
    }
    fn for_each_overlapping(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        self.space.for_each_overlapping(chunk, f);
    }
    fn for_each_untyped(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        self.space.for_each_untyped(chunk, f);
    }
    #[inline]
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        self.space.words(addr, count)
    }
    #[inline]
    fn type_desc(&self, index: u32) -> Option<&TypeDesc> {
        self.space.type_desc(index)
    }
    fn root(&self) -> Option<u64> {
        self.space.root()
    }
}

impl SpanSpace for ForeignHeap {
    fn puddle_at(&self, addr: u64) -> Option<(u64, u64)> {
        self.space.puddle_at(addr)
    }
    fn span_at(&self, addr: u64) -> Option<Span> {
        self.space.span_at(addr)
    }
}

/// A graph that was copied into a pool.
#[derive(Debug)]
pub struct Copied {
    /// Address of the root's copy.
    pub root: u64,
    /// What was copied.
    pub report: GraphReport,
    /// Every object of it, to be freed one by one by who does not keep the graph.
    pub objects: Vec<u64>,
}

/// The pool that copies go to.
struct Into<'a> {
    pool: &'a Pool,
    /// Types by their ids: index in the pool.
    types: Vec<(u64, u32)>,
    made: Vec<(u64, u64)>,
}

impl Into<'_> {
    fn type_index(&mut self, ty: Option<&TypeDesc>) -> Result<u32, Error> {
        let Some(desc) = ty else {
            return Ok(TYPE_RAW);
        };
        if let Some((_, index)) = self.types.iter().find(|(id, _)| *id == desc.id()) {
            return Ok(*index);
        }
        let index = registry::with(self.pool.handle(), |l| {
            let index = l.with_room(|pool, cache| pool.heap.intern_type(cache, desc.blob()))?;
            crate::binding::note_type(&l.pool, &mut l.cache, index)?;
            Ok(index)
        })?;
        self.types.push((desc.id(), index));
        Ok(index)
    }
}

impl GraphTarget for Into<'_> {
    type Error = Error;

    fn place(&mut self, size: u64, align: u64, ty: Option<&TypeDesc>) -> Result<Placed, Error> {
        let index = self.type_index(ty)?;
        let addr = registry::with(self.pool.handle(), |l| l.alloc(size, align, index))?;
        self.made.push((addr, size));
        Ok(Placed {
            addr,
            ..Placed::default()
        })
    }

    #[inline]
    fn words(&self, at: Placed, count: usize) -> Option<&[AtomicU64]> {
        self.pool.0.memory.words(at.addr, count)
    }
}

/// Copies the graph from `root`, an object of the type with the id `expected` in a peer's heap, into the pool `to`, and
/// verifies the copy while it is made: in the open transaction, if the pool is not volatile. After an error there is no copy.
pub fn copy_verified(
    examiner: &mut Examiner,
    from: &ForeignHeap,
    root: u64,
    expected: u64,
    budget: Budget,
    to: &Pool,
) -> Result<Copied, GraphError<Error>> {
    if tx::depth() == 0 && !to.is_volatile() {
        return Err(GraphError::Target(Error::invalid(
            "what a peer passes is copied into a pool in a transaction: begin one with vn_tx_begin or VN_TX",
        )));
    }
    let mut into = Into {
        pool: to,
        types: Vec::new(),
        made: Vec::new(),
    };
    let copied = examiner.copy(from, root, expected, budget, &mut into);
    match copied {
        Ok(copy) => {
            for (addr, size) in &into.made {
                to.0.memory.after_write(*addr, *size);
            }
            Ok(Copied {
                root: copy.root,
                report: copy.report,
                objects: into.made.into_iter().map(|(addr, _)| addr).collect(),
            })
        }
        Err(e) => {
            // The transaction may go on without the copy.
            for (addr, _) in into.made {
                to.free(addr).map_err(GraphError::Target)?;
            }
            Err(e)
        }
    }
}
