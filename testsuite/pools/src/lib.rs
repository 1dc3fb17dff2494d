//! Programs on pools, in C, C++ and Rust: killed at injection points and at random moments, restarted, moved to another
//! address, and compared with twins in volatile memory after each.
//!
//! ```text
//! programs/    C++: every container of the library, with vn::allocator and through std::pmr
//! rust-pool/   Rust: a tree, vectors and strings, built by plain cargo and by cargo vernal
//! ui/          Rust that must not compile
//! build        programs x levels -> executables
//! subject      what is demanded of each
//! kernel       system calls on memory of a moved pool that nobody has touched
//! examples     the examples on pools in testsuite/examples: built, used, killed, checked
//! ```
#![forbid(unsafe_code)]

pub mod build;
pub mod examples;
pub mod kernel;
pub mod subject;

pub use vernal_programs::{Error, Result};
