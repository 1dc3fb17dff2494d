//! `vernal inspect`: a pool as one page.

use super::Inspect;
use super::name::image;
use super::outcome::{Outcome, Report, finish};
use crate::page::{self, About, Limits};
use serde_json::json;
use std::fs::File;
use std::io::BufWriter;

/// Writes the page; the exit code.
pub fn run(options: &Inspect) -> u8 {
    finish(options.common, write(options))
}

fn write(options: &Inspect) -> Outcome {
    let (image, _client) = image(&options.pool)?;
    let identity = image.heap().identity();
    let about = About {
        name: options.pool.clone(),
        uuid: identity.uuid,
        mode: if identity.direct {
            "direct"
        } else {
            "buffered"
        },
    };
    let limits = Limits {
        per_object: options.content,
        total: options.content_total,
    };
    let model = page::collect(image.heap(), image.directory(), about, limits);
    let file = File::create(&options.html)
        .map_err(|e| super::outcome::Trouble::new(format!("{}: {e}", options.html.display())))?;
    page::write(&model, &mut BufWriter::new(file))?;
    let bytes = std::fs::metadata(&options.html).map_or(0, |m| m.len());
    let shown = options.html.display();
    let mut text = format!("{}: {} objects in {shown}", options.pool, model.objects);
    if model.cut > 0 {
        text.push_str(&format!(
            "; {} bytes of objects are left out: see --content",
            model.cut
        ));
    }
    Ok(Report::fine(
        text,
        json!({"pool": options.pool, "objects": model.objects, "page": shown.to_string(), "bytes": bytes, "left_out": model.cut}),
    ))
}
