//! Builds the programs.

use crate::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use vernal_programs::rust::{self, Profile};
use vernal_programs::tools::{Tools, run};

/// A program and how it is built.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name in reports.
    pub name: &'static str,
    kind: Kind,
    /// Whether a pool of it can be moved to other addresses.
    pub moves: bool,
    /// Whether it has the command `threads`.
    pub threads: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Cxx(&'static [&'static str]),
    CargoVernal,
    PlainCargo,
}

/// All of them. The containers are compiled position-independent, so that each run has its vtables elsewhere.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "containers-O0",
        kind: Kind::Cxx(&["-O0"]),
        moves: true,
        threads: false,
    },
    Program {
        name: "containers-O2",
        kind: Kind::Cxx(&["-O2"]),
        moves: true,
        threads: false,
    },
    Program {
        name: "containers-lto",
        kind: Kind::Cxx(&["-O2", "-flto"]),
        moves: true,
        threads: false,
    },
    Program {
        name: "resource-O2",
        kind: Kind::Cxx(&["-O2", "-DRESOURCE"]),
        moves: false,
        threads: false,
    },
    Program {
        name: "rust-plain",
        kind: Kind::PlainCargo,
        moves: true,
        threads: true,
    },
    Program {
        name: "rust-vernal",
        kind: Kind::CargoVernal,
        moves: true,
        threads: true,
    },
];

/// This crate's folder.
pub fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

impl Program {
    /// Builds it; returns the executable.
    pub fn build(&self, tools: &Tools) -> Result<PathBuf> {
        match self.kind {
            Kind::Cxx(flags) => {
                let source = here().join("programs/containers.cpp");
                compile(tools, &source, flags, &format!("pool-{}", self.name))
            }
            Kind::CargoVernal => rust::build(
                tools,
                &here().join("rust-pool"),
                "rust-pool",
                Profile::Release,
            ),
            Kind::PlainCargo => rust::plain(tools, &here().join("rust-pool"), "rust-pool"),
        }
    }
}

/// Compiles one C or C++ file, warnings being errors.
pub fn compile(tools: &Tools, source: &Path, flags: &[&str], name: &str) -> Result<PathBuf> {
    let folder = tools.work.join("bin");
    fs::create_dir_all(&folder)?;
    let executable = folder.join(name);
    let cxx = source.extension().is_some_and(|e| e == "cpp");
    let mut command = Command::new(tools.compiler(cxx));
    if cxx {
        command.arg("-std=c++17");
    }
    run(command
        .args(["-Wall", "-Wextra", "-Werror", "-fPIE", "-pie"])
        .args(flags)
        .arg("-I")
        .arg(here().join("../../runtime/capi/include"))
        .arg(source)
        .arg("-o")
        .arg(&executable))?;
    Ok(executable)
}
