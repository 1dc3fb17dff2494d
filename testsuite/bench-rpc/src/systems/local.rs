//! No other process: the work of a call alone, and the store in the client's own memory.

use crate::Result;
use crate::cooldb::{Depth, Json, Store, fold};
use crate::payload;
use crate::worker::{Caller, Serving};

/// There is nothing to serve.
pub fn serve(serving: &'static Serving) -> Result<()> {
    serving.ready();
    Ok(())
}

/// The client and its own server.
#[derive(Default)]
pub struct Local {
    request: Vec<u8>,
    reply: Vec<u8>,
    store: Store<Box<Json>>,
}

impl Caller for Local {
    fn call(&mut self, size: usize, seed: u64) -> Result<u64> {
        self.request.resize(size, 0);
        self.reply.resize(size, 0);
        payload::fill(&mut self.request, seed);
        payload::answer(std::hint::black_box(&self.request), &mut self.reply);
        Ok(payload::sum(std::hint::black_box(&self.reply)))
    }

    fn insert(&mut self, document: &[u8]) -> Result<u64> {
        Ok(self.store.insert(Box::new(Json::decode(document)?)))
    }

    fn search(&mut self, field: &str, value: i64, depth: Depth) -> Result<u64> {
        Ok(fold(self.store.search(field, value).map(|d| &**d), depth))
    }
}
