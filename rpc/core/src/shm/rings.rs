//! The two halves of an endpoint over rings.

use std::num::NonZeroU8;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::{Timespec, futex};
use vernal_ring::{
    BELL, Bell, Body as Slot, Consumer, Corrupt, Mapped, Message as Raw, ObjectRef, Producer,
    SendError, Sleeper,
};

use super::dial::Side;
use super::heap::Published;
use super::layout::STATS;
use super::link::ShmLink;
use super::segment::Words;
use super::text::{self, TextWriter};
use crate::Error;
use crate::inject;
use crate::message::{Body, Inline, Kind, Message};
use crate::transport::{Rx, Tx};

/// Flags of a message: what its object is.
mod flag {
    /// An offset and a length in the sender's text area.
    pub(super) const TEXT: u8 = 1;
    /// An object of the channel-wide heap.
    pub(super) const SHARED: u8 = 2;
}

type Memory = Mapped<Words>;

/// Wakes the peer, by what it sleeps on.
struct Waker {
    bell: Bell<Memory>,
    line: Words,
    link: Arc<ShmLink>,
}

impl Waker {
    #[cold]
    fn wake(&self, on_bell: bool) {
        if !on_bell {
            self.link.wake();
            return;
        }
        self.bell.ring();
        if let Some(word) = self.line.futex(BELL) {
            // It fails for addresses that are no memory only.
            let _ = futex::wake(word, futex::Flags::empty(), 1);
        }
    }
}

/// The sending half.
pub(super) struct RingTx {
    producer: Producer<Memory, Memory>,
    texts: TextWriter,
    stats: Words,
    waker: Waker,
    link: Arc<ShmLink>,
    published: Published,
}

/// The receiving half.
pub(super) struct RingRx {
    consumer: Consumer<Memory, Memory>,
    sleeper: Sleeper<Memory>,
    /// The peer's line.
    peer: Words,
    waker: Waker,
    texts: Words,
    link: Arc<ShmLink>,
}

/// Both halves of the side that owns `own`.
pub(super) fn halves(
    own: &Side,
    theirs: &Side,
    link: &Arc<ShmLink>,
    published: Published,
) -> Result<(RingTx, RingRx), Error> {
    let wrong = |e: vernal_ring::RingError| Error::Invalid {
        what: e.to_string(),
        remedy: "connect with another number of slots",
    };
    let mapped = |words: Words| Mapped::new(words);
    let (own_layout, peer_layout) = (own.layout, theirs.layout);
    let (own, peer) = (&own.held, &theirs.held);
    let own_line = || mapped(own.words(own_layout.line()));
    let peer_line = || mapped(peer.words(peer_layout.line()));
    let producer = Producer::new(
        mapped(own.words(own_layout.ring())),
        peer_line(),
        own_layout.slots(),
    )
    .map_err(wrong)?;
    let consumer = Consumer::new(
        mapped(peer.words(peer_layout.ring())),
        own_line(),
        peer_line(),
        peer_layout.slots(),
    )
    .map_err(wrong)?;
    let waker = || -> Result<Waker, Error> {
        Ok(Waker {
            bell: Bell::new(own_line()).map_err(wrong)?,
            line: own.words(own_layout.line()),
            link: Arc::clone(link),
        })
    };
    let tx = RingTx {
        producer,
        waker: waker()?,
        texts: TextWriter::new(own.words(own_layout.texts()), own_layout.slots()),
        stats: own.words(STATS..STATS + 8),
        link: Arc::clone(link),
        published,
    };
    let rx = RingRx {
        consumer,
        sleeper: Sleeper::new(own_line()).map_err(wrong)?,
        peer: peer.words(peer_layout.line()),
        waker: waker()?,
        texts: peer.words(peer_layout.texts()),
        link: Arc::clone(link),
    };
    Ok((tx, rx))
}

fn count(stats: &Words, word: usize, more: u64) {
    if let Some(n) = stats.as_ref().get(word) {
        let n: &AtomicU64 = n;
        // One writer: no locked instruction.
        n.store(
            n.load(Ordering::Relaxed).wrapping_add(more),
            Ordering::Relaxed,
        );
    }
}

/// The kinds are not zero.
fn kind_byte(kind: Kind) -> NonZeroU8 {
    NonZeroU8::new(kind as u8).unwrap_or(NonZeroU8::MIN)
}

impl RingTx {
    #[cold]
    fn corrupt(&self, error: Corrupt) -> Error {
        self.link.corrupt(error.to_string())
    }

    /// What of a message goes into a slot; a text is written to its place. `None`: no room.
    #[inline(always)]
    fn pack(&mut self, message: &Message) -> Result<Option<Raw>, Error> {
        let raw = Raw::new(kind_byte(message.kind), message.call, message.method)
            .with_deadline(message.deadline);
        let object = |address, type_id| ObjectRef {
            address,
            type_id,
            extra: [0; 2],
        };
        let packed = match &message.body {
            Body::Inline { len, bytes } => raw.with_array(&bytes.0, *len as u8),
            Body::Bytes(data) => {
                let in_flight = self.producer.in_flight();
                let Some(offset) = self.texts.write(data, in_flight) else {
                    return Ok(None);
                };
                count(&self.stats, 2, data.len() as u64);
                raw.with_flags(flag::TEXT)
                    .with_object(object(offset, data.len() as u64))
            }
            Body::Object { addr, type_id } => {
                self.publish(message.kind)?;
                raw.with_object(object(*addr, *type_id))
            }
            Body::Shared { addr, type_id } => {
                self.publish(message.kind)?;
                raw.with_flags(flag::SHARED)
                    .with_object(object(*addr, *type_id))
            }
        };
        Ok(Some(packed))
    }

    /// Before an address is sent, the peer can find all segments that the heap has grown by.
    #[inline]
    fn publish(&mut self, kind: Kind) -> Result<(), Error> {
        match kind {
            Kind::Release => Ok(()),
            _ => self.published.update(&self.link),
        }
    }
}

impl Tx for RingTx {
    #[inline]
    fn try_send(&mut self, message: &Message) -> Result<bool, Error> {
        // Before a text is written: its place is known to be free by what this reads.
        if matches!(message.body, Body::Bytes(_)) {
            match self.producer.has_room() {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(e) => return Err(self.corrupt(e)),
            }
        }
        let Some(raw) = self.pack(message)? else {
            return Ok(false);
        };
        inject::step();
        match self.producer.try_send(&raw) {
            Ok(()) => {}
            Err(SendError::Full { .. }) => return Ok(false),
            Err(SendError::Corrupt(e)) => return Err(self.corrupt(e)),
            Err(e) => return Err(self.link.corrupt(e.to_string())),
        }
        inject::step();
        self.texts.sent();
        if self.producer.must_wake() {
            self.waker.wake(self.producer.on_bell());
        }
        count(&self.stats, 0, 1);
        Ok(true)
    }
}

impl RingRx {
    /// A peer that waits for room gets all there is: this side may sleep for long.
    fn give_credits(&mut self) {
        self.consumer.give_credits();
        if self.consumer.must_wake() {
            self.waker.wake(self.consumer.on_bell());
        }
    }

    /// Blocks until the peer's bell is not what was heard, at most for so long. `false`: it was not rung.
    fn listen(&self, heard: u64, longest: Duration) -> bool {
        let (Some(word), Ok(longest)) = (self.peer.futex(BELL), Timespec::try_from(longest)) else {
            return false;
        };
        // The word lies in memory that this side may only read, which is enough to wait.
        match futex::wait(word, futex::Flags::empty(), heard as u32, Some(&longest)) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => true,
            // Time has passed, or this kernel does not do it: descriptors are there still.
            Err(_) => false,
        }
    }

    #[cold]
    fn corrupt(&self, error: Corrupt) -> Error {
        self.link.corrupt(error.to_string())
    }

    #[inline(always)]
    fn unpack(&self, raw: &Raw, to: &mut Message) -> Result<(), Error> {
        let Some(kind) = Kind::from_wire(raw.kind()) else {
            return Err(self.unknown("kind", raw.kind()));
        };
        let body = match (raw.array(), raw.flags()) {
            (Some((bytes, len)), 0) => Body::Inline {
                len: len.into(),
                bytes: Inline(bytes),
            },
            _ => self.unpack_object(raw)?,
        };
        to.kind = kind;
        to.call = raw.call();
        to.method = raw.method();
        to.deadline = raw.deadline();
        to.body = body;
        Ok(())
    }

    #[cold]
    fn unknown(&self, what: &str, value: u8) -> Error {
        self.link
            .corrupt(format!("a message has the {what} {value:#x}"))
    }

    #[inline(never)]
    fn unpack_object(&self, raw: &Raw) -> Result<Body, Error> {
        Ok(match (raw.body(), raw.flags()) {
            (Slot::Object(o), 0) => Body::Object {
                addr: o.address,
                type_id: o.type_id,
            },
            (Slot::Object(o), flag::TEXT) => {
                let Some(bytes) = text::read(&self.texts, o.address, o.type_id) else {
                    let (at, len) = (o.address, o.type_id);
                    let why =
                        format!("a text of {len} bytes at {at:#x} lies outside of its text area");
                    return Err(self.link.corrupt(why));
                };
                Body::Bytes(bytes)
            }
            (Slot::Object(o), flag::SHARED) => Body::Shared {
                addr: o.address,
                type_id: o.type_id,
            },
            (_, flags) => return Err(self.unknown("flags", flags)),
        })
    }
}

impl Rx for RingRx {
    #[inline]
    fn is_due(&mut self) -> bool {
        self.consumer.is_due()
    }

    fn try_recv(&mut self) -> Result<Option<Message>, Error> {
        let mut message = Message::bare(Kind::Goodbye, 0);
        Ok(self.recv_into(&mut message)?.then_some(message))
    }

    #[inline]
    fn recv_into(&mut self, message: &mut Message) -> Result<bool, Error> {
        let raw = match self.consumer.try_recv() {
            Ok(None) => return Ok(false),
            Ok(Some(raw)) => raw,
            Err(e) => return Err(self.corrupt(e)),
        };
        // The text is copied before the next look gives its slot back: see the text area.
        inject::step();
        self.unpack(&raw, message)?;
        if self.consumer.must_wake() {
            self.waker.wake(self.consumer.on_bell());
        }
        Ok(true)
    }

    fn doze(&mut self, longest: Duration) -> Result<bool, Error> {
        self.give_credits();
        // Before the announcement: see the ring's `sleep`.
        let heard = self.consumer.bell();
        self.sleeper.arm_for_bell();
        let woken = match self.consumer.has_message() {
            Ok(true) => true,
            Ok(false) => self.listen(heard, longest),
            Err(e) => {
                self.sleeper.disarm();
                return Err(self.corrupt(e));
            }
        };
        self.sleeper.disarm();
        Ok(woken)
    }

    fn arm(&mut self) -> Result<bool, Error> {
        self.give_credits();
        self.sleeper.arm();
        match self.consumer.has_message() {
            Ok(there) => Ok(!there),
            Err(e) => Err(self.corrupt(e)),
        }
    }

    fn disarm(&mut self) {
        self.sleeper.disarm();
    }
}

/// A byte into the peer's pipe. A full pipe is awake enough, and a peer that is gone needs none.
pub(super) fn ring_bell(wake: impl AsFd) {
    let _ = rustix::io::write(wake, &[1]);
}
