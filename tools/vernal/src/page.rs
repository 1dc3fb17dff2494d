//! The page of `vernal inspect`: one HTML file that shows a pool and needs nothing else, no network and no server.
//!
//! Objects travel as columns of numbers, deflated and in base64; the page unpacks them into typed arrays, so that a million
//! objects take megabytes and not a million little structures. Everything from a pool is hostile text: it reaches the page as
//! JSON in which `<` is escaped, and the page only ever writes it as text.

mod columns;
mod model;

pub use model::{About, Limits, Model, collect};

use columns::Base64Writer;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use serde_json::{Value, json};
use std::io::{self, Write};

const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const JS: &str = include_str!("page/page.js");

/// Writes the page that shows `model`.
pub fn write(model: &Model, out: &mut impl Write) -> io::Result<()> {
    let mut rest = HTML;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        out.write_all(before.as_bytes())?;
        match name {
            "title" => out.write_all(escape(&model.about.name).as_bytes())?,
            "css" => out.write_all(CSS.as_bytes())?,
            "js" => out.write_all(JS.as_bytes())?,
            "meta" => out.write_all(json_text(&meta(model)).as_bytes())?,
            _ => columns(model, out)?,
        }
        rest = after;
    }
    out.write_all(rest.as_bytes())?;
    out.flush()
}

fn columns(model: &Model, out: &mut impl Write) -> io::Result<()> {
    let mut deflate = DeflateEncoder::new(Base64Writer::new(out), Compression::fast());
    let columns = [
        &model.addr_column,
        &model.size_column,
        &model.type_column,
        &model.stored_column,
    ];
    for column in columns {
        deflate.write_all(column)?;
    }
    deflate.write_all(&model.content)?;
    deflate.finish()?.finish()
}

fn meta(model: &Model) -> Value {
    let puddles = model.puddles.iter().map(|p| {
        let mut fill = Base64Writer::new(Vec::new());
        // Writing to memory cannot fail.
        let _ = fill.write_all(&p.fill);
        json!({
            "uuid": p.uuid.to_string(),
            "addr": p.addr,
            "size": p.size,
            "used": p.used,
            "fill": String::from_utf8(fill.into_inner()).unwrap_or_default(),
        })
    });
    let types = model.types.iter().map(|t| {
        let fields = t.fields.iter().map(|f| {
            json!({
                "offset": f.offset,
                "kind": f.kind as u16,
                "size": f.elem_size,
                "count": f.count,
                "stride": f.stride,
                "flags": f.flags,
                "name": f.name,
                "target": f.target,
            })
        });
        json!({
            "name": t.name,
            "id": t.id.map_or(String::new(), |id| format!("{id:#018x}")),
            "size": t.size,
            "objects": t.objects,
            "bytes": t.bytes,
            "fields": fields.collect::<Vec<_>>(),
        })
    });
    json!({
        "name": model.about.name,
        "uuid": model.about.uuid.to_string(),
        "mode": model.about.mode,
        "root": model.root,
        "objects": model.objects,
        "used": model.used,
        "total": model.total,
        "cut": model.cut,
        "puddles": puddles.collect::<Vec<_>>(),
        "types": types.collect::<Vec<_>>(),
    })
}

/// JSON that can stand in a script element.
fn json_text(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vernal_format::Uuid;

    #[test]
    fn text_from_a_pool_ends_no_element() {
        let mut model = Model::empty(About {
            name: "</title></script><script>alert(1)".into(),
            uuid: Uuid([1; 16]),
            mode: "buffered",
        });
        model.types.push(model::PageType {
            name: "</script><b>".into(),
            ..Default::default()
        });
        let mut page = Vec::new();
        write(&model, &mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        assert_eq!(page.matches("</script>").count(), 3);
        assert_eq!(page.matches("</title>").count(), 1);
        assert!(!page.contains("{{"), "a place in the page was not filled");
    }
}
