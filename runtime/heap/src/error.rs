//! What can go wrong in a heap.

use thiserror::Error;
use vernal_format::Uuid;

/// Why the heap refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeapError {
    /// No puddle has room: add one of at least `need` bytes and try again.
    #[error("no puddle of the pool has room: it needs another puddle of at least {need} bytes")]
    Full {
        /// Smallest puddle in which the request fits.
        need: u64,
    },
    /// No puddle can be that large.
    #[error("{size} bytes are more than any puddle holds: split the object")]
    TooLarge {
        /// Bytes asked for.
        size: u64,
    },
    /// The alignment is no power of two up to 4096.
    #[error("alignment {align} is not a power of two up to 4096: align within the object instead")]
    Align {
        /// Alignment asked for.
        align: u64,
    },
    /// The address lies in none of the pool's puddles.
    #[error("{addr:#x} lies in no puddle of this pool: it was not allocated here")]
    Outside {
        /// The address.
        addr: u64,
    },
    /// There is no object at the address.
    #[error("{addr:#x} is no allocated object: it was never allocated, or it was freed before")]
    NotAllocated {
        /// The address.
        addr: u64,
    },
    /// The address points into an object.
    #[error(
        "{addr:#x} points into the object at {object:#x}: pass the address that the allocation returned"
    )]
    Interior {
        /// The address.
        addr: u64,
        /// The object's first byte.
        object: u64,
    },
    /// Metadata contradicts itself.
    #[error("the heap is damaged: {what} at {addr:#x} is {value:#x}; run `vernal pool check`")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// Where it lies.
        addr: u64,
        /// Its value.
        value: u64,
    },
    /// A structure cannot be read.
    #[error("{why} (at {addr:#x})")]
    Format {
        /// Where it lies.
        addr: u64,
        /// What is wrong.
        why: String,
    },
    /// A pool cannot be called that.
    #[error("{label:?} cannot be the name of a pool: use at most 63 bytes without a zero byte")]
    Label {
        /// The name.
        label: String,
    },
    /// Memory that belongs to the pool is not mapped.
    #[error("{len} bytes at {addr:#x} are not mapped: open all puddles of the pool")]
    Unmapped {
        /// First byte.
        addr: u64,
        /// Length.
        len: u64,
    },
    /// The pool has as many puddles as it can have.
    #[error(
        "the pool has {count} puddles, which is the limit: move it to larger puddles by export and import"
    )]
    TooManyPuddles {
        /// Puddles.
        count: usize,
    },
    /// This is no puddle of the pool.
    #[error("puddle {uuid} is not in the pool's directory")]
    UnknownPuddle {
        /// Which.
        uuid: Uuid,
    },
    /// The directory names a puddle that was not given.
    #[error("puddle {uuid} of the pool is missing: restore its file, or check the pool")]
    MissingPuddle {
        /// Which.
        uuid: Uuid,
    },
    /// The puddle cannot be used as what it was given for.
    #[error("puddle {uuid} cannot be used: {why}")]
    BadPuddle {
        /// Which.
        uuid: Uuid,
        /// Why.
        why: &'static str,
    },
    /// The puddle holds objects.
    #[error("puddle {uuid} is not empty: free its objects first")]
    NotEmpty {
        /// Which.
        uuid: Uuid,
    },
    /// The type index is not in the pool's type table.
    #[error("type index {index} is not in the pool's type table, which has {count} entries")]
    UnknownType {
        /// The index.
        index: u32,
        /// Entries.
        count: u64,
    },
    /// A descriptor cannot be taken into the type table.
    #[error("the type descriptor is refused: {why}")]
    BadType {
        /// Why.
        why: String,
    },
    /// The thread cache belongs to another heap.
    #[error("the thread cache belongs to another pool: use one cache for each pool and thread")]
    ForeignCache,
    /// The memory could not take a change.
    #[error("{len} bytes at {addr:#x} cannot be changed: {why}")]
    Refused {
        /// First byte.
        addr: u64,
        /// Length.
        len: u64,
        /// What the memory said.
        why: String,
    },
}
