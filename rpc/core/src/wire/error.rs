//! Why bytes are no graph that this side takes.

use std::convert::Infallible;

use thiserror::Error;
use vernal_heap::walk::GraphError;

/// Why an image is refused. Whatever arrives, this is all that happens.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError<E = Infallible> {
    /// A number that no encoder writes.
    #[error(
        "the graph's {what} is {found:#x}, not {expected:#x}: it was not made by this version of the encoder"
    )]
    Header {
        /// Which number.
        what: &'static str,
        /// As it arrived.
        found: u64,
        /// As it has to be.
        expected: u64,
    },
    /// It ends too early.
    #[error("the graph ends in its {what}: it was cut off, or made by an attacker")]
    Short {
        /// In what.
        what: &'static str,
    },
    /// A byte has changed.
    #[error(
        "the graph's checksum is {found:#x}, not {expected:#x}: its bytes were changed on the way"
    )]
    Checksum {
        /// Of these bytes.
        found: u64,
        /// As it says.
        expected: u64,
    },
    /// A type that the receiver has never heard of.
    #[error(
        "the graph has objects of type `{name}` (id {id:016x}), which is not known here: pass it to the set of known types"
    )]
    UnknownType {
        /// Its name, as the sender gives it.
        name: String,
        /// Its id.
        id: u64,
    },
    /// A type whose name is not the one of its id.
    #[error(
        "the graph calls the type {id:016x} {found:?}, here it is `{expected}`: one of the ids is forged"
    )]
    TypeName {
        /// Its id.
        id: u64,
        /// As the sender calls it.
        found: String,
        /// As this side does.
        expected: String,
    },
    /// An entry of the table of spans that no encoder writes.
    #[error("span {index} of the graph has {what} {found}")]
    Span {
        /// Which.
        index: usize,
        /// What is wrong.
        what: &'static str,
        /// Its value.
        found: u64,
    },
    /// The root is of another type than asked for.
    #[error("the graph's root has type {found:016x}, where {expected:016x} is expected")]
    Root {
        /// As it says.
        found: u64,
        /// As asked for.
        expected: u64,
    },
    /// Objects that no pointer leads to.
    #[error(
        "the graph has {sent} objects, of which only {reached} can be reached: no encoder sends others"
    )]
    Unreached {
        /// Objects in the image.
        sent: u64,
        /// Objects of the graph.
        reached: u64,
    },
    /// What the objects hold is wrong.
    #[error(transparent)]
    Graph(#[from] GraphError<E>),
}
