//! `cargo xtask`: installs what is missing, builds, tests, demonstrates and measures Vernal.
//!
//! Each command is one module; what they share is [`packages`] (Debian packages), [`job`] (a child process with a log,
//! a time limit and a live line) and [`stages`] (a list of jobs with one summary).
#![forbid(unsafe_code)]

mod build;
mod demo;
mod demo_pools;
mod demo_rpc;
mod install;
mod job;
mod packages;
mod rng;
mod soak;
mod stages;
mod suites;
mod tally;
mod test;
mod tidy;
mod ui;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// What went wrong, as the text a person reads: the thing, the value and the remedy.
pub type Error = Box<dyn std::error::Error>;
/// The result of a command.
pub type Result<T> = std::result::Result<T, Error>;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, tests, demonstrates and measures Vernal",
    after_help = "Missing Debian packages are installed with apt-get, after saying which and why. \
                  Set VERNAL_NO_INSTALL=1 to be told the command instead."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kill a program hundreds of times and show what survives, with vernal-cc and with plain clang
    Demo(demo::Options),
    /// Everything that must pass: format, lints, tidy, unit tests, FileCheck, crash states, kills, programs, mutants
    Test(test::Options),
    /// Install what is missing and build all tools into target/release
    Build(build::Options),
    /// Check the rules of the source tree: crate edges, headers, file sizes, links
    Tidy(tidy::Options),
    /// Run a benchmark: `persist`, `puddles`, `rpc` (against their peers), `overhead`, `limits`
    Bench(soak::BenchOptions),
    /// Run one kind of test for a given time, with new seeds
    Soak(soak::SoakOptions),
    /// Plant every bug of the mutation list and demand that each is caught
    Mutants(soak::MutantsOptions),
    /// Build and install the tools, libraries, headers, pkg-config and CMake files under a prefix
    Install(install::Options),
    /// Show which Debian packages each command needs, and which are missing here
    Packages,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Build(options) => build::run(&options),
        Command::Tidy(options) => tidy::run(&options),
        Command::Bench(options) => soak::bench(&options),
        Command::Soak(options) => soak::soak(&options),
        Command::Mutants(options) => soak::mutants(&options),
        Command::Install(options) => install::run(&options),
        Command::Packages => packages::list(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
