//! Direct transactions on the simulator: a pool changed in place, threads with a log each, and the states that a crash may
//! come to.
//!
//! A fence completes what its thread has written to its logs and the lines that it has written back, in all media at once;
//! an ordinary store that nobody wrote back stays uncertain, and one after the write-back does too.

pub mod list;
pub mod scenarios;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use vernal_format::{LOG_SPACE_LEN, LogHeader, LogRef};
use vernal_journal::Uuid;
use vernal_journal::direct::{
    DirectError, DirectLog, Home, LogOutcome, LogSpaceFile, LogSupply, Place, create_log_file,
    recover_space,
};
use vernal_sys::Media;

use crate::explore::{FilePlace, Oracle, Trace, uuid};
use crate::world::{Geometry, Image, Op, SharedWorld, SimMedia, World};

/// Address of the pool's first byte.
pub const BASE: u64 = vernal_abi::DIRECT_BASE + (2 << 20);
/// Medium of the pool.
pub const HOME: u16 = 0;
/// Medium of the log space.
pub const SPACE: u16 = 1;
/// First medium of log files.
pub const LOGS: u16 = 2;
const LINE: u64 = 64;

/// Takes what nothing reaches out of a state.
pub type Canonical = fn(&[u8]) -> Vec<u8>;

/// How the crash states of a direct life are recovered and compared.
#[derive(Debug, Clone, Copy)]
pub struct DirectLife {
    /// For lives whose transactions leave memory that was free, and that they took, as a crash finds it.
    pub canonical: Option<Canonical>,
}

impl DirectLife {
    /// Recovers every log of the log space.
    pub fn recover(&self, world: &SharedWorld) -> Result<(), String> {
        recover_logs(world).map(drop)
    }

    /// After recovery no log has anything to do.
    pub fn check_idle(&self, world: &SharedWorld) -> Result<(), String> {
        let (mark, bytes) = (world.borrow().log.len(), world.borrow().arena.len());
        let outcomes = recover_logs(world)?;
        let changed = world.borrow().log.len() != mark;
        world.borrow_mut().roll_back(mark, bytes);
        if changed || !outcomes.iter().all(|o| matches!(o, LogOutcome::Idle)) {
            return Err(format!("recovery left something to recover: {outcomes:?}"));
        }
        Ok(())
    }

    /// Whether two states are the same.
    pub fn same(&self, found: &[u8], want: &[u8]) -> bool {
        found == want
            || self
                .canonical
                .is_some_and(|canonical| canonical(found) == canonical(want))
    }
}

/// Which part of the pool an address range is.
pub fn locate(len: u64) -> impl Fn(u64, u64) -> Option<Place> {
    move |addr, n| {
        let offset = addr.checked_sub(BASE)?;
        (offset.checked_add(n)? <= len).then_some(Place { target: 0, offset })
    }
}

/// Recovers the logs of a world; an error when one is quarantined.
pub fn recover_logs(world: &SharedWorld) -> Result<Vec<LogOutcome>, String> {
    let space =
        LogSpaceFile::load(SimMedia::new(world, SPACE), "log space").map_err(|e| e.to_string())?;
    let home = SimMedia::new(world, HOME);
    let locate = locate(home.len());
    let reports = recover_space(
        space.space(),
        |named| open_log(world, named),
        &locate,
        &mut [home],
    )
    .map_err(|e| e.to_string())?;
    reports
        .into_iter()
        .map(|report| match report.outcome {
            LogOutcome::Quarantined(why) => {
                Err(format!("log {} is quarantined: {why}", report.log))
            }
            outcome => Ok(outcome),
        })
        .collect()
}

/// The uuid of a simulated log file is its medium's number.
pub fn open_log(world: &SharedWorld, named: &LogRef) -> io::Result<SimMedia> {
    let medium = (named.file.short() as u16).wrapping_sub(100);
    if usize::from(medium) < world.borrow().images.len() {
        Ok(SimMedia::new(world, medium))
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn file_uuid(medium: u16) -> Uuid {
    uuid(u64::from(medium) + 100)
}

/// What one thread has written and no fence of its has completed: medium, offset, length.
type Pending = Rc<RefCell<Vec<(u16, u64, usize)>>>;

/// A log file written with non-temporal stores.
#[derive(Debug)]
pub struct LogMedia {
    medium: u16,
    sim: SimMedia,
    pending: Pending,
    world: SharedWorld,
}

fn fence(world: &SharedWorld, pending: &Pending) {
    let mut ranges = std::mem::take(&mut *pending.borrow_mut());
    ranges.sort_unstable();
    let mut world = world.borrow_mut();
    let mut at = 0;
    while let Some(&(medium, off, len)) = ranges.get(at) {
        let mut end = off + len as u64;
        at += 1;
        // Neighbours at once: fewer moments to look at, none of them different.
        while let Some(&(m, o, l)) = ranges.get(at)
            && m == medium
            && o <= end
        {
            end = end.max(o + l as u64);
            at += 1;
        }
        world.log.push(Op::PersistRange {
            medium,
            off,
            len: (end - off) as usize,
        });
    }
}

impl Media for LogMedia {
    fn len(&self) -> u64 {
        self.sim.len()
    }
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.sim.set_len(len)
    }
    fn atom(&self) -> usize {
        self.sim.atom()
    }
    fn write_unit(&self) -> usize {
        self.sim.write_unit()
    }
    fn read(&self, off: u64, buf: &mut [u8]) -> io::Result<()> {
        self.sim.read(off, buf)
    }
    fn write(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        self.sim.write(off, data)?;
        self.pending
            .borrow_mut()
            .push((self.medium, off, data.len()));
        Ok(())
    }
    fn persist(&mut self) -> io::Result<()> {
        fence(&self.world, &self.pending);
        Ok(())
    }
    fn write_durable(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        self.write(off, data)?;
        self.persist()
    }
    fn flushes(&self) -> u64 {
        0
    }
}

/// The pool as one thread sees it.
#[derive(Debug)]
pub struct SimHome {
    world: SharedWorld,
    pending: Pending,
    /// Fences of this thread.
    pub fences: u64,
    /// Memory of the process, by address.
    pub volatile: BTreeMap<u64, Vec<u8>>,
}

impl SimHome {
    fn place(&self, addr: u64, len: usize) -> io::Result<u64> {
        let off = addr.checked_sub(BASE).ok_or(io::ErrorKind::InvalidInput)?;
        let end = self.world.borrow().images[HOME as usize].len;
        if off + len as u64 <= end {
            Ok(off)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// A store of the program: durable only if its line is written back later, and a fence follows.
    pub fn plain_store(&mut self, addr: u64, data: &[u8]) {
        let off = self.place(addr, data.len()).expect("inside the pool");
        self.world.borrow_mut().write(HOME, off, data);
        // A write-back before this store has not written it.
        let (first, end) = (off & !(LINE - 1), off + data.len() as u64);
        self.pending
            .borrow_mut()
            .retain(|&(m, o, l)| m != HOME || o + l as u64 <= first || o >= end);
    }
}

impl Home for SimHome {
    fn load(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        let off = self.place(addr, buf.len())? as usize;
        let world = self.world.borrow();
        buf.copy_from_slice(&world.content(HOME)[off..off + buf.len()]);
        Ok(())
    }

    fn store(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        self.place(addr, data.len())?;
        self.plain_store(addr, data);
        let mut line = addr & !(LINE - 1);
        while line < addr + data.len() as u64 {
            self.write_back(line)?;
            line += LINE;
        }
        Ok(())
    }

    fn write_back(&mut self, line: u64) -> io::Result<()> {
        assert!(line.is_multiple_of(LINE));
        let off = self.place(line, 1)?;
        self.pending.borrow_mut().push((HOME, off, LINE as usize));
        Ok(())
    }

    fn fence(&mut self) -> io::Result<()> {
        self.fences += 1;
        fence(&self.world, &self.pending);
        Ok(())
    }

    fn restore_volatile(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        self.volatile.insert(addr, data.to_vec());
        Ok(())
    }
}

/// Log files from a fixed number of spare media.
#[derive(Debug, Clone)]
pub struct SimSupply {
    world: SharedWorld,
    pending: Pending,
    next: Rc<Cell<u16>>,
    space: Rc<RefCell<LogSpaceFile<SimMedia>>>,
    generation: u64,
}

impl SimSupply {
    fn make(&self, log: Option<Uuid>, position: u32) -> io::Result<(LogMedia, LogHeader)> {
        let medium = self.next.get();
        if usize::from(medium) >= self.world.borrow().images.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.next.set(medium + 1);
        let mut sim = SimMedia::new(&self.world, medium);
        let header = LogHeader {
            file: file_uuid(medium),
            log: log.unwrap_or(file_uuid(medium)),
            space: self.space.borrow().space().uuid,
            position,
            len: sim.len(),
        };
        create_log_file(&mut sim, &header, self.generation)?;
        self.space
            .borrow_mut()
            .add(LogRef {
                file: header.file,
                log: header.log,
                position,
                len: header.len,
            })
            .map_err(io::Error::other)?;
        let media = LogMedia {
            medium,
            sim,
            pending: self.pending.clone(),
            world: self.world.clone(),
        };
        Ok((media, header))
    }
}

impl LogSupply<LogMedia> for SimSupply {
    fn more(&mut self, log: Uuid, position: u32) -> io::Result<LogMedia> {
        self.make(Some(log), position).map(|(media, _)| media)
    }
}

/// One simulated thread.
#[derive(Debug)]
struct Thread {
    supply: SimSupply,
    log: DirectLog<LogMedia, SimSupply>,
    home: SimHome,
    /// What its transaction changes in place, and what its commit changes then.
    delta: BTreeMap<u64, u8>,
    redo: BTreeMap<u64, u8>,
}

/// Sizes of a direct life.
#[derive(Debug, Clone, Copy)]
pub struct DirectSetup {
    /// Bytes of the pool.
    pub pool: u64,
    /// Bytes of a log file.
    pub log: u64,
    /// Log files that there can be.
    pub files: usize,
    /// Threads.
    pub threads: usize,
    /// First generation of the logs.
    pub generation: u64,
}

/// A life of direct transactions.
#[derive(Debug)]
pub struct DirectSession {
    world: SharedWorld,
    start: Vec<Image>,
    threads: Vec<Thread>,
    committed: Vec<u8>,
    oracle: Oracle,
}

impl DirectSession {
    /// A pool of zeros and a log for each thread.
    pub fn start(setup: &DirectSetup) -> Result<DirectSession, DirectError> {
        let mut media = vec![(Geometry::DAX, setup.pool), (Geometry::DAX, LOG_SPACE_LEN)];
        media.resize(usize::from(LOGS) + setup.files, (Geometry::DAX, setup.log));
        let world = World::new(&media).shared();
        // A log space is made under another name and renamed.
        let space = LogSpaceFile::create(SimMedia::new(&world, SPACE), uuid(7))?;
        let space = Rc::new(RefCell::new(space));
        let start = world.borrow().images.clone();
        world.borrow_mut().log.clear();
        world.borrow_mut().arena.clear();
        let next = Rc::new(Cell::new(LOGS));
        let thread = |_| {
            let pending = Pending::default();
            let supply = SimSupply {
                world: world.clone(),
                pending: pending.clone(),
                next: next.clone(),
                space: space.clone(),
                generation: setup.generation,
            };
            let (media, header) = supply.make(None, 0).expect("enough media for all logs");
            Thread {
                log: DirectLog::new(media, &header, setup.generation, supply.clone()),
                supply,
                home: SimHome {
                    world: world.clone(),
                    pending,
                    fences: 0,
                    volatile: BTreeMap::new(),
                },
                delta: BTreeMap::new(),
                redo: BTreeMap::new(),
            }
        };
        let threads = (0..setup.threads).map(thread).collect();
        let committed = vec![0; setup.pool as usize];
        Ok(DirectSession {
            threads,
            start,
            oracle: Oracle {
                snapshots: vec![vec![committed.clone()]],
            },
            committed,
            world,
        })
    }

    /// The media.
    pub fn world(&self) -> &SharedWorld {
        &self.world
    }

    /// The pool as committed.
    pub fn committed(&self) -> &[u8] {
        &self.committed
    }

    /// A thread's log.
    pub fn log(&mut self, thread: usize) -> &mut DirectLog<LogMedia, SimSupply> {
        &mut self.threads[thread].log
    }

    /// What a thread sees.
    pub fn home(&mut self, thread: usize) -> &mut SimHome {
        &mut self.threads[thread].home
    }

    /// Makes a thread's log one of this generation, with all that its file holds.
    pub fn jump(&mut self, thread: usize, generation: u64) {
        let t = &mut self.threads[thread];
        let medium = LOGS + thread as u16;
        let mut sim = SimMedia::new(&self.world, medium);
        let header = LogHeader {
            file: file_uuid(medium),
            log: file_uuid(medium),
            space: t.supply.space.borrow().space().uuid,
            position: 0,
            len: sim.len(),
        };
        create_log_file(&mut sim, &header, generation).expect("a sound medium");
        let media = LogMedia {
            medium,
            sim,
            pending: t.home.pending.clone(),
            world: self.world.clone(),
        };
        t.log = DirectLog::new(media, &header, generation, t.supply.clone());
    }

    /// Begins a transaction.
    pub fn begin(&mut self, thread: usize) {
        self.threads[thread].log.begin().expect("a sound log");
    }

    /// Logs the old content of a range.
    pub fn undo(&mut self, thread: usize, off: u64, len: u64) -> Result<(), DirectError> {
        let t = &mut self.threads[thread];
        t.log.undo(&mut t.home, BASE + off, len)
    }

    /// Says that a range changes in place and was free before.
    pub fn touch(&mut self, thread: usize, off: u64, len: u64) -> Result<(), DirectError> {
        self.threads[thread].log.touch(BASE + off, len)
    }

    /// An ordinary store of the program.
    pub fn store(&mut self, thread: usize, off: u64, value: u64) {
        self.store_bytes(thread, off, &value.to_le_bytes());
    }

    /// An ordinary store of the program.
    pub fn store_bytes(&mut self, thread: usize, off: u64, data: &[u8]) {
        let t = &mut self.threads[thread];
        t.home.plain_store(BASE + off, data);
        t.delta.extend((off..).zip(data.iter().copied()));
    }

    /// Undo entry and store.
    pub fn set(&mut self, thread: usize, off: u64, value: u64) -> Result<(), DirectError> {
        self.undo(thread, off, 8)?;
        self.store(thread, off, value);
        Ok(())
    }

    /// A change that the commit makes.
    pub fn redo(&mut self, thread: usize, off: u64, data: &[u8]) -> Result<(), DirectError> {
        let t = &mut self.threads[thread];
        t.log.redo(BASE + off, data)?;
        t.redo.extend((off..).zip(data.iter().copied()));
        Ok(())
    }

    /// What a thread sees.
    pub fn load(&self, thread: usize, off: u64) -> u64 {
        let mut word = [0; 8];
        self.threads[thread]
            .home
            .load(BASE + off, &mut word)
            .expect("inside the pool");
        u64::from_le_bytes(word)
    }

    /// Leaves a transaction; leaving the outermost one commits.
    pub fn commit(&mut self, thread: usize) -> Result<(), DirectError> {
        let t = &mut self.threads[thread];
        if t.log.depth() > 1 || t.log.is_aborted() {
            return t.log.commit(&mut t.home);
        }
        for (&off, &byte) in t.delta.iter().chain(&t.redo) {
            self.committed[off as usize] = byte;
        }
        t.delta.clear();
        t.redo.clear();
        let snapshot = self.oracle.snapshots.len();
        self.oracle.snapshots.push(vec![self.committed.clone()]);
        self.world.borrow_mut().log.push(Op::Begin(snapshot));
        t.log.commit(&mut t.home)?;
        self.world.borrow_mut().log.push(Op::Done(snapshot));
        self.check();
        Ok(())
    }

    /// Rolls a transaction back.
    pub fn abort(&mut self, thread: usize) -> Result<(), DirectError> {
        let t = &mut self.threads[thread];
        t.log.abort(&mut t.home)?;
        t.delta.clear();
        t.redo.clear();
        self.check();
        Ok(())
    }

    /// With no transaction open, everybody sees what was committed.
    fn check(&self) {
        if self.threads.iter().all(|t| t.delta.is_empty()) {
            assert_eq!(
                self.world.borrow().content(HOME),
                &self.committed[..],
                "the pool differs from what was committed"
            );
        }
    }

    /// The trace of this life.
    pub fn into_trace(self, canonical: Option<Canonical>) -> Trace {
        let world = self.world.borrow();
        Trace {
            start: self.start,
            log: world.log.clone(),
            arena: world.arena.clone(),
            files: vec![FilePlace {
                home: HOME,
                meta: HOME,
            }],
            oracle: self.oracle,
            direct: Some(DirectLife { canonical }),
        }
    }
}
