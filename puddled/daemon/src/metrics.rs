//! Metrics, as text in the format of Prometheus: in a reply, and over HTTP.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vernal_puddled_proto::limits::MAX_METRICS;

use crate::config::MetricsAddress;
use crate::ops::{rpc_status, status};
use crate::state::Shared;

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
    protocol_errors: AtomicU64,
    settled: AtomicU64,
    recoveries: AtomicU64,
    replayed: AtomicU64,
    recovery_micros: AtomicU64,
    checking_micros: AtomicU64,
    settling_micros: AtomicU64,
    longest_recovery_micros: AtomicU64,
    quarantines: AtomicU64,
    rpc_refused: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub fn accepted(&self) {
        Self::add(&self.accepted, 1);
    }

    pub fn refused(&self) {
        Self::add(&self.refused, 1);
    }

    pub fn requested(&self, failed: bool) {
        Self::add(&self.requests, 1);
        Self::add(&self.failures, u64::from(failed));
    }

    pub fn protocol_error(&self) {
        Self::add(&self.protocol_errors, 1);
    }

    /// A client's journal and logs were replayed in `took`, of which it took `checking` to check the journal.
    pub fn recovered(&self, replayed: u64, took: Duration, checking: Duration) {
        Self::add(&self.recoveries, u64::from(replayed != 0));
        Self::add(&self.replayed, replayed);
        Self::add(&self.recovery_micros, micros(took));
        Self::add(&self.checking_micros, micros(checking));
        self.longest_recovery_micros
            .fetch_max(micros(took), Ordering::Relaxed);
    }

    /// A client was recovered and its grant dropped, in `took` all in all.
    pub fn settled(&self, took: Duration) {
        Self::add(&self.settled, 1);
        Self::add(&self.settling_micros, micros(took));
    }

    pub fn quarantined(&self) {
        Self::add(&self.quarantines, 1);
    }

    /// A request on channels, connections or segments was refused.
    pub fn refused_rpc(&self) {
        Self::add(&self.rpc_refused, 1);
    }

    pub fn rpc_refused(&self) -> u64 {
        self.rpc_refused.load(Ordering::Relaxed)
    }

    pub fn recoveries(&self) -> u64 {
        self.recoveries.load(Ordering::Relaxed)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The metrics as text.
pub(crate) fn render(shared: &Shared) -> String {
    let s = status(shared);
    let c = &shared.counters;
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (buffered, direct, damaged) = {
        let state = shared.state();
        let damaged = state.pools.values().filter(|p| p.damaged.is_some()).count();
        (state.buffered.used(), state.direct.used(), damaged as u64)
    };
    let rpc = rpc_status(shared);
    let rows: [(&str, &str, &str, u64); 33] = [
        (
            "uptime_seconds",
            "gauge",
            "Seconds since the start",
            s.uptime,
        ),
        ("clients", "gauge", "Connections", u64::from(s.clients)),
        ("pools", "gauge", "Pools", s.pools),
        ("puddles", "gauge", "Puddles", s.puddles),
        ("puddle_bytes", "gauge", "Bytes of all puddles", s.bytes),
        (
            "buffered_address_bytes",
            "gauge",
            "Address space given to buffered pools",
            buffered,
        ),
        (
            "direct_address_bytes",
            "gauge",
            "Address space given to direct pools",
            direct,
        ),
        (
            "pools_quarantined",
            "gauge",
            "Pools in quarantine",
            s.quarantined,
        ),
        (
            "pools_damaged",
            "gauge",
            "Pools with missing or damaged files",
            damaged,
        ),
        (
            "pools_unsettled",
            "gauge",
            "Pools whose last writer is being settled",
            s.unsettled,
        ),
        (
            "connections_total",
            "counter",
            "Connections accepted",
            of(&c.accepted),
        ),
        (
            "connections_refused_total",
            "counter",
            "Connections refused",
            of(&c.refused),
        ),
        (
            "requests_total",
            "counter",
            "Requests answered",
            of(&c.requests),
        ),
        (
            "requests_failed_total",
            "counter",
            "Requests refused",
            of(&c.failures),
        ),
        (
            "protocol_errors_total",
            "counter",
            "Messages that were none",
            of(&c.protocol_errors),
        ),
        (
            "settled_total",
            "counter",
            "Clients settled",
            of(&c.settled),
        ),
        (
            "recoveries_total",
            "counter",
            "Clients whose journal or logs were replayed",
            of(&c.recoveries),
        ),
        (
            "replayed_records_total",
            "counter",
            "Records and log entries replayed",
            of(&c.replayed),
        ),
        (
            "recovery_microseconds_total",
            "counter",
            "Time spent replaying journals and logs of clients",
            of(&c.recovery_micros),
        ),
        (
            "recovery_check_microseconds_total",
            "counter",
            "The part of it that was spent reading and checking journals",
            of(&c.checking_micros),
        ),
        (
            "recovery_microseconds_max",
            "gauge",
            "The longest of these replays",
            of(&c.longest_recovery_micros),
        ),
        (
            "settling_microseconds_total",
            "counter",
            "Time spent settling clients, from the moment that no process had their pools mapped",
            of(&c.settling_micros),
        ),
        (
            "quarantines_total",
            "counter",
            "Journals and logs quarantined",
            of(&c.quarantines),
        ),
        ("rpc_channels", "gauge", "Channels", rpc.channels),
        (
            "rpc_connections",
            "gauge",
            "Connections of channels that at least one side has not left",
            rpc.connections,
        ),
        ("rpc_segments", "gauge", "Segments", rpc.segments),
        (
            "rpc_segment_bytes",
            "gauge",
            "Bytes of all segments",
            rpc.segment_bytes,
        ),
        (
            "rpc_address_bytes",
            "gauge",
            "Address space given to segments",
            rpc.address_bytes,
        ),
        (
            "rpc_leases",
            "gauge",
            "Mappings of segments by others than their owners",
            rpc.leases,
        ),
        (
            "rpc_orphans",
            "gauge",
            "Segments whose owner is gone, and that leases keep",
            rpc.orphans,
        ),
        (
            "rpc_connected_total",
            "counter",
            "Connections made to channels",
            rpc.connected,
        ),
        (
            "rpc_refused_total",
            "counter",
            "Requests on channels, connections and segments that were refused",
            rpc.refused,
        ),
        ("up", "gauge", "Always 1", 1),
    ];
    let mut text = String::with_capacity(4096);
    for (name, kind, help, value) in rows {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "# HELP puddled_{name} {help}.\n# TYPE puddled_{name} {kind}\npuddled_{name} {value}\n"
        );
    }
    debug_assert!(text.len() <= MAX_METRICS);
    text
}

/// How long a scraper may take to ask, and to read.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest request that is read.
const MAX_REQUEST: u64 = 8 << 10;

/// A listener for scrapers.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub fn bind(address: &MetricsAddress) -> std::io::Result<Self> {
        match address {
            MetricsAddress::Tcp(at) => TcpListener::bind(at).map(Listener::Tcp),
            MetricsAddress::Unix(path) => {
                // Ours from an earlier run, or nobody's: a listener answers.
                if std::os::unix::net::UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                UnixListener::bind(path).map(Listener::Unix)
            }
        }
    }

    /// Answers scrapers, one after the other, for ever. None can take longer than twice [`PATIENCE`] per read and write.
    pub fn serve(self, shared: &Arc<Shared>) {
        loop {
            let done = match &self {
                Listener::Tcp(l) => l.accept().and_then(|(s, _)| {
                    s.set_read_timeout(Some(PATIENCE))?;
                    s.set_write_timeout(Some(PATIENCE))?;
                    answer(&s, &s, shared)
                }),
                Listener::Unix(l) => l.accept().and_then(|(s, _)| {
                    s.set_read_timeout(Some(PATIENCE))?;
                    s.set_write_timeout(Some(PATIENCE))?;
                    answer(&s, &s, shared)
                }),
            };
            if let Err(e) = done {
                tracing::debug!(error = %e, "a scraper failed");
                // No descriptor left, perhaps: not again at once.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// One HTTP request and its answer.
fn answer(from: impl Read, mut to: impl Write, shared: &Shared) -> std::io::Result<()> {
    let mut lines = BufReader::new(from.take(MAX_REQUEST));
    let mut first = String::new();
    lines.read_line(&mut first)?;
    let mut line = String::new();
    // The rest of the header, so that the peer has sent all before the connection closes.
    while lines.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut words = first.split_ascii_whitespace();
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics" | "/")) => ("200 OK", render(shared)),
        (Some("GET"), _) => ("404 Not Found", "see /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "GET /metrics\n".to_owned()),
    };
    write!(
        to,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    to.flush()
}
