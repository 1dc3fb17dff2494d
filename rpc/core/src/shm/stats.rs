//! What a ring segment says of its own traffic, for tools that look from outside.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::layout::{HEADER_MAGIC, MAGIC, STATS};

/// What the owner of a ring segment has counted. It is its own word for it: a number to show, never one to rely on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Messages that it has sent.
    pub sent: u64,
    /// Bytes of texts that did not fit into messages.
    pub text_bytes: u64,
}

impl RingStats {
    /// Reads them from a segment's file; nothing if it is no ring segment.
    pub fn read(segment: &File) -> io::Result<Option<RingStats>> {
        let mut bytes = [0; 8 * (STATS + 8)];
        segment.read_exact_at(&mut bytes, 0)?;
        let (words, _) = bytes.as_chunks::<8>();
        let word = |n: usize| words.get(n).map_or(0, |b| u64::from_le_bytes(*b));
        let ours = word(HEADER_MAGIC) == MAGIC;
        Ok(ours.then(|| RingStats {
            sent: word(STATS),
            text_bytes: word(STATS + 2),
        }))
    }
}
