//! `vernal rpc`: channels and connections, seen from outside.

mod list;
mod modes;
mod shim;
mod top;

use crate::pool::Common;
use crate::pool::outcome::finish;
use clap::Subcommand;

#[derive(Subcommand)]
pub enum Command {
    /// List channels; with their connections and segments if wanted
    Ls(list::Ls),
    /// Show the traffic of connections, again and again
    Top(top::Top),
    /// Say how arguments are kept safe from their senders here, what each way closes, and what it does not
    Modes(Common),
    /// Run an unmodified program whose connections over Unix sockets use shared memory, if their other side has it, too
    Shim(shim::Shim),
}

/// Runs a command; the exit code.
pub fn run(command: &Command) -> u8 {
    match command {
        Command::Ls(options) => finish(options.common, list::run(options)),
        Command::Top(options) => finish(options.common, top::run(options)),
        Command::Modes(common) => finish(*common, modes::run()),
        Command::Shim(options) => shim::run(options),
    }
}
