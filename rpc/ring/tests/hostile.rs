//! A peer that writes anything at any time: a receiver sees well-formed messages or one error that stays, never more.

mod support;

use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering;
use support::*;
use vernal_ring::*;

const SLOTS: usize = 4;

/// A word that is often nearly right, since pure noise is refused at once.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..40u64,
        (0..12u64, any::<u8>(), any::<u8>())
            .prop_map(|(s, k, f)| s << 16 | u64::from(k) << 8 | u64::from(f)),
        (0..40u64, any::<u32>()).prop_map(|(shape, m)| shape << 32 | u64::from(m)),
        any::<u32>().prop_map(|m| 0xff << 32 | u64::from(m)),
        Just(u64::MAX),
        (0..6u64).prop_map(|d| u64::MAX - d),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// The peer writes word `.0` of its memory.
    Write(usize, u64),
    /// The peer sends what an honest one would.
    Honest,
    Send,
    Recv,
    Room,
    Look,
    Wake,
    Sleep,
}

fn op() -> impl Strategy<Value = Op> {
    let words = Area::new(SLOTS).words();
    prop_oneof![
        6 => (0..words, word()).prop_map(|(at, w)| Op::Write(at, w)),
        // The words that decide most: head, sleep word, word 0 and 2 of the slots.
        6 => (prop::sample::select(vec![0, 1, 16, 18, 24, 26, 32, 34, 40, 42]), word()).prop_map(|(at, w)| Op::Write(at, w)),
        4 => Just(Op::Honest),
        5 => Just(Op::Send),
        5 => Just(Op::Recv),
        1 => Just(Op::Room),
        1 => Just(Op::Look),
        1 => Just(Op::Wake),
        1 => Just(Op::Sleep),
    ]
}

fn well_formed(m: &Message) -> bool {
    let shape = match m.body() {
        Body::Inline(i) => i.len() <= INLINE_MAX,
        Body::Object(_) => true,
    };
    // What was accepted can be sent on, and reads the same.
    shape && m.kind() != 0 && format!("{m:?}").starts_with("Message")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_word_at_any_time(ops in prop::collection::vec(op(), 1..80)) {
        let (mine, theirs) = (Memory::area(SLOTS), Memory::area(SLOTS));
        let mut producer = producer(&mine, &theirs, SLOTS, 0);
        let mut consumer = consumer(&mine, &theirs, SLOTS, 0);
        let mut sleeper = Sleeper::new(mine.part(0..8)).expect("sleeper");
        let mut honest = support::producer(&theirs, &mine, SLOTS, 0);
        let (mut closed_in, mut closed_out) = (None, None);
        let (mut sent, mut woken, mut slept) = (0u64, 0u64, 1u64);
        for op in ops {
            match op {
                Op::Write(at, w) => theirs.as_ref()[at].store(w, Ordering::Relaxed),
                Op::Honest => drop(honest.try_send(&message(1))),
                Op::Send => match producer.try_send(&message(sent)) {
                    Ok(()) => {
                        prop_assert_eq!(closed_out, None);
                        sent += 1;
                    }
                    Err(SendError::Full { .. }) => prop_assert_eq!(closed_out, None),
                    Err(SendError::Corrupt(e)) => {
                        prop_assert!(closed_out.is_none_or(|before| before == e));
                        closed_out = Some(e);
                    }
                    Err(e) => prop_assert!(false, "{e}"),
                },
                Op::Recv => match consumer.try_recv() {
                    Ok(m) => {
                        prop_assert_eq!(closed_in, None);
                        prop_assert!(m.is_none_or(|m| well_formed(&m)));
                    }
                    Err(e) => {
                        prop_assert!(closed_in.is_none_or(|before| before == e));
                        closed_in = Some(e);
                    }
                },
                Op::Room => if let Err(e) = producer.has_room() {
                    prop_assert!(closed_out.is_none_or(|before| before == e));
                    closed_out = Some(e);
                },
                Op::Look => if let Err(e) = consumer.has_message() {
                    prop_assert!(closed_in.is_none_or(|before| before == e));
                    closed_in = Some(e);
                },
                Op::Wake => {
                    woken += u64::from(producer.must_wake());
                    let _ = consumer.must_wake();
                }
                Op::Sleep => {
                    sleeper.arm();
                    sleeper.disarm();
                    slept += 1;
                }
            }
            // No claim of the peer makes this side overwrite what it has not been told was read.
            prop_assert!(producer.in_flight() <= SLOTS as u64);
        }
        prop_assert!(woken <= sent + slept + 80);
    }
}

/// Memory that shows another value at each read, and counts the reads of each word.
struct Flipping {
    count: usize,
    next: Cell<u64>,
    reads: RefCell<Vec<u32>>,
    /// What the first read of a word shows.
    first: RefCell<Vec<u64>>,
}

impl PeerWords for &Flipping {
    fn count(&self) -> usize {
        self.count
    }
    fn load(&self, word: usize) -> u64 {
        self.reads.borrow_mut()[word] += 1;
        let shown = self.first.borrow()[word];
        let noise = self
            .next
            .get()
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        self.next.set(noise);
        self.first.borrow_mut()[word] = noise;
        shown
    }
    fn acquire(&self) {}
    fn invalidate(&self, _: usize) {}
    fn full_fence(&self) {}
}

#[test]
fn each_word_is_read_once() {
    for seed in 0..200 {
        let flipping = |words: usize| Flipping {
            count: words,
            next: Cell::new(seed),
            reads: RefCell::new(vec![0; words]),
            first: RefCell::new(vec![0; words]),
        };
        let (slots, line, mine) = (
            flipping(SLOTS * LINE_WORDS),
            flipping(LINE_WORDS),
            Memory::area(SLOTS),
        );
        let mut consumer = Consumer::new(&slots, mine.part(0..8), &line, SLOTS).expect("consumer");
        for n in 0..SLOTS {
            let sound = [(n as u64 + 1) << 16 | 0x105, 1, 32 << 32 | 2, 3, 4, 5, 6, 7];
            slots.first.borrow_mut()[n * 8..][..8].copy_from_slice(&sound);
            let m = consumer.try_recv().expect("sound").expect("a message");
            // The decision and the message come from the same read.
            assert_eq!(
                (m.kind(), m.flags(), m.call(), m.method(), m.deadline()),
                (1, 5, 1, 2, 5)
            );
            assert_eq!(slots.reads.borrow()[n * 8..][..8], [1; 8]);
        }
    }
}

#[test]
fn credits_cannot_go_back_or_ahead() {
    for (heads, good) in [
        (vec![4, 9], false),
        (vec![4, 5], true),
        (vec![4, 3], false),
        (vec![u64::MAX], false),
        (vec![1 << 63], false),
        (vec![5], false),
        (vec![0], true),
        (vec![2, 2], true),
        (vec![1, 4], true),
    ] {
        let (mine, theirs) = (Memory::area(SLOTS), Memory::area(SLOTS));
        let mut producer = producer(&mine, &theirs, SLOTS, 0);
        for i in 0..4 {
            producer.try_send(&message(i)).expect("room");
        }
        let mut ok = true;
        for &head in &heads {
            theirs.as_ref()[0].store(head, Ordering::Relaxed);
            // Until the credits are used up the peer's head is not even read.
            while ok {
                match producer.try_send(&message(9)) {
                    Ok(()) => {}
                    Err(SendError::Full { .. }) => break,
                    Err(_) => ok = false,
                }
            }
        }
        assert_eq!(ok, good, "{heads:?}");
    }
}

/// Each slot word 0 that is not exactly the last or the next message ends the ring.
#[test]
fn only_two_sequences_are_possible() {
    for lap in 0..3u64 {
        for off in -9..=9i64 {
            let (mine, theirs) = (Memory::area(SLOTS), Memory::area(SLOTS));
            let mut consumer = consumer(&mine, &theirs, SLOTS, 0);
            let mut honest = producer(&theirs, &mine, SLOTS, 0);
            for i in 0..lap * SLOTS as u64 {
                honest.try_send(&message(i)).expect("room");
                assert!(consumer.try_recv().expect("sound").is_some());
            }
            let next = (lap * SLOTS as u64 + 1).wrapping_add_signed(off);
            theirs.as_ref()[16].store(next << 16 | 0x100, Ordering::Relaxed);
            let got = consumer.try_recv();
            match off {
                0 => assert!(matches!(got, Ok(Some(_)))),
                -4 if lap > 0 => assert_eq!(got, Ok(None)),
                _ => assert!(
                    matches!(got, Err(Corrupt::Sequence { slot: 0, .. })),
                    "lap {lap} off {off}: {got:?}"
                ),
            }
        }
    }
}
