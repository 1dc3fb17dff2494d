//! Refusals: short ways to make one that names the thing, the value and the remedy.

use std::io;
use std::path::Path;

use vernal_puddled_proto::{ErrorCode, Failure};

use crate::registry::RegistryError;

pub(crate) type Outcome<T> = Result<T, Failure>;

pub(crate) fn refuse<T>(code: ErrorCode, text: impl std::fmt::Display) -> Outcome<T> {
    Err(Failure::new(code, text))
}

pub(crate) fn not_found(name: &str) -> Failure {
    Failure::new(
        ErrorCode::NotFound,
        format!("no pool {name:?} that you may see: `vernal pool ls` lists them"),
    )
}

/// puddled's own files failed.
pub(crate) fn io(op: &str, path: &Path, e: &io::Error) -> Failure {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    let code = match e.kind() {
        StorageFull | QuotaExceeded => ErrorCode::NoSpace,
        _ => ErrorCode::Internal,
    };
    let remedy = match code {
        ErrorCode::NoSpace => "nothing was changed; free disk space, or remove a pool",
        _ => "nothing was changed; look at puddled's log and at the disk",
    };
    Failure::new(code, format!("{op} {}: {e}; {remedy}", path.display()))
}

/// The kernel gave no descriptor, or no memory for one.
pub(crate) fn no_descriptor(what: &str, e: &io::Error) -> Failure {
    Failure::new(
        ErrorCode::Limit,
        format!("no {what}: {e}; raise puddled's limit of open files, or close some"),
    )
}

impl From<RegistryError> for Failure {
    fn from(e: RegistryError) -> Self {
        let code = if e.is_full() {
            ErrorCode::NoSpace
        } else {
            ErrorCode::Internal
        };
        Failure::new(code, e)
    }
}
