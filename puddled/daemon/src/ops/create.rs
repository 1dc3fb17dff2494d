//! Create: an empty pool with one puddle.

use std::sync::Arc;

use vernal_puddled_proto::Reply;

use super::Answer;
use super::stage::{Spec, Staged};
use crate::client::Client;
use crate::fail::{Outcome, io as io_failure, not_found};
use crate::page;
use crate::state::Shared;

pub(crate) fn create(shared: &Arc<Shared>, client: &Client, spec: Spec) -> Outcome<Answer> {
    let staged = Staged::reserve(shared, &client.peer, spec)?;
    let files = staged.make_puddles(false)?;
    if let Some(root) = files.first() {
        page::format(root, &staged.record)?;
        root.sync_all()
            .map_err(|e| io_failure("writing", &staged.path(0), &e))?;
    }
    drop(files);
    let record = staged.publish()?;
    tracing::info!(pool = %record.name, id = %record.id, owner = record.owner, kind = ?record.kind, bytes = record.bytes(), client = client.id, "pool created");
    let state = shared.state();
    let pool = state.pools.get(&record.id);
    pool.map(|p| Reply::Pool(p.stat()).into())
        .ok_or_else(|| not_found(&record.name))
}
