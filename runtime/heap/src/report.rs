//! Plain values that the heap takes and returns.

use vernal_format::Uuid;

/// A puddle as it is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// Its identity.
    pub uuid: Uuid,
    /// Where it is mapped.
    pub addr: u64,
    /// Its bytes.
    pub size: u64,
}

/// Who a pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolIdentity {
    /// The pool's identity.
    pub uuid: Uuid,
    /// Its name, at most 63 bytes.
    pub label: String,
    /// Whether the pool is changed in place.
    pub direct: bool,
}

/// A puddle as the pool's directory has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its place in the directory; 0 is the root puddle.
    pub slot: usize,
    /// Its identity.
    pub uuid: Uuid,
    /// Its bytes.
    pub size: u64,
    /// The address for which pointers of the current epoch are valid.
    pub current: u64,
    /// The address for which pointers of the epoch before are valid.
    pub previous: u64,
}

/// Something that `check` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub addr: u64,
    /// What.
    pub what: String,
    /// Whether the heap works on, only wasting memory.
    pub harmless: bool,
}

/// Objects of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TypeUse {
    /// Objects.
    pub objects: u64,
    /// Their usable bytes.
    pub bytes: u64,
}

/// What `check` found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckReport {
    /// Problems, at most [`CheckReport::MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// Problems beyond those listed.
    pub more_problems: u64,
    /// By type index, ascending.
    pub types: Vec<(u32, TypeUse)>,
    /// All objects and their usable bytes.
    pub all: TypeUse,
    /// Bytes of free pages.
    pub free_pages: u64,
    /// Bytes of free slots in slabs.
    pub free_slots: u64,
    /// Bytes of the largest block of free pages.
    pub largest_free: u64,
    /// Bytes of headers, slab headers and rounding.
    pub overhead: u64,
    /// Bytes of all puddles.
    pub total: u64,
}

impl CheckReport {
    /// Problems that are listed; more are only counted.
    pub const MAX_PROBLEMS: usize = 1000;

    /// Whether nothing was found, or only what wastes memory.
    pub fn is_sound(&self) -> bool {
        self.more_problems == 0 && self.problems.iter().all(|p| p.harmless)
    }

    /// How much of the free pages is outside the largest free block: 0 when all are in one.
    pub fn fragmentation(&self) -> f64 {
        if self.free_pages == 0 {
            return 0.0;
        }
        1.0 - self.largest_free as f64 / self.free_pages as f64
    }

    pub(crate) fn problem(&mut self, addr: u64, harmless: bool, what: String) {
        if self.problems.len() < Self::MAX_PROBLEMS {
            self.problems.push(Problem {
                addr,
                what,
                harmless,
            });
        } else {
            self.more_problems += 1;
        }
    }
}
