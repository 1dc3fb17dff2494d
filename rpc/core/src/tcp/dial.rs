//! Connecting, on the client's side.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vernal_heap::walk::Budget;

use super::graphs::Graphs;
use super::halves::endpoint;
use super::hello::{Hello, NAME_MAX, Status, TOKEN_MAX};
use super::link::{SILENCE, TcpLink, prepare};
use crate::Error;
use crate::options::ConnectOptions;
use crate::transport::{Dial, Endpoint, Peer};

/// How addresses of this transport begin: `tcp://host:port/channel/name`.
pub const SCHEME: &str = "tcp://";

/// TCP, with or without a shared secret.
#[derive(Clone)]
pub struct Tcp {
    pub(super) token: Option<Arc<[u8]>>,
    pub(super) silence: Duration,
}

impl Default for Tcp {
    fn default() -> Tcp {
        Tcp {
            token: None,
            silence: SILENCE,
        }
    }
}

impl std::fmt::Debug for Tcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the secret itself.
        let token = self.token.is_some();
        f.debug_struct("Tcp").field("token", &token).finish()
    }
}

impl Tcp {
    /// Without a secret.
    pub fn new() -> Tcp {
        Tcp::default()
    }

    /// With a shared secret of 1 to 256 bytes: a client sends it, a server takes no client without it.
    pub fn with_token(token: &[u8]) -> Result<Tcp, Error> {
        if token.is_empty() || token.len() > TOKEN_MAX {
            return Err(Error::Invalid {
                what: format!("a token of {} bytes", token.len()),
                remedy: "use 1 to 256 bytes",
            });
        }
        Ok(Tcp {
            token: Some(token.into()),
            ..Tcp::default()
        })
    }

    /// A host that is silent for so long counts as dead: one that answers no probe, or does not acknowledge what was sent. From
    /// two seconds on; [`SILENCE`] unless told otherwise.
    #[must_use]
    pub fn with_silence(mut self, silence: Duration) -> Tcp {
        self.silence = silence.max(Duration::from_secs(2));
        self
    }
}

/// The checked name of a channel in a greeting.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Error::Name {
            name: name.to_owned(),
            why: "use 1 to 255 bytes",
        });
    }
    Ok(())
}

impl Dial for Tcp {
    fn dial(&self, address: &str, options: &ConnectOptions) -> Result<Endpoint, Error> {
        let until = Instant::now() + options.timeout;
        let parts = address.strip_prefix(SCHEME).and_then(|a| a.split_once('/'));
        let Some((host, name)) = parts else {
            return Err(Error::Name {
                name: address.to_owned(),
                why: "use tcp://host:port/channel",
            });
        };
        check_name(name)?;
        let socket = connect(host, address, until)?;
        prepare(&socket, self.silence)?;
        let peer = Peer {
            name: format!("server {address}"),
            uid: None,
            gid: None,
            pid: None,
        };
        let budget = Budget {
            objects: options.max_objects,
            bytes: options.max_bytes,
        };
        let longest = Graphs::longest(budget);
        let hello = Hello {
            status: 0,
            max_bytes: longest,
            name: name.as_bytes().to_vec(),
            token: self.token.as_deref().unwrap_or_default().to_vec(),
        };
        let (answer, rest) = greet(&socket, &hello.encode(), &peer, until)?;
        match answer.status {
            n if n == Status::Welcome as u32 => {}
            n if n == Status::NotFound as u32 => {
                return Err(Error::NotFound {
                    name: address.to_owned(),
                });
            }
            n if n == Status::Token as u32 => {
                return Err(Error::Access {
                    what: format!("{} does not take this side's token", peer.name),
                });
            }
            n => {
                return Err(Error::Incompatible {
                    peer: peer.name,
                    what: "a greeting with status",
                    theirs: n.into(),
                    ours: 0,
                });
            }
        }
        let graphs = Graphs::new(address, (&options.types).into(), budget, None);
        let link = TcpLink::new(peer, socket, graphs, longest, answer.max_bytes, false);
        Ok(endpoint(link, rest))
    }
}

fn connect(host: &str, address: &str, until: Instant) -> Result<TcpStream, Error> {
    let found = host.to_socket_addrs();
    let found = found.map_err(|e| Error::os("looking up the host of a channel", e))?;
    let mut last = None;
    for at in found {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&at, left) {
            Ok(socket) => return Ok(socket),
            Err(e) => last = Some(e),
        }
    }
    Err(match last {
        Some(e) if e.kind() != ErrorKind::ConnectionRefused => Error::os("connecting", e),
        _ => Error::NotFound {
            name: address.to_owned(),
        },
    })
}

/// Sends the greeting and waits for the answer; what came behind it, too.
fn greet(
    socket: &TcpStream,
    hello: &[u8],
    peer: &Peer,
    until: Instant,
) -> Result<(Hello, Vec<u8>), Error> {
    let died = || Error::PeerDied {
        peer: peer.name.clone(),
    };
    let (mut unsent, mut bytes) = (hello, Vec::new());
    loop {
        if !unsent.is_empty() {
            let mut to = socket;
            match to.write(unsent) {
                Ok(n) => unsent = unsent.get(n..).unwrap_or_default(),
                Err(e) if is_later(&e) => {}
                Err(_) => return Err(died()),
            }
        }
        let mut chunk = [0; 512];
        let mut from = socket;
        match from.read(&mut chunk) {
            Ok(0) => return Err(died()),
            Ok(n) => bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(e) if is_later(&e) => {}
            Err(_) => return Err(died()),
        }
        if let Some((answer, length)) = Hello::decode(&bytes, &peer.name)? {
            bytes.drain(..length);
            return Ok((answer, bytes));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Access {
                what: format!("{} does not answer in time", peer.name),
            });
        }
        let out = if unsent.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::OUT
        };
        let mut fds = [PollFd::new(socket, PollFlags::IN | out)];
        let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
    }
}

pub(super) fn is_later(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
