//! `cargo xtask soak|mutants|bench`: runs one program of the testsuite, its output passed on.

use crate::packages::{self, Group};
use crate::suites::{self, Suite};
use crate::{Result, build, rng, ui::Ui, workspace::Workspace};

#[derive(clap::Args)]
pub struct SoakOptions {
    /// What to run: crash, kill, programs, mutants or fuzz
    #[arg(value_parser = ["crash", "kill", "programs", "mutants", "fuzz"])]
    what: String,
    /// For how long
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Repeat the run that printed this seed
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
    /// `persist` or `overhead`
    #[arg(value_parser = ["persist", "overhead"])]
    what: String,
    /// End within 8 minutes
    #[arg(long)]
    quick: bool,
    /// Write one JSON object per measurement to this file
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// Passed on to the benchmark
    #[arg(last = true)]
    rest: Vec<String>,
}

/// `cargo xtask soak`.
pub fn soak(options: &SoakOptions) -> Result<bool> {
    let suite =
        suites::find(&options.what).ok_or_else(|| format!("there is no suite {}", options.what))?;
    let seed = options.seed.unwrap_or_else(rng::fresh_seed);
    println!(
        "soak {} for {} min, seed {seed}",
        suite.name, options.minutes
    );
    run_suite(suite, &suite.soak(options.minutes, seed))
}

/// `cargo xtask mutants`.
pub fn mutants(options: &MutantsOptions) -> Result<bool> {
    let suite = suites::find("mutants").ok_or("there is no suite mutants")?;
    let arguments = if options.rest.is_empty() {
        suite.brief()
    } else {
        options.rest.clone()
    };
    run_suite(suite, &arguments)
}

/// `cargo xtask bench`.
pub fn bench(options: &BenchOptions) -> Result<bool> {
    let mut arguments = vec![options.what.clone()];
    if options.quick {
        arguments.push("--quick".to_owned());
    }
    if let Some(file) = &options.json {
        // The program runs at the root; the file is meant where the command was given.
        let file = std::path::absolute(file)?;
        arguments.extend(["--json".to_owned(), file.to_string_lossy().into_owned()]);
    }
    arguments.extend_from_slice(&options.rest);
    run_suite(&suites::BENCH, &arguments)
}

fn run_suite(suite: &Suite, arguments: &[String]) -> Result<bool> {
    let ui = Ui::new(false);
    let workspace = Workspace::load()?;
    let mut groups = vec![Group::Toolchain];
    groups.extend_from_slice(suite.groups);
    packages::ensure(&ui, &groups)?;
    build::release(&ui, &workspace)?;
    let words = suite.cargo(arguments);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let status = workspace
        .cargo(&words)
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    Ok(status.success())
}
