//! A pool that is not there yet: reserved in memory, made in the staging folder, published with one commit of the registry.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use vernal_format::MetaState;
use vernal_puddled_proto::{ErrorCode, Id, PoolKind};

use crate::access::Peer;
use crate::client::new_id;
use crate::fail::{Outcome, io as io_failure, refuse};
use crate::inject;
use crate::layout::{Layout, make_dir, remove_dir, sync_dir};
use crate::puddle;
use crate::records::{PoolRecord, PoolStatus, PuddleRecord};
use crate::registry::Change;
use crate::state::{Pool, Shared};

/// What a client wants.
#[derive(Debug)]
pub(crate) struct Spec {
    pub name: String,
    pub owner: Option<u32>,
    pub group: Option<u32>,
    pub mode: u16,
    pub kind: PoolKind,
    pub sizes: Vec<u64>,
}

/// A pool in the staging folder. Dropped before it is published, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Staged {
    shared: Arc<Shared>,
    pub record: PoolRecord,
    published: bool,
}

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

impl Staged {
    /// Takes name, quota and addresses for a pool, and makes its folder.
    pub fn reserve(shared: &Arc<Shared>, peer: &Peer, spec: Spec) -> Outcome<Self> {
        let owner = spec.owner.unwrap_or(peer.uid);
        let group = spec.group.unwrap_or(peer.gid);
        if !peer.admin && (owner != peer.uid || !peer.in_group(group)) {
            return refuse(
                ErrorCode::Access,
                format!(
                    "user {} cannot make a pool for user {owner} and group {group}: make it for yourself and one of your groups, or let root do it",
                    peer.uid
                ),
            );
        }
        let total = spec
            .sizes
            .iter()
            .fold(0, |sum: u64, s| sum.saturating_add(*s));
        let mut record = PoolRecord {
            id: new_id()?,
            name: spec.name,
            owner,
            group,
            mode: spec.mode,
            kind: spec.kind,
            created: now(),
            status: PoolStatus::Live,
            puddles: Vec::with_capacity(spec.sizes.len()),
        };
        let ids = spec
            .sizes
            .iter()
            .map(|_| new_id())
            .collect::<Outcome<Vec<Id>>>()?;
        {
            let mut state = shared.state();
            if state.names.contains_key(&record.name) {
                return refuse(
                    ErrorCode::Exists,
                    format!(
                        "there is a pool {:?} already: use another name, or remove it",
                        record.name
                    ),
                );
            }
            shared.check_quota(&state, owner, total)?;
            let space = state.space(record.kind);
            for (id, size) in ids.into_iter().zip(spec.sizes) {
                match space.allocate(size) {
                    Ok(addr) => record.puddles.push(PuddleRecord { id, addr, size }),
                    Err(e) => {
                        for p in &record.puddles {
                            space.release(p.addr);
                        }
                        return refuse(ErrorCode::NoAddress, e);
                    }
                }
            }
            state.charge(owner, total);
            state.names.insert(record.name.clone(), record.id);
            let mut pool = Pool::new(record.clone());
            pool.hidden = true;
            pool.busy = Some("being made");
            state.pools.insert(record.id, pool);
        }
        let staged = Staged {
            shared: shared.clone(),
            record,
            published: false,
        };
        inject::step();
        let dir = staged.dir();
        make_dir(&dir).map_err(|e| io_failure("making", &dir, &e))?;
        inject::step();
        Ok(staged)
    }

    /// Where the pool is made.
    pub fn dir(&self) -> PathBuf {
        self.shared.layout.staged(self.record.id)
    }

    /// Where a puddle is made.
    pub fn path(&self, index: usize) -> PathBuf {
        let id = self
            .record
            .puddles
            .get(index)
            .map_or(Id::default(), |p| p.id);
        Layout::puddle(&self.dir(), index, id)
    }

    /// Makes the files of all puddles, empty.
    pub fn make_puddles(&self, sparse: bool) -> Outcome<Vec<File>> {
        let mut files = Vec::with_capacity(self.record.puddles.len());
        for (i, p) in self.record.puddles.iter().enumerate() {
            files.push(puddle::create(&self.path(i), p.size, sparse)?);
            inject::step();
        }
        Ok(files)
    }

    /// Makes it a pool that everybody may see. Its puddles must be durable.
    ///
    /// The order is the argument: the folder is complete and durable, then the registry names the pool, then the folder moves to its
    /// place. A start finds a folder in staging and moves it if the registry names it, else removes it.
    pub fn publish(mut self) -> Outcome<PoolRecord> {
        let shared = self.shared.clone();
        let layout = &shared.layout;
        let dir = self.dir();
        if puddle::has_meta(self.record.kind) {
            for (i, p) in self.record.puddles.iter().enumerate() {
                puddle::create_meta(&self.path(i), p, MetaState::Clean)?;
                inject::step();
            }
        }
        sync_dir(&dir)
            .and_then(|()| sync_dir(&layout.staging()))
            .map_err(|e| io_failure("writing", &dir, &e))?;
        inject::step();
        let id = self.record.id;
        shared.registry.commit(&[Change::PutPool(&self.record)])?;
        inject::step();
        let target = layout.pool(id);
        let moved = fs::rename(&dir, &target)
            .and_then(|()| sync_dir(&layout.pools()))
            .and_then(|()| sync_dir(&layout.staging()));
        if let Err(e) = moved {
            // Not in its place: take the name back, so that the registry names no pool that is not there.
            shared.registry.commit(&[Change::DropPool(id)])?;
            let _ = remove_dir(&target);
            return Err(io_failure("moving", &dir, &e));
        }
        inject::step();
        self.published = true;
        if let Some(pool) = shared.state().pools.get_mut(&id) {
            pool.hidden = false;
            pool.busy = None;
        }
        Ok(self.record.clone())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        let dir = self.dir();
        if let Err(e) = remove_dir(&dir) {
            // The next start removes it.
            tracing::warn!(dir = %dir.display(), error = %e, "a staged pool could not be removed");
        }
        self.shared.state().forget(self.record.id);
    }
}
