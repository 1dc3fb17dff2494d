//! The parts of the command `vernal` that its tests use too: the page of `vernal inspect`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod page;
