//! Quarantine: journals and logs that cannot be valid, and the pools that their client could write.
//!
//! Nothing of them was applied. The pools stay as they are and nobody opens them, until somebody has looked and accepts them as they
//! are, or removes them. The journal is kept as long as one of them waits.

use std::fs;
use std::io;
use std::path::Path;

use vernal_puddled_proto::limits::MAX_TEXT;
use vernal_puddled_proto::{ErrorCode, Failure, Id};

use crate::fail::{Outcome, io as io_failure};
use crate::inject;
use crate::layout::{remove_dir, sync_dir};
use crate::ops::stage::now;
use crate::records::{GrantRecord, PoolStatus, QuarantineRecord};
use crate::registry::Change;
use crate::state::Shared;

/// Names the quarantine of a grant: the same each time, so that a crash in the middle finds it again.
pub(crate) fn id_of(grant: &GrantRecord) -> Id {
    grant
        .journal
        .or_else(|| grant.logs.first().map(|l| l.id))
        .unwrap_or_default()
}

/// Puts what `grant` names into quarantine: first the files, then the word.
pub(crate) fn put(
    shared: &Shared,
    grant: &GrantRecord,
    folder: &Path,
    reason: &str,
) -> Outcome<()> {
    let id = id_of(grant);
    let layout = &shared.layout;
    let target = layout.quarantined(id);
    if folder != target {
        let moved = match fs::rename(folder, &target) {
            // A journal that is missing is one of the reasons to be here.
            Err(e) if e.kind() == io::ErrorKind::NotFound => crate::layout::make_dir(&target),
            other => other,
        };
        moved
            .and_then(|()| sync_dir(&layout.quarantine()))
            .and_then(|()| sync_dir(&layout.journals()))
            .map_err(|e| io_failure("moving", folder, &e))?;
    }
    inject::step();
    // Room for the words around it in a message.
    let reason = Failure::new(
        ErrorCode::Quarantine,
        reason.chars().take(MAX_TEXT / 2).collect::<String>(),
    )
    .text;
    let record = QuarantineRecord {
        id,
        reason: reason.clone(),
        grant: grant.clone(),
        since: now(),
    };
    let mut names = Vec::new();
    {
        let mut state = shared.state();
        state.quarantine.insert(id, record.clone());
        for granted in &grant.pools {
            if let Some(pool) = state.pools.get_mut(&granted.pool) {
                pool.record.status = PoolStatus::Quarantined {
                    reason: reason.clone(),
                    journal: id,
                };
                names.push(pool.record.name.clone());
            }
        }
    }
    let pools: Vec<Id> = grant.pools.iter().map(|g| g.pool).collect();
    let changes = vec![
        Change::PutQuarantine(&record),
        Change::DropGrant(grant.client),
    ];
    shared.put_pools(&pools, changes)?;
    inject::step();
    shared.counters.quarantined();
    tracing::error!(client = grant.client, pid = grant.pid, uid = grant.uid, pools = ?names, quarantine = %id, reason, "quarantined");
    Ok(())
}

/// Removes what no pool waits for any more.
pub(crate) fn sweep(shared: &Shared) {
    let free: Vec<Id> = {
        let mut state = shared.state();
        let waits = |id: Id| {
            state.pools.values().any(|p| {
                matches!(&p.record.status, PoolStatus::Quarantined { journal, .. } if *journal == id)
            })
        };
        let free: Vec<Id> = state
            .quarantine
            .keys()
            .copied()
            .filter(|id| !waits(*id))
            .collect();
        for id in &free {
            state.quarantine.remove(id);
        }
        free
    };
    for id in free {
        if let Err(e) = shared.registry.commit(&[Change::DropQuarantine(id)]) {
            tracing::warn!(quarantine = %id, error = %e, "a quarantine could not be dropped");
            continue;
        }
        let dir = shared.layout.quarantined(id);
        if let Err(e) = remove_dir(&dir) {
            tracing::warn!(dir = %dir.display(), error = %e, "a quarantine could not be removed");
        }
    }
}
