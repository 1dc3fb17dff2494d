//! What instrumentation costs programs that map nothing: run time and code size of sqlite, lua, zstd and a stencil, with
//! and without the pass, interleaved in one run.
#![forbid(unsafe_code)]

mod build;
mod measure;
mod report;
mod sources;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Measures the pass's overhead on programs that map nothing.
#[derive(Parser, Debug)]
#[command(name = "vernal-bench-overhead")]
struct Args {
    /// Fewer and shorter runs.
    #[arg(long)]
    quick: bool,
    /// Write one JSON row per measurement to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The compiler plugin (default: libvernal_pass_22.so beside this program).
    #[arg(long)]
    plugin: Option<PathBuf>,
    /// LLVM version of clang and lld.
    #[arg(long, default_value_t = 22)]
    llvm: u32,
    /// How to build: O2, thin, full (comma-separated).
    #[arg(long, default_value = "O2")]
    builds: String,
    /// Rows (comma-separated; default all).
    #[arg(long, default_value = "sqlite,lua,zstd,stencil")]
    rows: String,
    /// Timed runs per program (default 11, quick 5).
    #[arg(long)]
    runs: Option<usize>,
    /// Count instructions with callgrind too (slow).
    #[arg(long)]
    callgrind: bool,
    /// Folder for objects and programs (default: bench-overhead beside the plugin's folder).
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vernal-bench-overhead: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let beside = std::env::current_exe().map_err(|e| format!("cannot find my own folder: {e}"))?;
    let beside = beside.parent().map(PathBuf::from).unwrap_or_default();
    let plugin = args
        .plugin
        .clone()
        .unwrap_or_else(|| beside.join(format!("libvernal_pass_{}.so", args.llvm)));
    if !plugin.exists() {
        return Err(format!(
            "no plugin at {}: run cargo build --release, or name it with --plugin",
            plugin.display()
        ));
    }
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| beside.join("../bench-overhead"));
    let sources = sources::locate()?;
    let list = |s: &str| {
        s.split(',')
            .map(|x| x.trim().to_owned())
            .filter(|x| !x.is_empty())
            .collect::<Vec<_>>()
    };
    let builds = list(&args.builds)
        .iter()
        .map(|b| build::Mode::parse(b))
        .collect::<Result<Vec<_>, _>>()?;
    let mut programs = Vec::new();
    for row in list(&args.rows) {
        let program = sources.program(&row)?;
        for &mode in &builds {
            for with_pass in [false, true] {
                eprintln!(
                    "building {row} {} {}",
                    mode.name(),
                    if with_pass { "vernal" } else { "plain" }
                );
                let built = build::build(
                    &program,
                    mode,
                    with_pass.then_some(plugin.as_path()),
                    args.llvm,
                    &dir,
                )?;
                programs.push(measure::Subject {
                    row: row.clone(),
                    mode,
                    with_pass,
                    path: built,
                    scale: program.scale,
                });
            }
        }
    }
    let plan = measure::Plan {
        runs: args.runs.unwrap_or(if args.quick { 5 } else { 11 }).max(1),
        quick: args.quick,
        callgrind: args.callgrind,
    };
    let results = measure::measure(&programs, &plan)?;
    print!("{}", report::table(&results));
    if let Some(file) = &args.json {
        std::fs::write(file, report::json(&results))
            .map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    }
    Ok(())
}
