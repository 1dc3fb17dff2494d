//! Real programs built with `vernal-cc`, `vernal-c++` and `cargo vernal`, at each optimisation level and through LTO, with
//! their state in a mapped file: audited (no byte may change without a mark), killed at random moments, restarted, and
//! compared step by step with a twin in volatile memory.
//!
//! ```text
//! sources   where the code is: packages of the cargo registry, Debian's source packages, this folder's harness/
//! programs  the table: sources and flags of each program
//! build     programs x levels -> executables, cached by content
//! check     audit, kills, twin
//! attack    kills at random moments, and how an example is used and attacked; pools share it
//! ```
//!
//! Nothing third-party is kept here: the packages bring their own sources.
#![forbid(unsafe_code)]

pub mod attack;
pub mod build;
pub mod check;
pub mod examples;
pub mod programs;
pub mod rust;
pub mod sources;
pub mod tools;

/// What went wrong, as a line for the user.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// A result with such an error.
pub type Result<T> = std::result::Result<T, Error>;
