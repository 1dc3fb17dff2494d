//! Segments of a registry as the puddles of a volatile pool.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vernal_format::Uuid;
use vernal_pool::source::{GrantedPuddle, JournalGrant, PoolInfo, PoolSource};

use crate::Error;
use crate::inject;
use crate::registry::{Registry, Scope, SegmentId};

/// Segments that a heap has grown by, in order.
pub(super) struct Grown {
    registry: Arc<dyn Registry>,
    scope: Scope,
    name: String,
    list: Mutex<Vec<Entry>>,
    count: AtomicUsize,
}

struct Entry {
    id: SegmentId,
    uuid: Uuid,
    /// The registry has sealed it: others can map it.
    sealed: bool,
    /// It was given back; its place in the list stays, peers may have it mapped.
    gone: bool,
}

impl Grown {
    /// A source for a pool, and the list that it keeps.
    pub(super) fn source(
        registry: &Arc<dyn Registry>,
        scope: Scope,
        name: &str,
    ) -> (Box<dyn PoolSource>, Arc<Grown>) {
        let grown = Arc::new(Grown {
            registry: Arc::clone(registry),
            scope,
            name: name.to_owned(),
            list: Mutex::default(),
            count: AtomicUsize::new(0),
        });
        (Box::new(Source(Arc::clone(&grown))), grown)
    }

    fn list(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there were.
    #[inline]
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The segments from place `from` on. They are mapped by now, for an address in one is about to be sent: those that the registry
    /// has not sealed yet are. A segment that was given back is 0.
    pub(super) fn sealed_from(&self, from: usize) -> Result<Vec<SegmentId>, Error> {
        let mut list = self.list();
        let mut ids = Vec::new();
        for entry in list.iter_mut().skip(from) {
            if !entry.sealed && !entry.gone {
                inject::step();
                self.registry.ready(entry.id)?;
                inject::step();
                entry.sealed = true;
            }
            ids.push(if entry.gone { 0 } else { entry.id });
        }
        Ok(ids)
    }
}

/// The pool's side.
struct Source(Arc<Grown>);

impl Source {
    fn pool_error(&self, error: &Error) -> vernal_pool::Error {
        vernal_pool::Error::Access {
            what: format!("heap of {}: {error}", self.0.name),
        }
    }

    fn give_back(&self, entry: &mut Entry) {
        if !entry.gone {
            entry.gone = true;
            // A registry that has ended has taken it back already.
            let _ = self.0.registry.drop_segment(entry.id);
        }
    }
}

impl PoolSource for Source {
    fn describe(&self) -> PoolInfo {
        PoolInfo {
            name: self.0.name.clone(),
            direct: false,
            read_only: false,
        }
    }

    fn puddles(&self) -> Result<Vec<GrantedPuddle>, vernal_pool::Error> {
        Ok(Vec::new())
    }

    fn grow(&self, size: u64) -> Result<GrantedPuddle, vernal_pool::Error> {
        let grown = &self.0;
        let segment = grown
            .registry
            .segment(grown.scope, size)
            .map_err(|e| self.pool_error(&e))?;
        inject::step();
        let mut bytes = [0; 16];
        let halves = [segment.id.to_le_bytes(), segment.addr.to_le_bytes()];
        bytes
            .iter_mut()
            .zip(halves.iter().flatten())
            .for_each(|(to, from)| *to = *from);
        let uuid = Uuid(bytes);
        let mut list = grown.list();
        list.push(Entry {
            id: segment.id,
            uuid,
            sealed: false,
            gone: false,
        });
        grown.count.store(list.len(), Ordering::Release);
        Ok(GrantedPuddle {
            uuid,
            addr: segment.addr,
            size: segment.size,
            file: segment.file,
            name: format!("segment {:x}", segment.id),
        })
    }

    fn shrink(&self, puddle: Uuid) -> Result<(), vernal_pool::Error> {
        let mut list = self.0.list();
        if let Some(entry) = list.iter_mut().find(|e| e.uuid == puddle) {
            self.give_back(entry);
        }
        Ok(())
    }

    fn journal(&self) -> Result<Option<JournalGrant>, vernal_pool::Error> {
        Ok(None)
    }

    fn close(self: Box<Self>) -> Result<(), vernal_pool::Error> {
        for entry in self.0.list().iter_mut() {
            self.give_back(entry);
        }
        Ok(())
    }
}
