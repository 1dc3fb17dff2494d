//! A mapped file's metadata and journal, looked at without changing anything.

use crate::code;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use vernal_journal::{
    JournalReader, MetaFile, RecoveryError, RecoveryReport, Unrecovered, check_home,
};
use vernal_sys::{FileMedia, os};

/// Why a file cannot be looked at, or is not as it should be.
pub struct Trouble {
    /// The exit code.
    pub code: u8,
    /// The sentence for a person.
    pub text: String,
}

impl Trouble {
    fn new(code: u8, text: impl Into<String>) -> Trouble {
        Trouble {
            code,
            text: text.into(),
        }
    }

    /// The word for reports.
    pub fn word(&self) -> &'static str {
        word(self.code)
    }
}

/// The word for an exit code.
pub fn word(code: u8) -> &'static str {
    match code {
        code::FINE => "clean",
        code::NEEDS_RECOVERY => "needs-recovery",
        code::DAMAGED => "damaged",
        code::NO_METADATA => "no-metadata",
        code::IN_USE => "in-use",
        _ => "error",
    }
}

/// A file that has metadata.
pub struct Seen {
    /// The metadata as found.
    pub meta: MetaFile<FileMedia, Unrecovered>,
    /// The process that has the file mapped, if one has.
    pub holder: Option<u32>,
    /// The journal that the metadata name.
    pub journal: Option<Journal>,
}

/// A journal that metadata name.
pub struct Journal {
    /// Where it was looked for last.
    pub path: PathBuf,
    /// Its reader; `None` when there is no such file.
    pub reader: Option<JournalReader<FileMedia>>,
}

/// Opens what belongs to the mapped file `path`, for reading.
pub fn look(path: &Path) -> Result<Seen, Trouble> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|e| {
        Trouble::new(
            code::ERROR,
            format!("{shown}: {e}: give the path of the mapped file"),
        )
    })?;
    if !metadata.is_file() {
        return Err(Trouble::new(
            code::ERROR,
            format!("{shown} is not a regular file: give the path of the mapped file"),
        ));
    }
    let own = path.extension().is_some_and(|e| e == "vernal")
        || path.to_string_lossy().contains(".vernal-journal-");
    if own {
        return Err(Trouble::new(
            code::ERROR,
            format!("{shown} is one of Vernal's own files: give the path of the mapped file"),
        ));
    }
    // Metadata lie beside the file itself, not beside a link to it.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let meta_path = vernal_snapshot::meta_path(&real);
    let file = match std::fs::File::open(&meta_path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let text = format!(
                "{shown} has no metadata ({} is missing): Vernal has never mapped it",
                meta_path.display()
            );
            return Err(Trouble::new(code::NO_METADATA, text));
        }
        Err(e) => {
            return Err(Trouble::new(
                code::ERROR,
                format!("{}: {e}", meta_path.display()),
            ));
        }
    };
    // Looked up, not tried: taking the lock for a moment could refuse a program that starts right now.
    let holder = os::lock_holder(&file);
    let media = FileMedia::from_file(file)
        .map_err(|e| Trouble::new(code::ERROR, format!("{}: {e}", meta_path.display())))?;
    let meta = MetaFile::load(media, meta_path.display().to_string()).map_err(|e| trouble(&e))?;
    let journal = match meta.needed_journal() {
        None => None,
        Some((_, named)) => Some(open_journal(&real, Path::new(OsStr::from_bytes(named)))?),
    };
    Ok(Seen {
        meta,
        holder,
        journal,
    })
}

fn open_journal(path: &Path, named: &Path) -> Result<Journal, Trouble> {
    let path = vernal_snapshot::resolve_journal(path, named);
    let media = match FileMedia::open_read_only(&path) {
        Ok(media) => media,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Journal { path, reader: None }),
        Err(e) => {
            return Err(Trouble::new(
                code::ERROR,
                format!("{}: {e}", path.display()),
            ));
        }
    };
    let reader = JournalReader::open(media, path.display().to_string()).map_err(|e| trouble(&e))?;
    Ok(Journal {
        path,
        reader: Some(reader),
    })
}

impl Seen {
    /// What recovery would do.
    pub fn dry_run(&self, path: &Path) -> Result<RecoveryReport, Trouble> {
        let home = FileMedia::open_read_only(path)
            .map_err(|e| Trouble::new(code::ERROR, format!("{}: {e}", path.display())))?;
        let reader = self
            .journal
            .as_ref()
            .and_then(|journal| journal.reader.as_ref());
        check_home(&self.meta, reader, &home).map_err(|e| trouble(&e))
    }
}

/// The kind of a recovery error.
pub fn trouble(error: &RecoveryError) -> Trouble {
    let code = match error {
        RecoveryError::Io { .. } => code::ERROR,
        _ => code::DAMAGED,
    };
    Trouble::new(code, error.to_string())
}

/// A recovery report as JSON.
pub fn report_json(report: &RecoveryReport) -> Value {
    json!({
        "records": report.records,
        "entries": report.entries,
        "last_sequence": report.last_sequence,
        "found_length": report.found_len,
        "committed_length": report.committed_len,
    })
}

/// Prints one outcome per file, and returns the highest code.
pub fn report(json: bool, rows: Vec<(PathBuf, u8, String, Value)>) -> u8 {
    let highest = rows.iter().map(|row| row.1).max().unwrap_or(code::FINE);
    if json {
        let files = rows.iter().map(|(path, code, text, detail)| {
            json!({"file": path.to_string_lossy(), "state": word(*code), "code": code, "message": text, "recovery": detail})
        });
        crate::print(&json!({"files": files.collect::<Vec<_>>(), "code": highest}).to_string());
    } else {
        for (_, code, text, _) in &rows {
            if matches!(*code, code::FINE | code::NEEDS_RECOVERY) {
                crate::print(text)
            } else {
                eprintln!("vernal: {text}")
            }
        }
    }
    highest
}
