//! The write barrier against the commit, on a machine with store buffers: every interleaving of a small program.
//!
//! Writers store into one line and mark it; a committer consumes the lists, clears the shadow byte, reads the line and
//! copies it home, without a fence. The machine is x86-TSO: each thread's stores go through a first-in first-out buffer
//! that drains at any time, and its own loads see them first. The search visits every reachable state.
//!
//! The properties:
//!
//! - *Durability*: a writer that has marked what it stored, and whose stores are visible (as those of a thread are that
//!   calls commit: the lock drains its buffer), has it at home when a commit ends that begins then, whatever the other
//!   writer is doing to the same line.
//! - *Nothing is lost*: when all writers are done and their stores visible, one more commit makes home equal to the line.
//!
//! [`Protocol::CORRECT`] and [`Protocol::FULL`] have them. Each [`Protocol`] with a step left out or moved does not, and the
//! search shows how.

mod protocol;

use crate::frontier::Mix;
use protocol::Action;
use std::collections::HashMap;

pub use protocol::Protocol;

/// Writers.
const WRITERS: usize = 2;
/// Words of the line: each writer has its own.
const WORDS: usize = WRITERS;
/// Locations in memory: words of the line, the shadow byte, and of each writer its list and its flag.
///
/// A list is a number: twice the slots that are filled, and one more while another slot announces its line. Without room it
/// counts the marks that are being dropped, and the flag says that some were.
const SHADOW: u8 = WORDS as u8;
const LIST: u8 = SHADOW + 1;
const FLAG: u8 = LIST + WRITERS as u8;
const LOCATIONS: usize = FLAG as usize + WRITERS;
const _: () = assert!(LOCATIONS <= 8); // see Buffer
/// Index of the committer among the threads.
const COMMITTER: usize = WRITERS;
const THREADS: usize = WRITERS + 1;
/// Room of a store buffer: more than any thread of these programs can fill.
const BUFFER: usize = 12;

/// How large the program is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Stores of each writer.
    pub stores: [u8; WRITERS],
    /// Commits before the last.
    pub commits: u8,
}

/// What the search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// States visited.
    pub states: usize,
    /// Steps to a lost update, if one was found.
    pub lost: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Writer {
    done: u8,
    /// Index into [`Protocol::writer`].
    at: u8,
}

/// Where the committer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    /// Before a commit.
    Start,
    /// Looking at a writer's list.
    Drain(u8),
    /// Looking at a writer's flag.
    Flag(u8),
    /// Looking at the shadow byte.
    Scan,
    /// Reading a word of the line that a writer's list, or the shadow, named.
    Take { list: u8, word: u8 },
    /// Reading a word of the line for the recheck.
    Again(u8),
    /// Behind the last commit.
    End,
    /// A commit has ended without what it was to make durable.
    Broken,
}

/// A store buffer: first in, first out. A byte is a store: its location, and a value below 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Buffer {
    len: u8,
    stores: [u8; BUFFER],
}

impl Buffer {
    /// Locations and values, the oldest first.
    fn stores(&self) -> impl DoubleEndedIterator<Item = (u8, u8)> + '_ {
        let stores = &self.stores[..self.len as usize];
        stores.iter().map(|s| (s >> 5, s & 31))
    }

    fn push(&mut self, (location, value): (u8, u8)) {
        self.stores[self.len as usize] = location << 5 | value;
        self.len += 1;
    }

    fn pop(&mut self) {
        self.stores.rotate_left(1);
        self.len -= 1;
        self.stores[self.len as usize] = 0;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    memory: [u8; LOCATIONS],
    buffers: [Buffer; THREADS],
    writers: [Writer; WRITERS],
    at: At,
    commits: u8,
    consumed: [u8; WRITERS],
    home: [u8; WORDS],
    /// What the running commit has to make durable of each writer.
    promised: [u8; WRITERS],
    scan: bool,
    /// On the recheck list since the commit with this number, less one; 0: not on it.
    cleared: u8,
    listed_before: bool,
    fresh: bool,
    /// A barrier that a thread outside of commits executes: a bit for each writer that has passed its fence.
    barrier: Option<u8>,
    /// It follows this number of commits.
    after: u8,
    /// Commits that a barrier has followed; as the running commit knows it.
    passed: u8,
    passed_before: u8,
}

impl State {
    fn load(&self, thread: usize, location: u8) -> u8 {
        let mut own = self.buffers[thread].stores().rev();
        own.find(|(l, _)| *l == location)
            .map_or(self.memory[location as usize], |(_, v)| v)
    }

    fn store(&mut self, thread: usize, location: u8, value: u8) {
        self.buffers[thread].push((location, value));
    }
}

/// Visits every state; the shortest way to a lost update, if there is one.
pub fn search(protocol: Protocol, size: Size) -> Verdict {
    let start = State {
        memory: [0; LOCATIONS],
        buffers: Default::default(),
        writers: [Writer { done: 0, at: 0 }; WRITERS],
        at: At::Start,
        commits: 0,
        consumed: [0; WRITERS],
        home: [0; WORDS],
        promised: [0; WRITERS],
        scan: false,
        cleared: 0,
        listed_before: false,
        fresh: false,
        barrier: None,
        after: 0,
        passed: 0,
        passed_before: 0,
    };
    let model = Model { protocol, size };
    let mut index: HashMap<State, usize, Mix> = HashMap::default();
    index.insert(start, 0);
    let mut states = vec![start];
    let mut from = vec![0];
    let mut next = 0;
    let mut steps = Vec::new();
    while next < states.len() {
        let state = states[next];
        let lost = state.at == At::End && state.home != state.memory[..WORDS];
        if lost || state.at == At::Broken {
            return Verdict {
                states: states.len(),
                lost: Some(model.story(&states, &from, next)),
            };
        }
        model.steps(&state, &mut steps);
        for (_, to) in steps.drain(..) {
            index.entry(to).or_insert_with(|| {
                states.push(to);
                from.push(next);
                states.len() - 1
            });
        }
        next += 1;
    }
    Verdict {
        states: states.len(),
        lost: None,
    }
}

/// What a thread did.
#[derive(Debug, Clone, Copy)]
struct Step {
    thread: u8,
    what: &'static str,
    value: u8,
}

fn step(thread: usize, what: &'static str, value: u8) -> Step {
    Step {
        thread: thread as u8,
        what,
        value,
    }
}

struct Model {
    protocol: Protocol,
    size: Size,
}

impl Model {
    /// The steps from the start to state `at`, in words.
    fn story(&self, states: &[State], from: &[usize], mut at: usize) -> Vec<String> {
        let (mut story, mut steps) = (Vec::new(), Vec::new());
        while at != 0 {
            self.steps(&states[from[at]], &mut steps);
            let found = steps.drain(..).find(|(_, to)| *to == states[at]);
            story.extend(
                found.map(|(s, _)| format!("{}: {} ({})", name(s.thread.into()), s.what, s.value)),
            );
            at = from[at];
        }
        story.reverse();
        story
    }

    fn steps(&self, s: &State, out: &mut Vec<(Step, State)>) {
        for thread in 0..THREADS {
            if let Some((location, value)) = s.buffers[thread].stores().next() {
                let mut to = *s;
                to.buffers[thread].pop();
                to.memory[location as usize] = value;
                out.push((step(thread, VISIBLE[location as usize], value), to));
            }
        }
        for w in 0..WRITERS {
            self.writer_step(s, w, out);
        }
        self.barrier_step(s, out);
        self.committer_step(s, out);
    }

    /// Membarrier: each thread's buffer drains at some moment of it.
    fn barrier_step(&self, s: &State, out: &mut Vec<(Step, State)>) {
        let Some(passed) = s.barrier else {
            let between = s.at == At::Start || self.protocol.hasty_barrier;
            // Whoever executes it has held the commit lock, which has drained the buffer.
            let wanted = s.cleared != 0 || self.protocol.hasty_barrier;
            if self.protocol.forget && wanted && between && s.buffers[COMMITTER].len == 0 {
                let mut to = *s;
                to.after = s.commits + u8::from(s.at != At::Start);
                to.barrier = Some(0);
                if !self.protocol.barrier {
                    (to.barrier, to.passed) = (None, to.after);
                }
                if to.after > s.passed {
                    out.push((
                        step(COMMITTER, "begins a barrier after commits", to.after),
                        to,
                    ));
                }
            }
            return;
        };
        for w in (0..WRITERS).filter(|w| passed >> w & 1 == 0 && s.buffers[*w].len == 0) {
            let mut to = *s;
            let passed = passed | 1 << w;
            to.barrier = Some(passed);
            if passed == (1 << WRITERS) - 1 {
                (to.barrier, to.passed) = (None, s.after);
            }
            out.push((step(w, "passes the fence of membarrier", 0), to));
        }
    }

    fn writer_step(&self, s: &State, w: usize, out: &mut Vec<(Step, State)>) {
        let writer = s.writers[w];
        if writer.done == self.size.stores[w] {
            return;
        }
        let mut to = *s;
        let next = &mut to.writers[w];
        let program = self.protocol.writer();
        let action = program[writer.at as usize];
        next.at += 1;
        if action == Action::Check && s.load(w, SHADOW) != 0 {
            // Marked already: on to what follows the mark.
            let rest = &program[writer.at as usize..];
            next.at += rest
                .iter()
                .skip(1)
                .take_while(|a| **a != Action::Store)
                .count() as u8;
        }
        if next.at as usize == program.len() {
            next.at = 0;
            next.done += 1;
        }
        let (list, flag) = (LIST + w as u8, FLAG + w as u8);
        let mut put = |location, value, what| {
            to.store(w, location, value);
            (what, value)
        };
        let listed = s.load(w, list);
        let what = match action {
            Action::Store => put(w as u8, writer.done + 1, "stores"),
            Action::Check => ("reads the shadow byte", s.load(w, SHADOW)),
            Action::Announce => put(list, listed + 1, "announces its mark"),
            Action::Set => put(SHADOW, 1, "sets the shadow byte"),
            Action::Fill => put(list, (listed / 2 + 1) * 2, "fills a slot of its list"),
            Action::Flag => put(flag, 1, "flags the dropped mark"),
            Action::Lower => put(list, listed - 1, "has dropped its mark"),
        };
        out.push((step(w, what.0, what.1), to));
    }

    fn committer_step(&self, s: &State, out: &mut Vec<(Step, State)>) {
        let p = &self.protocol;
        let mut to = *s;
        let what = match s.at {
            At::End | At::Broken => return,
            At::Start => {
                let last = s.commits == self.size.commits;
                let quiet = (0..WRITERS)
                    .all(|w| s.writers[w].done == self.size.stores[w] && s.buffers[w].len == 0);
                if last && !quiet {
                    return;
                }
                // Whoever calls commit now is served by it: the lock has drained its buffer.
                for (w, writer) in s.writers.iter().enumerate() {
                    if writer.at == 0 && s.buffers[w].len == 0 {
                        to.promised[w] = writer.done;
                    }
                }
                to.listed_before = s.cleared != 0;
                to.passed_before = s.passed;
                to.fresh = false;
                to.at = At::Drain(0);
                ("begins a commit", s.commits)
            }
            At::Drain(list) if list as usize == WRITERS && s.scan => {
                to.scan = false;
                to.at = At::Scan;
                ("looks at the shadow itself", 0)
            }
            At::Drain(list) if list as usize == WRITERS => {
                let forgetting = s.cleared <= s.passed_before;
                let again =
                    p.recheck && s.listed_before && !s.fresh && (p.look_again || !forgetting);
                if again {
                    to.at = At::Again(0);
                    ("goes to the recheck list", 0)
                } else {
                    self.finish(&mut to);
                    ("ends the commit", s.commits)
                }
            }
            At::Drain(list) if p.full => {
                let dropping = s.load(COMMITTER, LIST + list);
                to.scan |= dropping != 0 && p.heed;
                to.at = At::Flag(list);
                ("reads how many marks a writer is dropping", dropping)
            }
            At::Flag(list) => {
                let flagged = s.load(COMMITTER, FLAG + list) != 0;
                // The flag is taken down by a locked instruction.
                if flagged && s.buffers[COMMITTER].len != 0 {
                    return;
                }
                if flagged {
                    to.memory[(FLAG + list) as usize] = 0;
                }
                to.scan |= flagged;
                to.at = At::Drain(list + 1);
                ("takes down the flag of a writer", flagged.into())
            }
            At::Drain(list) => {
                let seen = s.load(COMMITTER, LIST + list);
                let announced = seen % 2 == 1 && p.heed;
                let filled = seen / 2 + u8::from(announced && !p.leave);
                if filled == s.consumed[list as usize] && !announced {
                    to.at = At::Drain(list + 1);
                    ("finds nothing on the list of writer", list)
                } else {
                    to.consumed[list as usize] = filled;
                    to.at = At::Take { list, word: 0 };
                    to.fresh = true;
                    to.store(COMMITTER, SHADOW, 0);
                    ("clears the byte of the line on the list of writer", list)
                }
            }
            At::Scan if s.load(COMMITTER, SHADOW) == 0 => {
                to.at = At::Drain(WRITERS as u8);
                ("finds the shadow byte clear", 0)
            }
            At::Scan => {
                to.at = At::Take {
                    list: WRITERS as u8 - 1,
                    word: 0,
                };
                to.fresh = true;
                to.store(COMMITTER, SHADOW, 0);
                ("finds the shadow byte set and clears it", 1)
            }
            At::Take { list, word } => {
                to.home[word as usize] = s.load(COMMITTER, word);
                if word as usize + 1 < WORDS {
                    to.at = At::Take {
                        list,
                        word: word + 1,
                    };
                } else {
                    to.at = At::Drain(list + 1);
                }
                ("copies a word home", to.home[word as usize])
            }
            At::Again(word) => {
                to.home[word as usize] = s.load(COMMITTER, word);
                if word as usize + 1 < WORDS {
                    to.at = At::Again(word + 1);
                } else {
                    self.finish(&mut to);
                }
                ("looks at a word again", to.home[word as usize])
            }
        };
        out.push((step(COMMITTER, what.0, what.1), to));
    }

    /// Ends a commit: what stays on the recheck list.
    fn finish(&self, s: &mut State) {
        let p = &self.protocol;
        if s.listed_before && s.cleared <= s.passed_before && !(s.fresh && p.keep_fresh) {
            s.cleared = 0;
        } else if s.fresh && p.recheck && !(p.believes_alone && s.commits == 0) {
            s.cleared = s.commits + 1;
        }
        s.fresh = false;
        s.listed_before = false;
        let kept = s.promised.iter().zip(&s.home).all(|(p, h)| h >= p);
        s.promised = [0; WRITERS];
        s.at = if !kept {
            At::Broken
        } else if s.commits == self.size.commits {
            At::End
        } else {
            At::Start
        };
        s.commits += 1;
    }
}

fn name(thread: usize) -> String {
    if thread == COMMITTER {
        "committer".to_owned()
    } else {
        format!("writer {thread}")
    }
}

/// What is told when a store leaves its buffer, by location.
const VISIBLE: [&str; LOCATIONS] = [
    "word 0 becomes visible",
    "word 1 becomes visible",
    "shadow byte becomes visible",
    "list of writer 0 becomes visible",
    "list of writer 1 becomes visible",
    "flag of writer 0 becomes visible",
    "flag of writer 1 becomes visible",
];
