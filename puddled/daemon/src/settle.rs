//! Settling: what happens when a client has gone, and at start for all that were there when puddled died.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use vernal_puddled_proto::{Id, PoolKind};
use vernal_sys::service::{Hold, lock_as, try_lock_as};

use crate::client::Client;
use crate::fail::Outcome;
use crate::inject;
use crate::layout::{Layout, names, remove_dir, remove_file, sync_dir};
use crate::ops::{end_reads, grow_delete};
use crate::quarantine;
use crate::records::{GrantRecord, PoolRecord};
use crate::recovery::{self, Job, Trouble};
use crate::registry::Change;
use crate::state::{Phase, Shared};

/// The connection of `client` has ended.
pub(crate) fn end(shared: &Shared, mut client: Client) {
    // Unfinished imports remove themselves.
    client.imports.clear();
    end_reads(shared, &mut client);
    client.let_go();
    if client.grant.pools.is_empty() {
        let folder = shared.layout.client(client.id);
        if client.is_recorded()
            && let Err(e) = shared.registry.commit(&[Change::DropGrant(client.id)])
        {
            tracing::error!(client = client.id, error = %e, "the grant of a client could not be dropped");
            return;
        }
        if let Err(e) = remove_dir(&folder) {
            tracing::warn!(folder = %folder.display(), error = %e, "the folder of a client could not be removed");
        }
        return;
    }
    set_phase(shared, &client.grant, Phase::Recovering);
    settle(shared, &client.grant);
}

fn set_phase(shared: &Shared, grant: &GrantRecord, phase: Phase) {
    let mut state = shared.state();
    for granted in &grant.pools {
        if let Some(pool) = state.pools.get_mut(&granted.pool) {
            pool.set_phase(grant.client, phase);
        }
    }
    // Who waits for a recovery must not wait for a process that goes on.
    shared.left.notify_all();
}

/// Waits until no process can write to what `grant` names, recovers it, and lets others in. The pools' users of this client are in
/// the phase [`Phase::Recovering`].
pub(crate) fn settle(shared: &Shared, grant: &GrantRecord) {
    let folder = folder_of(shared, grant);
    let locks = wait_for_processes(shared, grant, &folder);
    let permit = shared.recoveries.take();
    let began = Instant::now();
    let pools: HashMap<Id, PoolRecord> = {
        let state = shared.state();
        let records = grant
            .pools
            .iter()
            .filter_map(|g| state.pools.get(&g.pool))
            .map(|p| (p.record.id, p.record.clone()));
        records.collect()
    };
    inject::step();
    let job = Job {
        shared,
        grant,
        folder: &folder,
        pools: &pools,
    };
    let settled = match job.run() {
        Ok(report) => {
            let recovery = began.elapsed();
            shared
                .counters
                .recovered(report.replayed, recovery, report.checking);
            let (client, pid, uid, replayed) =
                (grant.client, grant.pid, grant.uid, report.replayed);
            let (micros, checking) = (recovery.as_micros(), report.checking.as_micros());
            tracing::info!(
                client,
                pid,
                uid,
                replayed,
                micros,
                checking,
                "client recovered"
            );
            for (pool, puddle, damage) in report.damaged {
                // A growth that a crash cut short may lack its files, and no commit needs them.
                let never_part = pools
                    .get(&pool)
                    .is_some_and(|r| recovery::unnamed(shared, r).iter().any(|p| p.id == puddle));
                if never_part {
                    continue;
                }
                tracing::error!(pool = %pool, damage, "pool is damaged");
                if let Some(pool) = shared.state().pools.get_mut(&pool) {
                    pool.damaged = Some(damage);
                }
            }
            crate::allocator::release(shared, grant);
            finish(shared, grant, &pools)
        }
        Err(Trouble::Invalid(reason)) => {
            quarantine::put(shared, grant, &folder, &reason).map(|()| false)
        }
        Err(Trouble::Failed(reason)) => {
            // The grant stays: the next start tries again, and until then nobody gets in.
            tracing::error!(client = grant.client, reason, "recovery failed");
            for granted in &grant.pools {
                if let Some(pool) = shared.state().pools.get_mut(&granted.pool) {
                    pool.damaged = Some(format!(
                        "its recovery failed ({reason}): repair the disk, then restart puddled"
                    ));
                    pool.busy = Some("waiting for its recovery, which failed");
                }
            }
            Ok(false)
        }
    };
    drop(permit);
    match settled {
        Ok(true) => {
            shared.counters.settled(began.elapsed());
            if let Err(e) = remove_dir(&folder) {
                tracing::warn!(folder = %folder.display(), error = %e, "the folder of a client could not be removed");
            }
        }
        Ok(false) => {}
        Err(e) => {
            tracing::error!(client = grant.client, error = %e, "a client could not be settled; restart puddled");
            let mut state = shared.state();
            for granted in &grant.pools {
                if let Some(pool) = state.pools.get_mut(&granted.pool) {
                    pool.busy = Some("waiting for its recovery, which failed");
                }
            }
        }
    }
    // Before others are let in: they take the same locks.
    drop(locks);
    let mut state = shared.state();
    for granted in &grant.pools {
        if let Some(pool) = state.pools.get_mut(&granted.pool) {
            pool.leave(grant.client);
        }
    }
    shared.left.notify_all();
}

/// The client's folder: a crash can have come between its move into quarantine and the registry's word on it.
fn folder_of(shared: &Shared, grant: &GrantRecord) -> PathBuf {
    let folder = shared.layout.client(grant.client);
    let moved = shared.layout.quarantined(quarantine::id_of(grant));
    if !folder.exists() && moved.exists() {
        moved
    } else {
        folder
    }
}

/// Takes the locks that the client's processes hold as long as they have journal, logs or root puddles open or mapped. A process that
/// was killed has let go of them already, or does in a moment.
fn wait_for_processes(shared: &Shared, grant: &GrantRecord, folder: &std::path::Path) -> Vec<File> {
    let mut paths = vec![Layout::journal(folder)];
    paths.extend(grant.logs.iter().map(|l| Layout::log(folder, l.id)));
    {
        let state = shared.state();
        for granted in &grant.pools {
            if let Some(pool) = state.pools.get(&granted.pool)
                && pool.record.kind == PoolKind::Buffered
            {
                let dir = shared.layout.pool(granted.pool);
                paths.push(Layout::puddle(&dir, 0, granted.pool));
            }
        }
    }
    let mut locks = Vec::with_capacity(paths.len());
    for path in paths {
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if !try_lock_as(&file, Hold::Exclusive).unwrap_or(true) {
            set_phase(shared, grant, Phase::Lingering);
            tracing::info!(client = grant.client, pid = grant.pid, file = %path.display(), "waiting for a process to let go");
            if let Err(e) = lock_as(&file, Hold::Exclusive) {
                tracing::error!(file = %path.display(), error = %e, "waiting for a lock failed");
            }
            set_phase(shared, grant, Phase::Recovering);
        }
        locks.push(file);
    }
    locks
}

/// Drops growth that no commit followed, and the grant. `true`: the client's folder can go.
fn finish(shared: &Shared, grant: &GrantRecord, pools: &HashMap<Id, PoolRecord>) -> Outcome<bool> {
    for record in pools.values() {
        let damaged = shared
            .state()
            .pools
            .get(&record.id)
            .is_none_or(|p| p.damaged.is_some());
        if damaged {
            continue;
        }
        for puddle in recovery::orphans(shared, record, grant.client) {
            tracing::info!(pool = %record.name, puddle = %puddle.id, "puddle dropped that no commit had named");
            shared.state().unlist(record.id, puddle.id);
            shared.put_pool(record.id, Vec::new())?;
            inject::step();
            grow_delete(shared, record, &puddle)?;
            inject::step();
        }
        sweep(shared, record.id);
    }
    shared.registry.commit(&[Change::DropGrant(grant.client)])?;
    inject::step();
    Ok(true)
}

/// Removes the files of puddles that the registry does not name: what a crash left of a growth or a shrinking.
fn sweep(shared: &Shared, pool: Id) {
    let dir = shared.layout.pool(pool);
    let keep: Vec<String> = {
        let state = shared.state();
        let Some(pool) = state.pools.get(&pool) else {
            return;
        };
        let puddles = pool.record.puddles.iter().enumerate();
        puddles
            .filter_map(|(i, p)| {
                let path = Layout::puddle(&dir, i, p.id);
                Some(path.file_name()?.to_str()?.to_owned())
            })
            .collect()
    };
    let Ok(found) = names(&dir) else { return };
    let mut changed = false;
    for name in found {
        let ours = [".puddle", ".puddle.vernal", ".puddle.vernal-new"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .map(|stem| format!("{stem}.puddle"));
        let Some(puddle) = ours else { continue };
        if keep.contains(&puddle) && !name.ends_with("-new") {
            continue;
        }
        tracing::info!(pool = %pool, file = name, "file removed that the registry does not name");
        changed |= remove_file(&dir.join(&name)).is_ok();
    }
    if changed {
        let _ = sync_dir(&dir);
    }
}
