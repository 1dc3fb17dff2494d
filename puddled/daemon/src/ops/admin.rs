//! Mode, owner, quota, and release from quarantine.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use vernal_puddled_proto::{ErrorCode, Reply};

use super::Answer;
use crate::client::Client;
use crate::fail::{Outcome, refuse};
use crate::inject;
use crate::quarantine;
use crate::records::{PoolRecord, PoolStatus};
use crate::registry::Change;
use crate::state::{Phase, Pool, Shared, State};

/// How long an accept waits for the end of the settling that found the pool invalid.
const SETTLE_WAIT: Duration = Duration::from_secs(30);

/// Lets `change` make a new record of the pool `name`, puts it into effect, and makes it durable.
fn change(
    shared: &Shared,
    client: &Client,
    name: &str,
    change: impl FnOnce(&State, &PoolRecord) -> Outcome<PoolRecord>,
) -> Outcome<Answer> {
    let mut state = shared.state();
    let pool: &Pool = state.find(&client.peer, name)?;
    if !client.peer.owns(&pool.record) {
        return refuse(
            ErrorCode::Access,
            format!(
                "pool {name:?} belongs to user {}: only that user and root may change it",
                pool.record.owner
            ),
        );
    }
    if let Some(what) = pool.busy {
        return refuse(
            ErrorCode::Busy,
            format!("pool {name:?} is {what}: try again when that has ended"),
        );
    }
    let before = pool.record.clone();
    let after = change(&state, &before)?;
    put(&mut state, &after);
    drop(state);
    if let Err(e) = shared.put_pool(before.id, Vec::new()) {
        put(&mut shared.state(), &before);
        return Err(e);
    }
    Ok(Reply::Done.into())
}

/// Gives the pool in memory owner, group and mode of `record`.
fn put(state: &mut State, record: &PoolRecord) {
    let Some(pool) = state.pools.get_mut(&record.id) else {
        return;
    };
    let (old, bytes) = (pool.record.owner, pool.record.bytes());
    pool.record.owner = record.owner;
    pool.record.group = record.group;
    pool.record.mode = record.mode;
    state.discharge(old, bytes);
    state.charge(record.owner, bytes);
}

pub(crate) fn set_mode(
    shared: &Arc<Shared>,
    client: &Client,
    name: &str,
    mode: u16,
) -> Outcome<Answer> {
    change(shared, client, name, |_, record| {
        tracing::info!(
            pool = name,
            mode = format!("{mode:04o}"),
            client = client.id,
            "mode changed"
        );
        Ok(PoolRecord {
            mode,
            ..record.clone()
        })
    })
}

pub(crate) fn chown(
    shared: &Arc<Shared>,
    client: &Client,
    name: &str,
    owner: Option<u32>,
    group: Option<u32>,
) -> Outcome<Answer> {
    let peer = &client.peer;
    change(shared, client, name, |state, record| {
        let owner = owner.unwrap_or(record.owner);
        let group = group.unwrap_or(record.group);
        if !peer.admin
            && (owner != record.owner || (group != record.group && !peer.in_group(group)))
        {
            return refuse(
                ErrorCode::Access,
                format!(
                    "user {} cannot give pool {name:?} to user {owner} and group {group}: only root can give pools away; the owner can choose one of its own groups",
                    peer.uid
                ),
            );
        }
        if owner != record.owner {
            shared.check_quota(state, owner, record.bytes())?;
        }
        tracing::info!(
            pool = name,
            owner,
            group,
            client = client.id,
            "owner changed"
        );
        Ok(PoolRecord {
            owner,
            group,
            ..record.clone()
        })
    })
}

pub(crate) fn quota(shared: &Shared, client: &Client, uid: u32) -> Outcome<Answer> {
    if !client.peer.admin && client.peer.uid != uid {
        return refuse(
            ErrorCode::Access,
            format!(
                "user {} may not see the quota of user {uid}: only that user and root may",
                client.peer.uid
            ),
        );
    }
    let state = shared.state();
    Ok(quota_reply(shared, &state, uid))
}

fn set_status(shared: &Shared, record: &PoolRecord, status: PoolStatus) {
    if let Some(pool) = shared.state().pools.get_mut(&record.id) {
        pool.record.status = status;
    }
}

fn quota_reply(shared: &Shared, state: &State, uid: u32) -> Answer {
    Reply::Quota {
        uid,
        used: state.used.get(&uid).copied().unwrap_or(0),
        limit: shared.limit_of(state, uid),
    }
    .into()
}

pub(crate) fn set_quota(
    shared: &Shared,
    client: &Client,
    uid: u32,
    bytes: Option<u64>,
) -> Outcome<Answer> {
    if !client.peer.admin {
        return refuse(
            ErrorCode::Access,
            format!(
                "user {} may not set quotas: only root and puddled's own user may",
                client.peer.uid
            ),
        );
    }
    shared.registry.commit(&[Change::SetQuota(uid, bytes)])?;
    let mut state = shared.state();
    match bytes {
        Some(bytes) => state.quotas.insert(uid, bytes),
        None => state.quotas.remove(&uid),
    };
    tracing::info!(uid, ?bytes, client = client.id, "quota set");
    Ok(quota_reply(shared, &state, uid))
}

pub(crate) fn accept(shared: &Arc<Shared>, client: &Client, name: &str) -> Outcome<Answer> {
    let record = {
        // The word of the quarantine is there a moment before its client is out.
        let (mut state, _) = shared
            .left
            .wait_timeout_while(shared.state(), SETTLE_WAIT, |state| {
                let pool = state.find(&client.peer, name);
                pool.is_ok_and(|p| p.users.iter().any(|u| u.phase == Phase::Recovering))
            })
            .unwrap_or_else(PoisonError::into_inner);
        let pool = state.find_mut(&client.peer, name)?;
        if !client.peer.owns(&pool.record) {
            return refuse(
                ErrorCode::Access,
                format!(
                    "pool {name:?} belongs to user {}: only that user and root may accept it",
                    pool.record.owner
                ),
            );
        }
        if !matches!(pool.record.status, PoolStatus::Quarantined { .. }) {
            return refuse(
                ErrorCode::Invalid,
                format!("pool {name:?} is not in quarantine: open it"),
            );
        }
        if pool.busy.is_some() || !pool.users.is_empty() {
            return refuse(
                ErrorCode::Busy,
                format!("pool {name:?} is still in use: accept it when all have closed it"),
            );
        }
        pool.busy = Some("being accepted");
        pool.record.clone()
    };
    let done = super::set_clean(shared, &record).and_then(|()| {
        inject::step();
        set_status(shared, &record, PoolStatus::Live);
        shared.put_pool(record.id, Vec::new())
    });
    inject::step();
    if done.is_err() {
        set_status(shared, &record, record.status.clone());
    }
    if let Some(pool) = shared.state().pools.get_mut(&record.id) {
        pool.busy = None;
    }
    done?;
    quarantine::sweep(shared);
    tracing::warn!(
        pool = name,
        client = client.id,
        uid = client.peer.uid,
        "pool accepted as it is"
    );
    Ok(Reply::Done.into())
}
