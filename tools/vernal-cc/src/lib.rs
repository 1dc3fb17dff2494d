//! `vernal-cc` and `vernal-c++`: drop-in replacements for `clang` and `clang++` that add Vernal's pass to compilations and
//! libvernal to links.
//!
//! ```text
//! argv -> vernal options (options) -> response files read (response) -> what clang would do (args)
//!      -> which clang, plugin and library (locate) -> clang's command line (plan) -> exec
//! ```
//!
//! The user's arguments reach clang unchanged and in order; what Vernal adds stands in front of them. When there is
//! nothing to add (`--version`, `-E`, an assembly file, ...) clang is run as if it had been called directly.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod args;
mod locate;
mod options;
mod plan;
mod response;

pub use args::{Debug, Invocation, Lto, Stop};
pub use locate::{Component, LocateError, Toolchain, find_toolchain, library_dir};
pub use options::{HELP, Options};
pub use plan::{Libraries, Plan, PlanError, plan};
pub use response::expand;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Runs the driver with the program's arguments; returns only when clang could not be started.
pub fn main(argv: Vec<OsString>) -> ExitCode {
    let name = argv.first().map_or("vernal-cc", |a| driver_name(a));
    match run(name, argv.get(1..).unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{name}: error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// `vernal-c++` if the program was called by a name that ends so, else `vernal-cc`.
fn driver_name(argv0: &OsStr) -> &'static str {
    let stem = Path::new(argv0)
        .file_name()
        .unwrap_or(argv0)
        .as_encoded_bytes();
    if stem.ends_with(b"c++") || stem.ends_with(b"cxx") {
        "vernal-c++"
    } else {
        "vernal-cc"
    }
}

fn run(name: &str, user: &[OsString]) -> Result<(), String> {
    let (options, user) = Options::split(user).map_err(|e| e.to_string())?;
    if options.help {
        return writeln!(std::io::stdout(), "{HELP}").map_err(|e| format!("standard output: {e}"));
    }
    let cxx = name == "vernal-c++";
    let expanded = expand(&user).map_err(|e| e.to_string())?;
    let invocation = Invocation::parse(&expanded, cxx);
    let toolchain = find_toolchain(cxx).map_err(|e| e.to_string())?;
    let libraries = Libraries {
        dir: library_dir().map_err(|e| e.to_string())?,
        llvm: toolchain.llvm,
    };
    let plan = plan(&invocation, &options, &libraries).map_err(|e| e.to_string())?;
    for note in &plan.notes {
        eprintln!("{name}: note: {note}");
    }

    let mut command = Command::new(&toolchain.clang);
    if toolchain.needs_driver_mode {
        command.arg("--driver-mode=g++");
    }
    command.args(&plan.prepend).args(&user);
    if options.skips {
        command.env("VERNAL_PASS_STATS", "-");
    }
    if options.print_types {
        command.env("VERNAL_PASS_TYPES", "-");
    }
    if options.show {
        return writeln!(std::io::stdout(), "{}", shell_line(&command))
            .map_err(|e| format!("standard output: {e}"));
    }
    let error = command.exec();
    Err(format!("cannot run {}: {error}", toolchain.clang.display()))
}

/// The command as a line that a shell would run the same way.
fn shell_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quote).collect::<Vec<_>>().join(" ")
}

fn quote(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_the_language() {
        for (argv0, name) in [
            ("vernal-cc", "vernal-cc"),
            ("/usr/bin/vernal-c++", "vernal-c++"),
            ("./x86_64-vernal-c++", "vernal-c++"),
            ("vernal-cxx", "vernal-c++"),
            ("c++/vernal-cc", "vernal-cc"),
            ("", "vernal-cc"),
        ] {
            assert_eq!(driver_name(OsStr::new(argv0)), name, "{argv0}");
        }
    }

    #[test]
    fn the_shown_command_survives_a_shell() {
        let mut command = Command::new("clang-22");
        command.args(["-DX=\"a b\"", "it's", "", "$HOME", "a.c"]);
        assert_eq!(
            shell_line(&command),
            r#"clang-22 '-DX="a b"' 'it'\''s' '' '$HOME' a.c"#
        );
    }
}
