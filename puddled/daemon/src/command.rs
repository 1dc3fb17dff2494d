//! The command `puddled`: arguments, logs, signals.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::{Config, Daemon, MetricsAddress};
use clap::Parser;
use tracing_subscriber::EnvFilter;
use vernal_sys::service::{block_termination, take_listen_fds, wait_termination};

/// Owns pools: hands them out, recovers them when their writers die, keeps users apart
#[derive(Parser)]
#[command(
    name = "puddled",
    version,
    after_help = "RUST_LOG chooses what is logged (info by default). SIGTERM ends puddled; clients keep what they have open, and the next start settles what they leave."
)]
struct Cli {
    /// Where pools, journals and the registry lie; only one puddled at a time may use it
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to listen; a socket passed by systemd is used instead
    #[arg(long, value_name = "PATH", default_value = "/run/vernal/puddled.sock")]
    socket: PathBuf,
    /// Serve Prometheus metrics over HTTP: an address and port, or the absolute path of a Unix socket
    #[arg(long, value_name = "ADDR|PATH")]
    metrics: Option<MetricsAddress>,
    /// Bytes of puddles that a user may own unless set otherwise (root may any); K, M, G and T are binary
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    quota_default: Option<u64>,
    /// Most connections at a time
    #[arg(long, value_name = "N", default_value_t = Config::MAX_CLIENTS)]
    max_clients: usize,
    /// Log as JSON, one object a line
    #[arg(long)]
    json_logs: bool,
}

fn bytes(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.trim_end_matches(|c: char| c.is_ascii_alphabetic()) {
        number if number.len() == text.len() => (number, 0),
        number => match text.get(number.len()..) {
            Some("K" | "KiB") => (number, 10),
            Some("M" | "MiB") => (number, 20),
            Some("G" | "GiB") => (number, 30),
            Some("T" | "TiB") => (number, 40),
            _ => return Err(format!("{text}: the unit is one of K, M, G, T")),
        },
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text}: give a number of bytes, like 10G"))
}

/// What the program `puddled` does.
pub fn command() -> ExitCode {
    // First of all: every thread inherits it, and the numbers of passed sockets must not be taken by anything else.
    let blocked = block_termination();
    let mut passed = take_listen_fds();
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if cli.json_logs {
        log.json().init();
    } else {
        log.init();
    }
    if let Err(e) = blocked {
        return fail(&e);
    }
    if passed.len() > 1 {
        return fail(&format!(
            "{} sockets were passed: puddled.socket has one ListenSequentialPacket",
            passed.len()
        ));
    }
    match run(cli, passed.pop()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&*e),
    }
}

fn fail(e: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("puddled: {e}");
    ExitCode::FAILURE
}

fn run(cli: Cli, listener: Option<OwnedFd>) -> Result<(), Box<dyn std::error::Error>> {
    let daemon = Daemon::start(Config {
        listener,
        metrics: cli.metrics,
        quota_default: cli.quota_default,
        max_clients: cli.max_clients,
        max_clients_per_user: (cli.max_clients / 2).max(1),
        ..Config::new(cli.data, cli.socket)
    })?;
    let stopper = daemon.stopper();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Ok(signal) = wait_termination() {
                tracing::info!(signal, "asked to end");
                stopper.stop();
            }
        })?;
    Ok(daemon.serve()?)
}
