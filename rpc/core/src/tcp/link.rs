//! What every thread may ask of one end: who the peer is, whether it lives, and its objects.

use std::io::ErrorKind;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::sockopt;
use vernal_pool::Pool;

use super::graphs::Graphs;
use crate::Error;
use crate::latency::{Latency, Recorder};
use crate::message::Body;
use crate::transport::{Admitted, Link, Peer};

/// How long a host may be silent, with the kernel asking it, before it counts as dead, unless [`super::Tcp::with_silence`] says otherwise.
pub const SILENCE: Duration = Duration::from_secs(20);
/// Probes in that time.
const PROBES: u32 = 4;

/// One end of a connection.
pub(super) struct TcpLink {
    pub peer: Peer,
    pub socket: TcpStream,
    pub graphs: Graphs,
    /// The longest graph that this side takes.
    pub longest: u64,
    /// The longest graph that the peer takes.
    pub peer_takes: u64,
    /// This side serves: what comes in are arguments.
    pub server: bool,
    closed: AtomicBool,
    latency: Recorder<Box<[AtomicU64]>>,
}

impl TcpLink {
    pub fn new(
        peer: Peer,
        socket: TcpStream,
        graphs: Graphs,
        longest: u64,
        peer_takes: u64,
        server: bool,
    ) -> TcpLink {
        TcpLink {
            peer,
            socket,
            graphs,
            longest,
            peer_takes,
            server,
            closed: AtomicBool::new(false),
            latency: Recorder::new(),
        }
    }

    #[cold]
    pub fn corrupt(&self, why: String) -> Error {
        Error::Corrupt {
            peer: self.peer.name.clone(),
            why,
        }
    }

    #[cold]
    pub fn died(&self) -> Error {
        Error::PeerDied {
            peer: self.peer.name.clone(),
        }
    }
}

/// How this side's sockets behave.
pub(super) fn prepare(socket: &TcpStream, silence: Duration) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::os("preparing a socket", e);
    socket.set_nonblocking(true).map_err(failed)?;
    // Messages are small and somebody waits for each.
    socket.set_nodelay(true).map_err(failed)?;
    // The kernel counts in seconds.
    let every = (silence / PROBES).max(Duration::from_secs(1));
    let options = || {
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, every)?;
        sockopt::set_tcp_keepintvl(socket, every)?;
        sockopt::set_tcp_keepcnt(socket, PROBES)?;
        // The same for data that is never acknowledged, which keeps the probes from being sent.
        let most = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(socket, most)
    };
    options().map_err(|e| Error::os("preparing a socket", e))
}

impl Link for TcpLink {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn events(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.socket.as_fd()]
    }

    fn acknowledge(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(self.died());
        }
        // The socket is readable as long as there is something to read; the end shows when nothing else does.
        match self.socket.peek(&mut [0]) {
            Ok(0) => Err(self.died()),
            Ok(_) => Ok(()),
            Err(e) => match e.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
                _ => Err(self.died()),
            },
        }
    }

    fn admit(&self, body: &Body, expected: u64) -> Result<Admitted, Error> {
        let Body::Object { addr, type_id } = *body else {
            return Err(Error::Invalid {
                what: "plain bytes were to be admitted as an object".into(),
                remedy: "admit objects only",
            });
        };
        let unverified = |why: String| Error::Unverified {
            peer: self.peer.name.clone(),
            why,
        };
        if type_id != expected {
            return Err(unverified(format!(
                "an object of type {type_id:#x}, where one of type {expected:#x} is expected"
            )));
        }
        self.graphs.admit(addr, expected).map_err(unverified)
    }

    fn heap(&self) -> Result<Pool, Error> {
        self.graphs.heap()
    }

    fn timed(&self, took: Duration) {
        self.latency.record(took);
    }

    fn latency(&self) -> Latency {
        self.latency.read()
    }

    fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            // Both sides see the end; the descriptor itself stays until nobody uses it.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        self.close();
    }
}
