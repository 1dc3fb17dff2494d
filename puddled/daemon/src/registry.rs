//! What puddled knows durably, in one redb file. Every change is one transaction, durable when it returns.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use vernal_puddled_proto::Id;
use vernal_sys::reserve_space;

use crate::records::{GrantRecord, PoolRecord, QuarantineRecord};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const POOLS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("pools");
const GRANTS: TableDefinition<u64, &[u8]> = TableDefinition::new("grants");
const QUOTAS: TableDefinition<u32, u64> = TableDefinition::new("quotas");
const QUARANTINE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("quarantine");

/// Version of the records.
const FORMAT: u64 = 1;
/// Memory that redb may use for pages.
const CACHE: usize = 16 << 20;
/// Bytes that are reserved ahead of the file's end at most. It doubles when it grows.
const AHEAD: u64 = 8 << 20;

/// Why the registry cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// redb failed.
    #[error(
        "the registry: {0}; free disk space if it is full, else look at the disk and restart puddled"
    )]
    Store(#[from] redb::Error),
    /// A record that is none.
    #[error("the registry: {what} {key} cannot be read; restore registry.redb from a backup")]
    Record {
        /// What it is.
        what: &'static str,
        /// Its key.
        key: String,
    },
    /// A registry of another Vernal.
    #[error(
        "the registry has format {found}, and this puddled knows {FORMAT}: run the puddled that wrote it"
    )]
    Format {
        /// Its format.
        found: u64,
    },
}

impl RegistryError {
    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, RegistryError::Store(redb::Error::Io(e)) if matches!(e.kind(), StorageFull | QuotaExceeded))
    }
}

type Result<T> = std::result::Result<T, RegistryError>;

fn store<E: Into<redb::Error>>(e: E) -> RegistryError {
    RegistryError::Store(e.into())
}

/// One part of a transaction.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    PutPool(&'a PoolRecord),
    DropPool(Id),
    PutGrant(&'a GrantRecord),
    DropGrant(u64),
    SetQuota(u32, Option<u64>),
    PutQuarantine(&'a QuarantineRecord),
    DropQuarantine(Id),
}

/// All that the registry holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The pools, by identity.
    pub pools: Vec<PoolRecord>,
    /// What clients may have changed and nobody has settled yet.
    pub grants: Vec<GrantRecord>,
    /// Quotas that differ from the default, by user.
    pub quotas: Vec<(u32, u64)>,
    /// What is in quarantine.
    pub quarantine: Vec<QuarantineRecord>,
}

/// The registry.
#[derive(Debug)]
pub struct Registry {
    path: PathBuf,
    store: Mutex<Store>,
}

#[derive(Debug)]
struct Store {
    /// `None`: a write failed, and it could not be opened again since.
    db: Option<Database>,
    /// The file's length when its blocks were last reserved.
    reserved: u64,
}

fn open(path: &Path) -> Result<Database> {
    let db = Database::builder()
        .set_cache_size(CACHE)
        .create(path)
        .map_err(store)?;
    let txn = db.begin_write().map_err(store)?;
    let format = {
        let mut meta = txn.open_table(META).map_err(store)?;
        let found = meta.get("format").map_err(store)?.map(|v| v.value());
        if found.is_none() {
            meta.insert("format", FORMAT).map_err(store)?;
        }
        found.unwrap_or(FORMAT)
    };
    if format != FORMAT {
        return Err(RegistryError::Format { found: format });
    }
    txn.commit().map_err(store)?;
    Ok(db)
}

impl Store {
    /// Reserves blocks for the whole file and for its next growth: on a full disk it must be possible to remove a pool, and to settle
    /// what a client has left. Without room for that it goes on as far as it gets.
    fn reserve(&mut self, path: &Path) {
        let Ok(len) = std::fs::metadata(path).map(|m| m.len()) else {
            return;
        };
        if len == self.reserved {
            return;
        }
        let wanted = len.saturating_add(len.min(AHEAD));
        let file = std::fs::File::options().write(true).open(path);
        match file.and_then(|f| reserve_space(&f, 0, wanted)) {
            Ok(()) => self.reserved = len,
            Err(e) => tracing::warn!(error = %e, "no room for the registry to grow"),
        }
    }

    fn db(&mut self, path: &Path) -> Result<&Database> {
        let db = match self.db.take() {
            Some(db) => db,
            None => open(path)?,
        };
        Ok(self.db.insert(db))
    }
}

impl Registry {
    /// Opens the registry at `path`, or makes an empty one.
    pub fn open(path: &Path) -> Result<Self> {
        let mut store = Store {
            db: Some(open(path)?),
            reserved: 0,
        };
        store.reserve(path);
        Ok(Registry {
            path: path.to_owned(),
            store: Mutex::new(store),
        })
    }

    /// All that it holds.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let mut held = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let txn = held.db(&self.path)?.begin_read().map_err(store)?;
        let mut all = Snapshot::default();
        if let Some(table) = there(txn.open_table(POOLS))? {
            for entry in table.iter().map_err(store)? {
                let (key, value) = entry.map_err(store)?;
                all.pools
                    .push(parse("pool", &hex(key.value()), value.value())?);
            }
        }
        if let Some(table) = there(txn.open_table(GRANTS))? {
            for entry in table.iter().map_err(store)? {
                let (key, value) = entry.map_err(store)?;
                all.grants
                    .push(parse("grant", &key.value().to_string(), value.value())?);
            }
        }
        if let Some(table) = there(txn.open_table(QUOTAS))? {
            for entry in table.iter().map_err(store)? {
                let (key, value) = entry.map_err(store)?;
                all.quotas.push((key.value(), value.value()));
            }
        }
        if let Some(table) = there(txn.open_table(QUARANTINE))? {
            for entry in table.iter().map_err(store)? {
                let (key, value) = entry.map_err(store)?;
                all.quarantine
                    .push(parse("quarantine", &hex(key.value()), value.value())?);
            }
        }
        Ok(all)
    }

    /// Makes all `changes` durable, or none.
    pub(crate) fn commit(&self, changes: &[Change<'_>]) -> Result<()> {
        let mut held = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let done = held.db(&self.path).and_then(|db| write(db, changes));
        match &done {
            Ok(()) => held.reserve(&self.path),
            // A write that found no room comes before the one that makes a transaction valid, so that nothing has changed. redb
            // refuses everything after a failed write until it is opened again. After any other failure nobody can say what is
            // durable: then it stays closed until puddled starts again.
            Err(e) if e.is_full() => {
                held.db = None;
                if let Err(e) = held.db(&self.path) {
                    tracing::error!(error = %e, "the registry cannot be opened again yet");
                }
            }
            Err(_) => {}
        }
        done
    }
}

/// One transaction with all `changes`.
fn write(db: &Database, changes: &[Change<'_>]) -> Result<()> {
    let txn = db.begin_write().map_err(store)?;
    for change in changes {
        match change {
            Change::PutPool(pool) => {
                let mut table = txn.open_table(POOLS).map_err(store)?;
                table
                    .insert(
                        pool.id.0.as_slice(),
                        bytes("pool", &pool.name, pool)?.as_slice(),
                    )
                    .map_err(store)?;
            }
            Change::DropPool(id) => {
                let mut table = txn.open_table(POOLS).map_err(store)?;
                table.remove(id.0.as_slice()).map_err(store)?;
            }
            Change::PutGrant(grant) => {
                let mut table = txn.open_table(GRANTS).map_err(store)?;
                let key = grant.client.to_string();
                table
                    .insert(grant.client, bytes("grant", &key, grant)?.as_slice())
                    .map_err(store)?;
            }
            Change::DropGrant(client) => {
                let mut table = txn.open_table(GRANTS).map_err(store)?;
                table.remove(client).map_err(store)?;
            }
            Change::SetQuota(uid, limit) => {
                let mut table = txn.open_table(QUOTAS).map_err(store)?;
                match limit {
                    Some(limit) => table.insert(uid, limit).map_err(store)?,
                    None => table.remove(uid).map_err(store)?,
                };
            }
            Change::PutQuarantine(q) => {
                let mut table = txn.open_table(QUARANTINE).map_err(store)?;
                let key = q.id.to_string();
                table
                    .insert(q.id.0.as_slice(), bytes("quarantine", &key, *q)?.as_slice())
                    .map_err(store)?;
            }
            Change::DropQuarantine(id) => {
                let mut table = txn.open_table(QUARANTINE).map_err(store)?;
                table.remove(id.0.as_slice()).map_err(store)?;
            }
        }
    }
    txn.commit().map_err(store)
}

/// A table that nobody has written to yet is an empty one.
fn there<T>(table: std::result::Result<T, TableError>) -> Result<Option<T>> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(store(e)),
    }
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|b| format!("{b:02x}")).collect()
}

fn parse<T: DeserializeOwned>(what: &'static str, key: &str, value: &[u8]) -> Result<T> {
    postcard::from_bytes(value).map_err(|_| RegistryError::Record {
        what,
        key: key.to_owned(),
    })
}

fn bytes<T: Serialize>(what: &'static str, key: &str, value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|_| RegistryError::Record {
        what,
        key: key.to_owned(),
    })
}
