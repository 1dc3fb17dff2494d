//! `cargo vernal build|run|test|...`: runs cargo so that every program it builds is instrumented, std included.
//!
//! The same executable plays two parts:
//!
//! ```text
//! user  -> cargo-vernal build ...   (front)    checks the toolchain, sets RUSTC_WRAPPER to itself, runs cargo
//! cargo -> cargo-vernal rustc ...   (wrapper)  rewrites the arguments of one rustc call, runs rustc
//! ```
//!
//! Libraries keep their bitcode beside their machine code; programs are linked with fat LTO by rustc's own lld, which
//! loads the pass and runs it over the whole program: std's bitcode comes with the toolchain. Build scripts and
//! procedural macros use the machine code of the same libraries and stay as they are.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod front;
mod wrapper;

pub use wrapper::{Kind, Link, kind_of, rewrite};

use std::ffi::OsString;
use std::process::ExitCode;

/// Set for the calls that cargo makes of this program; holds the wrapper that the user had configured, or nothing.
pub(crate) const WRAPPER_VARIABLE: &str = "CARGO_VERNAL_INNER_WRAPPER";

/// Runs one of the two parts.
pub fn main(argv: Vec<OsString>) -> ExitCode {
    let args = argv.get(1..).unwrap_or_default();
    let result = match std::env::var_os(WRAPPER_VARIABLE) {
        Some(inner) => wrapper::run(&inner, args),
        None => front::run(args),
    };
    match result {
        Ok(code) => code,
        Err(message) => {
            eprintln!("cargo vernal: error: {message}");
            ExitCode::FAILURE
        }
    }
}
