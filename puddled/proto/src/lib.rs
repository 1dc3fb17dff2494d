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
//! Version 2 adds channels: [`Request::ChannelOpen`] and what follows it. A server gets a socket of its own for each channel, on
//! which puddled sends [`Announce`]s, and both sides of a connection get three descriptors each:
//!
//! ```text
//!   control   one end of a SOCK_SEQPACKET pair; puddled keeps nothing of it, so its hang-up is the news that the other side died
//!   wait      the read end of a pipe: readable when the other side wants this one to wake up
//!   wake      the write end of the other side's pipe, non-blocking: a full pipe is awake enough
//! ```
//!
//! Pipes and not one eventfd for both: the two ends of a pipe have flags of their own. A peer that shares an eventfd can clear
//! `O_NONBLOCK`, fill it, and so stop whoever wants to wake it for ever.
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
mod rpc;
mod types;

pub use error::{ErrorCode, Failure, ProtoError};
pub use frame::{Hello, VERSION_MAX, VERSION_MIN, Welcome, choose_version};
pub use name::{ChannelNameProblem, NameProblem, check_channel_name, check_name};
pub use reply::{Condition, JournalInfo, LogInfo, PoolStat, PuddleInfo, Reply, Status, UseInfo};
pub use request::{Request, StagedPuddle};
pub use rpc::{
    Announce, ChannelStat, ConnInfo, ConnStat, ProcessInfo, RpcStatus, SegmentInfo, SegmentStat,
};
pub use types::{Access, ChannelId, ConnId, Id, PoolKind, SegmentId, SegmentOf};
