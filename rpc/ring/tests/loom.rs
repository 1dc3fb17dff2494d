//! The protocol under loom: every interleaving of two threads and every stale read that the memory model allows. Each planted
//! bug (a missing fence, a missing second look, a relaxed publication, …) must be found, which shows that the models can see.

use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::sync::{Condvar, Mutex};
use std::num::NonZeroU8;
use std::ops::ControlFlow;
// Not loom's: that one asks for its model when it is dropped, which a failing model no longer has.
use std::sync::Arc;
use std::time::Instant;
use vernal_ring::*;

const KIND: NonZeroU8 = NonZeroU8::MIN;
const SLOTS: usize = 2;

/// A step that the planted bug leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Omit {
    Nothing,
    /// The release of a published word.
    Release,
    /// The acquisition of what a read word publishes.
    Acquire,
    /// The sleeper's fence between announcement and second look.
    SleeperFence,
    /// The ringer's fence between publication and look at the sleep word.
    RingerFence,
}

/// One side's area, in loom's memory.
#[derive(Clone)]
struct Words {
    words: Arc<Vec<AtomicU64>>,
    start: usize,
    count: usize,
    omit: Omit,
}

impl Words {
    fn area(omit: Omit) -> Words {
        let words: Vec<_> = (0..Area::new(SLOTS).words())
            .map(|_| AtomicU64::new(0))
            .collect();
        Words {
            count: words.len(),
            words: Arc::new(words),
            start: 0,
            omit,
        }
    }

    fn part(&self, range: std::ops::Range<usize>) -> Words {
        Words {
            start: range.start,
            count: range.len(),
            ..self.clone()
        }
    }

    fn line(&self) -> Words {
        self.part(Area::new(SLOTS).line())
    }

    fn slots(&self) -> Words {
        self.part(Area::new(SLOTS).slots())
    }
}

impl OwnWords for Words {
    fn count(&self) -> usize {
        self.count
    }
    fn store(&self, word: usize, value: u64) {
        self.words[self.start + word].store(value, Ordering::Relaxed);
    }
    fn publish(&self, word: usize, value: u64) {
        let order = if self.omit == Omit::Release {
            Ordering::Relaxed
        } else {
            Ordering::Release
        };
        self.words[self.start + word].store(value, order);
    }
    fn bump(&self, word: usize) {
        self.words[self.start + word].fetch_add(1, Ordering::Release);
    }
    fn write_back(&self, _: usize) {}
    fn full_fence(&self) {
        if self.omit != Omit::SleeperFence {
            fence(Ordering::SeqCst);
        }
    }
}

impl PeerWords for Words {
    fn count(&self) -> usize {
        self.count
    }
    fn load(&self, word: usize) -> u64 {
        self.words[self.start + word].load(Ordering::Relaxed)
    }
    fn acquire(&self) {
        if self.omit != Omit::Acquire {
            fence(Ordering::Acquire);
        }
    }
    fn invalidate(&self, _: usize) {}
    fn full_fence(&self) {
        if self.omit != Omit::RingerFence {
            fence(Ordering::SeqCst);
        }
    }
}

/// What an eventfd does: a wake-up stays until it is taken.
#[derive(Default)]
struct Event {
    pending: Mutex<bool>,
    changed: Condvar,
}

struct EventPark {
    own: Arc<Event>,
    peer: Arc<Event>,
}

impl Park for EventPark {
    type Stop = ();
    fn block(&mut self, _: Option<Instant>) -> ControlFlow<()> {
        let mut pending = self.own.pending.lock().unwrap();
        while !*pending {
            // A lost wake-up is a deadlock here, which loom reports.
            pending = self.own.changed.wait(pending).unwrap();
        }
        *pending = false;
        ControlFlow::Continue(())
    }
    fn check(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    fn wake(&mut self) {
        *self.peer.pending.lock().unwrap() = true;
        self.peer.changed.notify_one();
    }
}

type Side = Endpoint<Words, Words, EventPark>;

fn sides(omit: Omit, first: u64) -> (Side, Side) {
    let (a, b) = (Words::area(omit), Words::area(omit));
    let (ea, eb) = (Arc::new(Event::default()), Arc::new(Event::default()));
    let side = |own: &Words, peer: &Words, own_event: &Arc<Event>, peer_event: &Arc<Event>| {
        Endpoint::new(
            Producer::starting_at(own.slots(), peer.line(), SLOTS, first).unwrap(),
            Consumer::starting_at(peer.slots(), own.line(), peer.line(), SLOTS, first).unwrap(),
            Sleeper::new(own.line()).unwrap(),
            EventPark {
                own: own_event.clone(),
                peer: peer_event.clone(),
            },
            WaitPolicy::Block,
        )
    };
    (side(&a, &b, &ea, &eb), side(&b, &a, &eb, &ea))
}

fn message(call: u64) -> Message {
    let object = ObjectRef {
        address: call * 3,
        type_id: call * 5,
        extra: [call * 7, call * 11],
    };
    Message::new(KIND, call, call as u32)
        .with_deadline(!call)
        .with_object(object)
}

fn model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(f);
}

/// The model must fail, and for the right reason.
fn must_fail(why: &str, f: impl Fn() + Sync + Send + 'static) {
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| model(3, f)));
    let panic = found.expect_err("the model does not see the planted bug");
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text
        .or(panic.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    assert!(
        text.contains(why),
        "the model fails with {text:?}, not with {why:?}"
    );
}

/// How loom reports that all threads wait.
const FOR_EVER: &str = "deadlock";
/// How an assertion reports a message with words that were not yet there.
const STALE: &str = "left == right";

/// One side sends more than the ring holds and sleeps for credits, the other sleeps for messages.
fn stream(omit: Omit, first: u64, total: u64) {
    let (mut a, mut b) = sides(omit, first);
    let sender = loom::thread::spawn(move || {
        for call in 1..=total {
            while let Err(e) = a.try_send(&message(call)) {
                assert_eq!(
                    e,
                    SendError::Full {
                        slots: SLOTS as u64
                    }
                );
                assert_eq!(a.wait_room(None), Ok(None));
            }
        }
    });
    for call in 1..=total {
        // Order, content, no loss, no second delivery.
        assert_eq!(b.recv(None), Ok(Received::Message(message(call))));
    }
    assert_eq!(b.try_recv(), Ok(None));
    sender.join().unwrap();
}

/// A call and its reply, both sides asleep in between.
fn round_trip(omit: Omit) {
    let (mut a, mut b) = sides(omit, 0);
    let server = loom::thread::spawn(move || {
        let Ok(Received::Message(m)) = b.recv(None) else {
            panic!("no call")
        };
        assert_eq!(m, message(1));
        b.try_send(&message(2)).unwrap();
    });
    a.try_send(&message(1)).unwrap();
    assert_eq!(a.recv(None), Ok(Received::Message(message(2))));
    server.join().unwrap();
}

#[test]
fn nothing_is_lost_and_nobody_sleeps_for_ever() {
    model(2, || stream(Omit::Nothing, 0, 3));
}

#[test]
fn the_same_when_sequences_wrap() {
    model(2, || stream(Omit::Nothing, (1 << 48) - 2, 3));
}

#[test]
fn a_call_and_its_reply() {
    model(3, || round_trip(Omit::Nothing));
}

/// Looking without sleeping: the slots alone order what is read.
fn poll_only(omit: Omit) {
    let (mut a, mut b) = sides(omit, 0);
    let sender = loom::thread::spawn(move || {
        a.producer.try_send(&message(1)).unwrap();
        a.producer.try_send(&message(2)).unwrap();
    });
    let mut next = 1;
    for _ in 0..3 {
        if let Some(m) = b.consumer.try_recv().unwrap() {
            assert_eq!(m, message(next));
            next += 1;
        }
        loom::thread::yield_now();
    }
    sender.join().unwrap();
}

#[test]
fn slots_alone_order_what_is_read() {
    model(3, || poll_only(Omit::Nothing));
}

#[test]
fn a_relaxed_publication_is_found() {
    must_fail(STALE, || poll_only(Omit::Release));
}

#[test]
fn a_missing_acquire_is_found() {
    must_fail(STALE, || poll_only(Omit::Acquire));
}

#[test]
fn a_missing_fence_of_the_sleeper_is_found() {
    must_fail(FOR_EVER, || round_trip(Omit::SleeperFence));
}

#[test]
fn a_missing_fence_of_the_ringer_is_found() {
    must_fail(FOR_EVER, || round_trip(Omit::RingerFence));
}

/// Waits by the steps of a poller over many rings; `second_look` and `before_arm` are where pollers go wrong.
fn poller(second_look: bool) {
    let (mut a, mut b) = sides(Omit::Nothing, 0);
    let sender = loom::thread::spawn(move || a.try_send(&message(1)).unwrap());
    let mut got = b.try_recv().unwrap();
    while got.is_none() {
        b.sleeper.arm();
        if !(second_look && b.consumer.has_message().unwrap()) {
            assert_eq!(b.park.block(None), ControlFlow::Continue(()));
        }
        b.sleeper.disarm();
        got = b.try_recv().unwrap();
    }
    assert_eq!(got, Some(message(1)));
    sender.join().unwrap();
}

#[test]
fn a_poller_that_looks_twice_misses_nothing() {
    model(3, || poller(true));
}

#[test]
fn a_missing_second_look_is_found() {
    must_fail(FOR_EVER, || poller(false));
}

/// What the kernel does for a futex: it compares the word and queues the waiter in one step, under a lock that wakers take.
#[derive(Default)]
struct Futex {
    queue: Mutex<()>,
    woken: Condvar,
}

/// Where a side that sleeps on a bell goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnBell {
    Right,
    /// The bell is read after the announcement.
    ReadLate,
    /// Nobody looks again between the announcement and the block.
    NoSecondLook,
    /// The peer wakes without ringing first.
    NotRung,
}

/// One side sleeps on the other's bell, in the other's line.
fn on_bell(bug: OnBell, omit: Omit) {
    let (a, b) = (Words::area(omit), Words::area(omit));
    let futex = Arc::new(Futex::default());
    let mut producer = Producer::new(a.slots(), b.line(), SLOTS).unwrap();
    let bell = Bell::new(a.line()).unwrap();
    let theirs = futex.clone();
    let sender = loom::thread::spawn(move || {
        for call in 1..=2 {
            producer.try_send(&message(call)).unwrap();
            if producer.must_wake() {
                assert!(producer.on_bell());
                if bug != OnBell::NotRung {
                    bell.ring();
                }
                drop(theirs.queue.lock().unwrap());
                theirs.woken.notify_all();
            }
        }
    });
    let mut consumer = Consumer::new(a.slots(), b.line(), a.line(), SLOTS).unwrap();
    let mut sleeper = Sleeper::new(b.line()).unwrap();
    let word = a.line();
    for call in 1..=2 {
        let got = loop {
            if let Some(got) = consumer.try_recv().unwrap() {
                break got;
            }
            let mut heard = consumer.bell();
            sleeper.arm_for_bell();
            if bug == OnBell::ReadLate {
                heard = consumer.bell();
            }
            if bug == OnBell::NoSecondLook || !consumer.has_message().unwrap() {
                let queue = futex.queue.lock().unwrap();
                if PeerWords::load(&word, BELL) == heard {
                    // Once: the kernel, too, may wake for nothing.
                    drop(futex.woken.wait(queue).unwrap());
                }
            }
            sleeper.disarm();
        };
        assert_eq!(got, message(call));
    }
    sender.join().unwrap();
}

#[test]
fn who_sleeps_on_a_bell_is_woken() {
    model(3, || on_bell(OnBell::Right, Omit::Nothing));
}

#[test]
fn what_goes_wrong_with_a_bell_is_found() {
    must_fail(FOR_EVER, || on_bell(OnBell::ReadLate, Omit::Nothing));
    must_fail(FOR_EVER, || on_bell(OnBell::NoSecondLook, Omit::Nothing));
    must_fail(FOR_EVER, || on_bell(OnBell::NotRung, Omit::Nothing));
    must_fail(FOR_EVER, || on_bell(OnBell::Right, Omit::SleeperFence));
    must_fail(FOR_EVER, || on_bell(OnBell::Right, Omit::RingerFence));
}

/// Credits that come while the producer goes to sleep for them, without the fence on either side.
#[test]
fn lost_credits_are_found() {
    must_fail(FOR_EVER, || stream(Omit::RingerFence, 0, 3));
    must_fail(FOR_EVER, || stream(Omit::SleeperFence, 0, 3));
}

/// Bytes of a ring of bytes in these models, and how many the writer sends: more than fit.
const CAPACITY: usize = 64;

type ByteSides = (
    StreamProducer<Words, Words>,
    Sleeper<Words>,
    StreamConsumer<Words, Words>,
    Sleeper<Words>,
);

/// One direction: what writes with its sleeper (for room), what reads with its sleeper (for bytes).
fn byte_sides(omit: Omit, first: u64) -> ByteSides {
    let area = StreamArea::new(CAPACITY).unwrap();
    let side = || Words {
        words: Arc::new((0..area.words()).map(|_| AtomicU64::new(0)).collect()),
        start: 0,
        count: area.words(),
        omit,
    };
    let (a, b) = (side(), side());
    let (data, writer, reader) = (
        a.part(area.data()),
        a.part(area.writer()),
        b.part(area.reader()),
    );
    (
        StreamProducer::starting_at(area, data.clone(), writer.clone(), reader.clone(), first)
            .unwrap(),
        Sleeper::new(writer.clone()).unwrap(),
        StreamConsumer::starting_at(area, data, reader.clone(), writer, first).unwrap(),
        Sleeper::new(reader).unwrap(),
    )
}

/// Writes `chunks` of bytes that count up; the ring is smaller than all of them; both sides sleep when they have to.
fn bytes(omit: Omit, first: u64, chunks: &'static [usize]) {
    let (mut producer, mut room, mut consumer, mut news) = byte_sides(omit, first);
    let (mut ours, mut theirs) = {
        let (own, peer) = (Arc::new(Event::default()), Arc::new(Event::default()));
        let other = EventPark {
            own: peer.clone(),
            peer: own.clone(),
        };
        (EventPark { own, peer }, other)
    };
    let total: usize = chunks.iter().sum();
    let writer = loom::thread::spawn(move || {
        let mut next = 0;
        for &len in chunks {
            let chunk: Vec<u8> = (next..next + len).map(|n| n as u8).collect();
            let mut done = 0;
            while done < len {
                let n = producer.write(&chunk[done..]).unwrap();
                done += n;
                if n > 0 {
                    producer.publish();
                    if producer.must_wake() {
                        ours.wake();
                    }
                    continue;
                }
                room.arm();
                if producer.room().unwrap() == 0 {
                    assert_eq!(ours.block(None), ControlFlow::Continue(()));
                }
                room.disarm();
            }
            next += len;
        }
    });
    let mut next = 0;
    while next < total {
        let mut buffer = [0; CAPACITY];
        let n = consumer.read(&mut buffer).unwrap();
        if consumer.must_wake() {
            theirs.wake();
        }
        let expected: Vec<u8> = (next..next + n).map(|n| n as u8).collect();
        assert_eq!(buffer[..n], expected);
        next += n;
        if n == 0 {
            consumer.give_credits();
            if consumer.must_wake() {
                theirs.wake();
            }
            news.arm();
            if consumer.available().unwrap() == 0 {
                assert_eq!(theirs.block(None), ControlFlow::Continue(()));
            }
            news.disarm();
        }
    }
    writer.join().unwrap();
}

#[test]
fn bytes_arrive_in_order_and_nobody_sleeps_for_ever() {
    model(2, || bytes(Omit::Nothing, 0, &[5, 11]));
    model(2, || bytes(Omit::Nothing, 0, &[61, 19]));
    model(2, || {
        bytes(Omit::Nothing, 0_u64.wrapping_sub(16), &[60, 13])
    });
}

#[test]
fn planted_bugs_in_a_ring_of_bytes_are_found() {
    must_fail(STALE, || bytes(Omit::Release, 0, &[3]));
    must_fail(STALE, || bytes(Omit::Acquire, 0, &[3]));
    must_fail(FOR_EVER, || bytes(Omit::SleeperFence, 0, &[3]));
    must_fail(FOR_EVER, || bytes(Omit::RingerFence, 0, &[3]));
    must_fail(FOR_EVER, || bytes(Omit::RingerFence, 0, &[61, 19]));
}
