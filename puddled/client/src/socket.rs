//! Packets with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg,
    sendmsg, socket_with,
};
use vernal_puddled_proto::ProtoError;
use vernal_puddled_proto::limits::{MAX_FRAME, MAX_PUDDLES};

use crate::error::ClientError;

/// The environment variable that names puddled's socket.
pub const SOCKET_VARIABLE: &str = "VERNAL_PUDDLED";
/// Where puddled listens when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/vernal/puddled.sock";

/// The socket to connect to: `$VERNAL_PUDDLED`, else [`DEFAULT_SOCKET`].
pub fn socket_path() -> PathBuf {
    std::env::var_os(SOCKET_VARIABLE)
        .filter(|v| !v.is_empty())
        .map_or_else(|| PathBuf::from(DEFAULT_SOCKET), PathBuf::from)
}

pub(crate) fn open(path: &Path) -> Result<OwnedFd, ClientError> {
    let fail = |e: Errno| ClientError::Connect {
        path: path.to_owned(),
        source: e.into(),
    };
    let addr = SocketAddrUnix::new(path).map_err(fail)?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(fail)?;
    loop {
        match connect(&socket, &addr) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            Err(e) => return Err(fail(e)),
        }
    }
}

pub(crate) fn send(socket: &OwnedFd, packet: &[u8]) -> Result<(), Errno> {
    loop {
        let done = sendmsg(
            socket,
            &[IoSlice::new(packet)],
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL,
        );
        match done {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Receives one packet into `buf` and the descriptors with it. Length 0: the other side has closed.
pub(crate) fn receive(
    socket: &OwnedFd,
    buf: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), ClientError> {
    receive_with(socket, buf, RecvFlags::empty())
}

/// The same, without waiting: nothing when nothing is there.
pub(crate) fn try_receive(
    socket: &OwnedFd,
    buf: &mut [u8],
) -> Result<Option<(usize, Vec<OwnedFd>)>, ClientError> {
    match receive_with(socket, buf, RecvFlags::DONTWAIT) {
        Err(ClientError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn receive_with(
    socket: &OwnedFd,
    buf: &mut [u8],
    flags: RecvFlags,
) -> Result<(usize, Vec<OwnedFd>), ClientError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PUDDLES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut slices = [IoSliceMut::new(buf)];
        match recvmsg(
            socket,
            &mut slices,
            &mut control,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC | flags,
        ) {
            Err(Errno::INTR) => {}
            other => break other.map_err(|e| ClientError::io("reading", e))?,
        }
    };
    // The descriptors are taken before anything can return, so that none is left open.
    let fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|m| match m {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if received.flags.contains(ReturnFlags::TRUNC) || received.bytes > buf.len() {
        return Err(ClientError::Proto(ProtoError::Oversized {
            len: received.bytes,
            limit: MAX_FRAME,
        }));
    }
    Ok((received.bytes, fds))
}
