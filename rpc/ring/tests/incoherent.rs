//! Two sides without a coherent cache: each sees its own copies of lines until it invalidates them, and its stores reach memory
//! only when they are written back or a line falls out of the cache. Each write-back and each invalidation that is left out
//! must be noticed.
//!
//! Two threads take turns; a seed decides after each access who goes on, so that every run can be repeated.

mod support;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;
use support::message;
use vernal_ring::*;

const SLOTS: usize = 4;
const MESSAGES: u64 = 40;
/// Far more than a sound run takes.
const MAX_ACCESSES: u64 = 400_000;

/// A part of the code, and with it the cache instruction that is left out there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    SlotsOfProducer,
    PeerLineOfProducer,
    SlotsOfConsumer,
    LineOfConsumer,
    PeerLineOfConsumer,
    LineOfSleeper,
}

type Line = [u64; LINE_WORDS];

#[derive(Default)]
struct Cache {
    lines: HashMap<usize, (Line, bool)>,
}

struct State {
    memory: Vec<Line>,
    caches: [Cache; 2],
    turn: usize,
    rng: u64,
    /// One in so many accesses hands over to the other side: few, and a side runs until the ring is full or empty.
    switch: u64,
    /// One in so many accesses throws a line out of a cache; 0: never.
    evict: u64,
    asleep: [bool; 2],
    woken: [bool; 2],
    done: [bool; 2],
    accesses: u64,
    failed: Option<&'static str>,
}

struct Machine {
    state: Mutex<State>,
    changed: Condvar,
}

impl State {
    fn random(&mut self, n: u64) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        self.rng % n
    }

    fn line(&mut self, side: usize, line: usize) -> &mut (Line, bool) {
        let fresh = self.memory[line];
        self.caches[side]
            .lines
            .entry(line)
            .or_insert((fresh, false))
    }

    fn write_back(&mut self, side: usize, line: usize) {
        if let Some((data, dirty)) = self.caches[side].lines.get_mut(&line)
            && std::mem::take(dirty)
        {
            self.memory[line] = *data;
        }
    }

    fn drop_line(&mut self, side: usize, line: usize) {
        self.write_back(side, line);
        self.caches[side].lines.remove(&line);
    }

    fn maybe_evict(&mut self) {
        if self.evict == 0 || self.random(self.evict) != 0 {
            return;
        }
        let side = self.random(2) as usize;
        let line = self.random(self.memory.len() as u64) as usize;
        self.drop_line(side, line);
    }

    fn runnable(&self, side: usize) -> bool {
        !self.done[side] && (!self.asleep[side] || self.woken[side])
    }

    /// Chooses who goes on.
    fn pass(&mut self) {
        let switch = self.random(self.switch) == 0;
        let preferred = if switch { 1 - self.turn } else { self.turn };
        match [preferred, 1 - preferred]
            .into_iter()
            .find(|&s| self.runnable(s))
        {
            Some(side) => self.turn = side,
            None if self.done == [true, true] => {}
            None => self.failed = Some("both sides sleep"),
        }
    }
}

impl Machine {
    fn new(seed: u64, switch: u64, evict: u64) -> Arc<Machine> {
        let lines = 2 * Area::new(SLOTS).words() / LINE_WORDS;
        Arc::new(Machine {
            state: Mutex::new(State {
                memory: vec![[0; LINE_WORDS]; lines],
                caches: Default::default(),
                turn: 0,
                rng: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
                switch,
                evict,
                asleep: [false; 2],
                woken: [false; 2],
                done: [false; 2],
                accesses: 0,
                failed: None,
            }),
            changed: Condvar::new(),
        })
    }

    /// Waits for this side's turn. A failed run ends both threads.
    fn turn(&self, side: usize) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        while state.turn != side && state.failed.is_none() {
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        state.accesses += 1;
        if state.accesses > MAX_ACCESSES {
            state.failed = Some("no end");
        }
        if let Some(why) = state.failed {
            self.changed.notify_all();
            drop(state);
            std::panic::resume_unwind(Box::new(why));
        }
        state
    }

    fn access<T>(&self, side: usize, f: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.turn(side);
        let value = f(&mut state);
        state.maybe_evict();
        state.pass();
        drop(state);
        self.changed.notify_all();
        value
    }
}

/// Words of one side's area, as one side sees them.
#[derive(Clone)]
struct Words {
    machine: Arc<Machine>,
    side: usize,
    start: usize,
    count: usize,
    omit: bool,
}

impl Words {
    fn at(&self, word: usize) -> (usize, usize) {
        let word = self.start + word;
        (word / LINE_WORDS, word % LINE_WORDS)
    }

    fn put(&self, word: usize, value: u64) {
        let (line, word) = self.at(word);
        self.machine.access(self.side, |s| {
            let (data, dirty) = s.line(self.side, line);
            data[word] = value;
            *dirty = true;
        });
    }
}

impl OwnWords for Words {
    fn count(&self) -> usize {
        self.count
    }
    fn store(&self, word: usize, value: u64) {
        self.put(word, value);
    }
    fn publish(&self, word: usize, value: u64) {
        self.put(word, value);
    }
    fn bump(&self, word: usize) {
        let (line, at) = self.at(word);
        let old = (self.machine).access(self.side, |s| s.line(self.side, line).0[at]);
        self.put(word, old + 1);
    }
    fn write_back(&self, word: usize) {
        if !self.omit {
            let (line, _) = self.at(word);
            self.machine
                .access(self.side, |s| s.write_back(self.side, line));
        }
    }
    fn full_fence(&self) {}
}

impl PeerWords for Words {
    fn count(&self) -> usize {
        self.count
    }
    fn load(&self, word: usize) -> u64 {
        let (line, word) = self.at(word);
        self.machine
            .access(self.side, |s| s.line(self.side, line).0[word])
    }
    fn acquire(&self) {}
    fn invalidate(&self, word: usize) {
        if !self.omit {
            let (line, _) = self.at(word);
            self.machine
                .access(self.side, |s| s.drop_line(self.side, line));
        }
    }
    fn full_fence(&self) {}
}

struct SimPark {
    machine: Arc<Machine>,
    side: usize,
}

impl Park for SimPark {
    type Stop = ();
    fn block(&mut self, _: Option<Instant>) -> ControlFlow<()> {
        let side = self.side;
        self.machine.access(side, |s| s.asleep[side] = true);
        // The next turn comes only when this side was woken.
        self.machine.access(side, |s| {
            s.asleep[side] = false;
            s.woken[side] = false;
        });
        ControlFlow::Continue(())
    }
    fn check(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    fn wake(&mut self) {
        self.machine
            .access(self.side, |s| s.woken[1 - self.side] = true);
    }
}

type Side = Endpoint<Words, Words, SimPark>;

fn side(machine: &Arc<Machine>, side: usize, omit: Option<Part>) -> Side {
    let area = Area::new(SLOTS);
    let words = |owner: usize, range: std::ops::Range<usize>, part: Part| Words {
        machine: machine.clone(),
        side,
        start: owner * area.words() + range.start,
        count: range.len(),
        omit: omit == Some(part),
    };
    let (own, peer) = (side, 1 - side);
    Endpoint::new(
        Producer::new(
            words(own, area.slots(), Part::SlotsOfProducer),
            words(peer, area.line(), Part::PeerLineOfProducer),
            SLOTS,
        )
        .expect("producer"),
        Consumer::new(
            words(peer, area.slots(), Part::SlotsOfConsumer),
            words(own, area.line(), Part::LineOfConsumer),
            words(peer, area.line(), Part::PeerLineOfConsumer),
            SLOTS,
        )
        .expect("consumer"),
        Sleeper::new(words(own, area.line(), Part::LineOfSleeper)).expect("sleeper"),
        SimPark {
            machine: machine.clone(),
            side,
        },
        WaitPolicy::Block,
    )
}

/// One run: a stream that fills the ring again and again, then calls and replies.
fn run(seed: u64, switch: u64, evict: u64, omit: Option<Part>) -> Result<(), String> {
    let machine = Machine::new(seed, switch, evict);
    let work = |n: usize| {
        let mut side = side(&machine, n, omit);
        if n == 0 {
            for i in 0..MESSAGES {
                while let Err(e) = side.try_send(&message(i)) {
                    assert!(matches!(e, SendError::Full { .. }), "{e}");
                    assert_eq!(side.wait_room(None), Ok(None));
                }
            }
            for i in 0..MESSAGES {
                assert_eq!(side.recv(None), Ok(Received::Message(message(!i))));
                side.try_send(&message(i)).expect("room");
            }
        } else {
            for i in 0..MESSAGES {
                assert_eq!(side.recv(None), Ok(Received::Message(message(i))));
            }
            for i in 0..MESSAGES {
                side.try_send(&message(!i)).expect("room");
                assert_eq!(side.recv(None), Ok(Received::Message(message(i))));
            }
        }
    };
    let guarded = |n: usize| {
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| work(n)));
        let mut state = machine.state.lock().unwrap_or_else(|e| e.into_inner());
        state.done[n] = true;
        if result.is_err() && state.failed.is_none() {
            state.failed = Some("wrong message or error");
        }
        if state.turn == n && state.failed.is_none() {
            state.pass();
        }
        machine.changed.notify_all();
    };
    std::thread::scope(|s| {
        s.spawn(|| guarded(1));
        guarded(0);
    });
    let state = machine.state.lock().unwrap_or_else(|e| e.into_inner());
    state.failed.map_or(Ok(()), |why| {
        Err(format!(
            "seed {seed}, switch {switch}, evict {evict}, without {omit:?}: {why}"
        ))
    })
}

#[test]
fn nothing_is_lost_without_coherence() {
    for seed in 0..8 {
        for (switch, evict) in [(2, 0), (2, 50), (3, 5), (400, 0), (400, 20)] {
            if let Err(e) = run(seed, switch, evict, None) {
                panic!("{e}");
            }
        }
    }
}

#[test]
fn every_omitted_instruction_is_noticed() {
    for part in [
        Part::SlotsOfProducer,
        Part::PeerLineOfProducer,
        Part::SlotsOfConsumer,
        Part::LineOfConsumer,
        Part::PeerLineOfConsumer,
        Part::LineOfSleeper,
    ] {
        let noticed = (0..10).any(|seed| {
            let switch = if seed % 2 == 0 { 2 } else { 400 };
            run(seed, switch, 0, Some(part)).is_err()
        });
        assert!(noticed, "no seed shows what is missing without {part:?}");
    }
}
