//! The write barrier against the commit, on a machine with store buffers: every interleaving of a small program.
//!
//! Writers store into one line and mark it; a committer consumes the lists, clears the shadow byte, reads the line and
//! copies it home, without a fence. The machine is x86-TSO: each thread's stores go through a first-in first-out buffer
//! that drains at any time, and its own loads see them first. The search visits every reachable state.
//!
//! The property: when all writers are done and their stores visible, one more commit makes home equal to the line.
//! (A thread that is ordered before a commit is the case in which the other writers do nothing.)
//!
//! [`Protocol::CORRECT`] has it. Each [`Protocol`] with a step left out or moved does not, and the search shows how.

use std::collections::HashMap;

use crate::frontier::Mix;

/// Writers.
const WRITERS: usize = 2;
/// Words of the line: each writer has its own.
const WORDS: usize = WRITERS;
/// Locations in memory: words of the line, the shadow byte, and each writer's count of appended lines.
const SHADOW: u8 = WORDS as u8;
const LIST: u8 = SHADOW + 1;
const LOCATIONS: usize = LIST as usize + WRITERS;
/// Index of the committer among the threads.
const COMMITTER: usize = WRITERS;
const THREADS: usize = WRITERS + 1;
/// Room of a store buffer: more than any thread of these programs can fill.
const BUFFER: usize = 12;

/// What barrier and commit do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// Name for reports.
    pub name: &'static str,
    /// The mark comes before the store.
    pub mark_first: bool,
    /// A cleared line stays on the recheck list.
    pub recheck: bool,
    /// A commit may drop lines from the recheck list.
    pub forget: bool,
    /// Before it drops them, every thread passes a barrier.
    pub barrier: bool,
    /// Between barrier and drop the lines are compared once more.
    pub look_again: bool,
    /// Lines that this very commit has cleared stay.
    pub keep_fresh: bool,
    /// The first commit believes a flag that says that there is one thread, and lists nothing for a recheck.
    pub believes_alone: bool,
}

impl Protocol {
    /// What the runtime does.
    pub const CORRECT: Protocol = Protocol {
        name: "correct",
        mark_first: false,
        recheck: true,
        forget: true,
        barrier: true,
        look_again: true,
        keep_fresh: true,
        believes_alone: false,
    };

    /// The protocol with a step left out or moved: each of these loses updates.
    pub const BROKEN: [Protocol; 6] = [
        Protocol {
            name: "mark before the store",
            mark_first: true,
            ..Self::CORRECT
        },
        Protocol {
            name: "no recheck list",
            recheck: false,
            ..Self::CORRECT
        },
        Protocol {
            name: "recheck list dropped without membarrier",
            barrier: false,
            ..Self::CORRECT
        },
        Protocol {
            name: "recheck list dropped without looking again",
            look_again: false,
            ..Self::CORRECT
        },
        Protocol {
            name: "lines of the same commit dropped too",
            keep_fresh: false,
            ..Self::CORRECT
        },
        Protocol {
            name: "recheck skipped, a flag says single-threaded",
            believes_alone: true,
            ..Self::CORRECT
        },
    ];
}

/// How large the program is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Stores of each writer.
    pub stores: u8,
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
    /// 0 store, 1 load the shadow byte, 2 set it, 3 append (moved by `mark_first`).
    at: u8,
}

/// Where the committer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    /// Before a commit.
    Start,
    /// Inside membarrier: a bit for each writer that has passed its fence.
    Barrier(u8),
    /// Looking at a writer's list.
    Drain(u8),
    /// Reading a word of the line that a writer's list named.
    Take { list: u8, word: u8 },
    /// Reading a word of the line for the recheck.
    Again(u8),
    /// Behind the last commit.
    End,
}

/// A store buffer: first in, first out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Buffer {
    len: u8,
    stores: [(u8, u8); BUFFER],
}

impl Buffer {
    fn stores(&self) -> &[(u8, u8)] {
        &self.stores[..self.len as usize]
    }

    fn push(&mut self, store: (u8, u8)) {
        self.stores[self.len as usize] = store;
        self.len += 1;
    }

    fn pop(&mut self) {
        self.stores.rotate_left(1);
        self.len -= 1;
        self.stores[self.len as usize] = (0, 0);
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
    listed: bool,
    listed_before: bool,
    fresh: bool,
    forgetting: bool,
}

impl State {
    fn load(&self, thread: usize, location: u8) -> u8 {
        let own = self.buffers[thread]
            .stores()
            .iter()
            .rev()
            .find(|(l, _)| *l == location);
        own.map_or(self.memory[location as usize], |(_, v)| *v)
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
        listed: false,
        listed_before: false,
        fresh: false,
        forgetting: false,
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
        if state.at == At::End && state.home != state.memory[..WORDS] {
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
            if let Some(&(location, value)) = s.buffers[thread].stores().first() {
                let mut to = *s;
                to.buffers[thread].pop();
                to.memory[location as usize] = value;
                out.push((step(thread, VISIBLE[location as usize], value), to));
            }
        }
        for w in 0..WRITERS {
            self.writer_step(s, w, out);
        }
        self.committer_step(s, out);
    }

    fn writer_step(&self, s: &State, w: usize, out: &mut Vec<(Step, State)>) {
        let writer = s.writers[w];
        if writer.done == self.size.stores {
            return;
        }
        let mut to = *s;
        let next = &mut to.writers[w];
        // The four actions in order; `mark_first` puts the store at the end.
        let action = if self.protocol.mark_first {
            (writer.at + 1) % 4
        } else {
            writer.at
        };
        let last = if self.protocol.mark_first { 0 } else { 3 };
        let finish = |next: &mut Writer| {
            next.at = 0;
            next.done += 1;
        };
        let what = match action {
            0 => {
                if last == 0 {
                    finish(next)
                } else {
                    next.at += 1
                }
                to.store(w, w as u8, writer.done + 1);
                ("stores", writer.done + 1)
            }
            1 if s.load(w, SHADOW) != 0 => {
                // Marked already: nothing to set, nothing to append.
                if last == 0 {
                    next.at = 3
                } else {
                    finish(next)
                }
                ("reads the shadow byte", 1)
            }
            1 => {
                next.at += 1;
                ("reads the shadow byte", 0)
            }
            2 => {
                next.at += 1;
                to.store(w, SHADOW, 1);
                ("sets the shadow byte", 1)
            }
            _ => {
                if last == 3 {
                    finish(next)
                } else {
                    next.at += 1
                }
                let count = s.load(w, LIST + w as u8);
                to.store(w, LIST + w as u8, count + 1);
                ("appends the line to its list", 1)
            }
        };
        out.push((step(w, what.0, what.1), to));
    }

    fn committer_step(&self, s: &State, out: &mut Vec<(Step, State)>) {
        let p = &self.protocol;
        let mut to = *s;
        let what = match s.at {
            At::End => return,
            At::Start => {
                let last = s.commits == self.size.commits;
                let quiet = (0..WRITERS)
                    .all(|w| s.writers[w].done == self.size.stores && s.buffers[w].len == 0);
                if last && !quiet {
                    return;
                }
                to.listed_before = s.listed;
                to.fresh = false;
                to.forgetting = false;
                to.at = At::Drain(0);
                if p.forget && s.listed {
                    let mut forgetting = to;
                    forgetting.forgetting = true;
                    forgetting.at = if p.barrier {
                        At::Barrier(0)
                    } else {
                        At::Drain(0)
                    };
                    out.push((
                        step(COMMITTER, "begins a commit that will forget", s.commits),
                        forgetting,
                    ));
                }
                ("begins a commit", s.commits)
            }
            At::Barrier(passed) => {
                // The caller's own fence comes first; then each thread's buffer drains at some moment.
                if s.buffers[COMMITTER].len != 0 {
                    return;
                }
                for w in (0..WRITERS).filter(|w| passed >> w & 1 == 0 && s.buffers[*w].len == 0) {
                    let mut to = *s;
                    let passed = passed | 1 << w;
                    to.at = if passed == (1 << WRITERS) - 1 {
                        At::Drain(0)
                    } else {
                        At::Barrier(passed)
                    };
                    out.push((step(w, "passes the fence of membarrier", 0), to));
                }
                return;
            }
            At::Drain(list) if list as usize == WRITERS => {
                let again =
                    p.recheck && s.listed_before && !s.fresh && (p.look_again || !s.forgetting);
                if again {
                    to.at = At::Again(0);
                    ("goes to the recheck list", 0)
                } else {
                    self.finish(&mut to);
                    ("ends the commit", s.commits)
                }
            }
            At::Drain(list) => {
                let count = s.load(COMMITTER, LIST + list);
                if count == s.consumed[list as usize] {
                    to.at = At::Drain(list + 1);
                    ("finds nothing on the list of writer", list)
                } else {
                    to.consumed[list as usize] = count;
                    to.at = At::Take { list, word: 0 };
                    to.fresh = true;
                    to.store(COMMITTER, SHADOW, 0);
                    ("clears the byte of the line on the list of writer", list)
                }
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
        if s.forgetting && !(s.fresh && p.keep_fresh) {
            s.listed = false;
        } else if s.fresh && p.recheck && !(p.believes_alone && s.commits == 0) {
            s.listed = true;
        }
        s.fresh = false;
        s.forgetting = false;
        s.listed_before = false;
        s.at = if s.commits == self.size.commits {
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
];
