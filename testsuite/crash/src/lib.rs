//! The crash model: proof by enumeration that what Vernal commits survives, whatever a crash leaves of the rest.
//!
//! A *life* ([`scenarios`]) runs on simulated media ([`world`]) with the real journal and the real commit engine, and is
//! recorded. The [`explore`]r walks the record; at each flush it makes every legal crash state ([`frontier`],
//! [`choices`]), recovers it with the real recovery, crashes inside that recovery too, and compares with the list of
//! committed states. Everything random follows from a printed seed.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod choices;
pub mod direct;
pub mod explore;
pub mod frontier;
pub mod litmus;
pub mod mutants;
pub mod rng;
pub mod run;
pub mod scenarios;
pub mod session;
pub mod structures;
pub mod world;
