//! The graph of a peer that is not trusted: verified where it lies, or copied while it is verified.
//!
//! [`Walker`](super::Walker) follows what the heap says is there, and asks again whenever it needs to know. A peer's heap may
//! say something else each time, so here the receiver's own types lead: they say what each pointer must point to, and the
//! heap is only asked, once, whether it does. What it answered counts until the end of the examination.
//!
//! - Types are the receiver's ([`KnownTypes`]). The peer's descriptors are compared with them and serve for nothing else.
//! - A pointer is null, or names the start of an object of its declared type, or of an element or part of that type.
//! - Lengths that stand beside a pointer (`PVec`, `PString`, `std::vector`, `std::string`) stay inside its object; text is
//!   text; C's strings end.
//! - A copy loads each word once. What is checked is the copy.
//!
//! What is not checked: the order of a tree's keys, the sum of a hash table, what a program's own indices mean.

mod arena;
mod bounds;
mod decided;
mod examine;
mod known;
mod outcome;
mod shape;
mod step;

pub use arena::Arena;
pub use examine::Examiner;
pub use known::KnownTypes;
pub use outcome::{Allowed, GraphCopy, GraphError, GraphReport, GraphTarget, Placed};
pub use shape::Demand;
