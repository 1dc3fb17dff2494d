//! Finds the plugin and the LLVM tools for the pass's tests.
//!
//! The tests need the Debian packages clang-22, lld-22, llvm-22, llvm-22-tools (FileCheck) and llvm-22-dev, and the same
//! for 19. They build the plugins themselves, with the cargo that runs them.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

/// The LLVM versions that the pass supports.
pub const VERSIONS: [u32; 2] = [22, 19];

/// This crate's folder.
pub fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The built plugin for an LLVM version.
///
/// # Panics
///
/// If cargo cannot build it; its output says why.
pub fn plugin(version: u32) -> PathBuf {
    static LOCK: Mutex<()> = Mutex::new(());
    let _one = LOCK.lock().unwrap_or_else(|e| e.into_inner());
    let out = run(Command::new(env!("CARGO"))
        .args([
            "build",
            "--release",
            "--message-format=json",
            "--offline",
            "-p",
        ])
        .arg(format!("vernal-pass-{version}"))
        .current_dir(here()));
    let name = format!("libvernal_pass_{version}.so");
    // The message that names the artifact: "filenames":["…/libvernal_pass_22.so"]
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let found = text
        .split('"')
        .find(|s| s.ends_with(&name))
        .map(PathBuf::from);
    found.unwrap_or_else(|| panic!("cargo did not say where it put {name}"))
}

/// Runs a command that must succeed.
///
/// # Panics
///
/// If it does not, with all it said.
pub fn run(command: &mut Command) -> Output {
    let out = command
        .output()
        .unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(
        out.status.success(),
        "{command:?}: {}\n{}\n{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    out
}

/// An empty folder for one test's files, below `base` (cargo's `CARGO_TARGET_TMPDIR`).
///
/// # Panics
///
/// If it cannot be made.
pub fn scratch(base: &Path, name: &str) -> PathBuf {
    let dir = base.join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("cannot make {}: {e}", dir.display()));
    dir
}
