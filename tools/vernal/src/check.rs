//! `vernal check`: the state of files, read-only.

use crate::code;
use crate::files;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Checks every file; the exit code.
pub fn run(paths: &[PathBuf], json: bool) -> u8 {
    let rows = paths.iter().map(|path| {
        let (code, text, detail) = check(path);
        (path.clone(), code, text, detail)
    });
    files::report(json, rows.collect())
}

fn check(path: &Path) -> (u8, String, Value) {
    let shown = path.display();
    let seen = match files::look(path) {
        Ok(seen) => seen,
        Err(trouble) => return (trouble.code, trouble.text, Value::Null),
    };
    if let Some(pid) = seen.holder {
        let text = format!(
            "{shown} is mapped by process {pid}: its last commits may still be in the journal; check it when that has ended"
        );
        return (code::IN_USE, text, Value::Null);
    }
    match seen.dry_run(path) {
        Err(trouble) => (trouble.code, trouble.text, Value::Null),
        Ok(report) if report.journal.is_none() => (
            code::FINE,
            format!("{shown}: clean, {} bytes", report.committed_len),
            files::report_json(&report),
        ),
        Ok(report) => {
            let text = format!(
                "{shown}: its last writer died; {} commits can be replayed, after which it has {} bytes: run `vernal recover {shown}`, \
                 or the program",
                report.records, report.committed_len
            );
            (code::NEEDS_RECOVERY, text, files::report_json(&report))
        }
    }
}
