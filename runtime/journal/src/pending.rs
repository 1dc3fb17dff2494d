//! What asynchronous commits have recorded and the homes do not have yet.
//!
//! A home may not change before the record is durable, and the next commit must be compared with the *committed* state:
//! the home with these words over it. Only commits that follow an unflushed one come here.

use crate::builder::RecordBuilder;
use vernal_format::{Entry, WORDS_PER_LINE};

const FREE: u32 = u32::MAX;

/// Words of one line that are newer than its home.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingLine {
    pub line: u64,
    pub mask: u8,
    /// Valid where `mask` says so.
    pub words: [u64; 8],
}

/// Pending lines by line number: open addressing, kept allocated.
#[derive(Debug)]
pub(crate) struct Pending {
    lines: Vec<PendingLine>,
    /// Index into `lines`, or FREE; a power of two in length, at most half full.
    table: Vec<u32>,
}

impl Pending {
    pub fn new() -> Self {
        Pending {
            lines: Vec::new(),
            table: vec![FREE; 256],
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub fn lines(&self) -> &[PendingLine] {
        &self.lines
    }

    pub fn clear(&mut self) {
        if !self.lines.is_empty() {
            self.table.fill(FREE);
            self.lines.clear();
        }
    }

    /// The place of `line` in the table, or the free place where it belongs.
    fn find(&self, line: u64) -> usize {
        let mask = self.table.len() - 1;
        let mut at = (line.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        while self.table[at] != FREE && self.lines[self.table[at] as usize].line != line {
            at = (at + 1) & mask;
        }
        at
    }

    /// The committed content of a line whose home is `home`.
    pub fn committed(&self, line: u64, home: &[u64; 8]) -> [u64; 8] {
        let mut words = *home;
        if let Some(p) = self.lines.get(self.table[self.find(line)] as usize) {
            for (i, word) in words.iter_mut().enumerate() {
                if p.mask >> i & 1 == 1 {
                    *word = p.words[i];
                }
            }
        }
        words
    }

    /// Takes over the lines of a record.
    pub fn absorb(&mut self, record: &RecordBuilder) {
        for entry in record.entries().flatten() {
            match entry {
                Entry::Line { line, mask, words } => self.absorb_line(line, mask, words),
                Entry::Run { line, words } => {
                    for (line, words) in (line..).zip(words.chunks_exact(WORDS_PER_LINE)) {
                        self.absorb_line(line, u8::MAX, words);
                    }
                }
                Entry::SetLen { .. } => {}
            }
        }
    }

    fn absorb_line(&mut self, line: u64, mask: u8, words: &[u64]) {
        if self.lines.len() * 2 >= self.table.len() {
            self.rehash();
        }
        let at = self.find(line);
        if self.table[at] == FREE {
            self.table[at] = self.lines.len() as u32;
            self.lines.push(PendingLine {
                line,
                mask: 0,
                words: [0; 8],
            });
        }
        let pending = &mut self.lines[self.table[at] as usize];
        pending.mask |= mask;
        let mut rest = mask;
        for word in words {
            pending.words[rest.trailing_zeros() as usize] = u64::from_le(*word);
            rest &= rest.wrapping_sub(1);
        }
    }

    fn rehash(&mut self) {
        self.table = vec![FREE; self.table.len() * 2];
        for i in 0..self.lines.len() {
            let at = self.find(self.lines[i].line);
            self.table[at] = i as u32;
        }
    }
}
