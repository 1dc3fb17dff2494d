//! `vernal-fuzz`: builds the fuzzer with coverage instrumentation, and runs it on every target.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use vernal_fuzz::TARGETS;

/// What makes rustc count which edges an input reaches and what it is compared with: LLVM's sancov pass, on stable Rust.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];
/// Set apart from the rest, so that the flags reach neither build scripts nor macros.
const MACHINE: &str = "x86_64-unknown-linux-gnu";
/// Inputs beyond this find nothing that shorter ones do not.
const LONGEST: u32 = 64 << 10;

#[derive(Parser)]
#[command(about = "Coverage-guided fuzzing of every parser of hostile bytes")]
struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Fuzz every target, or one
    Run {
        /// Seconds for each target
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Only this target
        #[arg(long)]
        target: Option<String>,
        /// Of the fuzzer's random choices
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Add what is new to the committed corpus, as few and short inputs as give the same coverage
        #[arg(long)]
        keep: bool,
    },
    /// Name the targets
    List,
}

fn main() -> ExitCode {
    let outcome = match Options::parse().action {
        Action::Run {
            seconds,
            target,
            seed,
            keep,
        } => run(seconds, target.as_deref(), seed, keep),
        Action::List => {
            for target in TARGETS {
                println!("{}", target.name);
            }
            return ExitCode::SUCCESS;
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("vernal-fuzz: {e}");
            ExitCode::FAILURE
        }
    }
}

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where what the fuzzer makes goes: the workspace's target directory.
fn scratch() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target
        .unwrap_or_else(|| here().join("../../target"))
        .join("fuzz")
}

fn run(seconds: u64, only: Option<&str>, seed: u64, keep: bool) -> Result<bool, String> {
    let engine = build()?;
    let (mut passed, mut failed) = (0, 0);
    for target in TARGETS {
        if only.is_some_and(|name| name != target.name) {
            continue;
        }
        let kept = here().join("corpus").join(target.name);
        let grown = scratch().join("corpus").join(target.name);
        let found = scratch().join("found");
        for folder in [&kept, &grown, &found] {
            std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        println!("fuzz {}: {seconds} s, seed {seed}", target.name);
        let fine = fuzz(
            &engine,
            target.name,
            [&grown, &kept],
            &found,
            &[
                format!("-max_total_time={seconds}"),
                format!("-seed={}", seed % u64::from(u32::MAX) + 1),
                format!("-max_len={LONGEST}"),
                "-timeout=10".to_owned(),
                "-rss_limit_mb=2048".to_owned(),
                "-print_final_stats=1".to_owned(),
                "-verbosity=0".to_owned(),
            ],
        )?;
        if fine {
            passed += 1;
        } else {
            failed += 1;
            println!(
                "fuzz {}: FAILED; the input is in {}",
                target.name,
                found.display()
            );
        }
        if keep && fine {
            // Without "-merge" every input that was ever interesting would be committed.
            fuzz(
                &engine,
                target.name,
                [&kept, &grown],
                &found,
                &["-merge=1".to_owned(), format!("-max_len={LONGEST}")],
            )?;
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0 && passed > 0)
}

fn build() -> Result<PathBuf, String> {
    let folder = scratch();
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--package", "vernal-fuzz"])
        .args(["--features", "engine", "--bin", "vernal-fuzz-engine"])
        .args(["--target", MACHINE, "--target-dir"])
        .arg(&folder)
        .current_dir(here())
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"))
        // Overflows and debug assertions are findings too.
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !status.success() {
        return Err(
            "the fuzzer cannot be built: libFuzzer needs a C++ compiler (Debian: g++)".into(),
        );
    }
    Ok(folder.join(MACHINE).join("release/vernal-fuzz-engine"))
}

fn fuzz(
    engine: &Path,
    target: &str,
    corpora: [&Path; 2],
    found: &Path,
    options: &[String],
) -> Result<bool, String> {
    let status = Command::new(engine)
        .env("VERNAL_FUZZ_TARGET", target)
        .args(options)
        .arg(format!("-artifact_prefix={}/{target}-", found.display()))
        .args(corpora)
        .status()
        .map_err(|e| format!("cannot run {}: {e}", engine.display()))?;
    Ok(status.success())
}
