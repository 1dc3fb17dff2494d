//! Descriptors for people and for programs that read JSON.

use std::fmt::Write as _;

use vernal_format::types::FieldKind;

use crate::describe::Described;

impl Described {
    /// The layout, one line a field, with the address points of the vtable pointers.
    pub fn text(&self) -> String {
        let mut text = self.desc.to_string();
        for b in &self.bound {
            let _ = write!(text, "\n  address point {}+{}", b.symbol, b.offset);
        }
        text.push('\n');
        text
    }

    /// One line of JSON.
    pub fn json(&self) -> String {
        let d = &self.desc;
        let mut text = format!(
            "{{\"type\":{},\"id\":\"{:016x}\",\"size\":{},\"align\":{},\"fields\":[",
            quoted(d.name()),
            d.id(),
            d.size(),
            d.align()
        );
        for (i, f) in d.fields().iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(
                text,
                "{comma}{{\"name\":{},\"offset\":{},\"kind\":\"{}\",\"size\":{},\"count\":{},\"stride\":{},\"flex\":{},\"annotated\":{},\"target\":{}",
                quoted(&f.name),
                f.offset,
                f.kind.word(),
                f.elem_size,
                f.count,
                f.stride,
                f.is_flex(),
                f.flags & vernal_format::types::field_flags::ANNOTATED != 0,
                quoted(&f.target)
            );
            if f.kind == FieldKind::Enum {
                let (min, max) = f.enum_range();
                let _ = write!(text, ",\"min\":{min},\"max\":{max}");
            }
            if f.kind == FieldKind::Pointer && f.aux != 0 {
                let _ = write!(text, ",\"target_id\":\"{:016x}\"", f.aux);
            }
            text.push('}');
        }
        text.push_str("],\"bound\":[");
        for (i, b) in self.bound.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let symbol = quoted(&b.symbol);
            let _ = write!(
                text,
                "{comma}{{\"symbol\":{symbol},\"offset\":{}}}",
                b.offset
            );
        }
        text.push_str("]}");
        text
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
