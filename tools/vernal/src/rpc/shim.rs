//! `vernal rpc shim`: preloads libvernal_shim into a program.

use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use vernal_cc::Component;

/// How a side waits.
#[derive(Clone, Copy, ValueEnum)]
enum Wait {
    /// Looks all the time; a processor of its own is taken for granted
    Spin,
    /// Looks for some microseconds, then sleeps
    Adaptive,
    /// Sleeps at once
    Block,
}

/// Options of the command.
#[derive(Args)]
#[command(
    after_help = "Both sides of a connection need it; a connection with a side that does not have it stays an ordinary \
    socket. Refused with an error, once a connection is in use: fdopen, passing descriptors over it, passing it; exec closes \
    it. Leave out programs that use io_uring, static ones, and ones that watch an epoll instance with another."
)]
pub struct Shim {
    /// Paths of sockets, as patterns separated by `:` [default: VERNAL_SHIM]
    #[arg(long, value_name = "PATTERNS")]
    sockets: Option<String>,
    /// How the program waits for its peers [default: VERNAL_SHIM_WAIT, or adaptive]
    #[arg(long)]
    wait: Option<Wait>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// Becomes the program; returns only when that fails.
pub fn run(options: &Shim) -> u8 {
    let error = match prepare(options) {
        Ok(mut command) => {
            let reason = command.exec();
            format!("cannot run {}: {reason}", command.get_program().display())
        }
        Err(text) => text,
    };
    eprintln!("vernal: {error}");
    crate::code::ERROR
}

fn prepare(options: &Shim) -> Result<std::process::Command, String> {
    let (name, arguments) = options
        .program
        .split_first()
        .ok_or("name a program after `vernal rpc shim --`")?;
    let given = std::env::var("VERNAL_SHIM").ok();
    let sockets = options.sockets.clone().or(given).filter(|patterns| !patterns.is_empty()).ok_or(
        "no socket is named, so nothing would change: give --sockets '/run/app/*.sock', or set VERNAL_SHIM",
    )?;
    let mut command = crate::run::preloaded(name, Component::Shim)?;
    command.args(arguments).env("VERNAL_SHIM", sockets);
    if let Some(wait) = options.wait {
        let wait = match wait {
            Wait::Spin => "spin",
            Wait::Adaptive => "adaptive",
            Wait::Block => "block",
        };
        command.env("VERNAL_SHIM_WAIT", wait);
    }
    Ok(command)
}
