//! The memory of the peer of a ring: any word at any time, between any steps of this side.

use crate::input::Input;
use std::sync::atomic::{AtomicU64, Ordering};
use vernal_ring::{
    Area, Body, Consumer, INLINE_MAX, Mapped, Message, Producer, SendError, Sleeper,
};

const SLOTS: usize = 4;
/// Words that decide most: head, sleep, words 0 and 2 of the slots.
const TELLING: [usize; 10] = [0, 1, 16, 18, 24, 26, 32, 34, 40, 42];

/// Slices of words, as mapped ones are.
struct Words<'a>(&'a [AtomicU64]);

impl AsRef<[AtomicU64]> for Words<'_> {
    fn as_ref(&self) -> &[AtomicU64] {
        self.0
    }
}

fn part(words: &[AtomicU64], range: std::ops::Range<usize>) -> Mapped<Words<'_>> {
    Mapped::new(Words(words.get(range).unwrap_or_default()))
}

fn message(call: u64) -> Message {
    Message::new(std::num::NonZeroU8::MIN, call, 7)
}

/// Steps of both sides.
pub(crate) fn hostile(bytes: &[u8]) {
    let area = Area::new(SLOTS);
    let memory = || -> Vec<AtomicU64> { (0..area.words()).map(|_| AtomicU64::new(0)).collect() };
    let (mine, theirs) = (memory(), memory());
    let made = (
        Producer::new(part(&mine, area.slots()), part(&theirs, area.line()), SLOTS),
        Consumer::new(
            part(&theirs, area.slots()),
            part(&mine, area.line()),
            part(&theirs, area.line()),
            SLOTS,
        ),
        Producer::new(part(&theirs, area.slots()), part(&mine, area.line()), SLOTS),
        Sleeper::new(part(&mine, area.line())),
    );
    let (Ok(mut producer), Ok(mut consumer), Ok(mut honest), Ok(mut sleeper)) = made else {
        panic!("the memory of the rings has the right size");
    };
    let (mut broken_in, mut broken_out) = (None, None);
    let mut sent = 0;
    let mut input = Input(bytes);
    while !input.is_empty() {
        match input.u8() % 8 {
            0 => {
                let at = usize::from(input.u8()) % theirs.len();
                let value = input.u64();
                theirs
                    .iter()
                    .skip(at)
                    .take(1)
                    .for_each(|w| w.store(value, Ordering::Relaxed));
            }
            1 => {
                let at = TELLING.get(usize::from(input.u8()) % TELLING.len());
                let value = u64::from(input.u16()) << 16 | u64::from(input.u16());
                let word = at.and_then(|at| theirs.get(*at));
                word.into_iter()
                    .for_each(|w| w.store(value, Ordering::Relaxed));
            }
            2 => drop(honest.try_send(&message(1))),
            3 => match producer.try_send(&message(sent)) {
                Ok(()) => {
                    assert!(broken_out.is_none(), "a broken ring sends");
                    sent += 1;
                }
                Err(SendError::Corrupt(e)) => {
                    assert!(broken_out.is_none_or(|before| before == e));
                    broken_out = Some(e);
                }
                Err(_) => {}
            },
            4 => match consumer.try_recv() {
                Ok(received) => {
                    assert!(broken_in.is_none(), "a broken ring receives");
                    if let Some(m) = received {
                        assert!(m.kind() != 0);
                        if let Body::Inline(bytes) = m.body() {
                            assert!(bytes.len() <= INLINE_MAX);
                        }
                        drop(format!("{m:?}"));
                    }
                }
                Err(e) => {
                    assert!(broken_in.is_none_or(|before| before == e));
                    broken_in = Some(e);
                    drop(e.to_string());
                }
            },
            5 => {
                let _ = producer.has_room();
                let _ = consumer.has_message();
            }
            6 => {
                let _ = producer.must_wake();
                let _ = consumer.must_wake();
            }
            _ => {
                sleeper.arm();
                sleeper.disarm();
            }
        }
        // No claim of the peer makes this side overwrite what it has not been told was read.
        assert!(producer.in_flight() <= SLOTS as u64);
    }
}
