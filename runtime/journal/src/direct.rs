//! The direct mode: transactions that change a pool in place, under undo, redo or hybrid logs.
//!
//! * [`DirectLog`]: one thread's log. `begin`, `undo` before a place changes, `redo` instead of changing it, `commit`, `abort`.
//! * [`LogSpaceFile`]: which log files a process has.
//! * [`LogReader`]: what a log would do, for recovery and for inspection; total on any bytes.
//! * [`recover_log`], [`recover_space`]: what a crash has left is undone or redone, or quarantined.
//!
//! The layouts, the order of writes and the crash argument are in `docs/format.md`, "Log space and logs".

mod error;
mod lines;
mod log;
mod reader;
mod recover;
mod space;

pub use error::{DirectError, LogProblem};
pub use log::{DirectLog, LogSupply, NoSupply, create_log_file};
pub use reader::{LiveEntry, LogReader};
pub use recover::{LogOutcome, LogReport, Place, check_log, recover_log, recover_space};
pub use space::LogSpaceFile;

use std::io;

/// The memory that transactions change in place, as one thread sees it.
///
/// Together with the log files it is one *fence domain*: [`Home::fence`] makes durable what was written to the thread's log
/// files (`Media::write`), what [`Home::store`] wrote, and the lines given to [`Home::write_back`]; and nothing else.
pub trait Home {
    /// Reads what the program sees at `addr`.
    fn load(&self, addr: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Changes memory in place; durable after [`Home::fence`].
    fn store(&mut self, addr: u64, data: &[u8]) -> io::Result<()>;

    /// Writes the line at `line` (a multiple of 64) back; what it holds now is durable after [`Home::fence`].
    fn write_back(&mut self, line: u64) -> io::Result<()>;

    /// Completes all of the above and the thread's writes to its log files, with one fence.
    fn fence(&mut self) -> io::Result<()>;

    /// Changes memory of the process that is no pool's.
    fn restore_volatile(&mut self, addr: u64, data: &[u8]) -> io::Result<()>;
}
