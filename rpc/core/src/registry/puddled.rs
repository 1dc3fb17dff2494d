//! puddled as the registry.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use vernal_puddled_client::proto::{self, ErrorCode, ProcessInfo, SegmentOf};
use vernal_puddled_client::{ChannelSpec, Client, ClientError, Link, Listener};

use super::{Announcements, ChannelId, ConnGrant, ConnId, Registry, Scope, Segment, SegmentId};
use crate::Error;

/// The names and the memory of puddled. One connection for all that a process has of it: when the process dies, however it dies, the
/// kernel closes it, and puddled takes everything back.
#[derive(Debug)]
pub struct Puddled {
    path: PathBuf,
    name: String,
    client: Mutex<Option<Client>>,
}

impl Puddled {
    /// puddled at that socket; `name` is what its log calls this process.
    pub fn at(path: &Path, name: &str) -> Result<Puddled, Error> {
        let puddled = Puddled {
            path: path.to_owned(),
            name: name.to_owned(),
            client: Mutex::new(None),
        };
        puddled.ask("connecting to puddled", |_| Ok(()))?;
        Ok(puddled)
    }

    /// puddled at the socket that `$VERNAL_PUDDLED` names, or at the default one.
    pub fn new(name: &str) -> Result<Puddled, Error> {
        Self::at(&vernal_puddled_client::socket_path(), name)
    }

    /// Asks, over a new connection if the old one has ended. What was granted over the old one is not asked for again here: whoever
    /// needs it finds that it is gone.
    fn ask<R>(
        &self,
        doing: &'static str,
        f: impl Fn(&mut Client) -> Result<R, ClientError>,
    ) -> Result<R, Error> {
        self.ask_of(doing, None, f)
    }

    fn ask_of<R>(
        &self,
        doing: &'static str,
        channel: Option<&str>,
        f: impl Fn(&mut Client) -> Result<R, ClientError>,
    ) -> Result<R, Error> {
        let mut slot = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let refuse = |e: &ClientError| Error::Registry {
            doing,
            why: e.to_string(),
        };
        if let Some(client) = slot.as_mut() {
            match f(client) {
                Err(e) if is_lost(&e) => *slot = None,
                done => return done.map_err(|e| name_error(doing, channel, &e)),
            }
        }
        let mut client = Client::connect(&self.path, &self.name).map_err(|e| refuse(&e))?;
        let done = f(&mut client);
        if !matches!(&done, Err(e) if is_lost(e)) {
            *slot = Some(client);
        }
        done.map_err(|e| name_error(doing, channel, &e))
    }
}

fn is_lost(error: &ClientError) -> bool {
    matches!(error, ClientError::Closed { .. } | ClientError::Io { .. })
}

fn name_error(doing: &'static str, channel: Option<&str>, error: &ClientError) -> Error {
    let name = channel.map(str::to_owned);
    match (error.code(), name) {
        (Some(ErrorCode::Access), _) => Error::Access {
            what: format!("{doing}: {error}"),
        },
        (Some(ErrorCode::NotFound), Some(name)) => Error::NotFound { name },
        (Some(ErrorCode::Exists), Some(name)) => Error::Taken { name },
        (Some(ErrorCode::Busy), Some(name)) => Error::Backlog { name },
        _ => Error::Registry {
            doing,
            why: error.to_string(),
        },
    }
}

fn scope_of(of: SegmentOf) -> Scope {
    match of {
        SegmentOf::Conn(conn) => Scope::Conn(conn.0),
        SegmentOf::Channel(channel) => Scope::Channel(channel.0),
    }
}

fn grant(
    conn: proto::ConnId,
    channel: proto::ChannelId,
    peer: ProcessInfo,
    link: Link,
) -> ConnGrant {
    ConnGrant {
        id: conn.0,
        channel: channel.0,
        uid: peer.uid,
        gid: peer.gid,
        pid: peer.pid,
        control: link.control,
        wait: link.wait,
        wake: link.wake,
    }
}

fn segment_of(segment: vernal_puddled_client::Segment) -> Segment {
    Segment {
        id: segment.info.segment.0,
        scope: scope_of(segment.info.of),
        addr: segment.info.addr,
        size: segment.info.size,
        file: segment.file,
    }
}

impl Announcements for Listener {
    fn channel(&self) -> ChannelId {
        Listener::channel(self).0
    }

    fn event(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn next(&self) -> Result<Option<ConnGrant>, Error> {
        let arrival = self.try_accept().map_err(|e| Error::Registry {
            doing: "waiting for clients",
            why: e.to_string(),
        })?;
        Ok(arrival.map(|a| grant(a.conn, Listener::channel(self), a.client, a.link)))
    }
}

impl Registry for Puddled {
    fn open_channel(&self, name: &str, mode: u16) -> Result<Box<dyn Announcements>, Error> {
        let spec = ChannelSpec {
            name: name.to_owned(),
            owner: None,
            group: None,
            mode,
        };
        let listener = self.ask_of("opening a channel", Some(name), |client| {
            client.channel_open(&spec)
        })?;
        Ok(Box::new(listener))
    }

    fn close_channel(&self, channel: ChannelId) -> Result<(), Error> {
        let id = proto::ChannelId(channel);
        self.ask("closing a channel", |client| client.channel_close(id))
    }

    fn connect(&self, name: &str) -> Result<ConnGrant, Error> {
        let connected = self.ask_of("connecting to a channel", Some(name), |client| {
            client.connect_to(name)
        })?;
        let info = connected.info;
        Ok(grant(info.conn, info.channel, info.server, connected.link))
    }

    fn disconnect(&self, conn: ConnId) -> Result<(), Error> {
        let id = proto::ConnId(conn);
        self.ask("leaving a connection", |client| client.disconnect(id))
    }

    fn segment(&self, scope: Scope, size: u64) -> Result<Segment, Error> {
        let of = match scope {
            Scope::Conn(conn) => SegmentOf::Conn(proto::ConnId(conn)),
            Scope::Channel(channel) => SegmentOf::Channel(proto::ChannelId(channel)),
        };
        self.ask("making a segment", |client| client.segment(of, size))
            .map(segment_of)
    }

    fn ready(&self, segment: SegmentId) -> Result<(), Error> {
        let id = proto::SegmentId(segment);
        self.ask("sealing a segment", |client| client.segment_ready(id))
    }

    fn map(&self, segment: SegmentId) -> Result<Segment, Error> {
        let id = proto::SegmentId(segment);
        self.ask("mapping a segment", |client| client.segment_map(id))
            .map(segment_of)
    }

    fn drop_segment(&self, segment: SegmentId) -> Result<(), Error> {
        let id = proto::SegmentId(segment);
        self.ask("giving a segment up", |client| client.segment_drop(id))
    }
}
