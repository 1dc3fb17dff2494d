//! The command line of `vernal`.

use crate::{check, forward, info, pool, recover, rpc, run};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit codes, documented in `vernal check --help`. 2 is clap's, for a wrong command line.
pub(crate) mod code {
    pub const FINE: u8 = 0;
    pub const ERROR: u8 = 1;
    pub const NEEDS_RECOVERY: u8 = 3;
    pub const DAMAGED: u8 = 4;
    pub const NO_METADATA: u8 = 5;
    pub const IN_USE: u8 = 6;
}

const CODES: &str = "\
Exit status; of several files, the highest counts:
  0  the file stands alone: any tool can read it
  1  it cannot be looked at (missing, no permission, input/output error)
  2  the command line is wrong
  3  its last writer died: `vernal recover` or the next run completes it
  4  file, metadata or journal are damaged; the message names what, and the remedy
  5  it has no metadata: Vernal has never mapped it
  6  a running process has it mapped";

#[derive(Parser)]
#[command(
    name = "vernal",
    version,
    about = "Failure-atomic mapped files",
    after_help = "Programs are compiled with vernal-cc and vernal-c++ (or `vernal cc`, `vernal c++`); files are opted in with \
                  VERNAL_PATHS='/data/*.img'."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring files to their last commit, so that any tool can read them
    ///
    /// Replays the journal of a writer that died, exactly as the next run of the program would. A file that is clean is left alone.
    #[command(after_help = CODES)]
    Recover {
        /// The mapped files (not their .vernal files)
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what state files are in, and change nothing
    #[command(after_help = CODES)]
    Check {
        /// The mapped files (not their .vernal files)
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a file's metadata and what its journal holds
    Info {
        /// A mapped file
        file: PathBuf,
        /// List the journal's records too
        #[arg(long)]
        records: bool,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a program that was not compiled with vernal-cc (page mode)
    ///
    /// Written pages are found through the kernel and compared with the committed image at each commit. It costs more than compiled-in
    /// tracking, and works for any dynamically linked program.
    Run {
        /// Files whose mappings become failure-atomic: patterns separated by colons; default: VERNAL_PATHS
        #[arg(long, value_name = "PATTERNS")]
        paths: Option<String>,
        /// The program and its arguments
        #[arg(
            required = true,
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "PROGRAM"
        )]
        program: Vec<std::ffi::OsString>,
    },
    /// Make, list, check, delete, copy and move pools
    #[command(subcommand, after_help = pool::HELP)]
    Pool(pool::Command),
    /// Write a page that shows a pool: its puddles, types and objects
    ///
    /// The page is one HTML file that needs no network: it can be searched, and walks the objects from the root.
    #[command(after_help = pool::HELP)]
    Inspect(pool::Inspect),
    /// Show channels, connections, their traffic, and how arguments are kept safe
    #[command(subcommand)]
    Rpc(rpc::Command),
    /// Compile C: the same as vernal-cc
    #[command(disable_help_flag = true)]
    Cc {
        /// Arguments of clang; --vernal-help lists vernal-cc's own
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Compile C++: the same as vernal-c++
    #[command(name = "c++", disable_help_flag = true)]
    Cxx {
        /// Arguments of clang++; --vernal-help lists vernal-c++'s own
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

/// The whole command: what the program `vernal` does.
pub fn command() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Recover { files, json } => recover::run(&files, json),
        Command::Check { files, json } => check::run(&files, json),
        Command::Info {
            file,
            records,
            json,
        } => info::run(&file, records, json),
        Command::Run { paths, program } => run::run(paths, &program),
        Command::Pool(command) => pool::run(&command),
        Command::Rpc(command) => rpc::run(&command),
        Command::Inspect(options) => pool::inspect(&options),
        Command::Cc { arguments } => forward::run("vernal-cc", &arguments),
        Command::Cxx { arguments } => forward::run("vernal-c++", &arguments),
    };
    ExitCode::from(code)
}

/// Prints `text` on standard output. A reader that has gone away is no error of ours.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}
