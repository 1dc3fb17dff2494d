//! What the user calls: `cargo vernal SUBCOMMAND ...`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use vernal_cc::{Component, library_dir};

use crate::WRAPPER_VARIABLE;

const HELP: &str = "\
cargo vernal: Rust programs whose mapped files are failure-atomic, on stable Rust

  cargo vernal build|run|test|bench|rustc [cargo's arguments]

  Every program, test and example is instrumented as a whole, std and all dependencies included, and linked with
  libvernal. Build scripts and procedural macros stay as they are. The output is in target/vernal/<profile>.
  C and C++ that build scripts compile goes through vernal-cc, unless CC or CXX is set.

  CARGO_VERNAL_CC=0    leave C and C++ code to the system's compiler: its stores into mapped files are not seen
  VERNAL_LIBDIR=DIR    where libvernal and the pass are; default: beside this program, or in ../lib/vernal

  At run time: VERNAL_PATHS='/data/*.img' makes mmap and msync on the matching files failure-atomic;
  VERNAL_AUDIT=1 reports every byte that changed without being seen.";

/// Subcommands of cargo that compile something.
const BUILDING: &[&str] = &[
    "b", "bench", "build", "c", "check", "clippy", "doc", "r", "run", "rustc", "t", "test",
];

/// Runs cargo with everything set up.
pub fn run(args: &[OsString]) -> Result<ExitCode, String> {
    // Called as `cargo vernal build`, cargo passes `vernal build`.
    let args = match args.first() {
        Some(first) if first == "vernal" => &args[1..],
        _ => args,
    };
    let Some(subcommand) = args
        .iter()
        .find(|a| !a.as_encoded_bytes().starts_with(b"+"))
    else {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    match subcommand.to_str() {
        Some("--help" | "-h" | "help") => {
            println!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
        Some("--version" | "-V") => {
            println!("cargo-vernal {}", env!("CARGO_PKG_VERSION"));
            return Ok(ExitCode::SUCCESS);
        }
        Some(name) if BUILDING.contains(&name) => {}
        _ => {
            return Err(format!(
                "unknown subcommand {}; use one of {}",
                subcommand.display(),
                BUILDING.join(", ")
            ));
        }
    }

    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let dir = library_dir().map_err(|e| e.to_string())?;
    let dir = dir.canonicalize().map_err(|e| {
        format!(
            "{}: {e}; VERNAL_LIBDIR must name Vernal's folder",
            dir.display()
        )
    })?;
    let llvm = rustc_llvm()?;
    let pass = Component::Pass(llvm)
        .find_in(&dir)
        .map_err(|e| e.to_string())?;
    Component::Shared.find_in(&dir).map_err(|e| e.to_string())?;
    let myself =
        env::current_exe().map_err(|e| format!("the path of this program is unknown: {e}"))?;

    let mut command = Command::new(&cargo);
    command.args(args);
    command.env("RUSTC_WRAPPER", &myself);
    command.env(
        WRAPPER_VARIABLE,
        env::var_os("RUSTC_WRAPPER").unwrap_or_default(),
    );
    command.env(crate::wrapper::DIR_VARIABLE, &dir);
    command.env(crate::wrapper::PASS_VARIABLE, &pass);
    // The identity of pass and wrapper is part of what `rustc -vV` says through the wrapper, and so of every
    // fingerprint; cargo must not remember an older answer.
    command.env("CARGO_CACHE_RUSTC_INFO", "0");
    if !names_target_dir(args) {
        // Not the folder of plain builds: cargo would take their uninstrumented output for ours.
        command.env("CARGO_TARGET_DIR", target_dir(&cargo, args)?.join("vernal"));
    }
    instrument_c(&mut command, &dir);
    let status = command
        .status()
        .map_err(|e| format!("cannot run {}: {e}", cargo.display()))?;
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|c| u8::try_from(c).ok())
            .unwrap_or(101),
    ))
}

/// Sends the C and C++ that build scripts compile through vernal-cc.
fn instrument_c(command: &mut Command, dir: &Path) {
    if env::var_os("CARGO_VERNAL_CC").is_some_and(|v| v == "0") || env::var_os("HOST_CC").is_some()
    {
        return;
    }
    let tool = |name: &str| {
        let beside = env::current_exe()
            .ok()
            .and_then(|p| Some(p.canonicalize().ok()?.parent()?.join(name)));
        [Some(dir.join(name)), beside]
            .into_iter()
            .flatten()
            .find(|p| p.exists())
    };
    // Machine code meets machine code: clang's LLVM need not be rustc's.
    if let Ok(clang) = vernal_cc::find_toolchain(false)
        && Component::Pass(clang.llvm).find_in(dir).is_ok()
    {
        for (variable, name) in [("CC", "vernal-cc"), ("CXX", "vernal-c++")] {
            if env::var_os(variable).is_none()
                && let Some(path) = tool(name)
            {
                command.env(variable, path);
            }
        }
        command.env("VERNAL_LIBDIR", dir);
    }
}

/// The LLVM version of the rustc that cargo will use.
fn rustc_llvm() -> Result<u32, String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc)
        .arg("-vV")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| {
            format!(
                "cannot run {}: {e}; install Rust 1.95 or newer",
                rustc.display()
            )
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let field = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name))
            .map(str::trim)
    };
    let host = field("host:").unwrap_or("unknown");
    if host != "x86_64-unknown-linux-gnu" {
        return Err(format!(
            "rustc builds for {host}; Vernal tracks stores on x86_64-unknown-linux-gnu only"
        ));
    }
    let version = field("LLVM version:").unwrap_or("");
    match version.split('.').next().and_then(|v| v.parse().ok()) {
        Some(llvm @ (19 | 22)) => Ok(llvm),
        _ => Err(format!(
            "rustc {} uses LLVM {version:?}; there is a pass for LLVM 22 (Rust 1.95) and 19 (Rust 1.82 to 1.86): \
             `rustup toolchain install 1.95`, then `cargo +1.95 vernal ...`",
            field("release:").unwrap_or("?"),
        )),
    }
}

fn names_target_dir(args: &[OsString]) -> bool {
    before_dashes(args)
        .iter()
        .any(|a| a.as_encoded_bytes().starts_with(b"--target-dir"))
}

fn before_dashes(args: &[OsString]) -> &[OsString] {
    let end = args.iter().position(|a| a == "--").unwrap_or(args.len());
    &args[..end]
}

/// The target folder that cargo would use here.
fn target_dir(cargo: &OsStr, args: &[OsString]) -> Result<PathBuf, String> {
    let mut metadata = Command::new(cargo);
    metadata.args(
        args.iter()
            .take_while(|a| a.as_encoded_bytes().starts_with(b"+")),
    );
    metadata.args(["metadata", "--no-deps", "--format-version=1"]);
    let mut words = before_dashes(args).iter();
    while let Some(word) = words.next() {
        if word == "--manifest-path" {
            metadata.arg(word).args(words.next());
        } else if word.as_encoded_bytes().starts_with(b"--manifest-path=") {
            metadata.arg(word);
        }
    }
    let output = metadata
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cannot run {}: {e}", cargo.display()))?;
    if !output.status.success() {
        return Err(
            "`cargo metadata` failed (see above); name the output folder with --target-dir"
                .to_owned(),
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    json_string(&text, "target_directory")
        .map(PathBuf::from)
        .ok_or_else(|| "`cargo metadata` names no target folder; give --target-dir".to_owned())
}

/// The string value of the last `"key":"..."` in `json`: the target folder is a top-level field near the end of what cargo
/// prints, and no JSON parser is worth its build time for it.
fn json_string(json: &str, key: &str) -> Option<String> {
    let start = json.rfind(&format!("\"{key}\":\""))? + key.len() + 4;
    let mut value = String::new();
    let mut chars = json[start..].chars();
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => match chars.next()? {
                c @ ('"' | '\\' | '/') => value.push(c),
                _ => return None,
            },
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_folder_is_read_from_metadata() {
        let json = r#"{"packages":[],"target_directory":"/a \"b\"\\c","version":1}"#;
        assert_eq!(
            json_string(json, "target_directory").as_deref(),
            Some("/a \"b\"\\c")
        );
        assert_eq!(json_string("{}", "target_directory"), None);
        assert_eq!(
            json_string(r#"{"target_directory":"/a"#, "target_directory"),
            None
        );
    }

    #[test]
    fn target_dir_of_the_program_is_not_ours() {
        let args = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(names_target_dir(&args("build --target-dir x")));
        assert!(names_target_dir(&args("build --target-dir=x")));
        assert!(!names_target_dir(&args("run -- --target-dir x")));
    }
}
