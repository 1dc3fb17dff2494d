//! Taking clients, on the server's side.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use vernal_heap::walk::Budget;

use super::dial::{SCHEME, Tcp, check_name, is_later};
use super::graphs::Graphs;
use super::halves::endpoint;
use super::hello::{FIXED, Hello, NAME_MAX, Status, TOKEN_MAX, same_token};
use super::link::{TcpLink, prepare};
use crate::Error;
use crate::options::{ChannelOptions, Types};
use crate::shm::ChannelHeap;
use crate::transport::{Advance, Greeting, Listen, Peer};

/// What all clients of a listener have in common.
struct Common {
    name: String,
    token: Option<Arc<[u8]>>,
    silence: Duration,
    types: Types,
    budget: Budget,
    shared: Option<Arc<ChannelHeap>>,
}

/// A socket that takes clients of one channel.
pub struct TcpListener {
    socket: std::net::TcpListener,
    at: SocketAddr,
    common: Arc<Common>,
}

impl std::fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpListener")
            .field("at", &self.at)
            .field("name", &self.common.name)
            .finish_non_exhaustive()
    }
}

impl Tcp {
    /// Takes clients of the channel `name` on this host alone, at `port` of the loopback address; 0: at any.
    pub fn listen_local(
        &self,
        port: u16,
        name: &str,
        options: &ChannelOptions,
    ) -> Result<TcpListener, Error> {
        self.listen((Ipv4Addr::LOCALHOST, port).into(), name, options)
    }

    /// Takes clients of the channel `name` at any address. Whoever can reach it, and knows the token if there is one, can connect.
    pub fn listen(
        &self,
        at: SocketAddr,
        name: &str,
        options: &ChannelOptions,
    ) -> Result<TcpListener, Error> {
        check_name(name)?;
        let socket = bind(at)?;
        let at = socket.local_addr();
        Ok(TcpListener {
            at: at.map_err(|e| Error::os("asking for the address of a listener", e))?,
            socket,
            common: Arc::new(Common {
                name: name.to_owned(),
                token: self.token.clone(),
                silence: self.silence,
                types: (&options.types).into(),
                budget: Budget {
                    objects: options.max_objects,
                    bytes: options.max_bytes,
                },
                shared: None,
            }),
        })
    }
}

fn bind(at: SocketAddr) -> Result<std::net::TcpListener, Error> {
    let bound = std::net::TcpListener::bind(at)
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
    bound.map_err(|e| Error::os("listening for clients over TCP", e))
}

impl TcpListener {
    /// The same, for a server whose answers may be objects of the channel's heap.
    pub fn with_shared_heap(mut self, heap: Arc<ChannelHeap>) -> TcpListener {
        let common = &self.common;
        self.common = Arc::new(Common {
            name: common.name.clone(),
            token: common.token.clone(),
            silence: common.silence,
            types: common.types.clone(),
            budget: common.budget,
            shared: Some(heap),
        });
        self
    }

    /// What clients connect to.
    pub fn address(&self) -> String {
        format!("{SCHEME}{}/{}", self.at, self.common.name)
    }
}

impl Listen for TcpListener {
    fn event(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn accept(&self) -> Result<Option<Box<dyn Greeting>>, Error> {
        let (socket, from) = match self.socket.accept() {
            Ok(accepted) => accepted,
            Err(e) if is_later(&e) => return Ok(None),
            Err(e) => match e.kind() {
                // One client, gone before it was taken.
                std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset => {
                    return Ok(None);
                }
                _ => return Err(Error::os("taking a client over TCP", e)),
            },
        };
        if prepare(&socket, self.common.silence).is_err() {
            return Ok(None);
        }
        Ok(Some(Box::new(Guest {
            socket,
            peer: Peer {
                name: format!("client {from}"),
                uid: None,
                gid: None,
                pid: None,
            },
            bytes: Vec::new(),
            common: Arc::clone(&self.common),
        })))
    }

    fn reopen(&mut self) -> Result<(), Error> {
        // The old socket may be as good as ever: accepting fails for want of descriptors, too.
        if self.socket.take_error().is_ok_and(|e| e.is_none()) {
            return Ok(());
        }
        self.socket = bind(self.at)?;
        Ok(())
    }
}

/// A client that has not greeted.
struct Guest {
    socket: TcpStream,
    peer: Peer,
    bytes: Vec<u8>,
    common: Arc<Common>,
}

impl Guest {
    fn answer(&self, status: Status) -> Result<(), Error> {
        let longest = Graphs::longest(self.common.budget);
        let answer = Hello::answer(status, longest).encode();
        // It is the first thing that is sent: the socket has room for it, or is broken.
        match (&self.socket).write(&answer) {
            Ok(n) if n == answer.len() => Ok(()),
            _ => Err(Error::PeerDied {
                peer: self.peer.name.clone(),
            }),
        }
    }

    /// Reads the greeting, and a bounded number of bytes behind it.
    fn read(&mut self) -> Result<(), Error> {
        let most = FIXED + NAME_MAX + TOKEN_MAX;
        while self.bytes.len() < most {
            let mut chunk = [0; FIXED + NAME_MAX + TOKEN_MAX];
            let room = chunk.get_mut(..most - self.bytes.len()).unwrap_or_default();
            match (&self.socket).read(room) {
                Ok(0) => {
                    return Err(Error::PeerDied {
                        peer: self.peer.name.clone(),
                    });
                }
                Ok(n) => self
                    .bytes
                    .extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(e) if is_later(&e) => break,
                Err(e) => return Err(Error::os("reading a greeting", e)),
            }
        }
        Ok(())
    }
}

impl Greeting for Guest {
    fn event(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn advance(mut self: Box<Self>) -> Result<Advance, Error> {
        self.read()?;
        let (hello, length) = match Hello::decode(&self.bytes, &self.peer.name) {
            Ok(Some(greeted)) => greeted,
            Ok(None) => return Ok(Advance::Waiting(self)),
            Err(e) => {
                if matches!(e, Error::Incompatible { .. }) {
                    // It may learn why; a client that is gone need not.
                    let _ = self.answer(Status::Incompatible);
                }
                return Err(e);
            }
        };
        // The token first: who does not know it learns nothing of names.
        if let Some(token) = &self.common.token
            && !same_token(token, &hello.token)
        {
            let _ = self.answer(Status::Token);
            return Err(Error::Access {
                what: format!("{} has another token", self.peer.name),
            });
        }
        if hello.name != self.common.name.as_bytes() {
            let _ = self.answer(Status::NotFound);
            return Err(Error::NotFound {
                name: String::from_utf8_lossy(&hello.name)
                    .escape_debug()
                    .to_string(),
            });
        }
        self.answer(Status::Welcome)?;
        let Guest {
            socket,
            peer,
            mut bytes,
            common,
        } = *self;
        bytes.drain(..length);
        let graphs = Graphs::new(
            &peer.name,
            common.types.clone(),
            common.budget,
            common.shared.clone(),
        );
        let longest = Graphs::longest(common.budget);
        let link = TcpLink::new(peer, socket, graphs, longest, hello.max_bytes, true);
        Ok(Advance::Connected(endpoint(link, bytes)))
    }
}
