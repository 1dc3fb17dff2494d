//! `cargo xtask soak|mutants|bench`: runs one program of the testsuite, its output passed on.

use crate::packages::{self, Group};
use crate::suites::{BENCHES, SOAKS, SUITES, Suite};
use crate::{Result, build, rng, ui::Ui, workspace::Workspace};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct SoakOptions {
    /// What to run
    #[arg(value_parser = ["crash", "litmus", "kill", "programs", "inspect-page", "mutants", "fuzz", "power"])]
    what: String,
    /// For how long; the round that runs then is finished
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// The first round's seed; each later round has the next one
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(clap::Args)]
pub struct MutantsOptions {
    /// Passed on to the mutation run: see `cargo xtask mutants -- --help`
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(clap::Args)]
pub struct BenchOptions {
    /// `persist`: against the peers; `puddles`: pools, against PMDK; `rpc`: calls, against shared memory, sockets, gRPC and others;
    /// `overhead`: instrumented programs that map nothing; `limits`: a fence, a flush, opening 1 GiB
    #[arg(value_parser = ["persist", "puddles", "rpc", "overhead", "limits"])]
    what: String,
    /// End within 8 minutes
    #[arg(long)]
    quick: bool,
    /// Write one JSON object per measurement to this file
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// Passed on to the benchmark: see `cargo xtask bench persist -- --help`
    #[arg(last = true)]
    rest: Vec<String>,
}

/// `cargo xtask soak`: rounds with new seeds until the time is over or one fails.
pub fn soak(options: &SoakOptions) -> Result<bool> {
    let ui = Ui::new(false);
    let what = options.what.as_str();
    let (workspace, suite) = match Suite::find(SUITES, what).or(Suite::find(SOAKS, what)) {
        Some(suite) => (prepare(suite)?, Some(suite)),
        None => (Workspace::load()?, None),
    };
    let first = options
        .seed
        .unwrap_or_else(|| rng::fresh_seed() % 1_000_000_000);
    let end = Instant::now() + Duration::from_secs(options.minutes * 60);
    let mut rounds = 0;
    loop {
        let seed = first.wrapping_add(rounds);
        ui.line(&format!("soak {what}: round {}, seed {seed}", rounds + 1));
        let fine = match suite {
            Some(suite) => run(&workspace, suite, suite.round(seed))?,
            None => fuzz(&workspace, seed)?,
        };
        if !fine {
            ui.line(&format!(
                "soak {what}: FAILED in round {}; again: cargo xtask soak {what} --minutes 0 --seed {seed}",
                rounds + 1
            ));
            return Ok(false);
        }
        rounds += 1;
        if Instant::now() >= end {
            ui.line(&format!("soak {what}: {rounds} rounds, all fine"));
            return Ok(true);
        }
    }
}

/// The property tests with many more cases than in `cargo test` (a failing case is kept in a `proptest-regressions` file, which
/// every later run tries first), then the coverage-guided fuzzer on every parser, which goes on from what earlier rounds found.
fn fuzz(workspace: &Workspace, seed: u64) -> Result<bool> {
    let properties = workspace
        .cargo(&[
            "test",
            "--release",
            "--package",
            "vernal-format",
            "--package",
            "vernal-select",
        ])
        .env("PROPTEST_CASES", FUZZ_CASES)
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !properties.success() {
        return Ok(false);
    }
    let seed = seed.to_string();
    let fuzzer = workspace
        .cargo(&[
            "run",
            "--quiet",
            "--release",
            "--package",
            "vernal-fuzz",
            "--bin",
            "vernal-fuzz",
            "--",
            "run",
            "--seconds",
            FUZZ_SECONDS,
            "--seed",
            &seed,
        ])
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    Ok(fuzzer.success())
}

/// Cases of each property in one round of fuzzing: about a minute on two cores.
const FUZZ_CASES: &str = "100000";
/// Seconds for each parser in one round; `--minutes` decides how many rounds there are.
const FUZZ_SECONDS: &str = "60";

/// `cargo xtask mutants`.
pub fn mutants(options: &MutantsOptions) -> Result<bool> {
    let suite = Suite::find(SUITES, "mutants").ok_or("there is no suite mutants")?;
    let mut arguments = suite.once();
    arguments.extend_from_slice(&options.rest);
    run(&prepare(suite)?, suite, arguments)
}

/// `cargo xtask bench`.
pub fn bench(options: &BenchOptions) -> Result<bool> {
    let suite = Suite::find(BENCHES, &options.what)
        .ok_or_else(|| format!("there is no benchmark {}", options.what))?;
    let mut arguments = suite.once();
    if options.quick {
        arguments.push("--quick".to_owned());
    }
    if let Some(file) = &options.json {
        // The program runs at the root; the file is meant where the command was given.
        let file = std::path::absolute(file)?;
        arguments.extend(["--json".to_owned(), file.to_string_lossy().into_owned()]);
    }
    arguments.extend_from_slice(&options.rest);
    run(&prepare(suite)?, suite, arguments)
}

/// Installs and builds what the suite needs.
fn prepare(suite: &Suite) -> Result<Workspace> {
    let ui = Ui::new(false);
    let workspace = Workspace::load()?;
    let mut groups = vec![Group::Toolchain];
    groups.extend_from_slice(suite.groups);
    packages::ensure(&ui, &groups)?;
    build::tools(&ui, &workspace)?;
    Ok(workspace)
}

fn run(workspace: &Workspace, suite: &Suite, arguments: Vec<String>) -> Result<bool> {
    let words = suite.cargo(arguments);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let status = workspace
        .cargo(&words)
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    Ok(status.success())
}
