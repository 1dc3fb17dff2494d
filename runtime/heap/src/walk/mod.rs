//! The one walker: everything that follows or rewrites pointers goes through here.
//!
//! [`Plan`] says where a type's addresses are, and is the only code that turns a type and an object into words. On it
//! stand two ways through a pool. [`Rewrite`] goes through allocator metadata, chunk by chunk: relocation, rebinding,
//! redirection. [`Walker`] goes through the graph, from the root: iterative, each object once, within a [`Budget`];
//! its visitors are [`reach`], [`verify`], [`inspect`] and [`copy`]. [`scan_external`] lists pointers out of the pool,
//! by chunk. [`Examiner`] goes through the graph of a peer that is not trusted, and verifies or copies it.
//!
//! A pool may be damaged or made by an attacker. No walk trusts a pointer before the heap has said what lies there, none
//! reads outside the pool's words, and none recurses.

mod copy;
mod graph;
mod inspect;
mod matching;
mod path;
mod peer;
mod plan;
mod reach;
mod rewrite;
mod scan;
mod translate;
mod verify;

pub use copy::{CopyError, CopyReport, CopyTarget, External, copy};
pub use graph::{Budget, Edge, Flow, Target, View, Visitor, WalkReport, Walker, target_of};
pub use inspect::{FieldValue, Value, inspect};
pub use matching::{Match, pointer_matches};
pub use path::Trail;
pub use peer::{
    Allowed, Arena, Demand, Examiner, GraphCopy, GraphError, GraphReport, GraphTarget, KnownTypes,
    Placed,
};
pub use plan::{Plan, Plans, Run, Window};
pub use reach::reach;
pub use rewrite::{Binding, Refused, Rewrite, RewriteError, RewriteReport};
pub use scan::{Finding, PoolRanges, Untyped, scan_external, scan_untyped};
pub use translate::{Hint, MAX_RANGES, Move, Redirects, Translate, Translation, TranslationError};
pub use verify::{Fault, Problem, VerifyOptions, VerifyReport, verify};
