//! Changes of several words that are prepared before the first of them is made.

use vernal_format::puddle::{Extent, PageDesc};

use crate::block::word;
use crate::{HeapError, PoolMemory};

const LINE: u64 = 64;

/// Changes to apply together. Either the memory takes all of them (`before_write` agreed to each range), or none is made.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    edits: Vec<Edit>,
}

#[derive(Debug, Clone, Copy)]
struct Edit {
    addr: u64,
    mask: u64,
    value: u64,
}

impl Batch {
    pub fn clear(&mut self) {
        self.edits.clear();
    }

    /// Bits `mask` of the word at `addr` become those of `value`. A later edit of the same bits counts.
    fn bits(&mut self, addr: u64, mask: u64, value: u64) {
        // The newest edit of a word is near the end: a split or merge touches neighbours.
        if let Some(edit) = self.edits.iter_mut().rev().find(|e| e.addr == addr) {
            edit.mask |= mask;
            edit.value = edit.value & !mask | value & mask;
        } else {
            let value = value & mask;
            self.edits.push(Edit { addr, mask, value });
        }
    }

    /// The word at `addr` becomes `value`.
    pub fn word(&mut self, addr: u64, value: u64) {
        self.bits(addr, u64::MAX, value);
    }

    /// The descriptor of `page` becomes `desc`.
    pub fn desc(&mut self, ext: Extent, page: u64, desc: PageDesc) {
        let (addr, shift) = ext.desc_word(page);
        let mask = u64::from(u32::MAX) << shift;
        self.bits(addr, mask, u64::from(desc.encode()) << shift);
    }

    /// The bits that the descriptor of `page` will have, if an edit says so.
    pub fn pending_desc(&self, ext: Extent, page: u64) -> Option<u32> {
        let (addr, shift) = ext.desc_word(page);
        let edit = self.edits.iter().rev().find(|e| e.addr == addr)?;
        let mask = u64::from(u32::MAX) << shift;
        (edit.mask & mask == mask).then_some((edit.value >> shift) as u32)
    }

    /// Makes the changes.
    pub fn apply<M: PoolMemory + ?Sized>(&mut self, mem: &M) -> Result<(), HeapError> {
        self.edits.sort_unstable_by_key(|e| e.addr);
        for range in ranges(&self.edits) {
            mem.before_write(range.0, range.1)?;
        }
        for edit in &self.edits {
            word(mem, edit.addr)?;
        }
        for edit in &self.edits {
            let word = word(mem, edit.addr)?;
            // A read-modify-write that orders: freeing threads change the other bits of no word, but they look at this
            // one after they have changed a bitmap, and one of the two sides must see the other's change.
            mem.change_bits(word, edit.mask, edit.value);
        }
        for range in ranges(&self.edits) {
            mem.after_write(range.0, range.1);
        }
        self.edits.clear();
        Ok(())
    }
}

/// Runs of edited words within one line: address and bytes.
fn ranges(edits: &[Edit]) -> impl Iterator<Item = (u64, u64)> {
    edits
        .chunk_by(|a, b| a.addr / LINE == b.addr / LINE)
        .filter_map(|run| {
            let first = run.first()?.addr;
            Some((first, run.last()?.addr - first + 8))
        })
}
