//! A message: what both transports move, and all that a peer can say.

/// Plain bytes that travel inside a message, without a second cache line.
pub const INLINE_MAX: usize = 32;

/// The longest plain bytes or error text of one message. Longer data are objects.
pub const TEXT_MAX: usize = 4096;

/// What a message is. Unknown numbers end the connection.
// As wide as the word beside it in a message: see `Body`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Kind {
    /// A call. `call` is the caller's number for it, `method` what is called, `deadline` the nanoseconds left, 0: no deadline.
    Call = 1,
    /// Its reply.
    Reply = 2,
    /// It failed: `method` is a [`crate::Code`], the body its text.
    Error = 3,
    /// The caller no longer waits for `call`.
    Cancel = 4,
    /// The object of the reply or stream item at the body's address is no longer needed by its receiver.
    Release = 5,
    /// One item of the stream that answers `call`.
    Item = 6,
    /// The stream that answers `call` has ended well.
    End = 7,
    /// The receiver of a stream has taken so many more items (`method`): its sender may send as many again.
    Credit = 8,
    /// This side sends no new calls (client) or takes none (server).
    Goodbye = 9,
}

impl Kind {
    /// The kind with that number.
    #[inline]
    pub fn from_wire(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Call,
            2 => Kind::Reply,
            3 => Kind::Error,
            4 => Kind::Cancel,
            5 => Kind::Release,
            6 => Kind::Item,
            7 => Kind::End,
            8 => Kind::Credit,
            9 => Kind::Goodbye,
            _ => return None,
        })
    }
}

/// Plain bytes inside a message, aligned as words are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(8))]
pub struct Inline(pub [u8; INLINE_MAX]);

/// What a message carries.
// All parts of a message are whole words, tags and lengths too: a message is moved several times in each call, and a move of
// single bytes that a wider load reads back stalls the processor each time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(u64)]
pub enum Body {
    /// At most [`INLINE_MAX`] plain bytes.
    Inline {
        /// How many.
        len: u64,
        /// The bytes; those behind `len` are zero.
        bytes: Inline,
    },
    /// At most [`TEXT_MAX`] plain bytes. The receiver has copied them.
    Bytes(Box<[u8]>),
    /// An object of the sender's heap for this connection: `addr` is its address there. Nothing about it is checked yet.
    Object {
        /// Its address.
        addr: u64,
        /// The type that the sender says it has.
        type_id: u64,
    },
    /// An object of the channel-wide heap, which the server owns and does not free when a call ends.
    Shared {
        /// Its address.
        addr: u64,
        /// The type that the sender says it has.
        type_id: u64,
    },
}

impl Body {
    /// Nothing.
    pub const EMPTY: Body = Body::Inline {
        len: 0,
        bytes: Inline([0; INLINE_MAX]),
    };

    /// As many of these bytes as fit inline.
    #[inline]
    pub(crate) fn inline(data: &[u8]) -> Body {
        let mut bytes = [0; INLINE_MAX];
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
        }
        Body::Inline {
            len: data.len().min(INLINE_MAX) as u64,
            bytes: Inline(bytes),
        }
    }

    /// These bytes, inline if they fit. `None`: more than [`TEXT_MAX`].
    #[inline]
    pub fn from_bytes(data: &[u8]) -> Option<Body> {
        if data.len() <= INLINE_MAX {
            return Some(Body::inline(data));
        }
        (data.len() <= TEXT_MAX).then(|| Body::Bytes(data.into()))
    }

    /// As much of `text` as travels, cut at a character.
    pub fn from_text(text: &str) -> Body {
        let mut end = text.len().min(TEXT_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let cut = text.as_bytes().get(..end).unwrap_or_default();
        Body::from_bytes(cut).unwrap_or(Body::EMPTY)
    }

    /// The plain bytes. `None`: it is an object.
    #[inline]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Body::Inline { len, bytes } => bytes.0.get(..usize::try_from(*len).ok()?),
            Body::Bytes(bytes) => Some(bytes),
            Body::Object { .. } | Body::Shared { .. } => None,
        }
    }

    /// Address and type of the object. `None`: it is plain bytes.
    pub fn object(&self) -> Option<(u64, u64)> {
        match self {
            Body::Object { addr, type_id } | Body::Shared { addr, type_id } => {
                Some((*addr, *type_id))
            }
            Body::Inline { .. } | Body::Bytes(_) => None,
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The caller's number of the call it belongs to; 0 for messages of the whole connection.
    pub call: u64,
    /// The method of a call, the code of an error, the count of a credit; else 0.
    pub method: u32,
    /// Nanoseconds that a call has left when it is sent; 0: no deadline. Relative: clocks of containers and hosts differ.
    pub deadline: u64,
    /// What it carries.
    pub body: Body,
}

impl Message {
    /// A message without a body.
    #[inline]
    pub fn bare(kind: Kind, call: u64) -> Message {
        Message {
            kind,
            call,
            method: 0,
            deadline: 0,
            body: Body::EMPTY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_choose_their_place() {
        assert_eq!(Body::from_bytes(b"").unwrap(), Body::EMPTY);
        let body = Body::from_bytes(&[7; INLINE_MAX]).unwrap();
        assert!(matches!(body, Body::Inline { .. }));
        assert_eq!(body.bytes().unwrap(), [7; INLINE_MAX]);
        let body = Body::from_bytes(&[7; INLINE_MAX + 1]).unwrap();
        assert_eq!(body.bytes().unwrap(), [7; INLINE_MAX + 1]);
        assert!(Body::from_bytes(&[0; TEXT_MAX]).is_some());
        assert!(Body::from_bytes(&[0; TEXT_MAX + 1]).is_none());
    }

    #[test]
    fn a_text_is_cut_at_a_character() {
        let text = "ä".repeat(TEXT_MAX);
        let body = Body::from_text(&format!("x{text}"));
        let cut = std::str::from_utf8(body.bytes().unwrap()).unwrap();
        assert_eq!(cut.len(), TEXT_MAX - 1);
    }

    #[test]
    fn kinds_travel() {
        for byte in 0..=u8::MAX {
            if let Some(kind) = Kind::from_wire(byte) {
                assert_eq!(kind as u8, byte);
            }
        }
        assert_eq!(Kind::from_wire(0), None);
    }
}
