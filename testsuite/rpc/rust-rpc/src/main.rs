//! A server with every kind of method, and clients that use and attack it.
//!
//! ```text
//! rust-rpc guarded CHANNEL    abort ADDRESS
//! rust-rpc serve CHANNEL    check ADDRESS    lie ADDRESS    die ADDRESS    sum ADDRESS TOKEN    stop ADDRESS
//! ```

mod check;
mod lie;
mod server;
mod types;

use std::process::ExitCode;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["serve", name] => server::serve(name),
        ["guarded", name] => server::guarded(name),
        ["abort", address] => check::abort(address),
        ["check", address] => check::check(address),
        ["lie", address] => lie::lie(address),
        ["sum", address, token] => check::sum(address, token),
        ["die", address] => check::die(address),
        ["stop", address] => {
            vernal_rpc::connect(address)?.call(types::STOP, &())?;
            Ok(())
        }
        _ => Err("use: rust-rpc serve|check|lie|die|sum|stop CHANNEL".into()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("rust-rpc: {e}");
            ExitCode::FAILURE
        }
    }
}
