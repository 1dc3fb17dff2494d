//! The receiving half of a ring.

use crate::error::{Corrupt, RingError};
use crate::layout::{HEAD, LINE_WORDS, SEQUENCE_SHIFT};
use crate::message::Message;
use crate::producer::{check_slots, slot_base};
use crate::sleep::Ringer;
use crate::words::{OwnWords, PeerWords};

/// Receives messages from slots in the peer's memory.
#[derive(Debug)]
pub struct Consumer<O, P> {
    slots: P,
    line: O,
    peer: Ringer<P>,
    count: u64,
    /// Messages taken.
    head: u64,
    /// Number of the first message of all: before its lap ends, empty slots are zero.
    first: u64,
    /// Messages taken when credits were last given.
    given: u64,
    /// Credits were given, and the peer may sleep for want of them.
    unannounced: bool,
    corrupt: Option<Corrupt>,
    /// Word 0 of the slot at the head was found to be `idle`, which means that the slot is empty.
    looked: bool,
    idle: u64,
}

impl<O: OwnWords, P: PeerWords> Consumer<O, P> {
    /// A consumer of `count` slots in the peer's memory, with its own line and the peer's.
    pub fn new(slots: P, own_line: O, peer_line: P, count: usize) -> Result<Self, RingError> {
        Self::starting_at(slots, own_line, peer_line, count, 0)
    }

    /// As [`new`](Self::new), but the first message has number `first`: see
    /// [`Producer::starting_at`](crate::Producer::starting_at).
    pub fn starting_at(
        slots: P,
        own_line: O,
        peer_line: P,
        count: usize,
        first: u64,
    ) -> Result<Self, RingError> {
        check_slots(slots.count(), count)?;
        let found = own_line.count();
        if found < LINE_WORDS {
            return Err(RingError::Words {
                what: "words of the own line",
                needed: LINE_WORDS,
                found,
            });
        }
        own_line.publish(HEAD, first);
        own_line.write_back(HEAD);
        Ok(Consumer {
            slots,
            line: own_line,
            peer: Ringer::new(peer_line)?,
            count: count as u64,
            head: first,
            first,
            given: first,
            unannounced: false,
            corrupt: None,
            looked: false,
            idle: 0,
        })
    }

    /// Whether a message waits, without taking it. What is read here is forgotten: taking the message reads and decides anew.
    #[inline]
    pub fn has_message(&mut self) -> Result<bool, Corrupt> {
        Ok(self.poll()?.is_some())
    }

    /// Whether taking a message may say anything but that there is none: a look that costs one load and a comparison, for who
    /// polls. What it decides by was judged by the last attempt to take one.
    #[inline(always)]
    pub fn is_due(&self) -> bool {
        let base = slot_base(self.head, self.count);
        self.slots.invalidate(base);
        !self.looked || self.slots.load(base) != self.idle
    }

    /// Takes the next message, if there is one.
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<Option<Message>, Corrupt> {
        let Some(word0) = self.poll()? else {
            return Ok(None);
        };
        let base = slot_base(self.head, self.count);
        // Each word is read once, into this side's memory; what the peer does to the slot from now on changes nothing.
        self.slots.acquire();
        let mut words = self.slots.load_line(base);
        words[0] = word0;
        let message =
            Message::from_words(words, self.slot()).inspect_err(|e| self.corrupt = Some(*e))?;
        self.head = self.head.wrapping_add(1);
        self.looked = false;
        if self.head.wrapping_sub(self.given) >= (self.count / 4).max(1) {
            self.give_credits();
        }
        Ok(Some(message))
    }

    /// Gives the peer all credits for what was taken. Called before sleeping; otherwise they go once per quarter of the ring,
    /// so that they do not cost a cache line for each message.
    pub fn give_credits(&mut self) {
        if self.given != self.head {
            self.given = self.head;
            // Release: the peer overwrites the slots only after this side's reads of them.
            self.line.publish(HEAD, self.head);
            self.line.write_back(HEAD);
            self.unannounced = true;
        }
    }

    /// Whether credits were given to a peer that may sleep for want of them, and has to be woken.
    #[inline(always)]
    pub fn must_wake(&mut self) -> bool {
        std::mem::take(&mut self.unannounced) && self.peer.must_wake()
    }

    /// Whether the peer that has to be woken sleeps on this side's [`Bell`](crate::Bell).
    pub fn on_bell(&self) -> bool {
        self.peer.on_bell()
    }

    /// The peer's bell: see [`Ringer::bell`].
    pub fn bell(&self) -> u64 {
        self.peer.bell()
    }

    /// Word 0 of the slot at the head, when it holds the next message.
    #[inline(always)]
    fn poll(&mut self) -> Result<Option<u64>, Corrupt> {
        if let Some(e) = self.corrupt {
            return Err(e);
        }
        let base = slot_base(self.head, self.count);
        self.slots.invalidate(base);
        let word0 = self.slots.load(base);
        let next = sequence(self.head.wrapping_add(1));
        if word0 >> SEQUENCE_SHIFT == next && word0 != 0 {
            return Ok(Some(word0));
        }
        self.check_empty(word0, next)?;
        (self.looked, self.idle) = (true, word0);
        Ok(None)
    }

    /// A slot without the next message holds the one before it, or nothing in the first lap.
    #[inline]
    fn check_empty(&mut self, word0: u64, next: u64) -> Result<(), Corrupt> {
        let first_lap = self.head.wrapping_sub(self.first) < self.count;
        let old = sequence(self.head.wrapping_add(1).wrapping_sub(self.count));
        let empty = if first_lap { 0 } else { old };
        if word0 >> SEQUENCE_SHIFT == empty && (word0 == 0 || !first_lap) {
            return Ok(());
        }
        let e = Corrupt::Sequence {
            slot: self.slot(),
            found: word0,
            empty,
            next,
        };
        self.corrupt = Some(e);
        Err(e)
    }

    fn slot(&self) -> u64 {
        self.head & (self.count - 1)
    }
}

/// What word 0 keeps of a message's number.
fn sequence(number: u64) -> u64 {
    number << SEQUENCE_SHIFT >> SEQUENCE_SHIFT
}
