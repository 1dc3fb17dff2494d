//! Channels and connections: who serves a name, and who gets through to it.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use vernal_puddled_proto::limits::{
    ARRIVALS_BYTES, LINK_FDS, MAX_CHANNELS_PER_USER, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_USER,
};
use vernal_puddled_proto::{
    Announce, ChannelId, ConnId, ConnInfo, ErrorCode, Failure, Reply, VERSION_MAX,
};

use super::Answer;
use crate::client::Client;
use crate::fail::{Outcome, no_descriptor, refuse};
use crate::inject;
use crate::rpc::{Channel, Party};
use crate::state::{Shared, State};

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

pub(crate) fn open(
    shared: &Arc<Shared>,
    client: &Client,
    (name, owner, group, mode): (String, Option<u32>, Option<u32>, u16),
) -> Outcome<Answer> {
    let peer = &client.peer;
    let (owner, group) = (owner.unwrap_or(peer.uid), group.unwrap_or(peer.gid));
    if !peer.admin && (owner != peer.uid || !peer.in_group(group)) {
        return refuse(
            ErrorCode::Access,
            format!(
                "user {} cannot open channel {name:?} for user {owner} and group {group}: only root can give channels away; a user can choose one of its own groups",
                peer.uid
            ),
        );
    }
    let made = pair().and_then(|(ours, theirs)| {
        // What waits for a server is bounded by this buffer. The kernel doubles what it is told.
        set_socket_send_buffer_size(&ours, ARRIVALS_BYTES / 2)?;
        Ok((ours, theirs))
    });
    let (ours, theirs) = made.map_err(|e| no_descriptor("a channel", &e))?;
    let mut state = shared.state();
    if let Some(taken) = live(&mut state, &name) {
        return refuse(
            ErrorCode::Exists,
            format!(
                "channel {name:?} is served by process {} of user {}: end that process, or choose another name",
                taken.server.info.pid, taken.server.info.uid
            ),
        );
    }
    let same = |c: &&Channel| c.server.info.uid == peer.uid;
    if !peer.admin && state.rpc.channels.values().filter(same).count() >= MAX_CHANNELS_PER_USER {
        return refuse(
            ErrorCode::Limit,
            format!(
                "the processes of user {} serve {MAX_CHANNELS_PER_USER} channels, and no user may have more: close some",
                peer.uid
            ),
        );
    }
    let server = Party::new(client.id, peer);
    let id = state
        .rpc
        .add_channel((name.clone(), owner, group, mode), server, ours);
    drop(state);
    inject::step();
    tracing::info!(channel = name, id = %id, owner, group, mode = format!("{mode:04o}"), client = client.id, pid = peer.pid, "channel opened");
    Ok(Answer {
        reply: Reply::Channel(id),
        files: vec![File::from(theirs)],
    })
}

/// The channel called `name`, if its server lives. A name is free as soon as the kernel has closed the server's socket, even if the
/// thread of that connection has not seen it yet.
fn live<'s>(state: &'s mut State, name: &str) -> Option<&'s Channel> {
    let id = *state.rpc.names.get(name)?;
    let server = state.rpc.channels.get(&id)?.server.client;
    if state.is_gone(server) {
        state.end_rpc(server);
    }
    state.rpc.channels.get(&id)
}

pub(crate) fn close(shared: &Shared, client: &Client, id: ChannelId) -> Outcome<Answer> {
    let mut state = shared.state();
    let name = own_channel(&state, client, id)?.name.clone();
    state.rpc.close_channel(id);
    drop(state);
    tracing::info!(channel = name, id = %id, client = client.id, "channel closed");
    Ok(Reply::Done.into())
}

/// The channel `id`, which `client` must serve.
pub(super) fn own_channel<'s>(
    state: &'s State,
    client: &Client,
    id: ChannelId,
) -> Outcome<&'s Channel> {
    state
        .rpc
        .channels
        .get(&id)
        .filter(|c| c.server.client == client.id)
        .ok_or_else(|| {
            Failure::new(
                ErrorCode::Invalid,
                format!("this client serves no channel {id}: open one first"),
            )
        })
}

fn no_channel(name: &str) -> Failure {
    Failure::new(
        ErrorCode::NotFound,
        format!(
            "no channel {name:?} that you may see: `vernal rpc ls` lists them; start its server"
        ),
    )
}

/// The descriptors of the two sides of a connection. puddled keeps none of them: the end of a process must be the hang-up of its
/// sockets.
struct Links {
    client: [OwnedFd; LINK_FDS],
    server: [OwnedFd; LINK_FDS],
}

fn links() -> io::Result<Links> {
    let (client, server) = pair()?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
    let (client_wait, client_wake) = pipe()?;
    let (server_wait, server_wake) = pipe()?;
    Ok(Links {
        client: [client, client_wait, server_wake],
        server: [server, server_wait, client_wake],
    })
}

pub(crate) fn connect(shared: &Shared, client: &Client, name: &str) -> Outcome<Answer> {
    let peer = &client.peer;
    let links = links().map_err(|e| no_descriptor("a connection", &e))?;
    let mut state = shared.state();
    let channel = live(&mut state, name)
        .filter(|c| peer.may_see_channel(c))
        .ok_or_else(|| no_channel(name))?;
    if !peer.may_connect(channel) {
        return refuse(
            ErrorCode::Access,
            format!(
                "user {} may not connect to channel {name:?}, which belongs to user {} and group {} with mode {:04o}: its owner can open it with another mode",
                peer.uid, channel.owner, channel.group, channel.mode
            ),
        );
    }
    let (id, server, socket) = (channel.id, channel.server, channel.socket.clone());
    if server.client == client.id {
        return refuse(
            ErrorCode::Invalid,
            format!(
                "channel {name:?} is served over this very connection to puddled: connect to it over another one"
            ),
        );
    }
    room(&state, client, id)?;
    let party = Party::new(client.id, peer);
    let conn = state
        .rpc
        .add_conn(id, party)
        .ok_or_else(|| no_channel(name))?;
    inject::step();
    // Announced under the lock: the server cannot ask for a connection that is not in the table, nor for one that was taken back.
    match announce(&socket, conn, party, &links.server) {
        Ok(()) => {}
        Err(Errno::AGAIN | Errno::NOBUFS | Errno::TOOMANYREFS) => {
            state.rpc.take_conn_back(conn);
            return refuse(
                ErrorCode::Busy,
                format!(
                    "the server of channel {name:?}, process {}, has not accepted its last clients yet: try again",
                    server.info.pid
                ),
            );
        }
        Err(Errno::PIPE | Errno::CONNRESET) => {
            // The server has closed the channel's socket, and serves nobody there any more.
            state.rpc.take_conn_back(conn);
            state.rpc.close_channel(id);
            return Err(no_channel(name));
        }
        Err(e) => {
            state.rpc.take_conn_back(conn);
            return Err(no_descriptor("a connection", &e.into()));
        }
    }
    drop(state);
    inject::step();
    tracing::debug!(channel = name, conn = %conn, client = client.id, pid = peer.pid, uid = peer.uid, server = server.info.pid, "connected");
    Ok(Answer {
        reply: Reply::Connected(ConnInfo {
            conn,
            channel: id,
            server: server.info,
        }),
        files: links.client.into_iter().map(File::from).collect(),
    })
}

/// Whether the channel has room for one more connection of this client's user.
fn room(state: &State, client: &Client, id: ChannelId) -> Outcome<()> {
    let Some(channel) = state.rpc.channels.get(&id) else {
        return Ok(());
    };
    let (name, all) = (&channel.name, channel.conns.len());
    if all >= MAX_CONNECTIONS {
        return refuse(
            ErrorCode::Limit,
            format!(
                "channel {name:?} has {all} connections, and may have no more: disconnect some"
            ),
        );
    }
    let peer = &client.peer;
    // Counted only where it can matter.
    if all < MAX_CONNECTIONS_PER_USER || peer.admin || peer.uid == channel.owner {
        return Ok(());
    }
    let of_user = |conn: &&ConnId| {
        let conn = state.rpc.conns.get(conn);
        conn.and_then(|c| c.client)
            .is_some_and(|p| p.info.uid == peer.uid)
    };
    if channel.conns.iter().filter(of_user).count() < MAX_CONNECTIONS_PER_USER {
        return Ok(());
    }
    refuse(
        ErrorCode::Limit,
        format!(
            "user {} has {MAX_CONNECTIONS_PER_USER} connections to channel {name:?}, and no user may have more: disconnect some",
            peer.uid
        ),
    )
}

/// Tells the server. It does not wait: a server that does not accept delays nobody but its own clients.
fn announce(
    socket: &OwnedFd,
    conn: ConnId,
    client: Party,
    link: &[OwnedFd; LINK_FDS],
) -> Result<(), Errno> {
    let announce = Announce::Client {
        conn,
        client: client.info,
    };
    let packet = announce.encode(VERSION_MAX).map_err(|_| Errno::INVAL)?;
    let fds = link.each_ref().map(|fd| fd.as_fd());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LINK_FDS))];
    loop {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Errno::INVAL);
        }
        match sendmsg(
            socket,
            &[IoSlice::new(&packet)],
            &mut control,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        ) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}

pub(crate) fn disconnect(shared: &Shared, client: &Client, id: ConnId) -> Outcome<Answer> {
    let mut state = shared.state();
    if !state.rpc.conns.get(&id).is_some_and(|c| c.has(client.id)) {
        return Err(no_conn(id));
    }
    state.leave_conn(id, client.id);
    drop(state);
    tracing::debug!(conn = %id, client = client.id, "disconnected");
    Ok(Reply::Done.into())
}

pub(super) fn no_conn(id: ConnId) -> Failure {
    Failure::new(
        ErrorCode::Invalid,
        format!("this client is no side of a connection {id}: connect first"),
    )
}
