//! A ring of bytes: what a stream socket is, in memory that one side writes and the other only reads.
//!
//! ```text
//!   area of one side
//!   byte 0     reader's line   0 head: bytes taken from the peer   1 sleep epoch, odd: asleep until bytes come
//!   byte 128   writer's line   0 tail: bytes written               1 sleep epoch, odd: asleep until there is room
//!   byte 256   data            the bytes that this side writes; the byte with number n lies at n modulo the capacity
//! ```
//!
//! Both counts only grow. The tail is published after the bytes, the head after they were copied out; the head travels once for
//! a quarter of the ring. The two sleep words are apart, so that credits wake only who waits for room.

use crate::layout::{HEAD, LINE_WORDS};
use crate::sleep::Ringer;
use crate::words::{OwnWords, PeerWords};
use crate::{Corrupt, RingError};

/// Word of the writer's line: bytes written.
const TAIL: usize = 0;
/// The fewest bytes that a ring of bytes can hold.
const CAPACITY_MIN: usize = 64;
/// The most: so that half of all counts is always more than a ring.
const CAPACITY_MAX: usize = 1 << 30;

/// The place of a side's two lines and its bytes in its area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamArea {
    capacity: usize,
}

impl StreamArea {
    /// The area of a side that has `capacity` bytes under way at most: a power of two.
    pub fn new(capacity: usize) -> Result<Self, RingError> {
        if !capacity.is_power_of_two() || !(CAPACITY_MIN..=CAPACITY_MAX).contains(&capacity) {
            return Err(RingError::Capacity { bytes: capacity });
        }
        Ok(StreamArea { capacity })
    }

    /// Bytes that can be under way.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The words of the reader's line.
    pub fn reader(&self) -> std::ops::Range<usize> {
        0..LINE_WORDS
    }

    /// The words of the writer's line.
    pub fn writer(&self) -> std::ops::Range<usize> {
        2 * LINE_WORDS..3 * LINE_WORDS
    }

    /// The words of the bytes.
    pub fn data(&self) -> std::ops::Range<usize> {
        4 * LINE_WORDS..4 * LINE_WORDS + self.capacity / 8
    }

    /// Words of the whole area.
    pub fn words(&self) -> usize {
        self.data().end
    }

    fn check(&self, what: &'static str, found: usize, needed: usize) -> Result<(), RingError> {
        if found < needed {
            return Err(RingError::Words {
                what,
                needed,
                found,
            });
        }
        Ok(())
    }
}

/// Splits `len` bytes from the byte with number `at` on into words: calls `each` with the word's place, the first byte in it and
/// how many.
#[inline(always)]
fn pieces(at: u64, len: usize, capacity: u64, mut each: impl FnMut(usize, usize, usize)) {
    let (mut at, mut left) = (at, len);
    while left > 0 {
        let first = (at % 8) as usize;
        let count = left.min(8 - first);
        each(((at & (capacity - 1)) / 8) as usize, first, count);
        at = at.wrapping_add(count as u64);
        left -= count;
    }
}

/// Writes bytes into this side's memory.
#[derive(Debug)]
pub struct StreamProducer<O, P> {
    data: O,
    line: O,
    peer: Ringer<P>,
    capacity: u64,
    /// Bytes written.
    tail: u64,
    /// Bytes that the peer is known to have taken.
    head: u64,
    /// The word that the tail is in, so that its first bytes can be written again with the next ones.
    partial: u64,
    corrupt: Option<Corrupt>,
}

impl<O: OwnWords, P: PeerWords> StreamProducer<O, P> {
    /// A producer over zeroed own memory, and the reader's line of the peer.
    pub fn new(
        area: StreamArea,
        data: O,
        own_writer: O,
        peer_reader: P,
    ) -> Result<Self, RingError> {
        Self::starting_at(area, data, own_writer, peer_reader, 0)
    }

    /// As [`new`](Self::new), but the first byte has number `first`, a multiple of 8: so that tests reach the wrap-around of
    /// counts. The consumer must have been made, with the same number, before the ring is full for the first time.
    pub fn starting_at(
        area: StreamArea,
        data: O,
        own_writer: O,
        peer_reader: P,
        first: u64,
    ) -> Result<Self, RingError> {
        area.check("bytes", data.count(), area.capacity / 8)?;
        area.check("words of the own line", own_writer.count(), LINE_WORDS)?;
        own_writer.publish(TAIL, first);
        own_writer.write_back(TAIL);
        Ok(StreamProducer {
            data,
            line: own_writer,
            peer: Ringer::new(peer_reader)?,
            capacity: area.capacity as u64,
            tail: first,
            head: first,
            partial: 0,
            corrupt: None,
        })
    }

    /// Bytes written since the beginning.
    pub fn written(&self) -> u64 {
        self.tail
    }

    /// Bytes that can be written now. Reads the peer's credits when less than a quarter of the ring is known to be free.
    #[inline]
    pub fn room(&mut self) -> Result<usize, Corrupt> {
        self.room_for((self.capacity / 4) as usize)
    }

    /// Bytes that can be written now; the peer's credits are read if fewer than `wanted` are known.
    #[inline]
    fn room_for(&mut self, wanted: usize) -> Result<usize, Corrupt> {
        if let Some(e) = self.corrupt {
            return Err(e);
        }
        if self.free() < wanted as u64 {
            self.take_credits()?;
        }
        Ok(self.free() as usize)
    }

    /// Up to the word that the head is in: whole words are stored, and the peer still reads the last bytes of that one.
    #[inline]
    fn free(&self) -> u64 {
        self.capacity - self.tail.wrapping_sub(self.head & !7)
    }

    /// Writes as much of `bytes` as there is room for, and says how much. Nobody sees it before [`publish`](Self::publish).
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Corrupt> {
        let len = self.room_for(bytes.len())?.min(bytes.len());
        let mut rest = bytes.get(..len).unwrap_or_default();
        let (data, mut partial) = (&self.data, self.partial);
        pieces(self.tail, len, self.capacity, |word, first, count| {
            let (now, later) = rest.split_at(count);
            rest = later;
            if let Ok(whole) = <[u8; 8]>::try_from(now) {
                partial = u64::from_le_bytes(whole);
            } else {
                // A part of a word: what is before it was published already and stays as it is.
                let mut word = if first == 0 {
                    [0; 8]
                } else {
                    partial.to_le_bytes()
                };
                word.iter_mut()
                    .skip(first)
                    .zip(now)
                    .for_each(|(to, from)| *to = *from);
                partial = u64::from_le_bytes(word);
            }
            data.store(word, partial);
            if word % LINE_WORDS == LINE_WORDS - 1 {
                data.write_back(word);
            }
        });
        self.partial = partial;
        self.tail = self.tail.wrapping_add(len as u64);
        Ok(len)
    }

    /// Shows the peer all that was written. It may sleep: see [`must_wake`](Self::must_wake).
    #[inline]
    pub fn publish(&mut self) {
        // The last line, when it is not full; whole ones were written back when they were.
        self.data
            .write_back(((self.tail & (self.capacity - 1)) / 8) as usize);
        // Release: whoever sees the tail sees the bytes before it.
        self.line.publish(TAIL, self.tail);
        self.line.write_back(TAIL);
    }

    /// To be called after publishing: does the peer sleep, and has to be woken?
    #[inline]
    pub fn must_wake(&mut self) -> bool {
        self.peer.must_wake()
    }

    #[cold]
    fn take_credits(&mut self) -> Result<(), Corrupt> {
        let line = self.peer.line();
        line.invalidate(HEAD);
        let found = line.load(HEAD);
        // The bytes are overwritten only after the peer's reads of them, which came before its new head.
        line.acquire();
        // A head that goes back, or overtakes what was written, would let this side overwrite what the peer has not read.
        if self.tail.wrapping_sub(found) > self.tail.wrapping_sub(self.head) {
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

/// Reads bytes from the peer's memory.
#[derive(Debug)]
pub struct StreamConsumer<O, P> {
    data: P,
    line: O,
    peer: Ringer<P>,
    capacity: u64,
    /// Bytes taken.
    head: u64,
    /// Bytes that the peer is known to have written.
    tail: u64,
    /// Bytes taken when credits were last given.
    given: u64,
    /// Credits were given, and the peer may sleep for want of them.
    unannounced: bool,
    corrupt: Option<Corrupt>,
}

impl<O: OwnWords, P: PeerWords> StreamConsumer<O, P> {
    /// A consumer of the bytes in the peer's memory, with its own reader's line and the peer's writer's line.
    pub fn new(
        area: StreamArea,
        data: P,
        own_reader: O,
        peer_writer: P,
    ) -> Result<Self, RingError> {
        Self::starting_at(area, data, own_reader, peer_writer, 0)
    }

    /// As [`new`](Self::new), but the first byte has number `first`: see [`StreamProducer::starting_at`].
    pub fn starting_at(
        area: StreamArea,
        data: P,
        own_reader: O,
        peer_writer: P,
        first: u64,
    ) -> Result<Self, RingError> {
        area.check("bytes", data.count(), area.capacity / 8)?;
        area.check("words of the own line", own_reader.count(), LINE_WORDS)?;
        own_reader.publish(HEAD, first);
        own_reader.write_back(HEAD);
        Ok(StreamConsumer {
            data,
            line: own_reader,
            peer: Ringer::new(peer_writer)?,
            capacity: area.capacity as u64,
            head: first,
            tail: first,
            given: first,
            unannounced: false,
            corrupt: None,
        })
    }

    /// Bytes taken since the beginning.
    pub fn taken(&self) -> u64 {
        self.head
    }

    /// Bytes that can be read now. If some are known the peer may have written more meanwhile.
    #[inline]
    pub fn available(&mut self) -> Result<usize, Corrupt> {
        if self.tail == self.head || self.corrupt.is_some() {
            self.refresh()?;
        }
        Ok(self.tail.wrapping_sub(self.head) as usize)
    }

    /// Bytes that the peer has written since the beginning, as it says now.
    #[inline]
    pub fn refresh(&mut self) -> Result<u64, Corrupt> {
        if let Some(e) = self.corrupt {
            return Err(e);
        }
        let line = self.peer.line();
        line.invalidate(TAIL);
        let found = line.load(TAIL);
        // The bytes are read after the tail that says that they are there.
        line.acquire();
        let (least, most) = (self.tail, self.head.wrapping_add(self.capacity));
        // A tail that goes back, or is more than a ring ahead, would make old bytes new ones.
        if found.wrapping_sub(least) > most.wrapping_sub(least) {
            let e = Corrupt::Tail { found, least, most };
            self.corrupt = Some(e);
            return Err(e);
        }
        self.tail = found;
        Ok(found)
    }

    /// Copies bytes without taking them, from the `skip`-th one on: each is read once. Says how many.
    #[inline]
    pub fn peek(&mut self, skip: usize, bytes: &mut [u8]) -> Result<usize, Corrupt> {
        let known = self.tail.wrapping_sub(self.head) as usize;
        if known < skip.saturating_add(bytes.len()) {
            self.refresh()?;
        }
        let there = (self.tail.wrapping_sub(self.head) as usize).saturating_sub(skip);
        let len = there.min(bytes.len());
        let mut rest = bytes.get_mut(..len).unwrap_or_default();
        let data = &self.data;
        let at = self.head.wrapping_add(skip as u64);
        let mut line = usize::MAX;
        pieces(at, len, self.capacity, |word, first, count| {
            if line != word / LINE_WORDS {
                line = word / LINE_WORDS;
                data.invalidate(word);
            }
            let value = data.load(word).to_le_bytes();
            let (now, later) = std::mem::take(&mut rest).split_at_mut(count);
            rest = later;
            if let Ok(whole) = <&mut [u8; 8]>::try_from(&mut *now) {
                *whole = value;
            } else {
                now.iter_mut()
                    .zip(value.iter().skip(first))
                    .for_each(|(to, from)| *to = *from);
            }
        });
        Ok(len)
    }

    /// Takes bytes, as many as there are and fit. Says how many. The peer may wait for room: see [`must_wake`](Self::must_wake).
    #[inline]
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Corrupt> {
        let len = self.peek(0, bytes)?;
        self.head = self.head.wrapping_add(len as u64);
        if self.head.wrapping_sub(self.given) >= self.capacity / 4 {
            self.give_credits();
        }
        Ok(len)
    }

    /// Gives the peer all credits for what was taken: before sleeping, so that it can go on meanwhile.
    pub fn give_credits(&mut self) {
        if self.given != self.head {
            self.given = self.head;
            // Release: the peer overwrites the bytes only after this side's reads of them.
            self.line.publish(HEAD, self.head);
            self.line.write_back(HEAD);
            self.unannounced = true;
        }
    }

    /// Whether credits were given to a peer that may sleep for want of them, and has to be woken.
    #[inline]
    pub fn must_wake(&mut self) -> bool {
        std::mem::take(&mut self.unannounced) && self.peer.must_wake()
    }
}
