//! What the tests of the ring share: real memory of two sides, and an event that a side sleeps on.
#![allow(dead_code)]

use std::num::NonZeroU8;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;
use vernal_ring::*;

/// Part of the memory of one side.
#[derive(Clone, Debug)]
pub struct Memory {
    words: Arc<Vec<AtomicU64>>,
    start: usize,
    end: usize,
}

impl AsRef<[AtomicU64]> for Memory {
    fn as_ref(&self) -> &[AtomicU64] {
        &self.words[self.start..self.end]
    }
}

impl Memory {
    /// The zeroed memory of a side with so many outgoing slots.
    pub fn area(slots: usize) -> Memory {
        Memory::zeroed(Area::new(slots).words())
    }

    /// So many zeroed words.
    pub fn zeroed(end: usize) -> Memory {
        Memory {
            words: Arc::new((0..end).map(|_| AtomicU64::new(0)).collect()),
            start: 0,
            end,
        }
    }

    /// Some of its words.
    pub fn part(&self, range: std::ops::Range<usize>) -> Mapped<Memory> {
        Mapped::new(Memory {
            words: self.words.clone(),
            start: self.start + range.start,
            end: self.start + range.end,
        })
    }
}

pub type RealProducer = Producer<Mapped<Memory>, Mapped<Memory>>;
pub type RealConsumer = Consumer<Mapped<Memory>, Mapped<Memory>>;
pub type RealEndpoint<K> = Endpoint<Mapped<Memory>, Mapped<Memory>, K>;

pub fn producer(own: &Memory, peer: &Memory, slots: usize, first: u64) -> RealProducer {
    let area = Area::new(slots);
    Producer::starting_at(own.part(area.slots()), peer.part(area.line()), slots, first)
        .expect("producer")
}

pub fn consumer(own: &Memory, peer: &Memory, slots: usize, first: u64) -> RealConsumer {
    let area = Area::new(slots);
    let (line, peer_line) = (own.part(area.line()), peer.part(area.line()));
    Consumer::starting_at(peer.part(area.slots()), line, peer_line, slots, first).expect("consumer")
}

pub fn endpoint<K: Park>(
    own: &Memory,
    peer: &Memory,
    slots: usize,
    park: K,
    policy: WaitPolicy,
) -> RealEndpoint<K> {
    let sleeper = Sleeper::new(own.part(Area::new(slots).line())).expect("sleeper");
    Endpoint::new(
        producer(own, peer, slots, 0),
        consumer(own, peer, slots, 0),
        sleeper,
        park,
        policy,
    )
}

/// A message with something in each word.
pub fn message(call: u64) -> Message {
    let kind = NonZeroU8::new((call % 255) as u8 + 1).expect("not zero");
    let m = Message::new(kind, call, call as u32)
        .with_flags(call as u8)
        .with_deadline(!call);
    if call.is_multiple_of(2) {
        let text = format!("{call:032x}");
        m.with_inline(&text.as_bytes()[..call as usize % 33])
            .expect("fits")
    } else {
        m.with_object(ObjectRef {
            address: call.wrapping_mul(3),
            type_id: call.wrapping_mul(5),
            extra: [call.wrapping_mul(7), call.wrapping_mul(11)],
        })
    }
}

/// What an eventfd does: a wake-up stays until it is taken.
#[derive(Debug, Default)]
pub struct Event {
    pending: Mutex<bool>,
    changed: Condvar,
}

#[derive(Clone, Debug)]
pub struct EventPark {
    pub own: Arc<Event>,
    pub peer: Arc<Event>,
}

impl EventPark {
    pub fn pair() -> (EventPark, EventPark) {
        let (own, peer) = (Arc::new(Event::default()), Arc::new(Event::default()));
        let other = EventPark {
            own: peer.clone(),
            peer: own.clone(),
        };
        (EventPark { own, peer }, other)
    }
}

impl Park for EventPark {
    type Stop = ();

    fn block(&mut self, deadline: Option<Instant>) -> ControlFlow<()> {
        let mut pending = self.own.pending.lock().expect("lock");
        while !*pending {
            pending = match deadline {
                None => self.own.changed.wait(pending).expect("lock"),
                Some(d) => {
                    let left = d.saturating_duration_since(Instant::now());
                    let (pending, timeout) =
                        self.own.changed.wait_timeout(pending, left).expect("lock");
                    if timeout.timed_out() {
                        return ControlFlow::Continue(());
                    }
                    pending
                }
            };
        }
        *pending = false;
        ControlFlow::Continue(())
    }

    fn check(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn wake(&mut self) {
        *self.peer.pending.lock().expect("lock") = true;
        self.peer.changed.notify_one();
    }
}
