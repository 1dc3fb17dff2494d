//! Whether a pointer of one type may point where it points.

use super::graph::{Target, ending_at, target_of};
use crate::{Object, ObjectSpace};
use vernal_format::types::{Field, FieldKind, TypeDesc};

/// What the types say about a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// Null, or an object, a part or a value of the right type; or the end of one.
    Fits,
    /// Another type begins there.
    WrongType,
    /// Nothing begins there: it points into the middle of something.
    Interior,
    /// It points to memory that is free, or that is the heap's own.
    Free,
    /// It points out of the pool.
    Outside,
}

/// Names under which a pointer may point to any byte: C's rule for character types, and types that say nothing.
const ANYTHING: &[&str] = &[
    "",
    "void",
    "()",
    "char",
    "signed char",
    "unsigned char",
    "std::byte",
    "char8_t",
    "u8",
    "i8",
];

/// Names of types that have no fields, so that nothing but a value of the right kind needs to lie there.
const INTEGERS: &[&str] = &[
    "short",
    "unsigned short",
    "int",
    "unsigned int",
    "long",
    "unsigned long",
    "long long",
    "unsigned long long",
    "__int128",
    "unsigned __int128",
    "wchar_t",
    "char16_t",
    "char32_t",
    "u16",
    "i16",
    "u32",
    "i32",
    "u64",
    "i64",
    "u128",
    "i128",
    "usize",
    "isize",
];
const FLOATS: &[&str] = &[
    "float",
    "double",
    "long double",
    "_Float16",
    "__bf16",
    "f32",
    "f64",
];
const BOOLS: &[&str] = &["bool", "_Bool"];

/// Whether a pointer with this value fits a field that points to `target` (whose type id is `id`, if not 0).
///
/// Objects are found by name: a pointer to a base, a member or an array element fits where a part of that name begins. The
/// end of an object fits if its start would.
pub fn pointer_matches<S: ObjectSpace + ?Sized>(
    space: &S,
    target: &str,
    id: u64,
    value: u64,
) -> Match {
    match target_of(space, value) {
        Target::Null => Match::Fits,
        Target::Outside => Match::Outside,
        Target::Free => Match::Free,
        Target::End { object } => inside(space, target, id, &object, object.size),
        Target::Object { object, offset } => {
            let fit = inside(space, target, id, &object, offset);
            if fit == Match::Fits || offset != 0 {
                return fit;
            }
            // Where one object begins another may end.
            match ending_at(space, value) {
                Some(before) if inside(space, target, id, &before, before.size) == Match::Fits => {
                    Match::Fits
                }
                _ => fit,
            }
        }
    }
}

/// Whether a pointer to `target` may point `offset` bytes into `object`.
pub(super) fn inside<S: ObjectSpace + ?Sized>(
    space: &S,
    target: &str,
    id: u64,
    object: &Object,
    offset: u64,
) -> Match {
    if ANYTHING.contains(&target) {
        return Match::Fits;
    }
    let target = element_name(target);
    // Memory that nobody gave a type holds whatever the pointer says.
    let Some(desc) = space.type_desc(object.type_index) else {
        return Match::Fits;
    };
    let at = match desc.size() {
        size if size > 0 && !desc.is_flexible() => offset % size,
        _ => offset,
    };
    if at == 0 && (desc.name() == target || (id != 0 && id == desc.id())) {
        return Match::Fits;
    }
    // One past the last element of a flexible or partly filled array.
    if offset == object.size && ends_with(desc, target) {
        return Match::Fits;
    }
    let mut begins = at == 0;
    for f in desc.fields() {
        let Some(first) = element_at(f, at) else {
            continue;
        };
        let fits = match f.kind {
            FieldKind::Part => first && f.target == target,
            FieldKind::Integer | FieldKind::Bytes if INTEGERS.contains(&target) => {
                first || f.kind == FieldKind::Bytes
            }
            FieldKind::Float => first && FLOATS.contains(&target),
            FieldKind::Bool => first && BOOLS.contains(&target),
            FieldKind::Enum => first && (f.target == target || INTEGERS.contains(&target)),
            // A pointer to a pointer: `T*` or `*mut T` names what the inner one points to.
            FieldKind::Pointer => {
                first && target.contains('*') && target.contains(f.target.as_str())
            }
            FieldKind::Function => first && (target.contains('*') || target.contains('(')),
            // An annotation took this out of the type's own account.
            FieldKind::Bytes => f.flags & vernal_format::types::field_flags::ANNOTATED != 0,
            _ => false,
        };
        if fits {
            return Match::Fits;
        }
        begins |= first;
    }
    if begins {
        Match::WrongType
    } else {
        Match::Interior
    }
}

/// The element of an array type: `int[4][2]` is made of `int`.
fn element_name(mut target: &str) -> &str {
    while target.ends_with(']')
        && let Some(open) = target.rfind('[')
        && open > 0
    {
        target = target.get(..open).unwrap_or(target).trim_end();
    }
    target
}

/// Whether a type ends in elements of `target`: those of its flexible array, or itself.
fn ends_with(desc: &TypeDesc, target: &str) -> bool {
    desc.name() == target
        || desc.fields().iter().any(|f| {
            f.target == target
                && (f.is_flex() || f.end() == Some(desc.size()))
                && matches!(f.kind, FieldKind::Part | FieldKind::Enum)
        })
        || desc.fields().iter().any(|f| {
            let last = f.is_flex() || f.end() == Some(desc.size());
            last && match f.kind {
                FieldKind::Integer | FieldKind::Bytes => INTEGERS.contains(&target),
                FieldKind::Float => FLOATS.contains(&target),
                FieldKind::Bool => BOOLS.contains(&target),
                FieldKind::Pointer => target.contains('*'),
                _ => false,
            }
        })
}

/// Whether an element of the field begins at byte `at`, or only covers it; the end of the last element counts as the
/// beginning of the next, because loops point there.
fn element_at(f: &Field, at: u64) -> Option<bool> {
    let distance = at.checked_sub(f.offset)?;
    let stride = u64::from(f.stride).max(1);
    let (index, inner) = (distance / stride, distance % stride);
    let count = u64::from(f.count);
    if !f.is_flex() && (index > count || (index == count && inner != 0)) {
        return None;
    }
    let first = inner == 0;
    (first || inner < u64::from(f.elem_size)).then_some(first)
}
