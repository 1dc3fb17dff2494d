//! The daemon that owns pools, and the names and the memory of RPC: grants, recovery, address space, registry, channels, quotas.
//!
//! * [`Daemon`]: everything; [`Daemon::start`] takes the data directory, recovers what earlier clients left, and serves.
//! * [`Registry`]: what the daemon knows durably, readable by tests and tools while no daemon runs.
//! * [`Layout`]: where everything lies in the data directory.
//!
//! The rule that all of this serves: *nobody sees a byte of a pool before what its last writer left has been settled*, and settling
//! changes nothing that the writer could not have changed itself. So a grant is durable in the registry before a descriptor leaves,
//! and goes only after recovery.
//!
//! This crate maps no pool and runs no code of a client. What clients wrote is parsed by `vernal-journal` and `vernal-heap`, from
//! bytes that were read, never from mapped ones: a client could truncate a mapped file under the daemon.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod access;
mod allocator;
mod client;
mod command;
mod config;
mod fail;
mod inject;
mod layout;
mod metrics;
mod ops;
mod page;
mod puddle;
mod quarantine;
mod records;
mod recovery;
mod registry;
mod rpc;
mod server;
mod session;
mod settle;
mod space;
mod start;
mod state;

pub use command::command;
pub use config::{Config, MetricsAddress};
pub use layout::Layout;
pub use records::{
    GrantRecord, GrantedPool, LogRecord, PoolRecord, PoolStatus, PuddleRecord, QuarantineRecord,
};
pub use registry::{Registry, RegistryError, Snapshot};
pub use server::Stopper;
pub use space::{Space, SpaceError};
pub use start::{Daemon, StartError};
