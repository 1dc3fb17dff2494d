//! `cargo vernal`: see the library for what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    cargo_vernal::main(std::env::args_os().collect())
}
