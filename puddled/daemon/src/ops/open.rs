//! Open and close.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vernal_format::Uuid;
use vernal_journal::JournalReader;
use vernal_puddled_proto::limits::MAX_OPEN_POOLS;
use vernal_puddled_proto::{Access, ErrorCode, Failure, Id, PoolKind, Reply};
use vernal_sys::FileMedia;
use vernal_sys::service::{Hold, try_lock_as};

use super::Answer;
use crate::client::Client;
use crate::fail::{Outcome, not_found, refuse};
use crate::inject;
use crate::layout::Layout;
use crate::puddle::{self, Damage};
use crate::records::{GrantedPool, PoolRecord, PoolStatus};
use crate::recovery;
use crate::state::{Phase, Shared, State, User, info};

/// How long an open waits for a recovery that has begun.
const RECOVERY_WAIT: Duration = Duration::from_secs(30);

pub(crate) fn open(
    shared: &Arc<Shared>,
    client: &mut Client,
    name: &str,
    access: Access,
) -> Outcome<Answer> {
    if client.grant.pools.len() + client.reads.len() >= MAX_OPEN_POOLS {
        return refuse(
            ErrorCode::Limit,
            format!(
                "this client has {MAX_OPEN_POOLS} pools open, and none may have more: close one"
            ),
        );
    }
    let record = enter(shared, client, name, access)?;
    let opened = if access == Access::Write {
        grant(shared, client, &record)
    } else {
        open_files(shared, &record, access)
            .map_err(|d| damaged(shared, &record, d))
            .and_then(|files| lock_root(&record, &files, access).map(|()| files))
    };
    let stat = {
        let mut state = shared.state();
        let pool = state
            .pools
            .get_mut(&record.id)
            .ok_or_else(|| not_found(name))?;
        if opened.is_err() {
            pool.leave(client.id);
            shared.left.notify_all();
        } else {
            pool.damaged = None;
        }
        pool.stat()
    };
    let files = opened?;
    if access != Access::Write {
        client.reads.push(record.id);
    }
    tracing::info!(
        pool = name,
        ?access,
        client = client.id,
        pid = client.peer.pid,
        uid = client.peer.uid,
        "pool opened"
    );
    Ok(Answer {
        reply: Reply::Opened {
            pool: stat,
            puddles: record.puddles.iter().map(info).collect(),
        },
        files,
    })
}

/// Waits until nothing is in the way that ends by itself, then enters the client as a user.
fn enter(shared: &Shared, client: &Client, name: &str, access: Access) -> Outcome<PoolRecord> {
    let until = Instant::now() + RECOVERY_WAIT;
    let mut state = shared.state();
    loop {
        let pool = state.find_mut(&client.peer, name)?;
        if !client.peer.may(&pool.record, access) {
            return refuse(
                ErrorCode::Access,
                format!(
                    "user {} may not open pool {name:?} ({access:?}): its mode is {:04o}, its owner {}, its group {}; ask the owner",
                    client.peer.uid, pool.record.mode, pool.record.owner, pool.record.group
                ),
            );
        }
        usable(&pool.record)?;
        if let Some(what) = pool.busy {
            return refuse(
                ErrorCode::Busy,
                format!("pool {name:?} is {what}: try again when that has ended"),
            );
        }
        if pool.user(client.id).is_some() {
            return refuse(
                ErrorCode::Invalid,
                format!("this client has pool {name:?} open already: use that, or close it first"),
            );
        }
        let id = pool.record.id;
        // A process that was just killed is settled first, also when its thread here has not noticed its end.
        let conflict = state
            .pools
            .get(&id)
            .and_then(|p| p.conflict(access, |client| state.is_gone(client)))
            .copied()
            .map(|u| (u, u.phase == Phase::Active && state.is_gone(u.client)));
        let pool = state.find_mut(&client.peer, name)?;
        match conflict {
            None => {
                let user = User {
                    client: client.id,
                    pid: client.peer.pid,
                    uid: client.peer.uid,
                    access,
                    phase: Phase::Active,
                };
                pool.enter(&shared.layout, user)?;
                return Ok(pool.record.clone());
            }
            Some((u, gone)) if (gone || u.phase == Phase::Recovering) && Instant::now() < until => {
                let left = until.saturating_duration_since(Instant::now());
                state = shared
                    .left
                    .wait_timeout(state, left)
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .0;
            }
            Some((u, _)) => return refuse(ErrorCode::Busy, in_the_way(name, &u)),
        }
    }
}

fn in_the_way(name: &str, user: &User) -> String {
    let (pid, uid) = (user.pid, user.uid);
    let does = if user.access == Access::Write {
        "writing"
    } else {
        "reading"
    };
    match user.phase {
        Phase::Active => format!(
            "pool {name:?} is open for {does} by process {pid} of user {uid}: wait until it closes the pool"
        ),
        Phase::Lingering => format!(
            "pool {name:?} was open for {does} by process {pid} of user {uid}, whose connection has ended, and a process still has it mapped: end that process (a forked child, perhaps)"
        ),
        Phase::Recovering => format!(
            "pool {name:?} is being recovered after process {pid} of user {uid}: try again later"
        ),
    }
}

fn usable(record: &PoolRecord) -> Outcome<()> {
    match &record.status {
        PoolStatus::Live => Ok(()),
        PoolStatus::Quarantined { reason, .. } => refuse(
            ErrorCode::Quarantine,
            format!(
                "pool {:?} is in quarantine: {reason}; inspect it, then `vernal pool accept {}` takes it as it is",
                record.name, record.name
            ),
        ),
        PoolStatus::Removing => Err(not_found(&record.name)),
    }
}

/// Remembers what is wrong with a pool, and says so.
fn damaged(shared: &Shared, record: &PoolRecord, damage: Damage) -> Failure {
    tracing::error!(pool = %record.name, id = %record.id, damage, "pool is damaged");
    let failure = Failure::new(
        ErrorCode::Damaged,
        format!("pool {:?}: {damage}", record.name),
    );
    if let Some(pool) = shared.state().pools.get_mut(&record.id) {
        pool.damaged = Some(damage);
    }
    failure
}

/// Opens the files of all puddles, of which no journal may hold more.
fn open_files(shared: &Shared, record: &PoolRecord, access: Access) -> Result<Vec<File>, Damage> {
    let dir = shared.layout.pool(record.id);
    let mut files = Vec::with_capacity(record.puddles.len());
    for (i, p) in record.puddles.iter().enumerate() {
        let path = Layout::puddle(&dir, i, p.id);
        files.push(puddle::open(&path, p.size, access == Access::Write)?);
        if puddle::has_meta(record.kind) {
            let meta = puddle::open_meta(&path, p)?;
            if let Some((journal, _)) = meta.needed_journal() {
                return Err(format!(
                    "the metadata file {} names the journal {journal}, which nobody has replayed: restart puddled, or restore the pool from a backup",
                    meta.name()
                ));
            }
        }
    }
    Ok(files)
}

/// Takes the lock of the root puddle that fits. `false`: a process of an earlier connection has it mapped.
fn take_lock(root: &File, kind: PoolKind, access: Access) -> std::io::Result<bool> {
    match (kind, access) {
        (PoolKind::Buffered, Access::Write) => try_lock_as(root, Hold::Exclusive),
        (PoolKind::Buffered, _) | (PoolKind::Direct, Access::Write) => {
            try_lock_as(root, Hold::Shared)
        }
        (PoolKind::Direct, Access::Read) => Ok(true),
        // Nobody may be writing now; other snapshots may be taken beside this one.
        (PoolKind::Direct, Access::Snapshot) => {
            Ok(try_lock_as(root, Hold::Exclusive)? && try_lock_as(root, Hold::Shared)?)
        }
    }
}

fn lock_root(record: &PoolRecord, files: &[File], access: Access) -> Outcome<()> {
    let Some(root) = files.first() else {
        return refuse(
            ErrorCode::Damaged,
            format!("pool {:?} has no puddle: remove it", record.name),
        );
    };
    match take_lock(root, record.kind, access) {
        Ok(true) => Ok(()),
        Ok(false) => refuse(
            ErrorCode::Busy,
            format!(
                "pool {:?} is still mapped by a process whose connection has ended: end that process (`fuser` on the files below the data directory shows it)",
                record.name
            ),
        ),
        Err(e) => refuse(
            ErrorCode::Internal,
            format!("locking pool {:?}: {e}", record.name),
        ),
    }
}

/// Grants a pool for writing: recorded, then its metadata name the client's journal, then descriptors may leave.
fn grant(shared: &Shared, client: &mut Client, record: &PoolRecord) -> Outcome<Vec<File>> {
    let files =
        open_files(shared, record, Access::Write).map_err(|d| damaged(shared, record, d))?;
    lock_root(record, &files, Access::Write)?;
    let journal = match record.kind {
        PoolKind::Buffered => {
            let (id, path, _) = client.journal(shared)?;
            Some((id, path))
        }
        PoolKind::Direct => None,
    };
    client.grant.pools.push(GrantedPool {
        pool: record.id,
        access: Access::Write,
        puddles: record.puddles.clone(),
        released: Vec::new(),
    });
    inject::step();
    let active = client.record(shared).and_then(|()| {
        inject::step();
        journal.map_or(Ok(()), |(id, path)| activate(shared, record, id, &path))
    });
    if let Err(e) = active {
        // Nothing has left: as it was before.
        set_clean(shared, record)?;
        client.grant.pools.retain(|p| p.pool != record.id);
        client.record(shared)?;
        return Err(e);
    }
    inject::step();
    Ok(files)
}

/// The puddles of a pool that the client has open, as they are now.
pub(crate) fn refresh(shared: &Shared, client: &mut Client, id: Id) -> Outcome<Answer> {
    let (record, access, stat) = {
        let mut state = shared.state();
        let pool = state.opened(client.id, id)?;
        let access = pool.user(client.id).map_or(Access::Read, |u| u.access);
        (pool.record.clone(), access, pool.stat())
    };
    if record.kind == PoolKind::Buffered {
        return refuse(
            ErrorCode::Invalid,
            format!(
                "pool {:?} is buffered, and nobody else can have changed it: use the puddles of its open",
                record.name
            ),
        );
    }
    let files = open_files(shared, &record, access).map_err(|d| damaged(shared, &record, d))?;
    // The new puddles are granted before their descriptors leave; the lock on the root is held by its first descriptor.
    if access == Access::Write {
        client.granted(id)?.puddles = record.puddles.clone();
        client.record(shared)?;
        inject::step();
    }
    Ok(Answer {
        reply: Reply::Opened {
            pool: stat,
            puddles: record.puddles.iter().map(info).collect(),
        },
        files,
    })
}

/// Makes the metadata of all puddles name `journal`.
fn activate(shared: &Shared, record: &PoolRecord, journal: Id, at: &Path) -> Outcome<()> {
    for (path, p) in paths(shared, record) {
        let done = puddle::open_meta(&path, &p).and_then(|meta| {
            meta.without_journal()
                .activate(Uuid::from(journal), at.as_os_str().as_bytes(), p.size)
                .map_err(|e| e.to_string())
        });
        done.map_err(|d| damaged(shared, record, d))?;
        inject::step();
    }
    Ok(())
}

/// Makes the metadata of all puddles clean. Only when nothing that a journal holds is missing in them.
pub(crate) fn set_clean(shared: &Shared, record: &PoolRecord) -> Outcome<()> {
    if !puddle::has_meta(record.kind) {
        return Ok(());
    }
    for (path, p) in paths(shared, record) {
        let done = puddle::open_meta(&path, &p).and_then(|meta| {
            if meta.needed_journal().is_none() {
                return Ok(());
            }
            meta.without_journal()
                .set_clean(p.size)
                .map_err(|e| e.to_string())
        });
        done.map_err(|d| damaged(shared, record, d))?;
        inject::step();
    }
    Ok(())
}

fn paths<'a>(
    shared: &Shared,
    record: &'a PoolRecord,
) -> impl Iterator<Item = (PathBuf, crate::records::PuddleRecord)> + use<'a> {
    let dir = shared.layout.pool(record.id);
    record
        .puddles
        .iter()
        .enumerate()
        .map(move |(i, p)| (Layout::puddle(&dir, i, p.id), *p))
}

/// The client closes a pool. A writer has checkpointed, so there is nothing to replay: that is checked, not believed.
pub(crate) fn close(shared: &Arc<Shared>, client: &mut Client, id: Id) -> Outcome<Answer> {
    let (record, access) = {
        let mut state = shared.state();
        let pool = state.opened(client.id, id)?;
        let access = pool.user(client.id).map_or(Access::Read, |u| u.access);
        (pool.record.clone(), access)
    };
    if access == Access::Write {
        close_written(shared, client, &record)?;
    }
    client.reads.retain(|r| *r != id);
    let mut state = shared.state();
    leave(shared, &mut state, id, client.id);
    drop(state);
    tracing::info!(pool = %record.name, client = client.id, "pool closed");
    Ok(Reply::Done.into())
}

fn leave(shared: &Shared, state: &mut State, pool: Id, client: u64) {
    if let Some(pool) = state.pools.get_mut(&pool) {
        pool.leave(client);
    }
    shared.left.notify_all();
}

fn close_written(shared: &Shared, client: &mut Client, record: &PoolRecord) -> Outcome<()> {
    let still_mapped = |what: &str| {
        refuse(
            ErrorCode::Busy,
            format!(
                "pool {:?} cannot be closed: {what}; unmap it, close its descriptors, and close it again",
                record.name
            ),
        )
    };
    let root = Layout::puddle(&shared.layout.pool(record.id), 0, record.id);
    match record.kind {
        PoolKind::Buffered => {
            // Alone again: whoever comes next will not find a process that still writes.
            if let Ok(file) = File::open(&root)
                && !try_lock_as(&file, Hold::Exclusive).unwrap_or(true)
            {
                return still_mapped("a process still has it mapped or open");
            }
            if let Some(puddle) = served(shared, client, record)?.first() {
                return still_mapped(&format!(
                    "this client's journal still serves its puddle {puddle}"
                ));
            }
            set_clean(shared, record)?;
        }
        PoolKind::Direct => recovery::close_direct(shared, client, record)?,
    }
    recovery::drop_orphans(shared, client, record)?;
    client.grant.pools.retain(|p| p.pool != record.id);
    client.record(shared)?;
    inject::step();
    Ok(())
}

/// The puddles of `record` that the client's journal still serves.
pub(crate) fn served(shared: &Shared, client: &Client, record: &PoolRecord) -> Outcome<Vec<Id>> {
    if client.grant.journal.is_none() {
        return Ok(Vec::new());
    }
    let path = Layout::journal(&shared.layout.client(client.id));
    let unreadable = |e: &dyn std::fmt::Display| {
        Failure::new(
            ErrorCode::Invalid,
            format!(
                "this client's journal cannot be read ({e}): end the process, and its pools are recovered"
            ),
        )
    };
    let media = FileMedia::open_read_only(&path).map_err(|e| unreadable(&e))?;
    if recovery::never_made(&media).map_err(|e| unreadable(&e))? {
        return Ok(Vec::new());
    }
    let reader =
        JournalReader::open(media, path.display().to_string()).map_err(|e| unreadable(&e))?;
    let sb = reader.superblock();
    Ok(record
        .puddles
        .iter()
        .map(|p| p.id)
        .filter(|&id| sb.member(Uuid::from(id)).is_some())
        .collect())
}

/// The connection has ended: what the client only read needs nothing more.
pub(crate) fn end_reads(shared: &Shared, client: &mut Client) {
    let mut state = shared.state();
    for id in client.reads.drain(..) {
        leave(shared, &mut state, id, client.id);
    }
}
