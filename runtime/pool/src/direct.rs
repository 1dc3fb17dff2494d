//! Direct pools: puddles mapped shared at their home addresses and changed in place, under this thread's log.
//!
//! * [`space`]: the direct address space; which addresses are mapped, and for which pool.
//! * [`tx`]: what a thread does: `begin`, `undo`, `redo`, `on_abort`, `commit`, `abort`.
//! * [`files`]: log space and log files beside an embedded pool, and the recovery of what dead processes left. A pool of
//!   puddled has its logs there, and puddled recovers them.
//! * [`lock`]: the lock of a pool's allocator, shared by all processes that have the pool open.
//! * [`memory`]: a direct pool as the heap sees it.
//! * [`DirectPool`]: all of it for one open pool.
//!
//! The protocol is `vernal_journal::direct`; here is only what needs mapped memory, files and threads.

pub mod files;
mod home;
pub mod lock;
pub mod memory;
mod pool;
pub mod space;
pub mod tx;

pub use files::{DirLogs, PuddleFile, RecoveredSpace, recover_dead};
pub use lock::{AllocLock, PoolLock, ServedLock};
pub use memory::DirectMemory;
pub use pool::{DirectGrant, DirectPool, embedded_puddles};

use vernal_journal::direct::DirectError;

use crate::Error;

impl From<DirectError> for Error {
    fn from(e: DirectError) -> Error {
        match e {
            DirectError::Aborted => Error::Aborted,
            other => Error::invalid(other.to_string()),
        }
    }
}
