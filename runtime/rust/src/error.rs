//! The error that every operation returns.

use std::ffi::CStr;
use std::fmt;

use crate::sys;

/// What kind of failure it was (`vernal_error` in vernal.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// An argument is wrong.
    Invalid,
    /// The medium failed: the mapping is read-only from now on, the last commit stays readable.
    Io,
    /// No space for this commit: nothing was changed, free space and commit again.
    NoSpace,
    /// The file is mapped by another process, or a commit is already running in this thread.
    Busy,
    /// The file's home address is taken.
    Address,
    /// Metadata or journal are damaged, or from a newer version.
    Format,
    /// No permission, or a forked child used its parent's mapping.
    Permission,
    /// No such file or mapping.
    NotFound,
    /// The mapping has failed earlier or the medium is read-only.
    ReadOnly,
    /// The transaction was rolled back together with an abort in another thread: run it again. [`Pool::tx`] does.
    ///
    /// [`Pool::tx`]: crate::Pool::tx
    Conflict,
    /// A type is refused, or differs from the one in the pool; the message shows both layouts.
    Type,
    /// The transaction was aborted.
    Aborted,
    /// puddled holds the pool back until it has been inspected.
    Quarantine,
    /// The pool may not be used this way.
    Access,
    /// A code that this version of the crate does not know.
    Other(i32),
}

impl From<i32> for ErrorCode {
    fn from(code: i32) -> Self {
        match code {
            -1 => Self::Invalid,
            -2 => Self::Io,
            -3 => Self::NoSpace,
            -4 => Self::Busy,
            -5 => Self::Address,
            -6 => Self::Format,
            -7 => Self::Permission,
            -8 => Self::NotFound,
            -9 => Self::ReadOnly,
            -10 => Self::Conflict,
            -11 => Self::Type,
            -12 => Self::Aborted,
            -13 => Self::Quarantine,
            -14 => Self::Access,
            other => Self::Other(other),
        }
    }
}

/// Why an operation failed. Its `Display` is the runtime's message: it names the thing, the value and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: ErrorCode,
    message: String,
}

impl Error {
    /// The kind of failure.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn new(code: ErrorCode, message: String) -> Self {
        Self { code, message }
    }

    /// The calling thread's last failure; `code` if the function returned one.
    pub(crate) fn last(code: i32) -> Self {
        // SAFETY: the runtime returns a terminated string that stays valid until this thread's next call into it.
        let message = unsafe { CStr::from_ptr(sys::vernal_last_error()) };
        Self::new(code.into(), message.to_string_lossy().into_owned())
    }

    /// The calling thread's last failure, of a function that returns NULL.
    pub(crate) fn last_null() -> Self {
        // SAFETY: no argument.
        Self::last(unsafe { sys::vernal_last_error_code() })
    }

    pub(crate) fn check(code: i32) -> Result<(), Self> {
        if code == 0 {
            Ok(())
        } else {
            Err(Self::last(code))
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
