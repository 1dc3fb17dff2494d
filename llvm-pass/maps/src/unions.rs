//! Unions: where their members agree about pointers, or the program says which member counts, they can be walked.

use vernal_format::types::{Member, Shape, refusal};

use crate::align::size_of;
use crate::describe::Walk;
use crate::die::{Die, Source, tag};
use crate::notes::{self, Notes};
use crate::shapes::refused;

/// More pointers in one union than anyone writes by hand; larger ones are refused.
const MAX_ADDRESSES: usize = 256;

/// What a union's member has at some place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Address {
    Data,
    /// Code, vtables and what is refused: members that have these never agree.
    Other,
}

impl<S: Source + ?Sized> Walk<'_, S> {
    pub(crate) fn union(&mut self, die: &Die, outer: &Notes) -> Shape {
        let size = die.size.div_ceil(8);
        let notes = Notes::of(self.src(), die).and(&outer.and_of(die));
        let mut members = Vec::new();
        for &id in &die.elements {
            let m = self.src().die(id);
            if m.tag == tag::MEMBER && !m.flags.is_static && !notes::is_note(self.src(), &m) {
                members.push(m);
            }
        }
        if let Some(m) = members.iter().find(|m| notes.is_active(&m.name)) {
            let mut member = self.member(m, &notes, size);
            member.annotated = true;
            return Shape::Record {
                name: String::new(),
                size,
                members: vec![member],
            };
        }
        let mut found: Option<Vec<(u64, Address)>> = None;
        let mut shapes = Vec::new();
        for m in &members {
            let member = self.member(m, &notes, size);
            let mut here = Vec::new();
            if addresses(&member.shape, member.offset, &mut here).is_none() {
                return refused(size, refusal::UNION);
            }
            here.sort_unstable();
            if found.as_ref().is_some_and(|f| *f != here) {
                return refused(size, refusal::UNION);
            }
            found = Some(here);
            shapes.push(member);
        }
        let places = found.unwrap_or_default();
        if places.iter().any(|p| p.1 == Address::Other) && shapes.len() > 1 {
            return refused(size, refusal::UNION);
        }
        match (shapes.len(), places.is_empty()) {
            (1, _) => Shape::Record {
                name: String::new(),
                size,
                members: shapes,
            },
            (_, true) => Shape::Bytes(size),
            // Pointers of several types in the same places: which of them it is cannot be known, and need not be.
            _ => Shape::Record {
                name: String::new(),
                size,
                members: places.iter().map(|p| any_pointer(p.0)).collect(),
            },
        }
    }

    /// One data member of a struct or union of `whole` bytes, as its annotations have it.
    pub(crate) fn member(&mut self, m: &Die, notes: &Notes, whole: u64) -> Member {
        let size = size_of(self.src(), m.base);
        let place = m.offset / 8;
        let (annotated, shape) = if notes.is_opaque(m) {
            (true, Shape::Bytes(size))
        } else if notes.is_tagged(m) {
            (true, self.tagged(m, size))
        } else {
            (false, self.shape(m.base, &notes.and_of(m)))
        };
        // An array without elements in front of other members has no place; at the end it is GNU's flexible array.
        let shape = match shape {
            Shape::Array {
                count: 0,
                stride,
                element,
            } if place >= whole && stride > 0 => Shape::Flexible { stride, element },
            other => other,
        };
        // A field must have a name, and an anonymous member lends one only if it is a struct or like one.
        let name = match (m.name.is_empty(), &shape) {
            (true, Shape::Record { .. }) | (false, _) => m.name.as_str(),
            (true, _) => "[union]",
        };
        Member {
            annotated,
            ..Member::new(name, place, shape)
        }
    }

    /// A pointer whose low bits are set still points into its object, because objects are at least 8 bytes long.
    fn tagged(&mut self, m: &Die, size: u64) -> Shape {
        match self.shape(m.base, &Notes::default()) {
            pointer @ Shape::Pointer { .. } => pointer,
            _ if size == 8 => void_pointer(),
            _ => refused(size, refusal::TAGGED),
        }
    }
}

fn void_pointer() -> Shape {
    Shape::Pointer {
        target: "void".to_owned(),
        target_id: 0,
    }
}

fn any_pointer(offset: u64) -> Member {
    let name = match offset {
        0 => String::from("[union]"),
        n => format!("[union]+{n}"),
    };
    Member::new(&name, offset, void_pointer())
}

/// Where a shape has addresses; `None` when there are too many.
fn addresses(shape: &Shape, at: u64, out: &mut Vec<(u64, Address)>) -> Option<()> {
    if out.len() > MAX_ADDRESSES {
        return None;
    }
    match shape {
        Shape::Pointer { .. } => out.push((at, Address::Data)),
        Shape::Function { .. } | Shape::Vtable { .. } | Shape::Refused { .. } => {
            out.push((at, Address::Other));
        }
        Shape::Record { members, .. } => {
            for m in members {
                addresses(&m.shape, at.checked_add(m.offset)?, out)?;
            }
        }
        Shape::Array {
            count,
            stride,
            element,
        } => {
            let mut one = Vec::new();
            addresses(element, 0, &mut one)?;
            if one.is_empty() {
                return Some(());
            }
            for i in 0..*count {
                for (place, what) in &one {
                    let place = at
                        .checked_add(i.checked_mul(*stride)?)?
                        .checked_add(*place)?;
                    out.push((place, *what));
                }
                if out.len() > MAX_ADDRESSES {
                    return None;
                }
            }
        }
        Shape::Flexible { element, .. } => {
            let mut one = Vec::new();
            addresses(element, 0, &mut one)?;
            if !one.is_empty() {
                out.push((at, Address::Other));
            }
        }
        _ => {}
    }
    Some(())
}
