//! A message, which is kept as the eight words that carry it.

use crate::error::Corrupt;
use crate::layout::{LINE_WORDS, SEQUENCE_SHIFT};
use std::fmt;
use std::num::NonZeroU8;

/// Bytes that fit into a message itself.
pub const INLINE_MAX: usize = 32;

/// Shape of a body that names an object; smaller values are the lengths of inline bytes.
const SHAPE_OBJECT: u64 = 0xff;
/// Bits of word 2 that hold a shape. Those above it are zero.
const SHAPE_SHIFT: u32 = 32;
/// The words of a body.
pub(crate) const BODY: [usize; 4] = [3, 4, 6, 7];
/// The words that every message has, besides word 0.
pub(crate) const HEADER: [usize; 3] = [1, 2, 5];

/// Whether the words of the body count, as word 2 says. Those of a message without a body are neither written nor read: what the
/// slot holds there is of an earlier lap.
#[inline(always)]
pub(crate) const fn has_body(word2: u64) -> bool {
    word2 >> SHAPE_SHIFT != 0
}

/// Plain bytes that travelled inside a message.
#[derive(Clone, Copy)]
pub struct Inline {
    len: u8,
    bytes: [u8; INLINE_MAX],
}

impl Inline {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl std::ops::Deref for Inline {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
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
        write!(f, "{:02x?}", self.as_slice())
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
///
/// It is kept as the words of its slot: sending and receiving copy a line, and only what is asked for is taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message {
    words: [u64; LINE_WORDS],
}

impl Message {
    /// A message without a body. `kind` says what it is (a call, a reply, …), `call` to which call it belongs, `method` is the
    /// method or a status.
    #[inline]
    pub const fn new(kind: NonZeroU8, call: u64, method: u32) -> Message {
        Message {
            words: [(kind.get() as u64) << 8, call, method as u64, 0, 0, 0, 0, 0],
        }
    }

    /// The same message with bits that refine the kind.
    #[inline]
    pub const fn with_flags(mut self, flags: u8) -> Message {
        self.words[0] = self.words[0] & !0xff | flags as u64;
        self
    }

    /// The same message with the word for a deadline, or whatever else the kind needs.
    #[inline]
    pub const fn with_deadline(mut self, deadline: u64) -> Message {
        self.words[5] = deadline;
        self
    }

    /// The same message with plain bytes, if there are at most [`INLINE_MAX`] of them.
    #[inline]
    pub fn with_inline(self, data: &[u8]) -> Option<Message> {
        let mut bytes = [0; INLINE_MAX];
        bytes.get_mut(..data.len())?.copy_from_slice(data);
        let (words, _) = bytes.as_chunks::<8>();
        let mut body = [0; 4];
        for (to, from) in body.iter_mut().zip(words) {
            *to = u64::from_le_bytes(*from);
        }
        Some(self.with_body(data.len() as u64, body))
    }

    /// The same message with plain bytes that already lie in an array of their own: its first `len` bytes, at most all, count; the
    /// others are zero.
    #[inline(always)]
    pub fn with_array(self, bytes: &[u8; INLINE_MAX], len: u8) -> Message {
        let len = len.min(INLINE_MAX as u8);
        if len == 0 {
            return self;
        }
        let mut body = [0; 4];
        for (to, from) in body.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *to = u64::from_le_bytes(*from);
        }
        self.with_body(len.into(), body)
    }

    /// The same message with an object.
    #[inline]
    pub fn with_object(self, object: ObjectRef) -> Message {
        let [c, d] = object.extra;
        self.with_body(SHAPE_OBJECT, [object.address, object.type_id, c, d])
    }

    #[inline]
    fn with_body(mut self, shape: u64, body: [u64; 4]) -> Message {
        self.words[2] = shape << SHAPE_SHIFT | u64::from(self.method());
        for (i, word) in BODY.into_iter().zip(body) {
            self.words[i] = word;
        }
        self
    }

    /// What it is.
    #[inline]
    pub const fn kind(&self) -> u8 {
        (self.words[0] >> 8) as u8
    }

    /// Bits that refine the kind.
    #[inline]
    pub const fn flags(&self) -> u8 {
        self.words[0] as u8
    }

    /// The call that it belongs to.
    #[inline]
    pub const fn call(&self) -> u64 {
        self.words[1]
    }

    /// The method, or a status.
    #[inline]
    pub const fn method(&self) -> u32 {
        self.words[2] as u32
    }

    /// The word for a deadline.
    #[inline]
    pub const fn deadline(&self) -> u64 {
        self.words[5]
    }

    /// Bytes or an object.
    #[inline]
    pub fn body(&self) -> Body {
        let [a, b, c, d] = BODY.map(|i| self.words[i]);
        match self.words[2] >> SHAPE_SHIFT {
            SHAPE_OBJECT => Body::Object(ObjectRef {
                address: a,
                type_id: b,
                extra: [c, d],
            }),
            len => {
                let mut bytes = [0; INLINE_MAX];
                for (to, from) in bytes.as_chunks_mut::<8>().0.iter_mut().zip([a, b, c, d]) {
                    *to = from.to_le_bytes();
                }
                Body::Inline(Inline {
                    len: len.min(INLINE_MAX as u64) as u8,
                    bytes,
                })
            }
        }
    }

    /// The plain bytes as they travelled, and how many count. `None`: it carries an object.
    #[inline(always)]
    pub fn array(&self) -> Option<([u8; INLINE_MAX], u8)> {
        let len = self.words[2] >> SHAPE_SHIFT;
        if len == SHAPE_OBJECT {
            return None;
        }
        let mut bytes = [0; INLINE_MAX];
        if len != 0 {
            for (to, from) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(BODY) {
                *to = self.words[from].to_le_bytes();
            }
        }
        Some((bytes, len.min(INLINE_MAX as u64) as u8))
    }

    /// The words of the slot. Word 0 lacks its sequence.
    #[inline(always)]
    pub(crate) const fn words(&self) -> &[u64; LINE_WORDS] {
        &self.words
    }

    /// The message of a slot's words, which come from the peer and are already this side's copy.
    #[inline(always)]
    pub(crate) fn from_words(mut words: [u64; LINE_WORDS], slot: u64) -> Result<Message, Corrupt> {
        words[0] &= (1 << SEQUENCE_SHIFT) - 1;
        let shape = words[2] >> SHAPE_SHIFT;
        if shape > INLINE_MAX as u64 && shape != SHAPE_OBJECT {
            return Err(Corrupt::Shape {
                slot,
                found: words[2],
            });
        }
        if words[0] >> 8 == 0 {
            return Err(Corrupt::Kind { slot });
        }
        Ok(Message { words })
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("kind", &self.kind())
            .field("flags", &self.flags())
            .field("call", &self.call())
            .field("method", &self.method())
            .field("deadline", &self.deadline())
            .field("body", &self.body())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: NonZeroU8 = NonZeroU8::MIN;

    #[test]
    fn every_length_of_inline_bytes_comes_back() {
        let bytes: Vec<u8> = (1..=INLINE_MAX as u8).collect();
        for len in 0..=INLINE_MAX {
            let m = Message::new(KIND, 7, u32::MAX)
                .with_flags(0xa5)
                .with_deadline(u64::MAX);
            let m = m.with_inline(&bytes[..len]).expect("fits");
            let mut words = *m.words();
            words[0] |= 0x1234 << SEQUENCE_SHIFT;
            let back = Message::from_words(words, 0).expect("sound");
            assert_eq!(back, m);
            let Body::Inline(inline) = back.body() else {
                panic!("not inline")
            };
            assert_eq!(&*inline, &bytes[..len]);
            assert_eq!((back.kind(), back.flags(), back.call()), (1, 0xa5, 7));
            assert_eq!((back.method(), back.deadline()), (u32::MAX, u64::MAX));
        }
        assert_eq!(
            Message::new(KIND, 0, 0).with_inline(&[0; INLINE_MAX + 1]),
            None
        );
        assert_eq!(Message::new(KIND, 0, 0).with_inline(&[0; 256 + 4]), None);
    }

    #[test]
    fn an_object_comes_back_and_replaces_bytes() {
        let object = ObjectRef {
            address: u64::MAX,
            type_id: 2,
            extra: [3, 4],
        };
        let m = Message::new(KIND, 7, 9)
            .with_inline(&[1; 32])
            .expect("fits")
            .with_object(object);
        assert_eq!(
            Message::from_words(*m.words(), 0).map(|m| m.body()),
            Ok(Body::Object(object))
        );
        assert_eq!(m.method(), 9);
    }

    #[test]
    fn what_no_sender_packs_is_refused() {
        let good = *Message::new(KIND, 7, 3).words();
        for shape in (33..255).chain([256, 0x0001_0000, 0x00ff_ffff, 0x0000_01ff]) {
            let mut w = good;
            w[2] |= shape << SHAPE_SHIFT;
            assert_eq!(
                Message::from_words(w, 5),
                Err(Corrupt::Shape {
                    slot: 5,
                    found: w[2]
                }),
                "{shape:#x}"
            );
        }
        let mut w = good;
        w[0] &= !0xff00;
        assert_eq!(Message::from_words(w, 5), Err(Corrupt::Kind { slot: 5 }));
    }
}
