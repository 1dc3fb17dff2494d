//! How a puddled is set up.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Where the metrics are served over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsAddress {
    /// An address and port.
    Tcp(std::net::SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl std::str::FromStr for MetricsAddress {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.starts_with('/') {
            return Ok(MetricsAddress::Unix(PathBuf::from(s)));
        }
        s.parse()
            .map(MetricsAddress::Tcp)
            .map_err(|e| format!("{s}: {e}; give an address and port, like 127.0.0.1:9713, or the absolute path of a socket"))
    }
}

/// How a puddled is set up.
#[derive(Debug)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// Where to listen, when no socket was passed in.
    pub socket: PathBuf,
    /// A listening `SOCK_SEQPACKET` socket from a service manager.
    pub listener: Option<OwnedFd>,
    /// Where to serve metrics.
    pub metrics: Option<MetricsAddress>,
    /// Bytes of puddles that a user may own if nothing else was said; `None`: any.
    pub quota_default: Option<u64>,
    /// Most connections.
    pub max_clients: usize,
    /// Most connections of one user other than root and puddled's own.
    pub max_clients_per_user: usize,
}

impl Config {
    /// Most connections when nothing else is said.
    pub const MAX_CLIENTS: usize = 4096;

    /// A puddled with the data directory `data` that listens at `socket`, and defaults.
    pub fn new(data: PathBuf, socket: PathBuf) -> Self {
        Config {
            data,
            socket,
            listener: None,
            metrics: None,
            quota_default: None,
            max_clients: Self::MAX_CLIENTS,
            max_clients_per_user: Self::MAX_CLIENTS / 2,
        }
    }
}
