//! `vernal-bench`: Vernal against its peers, in one interleaved run. Started by `cargo xtask bench`.
#![forbid(unsafe_code)]

mod compile;
mod interleave;
mod kyoto;
mod limits;
mod machine;
mod ops;
mod plan;
mod plot;
mod process;
mod puddles;
mod redb_engine;
mod report;
mod results;
mod session;

use clap::{Parser, Subcommand};
use plan::{Media, Row, Scale, Suite, System};
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

/// Benchmarks of Vernal.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Data structures and key-value workloads against volatile memory, PMDK, msync, LMDB, SQLite, redb, Kyoto Cabinet
    Persist(Structures),
    /// What no commit can go below: a fence, a flush; and what opening 1 GiB costs
    Limits(Limits),
    /// Pools, buffered and direct: primitives, structures, threads, relocation, archives, recovery, aggregation; against PMDK
    Puddles(Puddles),
    /// A redb workload process (started by `persist`)
    #[command(hide = true)]
    RedbEngine {
        path: PathBuf,
        /// Taken for the sake of one command line for all engines; redb grows its file as it needs.
        bytes: u64,
        cpu: usize,
    },
}

/// Options of `limits`.
#[derive(clap::Args)]
pub struct Limits {
    /// Taken like the other benchmarks'; this one is always quick
    #[arg(long)]
    quick: bool,
    /// Write one JSON row per measurement to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measured rounds
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
}

/// Options of `puddles`.
#[derive(clap::Args)]
pub struct Puddles {
    #[command(flatten)]
    structures: Structures,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    parts: Vec<puddles::Part>,
}

/// Options of `persist`.
#[derive(clap::Args)]
pub struct Structures {
    /// A smaller run, within 8 minutes on two cores
    #[arg(long)]
    quick: bool,
    /// Write one JSON row per measurement to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these media
    #[arg(long, value_delimiter = ',', value_name = "MEDIA")]
    media: Vec<Media>,
    /// Only rows whose name starts with one of these, for example kv/A,btree
    #[arg(
        long,
        visible_alias = "only",
        value_delimiter = ',',
        value_name = "ROW"
    )]
    rows: Vec<String>,
    /// Only these systems
    #[arg(long, value_delimiter = ',', value_name = "SYSTEM")]
    systems: Vec<System>,
    /// Only these numbers of operations per commit
    #[arg(long, value_delimiter = ',', value_name = "N")]
    batches: Vec<u64>,
    /// Seed of the operations
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Measured rounds of each row, instead of what the scale gives
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// CPU that the workload processes are pinned to [default: the last one]
    #[arg(long)]
    cpu: Option<usize>,
    /// Folder for data on the disk's file system [default: target/bench/data]
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// Folder for results [default: target/bench]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Structures {
    fn scale(&self) -> Scale {
        let scale = if self.quick {
            Scale::QUICK
        } else {
            Scale::FULL
        };
        Scale {
            rounds: self.rounds.unwrap_or(scale.rounds).max(1),
            ..scale
        }
    }

    fn media(&self, suite: Suite) -> Vec<Media> {
        chosen(&self.media, suite.media())
    }

    fn systems(&self, suite: Suite) -> Vec<System> {
        chosen(&self.systems, suite.systems())
    }

    fn rows(&self) -> Result<Vec<Row>> {
        if let Some(bad) = self
            .rows
            .iter()
            .find(|&r| !Row::all().iter().any(|row| row.to_string().starts_with(r)))
        {
            let known = Row::all()
                .iter()
                .map(Row::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            return Err(Failure(format!(
                "--rows {bad}: no such row; the rows are {known}"
            )));
        }
        let chosen = |row: &Row| {
            self.rows.is_empty() || self.rows.iter().any(|r| row.to_string().starts_with(r))
        };
        Ok(Row::all().into_iter().filter(chosen).collect())
    }

    fn batches(&self) -> Result<Vec<u64>> {
        if let Some(bad) = self.batches.iter().find(|b| !plan::BATCHES.contains(b)) {
            return Err(Failure(format!(
                "--batches {bad}: the batches are 1, 10, 100 and 1000"
            )));
        }
        Ok(if self.batches.is_empty() {
            plan::BATCHES.to_vec()
        } else {
            self.batches.clone()
        })
    }
}

fn chosen<T: Copy>(given: &[T], all: Vec<T>) -> Vec<T> {
    if given.is_empty() {
        all
    } else {
        given.to_vec()
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().bench {
        Bench::Persist(options) => interleave::structures(&options, Suite::Persist),
        Bench::Limits(options) => limits::run(&options),
        Bench::Puddles(options) => puddles::run(&options),
        Bench::RedbEngine {
            path,
            bytes: _,
            cpu,
        } => redb_engine::main(&path, cpu).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("vernal-bench: {e}");
            ExitCode::FAILURE
        }
    }
}
