//! What can be wrong with a ring.

use thiserror::Error;

/// The peer has written what no honest peer writes. The ring stays closed: every later call returns the same error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Corrupt {
    /// A slot holds neither the message before the expected one nor the expected one.
    #[error(
        "the peer broke the ring: slot {slot} has word {found:#x}, where only sequence {empty:#x} (empty) or {next:#x} (message) can be; end the connection"
    )]
    Sequence {
        /// Index of the slot.
        slot: u64,
        /// Word 0, as read.
        found: u64,
        /// The sequence of an empty slot.
        empty: u64,
        /// The sequence of the next message.
        next: u64,
    },
    /// A message of kind 0.
    #[error("the peer broke the ring: the message in slot {slot} has kind 0; end the connection")]
    Kind {
        /// Index of the slot.
        slot: u64,
    },
    /// Word 2 names no shape of body.
    #[error(
        "the peer broke the ring: word 2 of the message in slot {slot} is {found:#x}, which is no known shape; end the connection"
    )]
    Shape {
        /// Index of the slot.
        slot: u64,
        /// Word 2, as read.
        found: u64,
    },
    /// The peer claims to have taken more than was sent, or less than it said before.
    #[error(
        "the peer broke the ring: it says that it has taken {found} messages, where only {least} to {most} can be; end the connection"
    )]
    Credits {
        /// The peer's head, as read.
        found: u64,
        /// The head that it had said before.
        least: u64,
        /// Messages sent.
        most: u64,
    },
    /// The peer claims to have written more bytes than a ring holds, or fewer than it said before.
    #[error(
        "the peer broke the ring: it says that it has written {found} bytes, where only {least} to {most} can be; end the connection"
    )]
    Tail {
        /// The peer's tail, as read.
        found: u64,
        /// The tail that it had said before.
        least: u64,
        /// What the ring can hold.
        most: u64,
    },
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The peer has not yet taken enough; wait for credits.
    #[error("the ring is full: its {slots} slots wait for the peer; receive, wait, and send again")]
    Full {
        /// Slots of the ring.
        slots: u64,
    },
    /// The ring is closed.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Why a ring cannot be made of this memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RingError {
    /// The number of slots is not a power of two in range.
    #[error("a ring cannot have {slots} slots; use a power of two from 2 to {max}", max = crate::layout::MAX_SLOTS)]
    Slots {
        /// Slots asked for.
        slots: usize,
    },
    /// The number of bytes is not a power of two in range.
    #[error("a ring cannot hold {bytes} bytes; use a power of two from 64 to 1 GiB")]
    Capacity {
        /// Bytes asked for.
        bytes: usize,
    },
    /// The memory is too small.
    #[error("the {what} of a ring need {needed} words, this memory has {found}; map more")]
    Words {
        /// What lies there.
        what: &'static str,
        /// Words that it takes.
        needed: usize,
        /// Words that are there.
        found: usize,
    },
}
