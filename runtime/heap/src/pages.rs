//! The buddy allocator of one puddle: which runs of pages are free.
//!
//! The page descriptors are the truth. What lies here is an index of them, built chunk by chunk when it is first needed; an
//! entry is compared with its descriptor before it is used.

use std::collections::BTreeSet;

use vernal_format::puddle::{CHUNK_PAGES, Extent, PageDesc};

use crate::batch::Batch;
use crate::block::{Kind, ORDERS, block_at, desc_bits};
use crate::{HeapError, PoolMemory};

#[derive(Debug)]
pub(crate) struct Pages {
    pub ext: Extent,
    free: [BTreeSet<u32>; ORDERS],
    /// Chunks whose descriptors have not been read since they may have changed behind this index.
    unread: BTreeSet<u32>,
    moves: Vec<Move>,
}

/// A change of the index that waits for the descriptors to change.
#[derive(Debug, Clone, Copy)]
struct Move {
    page: u32,
    order: u32,
    insert: bool,
}

impl Pages {
    /// An index that has read nothing.
    pub fn new(ext: Extent) -> Pages {
        Pages {
            ext,
            free: std::array::from_fn(|_| BTreeSet::new()),
            unread: (0..ext.chunks() as u32).collect(),
            moves: Vec::new(),
        }
    }

    /// A chunk that has to be read.
    pub fn next_unread(&self) -> Option<u64> {
        self.unread.first().map(|c| u64::from(*c))
    }

    pub fn mark_read(&mut self, chunk: u64) {
        self.unread.remove(&(chunk as u32));
    }

    /// Forgets what was read of a chunk.
    pub fn forget(&mut self, chunk: u64) {
        let first = (chunk * CHUNK_PAGES) as u32;
        let pages = first..first.saturating_add(CHUNK_PAGES as u32);
        for set in &mut self.free {
            while let Some(page) = set.range(pages.clone()).next().copied() {
                set.remove(&page);
            }
        }
        self.unread.insert(chunk as u32);
    }

    /// A free block that was read.
    pub fn found(&mut self, page: u64, order: u32) {
        if let Some(set) = self.free.get_mut(order as usize) {
            set.insert(page as u32);
        }
    }

    fn desc<M: PoolMemory + ?Sized>(
        &self,
        mem: &M,
        batch: &Batch,
        page: u64,
    ) -> Result<Option<PageDesc>, HeapError> {
        let bits = match batch.pending_desc(self.ext, page) {
            Some(bits) => bits,
            None => desc_bits(mem, self.ext, page)?,
        };
        Ok(PageDesc::decode(bits))
    }

    fn plan(&mut self, batch: &mut Batch, page: u64, order: u32, insert: bool) {
        let desc = if insert {
            PageDesc::Free { order }
        } else {
            PageDesc::None
        };
        batch.desc(self.ext, page, desc);
        self.moves.push(Move {
            page: page as u32,
            order,
            insert,
        });
    }

    /// Prepares taking `pages` consecutive pages; `None`: there are none. The caller adds their descriptors and commits.
    pub fn take<M: PoolMemory + ?Sized>(
        &mut self,
        mem: &M,
        batch: &mut Batch,
        pages: u64,
    ) -> Result<Option<u64>, HeapError> {
        let order = pages.max(1).next_power_of_two().trailing_zeros();
        for o in order..ORDERS as u32 {
            while let Some(page) = self.free.get(o as usize).and_then(|s| s.first().copied()) {
                let page64 = u64::from(page);
                let desc = self.desc(mem, batch, page64)?;
                if desc != Some(PageDesc::Free { order: o }) {
                    // Another process, or an abort that nobody told of: the entry is out of date.
                    self.free.get_mut(o as usize).map(|s| s.remove(&page));
                    continue;
                }
                self.plan(batch, page64, o, false);
                self.plan_free(batch, page64 + pages, page64 + (1 << o));
                return Ok(Some(page64));
            }
        }
        self.take_from_the_front(mem, batch, pages)
    }

    /// Prepares taking pages that no single block has: the blocks from the first page of the heap on, if they are free.
    fn take_from_the_front<M: PoolMemory + ?Sized>(
        &mut self,
        mem: &M,
        batch: &mut Batch,
        pages: u64,
    ) -> Result<Option<u64>, HeapError> {
        let first = self.ext.first_page();
        if pages > self.ext.pages() - first {
            return Ok(None);
        }
        let mut blocks = Vec::new();
        let mut page = first;
        while page - first < pages {
            let Some(PageDesc::Free { order }) = self.desc(mem, batch, page)? else {
                return Ok(None);
            };
            let end = page + (1 << order.min(ORDERS as u32));
            if end > self.ext.pages() {
                return Ok(None);
            }
            blocks.push((page, order));
            page = end;
        }
        for (page, order) in blocks {
            self.plan(batch, page, order, false);
        }
        self.plan_free(batch, first + pages, page);
        Ok(Some(first))
    }

    /// Prepares that the pages become free, without joining them with their neighbours: they were part of one block.
    fn plan_free(&mut self, batch: &mut Batch, start: u64, end: u64) {
        for (page, order) in aligned_blocks(start, end) {
            self.plan(batch, page, order, true);
        }
    }

    /// Prepares that the pages, which hold nothing any more, become free.
    pub fn give<M: PoolMemory + ?Sized>(
        &mut self,
        mem: &M,
        batch: &mut Batch,
        start: u64,
        end: u64,
    ) -> Result<(), HeapError> {
        for (mut page, mut order) in aligned_blocks(start, end) {
            loop {
                let buddy = page ^ 1 << order;
                if buddy < self.ext.first_page() || buddy + (1 << order) > self.ext.pages() {
                    break;
                }
                if self.desc(mem, batch, buddy)? != Some(PageDesc::Free { order }) {
                    break;
                }
                self.plan(batch, buddy, order, false);
                page = page.min(buddy);
                order += 1;
            }
            self.plan(batch, page, order, true);
        }
        Ok(())
    }

    /// Prepares that the object at `page` grows from `old` to `new` pages in place; `false`: what follows is not free.
    pub fn extend<M: PoolMemory + ?Sized>(
        &mut self,
        mem: &M,
        batch: &mut Batch,
        page: u64,
        old: u64,
        new: u64,
    ) -> Result<bool, HeapError> {
        let aligned = page & (new.next_power_of_two() - 1) == 0;
        if !(aligned || page == self.ext.first_page()) || page + new > self.ext.pages() {
            return Ok(false);
        }
        let mut blocks = Vec::new();
        let mut at = page + old;
        while at < page + new {
            let block = block_at(mem, self.ext, at)?;
            let Kind::Free { order } = block.kind else {
                return Ok(false);
            };
            blocks.push((at, order));
            at += block.pages;
        }
        for (at, order) in blocks {
            self.plan(batch, at, order, false);
        }
        self.plan_free(batch, page + new, at);
        Ok(true)
    }

    /// Makes the prepared changes; on an error nothing has changed.
    pub fn commit<M: PoolMemory + ?Sized>(
        &mut self,
        mem: &M,
        batch: &mut Batch,
    ) -> Result<(), HeapError> {
        let done = batch.apply(mem);
        batch.clear();
        for m in self.moves.drain(..) {
            if done.is_err() {
                continue;
            }
            if let Some(set) = self.free.get_mut(m.order as usize) {
                if m.insert {
                    set.insert(m.page);
                } else {
                    set.remove(&m.page);
                }
            }
        }
        done
    }

    /// Drops the prepared changes.
    pub fn cancel(&mut self, batch: &mut Batch) {
        batch.clear();
        self.moves.clear();
    }
}

/// `start..end` as blocks aligned to their size: page and order.
pub(crate) fn aligned_blocks(start: u64, end: u64) -> impl Iterator<Item = (u64, u32)> {
    let mut page = start;
    std::iter::from_fn(move || {
        let left = end.checked_sub(page).filter(|n| *n > 0)?;
        let order = page.trailing_zeros().min(left.ilog2());
        let at = page;
        page += 1 << order;
        Some((at, order))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_a_range_without_gaps() {
        for start in 1..70u64 {
            for end in start..140 {
                let mut at = start;
                for (page, order) in aligned_blocks(start, end) {
                    assert_eq!(page, at);
                    assert_eq!(page % (1 << order), 0);
                    at += 1 << order;
                }
                assert_eq!(at, end);
            }
        }
    }
}
