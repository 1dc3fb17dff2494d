//! puddled itself, as this crate's tests start it.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    puddled::command()
}
