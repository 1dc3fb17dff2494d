//! `vernal-bench-rpc`: Vernal's calls against their peers, in one interleaved run. Started by `cargo xtask bench rpc`.

mod cooldb;
mod floors;
mod graphs;
mod interleave;
mod machine;
mod memcached;
mod payload;
mod plan;
mod process;
mod puddled;
mod report;
mod results;
mod systems;
mod worker;

#[cfg(feature = "peers")]
capnp::generated_code!(mod bench_capnp);

/// The messages and calls of `schema/bench.proto`.
#[cfg(feature = "peers")]
mod proto {
    tonic::include_proto!("bench");
}

use clap::{Parser, Subcommand, ValueEnum};
use plan::{Contender, Part, Scale, System, Wait};
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

/// A failure, as the text that the user reads.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The result of anything here.
pub type Result<T> = std::result::Result<T, Failure>;

/// Benchmarks of calls between processes.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    side: Option<Side>,
}

#[derive(Subcommand)]
enum Side {
    /// The server process of a system (started by the harness)
    #[command(hide = true)]
    Server(Of),
    /// The client process of a system (started by the harness)
    #[command(hide = true)]
    Client(Of),
    /// The client of memcached (started by the harness)
    #[command(hide = true)]
    Memcached {
        /// Its socket.
        at: PathBuf,
        /// Records that it loads.
        records: u64,
    },
}

#[derive(clap::Args)]
struct Of {
    system: System,
    wait: Wait,
    at: PathBuf,
}

/// Options of the run.
#[derive(clap::Args)]
pub struct Options {
    /// A smaller run, within 8 minutes on two cores
    #[arg(long)]
    quick: bool,
    /// Write one JSON row per measurement to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    parts: Vec<Part>,
    /// Only these systems
    #[arg(long, value_delimiter = ',', value_name = "SYSTEM")]
    systems: Vec<System>,
    /// Only these ways to wait
    #[arg(long, value_delimiter = ',', value_name = "WAIT")]
    waits: Vec<Wait>,
    /// Seed of the payloads and documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Measured rounds of each row, instead of what the scale gives
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Documents of the store, instead of what the scale gives
    #[arg(long, value_name = "N")]
    documents: Option<u64>,
    /// Folder for results [default: target/bench]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Options {
    fn scale(&self) -> Scale {
        let scale = if self.quick {
            Scale::QUICK
        } else {
            Scale::FULL
        };
        Scale {
            rounds: self.rounds.unwrap_or(scale.rounds).max(1),
            // A whole number of documents for each value and slice.
            documents: self.documents.unwrap_or(scale.documents).div_ceil(1000) * 1000,
            ..scale
        }
    }

    fn parts(&self) -> Vec<Part> {
        if self.parts.is_empty() {
            Part::value_variants().to_vec()
        } else {
            self.parts.clone()
        }
    }

    fn contenders(&self) -> Vec<Contender> {
        System::value_variants()
            .iter()
            .filter(|&&system| system != System::Shim)
            .filter(|system| self.systems.is_empty() || self.systems.contains(system))
            .flat_map(|&system| {
                let contender = move |&wait| Contender { system, wait };
                system.waits().iter().map(contender)
            })
            .filter(|c| self.waits.is_empty() || self.waits.contains(&c.wait))
            .collect()
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.side {
        None => interleave::run(&arguments.options),
        Some(Side::Server(of)) => {
            worker::server(move |serving| systems::serve(of.system, of.wait, &of.at, serving))
                .map(|()| true)
        }
        Some(Side::Memcached { at, records }) => memcached::client(&at, records).map(|()| true),
        Some(Side::Client(of)) => {
            worker::client(|| systems::connect(of.system, of.wait, &of.at)).map(|()| true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("vernal-bench-rpc: {e}");
            ExitCode::FAILURE
        }
    }
}
