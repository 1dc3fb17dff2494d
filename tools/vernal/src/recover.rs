//! `vernal recover`: what opening a file does, without opening it.

use crate::code;
use crate::files::{self, Trouble};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Recovers every file; the exit code.
pub fn run(paths: &[PathBuf], json: bool) -> u8 {
    let rows = paths.iter().map(|path| match recover(path) {
        Ok((text, detail)) => (path.clone(), code::FINE, text, detail),
        Err(trouble) => (path.clone(), trouble.code, trouble.text, Value::Null),
    });
    files::report(json, rows.collect())
}

fn recover(path: &Path) -> Result<(String, Value), Trouble> {
    let shown = path.display();
    // First without changing anything: it tells apart what cannot be read, what is damaged and what is in use.
    let seen = files::look(path)?;
    if let Some(pid) = seen.holder {
        let text = format!(
            "{shown} is mapped by process {pid}: end that process first; it completes the file by itself when it unmaps it"
        );
        return Err(Trouble {
            code: code::IN_USE,
            text,
        });
    }
    seen.dry_run(path)?;
    drop(seen);
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let report = vernal_snapshot::recover_path(&real).map_err(|error| {
        let code = if matches!(error, vernal_snapshot::Error::Busy { .. }) {
            code::IN_USE
        } else {
            code::ERROR
        };
        Trouble {
            code,
            text: error.to_string(),
        }
    })?;
    Ok(match report {
        None => (format!("{shown}: clean, nothing to do"), Value::Null),
        Some(report) => {
            let length = if report.found_len == report.committed_len {
                String::new()
            } else {
                format!(
                    "; length {} -> {} bytes",
                    report.found_len, report.committed_len
                )
            };
            let text = format!(
                "{shown}: recovered, {} commits replayed ({} lines of this file){length}",
                report.records, report.entries
            );
            (text, files::report_json(&report))
        }
    })
}
