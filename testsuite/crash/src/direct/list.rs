//! A sorted list in a direct pool, changed under undo, redo or both: the figures of the thesis.
//!
//! ```text
//!   0 head   8 length   64 bitmap of nodes taken   128 + 64 i: node {next, key, value, copy of value, …}
//! ```

use vernal_journal::direct::DirectError;

use super::DirectSession;

const HEAD: u64 = 0;
const LENGTH: u64 = 8;
const BITMAP: u64 = 64;
const NODES: u64 = 128;
const NODE: u64 = 64;

/// How a transaction logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Old values before each store.
    Undo,
    /// New values, applied by the commit.
    Redo,
    /// Node and bitmap in place, the pointers by redo entries.
    Hybrid,
    /// As hybrid, but the node, which was free, has no undo entry.
    Fresh,
}

/// The list of one thread, in its own part of the pool.
#[derive(Debug, Clone, Copy)]
pub struct DirectList {
    /// Which thread.
    pub thread: usize,
    /// Where its part begins.
    pub base: u64,
    /// Nodes that fit.
    pub nodes: u64,
    /// How it logs.
    pub style: Style,
}

type Done = Result<(), DirectError>;

impl DirectList {
    fn load(&self, s: &DirectSession, off: u64) -> u64 {
        s.load(self.thread, self.base + off)
    }

    /// A change in place, under an undo entry; redo where everything is redone.
    fn place(&self, s: &mut DirectSession, off: u64, value: u64) -> Done {
        if self.style == Style::Redo {
            s.redo(self.thread, self.base + off, &value.to_le_bytes())
        } else {
            s.set(self.thread, self.base + off, value)
        }
    }

    /// A pointer: redone where the style says so.
    fn link(&self, s: &mut DirectSession, off: u64, value: u64) -> Done {
        if self.style == Style::Undo {
            s.set(self.thread, self.base + off, value)
        } else {
            s.redo(self.thread, self.base + off, &value.to_le_bytes())
        }
    }

    /// Where the pointer to the first node with a key of at least `key` is, and that node.
    fn find(&self, s: &DirectSession, key: u64) -> (u64, u64) {
        let mut from = HEAD;
        loop {
            let node = self.load(s, from);
            if node == 0 || self.load(s, node + 8) >= key {
                return (from, node);
            }
            from = node;
        }
    }

    /// Inserts or changes a key, inside an open transaction; `false` when the list is full. One change per transaction when
    /// redo entries are used: they are not seen before the commit.
    pub fn insert(&self, s: &mut DirectSession, key: u64, value: u64) -> Result<bool, DirectError> {
        let (from, next) = self.find(s, key);
        if next != 0 && self.load(s, next + 8) == key {
            self.link(s, next + 16, value)?;
            self.link(s, next + 24, value)?;
            return Ok(true);
        }
        let bitmap = self.load(s, BITMAP);
        let free = u64::from(bitmap.trailing_ones());
        if free >= self.nodes {
            return Ok(false);
        }
        let node = NODES + free * NODE;
        self.place(s, BITMAP, bitmap | 1 << free)?;
        let words = [next, key, value, value];
        match self.style {
            Style::Redo => {
                let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
                s.redo(self.thread, self.base + node, &bytes)?;
            }
            style => {
                if style == Style::Fresh {
                    s.touch(self.thread, self.base + node, NODE)?;
                } else {
                    s.undo(self.thread, self.base + node, NODE)?;
                }
                for (at, word) in (0u64..).step_by(8).zip(words) {
                    s.store(self.thread, self.base + node + at, word);
                }
            }
        }
        self.link(s, from, node)?;
        let length = self.load(s, LENGTH);
        self.link(s, LENGTH, length + 1)?;
        Ok(true)
    }

    /// Removes a key, inside an open transaction; whether it was there.
    pub fn remove(&self, s: &mut DirectSession, key: u64) -> Result<bool, DirectError> {
        let (from, node) = self.find(s, key);
        if node == 0 || self.load(s, node + 8) != key {
            return Ok(false);
        }
        let next = self.load(s, node);
        let free = (node - NODES) / NODE;
        let bitmap = self.load(s, BITMAP);
        self.place(s, BITMAP, bitmap & !(1 << free))?;
        self.link(s, from, next)?;
        let length = self.load(s, LENGTH);
        self.link(s, LENGTH, length - 1)?;
        Ok(true)
    }

    /// Keys and values of a list at `base` of a committed state, or what is wrong with it.
    pub fn walk(pool: &[u8], base: u64) -> Result<Vec<(u64, u64)>, String> {
        let word = |off: u64| {
            let at = (base + off) as usize;
            pool.get(at..at + 8)
                .and_then(|b| b.try_into().ok())
                .map(u64::from_le_bytes)
                .ok_or(format!("{off} lies outside the pool"))
        };
        let (mut found, mut taken) = (Vec::new(), 0u64);
        let mut node = word(HEAD)?;
        while node != 0 {
            let bit = 1u64 << ((node - NODES) / NODE);
            if taken & bit != 0 {
                return Err("a cycle".to_owned());
            }
            taken |= bit;
            let (key, value) = (word(node + 8)?, word(node + 16)?);
            if word(node + 24)? != value || found.last().is_some_and(|&(k, _)| k >= key) {
                return Err(format!("node {node} is torn or out of order"));
            }
            found.push((key, value));
            node = word(node)?;
        }
        if word(LENGTH)? != found.len() as u64 || word(BITMAP)? != taken {
            return Err("length or bitmap do not fit the nodes".to_owned());
        }
        Ok(found)
    }

    /// A state without the nodes that are free.
    pub fn canonical(pool: &[u8]) -> Vec<u8> {
        let mut out = pool.to_vec();
        let at = BITMAP as usize;
        let bitmap = pool
            .get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u64::from_le_bytes);
        for (i, node) in out[NODES as usize..].chunks_mut(NODE as usize).enumerate() {
            if bitmap & (1 << i) == 0 {
                node.fill(0);
            }
        }
        out
    }
}
