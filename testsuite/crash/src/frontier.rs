//! What a crash may leave: for each atom that was written since it was last durable, any of the values that it had.

use std::collections::HashMap;

use crate::world::{Op, World};

/// Offset that stands for a medium's length.
const LEN: u64 = u64::MAX;

/// One atom, or the length of a medium, and every value that a crash can leave there. The first is the durable one, the
/// last the newest.
#[derive(Debug)]
pub struct Atom {
    /// Medium.
    pub medium: u16,
    off: u64,
    size: usize,
    /// Places in the frontier's bytes; equal neighbours are merged.
    versions: Vec<usize>,
}

impl Atom {
    /// How many values a crash can leave here.
    pub fn choices(&self) -> usize {
        self.versions.len().min(255)
    }
}

/// All atoms whose value after a crash is uncertain.
#[derive(Debug, Default)]
pub struct Frontier {
    /// The atoms, in the order of their first writes.
    pub atoms: Vec<Atom>,
    bytes: Vec<u8>,
    index: HashMap<(u16, u64), usize, Mix>,
}

/// Hashes by multiplication.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Mix;

impl std::hash::BuildHasher for Mix {
    type Hasher = MixHasher;
    fn build_hasher(&self) -> MixHasher {
        MixHasher(0)
    }
}

/// Multiplicative: the default hasher's resistance to attacks would be a large part of a nested crash's cost.
#[derive(Debug, Default)]
pub(crate) struct MixHasher(u64);

impl std::hash::Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }
    fn write_u16(&mut self, n: u16) {
        self.write_u64(n.into());
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(23) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Frontier {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.atoms.clear();
        self.bytes.clear();
        self.index.clear();
    }

    /// Takes a write or a change of length into account. `durable` is the state without the frontier; `arena` holds the
    /// bytes of the operation.
    pub fn add(&mut self, op: &Op, arena: &[u8], durable: &World) {
        match *op {
            Op::Write {
                medium,
                off,
                len,
                at,
            } => {
                self.add_write(medium, off, &arena[at + len..at + 2 * len], durable);
            }
            Op::SetLen { medium, new, .. } => {
                let old = durable.images[medium as usize].len;
                let i = self.atom(medium, LEN, 8, &old.to_le_bytes());
                self.add_version(i, 0, &new.to_le_bytes());
            }
            _ => {}
        }
    }

    fn add_write(&mut self, medium: u16, off: u64, data: &[u8], durable: &World) {
        let image = &durable.images[medium as usize];
        let size = image.geometry.atom;
        let (mut off, mut data) = (off, data);
        while !data.is_empty() {
            let start = off - off % size as u64;
            let skip = (off - start) as usize;
            let n = data.len().min(size - skip);
            let i = match self.index.get(&(medium, start)) {
                Some(&i) => i,
                None => {
                    let old = &image.data[start as usize..start as usize + size];
                    // Most of a block that is written again has not changed.
                    if old[skip..skip + n] == data[..n] {
                        (off, data) = (off + n as u64, &data[n..]);
                        continue;
                    }
                    self.atom(medium, start, size, old)
                }
            };
            self.add_version(i, skip, &data[..n]);
            (off, data) = (off + n as u64, &data[n..]);
        }
    }

    fn atom(&mut self, medium: u16, off: u64, size: usize, durable: &[u8]) -> usize {
        let next = self.atoms.len();
        let i = *self.index.entry((medium, off)).or_insert(next);
        if i == next {
            let at = self.bytes.len();
            self.bytes.extend_from_slice(durable);
            self.atoms.push(Atom {
                medium,
                off,
                size,
                versions: vec![at],
            });
        }
        i
    }

    fn add_version(&mut self, i: usize, skip: usize, data: &[u8]) {
        let atom = &mut self.atoms[i];
        let last = *atom.versions.last().expect("the durable value");
        if self.bytes[last + skip..last + skip + data.len()] == *data {
            return;
        }
        let at = self.bytes.len();
        self.bytes.extend_from_within(last..last + atom.size);
        self.bytes[at + skip..at + skip + data.len()].copy_from_slice(data);
        atom.versions.push(at);
    }

    /// Makes atoms durable that `which` selects by medium and offset: their newest value goes into `durable`, logged
    /// there if `logged`, and they leave the frontier.
    pub fn settle(
        &mut self,
        durable: &mut World,
        logged: bool,
        which: impl Fn(u16, Option<u64>) -> bool,
    ) {
        let mut kept = 0;
        for i in 0..self.atoms.len() {
            let atom = &self.atoms[i];
            if !which(atom.medium, (atom.off != LEN).then_some(atom.off)) {
                self.atoms.swap(kept, i);
                kept += 1;
                continue;
            }
            let (medium, off) = (atom.medium, atom.off);
            let newest = *atom.versions.last().expect("never empty");
            let value = &self.bytes[newest..newest + atom.size];
            if off == LEN {
                let len = u64::from_le_bytes(value.try_into().expect("a length"));
                let old = std::mem::replace(&mut durable.images[medium as usize].len, len);
                if logged {
                    durable.log.push(Op::SetLen {
                        medium,
                        old,
                        new: len,
                    });
                }
            } else if logged {
                durable.write_within(medium, off, value);
            } else {
                let place = &mut durable.images[medium as usize].data
                    [off as usize..off as usize + value.len()];
                place.copy_from_slice(value);
            }
        }
        self.atoms.truncate(kept);
        self.index.clear();
        for (i, atom) in self.atoms.iter().enumerate() {
            self.index.insert((atom.medium, atom.off), i);
        }
        if self.atoms.is_empty() {
            self.bytes.clear();
        }
    }

    /// Puts the chosen values into `world`, given that the values of `before` are there.
    pub fn apply(&self, world: &mut World, before: &mut [u8], choice: &[u8]) {
        let lens = self.atoms.iter().any(|a| a.off == LEN);
        for (i, atom) in self.atoms.iter().enumerate() {
            if before[i] == choice[i] && !lens {
                continue;
            }
            let at = atom.versions[choice[i] as usize];
            let value = &self.bytes[at..at + atom.size];
            let image = &mut world.images[atom.medium as usize];
            if atom.off == LEN {
                image.len = u64::from_le_bytes(value.try_into().expect("a length"));
            } else {
                image.data[atom.off as usize..atom.off as usize + atom.size].copy_from_slice(value);
            }
        }
        if lens {
            // What lies beyond the end that the crash left is gone.
            for atom in self.atoms.iter().filter(|a| a.off == LEN) {
                let image = &mut world.images[atom.medium as usize];
                image.data[image.len as usize..].fill(0);
            }
        }
        before.copy_from_slice(choice);
    }
}
