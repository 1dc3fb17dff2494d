//! From a type's debug information to its shape.

use vernal_format::types::{Shape, refusal};

use crate::align::size_of;
use crate::describe::Walk;
use crate::die::{Die, NodeId, Source, ate, strip, tag};
use crate::notes::{self, Notes};

/// Types that hold other types are not nested deeper; damaged input could be.
const MAX_DEPTH: u32 = 100;
/// C's names for integers that hold pointers.
const HIDDEN: [&str; 4] = ["uintptr_t", "intptr_t", "__uintptr_t", "__intptr_t"];
/// What libstdc++ keeps the values of its nodes in: bytes, with the value's type as argument.
const BUFFERS: [&str; 2] = ["__aligned_membuf<", "__aligned_buffer<"];

impl<S: Source + ?Sized> Walk<'_, S> {
    pub(crate) fn src(&self) -> &S {
        self.describer.src
    }

    /// The shape of a type. `outer`: the annotations of what contains it.
    pub(crate) fn shape(&mut self, ty: NodeId, outer: &Notes) -> Shape {
        let bare = strip(self.src(), ty);
        let size = size_of(self.src(), bare);
        if bare == 0 || self.depth > MAX_DEPTH || !self.fuel.burn() {
            return refused(size, refusal::UNKNOWN);
        }
        self.depth += 1;
        let die = self.src().die(bare);
        let shape = match die.tag {
            tag::BASE if self.hides_pointers(ty) => refused(size, refusal::TAGGED),
            tag::BASE => base(&die, size),
            tag::POINTER | tag::REFERENCE | tag::RVALUE_REFERENCE | tag::UNSPECIFIED => {
                self.pointer(&die, size)
            }
            // A distance in the object, or -1: the same in every process.
            tag::PTR_TO_MEMBER if size == 8 => Shape::Integer(8),
            tag::PTR_TO_MEMBER => refused(size, refusal::MEMBER_FUNCTION),
            _ if die.flags.forward => refused(size, refusal::UNKNOWN),
            tag::STRUCTURE | tag::CLASS | tag::UNION if notes::is_opaque_type(&die) => {
                Shape::Bytes(size)
            }
            tag::STRUCTURE | tag::CLASS => match self.buffered(&die, size) {
                Some(value) => self.shape(value, &Notes::default()),
                None => self.object(ty, bare, &die, outer),
            },
            tag::UNION => self.union(&die, outer),
            tag::ENUMERATION => self.enumeration(ty, &die, size),
            tag::ARRAY => self.array(&die, size),
            _ => refused(size, refusal::UNKNOWN),
        };
        self.depth -= 1;
        shape
    }

    /// Whether a typedef on the way says that the integer is a pointer.
    fn hides_pointers(&self, ty: NodeId) -> bool {
        let mut at = ty;
        for _ in 0..MAX_DEPTH {
            if at == 0 {
                return false;
            }
            let die = self.src().die(at);
            if die.tag == tag::TYPEDEF && HIDDEN.contains(&die.name.as_str()) {
                return true;
            }
            if die.tag == tag::BASE {
                return false;
            }
            at = die.base;
        }
        false
    }

    /// The type of the value that one of libstdc++'s buffers holds.
    pub(crate) fn buffered(&self, die: &Die, size: u64) -> Option<NodeId> {
        let known = BUFFERS.iter().any(|b| die.name.starts_with(b)) && die.scope != 0 && {
            let scope = self.src().die(die.scope);
            scope.tag == tag::NAMESPACE && scope.name == "__gnu_cxx"
        };
        let param = self.src().die(*die.params.first().filter(|_| known)?);
        (param.tag == tag::TEMPLATE_TYPE
            && param.base != 0
            && size_of(self.src(), param.base) <= size)
            .then_some(param.base)
    }

    pub(crate) fn pointer(&self, die: &Die, size: u64) -> Shape {
        if size != 8 {
            return refused(size, refusal::UNKNOWN);
        }
        let bare = strip(self.src(), die.base);
        if bare != 0 && self.src().die(bare).tag == tag::SUBROUTINE {
            return Shape::Function {
                signature: self.describer.name(die.base),
            };
        }
        Shape::Pointer {
            target: self.describer.name(die.base),
            target_id: match self.ids {
                true => self.describer.id(die.base),
                false => 0,
            },
        }
    }

    fn enumeration(&self, ty: NodeId, die: &Die, size: u64) -> Shape {
        let integer = integer(size);
        // With a fixed underlying type every value of that type is a value of the enum. Clang does not say so for a plain
        // enum, but without a fixed type it never chooses one smaller or larger than it must.
        if die.flags.enum_class || die.elements.is_empty() || size != 4 {
            return integer;
        }
        let values = die.elements.iter().map(|&e| self.src().die(e).value);
        let (low, high) = values.fold((0i128, 0i128), |(l, h), v| (l.min(v), h.max(v)));
        // All values of the bits that the enumerators need are values of the enum: flags are combined.
        let bits = 128 - high.leading_zeros().min((!low.min(-1)).leading_zeros());
        let top = (1i128 << bits.min(64)) - 1;
        let bottom = if low < 0 { -top - 1 } else { 0 };
        match (i32::try_from(bottom), i32::try_from(top)) {
            (Ok(min), Ok(max)) => Shape::Enum {
                name: self.describer.name(ty),
                size: 4,
                min,
                max,
            },
            _ => integer,
        }
    }

    fn array(&mut self, die: &Die, size: u64) -> Shape {
        let counts: Vec<i128> = die
            .elements
            .iter()
            .map(|&e| self.src().die(e))
            .filter(|d| d.tag == tag::SUBRANGE)
            .map(|d| d.value)
            .collect();
        let stride = size_of(self.src(), die.base);
        let element = self.shape(die.base, &Notes::default());
        if die.flags.vector && !matches!(element, Shape::Integer(_) | Shape::Float(_)) {
            return Shape::Bytes(size);
        }
        // The innermost dimension is the last.
        let mut shape = element;
        let mut stride = stride;
        for (level, &count) in counts.iter().enumerate().rev() {
            let Ok(count) = u64::try_from(count) else {
                // Only the outermost dimension can be left out.
                return match level {
                    0 => Shape::Flexible {
                        stride,
                        element: Box::new(shape),
                    },
                    _ => refused(size, refusal::UNKNOWN),
                };
            };
            shape = Shape::Array {
                count,
                stride,
                element: Box::new(shape),
            };
            stride = stride.saturating_mul(count);
        }
        shape
    }
}

/// An integer of `size` bytes, or bytes where there is no such integer.
pub(crate) fn integer(size: u64) -> Shape {
    match size {
        1 | 2 | 4 | 8 | 16 => Shape::Integer(size as u32),
        _ => Shape::Bytes(size),
    }
}

fn base(die: &Die, size: u64) -> Shape {
    let float = |size: u64| match size {
        2 | 4 | 8 | 10 | 12 | 16 => Shape::Float(size as u32),
        _ => Shape::Bytes(size),
    };
    match die.encoding {
        ate::BOOLEAN if size == 1 => Shape::Bool,
        ate::FLOAT => float(size),
        ate::COMPLEX_FLOAT => Shape::Array {
            count: 2,
            stride: size / 2,
            element: Box::new(float(size / 2)),
        },
        _ => integer(size),
    }
}

pub(crate) fn refused(size: u64, reason: &str) -> Shape {
    Shape::Refused {
        size,
        reason: reason.to_owned(),
    }
}
