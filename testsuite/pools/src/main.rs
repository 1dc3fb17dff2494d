//! `vernal-pool-programs run`: programs on pools, killed, moved and compared with volatile twins; see the library.
//!
//! The last line is `N passed, M failed`. Everything random follows from the seed that is printed.
#![forbid(unsafe_code)]

use clap::Parser;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use vernal_pool_programs::Result;
use vernal_pool_programs::build::{PROGRAMS, Program};
use vernal_pool_programs::examples::EXAMPLES;
use vernal_pool_programs::kernel;
use vernal_pool_programs::subject::Subject;
use vernal_programs::check::Random;
use vernal_programs::tools::Tools;

/// Programs on pools, killed and compared with volatile twins.
#[derive(Parser)]
enum Cli {
    /// Build and check
    Run(Options),
    /// Print the programs and exit
    List,
}

#[derive(clap::Args)]
struct Options {
    /// Kills at random moments until that much time has passed, shared by the programs (a soak)
    #[arg(long, default_value_t = 0)]
    seconds: u64,
    /// Only programs whose name contains this
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Repeat the choices of an earlier run
    #[arg(long)]
    seed: Option<u64>,
    /// Kills of each kind per program
    #[arg(long, default_value_t = 24)]
    kills: u64,
    /// Steps of each program
    #[arg(long, default_value_t = 300)]
    steps: u64,
}

fn check(
    program: &Program,
    tools: &Tools,
    options: &Options,
    share: Duration,
    random: &mut Random,
) -> Result<String> {
    let subject = Subject {
        name: program.name.to_owned(),
        executable: program.build(tools)?,
        folder: tools
            .work
            .join("run")
            .join(format!("pool-{}", program.name)),
        libraries: tools.bin.clone(),
        vernal: Some(tools.bin.join("vernal")).filter(|v| program.moves && v.exists()),
        threads: program.threads,
        steps: options.steps.max(40),
    };
    let report = subject.check(options.kills, Instant::now() + share, random)?;
    Ok(report.to_string())
}

fn run(options: &Options) -> Result<bool> {
    let tools = Tools::find()?;
    let seed = options.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(1, |d| d.as_nanos() as u64)
    });
    println!(
        "seed {seed}; executables and pools in {}",
        tools.work.display()
    );
    let programs: Vec<_> = PROGRAMS
        .iter()
        .filter(|p| p.name.contains(&options.only))
        .collect();
    let share = Duration::from_secs(options.seconds) / programs.len().max(1) as u32;
    let (mut passed, mut failed) = (0, 0);
    let mut tell = |name: &str, result: Result<String>| match result {
        Ok(report) => {
            passed += 1;
            println!("ok      {name:<18} {report}");
        }
        Err(e) => {
            failed += 1;
            println!("FAILED  {name:<18} {e}\n        (again: --only {name} --seed {seed})");
        }
    };
    for program in programs {
        let mut random = Random::new(seed);
        let result = check(program, &tools, options, share, &mut random);
        tell(program.name, result);
    }
    for example in EXAMPLES {
        let name = format!("example-{}", example.name);
        if name.contains(&options.only) {
            let mut random = Random::new(seed);
            tell(&name, example.check(&tools, options.kills, &mut random));
        }
    }
    if kernel::NAME.contains(&options.only) {
        tell(kernel::NAME, kernel::check(&tools));
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0 && passed > 0)
}

fn main() -> ExitCode {
    match Cli::parse() {
        Cli::List => {
            PROGRAMS.iter().for_each(|p| println!("{}", p.name));
            EXAMPLES.iter().for_each(|e| println!("example-{}", e.name));
            println!("{}", kernel::NAME);
            ExitCode::SUCCESS
        }
        Cli::Run(options) => match run(&options) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(e) => {
                eprintln!("vernal-pool-programs: {e}");
                ExitCode::from(2)
            }
        },
    }
}
