//! Packets: the version byte, Hello, and the bounded decoding that all messages share.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Failure, ProtoError};
use crate::limits::{MAX_FRAME, MAX_TEXT};

/// Oldest version that this code speaks.
pub const VERSION_MIN: u8 = 1;
/// Newest version that this code speaks. 2 has all of 1, channels, and the lock of a direct pool's allocator.
pub const VERSION_MAX: u8 = 2;
/// The first version with channels, connections and segments.
pub(crate) const VERSION_RPC: u8 = 2;
/// The version byte of Hello and its answer, whose layout is the same for ever.
const HELLO_VERSION: u8 = 0;

/// The first message of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest version that the client speaks.
    pub min: u8,
    /// Newest version that the client speaks.
    pub max: u8,
    /// What the client is, for logs.
    pub client: String,
}

/// The answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version to speak from now on.
    pub version: u8,
    /// What puddled is, for logs.
    pub server: String,
    /// The client's number, by which logs and messages name it.
    pub client: u64,
}

impl Hello {
    /// The Hello of this code.
    pub fn new(client: &str) -> Self {
        let client = client.chars().take(MAX_TEXT / 4).collect();
        Hello {
            min: VERSION_MIN,
            max: VERSION_MAX,
            client,
        }
    }

    /// The packet.
    pub fn encode(&self) -> Result<Vec<u8>, ProtoError> {
        encode(HELLO_VERSION, self)
    }

    /// The Hello in a packet.
    pub fn decode(packet: &[u8]) -> Result<Self, ProtoError> {
        let hello: Hello = decode(HELLO_VERSION, packet)?;
        check_text("a client name", &hello.client)?;
        Ok(hello)
    }
}

impl Welcome {
    /// The packet of a Welcome, or of a refusal.
    pub fn encode(answer: &Result<Welcome, Failure>) -> Result<Vec<u8>, ProtoError> {
        encode(HELLO_VERSION, answer)
    }

    /// The Welcome or the refusal in a packet.
    pub fn decode(packet: &[u8]) -> Result<Result<Welcome, Failure>, ProtoError> {
        let answer: Result<Welcome, Failure> = decode(HELLO_VERSION, packet)?;
        match &answer {
            Ok(w) => check_text("a server name", &w.server)?,
            Err(f) => check_text("an error text", &f.text)?,
        }
        Ok(answer)
    }
}

/// The newest version that both sides speak.
pub fn choose_version(hello: &Hello) -> Result<u8, ProtoError> {
    let version = hello.max.min(VERSION_MAX);
    if hello.min > hello.max || version < hello.min || version < VERSION_MIN {
        return Err(ProtoError::NoCommonVersion {
            client_min: hello.min,
            client_max: hello.max,
            min: VERSION_MIN,
            max: VERSION_MAX,
        });
    }
    Ok(version)
}

/// One packet. A message that does not fit is an error of the sender, found before anything is sent.
pub(crate) fn encode<T: Serialize>(version: u8, message: &T) -> Result<Vec<u8>, ProtoError> {
    let packet = postcard::to_extend(message, vec![version]).map_err(|_| {
        // postcard fails for one reason on a growing buffer: a sequence of unknown length, which no message has.
        ProtoError::Malformed("a value that cannot be encoded")
    })?;
    if packet.len() > MAX_FRAME {
        return Err(ProtoError::Oversized {
            len: packet.len(),
            limit: MAX_FRAME,
        });
    }
    Ok(packet)
}

/// The message in a packet. The length is checked before the first byte is looked at.
pub(crate) fn decode<T: DeserializeOwned>(version: u8, packet: &[u8]) -> Result<T, ProtoError> {
    if packet.len() > MAX_FRAME {
        return Err(ProtoError::Oversized {
            len: packet.len(),
            limit: MAX_FRAME,
        });
    }
    let Some((&found, body)) = packet.split_first() else {
        return Err(ProtoError::Empty);
    };
    if found != version {
        return Err(ProtoError::Version {
            found,
            expected: version,
        });
    }
    let (message, rest) = postcard::take_from_bytes(body).map_err(|e| {
        ProtoError::Malformed(match e {
            postcard::Error::DeserializeUnexpectedEnd => "it ends too early",
            postcard::Error::DeserializeBadUtf8 => "a text is not UTF-8",
            postcard::Error::DeserializeBadBool => "a flag is neither 0 nor 1",
            postcard::Error::DeserializeBadOption => "an optional value is neither there nor not",
            postcard::Error::DeserializeBadVarint => "a number is too large for its field",
            _ => "a value is not one of those allowed",
        })
    })?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(ProtoError::Trailing(rest.len()))
    }
}

pub(crate) fn check_text(what: &'static str, text: &str) -> Result<(), ProtoError> {
    check_limit(what, text.len() as u64, MAX_TEXT as u64)
}

pub(crate) fn check_limit(what: &'static str, value: u64, limit: u64) -> Result<(), ProtoError> {
    if value <= limit {
        Ok(())
    } else {
        Err(ProtoError::Limit { what, value, limit })
    }
}
