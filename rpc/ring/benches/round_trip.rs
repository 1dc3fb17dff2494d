//! The ring's round trip against the raw exchange of two cache lines, between two threads, interleaved in one run.
//!
//! `cargo bench -p vernal-ring --bench round_trip [-- --json] [--rounds N]`. Each round runs every row once, a thousand
//! trips each; a row is the median of its rounds, and the ratio is the median of the ratios to the raw row of the same round.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use vernal_ring::*;

/// Short, so that most rounds run without an interruption.
const TRIPS: u64 = 1000;
const CALL: std::num::NonZeroU8 = std::num::NonZeroU8::MIN;

/// A cache line, alone in its pair.
#[repr(align(128))]
struct Line(AtomicU64);

/// Raw: each thread waits for the other's line, then writes its own.
fn raw(trips: u64) -> Duration {
    let lines = Arc::new((Line(AtomicU64::new(0)), Line(AtomicU64::new(0))));
    let theirs = lines.clone();
    let peer = std::thread::spawn(move || {
        for i in 1.. {
            let mut seen = theirs.0.0.load(Ordering::Acquire);
            while seen != i && seen != STOP {
                seen = theirs.0.0.load(Ordering::Acquire);
            }
            if seen == STOP {
                return;
            }
            theirs.1.0.store(i, Ordering::Release);
        }
    });
    let mut clock = Clock::new(trips);
    for i in 1.. {
        lines.0.0.store(i, Ordering::Release);
        while lines.1.0.load(Ordering::Acquire) != i {}
        if clock.over(i) {
            break;
        }
    }
    lines.0.0.store(STOP, Ordering::Release);
    peer.join().expect("joined");
    clock.per_trip()
}

/// Ends a peer.
const STOP: u64 = u64::MAX;

/// Counts trips after a warm-up, and ends a round whose threads do not get their processors.
struct Clock {
    trips: u64,
    warm: u64,
    begin: Instant,
    start: Instant,
    last: (u64, Instant),
}

impl Clock {
    const LIMIT: Duration = Duration::from_millis(20);

    fn new(trips: u64) -> Clock {
        let now = Instant::now();
        Clock {
            trips,
            warm: 0,
            begin: now,
            start: now,
            last: (0, now),
        }
    }

    /// After trip `i`, counted from 1.
    fn over(&mut self, i: u64) -> bool {
        if i == self.trips / 4 {
            (self.warm, self.start) = (i, Instant::now());
        }
        if i.is_multiple_of(64) || i == self.trips {
            self.last = (i, Instant::now());
            return i >= self.trips || self.last.1 - self.begin > Self::LIMIT;
        }
        false
    }

    fn per_trip(&self) -> Duration {
        (self.last.1 - self.start) / (self.last.0 - self.warm).max(1) as u32
    }
}

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
        let mut pending = self.own.pending.lock().expect("lock");
        while !*pending {
            pending = self.own.changed.wait(pending).expect("lock");
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

/// A block on a condition variable and back, without any ring: what sleeping itself costs here.
fn condvar(trips: u64) -> Duration {
    let events = (Arc::new(Event::default()), Arc::new(Event::default()));
    let mut mine = EventPark {
        own: events.0.clone(),
        peer: events.1.clone(),
    };
    let mut theirs = EventPark {
        own: events.1,
        peer: events.0,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let peer = std::thread::spawn(move || {
        loop {
            let _ = theirs.block(None);
            if stopped.load(Ordering::Acquire) {
                return;
            }
            theirs.wake();
        }
    });
    let mut clock = Clock::new(trips);
    for i in 1.. {
        mine.wake();
        let _ = mine.block(None);
        if clock.over(i) {
            break;
        }
    }
    stop.store(true, Ordering::Release);
    mine.wake();
    peer.join().expect("joined");
    clock.per_trip()
}

/// Memory of one side, at a cache line.
#[derive(Clone)]
struct Memory(Arc<Vec<AtomicU64>>, usize, usize);

impl AsRef<[AtomicU64]> for Memory {
    fn as_ref(&self) -> &[AtomicU64] {
        &self.0[self.1..self.2]
    }
}

fn memory(slots: usize) -> Memory {
    let words = Area::new(slots).words();
    let v: Vec<AtomicU64> = (0..words + 16).map(|_| AtomicU64::new(0)).collect();
    let start = (128 - v.as_ptr() as usize % 128) % 128 / 8;
    Memory(Arc::new(v), start, start + words)
}

type Words = Mapped<Memory>;

fn part(m: &Memory, r: std::ops::Range<usize>) -> Words {
    Mapped::new(Memory(m.0.clone(), m.1 + r.start, m.1 + r.end))
}

fn endpoint(
    own: &Memory,
    peer: &Memory,
    park: EventPark,
    policy: WaitPolicy,
    slots: usize,
) -> Endpoint<Words, Words, EventPark> {
    let a = Area::new(slots);
    Endpoint::new(
        Producer::new(part(own, a.slots()), part(peer, a.line()), slots).expect("producer"),
        Consumer::new(
            part(peer, a.slots()),
            part(own, a.line()),
            part(peer, a.line()),
            slots,
        )
        .expect("consumer"),
        Sleeper::new(part(own, a.line())).expect("sleeper"),
        park,
        policy,
    )
}

/// A call and its reply through two rings, `depth` calls in flight.
fn ring(trips: u64, policy: WaitPolicy, depth: u64) -> Duration {
    let slots = DEFAULT_SLOTS;
    let (a, b) = (memory(slots), memory(slots));
    let (ea, eb) = (Arc::new(Event::default()), Arc::new(Event::default()));
    let park = |own: &Arc<Event>, peer: &Arc<Event>| EventPark {
        own: own.clone(),
        peer: peer.clone(),
    };
    let mut client = endpoint(&a, &b, park(&ea, &eb), policy, slots);
    let mut server = endpoint(&b, &a, park(&eb, &ea), policy, slots);
    let peer = std::thread::spawn(move || {
        loop {
            let Ok(Received::Message(m)) = server.recv(None) else {
                panic!("no call")
            };
            if m.call() == STOP {
                return;
            }
            server.try_send(&m).expect("room for a reply");
        }
    });
    let mut clock = Clock::new(trips);
    let mut sent = 0;
    for i in 1.. {
        while sent < i - 1 + depth {
            sent += 1;
            client
                .try_send(&Message::new(CALL, sent, 1))
                .expect("room for a call");
        }
        let Ok(Received::Message(m)) = client.recv(None) else {
            panic!("no reply")
        };
        assert_eq!(m.call(), i);
        if clock.over(i) {
            break;
        }
    }
    client
        .try_send(&Message::new(CALL, STOP, 1))
        .expect("room for the end");
    peer.join().expect("joined");
    clock.per_trip()
}

type Row = (&'static str, fn() -> Duration);

/// Rows, each with the row that it is compared with.
const ROWS: [(Row, usize); 6] = [
    (("raw two cache lines", || raw(TRIPS)), 0),
    (("ring, spinning", || ring(TRIPS, WaitPolicy::Spin, 1)), 0),
    (
        ("ring, adaptive", || ring(TRIPS, WaitPolicy::Adaptive, 1)),
        0,
    ),
    (
        ("ring, adaptive, 32 in flight", || {
            ring(4 * TRIPS, WaitPolicy::Adaptive, 32)
        }),
        0,
    ),
    (("condition variable", || condvar(TRIPS / 8)), 4),
    (
        ("ring, blocking", || ring(TRIPS / 8, WaitPolicy::Block, 1)),
        4,
    ),
];

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let json = args.iter().any(|a| a == "--json");
    let rounds = args
        .iter()
        .position(|a| a == "--rounds")
        .and_then(|i| args.get(i + 1)?.parse().ok())
        .unwrap_or(101usize);
    let mut times = vec![Vec::new(); ROWS.len()];
    for _ in 0..rounds {
        for (row, times) in ROWS.iter().zip(&mut times) {
            times.push(row.0.1().as_nanos() as f64);
        }
    }
    for (i, ((name, _), base)) in ROWS.iter().enumerate() {
        let mut ratios: Vec<f64> = times[i]
            .iter()
            .zip(&times[*base])
            .map(|(a, b)| a / b)
            .collect();
        let best = times[i].iter().copied().fold(f64::INFINITY, f64::min);
        let (ns, ratio) = (median(&mut times[i].clone()), median(&mut ratios));
        if json {
            println!(
                r#"{{"bench":"ring","row":"{name}","ns":{ns:.1},"best_ns":{best:.1},"ratio":{ratio:.3}}}"#
            );
        } else {
            println!("{name:32} {ns:>10.1} ns  best {best:>8.1} ns  {ratio:>6.2}×");
        }
    }
}
