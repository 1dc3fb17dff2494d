//! Calls over TCP, for hosts that share no memory.
//!
//! A connection is one socket. Messages are what they are over shared memory; an object travels as a copy of its graph
//! ([`crate::wire`]), which the receiver checks with the same rules, and counts as [`crate::Passed::Copied`].
//!
//! # Who may connect
//!
//! TCP has no users. A listener binds to the loopback address unless it is told otherwise, and may ask for a shared secret
//! ([`Tcp::with_token`]), which is compared in constant time. Nothing is encrypted, the secret neither: between hosts that do not
//! trust the network in between, put a tunnel around it. The mode of the channel does not apply.
//!
//! # What a peer can do
//!
//! Whatever arrives is bounded before it is kept: the greeting, plain bytes, a graph by the channel's limit, and the graphs that wait
//! for their handlers by twice that. Memory is taken as bytes arrive, not as a length promises. Anything out of form ends the
//! connection. A host that vanishes without a word is noticed by keep-alive probes, or by data that it does not acknowledge, after
//! [`SILENCE`].

mod dial;
#[doc(hidden)]
pub mod feed;
mod frame;
mod graphs;
mod halves;
mod hello;
mod link;
mod listen;
mod memory;

pub use dial::{SCHEME, Tcp};
pub use link::SILENCE;
pub use listen::TcpListener;
