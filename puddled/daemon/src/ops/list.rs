//! List, stat and status: what there is.

use std::ops::Bound;

use vernal_puddled_proto::limits::{MAX_FRAME, MAX_PAGE};
use vernal_puddled_proto::{Reply, Status, VERSION_MAX};

use super::Answer;
use crate::client::Client;
use crate::fail::Outcome;
use crate::records::PoolStatus;
use crate::state::{Phase, Shared, info};

/// Bytes of a reply besides its pools.
const HEAD: usize = 64;

pub(crate) fn list(
    shared: &Shared,
    client: &Client,
    after: Option<String>,
    limit: u16,
) -> Outcome<Answer> {
    let limit = usize::from(limit).clamp(1, MAX_PAGE);
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let state = shared.state();
    let mut pools = Vec::new();
    let (mut bytes, mut more) = (HEAD, false);
    for id in state
        .names
        .range((from, Bound::Unbounded))
        .map(|(_, id)| id)
    {
        let Some(pool) = state.pools.get(id) else {
            continue;
        };
        if pool.hidden || !client.peer.may_see(&pool.record) {
            continue;
        }
        let stat = pool.stat();
        let one = Reply::Pool(stat.clone()).encode(VERSION_MAX)?.len();
        if pools.len() == limit || bytes + one > MAX_FRAME {
            more = true;
            break;
        }
        bytes += one;
        pools.push(stat);
    }
    Ok(Reply::Pools { pools, more }.into())
}

pub(crate) fn stat(shared: &Shared, client: &Client, name: &str) -> Outcome<Answer> {
    let state = shared.state();
    let pool = state.find(&client.peer, name)?;
    Ok(Reply::Stat {
        pool: pool.stat(),
        puddles: pool.record.puddles.iter().map(info).collect(),
    }
    .into())
}

pub(crate) fn status(shared: &Shared) -> Status {
    let state = shared.state();
    let pools = || state.pools.values().filter(|p| !p.hidden);
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime: shared.started.elapsed().as_secs(),
        clients: u32::try_from(state.clients.len()).unwrap_or(u32::MAX),
        pools: count(pools().count()),
        puddles: count(pools().map(|p| p.record.puddles.len()).sum()),
        bytes: pools().map(|p| p.record.bytes()).sum(),
        quarantined: count(
            pools()
                .filter(|p| matches!(p.record.status, PoolStatus::Quarantined { .. }))
                .count(),
        ),
        unsettled: count(
            pools()
                .filter(|p| p.users.iter().any(|u| u.phase != Phase::Active))
                .count(),
        ),
        recoveries: shared.counters.recoveries(),
    }
}
