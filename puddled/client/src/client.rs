//! A connection and the requests, each with the reply that belongs to it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use vernal_puddled_proto::limits::{LINK_FDS, MAX_FRAME, MAX_PAGE};
use vernal_puddled_proto::{
    Access, Hello, Id, JournalInfo, LogInfo, PoolKind, PoolStat, PuddleInfo, Reply, Request,
    StagedPuddle, Status, VERSION_MAX, VERSION_MIN, Welcome,
};

use crate::error::ClientError;
use crate::socket;

/// A puddle and its descriptor.
#[derive(Debug)]
pub struct Granted {
    /// Identity, home address, size.
    pub info: PuddleInfo,
    /// The file; read-only unless the pool was opened for writing.
    pub file: File,
}

/// A pool that puddled has opened for this client.
#[derive(Debug)]
pub struct OpenPool {
    /// The pool.
    pub pool: PoolStat,
    /// Its puddles, the root first.
    pub puddles: Vec<Granted>,
}

/// A pool whose content this client writes before anybody sees it.
#[derive(Debug)]
pub struct Import {
    /// Names it in [`Client::import_finish`] and [`Client::import_abort`].
    pub id: Id,
    /// Its puddles with writable files, the root first.
    pub puddles: Vec<Granted>,
}

/// A connection to puddled. Its end gives back all that it was granted.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    version: u8,
    id: u64,
    buf: Box<[u8]>,
}

impl Client {
    /// Connects to the socket at `path` and says Hello; `name` is what puddled's log calls this client.
    pub fn connect(path: &Path, name: &str) -> Result<Self, ClientError> {
        let mut client = Client {
            socket: socket::open(path)?,
            version: 0,
            id: 0,
            buf: vec![0; MAX_FRAME].into_boxed_slice(),
        };
        let packet = Hello::new(name).encode()?;
        let (len, _) = client.exchange("hello", &packet)?;
        let welcome = Welcome::decode(client.buf.get(..len).unwrap_or_default())??;
        if !(VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
            return Err(ClientError::Unexpected { request: "hello" });
        }
        client.version = welcome.version;
        client.id = welcome.client;
        Ok(client)
    }

    /// Connects to the socket that `$VERNAL_PUDDLED` names, or to the default one.
    pub fn connect_default(name: &str) -> Result<Self, ClientError> {
        Self::connect(&socket::socket_path(), name)
    }

    /// The number by which puddled's logs name this client.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The protocol version agreed on.
    pub fn version(&self) -> u8 {
        self.version
    }

    fn exchange(
        &mut self,
        request: &'static str,
        packet: &[u8],
    ) -> Result<(usize, Vec<OwnedFd>), ClientError> {
        use rustix::io::Errno;
        match socket::send(&self.socket, packet) {
            // The reason may still wait to be read: puddled says why before it closes.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(e) => return Err(ClientError::io("writing", e)),
        }
        match socket::receive(&self.socket, &mut self.buf) {
            Ok((0, _)) => Err(ClientError::Closed { request }),
            Err(ClientError::Io { source, .. })
                if source.raw_os_error() == Some(Errno::CONNRESET.raw_os_error()) =>
            {
                Err(ClientError::Closed { request })
            }
            other => other,
        }
    }

    /// Sends `request` and returns the reply with its descriptors. A refusal is an error.
    pub fn call(&mut self, request: &Request) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        let packet = request.encode(self.version)?;
        let (len, fds) = self.exchange(request.kind(), &packet)?;
        let reply = Reply::decode(self.version, self.buf.get(..len).unwrap_or_default())?;
        let expected = match &reply {
            Reply::Failed(failure) => return Err(ClientError::Refused(failure.clone())),
            Reply::Opened { puddles, .. } | Reply::Import { puddles, .. } => puddles.len(),
            Reply::Grown(_)
            | Reply::Journal(_)
            | Reply::Log(_)
            | Reply::Channel(_)
            | Reply::Segment(_)
            | Reply::Allocator { .. } => 1,
            Reply::Connected(_) => LINK_FDS,
            _ => 0,
        };
        if fds.len() != expected {
            return Err(ClientError::Descriptors {
                request: request.kind(),
                expected,
                found: fds.len(),
            });
        }
        Ok((reply, fds))
    }

    pub(crate) fn done(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.call(request)? {
            (Reply::Done, _) => Ok(()),
            _ => Err(unexpected(request)),
        }
    }

    fn pool(&mut self, request: &Request) -> Result<PoolStat, ClientError> {
        match self.call(request)? {
            (Reply::Pool(pool), _) => Ok(pool),
            _ => Err(unexpected(request)),
        }
    }

    /// Makes an empty pool owned by this user.
    pub fn create(
        &mut self,
        name: &str,
        mode: u16,
        kind: PoolKind,
        size: u64,
    ) -> Result<PoolStat, ClientError> {
        self.pool(&Request::Create {
            name: name.to_owned(),
            owner: None,
            group: None,
            mode,
            kind,
            size,
        })
    }

    /// Opens a pool.
    pub fn open(&mut self, name: &str, access: Access) -> Result<OpenPool, ClientError> {
        self.opened(&Request::Open {
            name: name.to_owned(),
            access,
        })
    }

    /// The puddles of a pool that is open, once more: in a direct pool, another writer may have added some.
    pub fn refresh(&mut self, pool: Id) -> Result<OpenPool, ClientError> {
        self.opened(&Request::Refresh { pool })
    }

    fn opened(&mut self, request: &Request) -> Result<OpenPool, ClientError> {
        match self.call(request)? {
            (Reply::Opened { pool, puddles }, fds) => Ok(OpenPool {
                pool,
                puddles: granted(puddles, fds),
            }),
            _ => Err(unexpected(request)),
        }
    }

    /// Adds a puddle of at least `size` bytes to a pool that is open for writing.
    pub fn grow(&mut self, pool: Id, size: u64) -> Result<Granted, ClientError> {
        let request = Request::Grow { pool, size };
        match self.call(&request)? {
            (Reply::Grown(info), fds) => granted(vec![info], fds)
                .pop()
                .ok_or_else(|| unexpected(&request)),
            _ => Err(unexpected(&request)),
        }
    }

    /// Gives a puddle back that is no longer mapped, that this client's journal no longer serves, and that the committed pool
    /// page does not name.
    pub fn shrink(&mut self, pool: Id, puddle: Id) -> Result<(), ClientError> {
        self.done(&Request::Shrink { pool, puddle })
    }

    /// This client's journal for buffered pools.
    pub fn journal(&mut self) -> Result<(JournalInfo, File), ClientError> {
        match self.call(&Request::Journal)? {
            (Reply::Journal(info), fds) => {
                let file = fds.into_iter().next().map(File::from);
                Ok((info, file.ok_or_else(|| unexpected(&Request::Journal))?))
            }
            _ => Err(unexpected(&Request::Journal)),
        }
    }

    /// A log file for direct pools, with its header in place; it continues `log` if that is given.
    pub fn log(&mut self, size: u64, log: Option<Id>) -> Result<(LogInfo, File), ClientError> {
        let request = Request::Log { size, log };
        match self.call(&request)? {
            (Reply::Log(info), fds) => {
                let file = fds.into_iter().next().map(File::from);
                Ok((info, file.ok_or_else(|| unexpected(&request))?))
            }
            _ => Err(unexpected(&request)),
        }
    }

    /// The lock of a direct pool's allocator: this client's token, and the page.
    pub fn allocator(&mut self, pool: Id) -> Result<(u32, File), ClientError> {
        let request = Request::Allocator { pool };
        match self.call(&request)? {
            (Reply::Allocator { token }, fds) => {
                let file = fds.into_iter().next().map(File::from);
                Ok((token, file.ok_or_else(|| unexpected(&request))?))
            }
            _ => Err(unexpected(&request)),
        }
    }

    /// Closes a pool that is no longer mapped and that this client's journal no longer serves.
    pub fn close(&mut self, pool: Id) -> Result<(), ClientError> {
        self.done(&Request::Close { pool })
    }

    /// Removes a pool.
    pub fn remove(&mut self, name: &str) -> Result<(), ClientError> {
        self.done(&Request::Remove {
            name: name.to_owned(),
        })
    }

    /// All pools that this user may read, page by page.
    pub fn list(&mut self) -> Result<Vec<PoolStat>, ClientError> {
        let mut all: Vec<PoolStat> = Vec::new();
        loop {
            let (page, more) = self.list_page(all.last().map(|p| p.name.clone()))?;
            // Names that do not go up would never end.
            let goes_up = match (all.last(), page.first()) {
                (Some(last), Some(first)) => last.name < first.name,
                (_, first) => first.is_some(),
            };
            all.extend(page);
            if !more || !goes_up {
                return Ok(all);
            }
        }
    }

    /// The pools after the name `after`, and whether there are more behind them.
    pub fn list_page(
        &mut self,
        after: Option<String>,
    ) -> Result<(Vec<PoolStat>, bool), ClientError> {
        let request = Request::List {
            after,
            limit: MAX_PAGE as u16,
        };
        match self.call(&request)? {
            (Reply::Pools { pools, more }, _) => Ok((pools, more)),
            _ => Err(unexpected(&request)),
        }
    }

    /// One pool and its puddles.
    pub fn stat(&mut self, name: &str) -> Result<(PoolStat, Vec<PuddleInfo>), ClientError> {
        let request = Request::Stat {
            name: name.to_owned(),
        };
        match self.call(&request)? {
            (Reply::Stat { pool, puddles }, _) => Ok((pool, puddles)),
            _ => Err(unexpected(&request)),
        }
    }

    /// Changes who may read and write a pool.
    pub fn set_mode(&mut self, name: &str, mode: u16) -> Result<(), ClientError> {
        self.done(&Request::SetMode {
            name: name.to_owned(),
            mode,
        })
    }

    /// Changes owner and group of a pool.
    pub fn chown(
        &mut self,
        name: &str,
        owner: Option<u32>,
        group: Option<u32>,
    ) -> Result<(), ClientError> {
        self.done(&Request::Chown {
            name: name.to_owned(),
            owner,
            group,
        })
    }

    fn quota_call(&mut self, request: &Request) -> Result<(u64, Option<u64>), ClientError> {
        match self.call(request)? {
            (Reply::Quota { used, limit, .. }, _) => Ok((used, limit)),
            _ => Err(unexpected(request)),
        }
    }

    /// Bytes that a user has in use, and how many are allowed (`None`: any).
    pub fn quota(&mut self, uid: u32) -> Result<(u64, Option<u64>), ClientError> {
        self.quota_call(&Request::QuotaGet { uid })
    }

    /// Sets a user's quota; `None`: puddled's default.
    pub fn set_quota(
        &mut self,
        uid: u32,
        bytes: Option<u64>,
    ) -> Result<(u64, Option<u64>), ClientError> {
        self.quota_call(&Request::QuotaSet { uid, bytes })
    }

    /// Releases a pool from quarantine as it is.
    pub fn accept(&mut self, name: &str) -> Result<(), ClientError> {
        self.done(&Request::Accept {
            name: name.to_owned(),
        })
    }

    fn staged(&mut self, request: &Request) -> Result<Import, ClientError> {
        match self.call(request)? {
            (Reply::Import { import, puddles }, fds) => Ok(Import {
                id: import,
                puddles: granted(puddles, fds),
            }),
            _ => Err(unexpected(request)),
        }
    }

    /// Starts a pool whose puddles, of these sizes and the root first, this client writes.
    pub fn import_begin(
        &mut self,
        name: &str,
        mode: u16,
        kind: PoolKind,
        sizes: &[u64],
        sparse: bool,
    ) -> Result<Import, ClientError> {
        self.staged(&Request::ImportBegin {
            name: name.to_owned(),
            owner: None,
            group: None,
            mode,
            kind,
            puddles: sizes.iter().map(|&size| StagedPuddle { size }).collect(),
            sparse,
        })
    }

    /// Starts a pool as a copy of the pool `from`.
    pub fn clone_begin(
        &mut self,
        from: &str,
        name: &str,
        mode: u16,
    ) -> Result<Import, ClientError> {
        self.staged(&Request::CloneBegin {
            from: from.to_owned(),
            name: name.to_owned(),
            mode,
        })
    }

    /// Makes an import a pool.
    pub fn import_finish(&mut self, import: Id) -> Result<PoolStat, ClientError> {
        self.pool(&Request::ImportFinish { import })
    }

    /// Gives an import up.
    pub fn import_abort(&mut self, import: Id) -> Result<(), ClientError> {
        self.done(&Request::ImportAbort { import })
    }

    /// puddled's metrics as text.
    pub fn metrics(&mut self) -> Result<String, ClientError> {
        match self.call(&Request::Metrics)? {
            (Reply::Metrics(text), _) => Ok(text),
            _ => Err(unexpected(&Request::Metrics)),
        }
    }

    /// What puddled is doing.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        match self.call(&Request::Status)? {
            (Reply::Status(status), _) => Ok(status),
            _ => Err(unexpected(&Request::Status)),
        }
    }
}

fn granted(puddles: Vec<PuddleInfo>, fds: Vec<OwnedFd>) -> Vec<Granted> {
    puddles
        .into_iter()
        .zip(fds)
        .map(|(info, fd)| Granted {
            info,
            file: File::from(fd),
        })
        .collect()
}

pub(crate) fn unexpected(request: &Request) -> ClientError {
    ClientError::Unexpected {
        request: request.kind(),
    }
}
