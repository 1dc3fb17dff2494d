//! Which stores need a mark, and where the marks go.
//!
//! The pure half of Vernal's compiler pass: a [`model::Function`] (control flow, stores, barriers) goes in, a
//! [`plan::Plan`] (marks at program points) comes out. This crate knows nothing of LLVM; `llvm-pass/emit` extracts the
//! model from IR and puts the marks back.
//!
//! # The rule
//!
//! On every path, each store that may reach tracked memory is followed by a mark that covers it before the next
//! *barrier*: a point that may commit or publish, leave the function, or unwind. A mark never stands before a store it
//! covers, because another thread may commit in between. [`check`] states the rule by brute force; the tests hold
//! [`place`] against it.
#![forbid(unsafe_code)]

pub mod bits;
pub mod check;
pub mod libc;
pub mod model;
pub mod place;
pub mod plan;
pub mod skip;

pub use model::{Access, Block, Event, Function, Key, Loop, Store};
pub use place::place;
pub use plan::{Mark, MarkKind, Plan, Point, Site};
pub use skip::{Counters, Skip};
