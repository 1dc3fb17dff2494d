//! A set of objects: one bit for every 16 bytes of the chunks that hold any.

use std::collections::HashMap;

use vernal_abi::puddle::CHUNK_SIZE;

/// Distance of two objects at least.
const GRAIN: u64 = 16;
const WORDS: usize = (CHUNK_SIZE / GRAIN / 64) as usize;

/// First addresses of objects; 16 KiB for each chunk that has any.
#[derive(Debug, Default, Clone)]
pub struct ObjectSet {
    chunks: HashMap<u64, Box<[u64]>>,
    len: u64,
}

impl ObjectSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    fn place(addr: u64) -> (u64, usize, u64) {
        let bit = addr % CHUNK_SIZE / GRAIN;
        (addr / CHUNK_SIZE, (bit / 64) as usize, 1 << (bit % 64))
    }

    /// Adds the object at `addr`; `false` when it was there.
    pub fn insert(&mut self, addr: u64) -> bool {
        let (chunk, word, bit) = Self::place(addr);
        let words = self
            .chunks
            .entry(chunk)
            .or_insert_with(|| vec![0; WORDS].into_boxed_slice());
        let Some(w) = words.get_mut(word) else {
            return false;
        };
        let new = *w & bit == 0;
        *w |= bit;
        self.len += u64::from(new);
        new
    }

    /// Whether the object at `addr` is in the set.
    pub fn contains(&self, addr: u64) -> bool {
        let (chunk, word, bit) = Self::place(addr);
        self.chunks
            .get(&chunk)
            .and_then(|w| w.get(word))
            .is_some_and(|w| w & bit != 0)
    }

    /// Objects in the set.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
