//! What can go wrong, on this side and on the other one.

use std::ffi::{CStr, CString, c_char};
use std::fmt;

use thiserror::Error;

use crate::sys;

/// Why a call failed on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The channel serves no such method.
    UnknownMethod,
    /// The argument is not what the method takes, or did not pass verification.
    BadArgument,
    /// Nobody waits for the answer any more.
    Cancelled,
    /// The server is going away and takes no new calls.
    ShuttingDown,
    /// More than the server takes at once.
    Busy,
    /// The handler panicked, or the server failed otherwise.
    Internal,
    /// A code of the application, as its handler gave it.
    Application(u32),
}

const APPLICATION: u32 = 8;

impl Code {
    /// As vernal_rpc.h has it.
    fn kind(self) -> u32 {
        match self {
            Self::UnknownMethod => 1,
            Self::BadArgument => 2,
            Self::Cancelled => 4,
            Self::ShuttingDown => 5,
            Self::Busy => 6,
            Self::Internal => 7,
            Self::Application(_) => APPLICATION,
        }
    }

    fn from_kind(kind: u32, code: u32) -> Self {
        match kind {
            1 => Self::UnknownMethod,
            2 => Self::BadArgument,
            4 => Self::Cancelled,
            5 => Self::ShuttingDown,
            6 => Self::Busy,
            APPLICATION => Self::Application(code),
            _ => Self::Internal,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownMethod => "unknown method",
            Self::BadArgument => "bad argument",
            Self::Cancelled => "cancelled",
            Self::ShuttingDown => "shutting down",
            Self::Busy => "busy",
            Self::Internal => "internal",
            Self::Application(n) => return write!(f, "application code {n}"),
        })
    }
}

/// What a handler returns instead of a reply, and its caller gets as [`Error::Remote`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {text}")]
pub struct Failure {
    /// What a program decides by.
    pub code: Code,
    /// What a person reads; 4096 bytes of it travel.
    pub text: String,
}

impl Failure {
    /// A failure with a code of the application, below 2^31.
    pub fn new(code: u32, text: impl Into<String>) -> Self {
        Self::of(Code::Application(code & !(1 << 31)), text)
    }

    /// A failure with any code.
    pub fn of(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// Fails the call that a handler runs; returns what the handler returns.
    pub(crate) fn tell(&self, call: *mut sys::Call) -> std::ffi::c_int {
        let text = c_text(&self.text);
        // SAFETY: the handler's call, and a C string that outlives the calls.
        unsafe {
            match self.code {
                Code::Application(code) => sys::vn_rpc_fail(call, code, text.as_ptr()),
                other => sys::vn_rpc_fail_as(call, other.kind(), text.as_ptr()),
            }
        }
    }
}

/// Memory of the reply could not be had.
impl From<vernal::Error> for Failure {
    fn from(error: vernal::Error) -> Self {
        Self::of(Code::Internal, error.message())
    }
}

/// A call that the handler itself made has failed, or the reply cannot be passed.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::of(Code::Internal, error.to_string())
    }
}

/// Why something failed. The texts are libvernal's: they name the thing, the value and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// No server has opened the name.
    #[error("{0}")]
    NotFound(String),
    /// Another live server has the name, or the server's queue of new clients is full.
    #[error("{0}")]
    Busy(String),
    /// This user, or this process, may not.
    #[error("{0}")]
    Access(String),
    /// The peer's process has ended: connect again. What it sent stays readable while it is held.
    #[error("{0}")]
    PeerDied(String),
    /// This side has closed the connection.
    #[error("{0}")]
    Closed(String),
    /// The deadline passed.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// The call failed on the other side.
    #[error("the call failed: {0}")]
    Remote(Failure),
    /// What the peer passed is not a sound value of the expected type.
    #[error("{0}")]
    Unverified(String),
    /// The peer broke the protocol; the connection is closed.
    #[error("{0}")]
    Protocol(String),
    /// puddled refused, or does not run.
    #[error("{0}")]
    Registry(String),
    /// A limit is exceeded, or there is no memory.
    #[error("{0}")]
    TooLarge(String),
    /// Building an object failed, or its type cannot be passed.
    #[error(transparent)]
    Heap(#[from] vernal::Error),
    /// An argument is not allowed.
    #[error("{0}")]
    Invalid(String),
    /// Anything else.
    #[error("{text}")]
    Other {
        /// `vernal_error` of vernal.h.
        code: i32,
        /// What happened.
        text: String,
    },
}

impl Error {
    /// The calling thread's last failure in libvernal.
    #[cold]
    pub(crate) fn last() -> Self {
        // SAFETY: terminated strings that stay valid until this thread's next failure.
        let (code, text, kind, remote_code, remote) = unsafe {
            (
                sys::vernal_last_error_code(),
                text(sys::vernal_last_error()),
                sys::vn_rpc_remote_kind(),
                sys::vn_rpc_remote_code(),
                text(sys::vn_rpc_remote_text()),
            )
        };
        match code {
            -1 => Self::Invalid(text),
            -3 => Self::TooLarge(text),
            -4 => Self::Busy(text),
            -7 => Self::Access(text),
            -8 => Self::NotFound(text),
            -20 => Self::PeerDied(text),
            -21 => Self::Closed(text),
            -22 => Self::DeadlineExceeded(text),
            -23 => Self::Remote(Failure::of(Code::from_kind(kind, remote_code), remote)),
            -24 => Self::Unverified(text),
            -25 => Self::Protocol(text),
            -26 => Self::Registry(text),
            code => Self::Other { code, text },
        }
    }

    pub(crate) fn check(code: std::ffi::c_int) -> Result<(), Self> {
        match code {
            0 => Ok(()),
            _ => Err(Self::last()),
        }
    }

    /// The code of the application that the handler failed with.
    pub fn application_code(&self) -> Option<u32> {
        match self {
            Self::Remote(Failure {
                code: Code::Application(code),
                ..
            }) => Some(*code),
            _ => None,
        }
    }
}

/// A copy of a C string.
///
/// # Safety
///
/// `at` is a terminated string.
unsafe fn text(at: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned()
}

/// Text for C: it ends at the first zero byte.
pub(crate) fn c_text(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

/// A name for C, whole.
pub(crate) fn c_name(name: &str) -> Result<CString, Error> {
    CString::new(name).map_err(|_| {
        Error::Invalid(format!(
            "{name:?} has a zero byte in it: no channel or address has"
        ))
    })
}
