//! A connection whose peer has said all that it will ever say: what a fuzzer calls.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vernal_heap::walk::{Budget, KnownTypes};

use super::graphs::Graphs;
use super::halves::endpoint;
use super::hello::Hello;
use super::link::TcpLink;
use crate::Error;
use crate::message::{Body, Kind, Message};
use crate::options::Types;
use crate::transport::Peer;

const PEER: &str = "a peer that has hung up";

/// The greeting at the start of `bytes`, as both sides read it: its bytes. `None`: it is not complete.
pub fn greeting(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let greeted = Hello::decode(bytes, PEER)?;
    Ok(greeted.map(|(hello, length)| {
        assert_eq!(hello.encode().get(..8), bytes.get(..8));
        length
    }))
}

/// Takes all frames of `bytes` as a server (or a client) does that has greeted: each object is admitted as one of the type
/// `expected`, and released. How many messages these were, until their end or the first error.
pub fn frames(
    bytes: &[u8],
    server: bool,
    types: Arc<KnownTypes>,
    expected: u64,
    budget: Budget,
) -> (usize, Result<(), Error>) {
    let (socket, peer) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(e) => return (0, Err(Error::os("making a socket", e))),
    };
    // Whatever is read beyond the bytes is the end.
    drop(peer);
    let socket = TcpStream::from(OwnedFd::from(socket));
    let peer = Peer {
        name: PEER.into(),
        uid: None,
        gid: None,
        pid: None,
    };
    let graphs = Graphs::new(PEER, Types::Given(types), budget, None);
    let longest = Graphs::longest(budget);
    let link = TcpLink::new(peer, socket, graphs, longest, longest, server);
    let mut end = endpoint(link, bytes.to_vec());
    let mut messages = 0;
    loop {
        let message = match end.rx.try_recv() {
            Ok(Some(message)) => message,
            Ok(None) => return (messages, Ok(())),
            Err(e) => return (messages, Err(e)),
        };
        messages += 1;
        if let Body::Object { .. } = message.body {
            if let Err(e) = end.link.admit(&message.body, expected) {
                drop(e.to_string());
            }
            let done = match message.kind {
                Kind::Call => Message::bare(Kind::Reply, message.call),
                _ => Message {
                    kind: Kind::Release,
                    ..message
                },
            };
            // The peer is gone: nothing is sent, but what stands for the object is forgotten.
            let _ = end.tx.try_send(&done);
        }
    }
}
