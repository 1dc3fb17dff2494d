//! How two preloaded sides find each other, without a byte on the socket that a side without the shim would have to understand.
//!
//! ```text
//!   server                                             client
//!   listen(path): also listens on an abstract
//!   socket named after the file's device and inode
//!                                                      connect(path): connects to that one first (none: no shim there),
//!                                          <── hello ─ sends a nonce and its segment,
//!                                                      binds the socket to a name with the nonce, connects it
//!   accept(): the peer's name has a nonce: it takes
//!   the hello with that nonce, from the same process
//!   first I/O on the connection            ─ welcome ─> with its segment; from here on bytes may go through rings
//! ```
//!
//! The side connection is dropped then. Whoever finds something missing drops it at once, and the connection stays what it was.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect, listen, recvmsg, sendmsg, socket_with,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::lock::Locked;
use crate::segment::{MAGIC, Segment};

/// Version of the greetings, the segments and what the rings carry.
const VERSION: u32 = 1;
/// Hellos that wait for their connections; more than that come from clients that do not connect.
const PENDING: usize = 256;
/// First bytes of the name of a client's socket.
const NAME: &[u8] = b"vernal-shim/c/";
/// Internal descriptors are kept away from those of the program.
const HIGH: i32 = 512;

/// Pairs a hello with a connection.
pub type Nonce = [u8; 16];

/// What both greetings say.
#[derive(Debug)]
pub struct Greeting {
    nonce: Nonce,
    capacity: u64,
    file: OwnedFd,
}

impl Greeting {
    /// The sender's segment.
    pub fn segment(&self) -> Result<Segment, Errno> {
        Segment::peer(&self.file, self.capacity)
    }
}

/// Sends a greeting.
pub fn send(
    side: impl AsFd,
    nonce: &Nonce,
    capacity: usize,
    file: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let mut bytes = [0; 40];
    let parts = [
        &MAGIC.to_le_bytes()[..],
        &u64::from(VERSION).to_le_bytes(),
        &(capacity as u64).to_le_bytes(),
        nonce,
    ];
    bytes
        .iter_mut()
        .zip(parts.into_iter().flatten())
        .for_each(|(to, from)| *to = *from);
    let files = [file];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&files));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(side, &[IoSlice::new(&bytes)], &mut ancillary, flags).map(drop)
}

/// Receives a greeting, if there is one.
pub fn receive(side: impl AsFd) -> Result<Greeting, Errno> {
    let mut bytes = [0; 41];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(
        side,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        flags,
    )?;
    let file = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    let word = |at: usize| {
        let word: Option<[u8; 8]> = bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
        word.map_or(0, u64::from_le_bytes)
    };
    let nonce = bytes.get(24..40).and_then(|b| b.try_into().ok());
    match (file, nonce) {
        (Some(file), Some(nonce))
            if got.bytes == 40 && word(0) == MAGIC && word(8) == u64::from(VERSION) =>
        {
            Ok(Greeting {
                nonce,
                capacity: word(16),
                file,
            })
        }
        _ => Err(Errno::PROTO),
    }
}

/// Moves a descriptor out of the way of those that the program gets: it may expect the lowest numbers.
pub fn move_away(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(&fd, HIGH)
}

fn side_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    move_away(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// The abstract name beside a socket's file.
fn side_name(path: &Path) -> Result<SocketAddrUnix, Errno> {
    let file = std::fs::metadata(path).map_err(|_| Errno::NOENT)?;
    let name = format!("vernal-shim/s/{:x}:{:x}", file.dev(), file.ino());
    SocketAddrUnix::new_abstract_name(name.as_bytes())
}

/// The client's side of a greeting that waits for its answer.
#[derive(Debug)]
pub struct Called {
    /// Where the welcome will come.
    pub side: OwnedFd,
    /// This side's segment.
    pub own: Segment,
}

/// Asks a server with a shim for shared memory: before the socket connects. Binds the socket.
pub fn call(socket: BorrowedFd<'_>, path: &Path, ring: usize) -> Result<Called, Errno> {
    let name = side_name(path)?;
    let side = side_socket()?;
    connect(&side, &name)?;
    let mut nonce = Nonce::default();
    let filled = rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())?;
    if filled != nonce.len() {
        return Err(Errno::AGAIN);
    }
    let (own, file) = Segment::own(ring)?;
    send(&side, &nonce, ring, file.as_fd())?;
    let mut bound = NAME.to_vec();
    bound.extend(
        nonce
            .iter()
            .flat_map(|byte| format!("{byte:02x}").into_bytes()),
    );
    bind(socket, &SocketAddrUnix::new_abstract_name(&bound)?)?;
    Ok(Called { side, own })
}

/// Whether both sockets lead to one process: others can listen under an abstract name.
pub fn same_peer(a: impl AsFd, b: impl AsFd) -> bool {
    match (socket_peercred(a), socket_peercred(b)) {
        (Ok(a), Ok(b)) => a.pid == b.pid && a.uid == b.uid,
        _ => false,
    }
}

/// The nonce in a socket's name.
pub fn nonce_in(name: &[u8]) -> Option<Nonce> {
    let digits = name.strip_prefix(NAME)?;
    let mut nonce = Nonce::default();
    if digits.len() != 2 * nonce.len() {
        return None;
    }
    for (byte, pair) in nonce.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(nonce)
}

/// Where clients with a shim say hello to a server.
#[derive(Debug)]
pub struct Listener {
    side: OwnedFd,
    pending: Locked<Vec<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    side: OwnedFd,
    hello: Option<Greeting>,
}

impl Listener {
    /// Beside the socket at `path`.
    pub fn new(path: &Path) -> Result<Listener, Errno> {
        let side = side_socket()?;
        bind(&side, &side_name(path)?)?;
        listen(&side, 128)?;
        Ok(Listener {
            side,
            pending: Locked::new(Vec::new()),
        })
    }

    /// Keeps the program from closing it.
    pub fn announce(&self) {
        crate::table::insert_internal(&self.side);
    }

    /// The lock of the list, for `fork`.
    pub fn lock(&self) -> &crate::lock::Lock {
        self.pending.raw()
    }

    /// The side connection and the hello that belong to an accepted connection.
    pub fn find(&self, accepted: BorrowedFd<'_>, nonce: &Nonce) -> Option<(OwnedFd, Greeting)> {
        let mut pending = self.pending.lock();
        while let Ok(side) = accept_with(&self.side, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            let Ok(side) = move_away(side) else { break };
            if pending.len() >= PENDING {
                pending.remove(0);
            }
            pending.push(Waiting { side, hello: None });
        }
        pending.retain_mut(|waiting| {
            if waiting.hello.is_none() {
                match receive(&waiting.side) {
                    Ok(hello) => waiting.hello = Some(hello),
                    // Its client has not sent yet.
                    Err(Errno::AGAIN) => {}
                    Err(_) => return false,
                }
            }
            true
        });
        let at = pending.iter().position(|waiting| {
            let named = waiting.hello.as_ref().is_some_and(|h| h.nonce == *nonce);
            named && same_peer(&waiting.side, accepted)
        })?;
        let found = pending.swap_remove(at);
        Some((found.side, found.hello?))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        crate::table::remove_internal(&self.side);
    }
}
