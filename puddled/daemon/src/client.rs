//! One client: what it was granted, its journal and its logs.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use vernal_format::{LogHeader, Uuid};
use vernal_journal::direct::create_log_file;
use vernal_puddled_proto::{Access, ErrorCode, Failure, Id};
use vernal_sys::FileMedia;
use vernal_sys::os::random_uuid;
use vernal_sys::service::{Hold, try_lock_as};

use crate::access::Peer;
use crate::fail::{Outcome, io as io_failure};
use crate::inject;
use crate::layout::{Layout, create_file, make_dir, sync_dir};
use crate::ops::stage::Staged;
use crate::records::{GrantRecord, GrantedPool, LogRecord};
use crate::registry::Change;
use crate::state::Shared;

/// The generation that a new log begins with.
const LOG_GENERATION: u64 = 1;

/// A client, as its connection's thread has it.
#[derive(Debug)]
pub(crate) struct Client {
    pub id: u64,
    pub peer: Peer,
    /// What it may have changed; in the registry whenever it names a pool.
    pub grant: GrantRecord,
    /// Pools that it reads.
    pub reads: Vec<Id>,
    pub imports: HashMap<Id, Staged>,
    /// The description that the client's journal descriptor shares, with its lock.
    journal: Option<File>,
    recorded: bool,
}

pub(crate) fn new_id() -> Outcome<Id> {
    random_uuid().map(Id).map_err(|e| {
        Failure::new(
            ErrorCode::Internal,
            format!("no random bytes for an identity: {e}"),
        )
    })
}

impl Client {
    pub fn new(id: u64, peer: Peer) -> Self {
        Client {
            id,
            grant: GrantRecord {
                client: id,
                pid: peer.pid,
                uid: peer.uid,
                journal: None,
                logs: Vec::new(),
                pools: Vec::new(),
            },
            peer,
            reads: Vec::new(),
            imports: HashMap::new(),
            journal: None,
            recorded: false,
        }
    }

    /// The grant of `pool`, which must be open for writing.
    pub fn granted(&mut self, pool: Id) -> Outcome<&mut GrantedPool> {
        self.grant
            .pools
            .iter_mut()
            .find(|p| p.pool == pool)
            .filter(|p| p.access == Access::Write)
            .ok_or_else(|| {
                Failure::new(
                    ErrorCode::Invalid,
                    format!("this client has no pool {pool} open for writing: open it so first"),
                )
            })
    }

    fn folder(&self, shared: &Shared) -> Outcome<PathBuf> {
        let dir = shared.layout.client(self.id);
        make_dir(&dir)
            .and_then(|()| sync_dir(&shared.layout.journals()))
            .map_err(|e| io_failure("making", &dir, &e))?;
        Ok(dir)
    }

    /// The client's journal, made at first use. It is empty: the client gives it its identity and its length.
    pub fn journal(&mut self, shared: &Shared) -> Outcome<(Id, PathBuf, File)> {
        let path = Layout::journal(&shared.layout.client(self.id));
        let fail = |e: io::Error| io_failure("making", &path, &e);
        if let (Some(id), Some(file)) = (self.grant.journal, &self.journal) {
            return Ok((id, path.clone(), file.try_clone().map_err(fail)?));
        }
        let dir = self.folder(shared)?;
        let file = create_file(&path).map_err(fail)?;
        let made = try_lock_as(&file, Hold::Exclusive)
            .and_then(|_| file.sync_all())
            .and_then(|()| sync_dir(&dir))
            .and_then(|()| file.try_clone());
        let copy = made.map_err(|e| {
            let _ = std::fs::remove_file(&path);
            fail(e)
        })?;
        inject::step();
        let id = new_id()?;
        self.grant.journal = Some(id);
        self.journal = Some(file);
        Ok((id, path, copy))
    }

    /// A new log file, with its header, in the log `log` or a new one.
    pub fn log(
        &mut self,
        shared: &Shared,
        size: u64,
        log: Option<Id>,
    ) -> Outcome<(LogRecord, PathBuf, File)> {
        let dir = self.folder(shared)?;
        let id = new_id()?;
        let log = log.unwrap_or(id);
        let position = self.grant.logs.iter().filter(|l| l.log == log).count();
        if position == 0 && log != id {
            return Err(Failure::new(
                ErrorCode::NotFound,
                format!("this client has no log {log}: ask for a new one"),
            ));
        }
        let record = LogRecord {
            id,
            log,
            position: u32::try_from(position).unwrap_or(u32::MAX),
            size,
        };
        let path = Layout::log(&dir, id);
        let file = crate::puddle::create(&path, size, false)?;
        inject::step();
        let header = LogHeader {
            file: id.into(),
            log: log.into(),
            space: self.log_space(),
            position: record.position,
            len: size,
        };
        // The header is durable before the grant names the file: recovery finds a log, or no trace of it.
        let made = try_lock_as(&file, Hold::Exclusive)
            .and_then(|_| FileMedia::from_file(file.try_clone()?))
            .and_then(|mut media| create_log_file(&mut media, &header, LOG_GENERATION))
            .and_then(|()| sync_dir(&dir))
            .map_err(|e| io_failure("making", &path, &e));
        inject::step();
        let recorded = made.and_then(|()| {
            self.grant.logs.push(record);
            self.record(shared)
        });
        if let Err(e) = recorded {
            self.grant.logs.retain(|l| l.id != id);
            let _ = std::fs::remove_file(&path);
            return Err(e);
        }
        inject::step();
        Ok((record, path, file))
    }

    /// The identity of the client's log space: it has one, and the registry lists its files.
    pub fn log_space(&self) -> Uuid {
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(self.id.to_be_bytes()) {
            *to = from;
        }
        Uuid(id)
    }

    /// Makes the grant durable as it is now.
    pub fn record(&mut self, shared: &Shared) -> Outcome<()> {
        if let Some(change) = self.change() {
            shared.registry.commit(&[change])?;
        }
        self.recorded = self.is_worth_recording();
        Ok(())
    }

    /// Makes the grant and the record of `pool` durable as they are now, together.
    pub fn record_with_pool(&mut self, shared: &Shared, pool: Id) -> Outcome<()> {
        shared.put_pool(pool, self.change().into_iter().collect())?;
        self.recorded = self.is_worth_recording();
        Ok(())
    }

    fn is_worth_recording(&self) -> bool {
        !self.grant.pools.is_empty() || !self.grant.logs.is_empty()
    }

    fn change(&self) -> Option<Change<'_>> {
        if self.is_worth_recording() {
            Some(Change::PutGrant(&self.grant))
        } else {
            self.recorded.then_some(Change::DropGrant(self.id))
        }
    }

    /// Whether the registry has the grant.
    pub fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// Lets go of the descriptors that puddled keeps for this client, so that a lock is held by the client's processes only.
    pub fn let_go(&mut self) {
        self.journal = None;
    }
}
