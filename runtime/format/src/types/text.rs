//! Descriptors as text: the canonical one that identity is the hash of, and those that people read.

use super::desc::{Field, FieldKind, TypeDesc};
use std::fmt::{self, Write};
use xxhash_rust::xxh3::xxh3_64;

/// The text whose XXH3-64 is a type's id:
///
/// ```text
/// NAME{size,align;offset:kind:elem_size*count/stride:target;...}
/// ```
///
/// A flexible field has `+` instead of a count; an enum's kind is `enum[min..max]`. Names of fields do not count: a
/// renamed field is the same layout.
pub fn canonical_text(desc: &TypeDesc) -> String {
    text_of(desc.name(), desc.size(), desc.align(), desc.fields())
}

/// The id that follows from a type's name and layout; a parsed descriptor has this one.
pub fn type_id(desc: &TypeDesc) -> u64 {
    xxh3_64(canonical_text(desc).as_bytes())
}

pub(super) fn type_id_of(name: &str, size: u64, align: u32, fields: &[Field]) -> u64 {
    xxh3_64(text_of(name, size, align, fields).as_bytes())
}

fn text_of(name: &str, size: u64, align: u32, fields: &[Field]) -> String {
    let mut text = format!("{name}{{{size},{align};");
    for f in fields {
        let _ = write!(text, "{}:{}", f.offset, f.kind.word());
        if f.kind == FieldKind::Enum {
            let (min, max) = f.enum_range();
            let _ = write!(text, "[{min}..{max}]");
        }
        let _ = write!(text, ":{}*", f.elem_size);
        let _ = match f.is_flex() {
            true => write!(text, "+"),
            false => write!(text, "{}", f.count),
        };
        let _ = write!(text, "/{}:{};", f.stride, f.target);
    }
    text.push('}');
    text
}

/// One field as a person reads it: `+8 next: ptr node`.
fn field_line(f: &Field) -> String {
    let what = match f.kind {
        FieldKind::Pointer => format!("pointer to {}", f.target),
        FieldKind::Function => format!("function {}", f.target),
        FieldKind::Vtable => format!("vtable of {}", f.target),
        FieldKind::Integer => format!("integer of {}", f.elem_size),
        FieldKind::Float => format!("float of {}", f.elem_size),
        FieldKind::Bool => "bool".to_string(),
        FieldKind::Enum => {
            let (min, max) = f.enum_range();
            format!("enum {} {min}..={max}, {} bytes", f.target, f.elem_size)
        }
        FieldKind::Bytes => format!("{} bytes", f.elem_size),
        FieldKind::Refused => format!("REFUSED: {}", f.target),
        FieldKind::Part => format!("({} bytes: {})", f.elem_size, f.target),
    };
    let repeat = match (f.is_flex(), f.count) {
        (true, _) => format!(", to the end every {}", f.stride),
        (false, 1) => String::new(),
        (false, n) => format!(", {n} times every {}", f.stride),
    };
    format!("+{} {}: {what}{repeat}", f.offset, f.name)
}

fn head_line(desc: &TypeDesc) -> String {
    format!(
        "{}: {} bytes, aligned to {}, id {:016x}",
        desc.name(),
        desc.size(),
        desc.align(),
        desc.id()
    )
}

impl fmt::Display for TypeDesc {
    /// The whole layout, one line a field.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", head_line(self))?;
        for f in self.fields() {
            write!(out, "\n  {}", field_line(f))?;
        }
        Ok(())
    }
}

/// Two layouts side by side, for the error about a type that has changed: a `!` marks the lines that differ. Lines are
/// matched by the field's name, so that an inserted field does not mark everything behind it twice.
pub fn diff(pool: &TypeDesc, program: &TypeDesc) -> String {
    let mut rows = vec![
        ("in the pool".to_string(), "in the program".to_string()),
        (head_line(pool), head_line(program)),
    ];
    let (old, new) = (pool.fields(), program.fields());
    let mut next_old = 0;
    for f in new {
        let found = old.iter().enumerate().skip(next_old).find(|(_, o)| {
            o.name == f.name && (o.kind == FieldKind::Part) == (f.kind == FieldKind::Part)
        });
        match found {
            Some((at, o)) => {
                for gone in old.iter().take(at).skip(next_old) {
                    rows.push((field_line(gone), String::new()));
                }
                rows.push((field_line(o), field_line(f)));
                next_old = at + 1;
            }
            None => rows.push((String::new(), field_line(f))),
        }
    }
    for gone in old.iter().skip(next_old) {
        rows.push((field_line(gone), String::new()));
    }
    let width = rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (at, (left, right)) in rows.iter().enumerate() {
        let mark = if at > 0 && left != right { '!' } else { ' ' };
        let pad = " ".repeat(width - left.chars().count());
        let line = format!("{mark} {left}{pad} | {right}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
