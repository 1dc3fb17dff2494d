//! What a server and its helper say to each other. The server takes nothing for granted that it reads here.

use vernal_sandbox::Turn;

use crate::error::Code;
use crate::message::{Body, INLINE_MAX, Kind, Message};

/// The server: who the client is. Answered by [`GO`].
pub(super) const HELLO: u8 = 1;
/// The server: a call. `code` is the method, `aux` the time left and how many segments were lent.
pub(super) const CALL: u8 = 2;
/// The server: go on; `code` other than 0: what was asked for is refused. The helper: it is ready.
pub(super) const GO: u8 = 3;
/// The helper: an item of a stream. Answered by [`GO`].
pub(super) const ITEM: u8 = 4;
/// The helper: a segment of `aux[0]` bytes for replies, please. Answered by [`GO`], and the segment.
pub(super) const GROW: u8 = 5;
/// The helper: the reply.
pub(super) const REPLY: u8 = 6;
/// The helper: the call failed; `code` says why, the bytes are a text.
pub(super) const FAILED: u8 = 7;
/// The helper: the stream has ended.
pub(super) const END: u8 = 8;

/// What lent memory is for: the client's heap, to be read, or replies.
pub(super) const PEER: u64 = 1;
pub(super) const REPLIES: u64 = 2;

/// What the body of a turn is. Inline bytes are in the words: from this number on, it says how many.
const INLINE: u8 = 128;
const BYTES: u8 = 1;
const OBJECT: u8 = 2;
const SHARED: u8 = 3;

/// A turn with a body; the bytes go with it.
pub(super) fn with_body(kind: u8, body: &Body) -> (Turn, &[u8]) {
    let mut turn = Turn {
        kind,
        ..Turn::default()
    };
    match body {
        Body::Inline { len, bytes } => {
            turn.tag = INLINE | (*len).min(INLINE_MAX as u64) as u8;
            let (words, _) = bytes.0.as_chunks::<8>();
            for (to, word) in turn.words.iter_mut().zip(words) {
                *to = u64::from_le_bytes(*word);
            }
            (turn, &[])
        }
        Body::Bytes(bytes) => {
            turn.tag = BYTES;
            turn.len = bytes.len() as u16;
            (turn, bytes)
        }
        Body::Object { addr, type_id } => {
            turn.tag = OBJECT;
            turn.words = [*addr, *type_id, 0, 0];
            (turn, &[])
        }
        Body::Shared { addr, type_id } => {
            turn.tag = SHARED;
            turn.words = [*addr, *type_id, 0, 0];
            (turn, &[])
        }
    }
}

/// The body of a turn. `None`: it has none.
pub(super) fn body(turn: &Turn, bytes: &[u8]) -> Option<Body> {
    let [addr, type_id, ..] = turn.words;
    match turn.tag {
        INLINE.. => {
            let mut data = [0; INLINE_MAX];
            for (to, word) in data.chunks_mut(8).zip(turn.words) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            let len = usize::from(turn.tag & !INLINE).min(INLINE_MAX);
            data.get(..len).map(Body::inline)
        }
        BYTES => Body::from_bytes(bytes),
        OBJECT => Some(Body::Object { addr, type_id }),
        SHARED => Some(Body::Shared { addr, type_id }),
        _ => None,
    }
}

/// The turn that a helper's answer is.
pub(super) fn answer(message: &Message) -> (Turn, &[u8]) {
    let kind = match message.kind {
        Kind::Error => FAILED,
        Kind::End => END,
        Kind::Item => ITEM,
        _ => REPLY,
    };
    let (mut turn, bytes) = with_body(kind, &message.body);
    turn.code = message.method;
    (turn, bytes)
}

/// Code and text of a failure.
pub(super) fn failure(turn: &Turn, bytes: &[u8]) -> crate::Failure {
    let body = body(turn, bytes);
    let text = body.as_ref().and_then(Body::bytes).unwrap_or_default();
    crate::Failure::new(Code::from_wire(turn.code), String::from_utf8_lossy(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_travel() {
        let bodies = [
            Body::EMPTY,
            Body::from_bytes(&[7; 5]).unwrap(),
            Body::from_bytes(&[9; INLINE_MAX]).unwrap(),
            Body::from_bytes(&[9; INLINE_MAX + 1]).unwrap(),
            Body::from_bytes(&[9; 4096]).unwrap(),
            Body::Object {
                addr: 8,
                type_id: u64::MAX,
            },
            Body::Shared {
                addr: 16,
                type_id: 3,
            },
        ];
        for b in bodies {
            let (turn, bytes) = with_body(CALL, &b);
            assert_eq!(usize::from(turn.len), bytes.len());
            assert_eq!(body(&turn, bytes), Some(b));
        }
    }

    #[test]
    fn no_turn_is_too_strange() {
        for tag in 0..=u8::MAX {
            let turn = Turn {
                tag,
                code: u32::MAX,
                words: [u64::MAX; 4],
                ..Turn::default()
            };
            let read = body(&turn, &[1; 100]);
            assert_eq!(
                read.is_some(),
                tag >= 128 || (1..=3).contains(&tag),
                "{tag}"
            );
            let _ = failure(&turn, &[0xff; 10]);
        }
    }
}
