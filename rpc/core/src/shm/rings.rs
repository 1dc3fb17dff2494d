//! The two halves of an endpoint over rings.

use std::num::NonZeroU8;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vernal_ring::{
    Body as Slot, Consumer, Corrupt, Mapped, Message as Raw, ObjectRef, Producer, SendError,
    Sleeper,
};

use super::dial::Side;
use super::heap::Published;
use super::layout::STATS;
use super::link::ShmLink;
use super::segment::Words;
use super::text::{self, TextWriter};
use crate::Error;
use crate::inject;
use crate::message::{Body, Kind, Message};
use crate::transport::{Rx, Tx};

/// Flags of a message: what its object is.
mod flag {
    /// An offset and a length in the sender's text area.
    pub(super) const TEXT: u8 = 1;
    /// An object of the channel-wide heap.
    pub(super) const SHARED: u8 = 2;
}

type Memory = Mapped<Words>;

/// The sending half.
pub(super) struct RingTx {
    producer: Producer<Memory, Memory>,
    texts: TextWriter,
    stats: Words,
    link: Arc<ShmLink>,
    published: Published,
}

/// The receiving half.
pub(super) struct RingRx {
    consumer: Consumer<Memory, Memory>,
    sleeper: Sleeper<Memory>,
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
    let tx = RingTx {
        producer,
        texts: TextWriter::new(own.words(own_layout.texts()), own_layout.slots()),
        stats: own.words(STATS..STATS + 8),
        link: Arc::clone(link),
        published,
    };
    let rx = RingRx {
        consumer,
        sleeper: Sleeper::new(own_line()).map_err(wrong)?,
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
    #[inline]
    fn corrupt(&self, error: Corrupt) -> Error {
        self.link.corrupt(error.to_string())
    }

    /// What of a message goes into a slot; a text is written to its place. `None`: no room.
    #[inline]
    fn pack(&mut self, message: &Message) -> Result<Option<Raw>, Error> {
        let raw = Raw::new(kind_byte(message.kind), message.call, message.method)
            .with_deadline(message.deadline);
        let object = |address, type_id| ObjectRef {
            address,
            type_id,
            extra: [0; 2],
        };
        let packed = match &message.body {
            Body::Inline { len, bytes } => {
                let bytes = bytes.get(..usize::from(*len)).unwrap_or_default();
                raw.with_inline(bytes).unwrap_or(raw)
            }
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
        match self.producer.has_room() {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(e) => return Err(self.corrupt(e)),
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
            self.link.wake();
        }
        count(&self.stats, 0, 1);
        Ok(true)
    }
}

impl RingRx {
    #[cold]
    fn corrupt(&self, error: Corrupt) -> Error {
        self.link.corrupt(error.to_string())
    }

    #[inline]
    fn unpack(&self, raw: &Raw) -> Result<Message, Error> {
        let Some(kind) = Kind::from_wire(raw.kind()) else {
            return Err(self
                .link
                .corrupt(format!("a message has kind {}", raw.kind())));
        };
        let body = match (raw.body(), raw.flags()) {
            (Slot::Inline(inline), 0) => Body::inline(inline.as_slice()),
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
            (_, flags) => {
                return Err(self
                    .link
                    .corrupt(format!("a message has the flags {flags:#x}")));
            }
        };
        Ok(Message {
            kind,
            call: raw.call(),
            method: raw.method(),
            deadline: raw.deadline(),
            body,
        })
    }
}

impl Rx for RingRx {
    #[inline]
    fn try_recv(&mut self) -> Result<Option<Message>, Error> {
        match self.consumer.try_recv() {
            Ok(None) => Ok(None),
            Ok(Some(raw)) => {
                // The text is copied before the next look gives its slot back: see the text area.
                inject::step();
                let message = self.unpack(&raw)?;
                if self.consumer.must_wake() {
                    self.link.wake();
                }
                Ok(Some(message))
            }
            Err(e) => Err(self.corrupt(e)),
        }
    }

    fn arm(&mut self) -> Result<bool, Error> {
        // A peer that waits for room gets all there is: this side may sleep for long.
        self.consumer.give_credits();
        if self.consumer.must_wake() {
            self.link.wake();
        }
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
