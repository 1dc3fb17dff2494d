//! The program `puddled`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    puddled::command()
}
