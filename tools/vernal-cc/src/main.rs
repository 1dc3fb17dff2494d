//! `vernal-cc` and `vernal-c++`: see the library for what they do.

use std::process::ExitCode;

fn main() -> ExitCode {
    vernal_cc::main(std::env::args_os().collect())
}
