//! A B-tree of order 8: at most 7 keys and 8 children in a node, at least 3 keys except in the root.
//!
//! Node: word 0 count and leaf flag, words 1..8 keys, 8..15 values, 15..23 children.

use super::heap::Heap;
use crate::session::{Session, Words};

const NODE: u64 = 24;
const MIN: u64 = 3;
const MAX: u64 = 7;
const LEAF: u64 = 1 << 32;

/// A B-tree whose root is its heap's root.
#[derive(Debug, Clone, Copy)]
pub struct BTree {
    heap: Heap,
}

fn key_at(node: u64, i: u64) -> u64 {
    node + 8 * (1 + i)
}
fn value_at(node: u64, i: u64) -> u64 {
    node + 8 * (8 + i)
}
fn child_at(node: u64, i: u64) -> u64 {
    node + 8 * (15 + i)
}

impl BTree {
    /// An empty tree.
    pub fn new(s: &mut Session, heap: Heap) -> BTree {
        let tree = BTree { heap };
        let root = tree.node(s, true);
        heap.set_root(s, root);
        tree
    }

    fn node(&self, s: &mut Session, leaf: bool) -> u64 {
        let node = self.heap.alloc(s, NODE);
        s.store(node, if leaf { LEAF } else { 0 });
        node
    }

    fn count(s: &Session, node: u64) -> u64 {
        s.load(node) & (LEAF - 1)
    }
    fn is_leaf(s: &Session, node: u64) -> bool {
        s.load(node) & LEAF != 0
    }
    fn set_count(s: &mut Session, node: u64, n: u64) {
        let flag = s.load(node) & LEAF;
        s.store(node, flag | n);
    }
    fn copy(s: &mut Session, from: u64, to: u64) {
        let word = s.load(from);
        s.store(to, word);
    }
    fn copy_pair(s: &mut Session, from: (u64, u64), to: (u64, u64)) {
        Self::copy(s, key_at(from.0, from.1), key_at(to.0, to.1));
        Self::copy(s, value_at(from.0, from.1), value_at(to.0, to.1));
    }
    fn copy_child(s: &mut Session, from: (u64, u64), to: (u64, u64)) {
        Self::copy(s, child_at(from.0, from.1), child_at(to.0, to.1));
    }

    /// Index of the first key that is not below `key`, and whether it is `key`.
    fn search(s: &Session, node: u64, key: u64) -> (u64, bool) {
        let n = Self::count(s, node);
        let i = (0..n)
            .find(|&i| s.load(key_at(node, i)) >= key)
            .unwrap_or(n);
        (i, i < n && s.load(key_at(node, i)) == key)
    }

    /// Inserts, or changes the value.
    pub fn insert(&self, s: &mut Session, key: u64, value: u64) {
        let mut node = self.heap.root(s);
        if Self::count(s, node) == MAX {
            let root = self.node(s, false);
            s.store(child_at(root, 0), node);
            self.heap.set_root(s, root);
            self.split(s, root, 0);
            node = root;
        }
        loop {
            let (mut i, found) = Self::search(s, node, key);
            if found {
                s.store(value_at(node, i), value);
                return;
            }
            if Self::is_leaf(s, node) {
                let n = Self::count(s, node);
                for j in (i..n).rev() {
                    Self::copy_pair(s, (node, j), (node, j + 1));
                }
                s.store(key_at(node, i), key);
                s.store(value_at(node, i), value);
                Self::set_count(s, node, n + 1);
                return;
            }
            if Self::count(s, s.load(child_at(node, i))) == MAX {
                self.split(s, node, i);
                let middle = s.load(key_at(node, i));
                if middle == key {
                    s.store(value_at(node, i), value);
                    return;
                }
                i += u64::from(middle < key);
            }
            node = s.load(child_at(node, i));
        }
    }

    /// Splits the full child `i` of `parent`, which is not full.
    fn split(&self, s: &mut Session, parent: u64, i: u64) {
        let left = s.load(child_at(parent, i));
        let leaf = Self::is_leaf(s, left);
        let right = self.node(s, leaf);
        for j in 0..MIN {
            Self::copy_pair(s, (left, MIN + 1 + j), (right, j));
        }
        if !leaf {
            for j in 0..=MIN {
                Self::copy_child(s, (left, MIN + 1 + j), (right, j));
            }
        }
        Self::set_count(s, left, MIN);
        Self::set_count(s, right, MIN);
        let n = Self::count(s, parent);
        for j in (i..n).rev() {
            Self::copy_pair(s, (parent, j), (parent, j + 1));
            Self::copy_child(s, (parent, j + 1), (parent, j + 2));
        }
        Self::copy_pair(s, (left, MIN), (parent, i));
        s.store(child_at(parent, i + 1), right);
        Self::set_count(s, parent, n + 1);
    }

    /// Removes `key`; whether it was there.
    pub fn remove(&self, s: &mut Session, key: u64) -> bool {
        let root = self.heap.root(s);
        let found = self.remove_from(s, root, key);
        if Self::count(s, root) == 0 && !Self::is_leaf(s, root) {
            let only = s.load(child_at(root, 0));
            self.heap.set_root(s, only);
            self.heap.free(s, root, NODE);
        }
        found
    }

    /// Removes from a subtree whose root has more than the least number of keys (or is the root of all).
    fn remove_from(&self, s: &mut Session, node: u64, key: u64) -> bool {
        let (i, found) = Self::search(s, node, key);
        if Self::is_leaf(s, node) {
            if found {
                let n = Self::count(s, node);
                for j in i + 1..n {
                    Self::copy_pair(s, (node, j), (node, j - 1));
                }
                Self::set_count(s, node, n - 1);
            }
            return found;
        }
        if !found {
            let child = self.fill(s, node, i);
            return self.remove_from(s, child, key);
        }
        let (left, right) = (s.load(child_at(node, i)), s.load(child_at(node, i + 1)));
        if Self::count(s, left) > MIN {
            let mut at = left;
            while !Self::is_leaf(s, at) {
                at = s.load(child_at(at, Self::count(s, at)));
            }
            let last = Self::count(s, at) - 1;
            Self::copy_pair(s, (at, last), (node, i));
            let moved = s.load(key_at(node, i));
            self.remove_from(s, left, moved)
        } else if Self::count(s, right) > MIN {
            let mut at = right;
            while !Self::is_leaf(s, at) {
                at = s.load(child_at(at, 0));
            }
            Self::copy_pair(s, (at, 0), (node, i));
            let moved = s.load(key_at(node, i));
            self.remove_from(s, right, moved)
        } else {
            self.merge(s, node, i);
            self.remove_from(s, left, key)
        }
    }

    /// Makes child `i` have more than the least number of keys, and returns it (or what it was merged into).
    fn fill(&self, s: &mut Session, node: u64, i: u64) -> u64 {
        let child = s.load(child_at(node, i));
        let n = Self::count(s, child);
        if n > MIN {
            return child;
        }
        if i > 0 {
            let left = s.load(child_at(node, i - 1));
            let m = Self::count(s, left);
            if m > MIN {
                for j in (0..n).rev() {
                    Self::copy_pair(s, (child, j), (child, j + 1));
                }
                if !Self::is_leaf(s, child) {
                    for j in (0..=n).rev() {
                        Self::copy_child(s, (child, j), (child, j + 1));
                    }
                    Self::copy_child(s, (left, m), (child, 0));
                }
                Self::copy_pair(s, (node, i - 1), (child, 0));
                Self::copy_pair(s, (left, m - 1), (node, i - 1));
                Self::set_count(s, left, m - 1);
                Self::set_count(s, child, n + 1);
                return child;
            }
        }
        if i < Self::count(s, node) {
            let right = s.load(child_at(node, i + 1));
            let m = Self::count(s, right);
            if m > MIN {
                Self::copy_pair(s, (node, i), (child, n));
                Self::copy_pair(s, (right, 0), (node, i));
                for j in 1..m {
                    Self::copy_pair(s, (right, j), (right, j - 1));
                }
                if !Self::is_leaf(s, child) {
                    Self::copy_child(s, (right, 0), (child, n + 1));
                    for j in 1..=m {
                        Self::copy_child(s, (right, j), (right, j - 1));
                    }
                }
                Self::set_count(s, right, m - 1);
                Self::set_count(s, child, n + 1);
                return child;
            }
            self.merge(s, node, i);
            return child;
        }
        let left = s.load(child_at(node, i - 1));
        self.merge(s, node, i - 1);
        left
    }

    /// Merges children `i` and `i + 1`, both of the least size, and the key between them.
    fn merge(&self, s: &mut Session, node: u64, i: u64) {
        let (left, right) = (s.load(child_at(node, i)), s.load(child_at(node, i + 1)));
        let (a, b) = (Self::count(s, left), Self::count(s, right));
        Self::copy_pair(s, (node, i), (left, a));
        for j in 0..b {
            Self::copy_pair(s, (right, j), (left, a + 1 + j));
        }
        if !Self::is_leaf(s, left) {
            for j in 0..=b {
                Self::copy_child(s, (right, j), (left, a + 1 + j));
            }
        }
        Self::set_count(s, left, a + b + 1);
        let n = Self::count(s, node);
        for j in i + 1..n {
            Self::copy_pair(s, (node, j), (node, j - 1));
            Self::copy_child(s, (node, j + 1), (node, j));
        }
        Self::set_count(s, node, n - 1);
        self.heap.free(s, right, NODE);
    }

    /// Walks the tree at `base` in any memory: its pairs in key order, or what is wrong.
    pub fn walk(memory: &impl Words, base: u64) -> Result<Vec<(u64, u64)>, String> {
        let mut pairs = Vec::new();
        let root = Heap::root_in(memory, base).ok_or("no heap")?;
        if root != 0 {
            let mut depth = None;
            Self::walk_node(memory, root, 0, &mut depth, &mut pairs)?;
        }
        match pairs.windows(2).find(|w: &&[(u64, u64)]| w[0].0 >= w[1].0) {
            Some(w) => Err(format!("key {} is out of order", w[1].0)),
            None => Ok(pairs),
        }
    }

    fn walk_node(
        memory: &impl Words,
        node: u64,
        level: u32,
        depth: &mut Option<u32>,
        pairs: &mut Vec<(u64, u64)>,
    ) -> Result<(), String> {
        let read = |addr| {
            memory
                .word(addr)
                .ok_or(format!("dangling pointer {addr:#x}"))
        };
        let head = read(node)?;
        let (n, leaf) = (head & (LEAF - 1), head & LEAF != 0);
        if n > MAX || (level > 0 && n < MIN) || level > 16 {
            return Err(format!("node {node:#x} at level {level} has {n} keys"));
        }
        if leaf && *depth.get_or_insert(level) != level {
            return Err(format!("leaf {node:#x} is at level {level}"));
        }
        for i in 0..=n {
            if !leaf {
                Self::walk_node(memory, read(child_at(node, i))?, level + 1, depth, pairs)?;
            }
            if i < n {
                pairs.push((read(key_at(node, i))?, read(value_at(node, i))?));
            }
        }
        Ok(())
    }
}
