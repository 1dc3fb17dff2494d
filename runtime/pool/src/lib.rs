//! Pools in a process: puddles mapped at their home addresses, transactions, relocation on first touch.
//!
//! A [`Pool`] takes its files from a [`source::PoolSource`], maps them, and lays a typed heap over them. Everything the heap
//! keeps is ordinary tracked memory: it commits and rolls back with the program's data. [`tx`] brackets what belongs
//! together; [`dir`] looks after a pool's files without mapping them.
#![warn(missing_docs)]

pub mod archive;
mod binding;
pub mod capi;
mod copy;
pub mod dir;
pub mod direct;
mod embedded;
mod error;
pub mod foreign;
mod inner;
mod lazy;
mod local;
mod locks;
mod memory;
pub mod migrate;
mod pool;
pub mod program;
mod registry;
pub mod segment;
mod served;
pub mod source;
pub mod tx;

pub use embedded::DirSource;
pub use error::Error;
pub use lazy::{allow_untyped, any_waiting, touch_range};
pub use pool::{OpenOptions, Pool};
pub use served::ClientSource;
