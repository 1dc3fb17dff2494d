//! The greeting: one from the client, one from the server.
//!
//! ```text
//!   0   u64  "VNRPCTC1"
//!   8   u32  version of the protocol · u32 0: welcome; else why the server refuses
//!   16  u64  ABI: what both sides must agree on about objects
//!   24  u64  bytes of the largest graph that this side takes
//!   32  u16  bytes of the channel's name · u16 of the token · u32 0
//!   40  name, token (client only)
//! ```

use crate::Error;
use crate::message::{INLINE_MAX, TEXT_MAX};

const MAGIC: u64 = u64::from_le_bytes(*b"VNRPCTC1");
/// The protocol.
const VERSION: u32 = 1;
/// Bytes before the name.
pub(super) const FIXED: usize = 40;
/// The longest name and the longest token.
pub(super) const NAME_MAX: usize = 255;
pub(super) const TOKEN_MAX: usize = 256;

/// What must be the same for objects to mean the same.
const ABI: u64 = {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let words = [
        size_of::<usize>() as u64,
        crate::wire::WIRE_VERSION as u64,
        INLINE_MAX as u64,
        TEXT_MAX as u64,
        super::frame::HEADER as u64,
        vernal_format::puddle::CLASS_COUNT as u64,
        vernal_format::puddle::SLAB_MAX,
        vernal_format::puddle::PAGE_BYTES,
    ];
    let mut at = 0;
    while at < words.len() {
        hash = (hash ^ words[at]).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
};

/// Why a server refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Welcome = 0,
    Incompatible = 1,
    NotFound = 2,
    Token = 3,
}

/// A greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub status: u32,
    pub max_bytes: u64,
    pub name: Vec<u8>,
    pub token: Vec<u8>,
}

impl Hello {
    /// What a server says.
    pub fn answer(status: Status, max_bytes: u64) -> Hello {
        Hello {
            status: status as u32,
            max_bytes,
            name: Vec::new(),
            token: Vec::new(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let lengths = self.name.len() as u64 | (self.token.len() as u64) << 16;
        let words = [
            MAGIC,
            u64::from(VERSION) | u64::from(self.status) << 32,
            ABI,
            self.max_bytes,
            lengths,
        ];
        let mut out: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        out.extend_from_slice(&self.name);
        out.extend_from_slice(&self.token);
        out
    }

    /// The greeting at the start of these bytes, when it is complete, and its bytes. The name and the token of a server are empty.
    pub fn decode(bytes: &[u8], peer: &str) -> Result<Option<(Hello, usize)>, Error> {
        let corrupt = |why: &str| Error::Corrupt {
            peer: peer.to_owned(),
            why: why.to_owned(),
        };
        // Whoever speaks something else is told at its first bytes, and does not get to wait.
        let magic = MAGIC.to_le_bytes();
        let seen = bytes.len().min(magic.len());
        if bytes.get(..seen) != magic.get(..seen) {
            return Err(corrupt("it does not greet"));
        }
        let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
            return Ok(None);
        };
        let (words, _) = fixed.as_chunks::<8>();
        let word = |n: usize| words.get(n).map_or(0, |w| u64::from_le_bytes(*w));
        for (what, theirs, ours) in [
            (
                "protocol version",
                word(1) & 0xffff_ffff,
                u64::from(VERSION),
            ),
            ("ABI", word(2), ABI),
        ] {
            if theirs != ours {
                return Err(Error::Incompatible {
                    peer: peer.to_owned(),
                    what,
                    theirs,
                    ours,
                });
            }
        }
        let (name, token) = (word(4) as u16 as usize, (word(4) >> 16) as u16 as usize);
        if name > NAME_MAX || token > TOKEN_MAX || word(4) >> 32 != 0 {
            return Err(corrupt("the lengths in its greeting are too large"));
        }
        let Some(texts) = rest.get(..name + token) else {
            return Ok(None);
        };
        let (name, token) = texts.split_at(name);
        let hello = Hello {
            status: (word(1) >> 32) as u32,
            max_bytes: word(3),
            name: name.to_vec(),
            token: token.to_vec(),
        };
        Ok(Some((hello, FIXED + texts.len())))
    }
}

/// Whether two secrets are the same, in a time that says nothing of where they differ.
pub(super) fn same_token(a: &[u8], b: &[u8]) -> bool {
    let mut difference = a.len() ^ b.len();
    for i in 0..TOKEN_MAX {
        let byte = |s: &[u8]| s.get(i).copied().unwrap_or(0);
        // Without this the compiler may stop at the first difference.
        difference = std::hint::black_box(difference | usize::from(byte(a) ^ byte(b)));
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            status: 0,
            max_bytes: 1 << 30,
            name: b"shop/stock".to_vec(),
            token: b"secret".to_vec(),
        }
    }

    #[test]
    fn greetings_travel_in_any_pieces() {
        let mut bytes = hello().encode();
        for len in 0..bytes.len() {
            assert!(matches!(Hello::decode(&bytes[..len], "it"), Ok(None)));
        }
        let len = bytes.len();
        bytes.extend([1, 2, 3]);
        let decoded = Hello::decode(&bytes, "it").expect("sound");
        assert_eq!(decoded, Some((hello(), len)));
    }

    #[test]
    fn others_are_refused_at_their_first_bytes() {
        assert!(Hello::decode(b"GET / HTTP/1.1", "it").is_err());
        assert!(Hello::decode(b"X", "it").is_err());
        let mut bytes = hello().encode();
        for at in (8..12).chain(16..24) {
            bytes[at] ^= 1;
            assert!(matches!(
                Hello::decode(&bytes, "it"),
                Err(Error::Incompatible { .. })
            ));
            bytes[at] ^= 1;
        }
        for at in [33, 35, 36, 39] {
            bytes[at] ^= 0x80;
            assert!(matches!(
                Hello::decode(&bytes, "it"),
                Err(Error::Corrupt { .. })
            ));
            bytes[at] ^= 0x80;
        }
    }

    #[test]
    fn tokens_are_the_same_or_not() {
        assert!(same_token(b"", b""));
        assert!(same_token(b"secret", b"secret"));
        for other in [&b""[..], b"secre", b"secrets", b"Secret", b"secret\0"] {
            assert!(!same_token(b"secret", other), "{other:?}");
        }
    }
}
