//! `vernal-programs run`: real programs under audit, killed and compared with volatile twins; see the library.
//!
//! The last line is `N passed, M failed`. Everything random follows from the seed that is printed.
#![forbid(unsafe_code)]

use clap::Parser;
use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use vernal_programs::Result;
use vernal_programs::build::{Level, build};
use vernal_programs::check::{Random, Subject};
use vernal_programs::examples::{EXAMPLES, Example, audit_finds};
use vernal_programs::programs::{PROGRAMS, Program};
use vernal_programs::rust::{self, Profile};
use vernal_programs::sources::Sources;
use vernal_programs::tools::Tools;

/// Real programs under audit, killed and restarted.
#[derive(Parser)]
enum Cli {
    /// Build and check; briefly, or with --seconds at every level
    Run(Options),
    /// Print the programs and exit
    List,
}

#[derive(clap::Args)]
struct Options {
    /// All levels, and kills until that much time has passed (a soak); without it, the brief selection
    #[arg(long)]
    seconds: Option<u64>,
    /// Every level without a soak
    #[arg(long)]
    all_levels: bool,
    /// Only programs whose name contains this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Repeat the choices of an earlier run
    #[arg(long)]
    seed: Option<u64>,
    /// Kills per executable
    #[arg(long, default_value_t = 12)]
    kills: u64,
}

/// One thing to build and check.
#[derive(Clone, Copy)]
enum Job {
    Program(&'static Program, Level),
    Rust(Profile),
    Example(&'static Example),
    AuditFinds,
}

impl Job {
    fn name(&self) -> String {
        match self {
            Self::Program(program, level) => format!("{}-{level}", program.name),
            Self::Rust(Profile::Dev) => "rust-dev".to_owned(),
            Self::Rust(Profile::Release) => "rust-release".to_owned(),
            Self::Example(example) => format!("example-{}", example.name),
            Self::AuditFinds => "audit-finds".to_owned(),
        }
    }
}

fn jobs(options: &Options) -> VecDeque<Job> {
    let all = options.all_levels || options.seconds.is_some();
    let mut jobs = VecDeque::new();
    for program in PROGRAMS {
        let levels = if all { Level::ALL } else { program.brief };
        jobs.extend(levels.iter().map(|&level| Job::Program(program, level)));
    }
    jobs.extend([Job::Rust(Profile::Dev), Job::Rust(Profile::Release)]);
    jobs.extend(EXAMPLES.iter().map(Job::Example));
    jobs.push_back(Job::AuditFinds);
    if let Some(only) = &options.only {
        jobs.retain(|job| job.name().contains(only.as_str()));
    }
    jobs
}

fn perform(
    job: Job,
    tools: &Tools,
    sources: &Sources,
    options: &Options,
    until: Instant,
    seed: u64,
) -> Result<String> {
    let mut random = Random::new(seed);
    let (executable, steps) = match job {
        Job::Example(example) => return example.check(tools, options.kills, &mut random),
        Job::AuditFinds => return audit_finds(tools),
        Job::Program(program, level) => (
            build(tools, program, &program.recipe(tools, sources)?, level)?,
            program.steps,
        ),
        Job::Rust(profile) => (rust::arena(tools, profile)?, 300),
    };
    let name = job.name();
    let subject = Subject {
        folder: tools.work.join("run").join(&name),
        name,
        executable,
        steps,
    };
    Ok(subject
        .check(options.kills, until, &mut random)?
        .to_string())
}

fn run(options: &Options) -> Result<bool> {
    let tools = Tools::find()?;
    let sources = Sources::find(&tools)?;
    let seed = options.seed.unwrap_or_else(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |d| d.as_nanos() as u64)
    });
    println!(
        "seed {seed}; executables and files in {}",
        tools.work.display()
    );
    let jobs = jobs(options);
    let count = jobs.len() as u32;
    let workers = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(1, 8);
    // A soak's time is shared: each executable gets its part of it for kills.
    let share = Duration::from_secs(options.seconds.unwrap_or(0)) * workers as u32 / count.max(1);
    let queue = Mutex::new(jobs);
    let results = Mutex::new((0u32, 0u32));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(job) = queue.lock().unwrap_or_else(|e| e.into_inner()).pop_front()
                    else {
                        return;
                    };
                    let result =
                        perform(job, &tools, &sources, options, Instant::now() + share, seed);
                    let mut results = results.lock().unwrap_or_else(|e| e.into_inner());
                    match result {
                        Ok(report) => {
                            results.0 += 1;
                            println!("ok      {:<18} {report}", job.name());
                        }
                        Err(e) => {
                            results.1 += 1;
                            println!(
                                "FAILED  {:<18} {e}\n        (again: --only {} --seed {seed})",
                                job.name(),
                                job.name()
                            );
                        }
                    }
                }
            });
        }
    });
    let (passed, failed) = results.into_inner().unwrap_or_else(|e| e.into_inner());
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0 && passed > 0)
}

fn main() -> ExitCode {
    match Cli::parse() {
        Cli::List => {
            PROGRAMS
                .iter()
                .for_each(|p| println!("{:<8} {}", p.name, p.about));
            println!(
                "{:<8} collections of Rust's std, through cargo vernal",
                "rust"
            );
            EXAMPLES.iter().for_each(|e| println!("example-{}", e.name));
            ExitCode::SUCCESS
        }
        Cli::Run(options) => match run(&options) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(e) => {
                eprintln!("vernal-programs: {e}");
                ExitCode::from(2)
            }
        },
    }
}
