//! `vernal info`: metadata and journal, in full.

use crate::files::{self, Seen, Trouble};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use vernal_journal::{JournalReader, LogEnd, MetaState};
use vernal_sys::FileMedia;

/// Shows what is known about `path`; the exit code.
pub fn run(path: &Path, records: bool, json: bool) -> u8 {
    match describe(path, records) {
        Ok(value) => {
            crate::print(&if json {
                value.to_string()
            } else {
                text(&value)
            });
            crate::code::FINE
        }
        Err(trouble) => {
            if json {
                crate::print(&json!({"file": path.to_string_lossy(), "state": trouble.word(), "message": trouble.text}).to_string());
            } else {
                eprintln!("vernal: {}", trouble.text);
            }
            trouble.code
        }
    }
}

fn describe(path: &Path, records: bool) -> Result<Value, Trouble> {
    let seen = files::look(path)?;
    let meta = seen.meta.meta();
    let length = std::fs::metadata(path).map_or(0, |m| m.len());
    let state = match meta.state {
        MetaState::Clean => "clean",
        MetaState::Active { .. } => "active",
    };
    Ok(json!({
        "file": path.to_string_lossy(),
        "length": length,
        "metadata": {
            "path": seen.meta.name(),
            "identity": meta.file.to_string(),
            "updates": meta.update,
            "state": state,
            "home_address": format!("{:#x}", meta.home_addr),
            "address_space": meta.slot_len,
            "committed_length": meta.committed_len,
        },
        "mapped_by": seen.holder,
        "journal": journal(&seen, records)?,
    }))
}

fn journal(seen: &Seen, records: bool) -> Result<Value, Trouble> {
    let Some(journal) = &seen.journal else {
        return Ok(Value::Null);
    };
    let path = journal.path.to_string_lossy();
    let Some(reader) = &journal.reader else {
        return Ok(json!({"path": path, "missing": true}));
    };
    let superblock = reader.superblock();
    let members = reader.members().map_err(|e| files::trouble(&e))?;
    let member = |served: &vernal_journal::ServedFile| {
        json!({
            "identity": served.member.file.to_string(),
            "metadata": served.meta_path.as_ref().map(|p| String::from_utf8_lossy(p).into_owned()),
            "first_line": format!("{:#x}", served.member.base_line),
            "lines": served.member.line_count,
            "length_at_checkpoint": served.member.committed_len,
        })
    };
    let (list, summary) = scan(reader, records)?;
    let end = match summary.end {
        LogEnd::Full => json!("full"),
        LogEnd::NoRecord => json!("no further record"),
        LogEnd::Damaged { later } => json!({"damaged_before_record": later}),
        _ => json!("unknown"),
    };
    Ok(json!({
        "path": path,
        "identity": superblock.journal.to_string(),
        "generation": superblock.generation,
        "log_bytes": superblock.log_len,
        "write_unit": superblock.write_unit,
        "members": members.iter().map(member).collect::<Vec<_>>(),
        "records": summary.records,
        "record_bytes": summary.bytes,
        "first_sequence": summary.first_sequence,
        "next_sequence": summary.next_sequence,
        "end": end,
        "record_list": list,
    }))
}

/// The records, each listed if asked for.
fn scan(
    reader: &JournalReader<FileMedia>,
    listed: bool,
) -> Result<(Value, vernal_journal::ScanSummary), Trouble> {
    let mut list = Vec::new();
    let summary = reader.scan(|record| {
        if listed {
            list.push(json!({
                "sequence": record.header.sequence,
                "offset": record.offset,
                "bytes": record.header.record_bytes(),
                "entries": record.header.entries,
                "unflushed_before": record.header.unflushed,
            }));
        }
        Ok(())
    });
    let summary = summary.map_err(|e| files::trouble(&e))?;
    Ok((
        if listed {
            Value::from(list)
        } else {
            Value::Null
        },
        summary,
    ))
}

/// The same as indented lines, without what is null.
fn text(value: &Value) -> String {
    let mut out = String::new();
    lines(&mut out, value, 0);
    out.trim_end().to_owned()
}

fn lines(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        let key = key.replace('_', " ");
        match value {
            Value::Null => {}
            Value::Object(_) => {
                let _ = writeln!(out, "{indent}{key}");
                lines(out, value, depth + 1);
            }
            Value::Array(items) => {
                let _ = writeln!(out, "{indent}{key}");
                for item in items {
                    let _ = writeln!(out, "{indent}  {}", inline(item));
                }
            }
            other => {
                let _ = writeln!(out, "{indent}{key:<22} {}", plain(other));
            }
        }
    }
}

fn inline(value: &Value) -> String {
    let Value::Object(map) = value else {
        return plain(value);
    };
    let parts = map
        .iter()
        .filter(|(_, v)| !v.is_null())
        .map(|(k, v)| format!("{} {}", k.replace('_', " "), plain(v)));
    parts.collect::<Vec<_>>().join(", ")
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_shows_what_json_holds() {
        let value = json!({"file": "a", "x": null, "metadata": {"home_address": "0x58", "n": 3}, "members": [{"a_b": 1, "c": null}]});
        let text = text(&value);
        for part in [
            "file                   a",
            "  home address           0x58",
            "  a b 1",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains('x') || !text.contains("null"), "{text}");
    }
}
