//! derive(Persist): pointer maps of Rust types.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
