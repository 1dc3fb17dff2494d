//! Entries come and go, and nothing is left of what has gone.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vernal_puddled_proto::{ChannelId, ConnId, RpcStatus, SegmentId, SegmentInfo, SegmentOf};
use vernal_sys::os::random_uuid;

use super::{Addresses, Channel, Conn, Held, Party, Rpc, Segment};
use crate::state::State;

impl Rpc {
    pub fn new(addresses: Addresses, max_segments: usize) -> Self {
        // Numbers of another puddled's time are not found here.
        let [a, b, c, d, ..] = random_uuid().unwrap_or([1; 16]);
        let life = u64::from(u32::from_le_bytes([a, b, c, d]) >> 1);
        Rpc {
            names: Default::default(),
            channels: Default::default(),
            conns: Default::default(),
            segments: Default::default(),
            held: Default::default(),
            addresses,
            max_segments,
            connected: 0,
            next: (life << 32) + 1,
        }
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    pub fn held(&mut self, client: u64) -> &mut Held {
        self.held.entry(client).or_default()
    }

    pub fn add_channel(
        &mut self,
        (name, owner, group, mode): (String, u32, u32, u16),
        server: Party,
        socket: OwnedFd,
    ) -> ChannelId {
        let id = ChannelId(self.number());
        self.names.insert(name.clone(), id);
        self.held(server.client).channels.insert(id);
        let channel = Channel {
            id,
            name,
            owner,
            group,
            mode,
            server,
            socket: Arc::new(socket),
            conns: Default::default(),
            segments: Default::default(),
            connected: 0,
        };
        self.channels.insert(id, channel);
        id
    }

    /// Takes a channel away; its connections stay.
    pub fn close_channel(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.remove(&id) else {
            return;
        };
        self.names.remove(&channel.name);
        if let Some(held) = self.held.get_mut(&channel.server.client) {
            held.channels.remove(&id);
        }
    }

    /// Enters a connection of `client` to the channel `id`.
    pub fn add_conn(&mut self, id: ChannelId, client: Party) -> Option<ConnId> {
        let conn = ConnId(self.number());
        let channel = self.channels.get_mut(&id)?;
        channel.conns.insert(conn);
        channel.connected += 1;
        self.connected += 1;
        let server = channel.server;
        let entry = Conn {
            id: conn,
            channel: id,
            name: channel.name.clone(),
            channel_owner: channel.owner,
            client: Some(client),
            server: Some(server),
            segments: Default::default(),
        };
        self.conns.insert(conn, entry);
        self.held(client.client).conns.insert(conn);
        self.held(server.client).conns.insert(conn);
        Some(conn)
    }

    /// Takes back a connection that its server has not heard of.
    pub fn take_conn_back(&mut self, id: ConnId) {
        let Some(conn) = self.conns.remove(&id) else {
            return;
        };
        for party in [conn.client, conn.server].into_iter().flatten() {
            if let Some(held) = self.held.get_mut(&party.client) {
                held.conns.remove(&id);
            }
        }
        if let Some(channel) = self.channels.get_mut(&conn.channel) {
            channel.conns.remove(&id);
            channel.connected -= 1;
            self.connected -= 1;
        }
    }

    /// The channel that `client` has a connection to, is it `id`?
    pub fn is_connected(&self, client: u64, id: ChannelId) -> bool {
        self.held.get(&client).is_some_and(|held| {
            held.conns.iter().any(|conn| {
                self.conns.get(conn).is_some_and(|c| {
                    c.channel == id && c.client.is_some_and(|p| p.client == client)
                })
            })
        })
    }

    /// The segments that belong to `of`.
    pub fn segments_of(&self, of: SegmentOf) -> impl Iterator<Item = &Segment> {
        let ids = match of {
            SegmentOf::Conn(id) => self.conns.get(&id).map(|c| &c.segments),
            SegmentOf::Channel(id) => self.channels.get(&id).map(|c| &c.segments),
        };
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.segments.get(id))
    }

    fn list_of(&mut self, of: SegmentOf) -> Option<&mut std::collections::BTreeSet<SegmentId>> {
        match of {
            SegmentOf::Conn(id) => self.conns.get_mut(&id).map(|c| &mut c.segments),
            SegmentOf::Channel(id) => self.channels.get_mut(&id).map(|c| &mut c.segments),
        }
    }

    pub fn status(&self) -> RpcStatus {
        let count = |n: usize| n as u64;
        let segments = || self.segments.values();
        RpcStatus {
            channels: count(self.channels.len()),
            connections: count(self.conns.len()),
            segments: count(self.segments.len()),
            segment_bytes: segments().map(|s| s.info.size).sum(),
            address_bytes: self.addresses.used(),
            leases: count(segments().map(|s| s.leases.len()).sum()),
            orphans: count(segments().filter(|s| !s.owned).count()),
            connected: self.connected,
            refused: 0,
        }
    }
}

impl Segment {
    /// Whether the user `uid` holds it.
    pub fn is_held_by(&self, uid: u32) -> bool {
        self.uids.contains_key(&uid)
    }
}

/// What changes the quota's account as well.
impl State {
    /// Enters a segment with its address; it is charged to its maker.
    pub fn add_segment(
        &mut self,
        of: SegmentOf,
        (addr, size): (u64, u64),
        maker: Party,
        file: File,
    ) -> SegmentInfo {
        let segment = SegmentId(self.rpc.number());
        let info = SegmentInfo {
            segment,
            of,
            addr,
            size,
        };
        self.charge(maker.info.uid, size);
        let entry = Segment {
            info,
            maker,
            owned: true,
            ready: false,
            leases: Default::default(),
            uids: [(maker.info.uid, 1)].into(),
            file: Arc::new(file),
        };
        self.rpc.segments.insert(segment, entry);
        self.rpc.held(maker.client).segments.insert(segment);
        if let Some(list) = self.rpc.list_of(of) {
            list.insert(segment);
        }
        info
    }

    /// Enters a lease, if there is none; it is charged to its user once, however many of that user's processes hold the segment.
    pub fn add_lease(&mut self, id: SegmentId, party: Party) {
        let Some(segment) = self.rpc.segments.get_mut(&id) else {
            return;
        };
        if segment.leases.insert(party.client, party.info).is_some() {
            return;
        }
        let holders = segment.uids.entry(party.info.uid).or_default();
        *holders += 1;
        let (first, size) = (*holders == 1, segment.info.size);
        self.rpc.held(party.client).segments.insert(id);
        if first {
            self.charge(party.info.uid, size);
        }
    }

    /// Takes away what `client` holds of a segment, and the segment when nobody holds it any more.
    pub fn drop_segment(&mut self, id: SegmentId, client: u64) {
        let Some(segment) = self.rpc.segments.get_mut(&id) else {
            return;
        };
        let size = segment.info.size;
        let mut gone = Vec::with_capacity(2);
        if segment.maker.client == client && segment.owned {
            segment.owned = false;
            gone.push(segment.maker.info.uid);
        }
        gone.extend(segment.leases.remove(&client).map(|info| info.uid));
        let mut paid = Vec::with_capacity(2);
        for uid in gone {
            let left = segment.uids.get_mut(&uid).map(|n| {
                *n -= 1;
                *n
            });
            if left == Some(0) {
                segment.uids.remove(&uid);
                paid.push(uid);
            }
        }
        let (empty, of, addr) = (segment.uids.is_empty(), segment.info.of, segment.info.addr);
        if let Some(held) = self.rpc.held.get_mut(&client) {
            held.segments.remove(&id);
        }
        for uid in paid {
            self.discharge(uid, size);
        }
        if empty {
            self.rpc.segments.remove(&id);
            if let Some(list) = self.rpc.list_of(of) {
                list.remove(&id);
            }
            self.rpc.addresses.release(addr);
        }
    }

    /// A side leaves a connection: what it owns there is given up, what it leases stays until it drops that too.
    pub fn leave_conn(&mut self, id: ConnId, client: u64) {
        let Some(conn) = self.rpc.conns.get_mut(&id) else {
            return;
        };
        for side in [&mut conn.client, &mut conn.server] {
            if side.is_some_and(|p| p.client == client) {
                *side = None;
            }
        }
        let (empty, channel) = (conn.client.is_none() && conn.server.is_none(), conn.channel);
        let segments: Vec<SegmentId> = conn.segments.iter().copied().collect();
        for segment in segments {
            let owns = |s: &Segment| s.maker.client == client && s.owned;
            if self.rpc.segments.get(&segment).is_some_and(owns) {
                self.drop_segment(segment, client);
            }
        }
        if let Some(held) = self.rpc.held.get_mut(&client) {
            held.conns.remove(&id);
        }
        if empty {
            self.rpc.conns.remove(&id);
            if let Some(channel) = self.rpc.channels.get_mut(&channel) {
                channel.conns.remove(&id);
            }
        }
    }

    /// A client has gone: all that it had goes with it. Harmless when it is done twice.
    pub fn end_rpc(&mut self, client: u64) {
        let Some(held) = self.rpc.held.remove(&client) else {
            return;
        };
        for channel in held.channels {
            self.rpc.close_channel(channel);
        }
        for conn in held.conns {
            self.leave_conn(conn, client);
        }
        for segment in held.segments {
            self.drop_segment(segment, client);
        }
        self.rpc.held.remove(&client);
    }
}
