//! Rings between two processes that do not trust each other, in memory that one side writes and the other only reads.
//!
//! One direction is a [`Producer`] and a [`Consumer`]. The slots, one cache line each, lie in the producer's memory; the
//! consumer's *line* (how far it has read, whether it sleeps) lies in the consumer's. Each side maps the other's memory
//! read-only, so that neither can forge what the other says: a peer can only lie about itself, and a lie ends the
//! connection with a typed [`Corrupt`].
//!
//! ```text
//!   memory of side A (A writes, B reads)            memory of side B (B writes, A reads)
//!   ┌───────────────────────────────┐               ┌───────────────────────────────┐
//!   │ line: head of B→A, sleep word │               │ line: head of A→B, sleep word │
//!   ├───────────────────────────────┤               ├───────────────────────────────┤
//!   │ slots of A→B, 64 B each       │ ──messages──> │ slots of B→A, 64 B each       │ ──messages──> A
//!   └───────────────────────────────┘               └───────────────────────────────┘
//! ```
//!
//! A message moves exactly one cache line. The word with its sequence number is written last; the consumer reads each word
//! once into its own memory and decides on the copy. Credits (the consumer's head) travel once per quarter of a ring.
//!
//! [`StreamProducer`] and [`StreamConsumer`] are the same for plain bytes, which the shim for stream sockets uses.
//!
//! # Sleeping
//!
//! [`Sleeper`] and [`Ringer`] are the handshake without lost wake-ups: *announce, fence, look again, block* on one side and
//! *publish, fence, look whether the other sleeps* on the other. What blocking means is the caller's: an eventfd, a futex or
//! a condition variable behind [`Park`]. A side whose kernel can wait on a word that it may only read (a futex) sleeps on the peer's
//! [`Bell`] instead: no descriptor, one system call to sleep and one to wake. [`Backoff`] says how long to spin before.
//!
//! # Memory
//!
//! The rings reach words and fences only through [`OwnWords`] and [`PeerWords`]. [`Mapped`] is real memory, coherent or with
//! explicit write-back ([`Coherence`]); the tests run the same code on loom's memory, where every stale read that the
//! language allows happens, and on a simulated machine without coherence.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod backoff;
mod coherence;
mod consumer;
mod endpoint;
mod error;
mod layout;
mod mapped;
mod message;
mod producer;
mod sleep;
mod stream;
mod words;

pub use backoff::{Backoff, Step, Wait, WaitPolicy};
pub use coherence::{CacheControl, Coherence, Coherent};
pub use consumer::Consumer;
pub use endpoint::{Endpoint, Park, Received};
pub use error::{Corrupt, RingError, SendError};
pub use layout::{Area, BELL, DEFAULT_SLOTS, LINE_BYTES, LINE_WORDS, MAX_SLOTS};
pub use mapped::Mapped;
pub use message::{Body, INLINE_MAX, Inline, Message, ObjectRef};
pub use producer::Producer;
pub use sleep::{Bell, Ringer, Sleeper};
pub use stream::{StreamArea, StreamConsumer, StreamProducer};
pub use words::{OwnWords, PeerWords};
