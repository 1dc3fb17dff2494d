//! Typed heaps in puddles: allocator, type registry and the one graph walker.
//!
//! A [`Heap`] lies in the puddles of a pool. All its state is ordinary words of those puddles, reached through
//! [`PoolMemory`]: it commits and rolls back together with user data, and a dead process leaves nothing behind but objects
//! that it had not linked yet. What a process keeps beside it (free lists, which thread owns which span) are hints, rebuilt
//! from the puddles' headers. `docs/format.md` draws the layouts.
//!
//! # What the heap asks of a pool
//!
//! - *Buffered pools.* A call that changes several words must not be cut by a commit of another thread: each call of the heap
//!   runs inside an `op` bracket. After an abort, [`Heap::restored`] is told of the lines that were copied back.
//! - *Direct pools.* A transaction that allocates or frees keeps every other one out of the heap until it ends: two threads
//!   change bits of one word, and undoing one would undo the other. Frees are made at commit, not before: memory that is
//!   free again would be given away, and its content is in no log. [`Heap::object_exact`] checks at the call what
//!   [`Heap::free`] will check at commit.
//! - *Lazy relocation.* [`Heap::open`] reads headers, the pool page and all types. Chunks can be protected afterwards;
//!   [`for_each_object_in`] and [`ObjectSpace::type_desc`] then take no lock and allocate nothing, so the handler that
//!   rewrites a chunk may call them.
//! - *Several processes* that change one pool exclude each other; whoever comes back after another one opens the heap again
//!   or calls [`Heap::restored`] for all of it.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod alloc;
mod batch;
mod block;
mod cache;
mod check;
mod error;
mod foreign;
mod free;
mod heap;
mod locks;
mod memory;
mod object_set;
mod pages;
mod pool_page;
mod puddles;
mod report;
mod space;
mod type_table;
pub mod types;
pub mod walk;

pub use block::{find_object, for_each_object_in};
pub use cache::ThreadCache;
pub use error::HeapError;
pub use foreign::{FOREIGN_TYPE_BYTES_MAX, FOREIGN_TYPES_MAX, ForeignSpace};
pub use heap::Heap;
pub use locks::{HeapLock, Locks, StdLocks};
pub use memory::{OwnedMemory, PoolMemory};
pub use object_set::ObjectSet;
pub use report::{CheckReport, DirectoryEntry, Mapped, PoolIdentity, Problem, TypeUse};
pub use space::{Object, ObjectSpace, Span, SpanSpace};

/// Type index of memory whose type nobody named.
pub const TYPE_RAW: u32 = 0;
/// Type index of the pool's own blobs: type descriptors, the binding record.
pub const TYPE_META: u32 = 1;
/// Type index of the first entry of the pool's type table.
pub const TYPE_FIRST: u32 = 2;
