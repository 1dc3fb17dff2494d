//! Start: take the data directory, put right what a crash has left, settle what earlier clients left, listen.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use vernal_puddled_proto::Id;
use vernal_sys::service::{Hold, try_lock_as};

use crate::config::Config;
use crate::layout::{Layout, make_dir, names, parse_id, remove_dir, sync_dir};
use crate::metrics;
use crate::ops::finish_removal;
use crate::puddle;
use crate::records::{GrantRecord, PoolRecord, PoolStatus};
use crate::registry::{Registry, RegistryError, Snapshot};
use crate::rpc::{Addresses, Rpc};
use crate::server::{self, Stopper};
use crate::state::{Phase, Pool, Shared, State, User};
use crate::{inject, quarantine, settle};

/// Why puddled does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another one has the data directory.
    #[error(
        "the data directory {data} is in use by puddled with process id {pid}: stop that one, or give this one another directory"
    )]
    InUse {
        /// The data directory.
        data: PathBuf,
        /// The other puddled.
        pid: String,
    },
    /// A file or a socket failed.
    #[error("{op} {path}: {source}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The registry cannot be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

fn io_error(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Io {
        op,
        path: path.to_owned(),
        source,
    }
}

/// A puddled that has taken its data directory and listens.
#[derive(Debug)]
pub struct Daemon {
    shared: Arc<Shared>,
    listener: OwnedFd,
    stopper: Stopper,
    /// Where the socket lies, when it is ours to remove.
    socket: Option<PathBuf>,
    /// Held until the end.
    _lock: File,
}

impl Daemon {
    /// Takes the data directory, brings it into order, and listens. What earlier clients left is being settled when this returns;
    /// the pools concerned open when it is.
    pub fn start(config: Config) -> Result<Daemon, StartError> {
        inject::init();
        raise_limits();
        let layout = Layout::new(&config.data);
        for dir in layout.directories() {
            make_dir(&dir).map_err(io_error("making the directory", &dir))?;
        }
        // What lies there is for nobody else, whoever made the directory.
        fs::set_permissions(&config.data, fs::Permissions::from_mode(0o700))
            .map_err(io_error("closing to others", &config.data))?;
        let lock = take(&layout)?;
        let registry = Registry::open(&layout.registry())?;
        let snapshot = registry.snapshot()?;
        let state = load(&layout, &snapshot);
        let shared = Arc::new(Shared::new(
            layout,
            registry,
            state,
            config.quota_default,
            config.max_clients,
            config.max_clients_per_user,
        ));
        tidy(&shared, &snapshot)?;
        for grant in &snapshot.grants {
            resume(&shared, grant.clone());
        }
        let stopper = Stopper::new(shared.clone()).map_err(io_error(
            "making an event for the end of",
            shared.layout.data(),
        ))?;
        let (listener, socket) = match config.listener {
            Some(listener) => (listener, None),
            None => (
                server::listen_at(&config.socket)
                    .map_err(io_error("listening at", &config.socket))?,
                Some(config.socket),
            ),
        };
        if let Some(address) = &config.metrics {
            let at = PathBuf::from(format!("{address:?}"));
            let listener =
                metrics::Listener::bind(address).map_err(io_error("serving metrics at", &at))?;
            let theirs = shared.clone();
            std::thread::Builder::new()
                .name("metrics".into())
                .spawn(move || listener.serve(&theirs))
                .map_err(io_error("starting a thread for", &at))?;
        }
        let status = crate::ops::status(&shared);
        tracing::info!(data = %shared.layout.data().display(), pools = status.pools, puddles = status.puddles, bytes = status.bytes, unsettled = snapshot.grants.len(), "puddled is up");
        Ok(Daemon {
            shared,
            listener,
            stopper,
            socket,
            _lock: lock,
        })
    }

    /// Ends it from another thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves until [`Stopper::stop`].
    pub fn serve(self) -> io::Result<()> {
        let served = server::serve(&self.shared, &self.listener, &self.stopper);
        if let Some(socket) = &self.socket {
            let _ = fs::remove_file(socket);
        }
        tracing::info!("puddled ends");
        served
    }
}

/// Every connection is a descriptor, and more than the usual 1024 are allowed.
fn raise_limits() {
    let now = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: now.maximum,
            maximum: now.maximum,
        },
    );
}

/// Takes the lock of the data directory.
fn take(layout: &Layout) -> Result<File, StartError> {
    let path = layout.lock();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("opening", &path))?;
    if !try_lock_as(&file, Hold::Exclusive).map_err(io_error("locking", &path))? {
        let mut pid = String::new();
        let _ = file.take(32).read_to_string(&mut pid);
        let pid = pid.trim();
        return Err(StartError::InUse {
            data: layout.data().to_owned(),
            pid: if pid.is_empty() { "unknown" } else { pid }.to_owned(),
        });
    }
    let write = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    write.map_err(io_error("writing", &path))?;
    Ok(file)
}

/// An empty table of channels. Nothing of an earlier puddled's is known, except how far its addresses went.
fn rpc(layout: &Layout) -> Rpc {
    let path = layout.rpc_addresses();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    if let Err(e) = &file {
        tracing::warn!(path = %path.display(), error = %e, "how far addresses went cannot be kept: after a restart of puddled, mappings may collide");
    }
    // Half of all descriptors are for segments; connections and requests need the others.
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    let most = usize::try_from(descriptors / 2).unwrap_or(usize::MAX);
    Rpc::new(Addresses::new(file.ok()), most)
}

/// The state that the registry describes.
fn load(layout: &Layout, snapshot: &Snapshot) -> State {
    let mut state = State::new(rpc(layout));
    state.quotas = snapshot.quotas.iter().copied().collect();
    state.quarantine = snapshot
        .quarantine
        .iter()
        .map(|q| (q.id, q.clone()))
        .collect();
    for record in &snapshot.pools {
        let mut pool = Pool::new(record.clone());
        for p in &record.puddles {
            if let Err(e) = state.space(record.kind).claim(p.addr, p.size) {
                // Nothing that puddled does brings this about: somebody has mixed two registries.
                tracing::error!(pool = %record.name, error = %e, "address conflict in the registry");
                pool.damaged = Some(format!("{e}: restore registry.redb from a backup"));
            }
        }
        state.charge(record.owner, record.bytes());
        state.names.insert(record.name.clone(), record.id);
        state.pools.insert(record.id, pool);
    }
    let folders = names(&layout.journals()).unwrap_or_default();
    let numbers = folders
        .iter()
        .filter_map(|name| u64::from_str_radix(name, 16).ok());
    let grants = snapshot.grants.iter().map(|g| g.client);
    // Numbers of clients that left something are not given again.
    state.next_client = numbers
        .chain(grants)
        .max()
        .map_or(1, |last| last.saturating_add(1));
    state
}

/// Finishes what a crash has interrupted.
fn tidy(shared: &Arc<Shared>, snapshot: &Snapshot) -> Result<(), StartError> {
    let layout = &shared.layout;
    let records: HashMap<Id, &PoolRecord> = snapshot.pools.iter().map(|p| (p.id, p)).collect();
    for record in snapshot.pools.iter() {
        if record.status == PoolStatus::Removing {
            inject::step();
            if let Err(e) = finish_removal(shared, record) {
                tracing::error!(pool = %record.name, error = %e, "a removal could not be finished");
                if let Some(pool) = shared.state().pools.get_mut(&record.id) {
                    pool.busy = Some("being removed");
                }
            }
        }
    }
    let staging = layout.staging();
    for name in names(&staging).map_err(io_error("reading", &staging))? {
        let from = staging.join(&name);
        let published = parse_id(&name)
            .and_then(|id| records.get(&id))
            .filter(|r| r.status != PoolStatus::Removing);
        inject::step();
        let done = match published {
            // The registry named it, and it had not moved yet.
            Some(record) => fs::rename(&from, layout.pool(record.id)),
            None => remove_dir(&from),
        };
        done.map_err(io_error("clearing", &from))?;
    }
    for dir in [&staging, &layout.pools()] {
        sync_dir(dir).map_err(io_error("writing", dir))?;
    }
    inject::step();
    let journals = layout.journals();
    for name in names(&journals).map_err(io_error("reading", &journals))? {
        let number = u64::from_str_radix(&name, 16).ok();
        if !snapshot.grants.iter().any(|g| Some(g.client) == number) {
            let path = journals.join(&name);
            remove_dir(&path).map_err(io_error("clearing", &path))?;
        }
    }
    inject::step();
    look(shared, &records)?;
    quarantine::sweep(shared);
    Ok(())
}

/// Looks whether all files are there, and reports what is missing and what nobody knows. Files are removed only where a crash of
/// puddled explains them: a pool that the registry does not name may be all that is left of a lost registry.
fn look(shared: &Shared, records: &HashMap<Id, &PoolRecord>) -> Result<(), StartError> {
    let pools = shared.layout.pools();
    for name in names(&pools).map_err(io_error("reading", &pools))? {
        if parse_id(&name).is_none_or(|id| !records.contains_key(&id)) {
            tracing::warn!(folder = %pools.join(&name).display(), "a folder that the registry does not name; look at it, then remove it");
        }
    }
    for record in records.values() {
        if record.status == PoolStatus::Removing {
            continue;
        }
        let dir = shared.layout.pool(record.id);
        let damage = record
            .puddles
            .iter()
            .enumerate()
            .find_map(|(i, p)| puddle::look(&Layout::puddle(&dir, i, p.id), p.size).err());
        if let Some(damage) = damage {
            tracing::error!(pool = %record.name, damage, "pool is damaged");
            if let Some(pool) = shared.state().pools.get_mut(&record.id) {
                pool.damaged = Some(damage);
            }
        }
    }
    Ok(())
}

/// Settles what a client of an earlier puddled left, in a thread: it may still live, and then it is waited for.
fn resume(shared: &Arc<Shared>, grant: GrantRecord) {
    {
        let mut state = shared.state();
        for granted in &grant.pools {
            if let Some(pool) = state.pools.get_mut(&granted.pool) {
                // What is damaged is found out again by its recovery.
                pool.damaged = None;
                let user = User {
                    client: grant.client,
                    pid: grant.pid,
                    uid: grant.uid,
                    access: granted.access,
                    phase: Phase::Recovering,
                };
                if let Err(e) = pool.enter(&shared.layout, user) {
                    tracing::warn!(error = %e, "recovering all the same");
                    pool.users.push(user);
                }
            }
        }
    }
    let theirs = shared.clone();
    let client = grant.client;
    let started = std::thread::Builder::new()
        .name(format!("settle-{client}"))
        .spawn(move || settle::settle(&theirs, &grant));
    if let Err(e) = started {
        tracing::error!(client, error = %e, "no thread to settle a client: restart puddled");
    }
}
