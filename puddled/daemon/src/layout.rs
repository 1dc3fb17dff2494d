//! Where everything lies in the data directory.
//!
//! ```text
//! DATA/lock                             locked by the running puddled; holds its process id
//! DATA/registry.redb                    the registry
//! DATA/rpc-addresses                    how far the addresses of RPC segments went
//! DATA/pools/<pool>/root.puddle         puddles, and the metadata of each beside it
//! DATA/pools/<pool>/<puddle>.puddle
//! DATA/journals/<client>/               journal and log puddles of one client
//! DATA/staging/<pool>/                  pools that are not there yet, or no longer
//! DATA/quarantine/<id>/                 journals and logs that were not valid
//! ```
//!
//! Directories have mode 0700 and files 0600: no client ever opens one by its path.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use vernal_puddled_proto::Id;

/// Where everything lies in a data directory.
#[derive(Debug, Clone)]
pub struct Layout {
    data: PathBuf,
}

/// The name of a root puddle's file.
const ROOT: &str = "root.puddle";

impl Layout {
    /// The layout of the data directory `data`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Layout { data: data.into() }
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// How far the addresses of segments went.
    pub fn rpc_addresses(&self) -> PathBuf {
        self.data.join("rpc-addresses")
    }

    /// The lock of the running puddled.
    pub fn lock(&self) -> PathBuf {
        self.data.join("lock")
    }

    /// The registry.
    pub fn registry(&self) -> PathBuf {
        self.data.join("registry.redb")
    }

    /// All pools.
    pub fn pools(&self) -> PathBuf {
        self.data.join("pools")
    }

    /// One pool.
    pub fn pool(&self, pool: Id) -> PathBuf {
        self.pools().join(pool.to_string())
    }

    /// All journals.
    pub fn journals(&self) -> PathBuf {
        self.data.join("journals")
    }

    /// The journal and the logs of one client.
    pub fn client(&self, client: u64) -> PathBuf {
        self.journals().join(format!("{client:016x}"))
    }

    /// Pools that are not there yet, or no longer.
    pub fn staging(&self) -> PathBuf {
        self.data.join("staging")
    }

    /// One of them.
    pub fn staged(&self, pool: Id) -> PathBuf {
        self.staging().join(pool.to_string())
    }

    /// All that is in quarantine.
    pub fn quarantine(&self) -> PathBuf {
        self.data.join("quarantine")
    }

    /// One journal or set of logs in quarantine.
    pub fn quarantined(&self, id: Id) -> PathBuf {
        self.quarantine().join(id.to_string())
    }

    /// The directories that must be there.
    pub fn directories(&self) -> [PathBuf; 5] {
        [
            self.data.clone(),
            self.pools(),
            self.journals(),
            self.staging(),
            self.quarantine(),
        ]
    }

    /// The file of a puddle of the pool in `dir`; the first puddle is the root.
    pub fn puddle(dir: &Path, index: usize, id: Id) -> PathBuf {
        if index == 0 {
            dir.join(ROOT)
        } else {
            dir.join(format!("{id}.puddle"))
        }
    }

    /// The metadata of a puddle.
    pub fn meta(puddle: &Path) -> PathBuf {
        let mut name = puddle.as_os_str().to_owned();
        name.push(".vernal");
        PathBuf::from(name)
    }

    /// The journal in a client's folder.
    pub fn journal(dir: &Path) -> PathBuf {
        dir.join("journal")
    }

    /// A log puddle in a client's folder.
    pub fn log(dir: &Path, id: Id) -> PathBuf {
        dir.join(format!("{id}.log"))
    }
}

pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

pub(crate) fn open_rw(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a directory with all in it; one that is not there is fine.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The entries of `dir` with the names that they have; what has no UTF-8 name is none of ours.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// The identity in a name of 32 hexadecimal digits.
pub(crate) fn parse_id(name: &str) -> Option<Id> {
    if name.len() != 32 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(name, 16)
        .ok()
        .map(|n| Id(n.to_be_bytes()))
}
