//! Puddles that become part of a pool's heap, or leave it.

use std::sync::atomic::{AtomicU64, Ordering};

use vernal_format::Uuid;
use vernal_heap::{Heap, Mapped, OwnedMemory, PoolMemory};

use super::puddle::Puddle;
use super::{Actor, Answer, id, local};

impl Actor {
    /// Makes the granted puddles part of the heap, in memory.
    pub(super) fn adopt(&mut self, name: &str) -> Answer {
        let pool = self
            .pools
            .get_mut(name)
            .ok_or_else(|| local(format!("{name} is not open")))?;
        let mut memory = OwnedMemory::new();
        let copy = |p: &Puddle| {
            p.words
                .iter()
                .map(|w| AtomicU64::new(w.load(Ordering::Relaxed)))
                .collect::<Vec<_>>()
        };
        for p in pool.puddles.iter().chain(&pool.fresh) {
            memory.add_words(p.info.addr, copy(p));
        }
        let mapped: Vec<Mapped> = pool.puddles.iter().map(Puddle::mapped).collect();
        let heap = Heap::open(&memory, &mapped).map_err(local)?;
        for p in &pool.fresh {
            heap.add_puddle(p.mapped()).map_err(local)?;
        }
        drop(heap);
        for p in pool.puddles.iter().chain(&pool.fresh) {
            let words = memory
                .words(p.info.addr, p.words.len())
                .ok_or_else(|| local("the heap's memory"))?;
            for (to, from) in p.words.iter().zip(words) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        let fresh = std::mem::take(&mut pool.fresh);
        pool.puddles.extend(fresh);
        Ok(String::new())
    }

    /// Takes a puddle out of the heap (in memory), commits that, and makes the journal serve it no more.
    pub(super) fn leave(&mut self, name: &str, puddle: &str) -> Answer {
        let gone = id(puddle)?;
        let pool = self
            .pools
            .get_mut(name)
            .ok_or_else(|| local(format!("{name} is not open")))?;
        let mut memory = OwnedMemory::new();
        for p in &pool.puddles {
            let words = p.words.iter();
            let copy = words.map(|w| AtomicU64::new(w.load(Ordering::Relaxed)));
            memory.add_words(p.info.addr, copy.collect());
        }
        let mapped: Vec<Mapped> = pool.puddles.iter().map(Puddle::mapped).collect();
        let heap = Heap::open(&memory, &mapped).map_err(local)?;
        heap.remove_puddle(Uuid::from(gone)).map_err(local)?;
        drop(heap);
        for p in &pool.puddles {
            let words = memory
                .words(p.info.addr, p.words.len())
                .ok_or_else(|| local("the heap's memory"))?;
            for (to, from) in p.words.iter().zip(words) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        self.commit()?;
        let pool = self.pools.get_mut(name).ok_or_else(|| local("no pool"))?;
        let at = pool.puddles.iter().position(|p| p.info.id == gone);
        let left = at.map(|at| pool.puddles.remove(at));
        let home = left.as_ref().and_then(|p| p.home);
        if let (Some(home), Some(committer)) = (home, &mut self.committer) {
            committer.remove_granted(home).map_err(local)?;
        }
        Ok(String::new())
    }
}
