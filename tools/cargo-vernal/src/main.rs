//! `cargo vernal`: see the library for what it does.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    cargo_vernal::main(std::env::args_os().collect())
}
