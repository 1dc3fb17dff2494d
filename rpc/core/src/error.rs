//! What can go wrong, on this side and on the other one.

use std::io;

use thiserror::Error;

/// Why a call failed on the other side, as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The channel serves no such method.
    UnknownMethod,
    /// The argument is not what the method takes, or did not pass verification.
    BadArgument,
    /// The deadline was over before the handler ended.
    DeadlineExceeded,
    /// The caller gave the call up.
    Cancelled,
    /// The server is going away and takes no new calls.
    ShuttingDown,
    /// More calls than the server takes at once.
    Busy,
    /// The handler panicked, crashed in its sandbox, or the server failed otherwise.
    Internal,
    /// A code of the application, as its handler returned it.
    Application(u32),
}

const APPLICATION: u32 = 1 << 31;

impl Code {
    /// As it travels. Never 0.
    pub fn to_wire(self) -> u32 {
        match self {
            Code::UnknownMethod => 1,
            Code::BadArgument => 2,
            Code::DeadlineExceeded => 3,
            Code::Cancelled => 4,
            Code::ShuttingDown => 5,
            Code::Busy => 6,
            Code::Internal => 7,
            Code::Application(n) => APPLICATION | n,
        }
    }

    /// What a peer sent. A number that nobody defined is an internal error of the peer.
    pub fn from_wire(word: u32) -> Code {
        match word {
            1 => Code::UnknownMethod,
            2 => Code::BadArgument,
            3 => Code::DeadlineExceeded,
            4 => Code::Cancelled,
            5 => Code::ShuttingDown,
            6 => Code::Busy,
            n if n & APPLICATION != 0 => Code::Application(n & !APPLICATION),
            _ => Code::Internal,
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Code::UnknownMethod => f.write_str("unknown method"),
            Code::BadArgument => f.write_str("bad argument"),
            Code::DeadlineExceeded => f.write_str("deadline exceeded"),
            Code::Cancelled => f.write_str("cancelled"),
            Code::ShuttingDown => f.write_str("shutting down"),
            Code::Busy => f.write_str("busy"),
            Code::Internal => f.write_str("internal"),
            Code::Application(n) => write!(f, "application code {n}"),
        }
    }
}

/// What a handler returns instead of a reply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {text}")]
pub struct Failure {
    /// What a program decides by.
    pub code: Code,
    /// What a person reads; at most [`crate::TEXT_MAX`] bytes travel.
    pub text: String,
}

impl Failure {
    /// A failure with a code of the application.
    pub fn application(code: u32, text: impl Into<String>) -> Failure {
        Failure {
            code: Code::Application(code & !APPLICATION),
            text: text.into(),
        }
    }

    /// A failure with any code.
    pub fn new(code: Code, text: impl Into<String>) -> Failure {
        Failure {
            code,
            text: text.into(),
        }
    }
}

/// Why something failed here.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// No server has opened the name.
    #[error("channel {name} is not open: start its server, or check the name with `vernal rpc ls`")]
    NotFound {
        /// The name.
        name: String,
    },
    /// Another live server has the name.
    #[error("channel {name} is open in another server: stop that one, or choose another name")]
    Taken {
        /// The name.
        name: String,
    },
    /// The server's queue of new clients is full. Connecting tries again until its time is up.
    #[error(
        "the server of channel {name} has not accepted its last clients yet: try again, or give connecting more time"
    )]
    Backlog {
        /// The name.
        name: String,
    },
    /// The channel's mode does not let this user in.
    #[error("{what}: ask the channel's owner for access, or connect as another user")]
    Access {
        /// What was refused.
        what: String,
    },
    /// A name that is none.
    #[error("{name:?} is no channel name: {why}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The peer's process has ended or its connection broke.
    #[error("{peer} has died: what it sent stays readable while it is held; connect again")]
    PeerDied {
        /// Who.
        peer: String,
    },
    /// This side has closed the connection or the channel.
    #[error("{what} is closed: open it again")]
    Closed {
        /// What.
        what: String,
    },
    /// The deadline passed.
    #[error(
        "the deadline of the call of method {method} passed: give it more time, or look at what the server does"
    )]
    DeadlineExceeded {
        /// The method.
        method: u32,
    },
    /// The call failed on the other side.
    #[error("the call of method {method} failed: {failure}")]
    Remote {
        /// The method.
        method: u32,
        /// Code and text from the server.
        failure: Failure,
    },
    /// The peer broke the protocol; its connection is ended.
    #[error("{peer} broke the protocol: {why}; the connection is closed")]
    Corrupt {
        /// Who.
        peer: String,
        /// How.
        why: String,
    },
    /// What a peer passed does not verify.
    #[error("what {peer} passed does not verify: {why}")]
    Unverified {
        /// Who.
        peer: String,
        /// The first fault.
        why: String,
    },
    /// The two sides cannot talk.
    #[error(
        "{peer} speaks {what} {theirs}, this side {ours}: use the same version of libvernal on both sides"
    )]
    Incompatible {
        /// Who.
        peer: String,
        /// What differs.
        what: &'static str,
        /// Theirs.
        theirs: u64,
        /// Ours.
        ours: u64,
    },
    /// Too much of something.
    #[error("{what} is {value}, the limit is {limit}: {remedy}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How much.
        value: u64,
        /// How much is allowed.
        limit: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// A value that the caller gave is not allowed.
    #[error("{what}: {remedy}")]
    Invalid {
        /// What.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Who gives names and memory refused.
    #[error("{doing}: {why}")]
    Registry {
        /// What was asked.
        doing: &'static str,
        /// The refusal.
        why: String,
    },
    /// There is no sandbox.
    #[error("{why}")]
    Sandbox {
        /// Why not, and what to do.
        why: String,
    },
    /// The operating system refused.
    #[error("{doing} failed: {source}")]
    Os {
        /// What was tried.
        doing: &'static str,
        /// Its error.
        source: io::Error,
    },
}

impl Error {
    /// An error of the operating system.
    pub fn os(doing: &'static str, source: impl Into<io::Error>) -> Error {
        Error::Os {
            doing,
            source: source.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_travel() {
        let codes = [
            Code::UnknownMethod,
            Code::BadArgument,
            Code::DeadlineExceeded,
            Code::Cancelled,
            Code::ShuttingDown,
            Code::Busy,
            Code::Internal,
            Code::Application(0),
            Code::Application(77),
        ];
        for code in codes {
            assert_ne!(code.to_wire(), 0);
            assert_eq!(Code::from_wire(code.to_wire()), code);
        }
        assert_eq!(Code::from_wire(0), Code::Internal);
        assert_eq!(Code::from_wire(9999), Code::Internal);
    }
}
