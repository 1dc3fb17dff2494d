//! The program `vernal`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    vernal_cli::command()
}
