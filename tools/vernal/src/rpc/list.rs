//! `vernal rpc ls`.

use crate::pool::Common;
use crate::pool::name::connect;
use crate::pool::outcome::{Outcome, Report};
use indicatif::BinaryBytes;
use serde_json::{Value, json};
use vernal_puddled_proto::{ChannelStat, ConnStat, ProcessInfo, RpcStatus, SegmentOf, SegmentStat};

#[derive(clap::Args)]
pub struct Ls {
    /// List connections too
    #[arg(long, short)]
    connections: bool,
    /// List segments too, with who writes them and who leases them
    #[arg(long, short)]
    segments: bool,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(options: &Ls) -> Outcome {
    let mut puddled = connect()?;
    let channels = puddled.channels()?;
    let conns = puddled.connections()?;
    let segments = puddled.segments()?;
    let status = puddled.rpc_status()?;
    let mut text = table(&channels, channel_row);
    if options.connections {
        text.push_str("\n\n");
        text.push_str(&table(&conns, conn_row));
    }
    if options.segments {
        text.push_str("\n\n");
        text.push_str(&table(&segments, segment_row));
    }
    text.push_str("\n\n");
    text.push_str(&totals(&status));
    let json = json!({
        "channels": channels.iter().map(channel_json).collect::<Vec<_>>(),
        "connections": conns.iter().map(conn_json).collect::<Vec<_>>(),
        "segments": segments.iter().map(segment_json).collect::<Vec<_>>(),
        "totals": {"channels": status.channels, "connections": status.connections, "segments": status.segments,
            "bytes": status.segment_bytes, "address_bytes": status.address_bytes, "leases": status.leases,
            "orphans": status.orphans, "connected": status.connected, "refused": status.refused},
    });
    Ok(Report::fine(text, json))
}

/// Rows in columns as wide as they must be. The first row is the heading, made of nothing.
pub(super) fn table<T>(rows: &[T], row: impl Fn(Option<&T>) -> Vec<String>) -> String {
    let mut all = vec![row(None)];
    all.extend(rows.iter().map(|r| row(Some(r))));
    let columns = all.iter().map(Vec::len).max().unwrap_or(0);
    let wide = |i: usize| {
        let cells = all.iter().filter_map(|r| r.get(i));
        cells.map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(wide).collect();
    let line = |cells: &Vec<String>| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn strings<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|&c| c.to_owned()).collect()
}

pub(super) fn process(info: &ProcessInfo) -> String {
    format!("{} ({})", info.pid, info.uid)
}

fn or_gone(info: Option<&ProcessInfo>) -> String {
    info.map_or_else(|| "gone".to_owned(), process)
}

fn bytes(n: u64) -> String {
    BinaryBytes(n).to_string()
}

fn channel_row(channel: Option<&ChannelStat>) -> Vec<String> {
    let Some(c) = channel else {
        return strings([
            "CHANNEL",
            "MODE",
            "OWNER",
            "GROUP",
            "SERVER (UID)",
            "CONNECTIONS",
            "EVER",
            "MEMORY",
        ]);
    };
    vec![
        c.name.clone(),
        format!("{:04o}", c.mode),
        c.owner.to_string(),
        c.group.to_string(),
        process(&c.server),
        c.connections.to_string(),
        c.connected.to_string(),
        bytes(c.bytes),
    ]
}

fn channel_json(c: &ChannelStat) -> Value {
    json!({"channel": c.name, "id": c.channel.to_string(), "owner": c.owner, "group": c.group,
        "mode": format!("{:04o}", c.mode), "server": process_json(Some(&c.server)), "connections": c.connections,
        "connected": c.connected, "segments": c.segments, "bytes": c.bytes})
}

fn process_json(info: Option<&ProcessInfo>) -> Value {
    info.map_or(
        Value::Null,
        |i| json!({"pid": i.pid, "uid": i.uid, "gid": i.gid}),
    )
}

fn conn_row(conn: Option<&ConnStat>) -> Vec<String> {
    let Some(c) = conn else {
        return strings([
            "CONNECTION",
            "CHANNEL",
            "CLIENT (UID)",
            "SERVER (UID)",
            "SEGMENTS",
            "MEMORY",
        ]);
    };
    vec![
        c.conn.to_string(),
        c.name.clone(),
        or_gone(c.client.as_ref()),
        or_gone(c.server.as_ref()),
        c.segments.to_string(),
        bytes(c.bytes),
    ]
}

fn conn_json(c: &ConnStat) -> Value {
    json!({"connection": c.conn.to_string(), "channel": c.name, "client": process_json(c.client.as_ref()),
        "server": process_json(c.server.as_ref()), "segments": c.segments, "bytes": c.bytes})
}

fn of(of: SegmentOf) -> String {
    match of {
        SegmentOf::Conn(id) => format!("connection {id}"),
        SegmentOf::Channel(id) => format!("channel {id}"),
    }
}

fn segment_row(segment: Option<&SegmentStat>) -> Vec<String> {
    let Some(s) = segment else {
        return strings([
            "SEGMENT",
            "OF",
            "ADDRESS",
            "SIZE",
            "STATE",
            "WRITER (UID)",
            "LEASES",
        ]);
    };
    let state = match (s.owner, s.ready) {
        (None, _) => "orphan",
        (Some(_), true) => "sealed",
        (Some(_), false) => "new",
    };
    let leases: Vec<String> = s.leases.iter().map(process).collect();
    vec![
        s.info.segment.to_string(),
        of(s.info.of),
        format!("{:#x}", s.info.addr),
        bytes(s.info.size),
        state.to_owned(),
        or_gone(s.owner.as_ref()),
        leases.join(", "),
    ]
}

fn segment_json(s: &SegmentStat) -> Value {
    json!({"segment": s.info.segment.to_string(), "of": of(s.info.of), "address": format!("{:#x}", s.info.addr),
        "bytes": s.info.size, "sealed": s.ready, "writer": process_json(s.owner.as_ref()),
        "leases": s.leases.iter().map(|i| process_json(Some(i))).collect::<Vec<_>>()})
}

fn totals(s: &RpcStatus) -> String {
    format!(
        "puddled: {} channels, {} connections, {} segments with {}, {} leases, {} orphans; {} requests refused",
        s.channels,
        s.connections,
        s.segments,
        bytes(s.segment_bytes),
        s.leases,
        s.orphans,
        s.refused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |r: Option<&(&str, &str)>| {
            let (a, b) = r.copied().unwrap_or(("A", "LONG"));
            vec![a.to_owned(), b.to_owned()]
        };
        let text = table(&[("ü-wide", "x"), ("y", "")], row);
        assert_eq!(text, "A       LONG\nü-wide  x\ny");
    }
}
