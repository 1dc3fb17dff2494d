//! puddled with real processes and real users: kills, forgeries, revoked credentials, a thousand clients.
//!
//! * [`Place`]: a data directory of its own and the puddled that runs on it.
//! * [`Actor`]: a client process, run as some user, that does what it is told line by line. It speaks the raw protocol and commits with
//!   `vernal-journal`, so that a test says exactly what reaches puddled. The program `puddled-rpc` is one for channels.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod actor;
mod packed;
mod place;
pub mod rpc;

pub use packed::{pack, unpack};
pub use place::{Actor, Place, USER_A, USER_B, need_root, run_id, spawn, until};
