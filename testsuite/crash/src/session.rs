//! A program's life on simulated media: working memory, dirty lines, commits; recorded as a trace with its oracle.

use std::collections::BTreeSet;

use vernal_abi::{LINE_SIZE, TRACKED_BASE, line_addr, line_of};
use vernal_journal::{
    Committer, HomeId, Journal, JournalConfig, JournalError, JournalReader, Meta, MetaFile,
    MetaState, Recovered, recover_home,
};

use crate::explore::{FilePlace, Oracle, Trace, journal_path, uuid};
use crate::world::{Geometry, Op, SharedWorld, SimMedia, World};

/// Address space of each file.
pub const SLOT_LEN: u64 = 1 << 16;
/// Distance of the files' home addresses: one behind the other.
const SPACING: u64 = SLOT_LEN;
/// Journals that a life can use, one after the other.
const JOURNALS: u16 = 4;

/// What a life looks like at its start.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Geometry of all media.
    pub geometry: Geometry,
    /// Lengths of the files.
    pub lens: Vec<u64>,
    /// Length of a journal's log.
    pub log_len: u64,
    /// Length up to which it grows before it is recycled.
    pub grow_to: u64,
}

struct File {
    place: FilePlace,
    base: u64,
    len: u64,
    /// Working memory, the whole slot.
    work: Vec<u64>,
    open: Option<(HomeId, MetaFile<SimMedia, Recovered>)>,
}

/// A running program.
pub struct Session {
    world: SharedWorld,
    files: Vec<File>,
    committer: Option<Committer<SimMedia, SimMedia>>,
    dirty: BTreeSet<u64>,
    oracle: Oracle,
    log_len: u64,
    grow_to: u64,
    journals: u16,
    start: Vec<crate::world::Image>,
}

impl Session {
    /// A world with clean files of zeros; the program runs and has the files open.
    pub fn start(setup: &Setup) -> Result<Session, JournalError> {
        let n = setup.lens.len();
        let mut media = Vec::new();
        for &len in &setup.lens {
            media.push((setup.geometry, len));
            media.push((setup.geometry, 0));
        }
        media.extend((0..JOURNALS).map(|_| (setup.geometry, 0)));
        let world = World::new(&media).shared();
        let mut files = Vec::new();
        for (i, &len) in setup.lens.iter().enumerate() {
            let place = FilePlace {
                home: 2 * i as u16,
                meta: 2 * i as u16 + 1,
            };
            let base = TRACKED_BASE + SPACING * (1 + i as u64);
            let meta = Meta {
                update: 0,
                file: uuid(100 + i as u64),
                home_addr: base,
                slot_len: SLOT_LEN,
                committed_len: len,
                state: MetaState::Clean,
            };
            MetaFile::create(
                SimMedia::new(&world, place.meta),
                format!("file{i}.vernal"),
                meta,
            )?;
            files.push(File {
                place,
                base,
                len,
                work: vec![0; SLOT_LEN as usize / 8],
                open: None,
            });
        }
        let start = {
            let mut world = world.borrow_mut();
            world.log.clear();
            world.arena.clear();
            world.images.clone()
        };
        let mut session = Session {
            world,
            files,
            committer: None,
            dirty: BTreeSet::new(),
            oracle: Oracle::default(),
            log_len: setup.log_len,
            grow_to: setup.grow_to,
            journals: 0,
            start,
        };
        assert_eq!(n, session.files.len());
        session.snapshot();
        session.open()?;
        Ok(session)
    }

    /// Opens every file with a new journal, recovering it first.
    pub fn open(&mut self) -> Result<(), JournalError> {
        assert!(self.journals < JOURNALS, "a life has only so many journals");
        let number = self.journals;
        self.journals += 1;
        let medium = 2 * self.files.len() as u16 + number;
        let journal = Journal::create(
            SimMedia::new(&self.world, medium),
            JournalConfig {
                uuid: uuid(u64::from(number) + 1),
                name: "journal".into(),
                log_len: self.log_len,
            },
        )?;
        self.committer = Some(Committer::new(journal).growing_to(self.grow_to));
        for file in 0..self.files.len() {
            self.add_file(file)?;
        }
        Ok(())
    }

    /// Opens one file in the running journal, recovering it first.
    pub fn add_file(&mut self, file: usize) -> Result<(), JournalError> {
        let medium = 2 * self.files.len() as u16 + self.journals - 1;
        let world = &self.world;
        let file = &mut self.files[file];
        let mut home = SimMedia::new(world, file.place.home);
        let meta = MetaFile::load(SimMedia::new(world, file.place.meta), "file.vernal")
            .expect("readable metadata");
        let old = meta
            .needed_journal()
            .map(|(_, path)| u16::from_le_bytes([path[0], path[1]]));
        let old = old.map(|m| {
            JournalReader::open(SimMedia::new(world, m), "journal").expect("a readable journal")
        });
        let (mut meta, _) = recover_home(meta, old.as_ref(), &mut home).expect("recoverable");
        let committer = self.committer.as_mut().expect("running");
        let id = committer.add_home(
            home,
            &mut meta,
            &journal_path(file.place.meta),
            &journal_path(medium),
        )?;
        file.open = Some((id, meta));
        file.len = committer.committed_len(id).expect("just added");
        // The working copy is loaded from the home image.
        let world = world.borrow();
        let content = world.content(file.place.home);
        file.work.fill(0);
        for (word, bytes) in file.work.iter_mut().zip(content.chunks(8)) {
            let mut le = [0; 8];
            le[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(le);
        }
        Ok(())
    }

    /// Closes one file: what was committed stays, the rest is forgotten.
    pub fn remove_file(&mut self, file: usize) -> Result<(), JournalError> {
        let (id, mut meta) = self.files[file].open.take().expect("open");
        self.committer
            .as_mut()
            .expect("running")
            .remove_home(id, &mut meta)?;
        Ok(())
    }

    /// Closes every file.
    pub fn close(&mut self) -> Result<(), JournalError> {
        for file in 0..self.files.len() {
            self.remove_file(file)?;
        }
        self.committer = None;
        Ok(())
    }

    /// The process dies and starts again; everything that was written is there (other crashes are the explorer's).
    pub fn die_and_restart(&mut self) -> Result<(), JournalError> {
        for file in &mut self.files {
            file.open = None;
        }
        self.committer = None;
        self.dirty.clear();
        self.open()
    }

    /// The first address of a file.
    pub fn base(&self, file: usize) -> u64 {
        self.files[file].base
    }

    /// The working length of a file.
    pub fn len(&self, file: usize) -> u64 {
        self.files[file].len
    }

    /// The committer.
    pub fn committer(&mut self) -> &mut Committer<SimMedia, SimMedia> {
        self.committer.as_mut().expect("running")
    }

    /// The media.
    pub fn world(&self) -> &SharedWorld {
        &self.world
    }

    /// The files.
    pub fn places(&self) -> Vec<FilePlace> {
        self.files.iter().map(|f| f.place).collect()
    }

    /// The committed states so far.
    pub fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    fn locate(&self, addr: u64) -> (usize, usize) {
        let file = ((addr - TRACKED_BASE) / SPACING) as usize - 1;
        (file, ((addr - self.files[file].base) / 8) as usize)
    }

    /// Reads a word of working memory.
    pub fn load(&self, addr: u64) -> u64 {
        let (file, word) = self.locate(addr);
        self.files[file].work[word]
    }

    /// Writes a word of working memory and marks its line, as instrumented code does.
    pub fn store(&mut self, addr: u64, value: u64) {
        let (file, word) = self.locate(addr);
        self.files[file].work[word] = value;
        self.dirty.insert(line_of(addr));
    }

    /// Changes a file's working length.
    pub fn set_len(&mut self, file: usize, len: u64) -> Result<(), JournalError> {
        let id = self.files[file].open.as_ref().expect("open").0;
        self.committer().stage_set_len(id, len)?;
        let f = &mut self.files[file];
        // What is cut comes back as zeros, in a shrink and (a partial last word) in a growth.
        let mut bytes: Vec<u8> = f.work.iter().flat_map(|w| w.to_le_bytes()).collect();
        let kept = f.len.min(len) as usize;
        bytes[kept..].fill(0);
        for (word, le) in f.work.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(le.try_into().expect("8 bytes"));
        }
        let lines = line_of(f.base + f.len.min(len))..line_of(f.base + f.len.max(len) - 1) + 1;
        self.dirty.extend(lines);
        f.len = len;
        Ok(())
    }

    fn bytes(&self, file: usize) -> Vec<u8> {
        let f = &self.files[file];
        let mut bytes: Vec<u8> = f.work.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.truncate(f.len as usize);
        bytes
    }

    /// Notes the working memory as what the next commit makes; its number.
    fn snapshot(&mut self) -> usize {
        let snapshot = (0..self.files.len()).map(|f| self.bytes(f)).collect();
        self.oracle.snapshots.push(snapshot);
        self.oracle.snapshots.len() - 1
    }

    /// The home's words of a line, zeros beyond its end.
    fn home_line(&self, line: u64) -> [u64; 8] {
        let (file, word) = self.locate(line_addr(line));
        let world = self.world.borrow();
        let content = world.content(self.files[file].place.home);
        std::array::from_fn(|i| {
            let mut le = [0; 8];
            let from = ((word + i) * 8).min(content.len());
            let to = (from + 8).min(content.len());
            le[..to - from].copy_from_slice(&content[from..to]);
            u64::from_le_bytes(le)
        })
    }

    fn work_line(&self, line: u64) -> [u64; 8] {
        let (file, word) = self.locate(line_addr(line));
        std::array::from_fn(|i| self.files[file].work[word + i])
    }

    /// Stages every dirty line.
    pub fn stage(&mut self) {
        for line in std::mem::take(&mut self.dirty) {
            let (work, home) = (self.work_line(line), self.home_line(line));
            self.committer().stage_line(line, &work, &home);
        }
    }

    fn note(&self, op: Op) {
        self.world.borrow_mut().log.push(op);
    }

    /// Commits durably.
    pub fn commit(&mut self) -> Result<(), JournalError> {
        self.stage();
        let number = self.snapshot();
        self.note(Op::Begin(number));
        self.committer().commit()?;
        self.note(Op::Done(number));
        Ok(())
    }

    /// Commits durably, every dirty line whole: what the runtime's plain commit does. Falls back as that does.
    pub fn commit_plainly(&mut self) -> Result<(), JournalError> {
        let mut dirty = std::mem::take(&mut self.dirty).into_iter().peekable();
        while let Some(first) = dirty.next() {
            let mut lines = vec![self.work_line(first)];
            let mut next = first + 1;
            // As one mark of several lines, which lies in one file.
            let end = (first + 1).next_multiple_of(SLOT_LEN / LINE_SIZE);
            while dirty.peek() == Some(&next) && next < end {
                dirty.next();
                lines.push(self.work_line(next));
                next += 1;
            }
            self.committer().builder().push_run(first, &lines);
        }
        let number = self.snapshot();
        self.note(Op::Begin(number));
        if let Some(done) = self.committer().commit_runs() {
            done?;
        } else {
            self.committer().commit()?;
        }
        self.note(Op::Done(number));
        Ok(())
    }

    /// Commits atomically, durable later.
    pub fn commit_async(&mut self) -> Result<(), JournalError> {
        self.stage();
        let number = self.snapshot();
        self.note(Op::Begin(number));
        self.committer().commit_async().map(drop)
    }

    /// Waits for all commits so far.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.committer().flush()?;
        self.note(Op::Done(self.oracle.snapshots.len() - 1));
        Ok(())
    }

    /// Takes working memory back to the last commit.
    pub fn abort(&mut self) {
        for line in std::mem::take(&mut self.dirty) {
            let home = self.home_line(line);
            let words = self.committer().committed_line(line, &home);
            let (file, word) = self.locate(line_addr(line));
            self.files[file].work[word..word + 8].copy_from_slice(&words);
        }
        self.committer().abort();
    }

    /// The trace of this life.
    pub fn into_trace(self) -> Trace {
        let files = self.places();
        let world = self.world.borrow();
        Trace {
            start: self.start,
            log: world.log.clone(),
            arena: world.arena.clone(),
            files,
            oracle: self.oracle,
            direct: None,
        }
    }
}

/// A committed state, read as memory.
pub struct SnapshotMemory<'a> {
    files: &'a [Vec<u8>],
}

impl<'a> SnapshotMemory<'a> {
    /// The memory of a snapshot of the oracle.
    pub fn new(files: &'a [Vec<u8>]) -> Self {
        SnapshotMemory { files }
    }
}

/// Memory that structures can be walked in.
pub trait Words {
    /// The word at `addr`; `None` outside every file.
    fn word(&self, addr: u64) -> Option<u64>;
}

impl Words for SnapshotMemory<'_> {
    fn word(&self, addr: u64) -> Option<u64> {
        let file = usize::try_from(addr.checked_sub(TRACKED_BASE + SPACING)? / SPACING).ok()?;
        let at = ((addr - TRACKED_BASE) % SPACING) as usize;
        let bytes = self.files.get(file)?.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

const _: () = assert!(SLOT_LEN <= SPACING && SLOT_LEN.is_multiple_of(LINE_SIZE));
