//! Typed heaps in puddles: allocator, type registry and the one graph walker.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
