//! What can be wrong with a message, and what puddled answers when it refuses one.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::MAX_TEXT;
use crate::name::{ChannelNameProblem, NameProblem};

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtoError {
    /// A packet of no bytes.
    #[error("an empty message: send a request of the protocol that Hello agreed on")]
    Empty,
    /// A packet longer than allowed.
    #[error("a message of {len} bytes, and {limit} are allowed: ask for less at a time")]
    Oversized {
        /// Its length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// Another version than the one agreed on.
    #[error(
        "a message of protocol version {found} on a connection that speaks {expected}: say Hello first, and then keep to the version that it agreed on"
    )]
    Version {
        /// The version of the message.
        found: u8,
        /// The version agreed on.
        expected: u8,
    },
    /// The two sides have no version in common.
    #[error(
        "the client speaks protocol versions {client_min} to {client_max}, puddled {min} to {max}: update the older of the two"
    )]
    NoCommonVersion {
        /// Oldest of the client.
        client_min: u8,
        /// Newest of the client.
        client_max: u8,
        /// Oldest of this side.
        min: u8,
        /// Newest of this side.
        max: u8,
    },
    /// Bytes that are no message.
    #[error("the message cannot be parsed ({0}): client and puddled do not belong together")]
    Malformed(&'static str),
    /// Bytes behind the message.
    #[error("{0} bytes too many behind a message: client and puddled do not belong together")]
    Trailing(usize),
    /// A value beyond its limit.
    #[error("{what} of {value}, and the limit is {limit}: ask for less")]
    Limit {
        /// What is too long or too large.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// A value that makes no sense.
    #[error("{what} of {value} is not allowed: {remedy}")]
    Value {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What would be allowed.
        remedy: &'static str,
    },
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameProblem),
    /// A name that cannot be a channel's.
    #[error(transparent)]
    ChannelName(#[from] ChannelNameProblem),
    /// A message that the version agreed on does not have.
    #[error(
        "{what} needs protocol version {needs}, and this connection speaks {agreed}: update the older of client and puddled"
    )]
    TooOld {
        /// The message.
        what: &'static str,
        /// The first version that has it.
        needs: u8,
        /// The version of the connection.
        agreed: u8,
    },
}

/// What kind of refusal it is, for programs; the text is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The message is not valid.
    Protocol,
    /// No pool, puddle or import of that name.
    NotFound,
    /// The name is taken.
    Exists,
    /// The user may not.
    Access,
    /// Somebody else has it.
    Busy,
    /// The user's quota is used up.
    Quota,
    /// The disk is full.
    NoSpace,
    /// The address space is full.
    NoAddress,
    /// A limit of puddled or of this client.
    Limit,
    /// The pool waits for inspection after an invalid journal or log.
    Quarantine,
    /// A file of the pool is missing or damaged.
    Damaged,
    /// The request does not fit the pool's state or kind.
    Invalid,
    /// puddled could not read or write its own files.
    Internal,
    /// puddled is shutting down.
    ShuttingDown,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{text}")]
pub struct Failure {
    /// For programs.
    pub code: ErrorCode,
    /// For people: the thing, the value and the remedy.
    pub text: String,
}

impl Failure {
    /// A refusal whose text is cut to the protocol's limit.
    pub fn new(code: ErrorCode, text: impl fmt::Display) -> Self {
        let mut text = text.to_string();
        if text.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|&i| text.is_char_boundary(i));
            text.truncate(end.unwrap_or(0));
        }
        Failure { code, text }
    }
}

impl From<ProtoError> for Failure {
    fn from(e: ProtoError) -> Self {
        Failure::new(ErrorCode::Protocol, e)
    }
}
