//! `vernal rpc top`: the messages that each side of each connection has sent, how long calls take, and how far each side trusts the
//! other, from what their ring segments say.
//!
//! The numbers are those of the processes themselves: a process can count wrong, and a hostile one can lie about itself.

use super::list::{process, table};
use crate::pool::Common;
use crate::pool::name::connect;
use crate::pool::outcome::{Outcome, Report, Trouble};
use indicatif::BinaryBytes;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use vernal_puddled_client::Client;
use vernal_puddled_proto::{ConnId, ConnStat, SegmentOf};
use vernal_rpc_core::shm::RingStats;
use vernal_rpc_core::{Latency, Sandbox, Trust};

#[derive(clap::Args)]
pub struct Top {
    /// Seconds between two looks
    #[arg(long, short, default_value_t = 1.0, value_parser = seconds)]
    interval: f64,
    /// Look twice, print the difference, and end; so does --json, and output that is no terminal
    #[arg(long)]
    once: bool,
    /// Connections to show, the busiest ones
    #[arg(long, short, default_value_t = 40)]
    number: usize,
    #[command(flatten)]
    pub common: Common,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(s) if (0.01..=3600.0).contains(&s) => Ok(s),
        _ => Err("give seconds, from 0.01 to 3600".to_owned()),
    }
}

/// What both sides of a connection have sent.
#[derive(Clone, Default)]
struct Traffic {
    client: RingStats,
    server: RingStats,
    /// Mappings of the connection's segments by others than their owners.
    leases: usize,
}

struct Look {
    at: Instant,
    conns: Vec<(ConnStat, Traffic)>,
}

/// Reads the counts of all ring segments that this user may see. A segment that goes meanwhile has no counts any more.
fn look(puddled: &mut Client) -> Result<Look, Trouble> {
    let conns = puddled.connections()?;
    let mut traffic: HashMap<ConnId, Traffic> = HashMap::new();
    let clients: HashMap<ConnId, u32> = conns
        .iter()
        .filter_map(|c| Some((c.conn, c.client?.pid)))
        .collect();
    for segment in puddled.segments()? {
        let SegmentOf::Conn(conn) = segment.info.of else {
            continue;
        };
        traffic.entry(conn).or_default().leases += segment.leases.len();
        let (Some(owner), true) = (segment.owner, segment.ready) else {
            continue;
        };
        let Ok(mapped) = puddled.segment_map(segment.info.segment) else {
            continue;
        };
        let stats = RingStats::read(&mapped.file);
        drop(mapped);
        let _ = puddled.segment_drop(segment.info.segment);
        let Ok(Some(stats)) = stats else {
            continue;
        };
        let both = traffic.entry(conn).or_default();
        match clients.get(&conn) == Some(&owner.pid) {
            true => both.client = stats,
            false => both.server = stats,
        }
    }
    let with = |c: ConnStat| {
        let traffic = traffic.get(&c.conn).cloned().unwrap_or_default();
        (c, traffic)
    };
    Ok(Look {
        at: Instant::now(),
        conns: conns.into_iter().map(with).collect(),
    })
}

struct Row {
    conn: ConnStat,
    total: Traffic,
    /// Per second.
    calls: f64,
    replies: f64,
    text: f64,
    /// Of the calls that were measured between the two looks.
    call: Latency,
    handler: Latency,
}

fn difference(before: &Look, after: Look) -> Vec<Row> {
    let seconds = (after.at - before.at).as_secs_f64().max(1e-6);
    let old: HashMap<ConnId, &Traffic> = before.conns.iter().map(|(c, t)| (c.conn, t)).collect();
    let none = Traffic::default();
    let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
    let rows = after.conns.into_iter().map(|(conn, total)| {
        let was = old.get(&conn.conn).copied().unwrap_or(&none);
        let text = |t: &Traffic| t.client.text_bytes.wrapping_add(t.server.text_bytes);
        Row {
            calls: rate(total.client.sent, was.client.sent),
            replies: rate(total.server.sent, was.server.sent),
            text: rate(text(&total), text(was)),
            call: total.client.latency.since(&was.client.latency),
            handler: total.server.latency.since(&was.server.latency),
            total,
            conn,
        }
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.sort_by(|a, b| b.calls.total_cmp(&a.calls));
    rows
}

/// Median and 99th percentile: of the calls measured between the two looks; if none was, of all.
fn quantiles(new: &Latency, all: &Latency) -> String {
    let of = if new.count() > 0 { new } else { all };
    match (of.quantile(0.5), of.quantile(0.99)) {
        (Some(p50), Some(p99)) => format!("{} / {}", time(p50), time(p99)),
        _ => "-".to_owned(),
    }
}

/// As few digits as a bucket is exact to.
fn time(t: Duration) -> String {
    let nanos = t.as_nanos() as f64;
    let (value, unit) = match nanos {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "us"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    if value < 9.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

fn trust(stats: &RingStats) -> &'static str {
    match stats.trust {
        Some(Trust::Plain) => "plain",
        Some(Trust::Verify) => "verify",
        _ => "?",
    }
}

fn sandbox(stats: &RingStats) -> &'static str {
    match stats.sandbox {
        Sandbox::None => "none",
        Sandbox::Process => "process",
        _ => "?",
    }
}

fn latency_json(new: &Latency, all: &Latency) -> Value {
    let ns = |l: &Latency, q: f64| l.quantile(q).map(|t| t.as_nanos() as u64);
    let part =
        |l: &Latency| json!({"measured": l.count(), "p50_ns": ns(l, 0.5), "p99_ns": ns(l, 0.99)});
    json!({"interval": part(new), "all": part(all)})
}

fn cells(row: Option<&Row>) -> Vec<String> {
    let Some(r) = row else {
        let heads = [
            "CHANNEL",
            "CONNECTION",
            "CLIENT (UID)",
            "SERVER (UID)",
            "FROM CLIENT/S",
            "FROM SERVER/S",
            "TEXT/S",
            "CALL P50 / P99",
            "SERVED P50 / P99",
            "TRUST C/S",
            "SANDBOX",
            "LEASES",
            "SENT",
            "MEMORY",
        ];
        return heads.iter().map(|&h| h.to_owned()).collect();
    };
    let side = |p: Option<_>| p.as_ref().map_or_else(|| "gone".to_owned(), process);
    vec![
        r.conn.name.clone(),
        r.conn.conn.to_string(),
        side(r.conn.client),
        side(r.conn.server),
        format!("{:.0}", r.calls),
        format!("{:.0}", r.replies),
        BinaryBytes(r.text as u64).to_string(),
        quantiles(&r.call, &r.total.client.latency),
        quantiles(&r.handler, &r.total.server.latency),
        format!("{}/{}", trust(&r.total.client), trust(&r.total.server)),
        sandbox(&r.total.server).to_owned(),
        r.total.leases.to_string(),
        r.total.client.sent.to_string(),
        BinaryBytes(r.conn.bytes).to_string(),
    ]
}

pub fn run(options: &Top) -> Outcome {
    let mut puddled = connect()?;
    let once = options.once || options.common.json || !std::io::stdout().is_terminal();
    let mut before = look(&mut puddled)?;
    loop {
        std::thread::sleep(Duration::from_secs_f64(options.interval));
        let after = look(&mut puddled)?;
        let kept = Look {
            at: after.at,
            conns: after.conns.clone(),
        };
        let mut rows = difference(&before, after);
        before = kept;
        let (count, calls) = (rows.len(), rows.iter().map(|r| r.calls).sum::<f64>());
        rows.truncate(options.number);
        let status = puddled.rpc_status()?;
        let text = format!(
            "{} channels, {count} connections, {calls:.0} messages/s from clients; {} segments, {} leases, {} orphans\n\n{}",
            status.channels,
            status.segments,
            status.leases,
            status.orphans,
            table(&rows, cells)
        );
        if once {
            let rows = rows.iter().map(|r| {
                json!({"connection": r.conn.conn.to_string(), "channel": r.conn.name,
                    "client_messages_per_second": r.calls, "server_messages_per_second": r.replies,
                    "text_bytes_per_second": r.text, "client_messages": r.total.client.sent,
                    "server_messages": r.total.server.sent, "bytes": r.conn.bytes, "leases": r.total.leases,
                    "call": latency_json(&r.call, &r.total.client.latency),
                    "served": latency_json(&r.handler, &r.total.server.latency),
                    "client_trusts": trust(&r.total.client), "server_trusts": trust(&r.total.server),
                    "sandbox": sandbox(&r.total.server)})
            });
            let json =
                json!({"seconds": options.interval, "connections": rows.collect::<Vec<_>>()});
            return Ok(Report::fine(text, json));
        }
        // Home, and clear what is below: the terminal does not flicker.
        crate::print(&format!("\x1b[H\x1b[2J{text}"));
    }
}
