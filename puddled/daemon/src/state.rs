//! What puddled knows in memory: pools and who uses them, addresses, quotas, clients; and all of RPC.
//!
//! One mutex guards it all, and nobody reads or writes a file for long while holding it: what takes time is done on reservations
//! (a hidden or busy pool, a user that is entered already), which are taken back when it fails.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vernal_puddled_proto::limits::MAX_USERS;
use vernal_puddled_proto::{
    Access, Condition, ErrorCode, Failure, Id, PoolKind, PoolStat, PuddleInfo, UseInfo,
};
use vernal_sys::service::{Hold, try_lock_as};

use crate::access::Peer;
use crate::fail::{Outcome, not_found, refuse};
use crate::layout::{Layout, open_rw};
use crate::metrics::Counters;
use crate::records::{PoolRecord, PoolStatus, PuddleRecord, QuarantineRecord};
use crate::registry::{Change, Registry};
use crate::rpc::Rpc;
use crate::server::{Permits, Work};
use crate::space::Space;

/// How far a user of a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Connected.
    Active,
    /// Its connection has ended, and some process still has the pool mapped.
    Lingering,
    /// What it left is being settled.
    Recovering,
}

/// A client that has a pool open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub client: u64,
    pub pid: u32,
    pub uid: u32,
    pub access: Access,
    pub phase: Phase,
}

/// A pool and who uses it.
#[derive(Debug)]
pub(crate) struct Pool {
    pub record: PoolRecord,
    pub users: Vec<User>,
    /// What is being done with it that leaves no room for users.
    pub busy: Option<&'static str>,
    /// Nobody sees it yet.
    pub hidden: bool,
    /// What is missing or damaged, as of the last look.
    pub damaged: Option<String>,
    /// Keeps tools that work on the data directory away while there are users: the lock that pools without a daemon use.
    tool_lock: Option<File>,
    /// The lock of a direct pool's allocator, while there are users.
    pub allocator: Option<File>,
}

impl Pool {
    pub fn new(record: PoolRecord) -> Self {
        Pool {
            record,
            users: Vec::new(),
            busy: None,
            hidden: false,
            damaged: None,
            tool_lock: None,
            allocator: None,
        }
    }

    /// Enters a user. Fails when a tool works on the pool's files directly.
    pub fn enter(&mut self, layout: &Layout, user: User) -> Outcome<()> {
        if self.tool_lock.is_none() && self.record.kind == PoolKind::Buffered {
            let root = Layout::puddle(&layout.pool(self.record.id), 0, self.record.id);
            // A metadata file that is not there is reported when the puddles are opened.
            if let Ok(file) = open_rw(&Layout::meta(&root)) {
                if !try_lock_as(&file, Hold::Exclusive).unwrap_or(true) {
                    return refuse(
                        ErrorCode::Busy,
                        format!(
                            "a tool is working on the files of pool {:?}: try again when it has ended",
                            self.record.name
                        ),
                    );
                }
                self.tool_lock = Some(file);
            }
        }
        self.users.push(user);
        Ok(())
    }

    /// Takes the users of a client out.
    pub fn leave(&mut self, client: u64) {
        self.users.retain(|u| u.client != client);
        if self.users.is_empty() {
            self.tool_lock = None;
            // Whoever comes next begins with a free one.
            self.allocator = None;
        }
    }

    pub fn user(&self, client: u64) -> Option<&User> {
        self.users.iter().find(|u| u.client == client)
    }

    pub fn set_phase(&mut self, client: u64, phase: Phase) {
        for user in self.users.iter_mut().filter(|u| u.client == client) {
            user.phase = phase;
        }
    }

    /// The user that stands in the way of `access`. Whoever has gone and is not settled yet stands in everybody's way.
    pub fn conflict(&self, access: Access, gone: impl Fn(u64) -> bool) -> Option<&User> {
        self.users.iter().find(|u| match self.record.kind {
            PoolKind::Buffered => u.access == Access::Write || access == Access::Write,
            PoolKind::Direct => {
                let unsettled = u.phase != Phase::Active || gone(u.client);
                matches!(
                    (u.access, access),
                    (Access::Snapshot, Access::Write) | (Access::Write, Access::Snapshot)
                ) || (u.access == Access::Write && unsettled)
            }
        })
    }

    pub fn condition(&self) -> Condition {
        let is = |phase| self.users.iter().any(|u| u.phase == phase);
        if let PoolStatus::Quarantined { reason, .. } = &self.record.status {
            Condition::Quarantined {
                reason: reason.clone(),
            }
        } else if let Some(reason) = &self.damaged {
            Condition::Damaged {
                reason: reason.clone(),
            }
        } else if is(Phase::Recovering) {
            Condition::Recovering
        } else if is(Phase::Lingering) {
            Condition::Lingering
        } else {
            Condition::Ready
        }
    }

    pub fn stat(&self) -> PoolStat {
        let users = self.users.iter().take(MAX_USERS);
        PoolStat {
            id: self.record.id,
            name: self.record.name.clone(),
            owner: self.record.owner,
            group: self.record.group,
            mode: self.record.mode,
            kind: self.record.kind,
            bytes: self.record.bytes(),
            puddles: u32::try_from(self.record.puddles.len()).unwrap_or(u32::MAX),
            created: self.record.created,
            condition: self.condition(),
            users: users
                .map(|u| UseInfo {
                    pid: u.pid,
                    uid: u.uid,
                    writes: u.access == Access::Write,
                })
                .collect(),
        }
    }
}

pub(crate) fn info(puddle: &PuddleRecord) -> PuddleInfo {
    PuddleInfo {
        id: puddle.id,
        addr: puddle.addr,
        size: puddle.size,
    }
}

/// Everything that changes.
#[derive(Debug)]
pub(crate) struct State {
    pub pools: HashMap<Id, Pool>,
    pub names: BTreeMap<String, Id>,
    pub buffered: Space,
    pub direct: Space,
    /// Bytes of puddles by owner, reservations included, and of segments by who holds them.
    pub used: HashMap<u32, u64>,
    pub quotas: HashMap<u32, u64>,
    pub quarantine: HashMap<Id, QuarantineRecord>,
    /// Connections, with their sockets (to end them) and users.
    pub clients: HashMap<u64, (Arc<OwnedFd>, u32)>,
    pub next_client: u64,
    /// Channels, connections and segments.
    pub rpc: Rpc,
}

impl State {
    pub fn new(rpc: Rpc) -> Self {
        State {
            pools: HashMap::new(),
            names: BTreeMap::new(),
            buffered: Space::new(PoolKind::Buffered),
            direct: Space::new(PoolKind::Direct),
            used: HashMap::new(),
            quotas: HashMap::new(),
            quarantine: HashMap::new(),
            clients: HashMap::new(),
            next_client: 1,
            rpc,
        }
    }

    pub fn space(&mut self, kind: PoolKind) -> &mut Space {
        match kind {
            PoolKind::Buffered => &mut self.buffered,
            PoolKind::Direct => &mut self.direct,
        }
    }

    /// Whether the connection of a client has ended, even if its thread has not seen that yet.
    pub fn is_gone(&self, client: u64) -> bool {
        let Some((socket, _)) = self.clients.get(&client) else {
            return true;
        };
        let mut end = [PollFd::new(&**socket, PollFlags::RDHUP)];
        poll(&mut end, Some(&Timespec::default())).is_ok_and(|n| n != 0)
    }

    /// The pool called `name`, if `peer` may know of it.
    pub fn find(&self, peer: &Peer, name: &str) -> Outcome<&Pool> {
        self.names
            .get(name)
            .and_then(|id| self.pools.get(id))
            .filter(|p| !p.hidden && peer.may_see(&p.record))
            .ok_or_else(|| not_found(name))
    }

    /// The same, to change it.
    pub fn find_mut(&mut self, peer: &Peer, name: &str) -> Outcome<&mut Pool> {
        let id = self.find(peer, name)?.record.id;
        self.pools.get_mut(&id).ok_or_else(|| not_found(name))
    }

    /// The pool `id` that `client` has open.
    pub fn opened(&mut self, client: u64, id: Id) -> Outcome<&mut Pool> {
        self.pools
            .get_mut(&id)
            .filter(|p| p.user(client).is_some())
            .ok_or_else(|| {
                Failure::new(
                    ErrorCode::Invalid,
                    format!("this client has no pool {id} open: open it first"),
                )
            })
    }

    pub fn charge(&mut self, owner: u32, bytes: u64) {
        let used = self.used.entry(owner).or_default();
        *used = used.saturating_add(bytes);
    }

    pub fn discharge(&mut self, owner: u32, bytes: u64) {
        if let Some(used) = self.used.get_mut(&owner) {
            *used = used.saturating_sub(bytes);
            if *used == 0 {
                self.used.remove(&owner);
            }
        }
    }

    /// Takes a puddle out of a pool's list. Its address and its share of the quota stay taken until [`State::give_back`].
    pub fn unlist(&mut self, pool: Id, puddle: Id) {
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.record.puddles.retain(|p| p.id != puddle);
        }
    }

    /// Gives back what an unlisted puddle held.
    pub fn give_back(&mut self, owner: u32, kind: PoolKind, puddle: &PuddleRecord) {
        self.discharge(owner, puddle.size);
        self.space(kind).release(puddle.addr);
    }

    /// Forgets a pool and gives back what it held.
    pub fn forget(&mut self, id: Id) {
        let Some(pool) = self.pools.remove(&id) else {
            return;
        };
        if self.names.get(&pool.record.name) == Some(&id) {
            self.names.remove(&pool.record.name);
        }
        self.discharge(pool.record.owner, pool.record.bytes());
        for puddle in &pool.record.puddles {
            self.space(pool.record.kind).release(puddle.addr);
        }
    }
}

/// Everything that connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub layout: Layout,
    pub registry: Registry,
    pub quota_default: Option<u64>,
    pub max_clients: usize,
    pub max_clients_per_user: usize,
    pub counters: Counters,
    pub started: Instant,
    /// puddled ends: nothing new begins.
    pub stopping: AtomicBool,
    /// Recoveries that may run at a time: each may take a journal's length of memory.
    pub recoveries: Permits,
    /// Requests that are being answered.
    pub work: Work,
    state: Mutex<State>,
    /// Held while the record of a pool goes from memory to the registry, so that no older one overtakes it.
    order: Mutex<()>,
    /// Somebody has left a pool.
    pub left: Condvar,
}

impl Shared {
    pub fn new(
        layout: Layout,
        registry: Registry,
        state: State,
        quota_default: Option<u64>,
        max_clients: usize,
        max_clients_per_user: usize,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Shared {
            layout,
            registry,
            quota_default,
            max_clients,
            max_clients_per_user,
            counters: Counters::default(),
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            recoveries: Permits::new(cores.max(2)),
            work: Work::default(),
            state: Mutex::new(state),
            order: Mutex::new(()),
            left: Condvar::new(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere is a bug; what it held is still the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the record of `pool` durable as it is in memory, together with `changes`.
    pub fn put_pool(&self, pool: Id, changes: Vec<Change<'_>>) -> Outcome<()> {
        self.put_pools(&[pool], changes)
    }

    /// The same for several pools.
    pub fn put_pools(&self, pools: &[Id], changes: Vec<Change<'_>>) -> Outcome<()> {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let records: Vec<PoolRecord> = {
            let state = self.state();
            let there = pools.iter().filter_map(|id| state.pools.get(id));
            there.map(|p| p.record.clone()).collect()
        };
        let mut all: Vec<Change<'_>> = records.iter().map(Change::PutPool).collect();
        all.extend(changes);
        Ok(self.registry.commit(&all)?)
    }

    /// Bytes that `uid` may own. The default is not meant for root and puddled's own user.
    pub fn limit_of(&self, state: &State, uid: u32) -> Option<u64> {
        let admin = uid == 0 || uid == rustix::process::geteuid().as_raw();
        let default = if admin { None } else { self.quota_default };
        state.quotas.get(&uid).copied().or(default)
    }

    /// Whether `owner` may have `bytes` more.
    pub fn check_quota(&self, state: &State, owner: u32, bytes: u64) -> Outcome<()> {
        let used = state.used.get(&owner).copied().unwrap_or(0);
        match self.limit_of(state, owner) {
            Some(limit) if used.saturating_add(bytes) > limit => refuse(
                ErrorCode::Quota,
                format!(
                    "user {owner} has {used} bytes in puddles and segments and may have {limit}, which leaves no room for {bytes} more: remove a pool, drop a segment, or let root raise the quota (`vernal pool quota`)"
                ),
            ),
            _ => Ok(()),
        }
    }
}
