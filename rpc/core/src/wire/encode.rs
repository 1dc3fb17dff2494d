//! From a graph in a heap to bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use thiserror::Error;
use vernal_format::puddle::{CLASS_COUNT, CLASSES, Class, class_for};
use vernal_format::types::TypeDesc;
use vernal_heap::SpanSpace;
use vernal_heap::walk::{
    Budget, Examiner, GraphError, GraphReport, GraphTarget, KnownTypes, Placed,
};

use super::address::{Cursor, IMAGE_BASE};
use super::{CHECKSUM, HEADER_BYTES, MAGIC, NAME_MAX, SPAN_BYTES, WHOLE, WIRE_VERSION, checksum};

/// Words of a block, unless an object is larger.
const BLOCK: usize = 1 << 15;
/// Types of one graph.
const TYPES_MAX: usize = 1 << 20;

/// The graph does not fit into an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the graph has more than 256 GiB, 2^32 spans or 2^20 types: send it in parts")]
pub struct Full;

/// Objects of one size and type that are being collected.
#[derive(Debug, Clone, Copy)]
struct Span {
    class: u8,
    ty: u32,
    count: u32,
    size: u64,
    offset: u64,
    block: usize,
    word: usize,
}

impl Span {
    fn words(&self) -> usize {
        (u64::from(self.count) * self.size / 8) as usize
    }
}

/// The image that grows.
#[derive(Debug, Default)]
struct Builder {
    cursor: Cursor,
    blocks: Vec<Box<[AtomicU64]>>,
    /// Block in use, and its words in use.
    at: (usize, usize),
    spans: Vec<Span>,
    /// Types: id and name.
    types: Vec<(u64, String)>,
    /// By type (0: none) and class: one more than the span that has room.
    open: Vec<[u32; CLASS_COUNT]>,
    /// The last type: id and place.
    last: (u64, u32),
}

impl Builder {
    fn clear(&mut self) {
        self.cursor = Cursor::default();
        // Large objects had blocks of their own.
        self.blocks.retain(|b| b.len() == BLOCK);
        self.at = (0, 0);
        self.spans.clear();
        self.types.clear();
        self.open.clear();
        self.open.push([0; CLASS_COUNT]);
        self.last = (0, 0);
    }

    #[inline]
    fn type_of(&mut self, ty: Option<&TypeDesc>) -> Result<u32, Full> {
        let Some(desc) = ty else { return Ok(0) };
        if self.last.1 != 0 && self.last.0 == desc.id() {
            return Ok(self.last.1);
        }
        let found = self.types.iter().position(|(id, _)| *id == desc.id());
        let place = match found {
            Some(at) => at as u32 + 1,
            None => {
                if self.types.len() >= TYPES_MAX || desc.name().len() > NAME_MAX {
                    return Err(Full);
                }
                self.types.push((desc.id(), desc.name().to_owned()));
                self.open.push([0; CLASS_COUNT]);
                self.types.len() as u32
            }
        };
        self.last = (desc.id(), place);
        Ok(place)
    }

    /// Room for so many words.
    fn room(&mut self, words: usize) -> (usize, usize) {
        loop {
            let (block, used) = self.at;
            match self.blocks.get(block) {
                Some(b) if b.len() - used >= words => {
                    self.at.1 += words;
                    return (block, used);
                }
                Some(_) => self.at = (block + 1, 0),
                None => {
                    let len = words.max(BLOCK);
                    self.blocks
                        .push((0..len).map(|_| AtomicU64::new(0)).collect());
                }
            }
        }
    }

    fn span(
        &mut self,
        class: u8,
        ty: u32,
        size: u64,
        shape: Option<&Class>,
    ) -> Result<usize, Full> {
        let (bytes, slots) = shape.map_or((size, 1), |c| (c.span_bytes(), u64::from(c.slots)));
        let offset = self.cursor.take(bytes).ok_or(Full)?;
        let (block, word) = self.room((slots * size / 8) as usize);
        if self.spans.len() >= u32::MAX as usize - 1 {
            return Err(Full);
        }
        self.spans.push(Span {
            class,
            ty,
            count: 0,
            size,
            offset,
            block,
            word,
        });
        Ok(self.spans.len() - 1)
    }

    fn put(&mut self, root: u64, root_type: u64, objects: u64, out: &mut Vec<u8>) {
        let names = self
            .types
            .iter()
            .map(|(_, n)| 16 + n.len().next_multiple_of(8));
        let words: usize = self.spans.iter().map(Span::words).sum();
        let tables = HEADER_BYTES + names.sum::<usize>() + self.spans.len() * SPAN_BYTES;
        let (start, length) = (out.len(), tables + words * 8);
        out.reserve(length);
        let header = [
            MAGIC,
            u64::from(WIRE_VERSION) | (self.types.len() as u64) << 32,
            self.spans.len() as u64,
            objects,
            length as u64,
            root,
            root_type,
            0,
        ];
        out.extend(header.iter().flat_map(|w| w.to_le_bytes()));
        for (id, name) in &self.types {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&(name.len() as u64).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
            out.resize(start + (out.len() - start).next_multiple_of(8), 0);
        }
        for s in &self.spans {
            let entry = u64::from(s.class) | u64::from(s.ty) << 8 | u64::from(s.count) << 32;
            let size = if s.class == WHOLE { s.size } else { 0 };
            out.extend_from_slice(&entry.to_le_bytes());
            out.extend_from_slice(&size.to_le_bytes());
        }
        out.resize(start + length, 0);
        let body = out.get_mut(start + tables..).unwrap_or_default();
        let (mut body, _) = body.as_chunks_mut::<8>();
        for span in &self.spans {
            let end = span.word + span.words();
            let block = self.blocks.get_mut(span.block);
            let words = block
                .and_then(|b| b.get_mut(span.word..end))
                .unwrap_or_default();
            let (head, rest) = body.split_at_mut(words.len().min(body.len()));
            for (to, from) in head.iter_mut().zip(words) {
                *to = from.get_mut().to_le_bytes();
            }
            body = rest;
        }
        let image = out.get_mut(start..).unwrap_or_default();
        let sum = checksum(image).to_le_bytes();
        if let Some(place) = image.get_mut(CHECKSUM..CHECKSUM + 8) {
            place.copy_from_slice(&sum);
        }
    }
}

impl GraphTarget for Builder {
    type Error = Full;

    #[inline]
    fn place(&mut self, size: u64, align: u64, ty: Option<&TypeDesc>) -> Result<Placed, Full> {
        let ty = self.type_of(ty)?;
        let small = class_for(size, align);
        let Some((index, class)) = small.and_then(|i| Some((i, CLASSES.get(i)?))) else {
            let at = self.span(WHOLE, ty, size, None)?;
            let span = self.spans.get_mut(at).ok_or(Full)?;
            span.count = 1;
            return Ok(Placed {
                addr: IMAGE_BASE + span.offset,
                block: span.block,
                word: span.word,
            });
        };
        let open = self
            .open
            .get(ty as usize)
            .and_then(|o| o.get(index))
            .copied();
        let at = match open.unwrap_or(0).checked_sub(1) {
            Some(at) => at as usize,
            None => {
                let at = self.span(index as u8, ty, class.size, Some(class))?;
                if let Some(open) = self
                    .open
                    .get_mut(ty as usize)
                    .and_then(|o| o.get_mut(index))
                {
                    *open = at as u32 + 1;
                }
                at
            }
        };
        let span = self.spans.get_mut(at).ok_or(Full)?;
        let n = span.count;
        span.count += 1;
        let placed = Placed {
            addr: IMAGE_BASE + span.offset + class.slot_offset(n),
            block: span.block,
            word: span.word + (u64::from(n) * class.size / 8) as usize,
        };
        if span.count == class.slots
            && let Some(open) = self
                .open
                .get_mut(ty as usize)
                .and_then(|o| o.get_mut(index))
        {
            *open = 0;
        }
        // Memory of an earlier graph: what the object does not fill is zero.
        for word in (size / 8)..(class.size / 8) {
            let block = self.blocks.get(placed.block);
            if let Some(w) = block.and_then(|b| b.get(placed.word + word as usize)) {
                w.store(0, Relaxed);
            }
        }
        Ok(placed)
    }

    #[inline]
    fn words(&self, at: Placed, count: usize) -> Option<&[AtomicU64]> {
        let end = at.word.checked_add(count)?;
        self.blocks.get(at.block)?.get(at.word..end)
    }
}

/// Encodes graphs of one heap. It keeps its memory from one to the next.
#[derive(Debug)]
pub struct Encoder {
    examiner: Examiner,
    builder: Builder,
}

impl Encoder {
    /// An encoder for a heap with these types.
    pub fn new(known: Arc<KnownTypes>) -> Encoder {
        Encoder {
            examiner: Examiner::new(known),
            builder: Builder::default(),
        }
    }

    /// Appends the graph from `root`, an object of the type with the id `type_id`. A graph that its receiver would refuse is
    /// refused here, and nothing is appended.
    pub fn encode<S: SpanSpace + ?Sized>(
        &mut self,
        space: &S,
        root: u64,
        type_id: u64,
        budget: Budget,
        out: &mut Vec<u8>,
    ) -> Result<GraphReport, GraphError<Full>> {
        self.builder.clear();
        let copy = self
            .examiner
            .copy(space, root, type_id, budget, &mut self.builder)?;
        self.builder
            .put(copy.root, type_id, copy.report.objects, out);
        Ok(copy.report)
    }
}
