//! `bench puddles`: what pools cost, part by part, against PMDK and volatile memory.

mod aggregation;
mod micro;
mod moving;
mod table;

use crate::compile::{Toolbox, system_name};
use crate::interleave;
use crate::machine::Machine;
use crate::plan::{Suite, System};
use crate::process::Process;
use crate::{Failure, Puddles, Result};
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use std::process::Command;
use table::Table;

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Part {
    /// Transactions, logged ranges and allocations (the thesis' table 3.3)
    Primitives,
    /// List, B-tree and key-value store under YCSB A to G
    Structures,
    /// Euler's formula by 1 to n threads (figure 3.12)
    Threads,
    /// Copies of one structure from 200 sensor nodes (figure 3.14)
    Aggregation,
    /// Rewriting the pointers of a clone
    Relocation,
    /// Export against a plain copy; import to the first access
    Archives,
    /// Opening after a process was killed in a transaction
    Recovery,
}

/// What all parts share.
pub struct Bench<'a> {
    options: &'a Puddles,
    tools: Toolbox,
    /// Folder of this run on byte-addressable media; goes when the run ends.
    shm: PathBuf,
    logs: PathBuf,
    cpu: usize,
    cpus: usize,
    table: Table,
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.shm) {
            eprintln!("{} is left behind: {e}", self.shm.display());
        }
    }
}

/// Runs the parts that were asked for; false when a system could not be measured.
pub fn run(options: &Puddles) -> Result<bool> {
    let structures = &options.structures;
    let parts = if options.parts.is_empty() {
        Part::value_variants().to_vec()
    } else {
        options.parts.clone()
    };
    let out = (structures.out.clone()).unwrap_or_else(|| interleave::target_dir().join("bench"));
    let logs = out.join("log");
    let shm = Path::new(crate::session::SHM).join(format!("vernal-puddles-{}", std::process::id()));
    for dir in [&logs, &shm] {
        std::fs::create_dir_all(dir).map_err(|e| Failure(format!("{}: {e}", dir.display())))?;
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let machine = Machine::this(&out)?;
    println!("{machine}");
    let mut bench = Bench {
        options,
        tools: Toolbox::new(out.join("bin"))?,
        shm,
        logs,
        cpu: structures.cpu.unwrap_or(cpus.saturating_sub(1)),
        cpus,
        table: Table::create(&out.join("puddles-parts-raw.jsonl"), &machine)?,
    };
    for part in &parts {
        match part {
            Part::Primitives => micro::primitives(&mut bench)?,
            Part::Threads => micro::threads(&mut bench)?,
            Part::Aggregation => aggregation::run(&mut bench)?,
            Part::Relocation => moving::relocation(&mut bench)?,
            Part::Archives => moving::archives(&mut bench)?,
            Part::Recovery => moving::recovery(&mut bench)?,
            // Its own harness, below.
            Part::Structures => {}
        }
    }
    let text = bench.table.text(&machine);
    println!("{text}");
    let save = |name: &str, content: &str| {
        let path = out.join(name);
        std::fs::write(&path, content).map_err(|e| Failure(format!("{}: {e}", path.display())))
    };
    save("puddles-parts.txt", &text)?;
    save("puddles-parts.jsonl", &bench.table.json_lines())?;
    let mut json = bench.table.json_lines();
    let complete = bench.table.skipped.is_empty();
    drop(bench);
    let structures_done = if parts.contains(&Part::Structures) {
        let done = interleave::structures(structures, Suite::Puddles)?;
        let rows = out.join("puddles.jsonl");
        json += &std::fs::read_to_string(&rows)
            .map_err(|e| Failure(format!("{}: {e}", rows.display())))?;
        done
    } else {
        true
    };
    if let Some(path) = &structures.json {
        std::fs::write(path, &json).map_err(|e| Failure(format!("{}: {e}", path.display())))?;
    }
    Ok(complete && structures_done)
}

impl Bench<'_> {
    /// Measured rounds: one more is run before them and not counted.
    fn rounds(&self) -> u32 {
        let usual = if self.options.structures.quick { 7 } else { 21 };
        self.options.structures.rounds.unwrap_or(usual).max(1)
    }

    /// The persistent systems that were asked for.
    fn persistent(&self) -> Vec<System> {
        let asked = self.options.structures.systems(Suite::Puddles);
        [System::Pmdk, System::Pool, System::Direct]
            .into_iter()
            .filter(|s| asked.contains(s))
            .collect()
    }

    /// The command of a small program on its own file.
    fn command(&self, source: &str, system: System, file: &str, cpu: &str) -> Result<Command> {
        let mut command = self.tools.build_micro(source, system)?;
        command
            .arg(self.shm.join(file))
            .arg((128u64 << 20).to_string())
            .arg(cpu);
        for name in [
            "VERNAL_PATHS",
            "VERNAL_MEDIA",
            "VERNAL_AUDIT",
            "BENCH_CXL_LIB",
        ] {
            command.env_remove(name);
        }
        command.env("PMEM_IS_PMEM_FORCE", "1");
        Ok(command)
    }

    fn start(&self, source: &str, system: System, cpu: &str) -> Result<Process> {
        let name = format!("{source}-{}", system_name(system));
        let command = self.command(source, system, &format!("{name}.img"), cpu)?;
        Process::start(name.clone(), command, self.logs.join(format!("{name}.log")))
    }

    /// Starts `source` for each system; those that cannot be are noted.
    fn start_all(&mut self, source: &str, cpu: &str) -> Vec<(System, Process)> {
        let mut started = Vec::new();
        for system in self.persistent() {
            match self.start(source, system, cpu) {
                Ok(process) => started.push((system, process)),
                Err(Failure(why)) => self.table.skip(source, system, why),
            }
        }
        started
    }
}
