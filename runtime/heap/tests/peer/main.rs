//! Graphs of a peer that is not trusted.

mod attacks;
mod lengths;
mod once;
mod random;
mod world;
