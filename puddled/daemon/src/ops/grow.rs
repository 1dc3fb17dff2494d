//! Grow and shrink: puddles come and go while a pool is open for writing.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use vernal_format::{MetaState, Uuid};
use vernal_puddled_proto::limits::MAX_PUDDLES;
use vernal_puddled_proto::{ErrorCode, Id, PuddleInfo, Reply};

use super::Answer;
use crate::client::{Client, new_id};
use crate::fail::{Outcome, io as io_failure, refuse};
use crate::inject;
use crate::layout::{Layout, remove_file, sync_dir};
use crate::page::{self, Page};
use crate::puddle;
use crate::records::{PoolRecord, PuddleRecord};
use crate::state::Shared;

pub(crate) fn grow(
    shared: &Arc<Shared>,
    client: &mut Client,
    pool: Id,
    size: u64,
) -> Outcome<Answer> {
    client.granted(pool)?;
    let id = new_id()?;
    let (record, puddle) = reserve(shared, client, pool, id, size)?;
    let done = make(shared, client, &record, &puddle);
    match done {
        Ok(answer) => {
            tracing::info!(pool = %record.name, puddle = %puddle.id, size, client = client.id, "pool grown");
            Ok(answer)
        }
        Err(e) => {
            undo(shared, client, pool, &puddle)?;
            Err(e)
        }
    }
}

/// Takes quota and an address, and enters the puddle: the record as it will be.
fn reserve(
    shared: &Shared,
    client: &Client,
    pool: Id,
    id: Id,
    size: u64,
) -> Outcome<(PoolRecord, PuddleRecord)> {
    let mut state = shared.state();
    let record = state.opened(client.id, pool)?.record.clone();
    if record.puddles.len() >= MAX_PUDDLES {
        return refuse(
            ErrorCode::Limit,
            format!(
                "pool {:?} has {MAX_PUDDLES} puddles, and none may have more: grow by larger ones",
                record.name
            ),
        );
    }
    shared.check_quota(&state, record.owner, size)?;
    let addr = match state.space(record.kind).allocate(size) {
        Ok(addr) => addr,
        Err(e) => return refuse(ErrorCode::NoAddress, e),
    };
    state.charge(record.owner, size);
    let puddle = PuddleRecord { id, addr, size };
    let pool = state.opened(client.id, pool)?;
    pool.record.puddles.push(puddle);
    Ok((pool.record.clone(), puddle))
}

/// Makes the puddle. The registry knows of it first: a start that finds it there and not in the pool page removes it.
fn make(
    shared: &Shared,
    client: &mut Client,
    record: &PoolRecord,
    puddle: &PuddleRecord,
) -> Outcome<Answer> {
    inject::step();
    client.granted(record.id)?.puddles.push(*puddle);
    client.record_with_pool(shared, record.id)?;
    inject::step();
    let dir = shared.layout.pool(record.id);
    let path = Layout::puddle(&dir, 1, puddle.id);
    let file = puddle::create(&path, puddle.size, false)?;
    inject::step();
    if puddle::has_meta(record.kind) {
        let (journal, at, _) = client.journal(shared)?;
        let state = MetaState::Active {
            journal: Uuid::from(journal),
            path: at.as_os_str().as_bytes().to_vec(),
        };
        puddle::create_meta(&path, puddle, state)?;
        inject::step();
    }
    sync_dir(&dir).map_err(|e| io_failure("writing", &dir, &e))?;
    inject::step();
    Ok(Answer {
        reply: Reply::Grown(PuddleInfo {
            id: puddle.id,
            addr: puddle.addr,
            size: puddle.size,
        }),
        files: vec![file],
    })
}

/// Takes a puddle back that nobody has seen.
fn undo(shared: &Shared, client: &mut Client, pool: Id, puddle: &PuddleRecord) -> Outcome<()> {
    if let Ok(granted) = client.granted(pool) {
        granted.puddles.retain(|p| p.id != puddle.id);
    }
    shared.state().unlist(pool, puddle.id);
    client.record_with_pool(shared, pool)?;
    delete(shared, pool, puddle)?;
    let mut state = shared.state();
    if let Some((owner, kind)) = state
        .pools
        .get(&pool)
        .map(|p| (p.record.owner, p.record.kind))
    {
        state.give_back(owner, kind, puddle);
    }
    Ok(())
}

/// Removes the files of a puddle other than the root.
pub(crate) fn delete(shared: &Shared, pool: Id, puddle: &PuddleRecord) -> Outcome<()> {
    let dir = shared.layout.pool(pool);
    let path = Layout::puddle(&dir, 1, puddle.id);
    // The metadata goes first: a puddle without it is seen to be incomplete, and metadata without a puddle would not be.
    remove_file(&Layout::meta(&path))
        .and_then(|()| remove_file(&path))
        .and_then(|()| sync_dir(&dir))
        .map_err(|e| io_failure("removing", &path, &e))
}

pub(crate) fn shrink(
    shared: &Arc<Shared>,
    client: &mut Client,
    pool: Id,
    puddle: Id,
) -> Outcome<Answer> {
    client.granted(pool)?;
    let record = shared.state().opened(client.id, pool)?.record.clone();
    let name = &record.name;
    let at = record.puddles.iter().position(|p| p.id == puddle);
    let Some(freed) = at.and_then(|at| record.puddles.get(at)).copied() else {
        return refuse(
            ErrorCode::NotFound,
            format!("pool {name:?} has no puddle {puddle}: open it again to see which it has"),
        );
    };
    if at == Some(0) {
        return refuse(
            ErrorCode::Invalid,
            format!("puddle {puddle} is the root of pool {name:?}: remove the pool"),
        );
    }
    // Other writers of a direct pool may have it mapped, and logs that name it.
    if shared.state().opened(client.id, pool)?.users.len() > 1 {
        return refuse(
            ErrorCode::Busy,
            format!(
                "pool {name:?} is open by others, who may use puddle {puddle}: shrink it when they have closed it"
            ),
        );
    }
    let root = Layout::puddle(&shared.layout.pool(pool), 0, Id::default());
    if let Page::Named(named) = page::read(&root, &record)
        && named.contains(&puddle)
    {
        return refuse(
            ErrorCode::Invalid,
            format!(
                "puddle {puddle} is still part of pool {name:?}: take it out of the heap, commit and checkpoint first"
            ),
        );
    }
    if super::open::served(shared, client, &record)?.contains(&puddle) {
        return refuse(
            ErrorCode::Invalid,
            format!("this client's journal still serves puddle {puddle}: remove it there first"),
        );
    }
    inject::step();
    let granted = client.granted(pool)?;
    granted.puddles.retain(|p| p.id != puddle);
    granted.released.push(puddle);
    shared.state().unlist(pool, puddle);
    client.record_with_pool(shared, pool)?;
    inject::step();
    // The files go before the address is free for others: until then nobody can be given a puddle in its place.
    delete(shared, pool, &freed)?;
    inject::step();
    {
        let mut state = shared.state();
        let owner = state
            .pools
            .get(&pool)
            .map_or(record.owner, |p| p.record.owner);
        state.give_back(owner, record.kind, &freed);
    }
    tracing::info!(pool = %name, puddle = %puddle, client = client.id, "pool shrunk");
    Ok(Reply::Done.into())
}
