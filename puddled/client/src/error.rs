//! Why a request did not succeed.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use vernal_puddled_proto::{ErrorCode, Failure, ProtoError};

/// Why a request did not succeed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens, or not to this user.
    #[error(
        "no connection to puddled at {path}: {source}; start it (systemctl start puddled.socket, or puddled --data DIR), or set VERNAL_PUDDLED to its socket"
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection is gone.
    #[error(
        "puddled has ended the connection during {request}: it was stopped, or it refused this client; what was committed is recovered when puddled runs; open the pool again"
    )]
    Closed {
        /// The request.
        request: &'static str,
    },
    /// The socket failed.
    #[error("{op} of the connection to puddled failed: {source}; open the pool again")]
    Io {
        /// What was tried.
        op: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A message that is none.
    #[error("the protocol of puddled: {0}")]
    Proto(#[from] ProtoError),
    /// puddled refused the request.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// A reply to something else.
    #[error(
        "puddled answered {request} with another message than it should: update the older of the two"
    )]
    Unexpected {
        /// The request.
        request: &'static str,
    },
    /// Descriptors are missing, or there are too many.
    #[error(
        "puddled answered {request} with {found} descriptors instead of {expected}: raise the limit of open files (ulimit -n), or update the older of the two"
    )]
    Descriptors {
        /// The request.
        request: &'static str,
        /// How many the reply names.
        expected: usize,
        /// How many came.
        found: usize,
    },
}

impl ClientError {
    /// puddled's code, if it refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Refused(failure) => Some(failure.code),
            _ => None,
        }
    }

    pub(crate) fn io(op: &'static str, e: rustix::io::Errno) -> Self {
        ClientError::Io {
            op,
            source: e.into(),
        }
    }
}
