//! A sorted, doubly linked list. Node: key, value, next, previous.

use super::heap::Heap;
use crate::session::{Session, Words};

const NODE: u64 = 4;
const VALUE: u64 = 8;
const NEXT: u64 = 16;
const PREV: u64 = 24;

/// A sorted, doubly linked list whose head is its heap's root.
#[derive(Debug, Clone, Copy)]
pub struct List {
    heap: Heap,
}

impl List {
    /// An empty list.
    pub fn new(heap: Heap) -> List {
        List { heap }
    }

    /// Inserts, or changes the value.
    pub fn insert(&self, s: &mut Session, key: u64, value: u64) {
        let (mut prev, mut at) = (0, self.heap.root(s));
        while at != 0 && s.load(at) < key {
            (prev, at) = (at, s.load(at + NEXT));
        }
        if at != 0 && s.load(at) == key {
            s.store(at + VALUE, value);
            return;
        }
        let node = self.heap.alloc(s, NODE);
        s.store(node, key);
        s.store(node + VALUE, value);
        s.store(node + NEXT, at);
        s.store(node + PREV, prev);
        self.link(s, prev, node);
        if at != 0 {
            s.store(at + PREV, node);
        }
    }

    /// Removes `key`; whether it was there.
    pub fn remove(&self, s: &mut Session, key: u64) -> bool {
        let mut at = self.heap.root(s);
        while at != 0 && s.load(at) < key {
            at = s.load(at + NEXT);
        }
        if at == 0 || s.load(at) != key {
            return false;
        }
        let (next, prev) = (s.load(at + NEXT), s.load(at + PREV));
        self.link(s, prev, next);
        if next != 0 {
            s.store(next + PREV, prev);
        }
        self.heap.free(s, at, NODE);
        true
    }

    fn link(&self, s: &mut Session, prev: u64, next: u64) {
        if prev == 0 {
            self.heap.set_root(s, next);
        } else {
            s.store(prev + NEXT, next);
        }
    }

    /// Walks the list at `base` in any memory: its pairs, or what is wrong.
    pub fn walk(memory: &impl Words, base: u64) -> Result<Vec<(u64, u64)>, String> {
        let read = |addr| {
            memory
                .word(addr)
                .ok_or(format!("dangling pointer {addr:#x}"))
        };
        let (mut prev, mut at) = (0, Heap::root_in(memory, base).ok_or("no heap")?);
        let mut pairs: Vec<(u64, u64)> = Vec::new();
        while at != 0 {
            let key = read(at)?;
            if read(at + PREV)? != prev {
                return Err(format!("node {at:#x} does not point back"));
            }
            if pairs.last().is_some_and(|p| p.0 >= key) {
                return Err(format!("key {key} is out of order"));
            }
            pairs.push((key, read(at + VALUE)?));
            (prev, at) = (at, read(at + NEXT)?);
        }
        Ok(pairs)
    }
}
