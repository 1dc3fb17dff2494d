//! Copies of whole graphs from one pool into another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use vernal_format::puddle::PAGE_BYTES;
use vernal_format::types::TypeDesc;
use vernal_heap::walk::{Budget, CopyError, CopyTarget, External, Plans, copy};
use vernal_heap::{HeapError, Object, PoolMemory, TYPE_FIRST, TYPE_RAW};

use crate::pool::Inner;
use crate::{Error, registry, tx};

/// The pool that the copies go to.
struct Destination {
    pool: Arc<Inner>,
    /// Type indices of the source, and what they are here: index and alignment.
    types: HashMap<u32, (u32, u64)>,
    made: Vec<u64>,
}

impl Destination {
    fn handle(&self) -> usize {
        Arc::as_ptr(&self.pool) as usize
    }

    fn type_of(&mut self, object: &Object, desc: Option<&TypeDesc>) -> Result<(u32, u64), Error> {
        let Some(desc) = desc.filter(|_| object.type_index >= TYPE_FIRST) else {
            return Ok((TYPE_RAW, 16));
        };
        if let Some(known) = self.types.get(&object.type_index) {
            return Ok(*known);
        }
        let index = registry::with(self.handle(), |l| {
            let index = l.with_room(|pool, cache| pool.heap.intern_type(cache, desc.blob()))?;
            crate::binding::note_type(&l.pool, &mut l.cache, index)?;
            Ok(index)
        })?;
        let align = u64::from(desc.align()).clamp(16, PAGE_BYTES);
        self.types.insert(object.type_index, (index, align));
        Ok((index, align))
    }
}

impl CopyTarget for Destination {
    type Error = Error;

    fn allocate(&mut self, object: &Object, desc: Option<&TypeDesc>) -> Result<u64, Error> {
        let (index, align) = self.type_of(object, desc)?;
        let at = registry::with(self.handle(), |l| l.alloc(object.size, align, index))?;
        self.made.push(at);
        Ok(at)
    }

    fn write(&mut self, addr: u64, words: &[u64]) -> Result<(), Error> {
        if words.iter().all(|w| *w == 0) {
            return Ok(());
        }
        let len = words.len() as u64 * 8;
        let Some(to) = self.pool.memory.words(addr, words.len()) else {
            return Err(self.pool.heap_error(HeapError::Unmapped { addr, len }));
        };
        for (to, word) in to.iter().zip(words) {
            to.store(*word, Relaxed);
        }
        self.pool.memory.after_write(addr, len);
        Ok(())
    }
}

/// Copies the object at `addr` of the pool `from`, and what it reaches there, into the pool `to`; the copy's address.
pub(crate) fn graph(from: &Inner, addr: u64, to: Arc<Inner>) -> Result<u64, Error> {
    if tx::depth() == 0 && !to.volatile {
        return Err(Error::invalid(
            "vn_copy without a transaction: begin one with vn_tx_begin or VN_TX",
        ));
    }
    to.check_writable()?;
    let plans = Plans::of(&from.heap);
    let mut into = Destination {
        pool: to,
        types: HashMap::new(),
        made: Vec::new(),
    };
    let copied = copy(
        &from.heap,
        &plans,
        addr,
        External::Keep,
        Budget::default(),
        &mut into,
    );
    let e = match copied {
        Ok(report) => return Ok(report.root),
        Err(CopyError::Target(e)) => e,
        Err(e @ CopyError::UnknownType { .. }) => Error::Type {
            what: format!("vn_copy: {e}"),
        },
        Err(e) => Error::invalid(format!("vn_copy: {e}")),
    };
    // The transaction may go on without the copy.
    for at in into.made {
        into.pool.free(at)?;
    }
    Err(e)
}
