//! A chained hash table that doubles. Root: table address, buckets, entries. Node: key, value, next.

use super::heap::Heap;
use crate::session::{Session, Words};

const ROOT: u64 = 3;
const BUCKETS: u64 = 8;
const COUNT: u64 = 16;
const NODE: u64 = 3;
const VALUE: u64 = 8;
const NEXT: u64 = 16;

/// A hash table in a heap.
#[derive(Debug, Clone, Copy)]
pub struct Kv {
    heap: Heap,
    root: u64,
}

fn bucket(key: u64, buckets: u64) -> u64 {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % buckets * 8
}

impl Kv {
    /// An empty table.
    pub fn new(s: &mut Session, heap: Heap) -> Kv {
        let root = heap.alloc(s, ROOT);
        heap.set_root(s, root);
        let kv = Kv { heap, root };
        kv.set_table(s, 4);
        s.store(root + COUNT, 0);
        kv
    }

    fn set_table(&self, s: &mut Session, buckets: u64) -> u64 {
        let table = self.heap.alloc(s, buckets);
        for i in 0..buckets {
            s.store(table + 8 * i, 0);
        }
        s.store(self.root, table);
        s.store(self.root + BUCKETS, buckets);
        table
    }

    /// The link (address of a pointer) to the node of `key`, or to the end of its chain.
    fn find(&self, s: &Session, key: u64) -> u64 {
        let mut link = s.load(self.root) + bucket(key, s.load(self.root + BUCKETS));
        while s.load(link) != 0 && s.load(s.load(link)) != key {
            link = s.load(link) + NEXT;
        }
        link
    }

    /// Inserts, or changes the value.
    pub fn put(&self, s: &mut Session, key: u64, value: u64) {
        let link = self.find(s, key);
        let node = s.load(link);
        if node != 0 {
            s.store(node + VALUE, value);
            return;
        }
        let node = self.heap.alloc(s, NODE);
        s.store(node, key);
        s.store(node + VALUE, value);
        s.store(node + NEXT, 0);
        s.store(link, node);
        let count = s.load(self.root + COUNT) + 1;
        s.store(self.root + COUNT, count);
        if count > 2 * s.load(self.root + BUCKETS) {
            self.grow(s);
        }
    }

    fn grow(&self, s: &mut Session) {
        let (old, buckets) = (s.load(self.root), s.load(self.root + BUCKETS));
        let table = self.set_table(s, buckets * 2);
        for i in 0..buckets {
            let mut node = s.load(old + 8 * i);
            while node != 0 {
                let next = s.load(node + NEXT);
                let head = table + bucket(s.load(node), buckets * 2);
                let first = s.load(head);
                s.store(node + NEXT, first);
                s.store(head, node);
                node = next;
            }
        }
        self.heap.free(s, old, buckets);
    }

    /// Removes `key`; whether it was there.
    pub fn remove(&self, s: &mut Session, key: u64) -> bool {
        let link = self.find(s, key);
        let node = s.load(link);
        if node == 0 {
            return false;
        }
        let next = s.load(node + NEXT);
        s.store(link, next);
        self.heap.free(s, node, NODE);
        let count = s.load(self.root + COUNT) - 1;
        s.store(self.root + COUNT, count);
        true
    }

    /// Walks the table at `base` in any memory: its pairs in key order, or what is wrong.
    pub fn walk(memory: &impl Words, base: u64) -> Result<Vec<(u64, u64)>, String> {
        let read = |addr| {
            memory
                .word(addr)
                .ok_or(format!("dangling pointer {addr:#x}"))
        };
        let root = Heap::root_in(memory, base).ok_or("no heap")?;
        if root == 0 {
            return Ok(Vec::new());
        }
        let (table, buckets, count) = (read(root)?, read(root + BUCKETS)?, read(root + COUNT)?);
        let mut pairs = Vec::new();
        for i in 0..buckets {
            let mut node = read(table + 8 * i)?;
            while node != 0 {
                let key = read(node)?;
                if bucket(key, buckets) != 8 * i {
                    return Err(format!("key {key} is in the wrong bucket"));
                }
                pairs.push((key, read(node + VALUE)?));
                if pairs.len() as u64 > count {
                    return Err("more entries than counted".into());
                }
                node = read(node + NEXT)?;
            }
        }
        if pairs.len() as u64 != count {
            return Err(format!("{} entries, {count} counted", pairs.len()));
        }
        pairs.sort_unstable();
        Ok(pairs)
    }
}
