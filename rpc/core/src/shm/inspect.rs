//! Copies of a peer's graphs: made and checked in one pass, in private memory that is used again.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use vernal_heap::walk::{Arena, Budget, Examiner};
use vernal_pool::foreign::ForeignHeap;

use super::link::Limits;
use crate::options::{Made, Types};

/// Arenas that are kept for later, and the largest of them.
const KEEP: usize = 8;
const KEEP_BYTES: usize = 1 << 20;

/// What examines the graphs of one peer; several threads can at once.
pub(crate) struct Inspector {
    types: Types,
    budget: Budget,
    /// Each has learned what the peer's types are.
    examiners: Mutex<Vec<Made<Examiner>>>,
    arenas: Mutex<Vec<Arena>>,
}

/// Memory of copies; it goes back to its inspector.
pub(crate) struct Copies {
    arena: Option<Arena>,
    home: Weak<Inspector>,
}

impl Inspector {
    pub(crate) fn new(limits: &Limits) -> Arc<Inspector> {
        Arc::new(Inspector {
            types: limits.types.clone(),
            budget: limits.budget,
            examiners: Mutex::default(),
            arenas: Mutex::default(),
        })
    }

    /// Copies and checks the graph from `addr`; where its copy lies, and in what. `Err` says what is wrong with it.
    pub(crate) fn copy(
        self: &Arc<Self>,
        heap: &ForeignHeap,
        addr: u64,
        expected: u64,
    ) -> Result<(u64, Copies), String> {
        let mut examiner = self.types.current(take(&self.examiners), Examiner::new);
        let mut copies = Copies {
            arena: Some(take(&self.arenas).unwrap_or_default()),
            home: Arc::downgrade(self),
        };
        let Some(arena) = copies.arena.as_mut() else {
            return Err("there is no memory for it".into());
        };
        let copied = examiner
            .value
            .copy(heap, addr, expected, self.budget, arena);
        give(&self.examiners, examiner);
        match copied {
            Ok(copy) => Ok((copy.root, copies)),
            Err(e) => Err(e.to_string()),
        }
    }
}

fn take<T>(kept: &Mutex<Vec<T>>) -> Option<T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn give<T>(kept: &Mutex<Vec<T>>, value: T) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() < KEEP {
        kept.push(value);
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        if let (Some(mut arena), Some(home)) = (self.arena.take(), self.home.upgrade())
            && arena.capacity() <= KEEP_BYTES
        {
            arena.clear();
            give(&home.arenas, arena);
        }
    }
}
