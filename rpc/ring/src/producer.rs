//! The sending half of a ring.

use crate::error::{Corrupt, RingError, SendError};
use crate::layout::{HEAD, LINE_WORDS, MAX_SLOTS, SEQUENCE_SHIFT};
use crate::message::{Message, has_body};
use crate::sleep::Ringer;
use crate::words::{OwnWords, PeerWords};

/// Sends messages through slots in this side's memory.
#[derive(Debug)]
pub struct Producer<O, P> {
    slots: O,
    peer: Ringer<P>,
    count: u64,
    /// Messages sent.
    tail: u64,
    /// Messages that the peer is known to have taken.
    head: u64,
    corrupt: Option<Corrupt>,
}

impl<O: OwnWords, P: PeerWords> Producer<O, P> {
    /// A producer over `count` slots in zeroed own memory, and the line of the consumer.
    pub fn new(slots: O, peer_line: P, count: usize) -> Result<Self, RingError> {
        Self::starting_at(slots, peer_line, count, 0)
    }

    /// As [`new`](Self::new), but the first message has number `first`: so that tests reach the wrap-around of sequences. The
    /// consumer must have been made, with the same number, before the ring is full for the first time.
    pub fn starting_at(
        slots: O,
        peer_line: P,
        count: usize,
        first: u64,
    ) -> Result<Self, RingError> {
        check_slots(slots.count(), count)?;
        Ok(Producer {
            slots,
            peer: Ringer::new(peer_line)?,
            count: count as u64,
            tail: first,
            head: first,
            corrupt: None,
        })
    }

    /// Slots of the ring.
    pub fn slots(&self) -> u64 {
        self.count
    }

    /// Messages that may be in the ring still: sent, and not known to be taken.
    pub fn in_flight(&self) -> u64 {
        self.tail.wrapping_sub(self.head)
    }

    /// Whether a message can be sent now. Reads the peer's credits when the known ones are used up.
    pub fn has_room(&mut self) -> Result<bool, Corrupt> {
        if let Some(e) = self.corrupt {
            return Err(e);
        }
        if self.in_flight() < self.count {
            return Ok(true);
        }
        self.take_credits()?;
        Ok(self.in_flight() < self.count)
    }

    /// Sends a message, if there is room. The peer may sleep: see [`must_wake`](Self::must_wake).
    #[inline(always)]
    pub fn try_send(&mut self, message: &Message) -> Result<(), SendError> {
        if !self.has_room()? {
            return Err(SendError::Full { slots: self.count });
        }
        let base = slot_base(self.tail, self.count);
        let words = message.words();
        self.slots.store_line(base, words, has_body(words[2]));
        self.tail = self.tail.wrapping_add(1);
        // Last, and with release: whoever sees the sequence sees the other words.
        self.slots
            .publish(base, self.tail << SEQUENCE_SHIFT | words[0]);
        self.slots.write_back(base);
        Ok(())
    }

    /// To be called after sending one message or several: does the peer sleep, and has to be woken?
    #[inline(always)]
    pub fn must_wake(&mut self) -> bool {
        self.peer.must_wake()
    }

    /// Whether the peer that has to be woken sleeps on this side's [`Bell`](crate::Bell).
    pub fn on_bell(&self) -> bool {
        self.peer.on_bell()
    }

    #[cold]
    fn take_credits(&mut self) -> Result<(), Corrupt> {
        let line = self.peer.line();
        line.invalidate(HEAD);
        let found = line.load(HEAD);
        // The slots are written only after the peer's reads of them, which came before its new head.
        line.acquire();
        // A head that goes back, or overtakes what was sent, would let this side overwrite what the peer has not read, or
        // count slots that do not exist.
        if self.tail.wrapping_sub(found) > self.in_flight() {
            let e = Corrupt::Credits {
                found,
                least: self.head,
                most: self.tail,
            };
            self.corrupt = Some(e);
            return Err(e);
        }
        self.head = found;
        Ok(())
    }
}

/// First word of the slot of a message.
#[inline]
pub(crate) fn slot_base(number: u64, count: u64) -> usize {
    (number & (count - 1)) as usize * LINE_WORDS
}

/// Whether `words` words hold `count` slots.
pub(crate) fn check_slots(words: usize, count: usize) -> Result<(), RingError> {
    if !count.is_power_of_two() || !(2..=MAX_SLOTS).contains(&count) {
        return Err(RingError::Slots { slots: count });
    }
    if words < count * LINE_WORDS {
        return Err(RingError::Words {
            what: "slots",
            needed: count * LINE_WORDS,
            found: words,
        });
    }
    Ok(())
}
