//! A message, and the eight words that carry it.

use crate::error::Corrupt;
use crate::layout::LINE_WORDS;
use std::fmt;
use std::num::NonZeroU8;

/// Bytes that fit into a message itself.
pub const INLINE_MAX: usize = 32;

/// Shape of a body that names an object; smaller values are the lengths of inline bytes.
const SHAPE_OBJECT: u64 = 0xff;
/// Bits of word 2 that hold a shape and a method. The rest is zero.
const SHAPE_SHIFT: u32 = 32;

/// A few plain bytes that travel inside the message.
#[derive(Clone, Copy)]
pub struct Inline {
    len: u8,
    bytes: [u8; INLINE_MAX],
}

impl Inline {
    /// No bytes.
    pub const EMPTY: Inline = Inline {
        len: 0,
        bytes: [0; INLINE_MAX],
    };

    /// Takes the bytes, if there are at most [`INLINE_MAX`] of them.
    pub fn new(bytes: &[u8]) -> Option<Inline> {
        let mut inline = Inline {
            len: u8::try_from(bytes.len()).ok()?,
            bytes: [0; INLINE_MAX],
        };
        inline.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(inline)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl PartialEq for Inline {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Inline {}

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inline({:02x?})", self.as_slice())
    }
}

/// Where an object lies in memory of the sender. Nothing of it is checked here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// Address of the object, the same in both processes.
    pub address: u64,
    /// The type that the sender gives it.
    pub type_id: u64,
    /// Whatever else sender and receiver agree on: a length, a seal.
    pub extra: [u64; 2],
}

/// What a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Plain bytes.
    Inline(Inline),
    /// An object.
    Object(ObjectRef),
}

/// A message. The ring gives no meaning to any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is: a call, a reply, ….
    pub kind: NonZeroU8,
    /// Bits that refine the kind.
    pub flags: u8,
    /// The call that it belongs to.
    pub call: u64,
    /// The method, or a status.
    pub method: u32,
    /// When the caller gives up, or whatever else the kind needs.
    pub deadline: u64,
    /// Bytes or an object.
    pub body: Body,
}

impl Message {
    /// A message without a body.
    pub const fn new(kind: NonZeroU8, call: u64, method: u32) -> Message {
        Message {
            kind,
            flags: 0,
            call,
            method,
            deadline: 0,
            body: Body::Inline(Inline::EMPTY),
        }
    }

    /// The words of the slot. Word 0 lacks its sequence.
    #[inline]
    pub(crate) fn pack(&self) -> [u64; LINE_WORDS] {
        let (shape, [a, b, c, d]) = match &self.body {
            Body::Object(o) => (SHAPE_OBJECT, [o.address, o.type_id, o.extra[0], o.extra[1]]),
            Body::Inline(i) => (u64::from(i.len), words_of(&i.bytes)),
        };
        [
            u64::from(self.kind.get()) << 8 | u64::from(self.flags),
            self.call,
            shape << SHAPE_SHIFT | u64::from(self.method),
            a,
            b,
            self.deadline,
            c,
            d,
        ]
    }

    /// The message of a slot's words, which come from the peer and are already this side's copy.
    #[inline]
    pub(crate) fn unpack(w: &[u64; LINE_WORDS], slot: u64) -> Result<Message, Corrupt> {
        let kind = NonZeroU8::new((w[0] >> 8) as u8).ok_or(Corrupt::Kind { slot })?;
        let payload = [w[3], w[4], w[6], w[7]];
        let body = match w[2] >> SHAPE_SHIFT {
            SHAPE_OBJECT => Body::Object(ObjectRef {
                address: w[3],
                type_id: w[4],
                extra: [w[6], w[7]],
            }),
            len if len <= INLINE_MAX as u64 => Body::Inline(Inline {
                len: len as u8,
                bytes: bytes_of(payload),
            }),
            _ => return Err(Corrupt::Shape { slot, found: w[2] }),
        };
        Ok(Message {
            kind,
            flags: w[0] as u8,
            call: w[1],
            method: w[2] as u32,
            deadline: w[5],
            body,
        })
    }
}

fn words_of(bytes: &[u8; INLINE_MAX]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*chunk);
    }
    words
}

fn bytes_of(words: [u64; 4]) -> [u8; INLINE_MAX] {
    let mut bytes = [0; INLINE_MAX];
    for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *chunk = word.to_le_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: NonZeroU8 = NonZeroU8::MIN;

    #[test]
    fn every_length_of_inline_bytes_comes_back() {
        let bytes: Vec<u8> = (1..=INLINE_MAX as u8).collect();
        for len in 0..=INLINE_MAX {
            let inline = Inline::new(&bytes[..len]).expect("fits");
            assert_eq!(inline.as_slice(), &bytes[..len]);
            let m = Message {
                body: Body::Inline(inline),
                flags: 0xa5,
                deadline: u64::MAX,
                ..Message::new(KIND, 7, u32::MAX)
            };
            assert_eq!(Message::unpack(&m.pack(), 0), Ok(m));
        }
        assert_eq!(Inline::new(&[0; INLINE_MAX + 1]), None);
        assert_eq!(Inline::new(&[0; 256 + 4]), None);
    }

    #[test]
    fn what_no_sender_packs_is_refused() {
        let good = Message::new(KIND, 7, 3).pack();
        for shape in (33..255).chain([256, 0x0001_0000, 0x00ff_ffff, 0x0000_01ff]) {
            let mut w = good;
            w[2] |= shape << SHAPE_SHIFT;
            assert!(
                matches!(Message::unpack(&w, 5), Err(Corrupt::Shape { slot: 5, .. })),
                "{shape:#x}"
            );
        }
        let mut w = good;
        w[0] &= !0xff00;
        assert_eq!(Message::unpack(&w, 5), Err(Corrupt::Kind { slot: 5 }));
    }
}
