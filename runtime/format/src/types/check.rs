//! The rules about fields, for those that are built and those that are read.

use super::desc::{Field, FieldKind};
use super::error::TypeError;
use super::field_flags;

/// The rules that hold for the fields of every type; builder and parser share them.
pub(super) fn check_fields(
    name: &str,
    size: u64,
    align: u32,
    fields: &[Field],
) -> Result<(), TypeError> {
    let mut vtables = 0;
    let mut previous: Option<&Field> = None;
    for f in fields {
        let bad = |what| {
            Err(TypeError::Field {
                name: name.to_string(),
                field: f.name.clone(),
                what,
            })
        };
        if previous.is_some_and(|p| p.key() > f.key()) {
            return bad("is not sorted by its offset");
        }
        previous = Some(f);
        if let Err(what) = check_shape(f) {
            return bad(what);
        }
        match f.end() {
            _ if f.is_flex() && f.offset < size.saturating_add(f.stride.max(1).into()) => {}
            Some(end) if !f.is_flex() && end <= size => {}
            _ => return bad("lies outside the object"),
        }
        if f.kind.is_address() {
            let aligned = f.offset % 8 == 0
                && f.stride % 8 == 0
                && f.elem_size == 8
                && align.is_multiple_of(8);
            if !aligned {
                return bad("is an address that is not aligned to 8 bytes");
            }
        }
        if f.kind == FieldKind::Vtable {
            if f.aux != vtables {
                return bad("has the wrong index of an address point");
            }
            vtables += 1;
        }
    }
    check_flex(name, fields)?;
    check_overlap(name, fields)
}

/// The rules for one field by itself.
fn check_shape(f: &Field) -> Result<(), &'static str> {
    let size_ok = match f.kind {
        FieldKind::Pointer | FieldKind::Function | FieldKind::Vtable => f.elem_size == 8,
        FieldKind::Integer => matches!(f.elem_size, 1 | 2 | 4 | 8 | 16),
        FieldKind::Float => matches!(f.elem_size, 2 | 4 | 8 | 10 | 12 | 16),
        FieldKind::Bool => f.elem_size == 1,
        FieldKind::Enum => matches!(f.elem_size, 1 | 2 | 4 | 8),
        FieldKind::Bytes => f.elem_size >= 1,
        FieldKind::Refused | FieldKind::Part => true,
    };
    if !size_ok {
        return Err("has a size that its kind does not have");
    }
    if f.flags & !(field_flags::FLEX | field_flags::ANNOTATED) != 0 {
        return Err("has unknown flags");
    }
    if f.count == 0 {
        return Err("has no elements");
    }
    if f.is_flex() && (f.count != 1 || f.stride == 0 || f.stride < f.elem_size) {
        return Err("is flexible with a wrong count or stride");
    }
    if !f.is_flex() && f.count == 1 && f.stride != f.elem_size {
        return Err("has a stride, but one element");
    }
    if f.count > 1 && (f.stride == 0 || f.stride < f.elem_size) {
        return Err("has a stride that is smaller than its elements");
    }
    if f.kind == FieldKind::Enum && f.enum_range().0 > f.enum_range().1 {
        return Err("has an empty range of values");
    }
    if f.name.is_empty() {
        return Err("has no name");
    }
    let aux_ok = match f.kind {
        FieldKind::Pointer | FieldKind::Vtable | FieldKind::Enum => true,
        _ => f.aux == 0,
    };
    if !aux_ok {
        return Err("has a value in a reserved place");
    }
    Ok(())
}

/// Flexible fields lie behind all others and repeat in step.
fn check_flex(name: &str, fields: &[Field]) -> Result<(), TypeError> {
    let Some(first) = fields.iter().find(|f| f.is_flex()) else {
        return Ok(());
    };
    let limit = first.offset.saturating_add(first.stride.into());
    for f in fields {
        let ok = if f.is_flex() {
            f.stride == first.stride && f.end().is_some_and(|end| end <= limit)
        } else {
            f.end().is_some_and(|end| end <= first.offset)
                || (f.kind == FieldKind::Part && f.offset <= first.offset)
        };
        if !ok {
            return Err(TypeError::Field {
                name: name.to_string(),
                field: f.name.clone(),
                what: "does not fit with the flexible array at the end",
            });
        }
    }
    Ok(())
}

/// No address shares a byte with another field. Data may overlap data: bit fields do.
fn check_overlap(name: &str, fields: &[Field]) -> Result<(), TypeError> {
    // Fields are sorted by offset; `open` holds those whose last byte may still lie ahead.
    let mut open: Vec<&Field> = Vec::new();
    for f in fields.iter().filter(|f| f.kind != FieldKind::Part) {
        open.retain(|o| o.is_flex() || o.end().is_some_and(|end| end > f.offset));
        for o in &open {
            if (o.kind.is_address() || f.kind.is_address()) && collide(o, f) {
                return Err(TypeError::Overlap {
                    name: name.to_string(),
                    first: o.name.clone(),
                    second: f.name.clone(),
                });
            }
        }
        open.push(f);
    }
    Ok(())
}

/// Whether two fields that lie in one stretch share a byte, `a` being the one that starts first. Runs with different
/// strides count as colliding: flattening an array never gives two of them in one stretch.
fn collide(a: &Field, b: &Field) -> bool {
    let (a_len, b_len) = (u64::from(a.elem_size), u64::from(b.elem_size));
    let distance = b.offset.saturating_sub(a.offset);
    let repeats = |f: &Field| f.count > 1 || f.is_flex();
    match (repeats(a), repeats(b)) {
        (false, _) => distance < a_len,
        (true, true) if a.stride != b.stride => true,
        (true, _) => {
            let stride = u64::from(a.stride).max(1);
            let within = distance % stride;
            if within < a_len {
                return true;
            }
            // `b` reaches over the gap into the next element of `a`, if there is one.
            let index = distance / stride;
            let a_has_next = a.is_flex() || index + 1 < u64::from(a.count);
            within + b_len > stride && a_has_next
        }
    }
}
