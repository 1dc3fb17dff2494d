//! The text area: plain bytes that do not fit into a slot, in their sender's segment.
//!
//! A ring of bytes beside the ring of slots. A text's place is free again when its slot is; the place of the newest message that the
//! peer has taken counts as in use, since the peer may still be copying it. So it needs neither an allocator nor a word from the
//! receiver besides its credits. The area is so large that slots run out first.

use super::bulk;
use super::segment::Words;
use crate::message::TEXT_MAX;

/// Texts begin at multiples of a line.
const LINE: u64 = 64;

/// The sender's side.
pub(super) struct TextWriter {
    words: Words,
    /// Bytes of the area.
    size: u64,
    /// Where the next text may begin, counted over all laps.
    next: u64,
    /// `next` after each of the newest messages was sent.
    ends: Box<[u64]>,
    /// Messages sent.
    sent: u64,
}

impl TextWriter {
    pub(super) fn new(words: Words, slots: usize) -> TextWriter {
        let size = words.as_ref().len() as u64 * 8;
        TextWriter {
            words,
            size,
            next: 0,
            // All that are in flight, and the two before them; a power of two, so that no division finds the place.
            ends: vec![0; (slots + 2).next_power_of_two()].into(),
            sent: 0,
        }
    }

    /// Writes a text for the message that is sent next; `in_flight` are the messages that the peer may not have taken. The result is
    /// the text's offset. `None`: there is no room, which an area of the right size never says.
    pub(super) fn write(&mut self, data: &[u8], in_flight: u64) -> Option<u64> {
        let need = (data.len() as u64).next_multiple_of(LINE);
        let mut start = self.next;
        let at = start % self.size;
        if at + need > self.size {
            start += self.size - at;
        }
        // Of the messages that the peer has taken it may still be copying the newest: what lies before that one's text is free.
        let taken = self.sent.wrapping_sub(in_flight);
        let free = taken
            .checked_sub(2)
            .map_or(0, |message| self.end_of(message));
        if start + need > free + self.size {
            return None;
        }
        let at = start % self.size;
        let words = self.words.as_ref().get((at / 8) as usize..)?;
        bulk::store(words, data)?;
        self.next = start + need;
        Some(at)
    }

    /// Where the texts of the messages up to this one end.
    fn end_of(&self, message: u64) -> u64 {
        let at = message as usize & (self.ends.len() - 1);
        self.ends.get(at).copied().unwrap_or(0)
    }

    /// The message was sent.
    #[inline]
    pub(super) fn sent(&mut self) {
        let at = self.sent as usize & (self.ends.len() - 1);
        if let Some(end) = self.ends.get_mut(at) {
            *end = self.next;
        }
        self.sent = self.sent.wrapping_add(1);
    }
}

/// Copies a text out of a peer's area. `None`: it does not lie there.
pub(super) fn read(words: &Words, offset: u64, len: u64) -> Option<Box<[u8]>> {
    if len > TEXT_MAX as u64 || !offset.is_multiple_of(LINE) {
        return None;
    }
    let first = usize::try_from(offset / 8).ok()?;
    bulk::bytes_of(words.as_ref().get(first..)?, len as usize)
}
