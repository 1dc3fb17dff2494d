//! The requests.

mod admin;
mod channel;
mod create;
mod grow;
mod import;
mod list;
mod open;
mod remove;
mod rpc_list;
mod segment;
pub(crate) mod stage;

use std::fs::File;
use std::sync::Arc;

use vernal_abi::puddle::{PUDDLE_MIN, is_puddle_size};
use vernal_puddled_proto::{ErrorCode, JournalInfo, LogInfo, Reply, Request, limits};

use crate::client::Client;
use crate::fail::{Outcome, refuse};
use crate::records::{PoolRecord, PuddleRecord};
use crate::state::Shared;

pub(crate) use list::status;
pub(crate) use open::{end_reads, set_clean};
pub(crate) use remove::finish as finish_removal;
pub(crate) use rpc_list::status as rpc_status;

/// Removes the files of a puddle that is no longer listed, then gives back what it held.
pub(crate) fn grow_delete(
    shared: &Shared,
    record: &PoolRecord,
    puddle: &PuddleRecord,
) -> Outcome<()> {
    grow::delete(shared, record.id, puddle)?;
    let mut state = shared.state();
    let owner = state.pools.get(&record.id).map(|p| p.record.owner);
    state.give_back(owner.unwrap_or(record.owner), record.kind, puddle);
    Ok(())
}

/// A reply and the descriptors that go with it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub reply: Reply,
    pub files: Vec<File>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Answer {
            reply,
            files: Vec::new(),
        }
    }
}

/// Does what `request` asks for.
pub(crate) fn answer(
    shared: &Arc<Shared>,
    client: &mut Client,
    request: Request,
) -> Outcome<Answer> {
    match request {
        Request::Create {
            name,
            owner,
            group,
            mode,
            kind,
            size,
        } => {
            let spec = stage::Spec {
                name,
                owner,
                group,
                mode,
                kind,
                sizes: vec![puddle_size(size)?],
            };
            create::create(shared, client, spec)
        }
        Request::Open { name, access } => open::open(shared, client, &name, access),
        Request::Grow { pool, size } => grow::grow(shared, client, pool, puddle_size(size)?),
        Request::Shrink { pool, puddle } => grow::shrink(shared, client, pool, puddle),
        Request::Journal => {
            let (id, path, file) = client.journal(shared)?;
            Ok(Answer {
                reply: Reply::Journal(JournalInfo {
                    id,
                    name: text(&path),
                    max_len: limits::MAX_JOURNAL,
                }),
                files: vec![file],
            })
        }
        Request::Refresh { pool } => open::refresh(shared, client, pool),
        Request::Log { size, log } => {
            if client.grant.logs.len() >= limits::MAX_LOGS {
                return refuse(
                    ErrorCode::Limit,
                    format!(
                        "this client has {} log files, and no client may have more: use those",
                        limits::MAX_LOGS
                    ),
                );
            }
            let size = size.max(limits::MIN_LOG).next_multiple_of(4096);
            let (record, path, file) = client.log(shared, size, log)?;
            Ok(Answer {
                reply: Reply::Log(LogInfo {
                    id: record.id,
                    log: record.log,
                    position: record.position,
                    space: client.log_space().into(),
                    size,
                    name: text(&path),
                }),
                files: vec![file],
            })
        }
        Request::Allocator { pool } => crate::allocator::give(shared, client, pool),
        Request::Close { pool } => open::close(shared, client, pool),
        Request::Remove { name } => remove::remove(shared, client, &name),
        Request::List { after, limit } => list::list(shared, client, after, limit),
        Request::Stat { name } => list::stat(shared, client, &name),
        Request::SetMode { name, mode } => admin::set_mode(shared, client, &name, mode),
        Request::Chown { name, owner, group } => admin::chown(shared, client, &name, owner, group),
        Request::QuotaGet { uid } => admin::quota(shared, client, uid),
        Request::QuotaSet { uid, bytes } => admin::set_quota(shared, client, uid, bytes),
        Request::Accept { name } => admin::accept(shared, client, &name),
        Request::ImportBegin {
            name,
            owner,
            group,
            mode,
            kind,
            puddles,
            sparse,
        } => {
            let spec = stage::Spec {
                name,
                owner,
                group,
                mode,
                kind,
                sizes: puddles.iter().map(|p| p.size).collect(),
            };
            import::begin(shared, client, spec, sparse)
        }
        Request::CloneBegin { from, name, mode } => {
            import::clone(shared, client, &from, name, mode)
        }
        Request::ImportFinish { import } => import::finish(shared, client, import),
        Request::ImportAbort { import } => import::abort(client, import),
        Request::Metrics => Ok(Reply::Metrics(crate::metrics::render(shared)).into()),
        Request::Status => Ok(Reply::Status(list::status(shared)).into()),
        Request::ChannelOpen {
            name,
            owner,
            group,
            mode,
        } => channel::open(shared, client, (name, owner, group, mode)),
        Request::ChannelClose { channel } => channel::close(shared, client, channel),
        Request::Connect { name } => channel::connect(shared, client, &name),
        Request::Disconnect { conn } => channel::disconnect(shared, client, conn),
        Request::Segment { of, size } => segment::create(shared, client, of, size),
        Request::SegmentReady { segment } => segment::ready(shared, client, segment),
        Request::SegmentMap { segment } => segment::map(shared, client, segment),
        Request::SegmentDrop { segment } => segment::drop_it(shared, client, segment),
        Request::ChannelList { after, limit } => rpc_list::channels(shared, client, after, limit),
        Request::ConnList { after, limit } => rpc_list::conns(shared, client, after, limit),
        Request::SegmentList { after, limit } => rpc_list::segments(shared, client, after, limit),
        Request::RpcStatus => Ok(Reply::RpcStatus(rpc_list::status(shared)).into()),
        other => refuse(
            ErrorCode::Protocol,
            format!(
                "puddled does not know the request {}: update it",
                other.kind()
            ),
        ),
    }
}

/// The size of the puddle that holds `size` bytes.
fn puddle_size(size: u64) -> Outcome<u64> {
    match size.max(PUDDLE_MIN).checked_next_power_of_two() {
        Some(size) if is_puddle_size(size) => Ok(size),
        _ => refuse(
            ErrorCode::Limit,
            format!("a puddle for {size} bytes: the largest has 256 GiB"),
        ),
    }
}

fn text(path: &std::path::Path) -> String {
    let mut text = path.display().to_string();
    if text.len() > limits::MAX_TEXT {
        text = "a file of puddled".to_owned();
    }
    text
}
