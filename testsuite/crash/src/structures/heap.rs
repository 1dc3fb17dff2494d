//! A first-fit-by-size allocator in a file: its state is ordinary memory.
//!
//! ```text
//! word 0  next unused address     word 1  root of the structure     word 2..10  free lists by size in 8-word steps
//! ```

use crate::session::{Session, Words};

const WORD: u64 = 8;
const ROOT: u64 = WORD;
const FREE: u64 = 2 * WORD;
const CLASSES: u64 = 8;
const FIRST: u64 = 16 * WORD;

/// The heap of one file.
#[derive(Debug, Clone, Copy)]
pub struct Heap {
    file: usize,
    base: u64,
}

impl Heap {
    /// Makes an empty heap in `file`.
    pub fn format(s: &mut Session, file: usize) -> Heap {
        let base = s.base(file);
        s.store(base, base + FIRST);
        Heap { file, base }
    }

    /// The root pointer.
    pub fn root(&self, s: &Session) -> u64 {
        s.load(self.base + ROOT)
    }

    /// Sets the root pointer.
    pub fn set_root(&self, s: &mut Session, addr: u64) {
        s.store(self.base + ROOT, addr);
    }

    /// The root pointer of a heap at `base` in any memory.
    pub fn root_in(memory: &impl Words, base: u64) -> Option<u64> {
        memory.word(base + ROOT)
    }

    /// Memory for `words` words, of any content.
    pub fn alloc(&self, s: &mut Session, words: u64) -> u64 {
        let class = self.class(words);
        let free = s.load(class);
        if free != 0 {
            let next = s.load(free);
            s.store(class, next);
            return free;
        }
        let addr = s.load(self.base);
        let end = addr + words.next_multiple_of(8) * WORD;
        assert!(
            end <= self.base + s.len(self.file),
            "the workload's file is too small"
        );
        s.store(self.base, end);
        addr
    }

    /// Gives memory back.
    pub fn free(&self, s: &mut Session, addr: u64, words: u64) {
        let class = self.class(words);
        let next = s.load(class);
        s.store(addr, next);
        s.store(class, addr);
    }

    fn class(&self, words: u64) -> u64 {
        self.base + FREE + ((words.div_ceil(8) - 1).min(CLASSES - 1)) * WORD
    }
}
