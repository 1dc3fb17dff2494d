//! `vernal rpc top`: the messages that each side of each connection has sent, from what their ring segments count.
//!
//! The numbers are those of the processes themselves: a process can count wrong, and a hostile one can lie about itself.

use super::list::{process, table};
use crate::pool::Common;
use crate::pool::name::connect;
use crate::pool::outcome::{Outcome, Report, Trouble};
use indicatif::BinaryBytes;
use serde_json::json;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use vernal_puddled_client::Client;
use vernal_puddled_proto::{ConnId, ConnStat, SegmentOf};
use vernal_rpc_core::shm::RingStats;

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
#[derive(Clone, Copy, Default)]
struct Traffic {
    client: RingStats,
    server: RingStats,
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
        let (SegmentOf::Conn(conn), Some(owner), true) =
            (segment.info.of, segment.owner, segment.ready)
        else {
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
        let traffic = traffic.get(&c.conn).copied().unwrap_or_default();
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
}

fn difference(before: &Look, after: Look) -> Vec<Row> {
    let seconds = (after.at - before.at).as_secs_f64().max(1e-6);
    let old: HashMap<ConnId, Traffic> = before.conns.iter().map(|(c, t)| (c.conn, *t)).collect();
    let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
    let rows = after.conns.into_iter().map(|(conn, total)| {
        let was = old.get(&conn.conn).copied().unwrap_or_default();
        let text = |t: &Traffic| t.client.text_bytes.wrapping_add(t.server.text_bytes);
        Row {
            calls: rate(total.client.sent, was.client.sent),
            replies: rate(total.server.sent, was.server.sent),
            text: rate(text(&total), text(&was)),
            total,
            conn,
        }
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.sort_by(|a, b| b.calls.total_cmp(&a.calls));
    rows
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
                    "server_messages": r.total.server.sent, "bytes": r.conn.bytes})
            });
            let json =
                json!({"seconds": options.interval, "connections": rows.collect::<Vec<_>>()});
            return Ok(Report::fine(text, json));
        }
        // Home, and clear what is below: the terminal does not flicker.
        crate::print(&format!("\x1b[H\x1b[2J{text}"));
    }
}
