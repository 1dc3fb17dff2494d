//! Vernal's own tools, as built, and the folder to work in.

use crate::Result;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The folder of vernal-cc, libvernal and the passes.
    pub bin: PathBuf,
    /// The folder to build and run in.
    pub work: PathBuf,
    /// This crate's folder.
    pub here: PathBuf,
}

impl Tools {
    /// Finds the tools beside this program, or above it, or in `release` there.
    pub fn find() -> Result<Self> {
        let program = env::current_exe()?;
        let complete = |dir: &Path| {
            [
                "vernal-cc",
                "vernal-c++",
                "cargo-vernal",
                "libvernal.so",
                "libvernal_pass_22.so",
            ]
            .iter()
            .all(|name| dir.join(name).exists())
        };
        let Some(bin) = program
            .ancestors()
            .skip(1)
            .take(3)
            // Tests of cargo lie in `debug`, and the tools are built for release.
            .flat_map(|dir| [dir.to_owned(), dir.join("release")])
            .find(|dir| complete(dir))
        else {
            let dir = program.parent().unwrap_or(Path::new(""));
            return Err(format!(
                "vernal-cc, vernal-c++, cargo-vernal, libvernal.so and libvernal_pass_22.so are not all in {}; \
                 run `cargo build --release` first",
                dir.display()
            )
            .into());
        };
        let work = bin.parent().unwrap_or(&bin).join("programs");
        std::fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
        Ok(Self {
            bin,
            work,
            here: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
        })
    }

    /// The C or C++ compiler driver.
    pub fn compiler(&self, cxx: bool) -> PathBuf {
        self.bin.join(if cxx { "vernal-c++" } else { "vernal-cc" })
    }
}

/// Runs a command; an error holds what it printed.
pub fn run(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null());
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|e| format!("cannot run {name}: {e}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let tail = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    };
    Err(format!(
        "{command:?}: {}\n{}\n{}",
        output.status,
        tail(&output.stdout),
        tail(&output.stderr)
    )
    .into())
}
