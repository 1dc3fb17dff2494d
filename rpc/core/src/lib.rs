//! The runtime of remote procedure calls that pass pointers.
//!
//! A server opens a [`Registry`] name as a channel and serves methods; a client connects and calls. What travels in a message is
//! a few words: plain bytes, or the address of an object in the sender's heap. Every byte of shared memory has one process that
//! may write it; all others map it read-only (`docs/adr/0018-single-owner-rpc-memory.md`), so that a receiver can be lied to but
//! never be made to write for somebody else.
//!
//! Layers, from below:
//!
//! - [`registry`]: who gives names, memory and control sockets: puddled, or the process itself.
//! - [`transport`]: one end of a connection as two halves that move [`Message`]s and a [`transport::Link`] that knows the peer. Shared
//!   memory and TCP implement it; nothing above knows which one it has.
//! - calls: completion table, deadlines, cancellation, streams, the server's loop. Written once, for every transport.
#![warn(missing_docs)]

mod client;
mod error;
mod exclusive;
mod inject;
mod latency;
mod message;
pub mod modes;
mod options;
mod outbox;
pub mod registry;
mod sandbox;
mod server;
pub mod shm;
pub mod tcp;
mod trace;
pub mod transport;
pub mod wire;

pub use client::{Connection, PendingCall, Reply, Stream};
pub use error::{Code, Error, Failure};
pub use latency::Latency;
pub use message::{Body, INLINE_MAX, Inline, Kind, Message, TEXT_MAX};
pub use options::{
    CallOptions, ChannelOptions, ConnectOptions, Passed, Sandbox, Trust, WaitPolicy, program_types,
};
pub use registry::Registry;
pub use sandbox::hide;
pub use server::{Answer, Call, Channel, Signature, Stats};
pub use vernal_heap::walk::KnownTypes;
