//! `vernal pool`: what a user does with whole pools.

mod archive;
mod check;
mod inspect;
mod list;
mod live;
mod make;
pub(crate) mod name;
pub(crate) mod outcome;

use clap::{Args, Subcommand};
use std::path::PathBuf;

pub use inspect::run as inspect;

/// Under the help of every command.
pub const HELP: &str = "\
A POOL with a '/' in its name is the directory of an embedded pool; any other name is one of puddled's, found through the socket \
that VERNAL_PUDDLED names.

Exit status:
  0  done, or nothing wrong
  1  a problem was found: damage, leaks, pointers that lead out of the pool
  2  it could not be done; the message says why, and what to do";

#[derive(Subcommand)]
pub enum Command {
    /// Make an empty pool
    #[command(after_help = HELP)]
    Create(make::Create),
    /// List pools: those of puddled, or those in a directory
    #[command(after_help = HELP)]
    Ls(list::Ls),
    /// Look for damage, leaks, and pointers of wrong types or out of the pool
    #[command(after_help = HELP)]
    Check(check::Check),
    /// Delete a pool
    #[command(after_help = HELP)]
    Rm(make::Rm),
    /// Write a pool as an archive
    ///
    /// The archive holds everything: objects, types, checksums. It is one file, or a stream for a pipe, or a directory, whose files an import can take over
    /// without copying.
    #[command(after_help = HELP)]
    Export(archive::Export),
    /// Make a pool of an archive
    ///
    /// The pool appears as a whole or not at all. It is another pool than the archived one: both can be open at once. Its pointers are rewritten when they are
    /// first touched.
    #[command(after_help = HELP)]
    Import(archive::Import),
    /// Copy a pool; both can be open at once
    #[command(after_help = HELP)]
    Clone(archive::Clone),
    /// Rewrite now whatever still means the addresses at which the pool was before
    ///
    /// An imported or cloned pool is relocated where it is first touched. This does the rest at once.
    #[command(after_help = HELP)]
    Relocate(live::Relocate),
    /// Release a pool of puddled from quarantine, as it is
    #[command(after_help = HELP)]
    Accept(make::Accept),
    /// Show or set what a user may own in pools of puddled
    #[command(after_help = HELP)]
    Quota(make::Quota),
}

/// What every command takes.
#[derive(Args, Clone, Copy)]
pub struct Common {
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `vernal inspect` takes.
#[derive(Args)]
pub struct Inspect {
    /// The pool
    pub pool: String,
    /// Where to write the page
    #[arg(long, value_name = "FILE")]
    pub html: PathBuf,
    /// Bytes of each object that go into the page
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    pub content: u64,
    /// Bytes of all objects that go into the page
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    pub content_total: u64,
    #[command(flatten)]
    pub common: Common,
}

/// Runs a command; the exit code.
pub fn run(command: &Command) -> u8 {
    match command {
        Command::Create(options) => outcome::finish(options.common, make::create(options)),
        Command::Ls(options) => outcome::finish(options.common, list::run(options)),
        Command::Check(options) => outcome::finish(options.common, check::run(options)),
        Command::Rm(options) => outcome::finish(options.common, make::remove(options)),
        Command::Export(options) => archive::run_export(options),
        Command::Import(options) => outcome::finish(options.common, archive::import(options)),
        Command::Clone(options) => outcome::finish(options.common, archive::clone(options)),
        Command::Relocate(options) => outcome::finish(options.common, live::relocate(options)),
        Command::Accept(options) => outcome::finish(options.common, make::accept(options)),
        Command::Quota(options) => outcome::finish(options.common, make::quota(options)),
    }
}
