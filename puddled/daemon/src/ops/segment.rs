//! Segments: memory that one process writes and others read.

use std::sync::Arc;

use vernal_puddled_proto::limits::MAX_SEGMENTS;
use vernal_puddled_proto::{ErrorCode, Failure, Reply, SegmentId, SegmentOf};

use super::Answer;
use super::channel::{no_conn, own_channel};
use crate::client::Client;
use crate::fail::{Outcome, no_descriptor, refuse};
use crate::inject;
use crate::rpc::{self, NotMapped, Party, Segment};
use crate::state::{Shared, State};

pub(crate) fn create(
    shared: &Arc<Shared>,
    client: &Client,
    of: SegmentOf,
    size: u64,
) -> Outcome<Answer> {
    // Asked before the memory is made, and again when it is entered.
    let name = room(shared, &shared.state(), client, of, size)?;
    let file = rpc::create(&name, size).map_err(|e| no_descriptor("a segment", &e))?;
    let copy = file
        .try_clone()
        .map_err(|e| no_descriptor("a segment", &e))?;
    inject::step();
    let mut state = shared.state();
    room(shared, &state, client, of, size)?;
    let addr = match state.rpc.addresses.allocate(size) {
        Ok(addr) => addr,
        Err(e) => return refuse(ErrorCode::NoAddress, e),
    };
    let maker = Party::new(client.id, &client.peer);
    let info = state.add_segment(of, (addr, size), maker, copy);
    drop(state);
    inject::step();
    tracing::debug!(segment = %info.segment, ?of, addr = format!("{addr:#x}"), size, client = client.id, "segment made");
    Ok(Answer {
        reply: Reply::Segment(info),
        files: vec![file],
    })
}

/// Whether `client` may have a segment of `size` bytes for `of`: the name of its memory, as `/proc` shows it.
fn room(
    shared: &Shared,
    state: &State,
    client: &Client,
    of: SegmentOf,
    size: u64,
) -> Outcome<String> {
    let name = match of {
        SegmentOf::Channel(id) => &own_channel(state, client, id)?.name,
        SegmentOf::Conn(id) => {
            let conn = state.rpc.conns.get(&id).filter(|c| c.has(client.id));
            &conn.ok_or_else(|| no_conn(id))?.name
        }
    };
    let mine = |s: &&Segment| s.maker.client == client.id;
    if state.rpc.segments_of(of).filter(mine).count() >= MAX_SEGMENTS {
        return refuse(
            ErrorCode::Limit,
            format!(
                "this client has {MAX_SEGMENTS} segments for {of:?}, and may have no more: make larger ones"
            ),
        );
    }
    descriptors(state, client)?;
    shared.check_quota(state, client.peer.uid, size)?;
    Ok(format!("vernal-rpc:{name}"))
}

/// Whether puddled can keep one more descriptor open. No user but root and puddled's own gets more than half of them.
fn descriptors(state: &State, client: &Client) -> Outcome<()> {
    let (all, most) = (state.rpc.segments.len(), state.rpc.max_segments);
    if all >= most {
        return refuse(
            ErrorCode::Limit,
            format!(
                "puddled has {all} segments, and may have no more: drop some, or raise its limit of open files"
            ),
        );
    }
    let peer = &client.peer;
    if peer.admin || all < most / 2 {
        return Ok(());
    }
    let of_user = |s: &&Segment| s.maker.info.uid == peer.uid;
    let same = state.rpc.segments.values().filter(of_user).count();
    if same < most / 2 {
        return Ok(());
    }
    refuse(
        ErrorCode::Limit,
        format!(
            "user {} has {same} segments, and no user may have more: drop some",
            peer.uid
        ),
    )
}

fn no_segment(id: SegmentId) -> Failure {
    Failure::new(
        ErrorCode::NotFound,
        format!("no segment {id} that this client may use: it was dropped, or belongs to others"),
    )
}

pub(crate) fn ready(shared: &Shared, client: &Client, id: SegmentId) -> Outcome<Answer> {
    let file = {
        let state = shared.state();
        let segment = state
            .rpc
            .segments
            .get(&id)
            .filter(|s| s.owned && s.maker.client == client.id)
            .ok_or_else(|| no_segment(id))?;
        if segment.ready {
            return refuse(
                ErrorCode::Invalid,
                format!("segment {id} is ready already: say so once"),
            );
        }
        segment.file.clone()
    };
    // Nobody but this client's thread is here with this segment: only its owner may say that it is ready.
    let sealed = rpc::seal(&file).map_err(|e| no_descriptor("the seals of a segment", &e))?;
    if let Err(NotMapped) = sealed {
        // Nobody can ever write it now.
        shared.state().drop_segment(id, client.id);
        return refuse(
            ErrorCode::Invalid,
            format!(
                "segment {id} was not mapped for writing, and is gone: map it at its home, then say that it is ready"
            ),
        );
    }
    inject::step();
    // From here on puddled itself cannot write it either.
    let file = rpc::read_only(&file).map_err(|e| no_descriptor("a segment", &e))?;
    let mut state = shared.state();
    let segment = state
        .rpc
        .segments
        .get_mut(&id)
        .ok_or_else(|| no_segment(id))?;
    segment.file = Arc::new(file);
    segment.ready = true;
    Ok(Reply::Done.into())
}

pub(crate) fn map(shared: &Shared, client: &Client, id: SegmentId) -> Outcome<Answer> {
    let party = Party::new(client.id, &client.peer);
    let mut state = shared.state();
    let segment = state
        .rpc
        .segments
        .get(&id)
        .filter(|s| may_map(&state, client, s))
        .ok_or_else(|| no_segment(id))?;
    if segment.owned && segment.maker.client == client.id {
        return refuse(
            ErrorCode::Invalid,
            format!("segment {id} is this client's own, and mapped by it already"),
        );
    }
    if !segment.ready {
        return refuse(
            ErrorCode::Busy,
            format!("the owner of segment {id} has not mapped it yet: try again when it says so"),
        );
    }
    if !segment.is_held_by(party.info.uid) {
        shared.check_quota(&state, party.info.uid, segment.info.size)?;
    }
    let (info, file) = (segment.info, segment.file.clone());
    state.add_lease(id, party);
    drop(state);
    inject::step();
    match rpc::read_only(&file) {
        Ok(file) => Ok(Answer {
            reply: Reply::Segment(info),
            files: vec![file],
        }),
        Err(e) => {
            shared.state().drop_segment(id, client.id);
            Err(no_descriptor("a segment", &e))
        }
    }
}

/// The other side of the connection may, and whoever is connected to the channel. So may root, and who could look into the owner
/// anyway because it is the same user: tools do.
fn may_map(state: &State, client: &Client, segment: &Segment) -> bool {
    let peer = &client.peer;
    let party = match segment.info.of {
        SegmentOf::Conn(id) => state.rpc.conns.get(&id).is_some_and(|c| c.has(client.id)),
        SegmentOf::Channel(id) => state.rpc.is_connected(client.id, id),
    };
    party || peer.admin || peer.uid == segment.maker.info.uid
}

pub(crate) fn drop_it(shared: &Shared, client: &Client, id: SegmentId) -> Outcome<Answer> {
    let mut state = shared.state();
    let held = state.rpc.held.get(&client.id);
    if !held.is_some_and(|h| h.segments.contains(&id)) {
        return Err(no_segment(id));
    }
    state.drop_segment(id, client.id);
    Ok(Reply::Done.into())
}
