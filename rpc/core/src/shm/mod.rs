//! Shared memory as a transport: rings in segments that one side writes and the other only reads.
//!
//! ```text
//!   client                                             server
//!   ring segment  ── mapped read-only ──────────────>  reads calls, the client's line, its texts
//!   reads replies  <────────────── mapped read-only ── ring segment
//!   heap          ── mapped read-only ──────────────>  arguments
//!                  <────────────── mapped read-only ── heap: replies; the channel's heap
//!   control socket <─────────────── greeting ───────>  control socket: its hang-up is the peer's death
//!   wake           ──────────────── a byte ─────────>  wait
//! ```
//!
//! `docs/format.md` draws the ring segment. Everything in a peer's segment is hostile: a word is read once, and what is done
//! depends on that copy only.

mod bulk;
mod dial;
mod greet;
mod heap;
mod inspect;
mod layout;
mod lease;
mod link;
mod listen;
mod rings;
mod segment;
mod source;
mod stats;
mod text;

pub use dial::Shm;
#[doc(hidden)]
pub use greet::check_greeting;
pub use heap::ChannelHeap;
pub(crate) use inspect::Inspector;
pub(crate) use link::Limits;
pub use link::ShmLink;
pub use listen::ShmListener;
pub use stats::RingStats;
