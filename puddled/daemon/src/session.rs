//! One connection: Hello, then requests, one at a time, until it ends.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use vernal_puddled_proto::limits::{MAX_FRAME, MAX_PUDDLES};
use vernal_puddled_proto::{
    ErrorCode, Failure, Hello, ProtoError, Reply, Request, Welcome, choose_version,
};

use crate::access::Peer;
use crate::client::Client;
use crate::ops::{self, Answer};
use crate::state::Shared;

/// How long a client may take to say Hello, and to make room for a reply.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a connection ends.
enum End {
    /// The client closed it, or it broke.
    Closed,
    /// The client sent what is no message.
    Protocol(ProtoError),
}

/// Serves one connection.
pub(crate) fn serve(shared: &Arc<Shared>, socket: &OwnedFd, client: &mut Client) {
    let end = run(shared, socket, client);
    if let Err(End::Protocol(e)) = end {
        shared.counters.protocol_error();
        tracing::warn!(client = client.id, pid = client.peer.pid, uid = client.peer.uid, error = %e, "protocol error; connection ended");
    }
    tracing::debug!(client = client.id, "connection ended");
}

fn run(shared: &Arc<Shared>, socket: &OwnedFd, client: &mut Client) -> Result<(), End> {
    // Both only bound this connection's own thread.
    let set = |which, time| set_socket_timeout(socket, which, time).map_err(|_| End::Closed);
    set(Timeout::Recv, Some(PATIENCE))?;
    set(Timeout::Send, Some(PATIENCE))?;
    let mut buf = vec![0; MAX_FRAME].into_boxed_slice();
    let version = hello(socket, client, &mut buf)?;
    set(Timeout::Recv, None)?;
    loop {
        let packet = receive(socket, &mut buf)?;
        if packet.is_empty() {
            return Ok(());
        }
        let request = match Request::decode(version, packet) {
            Ok(request) => request,
            Err(e) => {
                // Say why, then end it: what follows would be no better.
                let _ = reply(socket, version, Reply::Failed(e.clone().into()).into());
                return Err(End::Protocol(e));
            }
        };
        let (kind, rpc) = (request.kind(), request.is_rpc());
        let answered = shared.work(|| {
            if shared.stopping.load(Ordering::SeqCst) {
                return Err(Failure::new(
                    ErrorCode::ShuttingDown,
                    "puddled is shutting down: try again when it runs",
                ));
            }
            ops::answer(shared, client, request)
        });
        shared.counters.requested(answered.is_err());
        if rpc && answered.is_err() {
            shared.counters.refused_rpc();
        }
        let answer = answered.unwrap_or_else(|failure| {
            let (id, pid, uid) = (client.id, client.peer.pid, client.peer.uid);
            if rpc && failure.code == ErrorCode::Busy {
                // Clients of a slow server ask again and again.
                tracing::debug!(client = id, pid, uid, request = kind, text = failure.text, "busy");
            } else {
                tracing::info!(client = id, pid, uid, request = kind, code = ?failure.code, text = failure.text, "refused");
            }
            Reply::Failed(failure).into()
        });
        reply(socket, version, answer)?;
    }
}

fn hello(socket: &OwnedFd, client: &Client, buf: &mut [u8]) -> Result<u8, End> {
    let packet = receive(socket, buf)?;
    if packet.is_empty() {
        return Err(End::Closed);
    }
    let chosen = Hello::decode(packet).and_then(|hello| {
        let version = choose_version(&hello)?;
        tracing::debug!(
            client = client.id,
            pid = client.peer.pid,
            uid = client.peer.uid,
            name = hello.client,
            version,
            "client connected"
        );
        Ok(version)
    });
    match chosen {
        Ok(version) => {
            let welcome = Welcome {
                version,
                server: concat!("puddled ", env!("CARGO_PKG_VERSION")).to_owned(),
                client: client.id,
            };
            let packet = Welcome::encode(&Ok(welcome)).map_err(End::Protocol)?;
            send(socket, &packet, &[])?;
            Ok(version)
        }
        Err(e) => {
            refuse(socket, e.clone().into());
            Err(End::Protocol(e))
        }
    }
}

/// Tells a connection that has not said Hello why it ends.
pub(crate) fn refuse(socket: &OwnedFd, failure: Failure) {
    if let Ok(packet) = Welcome::encode(&Err(failure)) {
        let _ = sendmsg(
            socket,
            &[IoSlice::new(&packet)],
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        );
    }
}

/// The next packet; empty at the end. Descriptors that a client sends along are dropped by the kernel: there is no room for them.
fn receive<'b>(socket: &OwnedFd, buf: &'b mut [u8]) -> Result<&'b [u8], End> {
    let received = loop {
        let mut slices = [IoSliceMut::new(buf)];
        match recvmsg(
            socket,
            &mut slices,
            &mut RecvAncillaryBuffer::default(),
            RecvFlags::TRUNC,
        ) {
            Err(Errno::INTR) => {}
            // A timeout before Hello is an end like any other.
            Err(_) => return Err(End::Closed),
            Ok(received) => break received,
        }
    };
    if received.flags.contains(ReturnFlags::TRUNC) || received.bytes > buf.len() {
        return Err(End::Protocol(ProtoError::Oversized {
            len: received.bytes,
            limit: MAX_FRAME,
        }));
    }
    Ok(buf.get(..received.bytes).unwrap_or_default())
}

fn reply(socket: &OwnedFd, version: u8, answer: Answer) -> Result<(), End> {
    let packet = match answer.reply.encode(version) {
        Ok(packet) => packet,
        Err(e) => {
            // A reply of ours that is too large is a bug; the client is told instead of left waiting.
            tracing::error!(error = %e, "a reply could not be encoded");
            let failure = Failure::new(ErrorCode::Internal, e);
            return match Reply::Failed(failure).encode(version) {
                Ok(packet) => send(socket, &packet, &[]),
                Err(e) => Err(End::Protocol(e)),
            };
        }
    };
    let fds: Vec<BorrowedFd<'_>> = answer.files.iter().map(|f| f.as_fd()).collect();
    send(socket, &packet, &fds)
}

fn send(socket: &OwnedFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), End> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PUDDLES))];
    loop {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(End::Closed);
        }
        match sendmsg(
            socket,
            &[IoSlice::new(packet)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            // A client that takes no replies for so long is gone for us; what it holds is settled.
            Err(_) => return Err(End::Closed),
        }
    }
}

/// Who is at the other side.
pub(crate) fn peer(socket: &OwnedFd) -> std::io::Result<Peer> {
    Peer::of(socket)
}
