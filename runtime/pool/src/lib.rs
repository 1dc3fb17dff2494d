//! Pools in a process: puddles mapped at their home addresses, transactions, relocation on first touch.
#![warn(missing_docs)]

pub mod archive;
pub mod direct;
mod error;
pub mod source;

pub use error::Error;
