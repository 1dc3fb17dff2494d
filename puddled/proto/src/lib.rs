//! The messages between puddled and its clients: versioned, bounded, parsed from hostile bytes.
//!
//! A connection is a Unix socket of type `SOCK_SEQPACKET`: one packet is one message, whole or not at all, so there is no
//! length prefix that could lie and no half message that could keep a reader waiting. Descriptors travel beside a
//! message (`SCM_RIGHTS`), in the order in which the message names what they are.
//!
//! ```text
//!   0  u8       version   0 for Hello and its answer (their layout never changes), else the version agreed on
//!   1  postcard message   Request or Reply, at most MAX_FRAME - 1 bytes
//! ```
//!
//! A client sends [`Hello`] first and then one request at a time; each gets exactly one [`Reply`]. Nothing is believed
//! because it parsed: [`Request::decode`] also checks every limit of [`limits`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod error;
mod frame;
pub mod limits;
mod name;
mod reply;
mod request;
mod types;

pub use error::{ErrorCode, Failure, ProtoError};
pub use frame::{Hello, VERSION_MAX, VERSION_MIN, Welcome, choose_version};
pub use name::{NameProblem, check_name};
pub use reply::{Condition, JournalInfo, LogInfo, PoolStat, PuddleInfo, Reply, Status, UseInfo};
pub use request::{Request, StagedPuddle};
pub use types::{Access, Id, PoolKind};
