//! Copies in memory that is freed as a whole.

use std::convert::Infallible;
use std::sync::atomic::AtomicU64;

use super::outcome::{GraphTarget, Placed};
use vernal_format::types::TypeDesc;

/// Words of the first block; each one is twice as large as the one before, up to 1 MiB.
const FIRST: usize = 512;
const LARGEST: usize = 1 << 17;

/// Private memory for the copies of one call. Clearing it keeps the last block for the next one.
#[derive(Debug, Default)]
pub struct Arena {
    blocks: Vec<Box<[AtomicU64]>>,
    /// Words in use of the last block.
    used: usize,
}

impl Arena {
    /// An arena without memory.
    pub fn new() -> Arena {
        Arena::default()
    }

    /// Forgets all copies. Nothing may point to them any more, which the type system cannot see: addresses are numbers.
    pub fn clear(&mut self) {
        let last = self.blocks.pop();
        self.blocks.clear();
        self.blocks.extend(last);
        self.used = 0;
    }

    /// Bytes of memory that it has.
    pub fn capacity(&self) -> usize {
        self.blocks.iter().map(|b| b.len() * 8).sum()
    }

    fn block(&mut self, words: usize) {
        let next = self
            .blocks
            .last()
            .map_or(FIRST, |b| (b.len() * 2).min(LARGEST));
        // Not zeroed twice: the allocator has zero pages for large ones.
        let block: Vec<AtomicU64> = (0..next.max(words)).map(|_| AtomicU64::new(0)).collect();
        self.blocks.push(block.into());
        self.used = 0;
    }
}

impl GraphTarget for Arena {
    type Error = Infallible;

    #[inline]
    fn place(&mut self, size: u64, align: u64, _: Option<&TypeDesc>) -> Result<Placed, Infallible> {
        let words = (size / 8) as usize;
        let align = (align / 8).max(1) as usize;
        loop {
            if let Some(block) = self.blocks.last() {
                let start = block.as_ptr() as usize / 8;
                let first = (start + self.used).next_multiple_of(align) - start;
                if first + words <= block.len() {
                    self.used = first + words;
                    return Ok(Placed {
                        addr: (block.as_ptr() as u64) + first as u64 * 8,
                        block: self.blocks.len() - 1,
                        word: first,
                    });
                }
            }
            self.block(words + align);
        }
    }

    #[inline]
    fn words(&self, at: Placed, count: usize) -> Option<&[AtomicU64]> {
        let end = at.word.checked_add(count)?;
        self.blocks.get(at.block)?.get(at.word..end)
    }
}
