//! What can go wrong when a pool is exported or imported.

use super::Dangling;
use std::io;
use thiserror::Error;
use vernal_format::Uuid;
use vernal_format::archive::ArchiveError;
use vernal_heap::HeapError;
use vernal_heap::walk::Untyped;

/// Why a pool could not be exported or imported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ArchiveFailure {
    /// The archive itself.
    #[error("{name}: {source}")]
    Format {
        /// The archive.
        name: String,
        /// What is wrong with it.
        source: ArchiveError,
    },
    /// The operating system refused.
    #[error("{doing} {name}: {source}{remedy}", remedy = remedy(source))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        name: String,
        /// What it said.
        source: io::Error,
    },
    /// A file of a pool that should not change did.
    #[error(
        "{name} has {found} bytes, its puddle has {expected}: the pool is damaged or is being changed"
    )]
    Length {
        /// The file.
        name: String,
        /// Its length.
        found: u64,
        /// The puddle's.
        expected: u64,
    },
    /// There is no pool there.
    #[error("{name} is no pool: it has no root.puddle; give the directory of a pool")]
    NoPool {
        /// What was given.
        name: String,
    },
    /// A puddle is missing.
    #[error("{name} lacks puddle {uuid}: put its file back, or import an archive of the pool")]
    Missing {
        /// The pool.
        name: String,
        /// The puddle.
        uuid: Uuid,
    },
    /// The allocator's metadata are not valid.
    #[error("{name}: {source}")]
    Heap {
        /// The pool.
        name: String,
        /// What is wrong.
        source: HeapError,
    },
    /// Something else does not fit together.
    #[error("{name} is damaged: {why}")]
    Damaged {
        /// The file or pool.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Locking or recovering a puddle failed.
    #[error(transparent)]
    Snapshot(vernal_snapshot::Error),
    /// Pointers lead out of the pool.
    #[error(
        "{name}: {count} pointers lead out of the pool{first}; they would mean nothing elsewhere: clear them, or export with --allow-dangling",
        first = first(list)
    )]
    Dangling {
        /// The pool.
        name: String,
        /// How many.
        count: u64,
        /// The first of them.
        list: Vec<Dangling>,
    },
    /// Memory without type holds what looks like pointers into the pool.
    #[error(
        "{name}: {count} words of memory without type are addresses of objects of the pool{first}; nobody can rewrite them, and a program would crash \
         that follows them at other addresses: give that memory a type (`vn::allocator` instead of `vn::memory_resource`), or use --allow-untyped if they \
         are never followed",
        first = first_untyped(list)
    )]
    Untyped {
        /// The pool.
        name: String,
        /// How many.
        count: u64,
        /// The first of them.
        list: Vec<Untyped>,
    },
    /// The new pool's name is taken.
    #[error("{name} exists already: choose another name, or remove it with `vernal pool rm`")]
    Exists {
        /// The name.
        name: String,
    },
    /// Whoever keeps the pools refused.
    #[error("{name}: {why}")]
    Refused {
        /// The pool.
        name: String,
        /// What it said.
        why: String,
    },
    /// There is no room for its puddles.
    #[error("no address is free for {size} bytes of {name}: remove pools that are not used")]
    NoAddress {
        /// The pool.
        name: String,
        /// Bytes of the puddle.
        size: u64,
    },
}

fn first(list: &[Dangling]) -> String {
    list.first().map_or(String::new(), |d| {
        format!(
            ", the first is {} of the object at {:#x}, to {:#x}",
            d.field, d.object, d.target
        )
    })
}

fn first_untyped(list: &[Untyped]) -> String {
    list.first().map_or(String::new(), |u| {
        format!(
            ", the first is {:#x} in the memory at {:#x}",
            u.value, u.object.addr
        )
    })
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": make room and run it again, nothing is left behind"
        }
        io::ErrorKind::BrokenPipe => ": the reader of the archive has gone away",
        _ => "",
    }
}

impl ArchiveFailure {
    pub(crate) fn io(doing: &'static str, name: &str, source: io::Error) -> ArchiveFailure {
        ArchiveFailure::Io {
            doing,
            name: name.to_owned(),
            source,
        }
    }

    pub(crate) fn format(name: &str, source: ArchiveError) -> ArchiveFailure {
        ArchiveFailure::Format {
            name: name.to_owned(),
            source,
        }
    }
}
