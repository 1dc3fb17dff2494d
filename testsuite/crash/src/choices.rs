//! Which crash states of a frontier to look at: all of them when they are few, else the telling ones and a seeded sample.

use std::collections::HashSet;

use xxhash_rust::xxh3::xxh3_64;

use crate::frontier::Frontier;
use crate::rng::Rng;

/// How many states to look at.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Up to this many states, all are looked at.
    pub all: u64,
    /// Up to this many states of the write in flight, all of those are combined with a few states of the rest.
    pub in_flight: u64,
    /// Of the telling states (prefixes in program order, each atom alone, each atom missing), every `stride`-th.
    pub stride: usize,
    /// Random states.
    pub samples: u64,
}

/// States of the rest with which those of the write in flight are combined: durable, newest, and two at random.
const BACKGROUNDS: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    All,
    Telling(usize),
    InFlight(u64),
    Sampled(u64),
}

/// The states to look at, one after the other; none twice.
#[derive(Debug)]
pub struct Choices {
    /// Highest choice of each atom.
    limits: Vec<u8>,
    current: Vec<u8>,
    /// Atoms of the write in flight, if all their states are to be looked at.
    in_flight: Vec<usize>,
    rng: Rng,
    effort: Effort,
    phase: Phase,
    /// Whether `current` is a state of this phase that an odometer can step from.
    running: bool,
    seen: HashSet<u64>,
}

impl Choices {
    /// The states of `frontier` while `medium` is being flushed.
    pub fn new(frontier: &Frontier, medium: Option<u16>, effort: Effort, seed: u64) -> Choices {
        let limits: Vec<u8> = frontier
            .atoms
            .iter()
            .map(|a| (a.choices() - 1) as u8)
            .collect();
        let few = |atoms: &[usize], most: u64| {
            let product = atoms.iter().try_fold(1u64, |n, &i| {
                n.checked_mul(u64::from(limits[i]) + 1)
                    .filter(|n| *n <= most)
            });
            product.is_some()
        };
        let every: Vec<usize> = (0..limits.len()).collect();
        let mut in_flight: Vec<usize> = every
            .iter()
            .copied()
            .filter(|&i| Some(frontier.atoms[i].medium) == medium)
            .collect();
        if !few(&in_flight, effort.in_flight) {
            in_flight.clear();
        }
        let phase = if few(&every, effort.all) {
            Phase::All
        } else {
            Phase::Telling(0)
        };
        Choices {
            current: vec![0; limits.len()],
            in_flight: if phase == Phase::All {
                every
            } else {
                in_flight
            },
            limits,
            rng: Rng::new(seed),
            effort,
            phase,
            running: false,
            seen: HashSet::new(),
        }
    }

    /// Whether every state is looked at.
    pub fn is_exhaustive(&self) -> bool {
        self.phase == Phase::All
    }

    /// The next state: for each atom of the frontier, which of its values is there.
    pub fn advance(&mut self) -> Option<&[u8]> {
        loop {
            match self.phase {
                Phase::All => {
                    if self.running && !self.step() {
                        return None;
                    }
                    self.running = true;
                    return Some(&self.current);
                }
                Phase::Telling(step) => {
                    if step >= self.telling_count() {
                        self.phase = Phase::InFlight(0);
                        continue;
                    }
                    self.telling(step);
                    // The first states are all and nothing; behind them the stride starts.
                    self.phase = Phase::Telling(
                        step + if step < 2 {
                            1
                        } else {
                            self.effort.stride.max(1)
                        },
                    );
                }
                Phase::InFlight(background) => {
                    if self.in_flight.is_empty() || background == BACKGROUNDS {
                        self.phase = Phase::Sampled(self.effort.samples);
                        continue;
                    }
                    if !self.running {
                        self.background(background);
                        self.running = true;
                    } else if !self.step() {
                        self.running = false;
                        self.phase = Phase::InFlight(background + 1);
                        continue;
                    }
                }
                Phase::Sampled(0) => return None,
                Phase::Sampled(left) => {
                    self.phase = Phase::Sampled(left - 1);
                    let percent = [10, 50, 50, 90][self.rng.below(4) as usize];
                    for i in 0..self.limits.len() {
                        self.current[i] = self.random(i, percent);
                    }
                }
            }
            if self.seen.insert(xxh3_64(&self.current)) {
                return Some(&self.current);
            }
        }
    }

    /// Steps the atoms in flight like an odometer; false when they are back at the start.
    fn step(&mut self) -> bool {
        for &i in &self.in_flight {
            if self.current[i] < self.limits[i] {
                self.current[i] += 1;
                return true;
            }
            self.current[i] = 0;
        }
        false
    }

    fn background(&mut self, which: u64) {
        for i in 0..self.limits.len() {
            self.current[i] = match which {
                0 => 0,
                1 => self.limits[i],
                _ => self.random(i, 50),
            };
        }
        for &i in &self.in_flight {
            self.current[i] = 0;
        }
    }

    /// The newest value in `percent` of 100 cases, else any.
    fn random(&mut self, atom: usize, percent: u64) -> u8 {
        let limit = self.limits[atom];
        if self.rng.chance(percent) {
            limit
        } else {
            self.rng.below(u64::from(limit) + 1) as u8 * self.rng.chance(50) as u8
        }
    }

    fn telling_count(&self) -> usize {
        2 + 3 * self.limits.len()
    }

    /// Nothing, everything; the first `n` atoms; one atom alone; one atom missing.
    fn telling(&mut self, step: usize) {
        for (i, c) in self.current.iter_mut().enumerate() {
            let newest = match step {
                0 => false,
                1 => true,
                _ => {
                    let atom = (step - 2) / 3;
                    match (step - 2) % 3 {
                        0 => i <= atom,
                        1 => i == atom,
                        _ => i != atom,
                    }
                }
            };
            *c = if newest { self.limits[i] } else { 0 };
        }
    }
}
