//! `cargo xtask install --prefix DIR`: tools, libraries, headers, pkg-config and CMake files.
//!
//! ```text
//! PREFIX/bin                      vernal, vernal-cc, vernal-c++, cargo-vernal, puddled
//! PREFIX/lib/vernal               libvernal.so, libvernal_shim.so, libvernal.a, the passes, headers in front of libstdc++'s
//! PREFIX/lib/libvernal.{so,a}     links to them, for -lvernal
//! PREFIX/lib/pkgconfig            vernal.pc
//! PREFIX/lib/cmake/Vernal         VernalConfig.cmake, VernalConfigVersion.cmake
//! PREFIX/include                  vernal.h, vernal_pool.h, vernal.hpp
//! ```

use crate::packages::{self, Group};
use crate::{Result, build, ui::Ui, workspace::Workspace};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(clap::Args)]
pub struct Options {
    /// The folder under which everything is installed
    #[arg(long, default_value = "/usr/local")]
    prefix: PathBuf,
    /// Put this in front of every path that is written, for packagers
    #[arg(long, value_name = "DIR")]
    destdir: Option<PathBuf>,
    /// Afterwards compile, link and run a program with what was installed
    #[arg(long, conflicts_with = "destdir")]
    verify: bool,
}

/// Programs, and whether an installation without them is still one.
const PROGRAMS: &[&str] = &["vernal", "vernal-cc", "cargo-vernal", "puddled"];
const LIBRARIES: &[&str] = &[
    "libvernal.so",
    "libvernal_shim.so",
    "libvernal.a",
    "libvernal_pass_22.so",
];
/// Installed when it has been built: the pass for the other LLVM.
const OPTIONAL: &str = "libvernal_pass_19.so";

/// Builds and installs.
pub fn run(options: &Options) -> Result<bool> {
    let ui = Ui::new(false);
    let workspace = Workspace::load()?;
    if !options.prefix.is_absolute() {
        return Err(format!(
            "--prefix {}: must be absolute, it is written into vernal.pc",
            options.prefix.display()
        )
        .into());
    }
    packages::ensure(&ui, &[Group::Toolchain])?;
    build::tools(&ui, &workspace)?;
    let under = match &options.destdir {
        Some(destdir) => destdir.join(options.prefix.strip_prefix("/").unwrap_or(&options.prefix)),
        None => options.prefix.clone(),
    };
    let release = workspace.target.join("release");
    let (bin, own, lib) = (
        under.join("bin"),
        under.join("lib/vernal"),
        under.join("lib"),
    );
    for program in PROGRAMS {
        copy(&ui, &release.join(program), &bin.join(program))?;
    }
    link(&ui, "vernal-cc", &bin.join("vernal-c++"))?;
    for library in LIBRARIES {
        copy(&ui, &release.join(library), &own.join(library))?;
    }
    let header = "include-cxx/bits/c++config.h";
    copy(&ui, &release.join(header), &own.join(header))?;
    if release.join(OPTIONAL).exists() {
        copy(&ui, &release.join(OPTIONAL), &own.join(OPTIONAL))?;
    }
    for library in ["libvernal.so", "libvernal.a"] {
        link(&ui, &format!("vernal/{library}"), &lib.join(library))?;
    }
    let capi = workspace.root.join("runtime/capi");
    for entry in read_dir(&capi.join("include"))? {
        copy(
            &ui,
            &entry,
            &under
                .join("include")
                .join(entry.file_name().unwrap_or_default()),
        )?;
    }
    // Templates: @PREFIX@ and @VERSION@ are filled in.
    for (template, to) in [
        ("vernal.pc.in", "lib/pkgconfig/vernal.pc"),
        (
            "cmake/VernalConfig.cmake.in",
            "lib/cmake/Vernal/VernalConfig.cmake",
        ),
        (
            "cmake/VernalConfigVersion.cmake.in",
            "lib/cmake/Vernal/VernalConfigVersion.cmake",
        ),
    ] {
        let from = capi.join(template);
        let text = fs::read_to_string(&from)
            .map_err(|e| format!("cannot read {}: {e}", from.display()))?;
        let text = text
            .replace("@PREFIX@", &options.prefix.to_string_lossy())
            .replace("@VERSION@", env!("CARGO_PKG_VERSION"));
        write(&ui, &under.join(to), &text)?;
    }
    if options.verify {
        verify(&ui, &workspace, &under)?;
    }
    Ok(true)
}

/// Compiles the phone book with the installed driver, runs it, and lets the installed `vernal` look at its file; and a program
/// that uses the explicit interface, found through pkg-config.
fn verify(ui: &Ui, workspace: &Workspace, prefix: &Path) -> Result<()> {
    let folder = workspace.target.join("xtask/verify");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
    let folder = folder.canonicalize()?;
    let driver = prefix.join("bin/vernal-cc");
    let example = workspace.root.join("testsuite/examples/phonebook.c");
    let (program, image) = (folder.join("phonebook"), folder.join("people.img"));
    said(
        Command::new(&driver)
            .arg("-O2")
            .arg(&example)
            .arg("-o")
            .arg(&program),
        "",
    )?;
    let phonebook = |words: &[&str], expected: &str| -> Result<()> {
        said(
            Command::new(&program)
                .arg(&image)
                .args(words)
                .env("VERNAL_PATHS", &image),
            expected,
        )
    };
    phonebook(&["add", "Ada", "1815"], "")?;
    phonebook(&["find", "Ada"], "1815")?;
    said(
        Command::new(prefix.join("bin/vernal"))
            .arg("check")
            .arg(&image),
        "clean",
    )?;

    let source = folder.join("explicit.c");
    fs::write(&source, EXPLICIT)?;
    let output = Command::new("pkg-config")
        .args(["--cflags", "--libs", "vernal"])
        .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"))
        .output()
        .map_err(|e| format!("cannot run pkg-config: {e}"))?;
    let flags = String::from_utf8(output.stdout)?;
    let program = folder.join("explicit");
    said(
        Command::new(&driver)
            .arg(&source)
            .args(flags.split_whitespace())
            .arg("-o")
            .arg(&program),
        "",
    )?;
    said(
        Command::new(&program).arg(folder.join("explicit.img")),
        "committed",
    )?;
    ui.line("verified: the installed driver compiles programs that work");
    Ok(())
}

/// A program that knows Vernal.
const EXPLICIT: &str = r#"
#include <stdio.h>
#include <vernal.h>
int main(int argc, char **argv) {
  int *at = argc > 1 ? vernal_map(argv[1], 4096, VERNAL_CREATE) : 0;
  if (!at) { puts(vernal_last_error()); return 1; }
  *at = 7;
  if (vernal_commit() || vernal_unmap(at)) { puts(vernal_last_error()); return 1; }
  puts("committed");
  return 0;
}
"#;

/// Runs a command that must succeed and say `expected`.
fn said(command: &mut Command, expected: &str) -> Result<()> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .map_err(|e| format!("cannot run {shown}: {e}"))?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() && text.contains(expected) {
        return Ok(());
    }
    Err(format!("{shown}: {}, and it said: {text}", output.status).into())
}

fn read_dir(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

fn parent(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    let remedy = "choose a --prefix that you may write to, or run as root";
    fs::create_dir_all(folder)
        .map_err(|e| format!("cannot create {}: {e}: {remedy}", folder.display()).into())
}

fn copy(ui: &Ui, from: &Path, to: &Path) -> Result<()> {
    parent(to)?;
    // Beside it first: a running program that maps the old library keeps its own copy.
    let beside = to.with_extension("new");
    fs::copy(from, &beside).map_err(|e| {
        format!(
            "cannot copy {} to {}: {e}",
            from.display(),
            beside.display()
        )
    })?;
    fs::rename(&beside, to).map_err(|e| {
        format!(
            "cannot rename {} to {}: {e}",
            beside.display(),
            to.display()
        )
    })?;
    ui.line(&to.display().to_string());
    Ok(())
}

fn link(ui: &Ui, target: &str, at: &Path) -> Result<()> {
    parent(at)?;
    if at.symlink_metadata().is_ok() {
        fs::remove_file(at).map_err(|e| format!("cannot replace {}: {e}", at.display()))?;
    }
    symlink(target, at).map_err(|e| format!("cannot link {} to {target}: {e}", at.display()))?;
    ui.line(&format!("{} -> {target}", at.display()));
    Ok(())
}

fn write(ui: &Ui, at: &Path, text: &str) -> Result<()> {
    parent(at)?;
    fs::write(at, text).map_err(|e| format!("cannot write {}: {e}", at.display()))?;
    ui.line(&at.display().to_string());
    Ok(())
}
