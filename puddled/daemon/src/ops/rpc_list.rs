//! Lists of channels, connections and segments.

use std::ops::Bound;

use vernal_puddled_proto::limits::{MAX_LEASES, MAX_PAGE};
use vernal_puddled_proto::{
    ChannelStat, ConnId, ConnStat, Reply, RpcStatus, SegmentId, SegmentOf, SegmentStat,
};

use super::Answer;
use crate::access::Peer;
use crate::client::Client;
use crate::fail::Outcome;
use crate::rpc::{Channel, Conn, Rpc, Segment};
use crate::state::Shared;

/// A page of what `all` gives: at most `limit`, and whether there is more.
fn page<T>(all: impl Iterator<Item = T>, limit: u16) -> (Vec<T>, bool) {
    let limit = usize::from(limit).clamp(1, MAX_PAGE);
    let mut all = all.fuse();
    let page: Vec<T> = all.by_ref().take(limit).collect();
    let more = all.next().is_some();
    (page, more)
}

fn behind<K>(after: Option<K>) -> (Bound<K>, Bound<K>) {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    (from, Bound::Unbounded)
}

pub(crate) fn channels(
    shared: &Shared,
    client: &Client,
    after: Option<String>,
    limit: u16,
) -> Outcome<Answer> {
    let state = shared.state();
    let rpc = &state.rpc;
    let seen = rpc
        .names
        .range(behind(after))
        .filter_map(|(_, id)| rpc.channels.get(id))
        .filter(|c| client.peer.may_see_channel(c))
        .map(|c| channel(rpc, c));
    let (channels, more) = page(seen, limit);
    Ok(Reply::Channels { channels, more }.into())
}

fn bytes(rpc: &Rpc, of: SegmentOf) -> u64 {
    rpc.segments_of(of).map(|s| s.info.size).sum()
}

fn channel(rpc: &Rpc, c: &Channel) -> ChannelStat {
    let conns = c.conns.iter().map(|&id| bytes(rpc, SegmentOf::Conn(id)));
    ChannelStat {
        channel: c.id,
        name: c.name.clone(),
        owner: c.owner,
        group: c.group,
        mode: c.mode,
        server: c.server.info,
        connections: c.conns.len() as u32,
        connected: c.connected,
        segments: c.segments.len() as u32,
        bytes: bytes(rpc, SegmentOf::Channel(c.id)) + conns.sum::<u64>(),
    }
}

/// Whether `peer` may know of a connection: it is of its user, or to a channel of its user.
fn may_see(peer: &Peer, conn: &Conn) -> bool {
    let sides = [conn.client, conn.server];
    let mut uids = sides.iter().flatten().map(|p| p.info.uid);
    peer.admin || conn.channel_owner == peer.uid || uids.any(|uid| uid == peer.uid)
}

pub(crate) fn conns(
    shared: &Shared,
    client: &Client,
    after: Option<ConnId>,
    limit: u16,
) -> Outcome<Answer> {
    let state = shared.state();
    let rpc = &state.rpc;
    let seen = rpc
        .conns
        .range(behind(after))
        .map(|(_, c)| c)
        .filter(|c| may_see(&client.peer, c))
        .map(|c| ConnStat {
            conn: c.id,
            channel: c.channel,
            name: c.name.clone(),
            client: c.client.map(|p| p.info),
            server: c.server.map(|p| p.info),
            segments: c.segments.len() as u32,
            bytes: bytes(rpc, SegmentOf::Conn(c.id)),
        });
    let (conns, more) = page(seen, limit);
    Ok(Reply::Conns { conns, more }.into())
}

pub(crate) fn segments(
    shared: &Shared,
    client: &Client,
    after: Option<SegmentId>,
    limit: u16,
) -> Outcome<Answer> {
    let state = shared.state();
    let rpc = &state.rpc;
    let peer = &client.peer;
    let seen = rpc
        .segments
        .range(behind(after))
        .map(|(_, s)| s)
        .filter(|s| {
            let conn = match s.info.of {
                SegmentOf::Conn(id) => rpc.conns.get(&id),
                SegmentOf::Channel(_) => None,
            };
            peer.admin || s.is_held_by(peer.uid) || conn.is_some_and(|c| may_see(peer, c))
        })
        .map(segment);
    let (segments, more) = page(seen, limit);
    Ok(Reply::Segments { segments, more }.into())
}

fn segment(s: &Segment) -> SegmentStat {
    SegmentStat {
        info: s.info,
        ready: s.ready,
        owner: s.owned.then_some(s.maker.info),
        leases: s.leases.values().take(MAX_LEASES).copied().collect(),
    }
}

pub(crate) fn status(shared: &Shared) -> RpcStatus {
    RpcStatus {
        refused: shared.counters.rpc_refused(),
        ..shared.state().rpc.status()
    }
}
