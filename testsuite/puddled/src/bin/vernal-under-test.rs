//! The command `vernal`, as this crate's tests start it.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    vernal_cli::command()
}
