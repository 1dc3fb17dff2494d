//! `cargo xtask demo`: the phone book, killed again and again.

use crate::Result;

#[derive(clap::Args)]
pub struct Options {
    /// Print one JSON object on standard output; progress goes to standard error
    #[arg(long)]
    json: bool,
}

/// Runs the demonstration.
pub fn run(_options: &Options) -> Result<bool> {
    Err("phonebook.c is not there yet".into())
}
