//! Rust packages built with `cargo vernal`: the arena program of this crate, and the example.

use crate::Result;
use crate::tools::{Tools, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A profile of cargo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// `opt-level = 0`
    Dev,
    /// `--release`
    Release,
}

/// Builds the package in `folder`; returns its executable `name`.
pub fn build(tools: &Tools, folder: &Path, name: &str, profile: Profile) -> Result<PathBuf> {
    let target = tools.work.join("cargo");
    let mut command = Command::new(tools.bin.join("cargo-vernal"));
    command.current_dir(folder).arg("build");
    if profile == Profile::Release {
        command.arg("--release");
    }
    // Set by the cargo that may have started us; the package is none of that workspace.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("CARGO_PKG_") || variable == "CARGO_MANIFEST_DIR"
        {
            command.env_remove(&variable);
        }
    }
    run(command
        .env("CARGO_TARGET_DIR", &target)
        .env("VERNAL_LIBDIR", &tools.bin))?;
    let output = if profile == Profile::Release {
        "release"
    } else {
        "debug"
    };
    Ok(target.join("vernal").join(output).join(name))
}

/// Builds a package with the cargo of the path, without any instrumentation.
pub fn plain(tools: &Tools, folder: &Path, name: &str) -> Result<PathBuf> {
    let target = tools.work.join("cargo-plain");
    let mut command = Command::new("cargo");
    command.current_dir(folder).arg("build");
    // Set by the cargo that may have started us; the package is none of that workspace.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("CARGO_") && variable != "CARGO_HOME" {
            command.env_remove(&variable);
        }
    }
    run(command
        .env("CARGO_TARGET_DIR", &target)
        .env("VERNAL_LIBDIR", &tools.bin))?;
    Ok(target.join("debug").join(name))
}

/// The arena program.
pub fn arena(tools: &Tools, profile: Profile) -> Result<PathBuf> {
    build(tools, &tools.here.join("rust-arena"), "rust-arena", profile)
}
