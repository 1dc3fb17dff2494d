//! Where the line and the slots lie in a side's memory, and what the words of both mean.
//!
//! ```text
//!   area of one side                      line                          slot
//!   byte 0    line (64 B), padding        0  head: messages taken       0  sequence (48) | kind (8) | flags (8)
//!   byte 128  slot 0                      1  sleep epoch, odd: asleep   1  call
//!   byte 192  slot 1                                                    2  method (32) | shape (8) | zero (24)
//!   …                                     2  bell                         3..4, 6..7  object or inline bytes
//!                                         3..8  zero                    5  deadline
//! ```

/// Bytes of a cache line, and so of a slot.
pub const LINE_BYTES: usize = 64;
/// Words of a cache line.
pub const LINE_WORDS: usize = LINE_BYTES / 8;
/// Slots of a ring unless the parties choose otherwise. Both rings of a connection then take 8 KiB and stay in a first-level
/// cache of 32 KiB; with 256 slots they fill it, and a round trip took 17 % longer.
pub const DEFAULT_SLOTS: usize = 64;
/// The most slots a ring may have: 1 MiB of slots.
pub const MAX_SLOTS: usize = 1 << 14;

/// Word of a line: messages that its owner has taken.
pub(crate) const HEAD: usize = 0;
/// Word of a line: how often its owner has gone to sleep and come back; odd while it sleeps.
pub(crate) const SLEEP: usize = 1;
/// Word of a line: how often its owner has rung for a peer that sleeps on it.
pub const BELL: usize = 2;

/// The sequence number has 48 bits of word 0.
pub(crate) const SEQUENCE_SHIFT: u32 = 16;

/// The place of a side's line and slots in its area.
///
/// The slots begin two lines after the line: processors fetch lines in pairs, and the peer that polls the first slot would
/// take the line from its owner each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    slots: usize,
}

impl Area {
    /// The area of a side whose outgoing ring has `slots` slots.
    pub const fn new(slots: usize) -> Self {
        Area { slots }
    }

    /// The words of the line.
    pub const fn line(&self) -> std::ops::Range<usize> {
        0..LINE_WORDS
    }

    /// The words of the slots.
    pub const fn slots(&self) -> std::ops::Range<usize> {
        let start = 2 * LINE_WORDS;
        start..start + self.slots * LINE_WORDS
    }

    /// Words of the whole area.
    pub const fn words(&self) -> usize {
        self.slots().end
    }

    /// Bytes of the whole area.
    pub const fn bytes(&self) -> usize {
        self.words() * 8
    }
}
