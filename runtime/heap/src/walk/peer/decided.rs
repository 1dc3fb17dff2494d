//! What was decided of a peer's pages: kept in private memory, so that metadata that changes later changes nothing.
//!
//! The first pointer into a page decides for all of it: one look at its metadata says what begins where, of which size and
//! type. Every later pointer is answered from here.

use std::collections::HashMap;

use vernal_abi::puddle::PUDDLE_MIN;
use vernal_format::puddle::{CLASSES, PAGE_BYTES, PAGE_SHIFT};

use super::known::KnownTypes;
use super::outcome::Placed;
use super::shape::scalar;
use crate::walk::Fault;
use crate::{Span, SpanSpace, TYPE_RAW};

/// Place of memory without type.
pub(super) const RAW: u32 = u32::MAX;

const KIND: u64 = 7;
const SLOTS: u64 = 1;
const WHOLE: u64 = 2;
/// Another page has the answer.
const LINK: u64 = 3;
const CLASS_SHIFT: u32 = 8;
const TYPE_SHIFT: u32 = 32;

/// Word 0: kind, class, place of the type. Word 1: start of a span, size of a whole object, page that is linked to. From word
/// 2 on, in turns: which slots hold objects, which of those were visited. Word 10: where the copies are noted.
type Line = [u64; 16];
const START: usize = 1;
const TAKEN: usize = 2;
const VISITED: usize = 3;
const COPIES: usize = 10;

#[derive(Debug)]
struct Puddle {
    base: u64,
    size: u64,
    pages: Vec<Line>,
}

/// An object that a pointer names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub addr: u64,
    pub size: u64,
    /// Where in the object the pointer points.
    pub offset: u64,
    /// Place of its type, or [`RAW`].
    pub slot: u32,
    /// No pointer has named it before.
    pub fresh: bool,
    /// Where its copy is noted.
    pub copy: usize,
}

// Made out of line: an error that is made before it is known to be needed costs its destructor.
#[cold]
fn outside(value: u64) -> Box<Fault> {
    Box::new(Fault::Outside { value })
}

#[cold]
fn free(value: u64) -> Box<Fault> {
    Box::new(Fault::Free { value })
}

/// The slot of a span that `addr` points to.
#[inline(always)]
fn slot_at(line: &mut Line, addr: u64) -> Result<Spot, Box<Fault>> {
    let Some(class) = CLASSES.get((line[0] >> CLASS_SHIFT) as usize & 31) else {
        return Err(free(addr));
    };
    let Some((n, offset)) = class.slot_at(addr.wrapping_sub(line[START])) else {
        return Err(free(addr));
    };
    let (word, bit) = ((n as usize / 64 * 2) & 7, 1u64 << (n % 64));
    if line[TAKEN + word] & bit == 0 {
        return Err(free(addr));
    }
    let fresh = line[VISITED + word] & bit == 0;
    line[VISITED + word] |= bit;
    Ok(Spot {
        addr: line[START] + class.slot_offset(n),
        size: class.size,
        slot: (line[0] >> TYPE_SHIFT) as u32,
        offset,
        fresh,
        copy: line[COPIES] as usize + n as usize,
    })
}

/// What was decided in the examination that runs.
#[derive(Debug, Default)]
pub(super) struct Decided {
    puddles: Vec<Puddle>,
    last: usize,
    touched: Vec<(usize, usize)>,
    /// Where copies are, by the numbers that spots have.
    pub copies: Vec<Placed>,
    /// Bytes in use of arrays that have spare room, by their address.
    pub used: HashMap<u64, u64>,
    /// The peer's type indices: one more than the place here, [`RAW`] as itself.
    types: Vec<Option<u32>>,
}

impl Decided {
    /// Forgets the pages, not the types: those stay what they are as long as the heap.
    pub fn clear(&mut self) {
        for (puddle, page) in self.touched.drain(..) {
            let line = self
                .puddles
                .get_mut(puddle)
                .and_then(|p| p.pages.get_mut(page));
            if let Some(line) = line {
                *line = Line::default();
            }
        }
        self.copies.clear();
        self.used.clear();
    }

    #[inline(always)]
    fn puddle<S: SpanSpace + ?Sized>(&mut self, space: &S, addr: u64) -> Option<usize> {
        let holds = |p: &Puddle| addr.wrapping_sub(p.base) < p.size;
        if self.puddles.get(self.last).is_some_and(holds) {
            return Some(self.last);
        }
        self.last = match self.puddles.iter().position(holds) {
            Some(at) => at,
            None => self.new_puddle(space, addr)?,
        };
        Some(self.last)
    }

    #[cold]
    fn new_puddle<S: SpanSpace + ?Sized>(&mut self, space: &S, addr: u64) -> Option<usize> {
        let (base, end) = space.puddle_at(addr)?;
        let size = end.checked_sub(base)?;
        if addr < base || addr >= end || !size.is_multiple_of(PUDDLE_MIN) {
            return None;
        }
        let pages = usize::try_from(size / PAGE_BYTES).ok()?;
        self.puddles.push(Puddle {
            base,
            size,
            // Zero pages of the kernel until they are written.
            pages: vec![[0; 16]; pages],
        });
        Some(self.puddles.len() - 1)
    }

    /// What `addr` points to.
    #[inline(always)]
    pub fn spot<S: SpanSpace + ?Sized>(
        &mut self,
        space: &S,
        known: &KnownTypes,
        addr: u64,
        copies: bool,
    ) -> Result<Spot, Box<Fault>> {
        let Some(at) = self.puddle(space, addr) else {
            return Err(outside(addr));
        };
        let Some((base, line)) = self.page(at, addr) else {
            return Err(outside(addr));
        };
        if line[0] & KIND == SLOTS {
            return slot_at(line, addr);
        }
        // The first pointer to this page, or a page that is no span's only one.
        if line[0] & KIND == 0 {
            let page = (addr.wrapping_sub(base) >> PAGE_SHIFT) as usize;
            self.decide(space, known, at, page, addr, copies)?;
        }
        self.elsewhere(at, addr)
    }

    /// The record of the page of `addr`, and the puddle's first address.
    #[inline(always)]
    fn page(&mut self, puddle: usize, addr: u64) -> Option<(u64, &mut Line)> {
        let puddle = self.puddles.get_mut(puddle)?;
        let page = (addr.wrapping_sub(puddle.base) >> PAGE_SHIFT) as usize;
        Some((puddle.base, puddle.pages.get_mut(page)?))
    }

    #[inline(never)]
    fn elsewhere(&mut self, puddle: usize, addr: u64) -> Result<Spot, Box<Fault>> {
        let Some((base, line)) = self.page(puddle, addr) else {
            return Err(free(addr));
        };
        let mut page = (addr.wrapping_sub(base) >> PAGE_SHIFT) as usize;
        if line[0] & KIND == LINK {
            page = line[START] as usize;
        }
        let Some(line) = self.line(puddle, page) else {
            return Err(free(addr));
        };
        match line[0] & KIND {
            SLOTS => slot_at(line, addr),
            WHOLE => {
                let (start, size) = (base + ((page as u64) << PAGE_SHIFT), line[START]);
                let offset = addr.wrapping_sub(start);
                if offset >= size {
                    return Err(free(addr));
                }
                let fresh = line[VISITED] == 0;
                line[VISITED] = 1;
                Ok(Spot {
                    addr: start,
                    size,
                    slot: (line[0] >> TYPE_SHIFT) as u32,
                    offset,
                    fresh,
                    copy: line[COPIES] as usize,
                })
            }
            _ => Err(free(addr)),
        }
    }

    #[inline(always)]
    fn line(&mut self, puddle: usize, page: usize) -> Option<&mut Line> {
        self.puddles.get_mut(puddle)?.pages.get_mut(page)
    }

    #[inline(always)]
    fn state(&self, puddle: usize, page: usize) -> u64 {
        let line = self.puddles.get(puddle).and_then(|p| p.pages.get(page));
        line.map_or(0, |l| l[0])
    }

    /// Asks the peer's metadata about a page, once.
    #[inline(never)]
    fn decide<S: SpanSpace + ?Sized>(
        &mut self,
        space: &S,
        known: &KnownTypes,
        puddle: usize,
        page: usize,
        addr: u64,
        copies: bool,
    ) -> Result<(), Box<Fault>> {
        let free = || free(addr);
        let base = self.puddles.get(puddle).map_or(0, |p| p.base);
        let noted = self.copies.len();
        let (start, span, line, slots) = match space.span_at(addr) {
            None | Some(Span::Nothing) => return Err(free()),
            Some(Span::Slots {
                start,
                class: index,
                type_index,
                taken,
            }) => {
                let class = CLASSES.get(index).ok_or_else(free)?;
                let align = 1 << class.size.trailing_zeros();
                let slot = self.type_of(space, known, type_index, class.size, align)?;
                let mut line = Line::default();
                line[0] = SLOTS | (index as u64) << CLASS_SHIFT | u64::from(slot) << TYPE_SHIFT;
                line[START] = start;
                for (i, word) in taken.into_iter().enumerate() {
                    line[TAKEN + i * 2] = word;
                }
                (start, class.span_bytes(), line, class.slots as usize)
            }
            Some(Span::Whole(object)) => {
                let size = object.size;
                let slot = self.type_of(space, known, object.type_index, size, PAGE_BYTES)?;
                let mut line = Line::default();
                line[0] = WHOLE | u64::from(slot) << TYPE_SHIFT;
                line[START] = size;
                (object.addr, size, line, 1)
            }
        };
        let inside = start.wrapping_sub(base) <= addr.wrapping_sub(base)
            && start.is_multiple_of(PAGE_BYTES)
            && addr.wrapping_sub(start) < span;
        if !inside {
            return Err(free());
        }
        let head = (start.wrapping_sub(base) >> PAGE_SHIFT) as usize;
        if head != page {
            let was = self.state(puddle, head);
            // What was decided of the first page holds for this one, if it reaches as far.
            if was & KIND == LINK {
                return Err(free());
            }
            let link = self.line(puddle, page).ok_or_else(free)?;
            link[0] = LINK;
            link[START] = head as u64;
            self.touched.push((puddle, page));
            if was != 0 {
                return Ok(());
            }
        }
        let place = self.line(puddle, head).ok_or_else(free)?;
        *place = line;
        place[COPIES] = noted as u64;
        self.touched.push((puddle, head));
        if copies {
            self.copies.resize(noted + slots, Placed::default());
        }
        Ok(())
    }

    /// The place of the type that the peer's index stands for, if objects of `size` bytes can be of it.
    fn type_of<S: SpanSpace + ?Sized>(
        &mut self,
        space: &S,
        known: &KnownTypes,
        index: u32,
        size: u64,
        align: u64,
    ) -> Result<u32, Box<Fault>> {
        if index == TYPE_RAW {
            return Ok(RAW);
        }
        let cached = self.types.get(index as usize).copied().flatten();
        let slot = match cached {
            Some(slot) => slot,
            None => self.new_type(space, known, index)?,
        };
        if slot == RAW {
            return Ok(RAW);
        }
        let Some(ty) = known.types.get(slot as usize) else {
            return Err(Box::new(Fault::UnknownType { index }));
        };
        if let Some((field, cause)) = &ty.refused {
            return Err(Box::new(Fault::RefusedType {
                name: ty.desc.name().to_owned(),
                field: field.clone(),
                cause: cause.clone(),
            }));
        }
        if size < ty.desc.size() {
            return Err(Box::new(Fault::TooSmall {
                size,
                name: ty.desc.name().to_owned(),
                needed: ty.desc.size(),
            }));
        }
        if u64::from(ty.desc.align()) > align {
            return Err(Box::new(Fault::Unaligned {
                value: align,
                expected: ty.desc.name().to_owned(),
                align: ty.desc.align(),
            }));
        }
        Ok(slot)
    }

    #[cold]
    fn new_type<S: SpanSpace + ?Sized>(
        &mut self,
        space: &S,
        known: &KnownTypes,
        index: u32,
    ) -> Result<u32, Box<Fault>> {
        let theirs = space.type_desc(index);
        let slot = theirs.and_then(|d| match known.resolve(d) {
            // Numbers and characters are what the pointers to them say.
            None if scalar(d.name()).is_some() && d.is_opaque() => Some(RAW),
            slot => slot,
        });
        let Some(slot) = slot else {
            return Err(Box::new(match theirs {
                Some(desc) => Fault::ForeignType {
                    name: desc.name().to_owned(),
                },
                None => Fault::UnknownType { index },
            }));
        };
        let at = index as usize;
        if self.types.len() <= at {
            self.types.resize(at + 1, None);
        }
        if let Some(place) = self.types.get_mut(at) {
            *place = Some(slot);
        }
        Ok(slot)
    }
}
