//! Remove: a pool goes, and a crash does not bring it back.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;

use vernal_puddled_proto::{ErrorCode, Reply};
use vernal_sys::service::{Hold, try_lock_as};

use super::Answer;
use crate::client::Client;
use crate::fail::{Outcome, io as io_failure, refuse};
use crate::inject;
use crate::layout::{Layout, remove_dir, sync_dir};
use crate::quarantine;
use crate::records::{PoolRecord, PoolStatus};
use crate::registry::Change;
use crate::state::Shared;

pub(crate) fn remove(shared: &Arc<Shared>, client: &Client, name: &str) -> Outcome<Answer> {
    let record = {
        let mut state = shared.state();
        let pool = state.find_mut(&client.peer, name)?;
        if !client.peer.owns(&pool.record) {
            return refuse(
                ErrorCode::Access,
                format!(
                    "pool {name:?} belongs to user {}: only that user and root may remove it",
                    pool.record.owner
                ),
            );
        }
        if let Some(u) = pool.users.first() {
            return refuse(
                ErrorCode::Busy,
                format!(
                    "pool {name:?} is open by process {} of user {}: remove it when it is closed",
                    u.pid, u.uid
                ),
            );
        }
        if let Some(what) = pool.busy {
            return refuse(
                ErrorCode::Busy,
                format!("pool {name:?} is {what}: try again when that has ended"),
            );
        }
        pool.busy = Some("being removed");
        pool.record.clone()
    };
    let done = take_away(shared, &record);
    match done {
        Ok(()) => {
            tracing::info!(pool = name, id = %record.id, client = client.id, "pool removed");
            Ok(Reply::Done.into())
        }
        Err(e) => {
            if let Some(pool) = shared.state().pools.get_mut(&record.id) {
                pool.busy = None;
            }
            Err(e)
        }
    }
}

fn take_away(shared: &Shared, record: &PoolRecord) -> Outcome<()> {
    let root = Layout::puddle(&shared.layout.pool(record.id), 0, record.id);
    // Files that are damaged or missing are no reason to keep a pool.
    if let Ok(file) = File::open(&root)
        && !try_lock_as(&file, Hold::Exclusive).unwrap_or(true)
    {
        return refuse(
            ErrorCode::Busy,
            format!(
                "pool {:?} is still mapped by a process whose connection has ended: end that process",
                record.name
            ),
        );
    }
    inject::step();
    let going = PoolRecord {
        status: PoolStatus::Removing,
        ..record.clone()
    };
    shared.registry.commit(&[Change::PutPool(&going)])?;
    inject::step();
    finish(shared, &going)?;
    Ok(())
}

/// Removes the files of a pool whose record says that it is being removed, then the record; a start does the same.
pub(crate) fn finish(shared: &Shared, record: &PoolRecord) -> Outcome<()> {
    let layout = &shared.layout;
    let (from, to) = (layout.pool(record.id), layout.staged(record.id));
    // Out of sight at once: removing many files takes time.
    match fs::rename(&from, &to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(io_failure("moving", &from, &e));
        }
        _ => {}
    }
    inject::step();
    remove_dir(&to)
        .and_then(|()| sync_dir(&layout.staging()))
        .and_then(|()| sync_dir(&layout.pools()))
        .map_err(|e| io_failure("removing", &to, &e))?;
    inject::step();
    shared.registry.commit(&[Change::DropPool(record.id)])?;
    inject::step();
    shared.state().forget(record.id);
    quarantine::sweep(shared);
    Ok(())
}
