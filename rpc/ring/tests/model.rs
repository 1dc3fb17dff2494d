//! The ring against a queue: random operations, any size, sequences that wrap.

mod support;

use proptest::prelude::*;
use std::collections::VecDeque;
use support::*;
use vernal_ring::*;

#[derive(Clone, Copy, Debug)]
enum Op {
    Send(u8),
    Recv(u8),
    Give,
    Look,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..80u8).prop_map(Op::Send),
        4 => (1..80u8).prop_map(Op::Recv),
        1 => Just(Op::Give),
        1 => Just(Op::Look),
    ]
}

/// Numbers near each place where something wraps: slots, 48 bits of sequence, 64 bits of count.
fn first() -> impl Strategy<Value = u64> {
    let around = |at: u64| (0..200u64).prop_map(move |d| at.wrapping_add(d).wrapping_sub(100));
    prop_oneof![
        Just(0),
        around(1 << 48),
        around(0),
        around(u64::MAX / 2),
        any::<u64>()
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_ring_is_a_queue(bits in 1..8u32, first in first(), ops in prop::collection::vec(op(), 1..60)) {
        let slots = 1usize << bits;
        let (a, b) = (Memory::area(slots), Memory::area(slots));
        let mut consumer = consumer(&b, &a, slots, first);
        let mut producer = producer(&a, &b, slots, first);
        let mut queue = VecDeque::new();
        let (mut sent, mut kept) = (0u64, 0u64);
        for op in ops {
            match op {
                Op::Send(n) => for _ in 0..n {
                    let m = message(sent);
                    let room = queue.len() as u64 + kept < slots as u64;
                    prop_assert_eq!(producer.has_room(), Ok(room));
                    match producer.try_send(&m) {
                        Ok(()) => {
                            prop_assert!(room);
                            queue.push_back(m);
                            sent += 1;
                        }
                        Err(e) => {
                            prop_assert!(!room);
                            prop_assert_eq!(e, SendError::Full { slots: slots as u64 });
                        }
                    }
                    prop_assert!(producer.in_flight() <= slots as u64);
                },
                Op::Recv(n) => for _ in 0..n {
                    let expected = queue.pop_front();
                    prop_assert_eq!(consumer.try_recv(), Ok(expected));
                    if expected.is_some() {
                        kept += 1;
                        // Credits go once per quarter of the ring.
                        if kept >= (slots as u64 / 4).max(1) {
                            kept = 0;
                        }
                    }
                },
                Op::Give => {
                    consumer.give_credits();
                    kept = 0;
                }
                Op::Look => prop_assert_eq!(consumer.has_message(), Ok(!queue.is_empty())),
            }
        }
        for m in queue {
            prop_assert_eq!(consumer.try_recv(), Ok(Some(m)));
        }
        prop_assert_eq!(consumer.try_recv(), Ok(None));
    }
}

#[test]
fn memory_that_is_no_ring_is_refused() {
    let memory = Memory::area(8);
    let area = Area::new(8);
    for slots in [0, 1, 3, 24, MAX_SLOTS * 2] {
        let e = Producer::new(memory.part(area.slots()), memory.part(area.line()), slots)
            .expect_err("refused");
        assert_eq!(e, RingError::Slots { slots });
    }
    let short = memory.part(16..79);
    let e = Producer::new(short.clone(), memory.part(area.line()), 8).expect_err("refused");
    assert!(
        matches!(
            e,
            RingError::Words {
                needed: 64,
                found: 63,
                ..
            }
        ),
        "{e}"
    );
    let e = Consumer::new(short, memory.part(0..8), memory.part(0..8), 8).expect_err("refused");
    assert!(
        matches!(
            e,
            RingError::Words {
                needed: 64,
                found: 63,
                ..
            }
        ),
        "{e}"
    );
    for line in [0..0, 0..7] {
        assert!(Ringer::new(memory.part(line.clone())).is_err());
        assert!(Sleeper::new(memory.part(line.clone())).is_err());
        let e = Consumer::new(
            memory.part(area.slots()),
            memory.part(line),
            memory.part(0..8),
            8,
        );
        assert!(matches!(e, Err(RingError::Words { needed: 8, .. })));
    }
}

#[test]
fn an_area_has_room_for_its_parts() {
    for slots in [2, 64, MAX_SLOTS] {
        let area = Area::new(slots);
        assert_eq!(area.line(), 0..LINE_WORDS);
        assert_eq!(area.slots().start % (2 * LINE_WORDS), 0);
        assert_eq!(area.slots().len(), slots * LINE_WORDS);
        assert_eq!(area.bytes(), (2 + slots) * LINE_BYTES);
    }
}

#[test]
fn a_peer_is_woken_once_for_each_of_its_sleeps() {
    let line = Memory::area(2);
    let mut sleeper = Sleeper::new(line.part(0..8)).expect("sleeper");
    let mut ringer = Ringer::new(line.part(0..8)).expect("ringer");
    assert!(!ringer.must_wake());
    for _ in 0..3 {
        sleeper.arm();
        assert!(ringer.must_wake());
        assert!(!ringer.must_wake());
        // Armed once more without having been awake: a new sleep.
        sleeper.arm();
        assert!(ringer.must_wake());
        sleeper.disarm();
        assert!(!ringer.must_wake());
        sleeper.disarm();
        assert!(!ringer.must_wake());
    }
}
