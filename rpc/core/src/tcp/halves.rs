//! The two halves of an endpoint over a socket.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

use super::frame::{HEADER, Header, Shape};
use super::link::TcpLink;
use crate::Error;
use crate::message::{Body, Kind, Message};
use crate::transport::{Endpoint, Rx, Tx};

/// Bytes that wait for the socket before nothing more is taken.
const WAITING_MAX: usize = 1 << 20;
/// Bytes that are asked for at once.
const READ: usize = 64 << 10;
/// A buffer that is empty keeps at most so much memory.
const KEEP: usize = 1 << 20;

/// The sending half.
struct SocketTx {
    link: Arc<TcpLink>,
    /// Frames; those before `sent` are on their way.
    out: Vec<u8>,
    sent: usize,
}

/// The receiving half.
struct SocketRx {
    link: Arc<TcpLink>,
    /// What has arrived; what is before `taken` was taken.
    buffer: Vec<u8>,
    taken: usize,
}

/// The endpoint of a socket that has greeted; `rest` came behind the greeting.
pub(super) fn endpoint(link: TcpLink, rest: Vec<u8>) -> Endpoint {
    let link = Arc::new(link);
    Endpoint {
        tx: Box::new(SocketTx {
            link: Arc::clone(&link),
            out: Vec::new(),
            sent: 0,
        }),
        rx: Box::new(SocketRx {
            link: Arc::clone(&link),
            buffer: rest,
            taken: 0,
        }),
        link,
    }
}

/// Empties a buffer without keeping the memory of its largest content for ever.
fn reset(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEEP);
}

impl SocketTx {
    fn push(&mut self, mut header: Header, body: &[u8]) {
        header.length = body.len() as u64;
        self.out.extend_from_slice(&header.encode());
        self.out.extend_from_slice(body);
    }

    /// The frame of an object: its graph, or why there is none.
    fn push_object(&mut self, mut header: Header, shared: bool) {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; HEADER]);
        let graphs = &self.link.graphs;
        let (addr, ty, limit) = (header.addr, header.type_id, self.link.peer_takes);
        match graphs.encode(shared, addr, ty, limit, &mut self.out) {
            Ok(()) => {
                header.length = (self.out.len() - start - HEADER) as u64;
                if let Some(place) = self.out.get_mut(start..start + HEADER) {
                    place.copy_from_slice(&header.encode());
                }
            }
            Err(why) => {
                // The call fails, and its text says why; the connection goes on.
                self.out.truncate(start);
                header.shape = Shape::Unsent;
                if shared {
                    // Nobody waits to hear that it is no longer needed.
                    header.addr = 0;
                }
                let text = Body::from_text(&why);
                self.push(header, text.bytes().unwrap_or_default());
            }
        }
    }

    fn write(&mut self) -> Result<bool, Error> {
        while let Some(rest) = self.out.get(self.sent..).filter(|r| !r.is_empty()) {
            match (&self.link.socket).write(rest) {
                Ok(0) => return Err(self.link.died()),
                Ok(n) => self.sent += n,
                Err(e) => match e.kind() {
                    ErrorKind::WouldBlock => return Ok(false),
                    ErrorKind::Interrupted => {}
                    _ => return Err(self.link.died()),
                },
            }
        }
        reset(&mut self.out);
        self.sent = 0;
        Ok(true)
    }
}

impl Tx for SocketTx {
    fn try_send(&mut self, message: &Message) -> Result<bool, Error> {
        if self.out.len() - self.sent >= WAITING_MAX && !self.write()? {
            return Ok(false);
        }
        let mut header = Header {
            length: 0,
            kind: message.kind,
            shape: Shape::Bytes,
            method: message.method,
            call: message.call,
            deadline: message.deadline,
            addr: 0,
            type_id: 0,
        };
        match &message.body {
            Body::Object { addr, type_id } if message.kind == Kind::Release => {
                // In the peer's own words; an object that it does not wait for needs none.
                let Some(theirs) = self.link.graphs.released(*addr) else {
                    return Ok(true);
                };
                header.shape = Shape::Named;
                (header.addr, header.type_id) = (theirs, *type_id);
                self.push(header, &[]);
            }
            Body::Object { addr, type_id } | Body::Shared { addr, type_id } => {
                let shared = matches!(message.body, Body::Shared { .. });
                header.shape = if shared { Shape::Shared } else { Shape::Object };
                (header.addr, header.type_id) = (*addr, *type_id);
                self.push_object(header, shared);
            }
            body => self.push(header, body.bytes().unwrap_or_default()),
        }
        if self.link.server && matches!(message.kind, Kind::Reply | Kind::Error | Kind::End) {
            self.link.graphs.answered(message.call);
        }
        // What the socket does not take now waits for `flush`.
        self.write()?;
        Ok(true)
    }

    fn flush(&mut self) -> Result<bool, Error> {
        self.write()
    }
}

impl SocketRx {
    /// The header of the next frame, when it is there, and whether all of the frame is.
    fn next(&self) -> Result<Option<(Header, bool)>, Error> {
        let here = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((header, rest)) = here.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let header = Header::decode(header, self.link.longest);
        let header = header.map_err(|why| self.link.corrupt(why))?;
        Ok(Some((header, rest.len() as u64 >= header.length)))
    }

    /// Reads what has arrived, about as much as the frame needs that has begun. `false`: nothing, or the end.
    fn read(&mut self, missing: usize) -> Result<bool, Error> {
        if self.taken > 0 {
            // Only the start of one frame is left: little, or it was moved before.
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        let start = self.buffer.len();
        // Memory is taken as bytes arrive: at most twice what is there already, whatever the header promises.
        let more = missing.clamp(READ, start.max(READ));
        self.buffer.resize(start + more, 0);
        let room = self.buffer.get_mut(start..).unwrap_or_default();
        let got = (&self.link.socket).read(room);
        self.buffer.truncate(start + got.as_ref().map_or(0, |n| *n));
        match got {
            // The end: `acknowledge` says so when all was read.
            Ok(n) => Ok(n > 0),
            Err(e) => match e.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(false),
                _ => Err(self.link.died()),
            },
        }
    }

    fn take(&mut self, header: Header) -> Message {
        let start = self.taken + HEADER;
        let end = start + header.length as usize;
        let bytes = self.buffer.get(start..end).unwrap_or_default();
        let (addr, type_id) = (header.addr, header.type_id);
        // A server's replies are released one by one; arguments are done with the call.
        let server = self.link.server;
        let arrived = |image| {
            let call = (server && header.kind == Kind::Call).then_some(header.call);
            let told = !server && header.shape != Shape::Shared && addr != 0;
            let addr = self.link.graphs.arrived(call, told.then_some(addr), image);
            Body::Object { addr, type_id }
        };
        let body = match header.shape {
            Shape::Bytes => Body::from_bytes(bytes).unwrap_or(Body::EMPTY),
            Shape::Named => Body::Object { addr, type_id },
            Shape::Object | Shape::Shared => arrived(Ok(bytes.to_vec())),
            Shape::Unsent => arrived(Err(format!(
                "its sender says: {}",
                String::from_utf8_lossy(bytes).escape_debug()
            ))),
        };
        self.taken = end;
        if self.taken == self.buffer.len() {
            reset(&mut self.buffer);
            self.taken = 0;
        }
        Message {
            kind: header.kind,
            call: header.call,
            method: header.method,
            deadline: header.deadline,
            body,
        }
    }
}

impl Rx for SocketRx {
    fn try_recv(&mut self) -> Result<Option<Message>, Error> {
        loop {
            let missing = match self.next()? {
                Some((header, true)) => return Ok(Some(self.take(header))),
                Some((header, false)) => {
                    let all = header.length as usize + HEADER;
                    all.saturating_sub(self.buffer.len() - self.taken)
                }
                None => HEADER,
            };
            if !self.read(missing)? {
                return Ok(None);
            }
        }
    }

    fn arm(&mut self) -> Result<bool, Error> {
        // What the socket holds makes it readable; only what was read already would be slept over.
        Ok(!matches!(self.next()?, Some((_, true))))
    }

    fn disarm(&mut self) {}
}
