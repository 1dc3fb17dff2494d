//! `vernal-cc` and `vernal-c++`: see the library for what they do.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    vernal_cc::main(std::env::args_os().collect())
}
