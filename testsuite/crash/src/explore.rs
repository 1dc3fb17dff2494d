//! The explorer: turns a trace into crash states, recovers each with the real code, and asks the oracle.

use std::cell::RefCell;
use std::rc::Rc;

use vernal_journal::{JournalReader, MetaFile, Uuid, recover_home};
use vernal_sys::Media;
use xxhash_rust::xxh3::xxh3_64;

use crate::choices::{Choices, Effort};
use crate::direct::DirectLife;
use crate::frontier::Frontier;
use crate::world::{Image, Op, SharedWorld, SimMedia, World};

/// Where a file and its metadata are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilePlace {
    /// Medium of the home image.
    pub home: u16,
    /// Medium of the metadata.
    pub meta: u16,
}

/// The committed states of all files, in order: what recovery may come to.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    /// For each commit, each file's bytes.
    pub snapshots: Vec<Vec<Vec<u8>>>,
}

/// A recorded life of a world.
#[derive(Debug, Clone)]
pub struct Trace {
    /// What the media held at the start.
    pub start: Vec<Image>,
    /// What happened.
    pub log: Vec<Op>,
    /// Bytes that the log refers to.
    pub arena: Vec<u8>,
    /// The files.
    pub files: Vec<FilePlace>,
    /// The committed states.
    pub oracle: Oracle,
    /// How a crash state is recovered, where not by recovering `files`.
    pub direct: Option<DirectLife>,
}

/// What an exploration does.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// States of the trace itself.
    pub effort: Effort,
    /// States of a crash inside a recovery.
    pub nested: Effort,
    /// Of the states of the trace, one in this many also crashes inside its recovery.
    pub nested_every: u64,
    /// Crashes inside recoveries inside recoveries: how many levels.
    pub depth: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// This explorer's share of the events: those with `index % shares == share`.
    pub share: usize,
    /// Explorers that share the events.
    pub shares: usize,
    /// Only this event.
    pub only_event: Option<usize>,
}

/// Counts of an exploration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Persistence events looked at.
    pub events: u64,
    /// Crash states recovered and checked, nested ones included.
    pub states: u64,
    /// Of them, crashes inside a recovery.
    pub nested: u64,
    /// Events whose states were all looked at.
    pub exhaustive: u64,
}

impl Totals {
    /// Adds the counts of another share.
    pub fn add(&mut self, other: &Totals) {
        self.events += other.events;
        self.states += other.states;
        self.nested += other.nested;
        self.exhaustive += other.exhaustive;
    }
}

/// A crash state from which recovery does not come back.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Persistence event of the trace, to replay.
    pub event: usize,
    /// Levels of crashes inside recoveries.
    pub depth: u32,
    /// What is wrong.
    pub what: String,
    /// Which atoms of the trace's frontier had which value.
    pub choice: String,
}

/// Recovers every file of a world, as opening them one after the other does.
pub fn recover_all(world: &SharedWorld, files: &[FilePlace]) -> Result<(), String> {
    for file in files {
        recover_file(world, file)?;
    }
    Ok(())
}

fn recover_file(world: &SharedWorld, file: &FilePlace) -> Result<(), String> {
    let meta =
        MetaFile::load(SimMedia::new(world, file.meta), "F.vernal").map_err(|e| e.to_string())?;
    let journal = match meta.needed_journal() {
        None => None,
        Some((_, path)) => {
            let medium = journal_medium(path);
            Some(
                JournalReader::open(SimMedia::new(world, medium), "journal")
                    .map_err(|e| e.to_string())?,
            )
        }
    };
    let mut home = SimMedia::new(world, file.home);
    recover_home(meta, journal.as_ref(), &mut home)
        .map(drop)
        .map_err(|e| e.to_string())
}

/// The path of a simulated journal is its medium's number.
pub fn journal_path(medium: u16) -> [u8; 2] {
    medium.to_le_bytes()
}

fn journal_medium(path: &[u8]) -> u16 {
    path.try_into().map_or(u16::MAX, u16::from_le_bytes)
}

struct Explorer<'t> {
    trace: &'t Trace,
    plan: Plan,
    world: SharedWorld,
    /// Snapshots that recovery may come to now.
    oldest: usize,
    newest: usize,
    totals: Totals,
    event: usize,
}

/// Explores one share of a trace.
pub fn explore(trace: &Trace, plan: Plan) -> Result<Totals, Violation> {
    let mut images = trace.start.clone();
    for op in &trace.log {
        // Buffers must be as long as the media ever get.
        let (medium, end) = match *op {
            Op::Write {
                medium, off, len, ..
            } => (medium, off as usize + len),
            Op::SetLen { medium, new, .. } => (medium, new as usize),
            _ => continue,
        };
        let image = &mut images[medium as usize];
        let end = end.next_multiple_of(image.geometry.atom);
        if image.data.len() < end {
            image.data.resize(end, 0);
        }
    }
    let flushes = vec![0; images.len()];
    let world = Rc::new(RefCell::new(World {
        images,
        flushes,
        ..World::default()
    }));
    let mut explorer = Explorer {
        trace,
        plan,
        world,
        oldest: 0,
        newest: 0,
        totals: Totals::default(),
        event: 0,
    };
    explorer.walk()?;
    Ok(explorer.totals)
}

impl Explorer<'_> {
    fn walk(&mut self) -> Result<(), Violation> {
        let mut frontier = Frontier::default();
        for i in 0..self.trace.log.len() {
            let op = &self.trace.log[i];
            match *op {
                Op::Write { .. } | Op::SetLen { .. } => {
                    frontier.add(op, &self.trace.arena, &self.world.borrow())
                }
                Op::Persist { medium } => {
                    self.crash_here(&frontier, Some(medium))?;
                    frontier.settle(&mut self.world.borrow_mut(), false, |m, _| m == medium);
                }
                Op::PersistRange { medium, off, len } => {
                    self.crash_here(&frontier, Some(medium))?;
                    frontier.settle(
                        &mut self.world.borrow_mut(),
                        false,
                        in_range(medium, off, len),
                    );
                }
                Op::Begin(snapshot) => self.newest = snapshot,
                Op::Done(snapshot) => {
                    self.oldest = snapshot;
                    self.crash_here(&frontier, None)?;
                }
            }
        }
        self.crash_here(&frontier, None)
    }

    /// Looks at the crash states of this moment, if it belongs to this share.
    fn crash_here(&mut self, frontier: &Frontier, medium: Option<u16>) -> Result<(), Violation> {
        let event = self.event;
        self.event += 1;
        let mine = match self.plan.only_event {
            Some(only) => event == only,
            None => event % self.plan.shares == self.plan.share,
        };
        if !mine {
            return Ok(());
        }
        self.totals.events += 1;
        let seed = self.plan.seed ^ (event as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut choices = Choices::new(frontier, medium, self.plan.effort, seed);
        self.totals.exhaustive += u64::from(choices.is_exhaustive());
        let mut there = vec![0; frontier.atoms.len()];
        while let Some(choice) = choices.advance() {
            frontier.apply(&mut self.world.borrow_mut(), &mut there, choice);
            let depth = if xxh3_64(choice).is_multiple_of(self.plan.nested_every) {
                self.plan.depth
            } else {
                0
            };
            self.recover_here(depth, seed).map_err(|what| Violation {
                event,
                depth: what.0,
                what: what.1,
                choice: describe(choice),
            })?;
        }
        let durable = vec![0; frontier.atoms.len()];
        frontier.apply(&mut self.world.borrow_mut(), &mut there, &durable);
        Ok(())
    }

    /// Recovers the crash state that is in the world, checks the result, and takes the world back. With `depth`, crashes
    /// inside that recovery too.
    fn recover_here(&mut self, depth: u32, seed: u64) -> Result<(), (u32, String)> {
        self.totals.states += 1;
        let (mark, bytes) = {
            let world = self.world.borrow();
            (world.log.len(), world.arena.len())
        };
        let fail = |what: String| (self.plan.depth - depth, what);
        match &self.trace.direct {
            None => recover_all(&self.world, &self.trace.files).map_err(fail)?,
            Some(life) => life.recover(&self.world).map_err(fail)?,
        }
        self.check().map_err(fail)?;
        if depth == 0 {
            self.world.borrow_mut().roll_back(mark, bytes);
            return Ok(());
        }
        match &self.trace.direct {
            None => self.check_deletable().map_err(fail)?,
            Some(life) => life.check_idle(&self.world).map_err(fail)?,
        }
        // The recovery's own trace.
        let (log, arena) = {
            let mut world = self.world.borrow_mut();
            let log = world.log[mark..].to_vec();
            let arena = world.arena[bytes..].to_vec();
            world.roll_back(mark, bytes);
            (log, arena)
        };
        let mut frontier = Frontier::default();
        for op in &log {
            match *op {
                Op::Write {
                    medium,
                    off,
                    len,
                    at,
                } => {
                    let op = Op::Write {
                        medium,
                        off,
                        len,
                        at: at - bytes,
                    };
                    frontier.add(&op, &arena, &self.world.borrow());
                }
                Op::SetLen { .. } => frontier.add(op, &arena, &self.world.borrow()),
                Op::Persist { medium } => {
                    self.crash_in_recovery(&frontier, medium, depth, seed)?;
                    frontier.settle(&mut self.world.borrow_mut(), true, |m, _| m == medium);
                }
                Op::PersistRange { medium, off, len } => {
                    self.crash_in_recovery(&frontier, medium, depth, seed)?;
                    frontier.settle(
                        &mut self.world.borrow_mut(),
                        true,
                        in_range(medium, off, len),
                    );
                }
                Op::Begin(_) | Op::Done(_) => {}
            }
        }
        self.world.borrow_mut().roll_back(mark, bytes);
        Ok(())
    }

    fn crash_in_recovery(
        &mut self,
        frontier: &Frontier,
        medium: u16,
        depth: u32,
        seed: u64,
    ) -> Result<(), (u32, String)> {
        let mut choices = Choices::new(
            frontier,
            Some(medium),
            self.plan.nested,
            seed ^ u64::from(depth),
        );
        let mut there = vec![0; frontier.atoms.len()];
        while let Some(choice) = choices.advance() {
            frontier.apply(&mut self.world.borrow_mut(), &mut there, choice);
            self.totals.nested += 1;
            // Deeper levels only from a few states: they multiply.
            let deeper = if xxh3_64(choice).is_multiple_of(16) {
                depth - 1
            } else {
                0
            };
            self.recover_here(deeper, seed)?;
        }
        let durable = vec![0; frontier.atoms.len()];
        frontier.apply(&mut self.world.borrow_mut(), &mut there, &durable);
        Ok(())
    }

    /// The oracle: every file is exactly as one of the allowed commits left it, and all as the same one.
    fn check(&self) -> Result<(), String> {
        let world = self.world.borrow();
        let snapshots = &self.trace.oracle.snapshots;
        let files = &self.trace.files;
        let is = |snapshot: &Vec<Vec<u8>>| {
            files.iter().zip(snapshot).all(|(f, want)| {
                let found = world.content(f.home);
                match &self.trace.direct {
                    Some(life) => life.same(found, want),
                    None => found == want,
                }
            })
        };
        if snapshots[self.oldest..=self.newest].iter().any(is) {
            return Ok(());
        }
        let found = snapshots.iter().position(is);
        let lens: Vec<u64> = files
            .iter()
            .map(|f| world.images[f.home as usize].len)
            .collect();
        Err(match found {
            Some(k) => format!(
                "recovery came to commit {k}, and only {} to {} are allowed",
                self.oldest, self.newest
            ),
            None => format!(
                "recovery came to a state that no commit made (lengths {lens:?}; commits {} to {} are allowed)",
                self.oldest, self.newest
            ),
        })
    }

    /// After all files are recovered nobody needs any journal.
    fn check_deletable(&self) -> Result<(), String> {
        for medium in 0..self.trace.start.len() as u16 {
            if self
                .trace
                .files
                .iter()
                .any(|f| f.home == medium || f.meta == medium)
            {
                continue;
            }
            let media = SimMedia::new(&self.world, medium);
            if media.is_empty() {
                continue;
            }
            let Ok(journal) = JournalReader::open(media, "journal") else {
                continue;
            };
            let deletable = journal.is_deletable(|path| {
                let medium = journal_medium(path);
                MetaFile::load(SimMedia::new(&self.world, medium), "F.vernal")
                    .map(|m| Some(m.meta().clone()))
            });
            match deletable {
                Ok(true) => {}
                Ok(false) => {
                    return Err(format!(
                        "journal {} is still needed after recovery",
                        journal.uuid()
                    ));
                }
                Err(e) => return Err(e.to_string()),
            }
        }
        Ok(())
    }
}

fn in_range(medium: u16, off: u64, len: usize) -> impl Fn(u16, Option<u64>) -> bool {
    // A durable write that made the file longer makes its length durable too.
    move |m, at| m == medium && at.is_none_or(|at| (off..off + len as u64).contains(&at))
}

fn describe(choice: &[u8]) -> String {
    choice
        .iter()
        .map(|c| char::from_digit(u32::from(*c).min(35), 36).unwrap_or('?'))
        .collect()
}

/// A made-up identity, for a world without random numbers.
pub fn uuid(n: u64) -> Uuid {
    let mut bytes = [0x5a; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    Uuid(bytes)
}
