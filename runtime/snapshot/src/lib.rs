//! Write tracking and failure-atomic `msync`: the Snapshot half of Vernal (thesis, chapter 2).
//!
//! Compiled code marks the lines that it writes ([`thread`]); a commit gathers them ([`runtime`], `commit.rs`), compares
//! them with the home image, and hands what changed to the journal (`vernal-journal`). This crate knows nothing of the C
//! interface, of allocation or of types.
#![warn(missing_docs)]
mod audit;
mod barrier;
mod commit;
pub mod config;
mod deferred;
mod error;
mod extent;
mod file;
mod gate;
pub mod inject;
pub mod lock;
pub mod runtime;
mod space;
pub mod thread;

pub use error::Error;
pub use file::{
    Owned, fresh_uuid, journal_path, meta_path, own, recover_path, remove_if_orphan,
    resolve_journal, sweep_journals, write_meta,
};
pub use gate::{enter as op_begin, leave as op_end};
pub use space::{is_free, pick_puddle};
