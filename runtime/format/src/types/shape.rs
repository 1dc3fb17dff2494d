//! Types as compilers see them, nested, and how they become leaf fields.
//!
//! The rules live here and nowhere else, so that the LLVM pass (from debug information) and the derive (from Rust
//! types) give the same descriptor for the same layout.

use super::desc::{Field, FieldKind};
use super::{MAX_TYPE_FIELDS, field_flags, refusal};

/// A type, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A pointer or reference to data.
    Pointer {
        /// Name of the type it points to; `void` when anything.
        target: String,
        /// Id of that type when known, else 0.
        target_id: u64,
    },
    /// A pointer to a function.
    Function {
        /// Its type, for messages.
        signature: String,
    },
    /// The pointer to a vtable. Address points are numbered in the order of the fields.
    Vtable {
        /// Whose vtable.
        class: String,
    },
    /// An integer of 1, 2, 4, 8 or 16 bytes, characters included. Bit fields: the integer that holds them.
    Integer(u32),
    /// A floating point number.
    Float(u32),
    /// A byte that is 0 or 1.
    Bool,
    /// An enum. C and C++ may store every value that fits the bits of the enumerators, unless the enum has a fixed
    /// underlying type: then it is an [`Shape::Integer`].
    Enum {
        /// Its name.
        name: String,
        /// Bytes: 1, 2, 4 or 8.
        size: u32,
        /// Least value.
        min: i32,
        /// Greatest value.
        max: i32,
    },
    /// Bytes without meaning.
    Bytes(u64),
    /// Something that may hide pointers.
    Refused {
        /// Its bytes.
        size: u64,
        /// One of [`refusal`].
        reason: String,
    },
    /// A struct or class.
    Record {
        /// Its name; empty for an anonymous one.
        name: String,
        /// Its bytes.
        size: u64,
        /// Members and bases in any order. An empty base is one without members.
        members: Vec<Member>,
    },
    /// An array of known length.
    Array {
        /// Elements.
        count: u64,
        /// Bytes from one element to the next.
        stride: u64,
        /// What each is.
        element: Box<Shape>,
    },
    /// A flexible array member: the last member of the outermost struct.
    Flexible {
        /// Bytes from one element to the next.
        stride: u64,
        /// What each is.
        element: Box<Shape>,
    },
}

impl Shape {
    /// A pointer to a type whose id need not be known.
    pub fn pointer(target: &str) -> Shape {
        Shape::Pointer {
            target: target.to_string(),
            target_id: 0,
        }
    }

    /// An array.
    pub fn array(count: u64, stride: u64, element: Shape) -> Shape {
        Shape::Array {
            count,
            stride,
            element: Box::new(element),
        }
    }

    /// A flexible array member.
    pub fn flexible(stride: u64, element: Shape) -> Shape {
        Shape::Flexible {
            stride,
            element: Box::new(element),
        }
    }
}

/// A member or a base of a struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The member's name, or the name of a base.
    pub name: String,
    /// From the start of the struct.
    pub offset: u64,
    /// Whether it is a base: its fields are called `base::x`, not `member.x`.
    pub base: bool,
    /// Whether the program's annotation chose the shape.
    pub annotated: bool,
    /// What it is.
    pub shape: Shape,
}

impl Member {
    /// A plain member.
    pub fn new(name: &str, offset: u64, shape: Shape) -> Member {
        Member {
            name: name.to_string(),
            offset,
            base: false,
            annotated: false,
            shape,
        }
    }
}

/// A leaf before it is a field: sizes are not yet checked against the widths of the format.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub offset: u64,
    pub kind: FieldKind,
    pub size: u64,
    pub count: u64,
    pub stride: u64,
    pub flags: u16,
    pub aux: u64,
    pub name: String,
    pub target: String,
}

impl Leaf {
    fn one(kind: FieldKind, size: u64, target: &str, aux: u64) -> Leaf {
        Leaf {
            offset: 0,
            kind,
            size,
            count: 1,
            stride: size,
            flags: 0,
            aux,
            name: String::new(),
            target: target.to_string(),
        }
    }

    /// The field, unless a number does not fit.
    pub fn field(self) -> Option<Field> {
        let stride = if self.count == 1 && self.flags & field_flags::FLEX == 0 {
            self.size
        } else {
            self.stride
        };
        Some(Field {
            offset: self.offset,
            kind: self.kind,
            elem_size: self.size.try_into().ok()?,
            count: self.count.try_into().ok()?,
            stride: stride.try_into().ok()?,
            flags: self.flags,
            target: self.target,
            aux: self.aux,
            name: self.name,
        })
    }
}

/// More leaves than a descriptor holds, or nesting without end.
#[derive(Debug)]
pub(super) struct TooMany;

/// Nesting that no program's type has.
const MAX_DEPTH: u32 = 256;

/// The leaves of a shape, offsets from its start.
pub(super) fn flatten(shape: &Shape, depth: u32) -> Result<Vec<Leaf>, TooMany> {
    if depth > MAX_DEPTH {
        return Err(TooMany);
    }
    let one = |kind, size: u64, target: &str, aux| Ok(vec![Leaf::one(kind, size, target, aux)]);
    match shape {
        Shape::Pointer { target, target_id } => one(FieldKind::Pointer, 8, target, *target_id),
        Shape::Function { signature } => one(FieldKind::Function, 8, signature, 0),
        Shape::Vtable { class } => one(FieldKind::Vtable, 8, class, 0),
        Shape::Integer(size) => one(FieldKind::Integer, (*size).into(), "", 0),
        Shape::Float(size) => one(FieldKind::Float, (*size).into(), "", 0),
        Shape::Bool => one(FieldKind::Bool, 1, "", 0),
        Shape::Enum {
            name,
            size,
            min,
            max,
        } => one(
            FieldKind::Enum,
            (*size).into(),
            name,
            Field::enum_aux(*min, *max),
        ),
        Shape::Bytes(0) => Ok(Vec::new()),
        Shape::Bytes(size) => one(FieldKind::Bytes, *size, "", 0),
        Shape::Refused { size, reason } => one(FieldKind::Refused, *size, reason, 0),
        Shape::Record {
            name,
            size,
            members,
        } => record(name, *size, members, depth),
        Shape::Array {
            count,
            stride,
            element,
        } => array(*count, *stride, element, depth),
        Shape::Flexible { stride, element } => flexible(*stride, element, depth),
    }
}

/// A struct: its own place as a part, then its members. The outermost struct's part is dropped by the builder.
fn record(name: &str, size: u64, members: &[Member], depth: u32) -> Result<Vec<Leaf>, TooMany> {
    let mut leaves = Vec::new();
    if !name.is_empty() {
        leaves.push(Leaf::one(FieldKind::Part, size, name, 0));
    }
    for m in members {
        for mut leaf in flatten(&m.shape, depth + 1)? {
            leaf.offset = leaf.offset.checked_add(m.offset).ok_or(TooMany)?;
            leaf.name = join(&m.name, m.base, &leaf.name);
            if m.annotated {
                leaf.flags |= field_flags::ANNOTATED;
            }
            leaves.push(leaf);
        }
        limit(leaves.len() as u64)?;
    }
    Ok(leaves)
}

/// `member.rest`, `base::rest`, `member[]`; an anonymous member lends its fields to the struct around it.
fn join(name: &str, base: bool, rest: &str) -> String {
    if rest.is_empty() || rest.starts_with('[') || name.is_empty() {
        format!("{name}{rest}")
    } else if base {
        format!("{name}::{rest}")
    } else {
        format!("{name}.{rest}")
    }
}

/// `count` copies of the element. One level stays a run of `count`; an inner level is expanded, or the outer one where
/// that gives fewer fields. All leaves of one array are treated alike: runs with different strides would interleave.
fn array(count: u64, stride: u64, element: &Shape, depth: u32) -> Result<Vec<Leaf>, TooMany> {
    let leaves = flatten(element, depth + 1)?;
    if count == 0 || leaves.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(bytes) = plain_bytes(&leaves, stride) {
        let size = bytes.checked_mul(count).ok_or(TooMany)?;
        return Ok(vec![Leaf::one(FieldKind::Bytes, size, "", 0)]);
    }
    let merges = |l: &Leaf| l.count > 1 && l.count.checked_mul(l.stride) == Some(stride);
    let inner: u64 = leaves
        .iter()
        .filter(|l| !merges(l))
        .fold(0, |n, l| n.saturating_add(l.count));
    let outer = (leaves.len() as u64).saturating_mul(count);
    let mut out = Vec::new();
    if leaves.iter().all(merges) || inner <= outer {
        for leaf in leaves {
            if merges(&leaf) {
                let count = leaf.count.checked_mul(count).ok_or(TooMany)?;
                out.push(Leaf { count, ..leaf });
                continue;
            }
            limit(inner.saturating_add(out.len() as u64))?;
            for i in 0..leaf.count {
                let mut run = nth(&leaf, i)?;
                run.count = count;
                run.stride = stride;
                run.name = format!("[]{}", dotted(&run.name));
                out.push(run);
            }
        }
    } else {
        limit(outer)?;
        for i in 0..count {
            for leaf in &leaves {
                let mut copy = leaf.clone();
                let at = i.checked_mul(stride).ok_or(TooMany)?;
                copy.offset = copy.offset.checked_add(at).ok_or(TooMany)?;
                copy.name = format!("[{i}]{}", dotted(&leaf.name));
                out.push(copy);
            }
        }
    }
    limit(out.len() as u64)?;
    Ok(out)
}

/// A flexible array: every leaf of one element, without count.
fn flexible(stride: u64, element: &Shape, depth: u32) -> Result<Vec<Leaf>, TooMany> {
    let leaves = flatten(element, depth + 1)?;
    let mut out = Vec::new();
    limit(leaves.iter().fold(0, |n, l| l.count.saturating_add(n)))?;
    for leaf in &leaves {
        for i in 0..leaf.count {
            let mut run = nth(leaf, i)?;
            run.count = 1;
            run.stride = stride;
            run.flags |= field_flags::FLEX;
            run.name = format!("[]{}", dotted(&run.name));
            out.push(run);
        }
    }
    Ok(out)
}

/// Element `i` of a run as a leaf of its own.
fn nth(leaf: &Leaf, i: u64) -> Result<Leaf, TooMany> {
    if leaf.count == 1 {
        return Ok(leaf.clone());
    }
    let at = i.checked_mul(leaf.stride).ok_or(TooMany)?;
    let index = format!("[{i}]");
    let name = if leaf.name.contains("[]") {
        leaf.name.replacen("[]", &index, 1)
    } else {
        format!("{}{index}", leaf.name)
    };
    Ok(Leaf {
        offset: leaf.offset.checked_add(at).ok_or(TooMany)?,
        name,
        count: 1,
        stride: leaf.size,
        ..leaf.clone()
    })
}

/// Bytes of an element that is nothing but bytes: characters, or an array of them. Arrays of those stay bytes.
fn plain_bytes(leaves: &[Leaf], stride: u64) -> Option<u64> {
    let [leaf] = leaves else { return None };
    let plain = match leaf.kind {
        FieldKind::Bytes => true,
        FieldKind::Integer => leaf.size == 1,
        _ => false,
    };
    (plain && leaf.offset == 0 && leaf.count == 1 && leaf.size == stride && leaf.name.is_empty())
        .then_some(stride)
}

fn dotted(name: &str) -> String {
    if name.is_empty() || name.starts_with('[') {
        name.to_string()
    } else {
        format!(".{name}")
    }
}

fn limit(leaves: u64) -> Result<(), TooMany> {
    if leaves > MAX_TYPE_FIELDS as u64 {
        return Err(TooMany);
    }
    Ok(())
}

/// A pointer that some object has at an odd address cannot be rewritten in one store: it is refused by name.
pub(super) fn refuse_unaligned(leaf: &mut Leaf, align: u32) {
    let repeats = leaf.count > 1 || leaf.flags & field_flags::FLEX != 0;
    let aligned = leaf.offset.is_multiple_of(8)
        && align.is_multiple_of(8)
        && (!repeats || leaf.stride.is_multiple_of(8));
    if leaf.kind.is_address() && !aligned {
        leaf.kind = FieldKind::Refused;
        leaf.target = refusal::UNALIGNED.to_string();
        leaf.aux = 0;
    }
}
