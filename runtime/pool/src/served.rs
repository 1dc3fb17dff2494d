//! The source of pools that puddled serves: descriptors over its socket, and never a path.
//!
//! A process has one connection, because it has one journal: puddled replays that journal for what the connection was granted.
//! A connection that is lost is replaced only when no pool of it is open for writing any more.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vernal_format::{LogHeader, Uuid};
use vernal_puddled_client::proto::{Access, Condition, ErrorCode, Id, PoolKind};
use vernal_puddled_client::{Client, ClientError, Granted, OpenPool, socket_path};
use vernal_sys::MappedMedia;

use crate::Error;
use crate::direct::DirectGrant;
use crate::direct::tx::LogSource;
use crate::source::{GrantedPuddle, JournalGrant, PoolInfo, PoolSource};

/// Who may do what with a pool that is made by opening it.
const NEW_MODE: u16 = 0o600;

/// The connection of this process.
struct Connection {
    socket: PathBuf,
    /// A forked child has a copy, which is its parent's.
    process: u32,
    client: Mutex<Client>,
    /// Pools that are open for writing.
    written: Mutex<usize>,
    lost: Mutex<bool>,
    /// Where direct pools of this connection log.
    logs: Mutex<Option<Arc<ServedLogs>>>,
}

static CONNECTION: Mutex<Option<Arc<Connection>>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "connection to {}", self.socket.display())
    }
}

impl Connection {
    /// The connection of this process to the puddled of `$VERNAL_PUDDLED`.
    fn get() -> Result<Arc<Connection>, Error> {
        let socket = socket_path();
        let mut current = lock(&CONNECTION);
        if let Some(c) = current.as_ref() {
            let usable = c.process == std::process::id() && !*lock(&c.lost);
            if usable && c.socket == socket {
                return Ok(c.clone());
            }
            // A child has none of its parent's pools for writing.
            if c.process == std::process::id() && *lock(&c.written) > 0 {
                return Err(Error::Access {
                    what: format!(
                        "pools of the puddled at {} are open for writing, and {}: close them first",
                        c.socket.display(),
                        if usable {
                            "a process writes to pools of one puddled at a time"
                        } else {
                            "the connection to it was lost"
                        }
                    ),
                });
            }
        }
        let name = std::env::current_exe()
            .ok()
            .and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()))
            .unwrap_or_else(|| "a program".to_owned());
        let client = Client::connect(&socket, &name).map_err(|e| Error::Access {
            what: e.to_string(),
        })?;
        let connection = Arc::new(Connection {
            socket,
            process: std::process::id(),
            client: Mutex::new(client),
            written: Mutex::new(0),
            lost: Mutex::new(false),
            logs: Mutex::new(None),
        });
        *current = Some(connection.clone());
        Ok(connection)
    }

    /// One request. A connection that fails is not used again.
    fn ask<T>(
        &self,
        f: impl FnOnce(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let done = f(&mut lock(&self.client));
        if let Err(e) = &done
            && !matches!(e, ClientError::Refused(_) | ClientError::Proto(_))
        {
            *lock(&self.lost) = true;
        }
        done
    }

    /// The refusal of a request on the pool `name`, in the words of pools.
    fn refused(&self, name: &str, e: ClientError) -> Error {
        let stat = || self.ask(|c| c.stat(name)).ok().map(|(stat, _)| stat);
        match e.code() {
            Some(ErrorCode::NotFound) => Error::NotFound {
                name: name.to_owned(),
            },
            Some(ErrorCode::Exists) => Error::Exists {
                name: name.to_owned(),
            },
            Some(ErrorCode::Busy) => match stat().and_then(|s| s.users.first().copied()) {
                Some(user) => Error::Busy {
                    name: name.to_owned(),
                    holder: format!("process {} of user {}", user.pid, user.uid),
                },
                None => Error::invalid(e.to_string()),
            },
            Some(ErrorCode::Quarantine) => match stat().map(|s| s.condition) {
                Some(Condition::Quarantined { reason }) => Error::Quarantined {
                    name: name.to_owned(),
                    why: reason,
                },
                _ => Error::invalid(e.to_string()),
            },
            Some(ErrorCode::Access) => Error::Access {
                what: e.to_string(),
            },
            _ => Error::invalid(e.to_string()),
        }
    }
}

/// Log files for direct pools, which puddled recovers when this process dies. The connection has them, and not they the
/// connection: its end is what lets puddled recover.
#[derive(Debug)]
struct ServedLogs(Weak<Connection>);

impl LogSource for ServedLogs {
    fn create(
        &self,
        log: Option<Uuid>,
        position: u32,
        len: u64,
    ) -> io::Result<(MappedMedia, LogHeader)> {
        let connection = self.0.upgrade().filter(|c| !*lock(&c.lost));
        let connection = connection.ok_or_else(|| {
            io::Error::other(
                "the connection to puddled was lost: close its pools and open them again",
            )
        })?;
        let (info, file) = connection
            .ask(|c| c.log(len, log.map(Id::from)))
            .map_err(io::Error::other)?;
        if info.position != position {
            return Err(io::Error::other(format!(
                "puddled gave file {} of log {} where file {position} was asked for",
                info.position, info.log
            )));
        }
        let header = LogHeader {
            file: Uuid::from(info.id),
            log: Uuid::from(info.log),
            space: Uuid::from(info.space),
            position,
            len: info.size,
        };
        Ok((MappedMedia::new(file)?, header))
    }
}

/// A pool that puddled has opened for this process.
#[derive(Debug)]
pub struct ClientSource {
    connection: Arc<Connection>,
    name: String,
    id: Id,
    direct: bool,
    read_only: bool,
    /// Granted, and not yet taken by whoever maps them.
    waiting: Mutex<Vec<Granted>>,
    names: Mutex<HashMap<Uuid, String>>,
    /// puddled was told that it is closed.
    closed: AtomicBool,
}

impl ClientSource {
    /// Opens the pool `name`, or makes it. `create` says whether it may be made; `exclusive`, whether it must be.
    pub fn open(
        name: &str,
        create: bool,
        exclusive: bool,
        read_only: bool,
        direct: bool,
    ) -> Result<ClientSource, Error> {
        let kind = if direct {
            PoolKind::Direct
        } else {
            PoolKind::Buffered
        };
        let connection = Connection::get()?;
        let access = if read_only {
            Access::Read
        } else {
            Access::Write
        };
        let make = || match connection.ask(|c| c.create(name, NEW_MODE, kind, 0)) {
            // Somebody else was first.
            Err(e) if e.code() == Some(ErrorCode::Exists) && !exclusive => Ok(()),
            Err(e) => Err(connection.refused(name, e)),
            Ok(_) => Ok(()),
        };
        if create && exclusive {
            make()?;
        }
        let opened = match connection.ask(|c| c.open(name, access)) {
            Err(e) if e.code() == Some(ErrorCode::NotFound) && create && !exclusive => {
                make()?;
                connection.ask(|c| c.open(name, access))
            }
            other => other,
        };
        let OpenPool { pool, puddles } = opened.map_err(|e| connection.refused(name, e))?;
        if !read_only {
            *lock(&connection.written) += 1;
        }
        let source = ClientSource {
            connection,
            name: name.to_owned(),
            id: pool.id,
            direct: pool.kind == PoolKind::Direct,
            read_only,
            waiting: Mutex::new(puddles),
            names: Mutex::new(HashMap::new()),
            closed: AtomicBool::new(false),
        };
        Ok(source)
    }

    fn granted(&self, g: Granted) -> GrantedPuddle {
        let uuid = Uuid::from(g.info.id);
        let name = format!("{}/{uuid}", self.name);
        lock(&self.names).insert(uuid, name.clone());
        GrantedPuddle {
            uuid,
            addr: g.info.addr,
            size: g.info.size,
            file: g.file,
            name,
        }
    }
}

impl PoolSource for ClientSource {
    fn describe(&self) -> PoolInfo {
        PoolInfo {
            name: self.name.clone(),
            direct: self.direct,
            read_only: self.read_only,
        }
    }

    fn puddles(&self) -> Result<Vec<GrantedPuddle>, Error> {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        Ok(waiting.into_iter().map(|g| self.granted(g)).collect())
    }

    fn grow(&self, size: u64) -> Result<GrantedPuddle, Error> {
        match self.connection.ask(|c| c.grow(self.id, size)) {
            Ok(granted) => Ok(self.granted(granted)),
            Err(e) => Err(self.connection.refused(&self.name, e)),
        }
    }

    fn puddle_name(&self, puddle: Uuid) -> String {
        let known = lock(&self.names).get(&puddle).cloned();
        known.unwrap_or_else(|| format!("{}/{puddle}", self.name))
    }

    fn shrink(&self, puddle: Uuid) -> Result<(), Error> {
        self.connection
            .ask(|c| c.shrink(self.id, Id::from(puddle)))
            .map_err(|e| self.connection.refused(&self.name, e))
    }

    fn journal(&self) -> Result<Option<JournalGrant>, Error> {
        let (info, file) = self
            .connection
            .ask(Client::journal)
            .map_err(|e| self.connection.refused(&self.name, e))?;
        Ok(Some(JournalGrant {
            file,
            uuid: Uuid::from(info.id),
            name: info.name,
            max_len: info.max_len,
        }))
    }

    fn direct(&self) -> Result<Option<DirectGrant>, Error> {
        let (token, page) = self
            .connection
            .ask(|c| c.allocator(self.id))
            .map_err(|e| self.connection.refused(&self.name, e))?;
        let logs = lock(&self.connection.logs)
            .get_or_insert_with(|| Arc::new(ServedLogs(Arc::downgrade(&self.connection))))
            .clone();
        Ok(Some(DirectGrant {
            lock: page,
            token,
            logs,
        }))
    }

    fn added(&self, puddle: Uuid) -> Result<GrantedPuddle, Error> {
        let open = self
            .connection
            .ask(|c| c.refresh(self.id))
            .map_err(|e| self.connection.refused(&self.name, e))?;
        let found = open
            .puddles
            .into_iter()
            .find(|g| Uuid::from(g.info.id) == puddle);
        match found {
            Some(granted) => Ok(self.granted(granted)),
            None => Err(Error::Puddle {
                pool: self.name.clone(),
                puddle: puddle.to_string(),
                why: "is named by the pool's directory, and puddled does not know it: run `vernal pool check`".into(),
            }),
        }
    }

    fn close(self: Box<Self>) -> Result<(), Error> {
        self.give_back()
    }
}

impl ClientSource {
    /// Tells puddled that nothing of the pool is mapped any more.
    fn give_back(&self) -> Result<(), Error> {
        lock(&self.waiting).clear();
        self.closed.store(true, Ordering::Relaxed);
        if self.connection.process != std::process::id() {
            return Ok(());
        }
        // puddled recovers by itself what a lost connection had open; there is nothing to say any more.
        if *lock(&self.connection.lost) {
            return Ok(());
        }
        self.connection
            .ask(|c| c.close(self.id))
            .map_err(|e| self.connection.refused(&self.name, e))
    }
}

impl Drop for ClientSource {
    fn drop(&mut self) {
        if !self.closed.load(Ordering::Relaxed) {
            // Opening failed after puddled had granted the pool. If it cannot be given back, the end of the connection does it.
            let _ = self.give_back();
        }
        if !self.read_only {
            let mut written = lock(&self.connection.written);
            *written = written.saturating_sub(1);
        }
    }
}
