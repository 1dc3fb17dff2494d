//! What an examination is told, and what it says.

use std::convert::Infallible;
use std::sync::atomic::AtomicU64;
use thiserror::Error;

use crate::walk::Fault;
use vernal_format::types::TypeDesc;

/// Where an examination may look.
#[derive(Debug, Clone, Copy)]
pub enum Allowed<'a> {
    /// Everywhere in the peer's heap.
    All,
    /// Only inside these ranges, by address: start and end. What lies outside is not sealed.
    Ranges(&'a [(u64, u64)]),
}

/// Where a copy lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placed {
    /// Its address.
    pub addr: u64,
    /// What the target makes of it.
    pub block: usize,
    /// The same.
    pub word: usize,
}

/// Where copies go: memory that no peer can write, and that nobody else knows yet.
pub trait GraphTarget {
    /// What can go wrong there.
    type Error;
    /// Room for an object of `size` bytes, a multiple of 8, at a multiple of `align`. `ty`: its type, the receiver's own.
    fn place(
        &mut self,
        size: u64,
        align: u64,
        ty: Option<&TypeDesc>,
    ) -> Result<Placed, Self::Error>;
    /// The words of an object that was placed.
    fn words(&self, at: Placed, count: usize) -> Option<&[AtomicU64]>;
}

/// What an examination did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GraphReport {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Pointers that are not null.
    pub pointers: u64,
}

/// A graph that was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GraphCopy {
    /// Address of the root's copy.
    pub root: u64,
    /// What was copied.
    pub report: GraphReport,
}

/// Why a graph is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GraphError<E = Infallible> {
    /// Something in it is wrong.
    #[error("{place} (at {addr:#x}) {fault}")]
    Fault {
        /// Type and field, or `root`.
        place: String,
        /// Address of the field.
        addr: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// More than the budget allows.
    #[error(
        "the graph has more than {objects} objects or {bytes} bytes: send less, or raise the receiver's limit"
    )]
    Budget {
        /// Objects allowed.
        objects: u64,
        /// Bytes allowed.
        bytes: u64,
    },
    /// The receiver does not know the type that it asks for.
    #[error("no type with the id {id:016x} is known here: pass it to the set of known types")]
    Expected {
        /// The id.
        id: u64,
    },
    /// The target of the copy refused.
    #[error("the target of the copy: {0}")]
    Target(E),
}
