//! The ring of bytes against a model, and against peers that lie.

mod support;

use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use support::Memory;
use vernal_ring::*;

type Words = Mapped<Memory>;

struct Direction {
    area: StreamArea,
    writer: Memory,
    reader: Memory,
    producer: StreamProducer<Words, Words>,
    consumer: StreamConsumer<Words, Words>,
}

fn direction(capacity: usize, first: u64) -> Direction {
    let area = StreamArea::new(capacity).expect("capacity");
    let (writer, reader) = (Memory::zeroed(area.words()), Memory::zeroed(area.words()));
    let producer = StreamProducer::starting_at(
        area,
        writer.part(area.data()),
        writer.part(area.writer()),
        reader.part(area.reader()),
        first,
    );
    let consumer = StreamConsumer::starting_at(
        area,
        writer.part(area.data()),
        reader.part(area.reader()),
        writer.part(area.writer()),
        first,
    );
    Direction {
        area,
        producer: producer.expect("producer"),
        consumer: consumer.expect("consumer"),
        writer,
        reader,
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write(usize),
    Read(usize),
    Peek(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..200_usize).prop_map(Op::Write),
        (0..200_usize).prop_map(Op::Read),
        (0..64_usize, 0..200_usize).prop_map(|(skip, len)| Op::Peek(skip, len)),
    ]
}

proptest! {
    #[test]
    fn it_does_what_a_queue_does(
        shift in 6..9_u32,
        first in prop_oneof![Just(0), Just(0_u64.wrapping_sub(64))],
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut ring = direction(1 << shift, first);
        let mut model = VecDeque::new();
        let mut next = 0_u8;
        for op in ops {
            match op {
                Op::Write(len) => {
                    let bytes: Vec<u8> = (0..len).map(|i| next.wrapping_add(i as u8)).collect();
                    let n = ring.producer.write(&bytes).expect("honest peer");
                    ring.producer.publish();
                    model.extend(&bytes[..n]);
                    next = next.wrapping_add(n as u8);
                    prop_assert!(model.len() <= 1 << shift);
                    // What is refused is refused for want of room only: credits lag by a quarter at most.
                    prop_assert!(n == len || model.len() + (1 << shift) / 4 + 8 > 1 << shift);
                }
                Op::Read(len) => {
                    let mut bytes = vec![0; len];
                    let n = ring.consumer.read(&mut bytes).expect("honest peer");
                    prop_assert_eq!(n, len.min(model.len()));
                    let expected: Vec<u8> = model.drain(..n).collect();
                    prop_assert_eq!(&bytes[..n], expected);
                }
                Op::Peek(skip, len) => {
                    let mut bytes = vec![0; len];
                    let n = ring.consumer.peek(skip, &mut bytes).expect("honest peer");
                    let expected: Vec<u8> = model.iter().skip(skip).take(len).copied().collect();
                    prop_assert_eq!(&bytes[..n], expected);
                }
            }
            ring.consumer.refresh().expect("honest peer");
            prop_assert_eq!(ring.consumer.available().expect("honest peer"), model.len());
        }
    }

    /// Whatever stands in the peer's memory: an error that stays, or a count within the ring; never a panic.
    #[test]
    fn any_words_of_the_peer(
        words in prop::collection::vec((0..64_usize, prop_oneof![any::<u64>(), 0..200_u64]), 1..100),
    ) {
        let mut ring = direction(64, 0);
        for (i, (at, value)) in words.into_iter().enumerate() {
            if let Some(word) = ring.writer.as_ref().get(at) {
                word.store(value, Ordering::Relaxed);
            }
            let mut buffer = [0; 100];
            if i % 3 == 0 {
                prop_assert!(ring.consumer.read(&mut buffer).unwrap_or(0) <= 64);
            }
            prop_assert!(ring.consumer.available().unwrap_or(0) <= 64);
            if let Some(word) = ring.reader.as_ref().get(at % 8) {
                word.store(value, Ordering::Relaxed);
            }
            prop_assert!(ring.producer.write(&buffer).unwrap_or(0) <= 64);
            prop_assert!(ring.producer.room().unwrap_or(0) <= 64);
        }
    }
}

fn set(memory: &Memory, word: usize, value: u64) {
    let word: &AtomicU64 = &memory.as_ref()[word];
    word.store(value, Ordering::Relaxed);
}

#[test]
fn a_tail_cannot_go_back_or_run_ahead() {
    for bad in [64 + 1, 9, u64::MAX, 1 << 63] {
        let mut ring = direction(64, 0);
        assert_eq!(ring.producer.write(&[7; 10]), Ok(10));
        ring.producer.publish();
        assert_eq!(ring.consumer.available(), Ok(10));
        set(&ring.writer, ring.area.writer().start, bad);
        let mut buffer = [0; 64];
        let error = ring.consumer.read(&mut buffer).expect_err("a lie");
        assert!(
            matches!(error, Corrupt::Tail { found, .. } if found == bad),
            "{error}"
        );
        // It stays broken when the peer mends it.
        set(&ring.writer, ring.area.writer().start, 10);
        assert_eq!(ring.consumer.available(), Err(error));
    }
}

#[test]
fn a_head_cannot_go_back_or_run_ahead() {
    for bad in [65, u64::MAX, 1 << 63] {
        let mut ring = direction(64, 0);
        assert_eq!(ring.producer.write(&[7; 64]), Ok(64));
        ring.producer.publish();
        set(&ring.reader, ring.area.reader().start, bad);
        let error = ring.producer.write(&[1]).expect_err("a lie");
        assert!(
            matches!(error, Corrupt::Credits { found, .. } if found == bad),
            "{error}"
        );
        set(&ring.reader, ring.area.reader().start, 64);
        assert_eq!(ring.producer.room(), Err(error));
    }
}

#[test]
fn capacities_are_powers_of_two() {
    for bad in [0, 1, 32, 65, 100, 1 << 31, usize::MAX] {
        assert!(StreamArea::new(bad).is_err(), "{bad}");
    }
    let area = StreamArea::new(64).expect("capacity");
    let short = Memory::zeroed(area.words() - 1);
    let made = StreamProducer::new(
        area,
        short.part(area.data().start..area.words() - 1),
        short.part(area.writer()),
        short.part(area.reader()),
    );
    assert!(matches!(made, Err(RingError::Words { .. })));
}
