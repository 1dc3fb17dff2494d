//! The simulated disk: several media that log every write, change of length and flush.
//!
//! The log is all three of: the trace that the explorer turns into crash states, the undo list that takes a world back
//! after a recovery, and the count of flushes.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use vernal_sys::Media;

/// Geometry of a medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes that persist whole.
    pub atom: usize,
    /// Unit of durable writes.
    pub unit: usize,
}

impl Geometry {
    /// Byte-addressable media: words persist one by one.
    pub const DAX: Geometry = Geometry { atom: 8, unit: 64 };
    /// A file on a disk with 512-byte sectors.
    pub const SECTOR: Geometry = Geometry {
        atom: 512,
        unit: 4096,
    };
    /// A file on a disk with 4 KiB sectors.
    pub const BLOCK: Geometry = Geometry {
        atom: 4096,
        unit: 4096,
    };

    /// Short name, for reports and replays.
    pub fn name(&self) -> &'static str {
        match self.atom {
            8 => "dax",
            512 => "sector",
            _ => "block",
        }
    }

    /// The geometry of a short name.
    pub fn by_name(name: &str) -> Option<Geometry> {
        [Self::DAX, Self::SECTOR, Self::BLOCK]
            .into_iter()
            .find(|g| g.name() == name)
    }
}

/// One medium's bytes. Those beyond `len` are zero.
#[derive(Debug, Clone)]
pub struct Image {
    /// At least `len` bytes.
    pub data: Vec<u8>,
    /// Length of the medium.
    pub len: u64,
    /// Its geometry.
    pub geometry: Geometry,
}

/// What happened to a medium.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    /// `len` bytes at `off` changed; old bytes at `at` in the arena, new ones behind them.
    Write {
        /// Medium.
        medium: u16,
        /// Offset in it.
        off: u64,
        /// Bytes written.
        len: usize,
        /// Place in the arena.
        at: usize,
    },
    /// The length changed from `old` to `new`; when it shrank, the bytes cut are zeroed by a `Write` before.
    SetLen {
        /// Medium.
        medium: u16,
        /// Length before.
        old: u64,
        /// Length after.
        new: u64,
    },
    /// Everything written to this medium so far is durable.
    Persist {
        /// Medium.
        medium: u16,
    },
    /// What was written to this range of the medium is durable, and nothing else.
    PersistRange {
        /// Medium.
        medium: u16,
        /// Offset in it.
        off: u64,
        /// Bytes.
        len: usize,
    },
    /// From here on this snapshot may be the result of recovery.
    Begin(usize),
    /// From here on nothing older than this snapshot may be the result of recovery.
    Done(usize),
}

/// What a planned fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultOn {
    /// [`Media::write`].
    Write,
    /// [`Media::write_durable`].
    WriteDurable,
    /// [`Media::persist`].
    Persist,
    /// [`Media::set_len`].
    SetLen,
}

/// A planned fault.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Medium it hits.
    pub medium: u16,
    /// Call it hits.
    pub on: FaultOn,
    /// Calls of this kind that still succeed.
    pub after: u32,
    /// The error.
    pub kind: io::ErrorKind,
    /// Bytes of the write that reach the medium all the same.
    pub short: usize,
    /// Whether all later calls fail too.
    pub forever: bool,
}

/// The state of all media.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The media.
    pub images: Vec<Image>,
    /// What happened.
    pub log: Vec<Op>,
    /// Bytes that the log refers to.
    pub arena: Vec<u8>,
    /// Planned faults.
    pub faults: Vec<Fault>,
    /// Flushes by medium.
    pub flushes: Vec<u64>,
}

/// A world that several media share.
pub type SharedWorld = Rc<RefCell<World>>;

impl World {
    /// A world of media with these lengths.
    pub fn new(media: &[(Geometry, u64)]) -> World {
        World {
            images: media
                .iter()
                .map(|&(geometry, len)| Image {
                    data: vec![0; padded(len, geometry)],
                    len,
                    geometry,
                })
                .collect(),
            flushes: vec![0; media.len()],
            ..World::default()
        }
    }

    /// Wraps it for sharing.
    pub fn shared(self) -> SharedWorld {
        Rc::new(RefCell::new(self))
    }

    /// The content of a medium.
    pub fn content(&self, medium: u16) -> &[u8] {
        let image = &self.images[medium as usize];
        &image.data[..image.len as usize]
    }

    /// Changes bytes and logs the change.
    pub fn write(&mut self, medium: u16, off: u64, data: &[u8]) {
        let image = &mut self.images[medium as usize];
        let end = off as usize + data.len();
        if end > image.data.len() {
            image.data.resize(padded(end as u64, image.geometry), 0);
        }
        let at = self.arena.len();
        let place = &mut image.data[off as usize..end];
        self.arena.extend_from_slice(place);
        self.arena.extend_from_slice(data);
        place.copy_from_slice(data);
        self.log.push(Op::Write {
            medium,
            off,
            len: data.len(),
            at,
        });
        if end as u64 > image.len {
            let old = std::mem::replace(&mut image.len, end as u64);
            self.log.push(Op::SetLen {
                medium,
                old,
                new: end as u64,
            });
        }
    }

    /// Changes a length and logs the change.
    pub fn set_len(&mut self, medium: u16, new: u64) {
        let old = self.images[medium as usize].len;
        if new < old {
            let zeros = vec![0; (old - new) as usize];
            self.write(medium, new, &zeros);
        }
        let image = &mut self.images[medium as usize];
        if image.data.len() < new as usize {
            image.data.resize(padded(new, image.geometry), 0);
        }
        image.len = new;
        self.log.push(Op::SetLen { medium, old, new });
    }

    /// Takes everything back that was logged since the log had `mark` entries and the arena `bytes` bytes.
    pub fn roll_back(&mut self, mark: usize, bytes: usize) {
        for op in self.log.drain(mark..).rev() {
            match op {
                Op::Write {
                    medium,
                    off,
                    len,
                    at,
                } => {
                    let place =
                        &mut self.images[medium as usize].data[off as usize..off as usize + len];
                    place.copy_from_slice(&self.arena[at..at + len]);
                }
                Op::SetLen { medium, old, .. } => self.images[medium as usize].len = old,
                _ => {}
            }
        }
        self.arena.truncate(bytes);
    }

    fn fault(&mut self, medium: u16, on: FaultOn) -> Option<Fault> {
        let at = self
            .faults
            .iter()
            .position(|f| f.medium == medium && f.on == on)?;
        let fault = &mut self.faults[at];
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        let hit = *fault;
        if !hit.forever {
            self.faults.swap_remove(at);
        }
        Some(hit)
    }
}

/// Buffers end at an atom, so that an atom's bytes are always there.
fn padded(len: u64, geometry: Geometry) -> usize {
    len.next_multiple_of(geometry.atom as u64) as usize
}

/// A handle to one medium of a world.
#[derive(Debug, Clone)]
pub struct SimMedia {
    world: SharedWorld,
    medium: u16,
}

impl SimMedia {
    /// The medium `medium` of `world`.
    pub fn new(world: &SharedWorld, medium: u16) -> Self {
        SimMedia {
            world: world.clone(),
            medium,
        }
    }

    fn try_fault(&self, on: FaultOn, off: u64, data: &[u8]) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        if world.faults.is_empty() {
            return Ok(());
        }
        match world.fault(self.medium, on) {
            None => Ok(()),
            Some(fault) => {
                if fault.short > 0 && !data.is_empty() {
                    world.write(self.medium, off, &data[..fault.short.min(data.len())]);
                }
                Err(fault.kind.into())
            }
        }
    }

    fn geometry(&self) -> Geometry {
        self.world.borrow().images[self.medium as usize].geometry
    }

    fn do_persist(&self) {
        let mut world = self.world.borrow_mut();
        world.flushes[self.medium as usize] += 1;
        world.log.push(Op::Persist {
            medium: self.medium,
        });
    }
}

impl Media for SimMedia {
    fn len(&self) -> u64 {
        self.world.borrow().images[self.medium as usize].len
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.try_fault(FaultOn::SetLen, 0, &[])?;
        self.world.borrow_mut().set_len(self.medium, len);
        Ok(())
    }

    fn atom(&self) -> usize {
        self.geometry().atom
    }

    fn write_unit(&self) -> usize {
        self.geometry().unit
    }

    fn read(&self, off: u64, buf: &mut [u8]) -> io::Result<()> {
        let world = self.world.borrow();
        let content = world.content(self.medium);
        let from = content
            .get(off as usize..)
            .and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        self.try_fault(FaultOn::Write, off, data)?;
        self.world.borrow_mut().write(self.medium, off, data);
        Ok(())
    }

    fn write_line(&mut self, off: u64, mask: u8, words: &[u64]) -> io::Result<()> {
        let mut line = [0; 64];
        {
            let world = self.world.borrow();
            let from = world
                .content(self.medium)
                .get(off as usize..off as usize + 64);
            line.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        }
        let mut rest = mask;
        for word in words {
            let at = rest.trailing_zeros() as usize * 8;
            rest &= rest.wrapping_sub(1);
            line[at..at + 8].copy_from_slice(&word.to_ne_bytes());
        }
        // One entry of the log for the line: words that keep their value make no difference to what a crash can leave.
        self.write(off, &line)
    }

    fn persist(&mut self) -> io::Result<()> {
        self.try_fault(FaultOn::Persist, 0, &[])?;
        self.do_persist();
        Ok(())
    }

    fn write_durable(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        let unit = self.geometry().unit as u64;
        assert!(
            off.is_multiple_of(unit) && (data.len() as u64).is_multiple_of(unit),
            "unaligned durable write"
        );
        self.try_fault(FaultOn::WriteDurable, off, data)?;
        self.world.borrow_mut().write(self.medium, off, data);
        // Durable is what this call wrote; a write before it is not promised to be. Flushing the whole medium here would
        // hide a caller that relies on it, so the log says exactly what was promised.
        let len = data.len();
        let mut world = self.world.borrow_mut();
        world.flushes[self.medium as usize] += 1;
        world.log.push(Op::PersistRange {
            medium: self.medium,
            off,
            len,
        });
        Ok(())
    }

    fn flushes(&self) -> u64 {
        self.world.borrow().flushes[self.medium as usize]
    }
}

impl World {
    /// Like [`World::write`], where the length of the medium does not matter: for values that became durable.
    pub fn write_within(&mut self, medium: u16, off: u64, data: &[u8]) {
        let at = self.arena.len();
        let place = &mut self.images[medium as usize].data[off as usize..off as usize + data.len()];
        self.arena.extend_from_slice(place);
        self.arena.extend_from_slice(data);
        place.copy_from_slice(data);
        self.log.push(Op::Write {
            medium,
            off,
            len: data.len(),
            at,
        });
    }
}
