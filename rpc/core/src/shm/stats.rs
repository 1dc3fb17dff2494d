//! What a ring segment says of its own traffic, for tools that look from outside.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::layout::{HEADER_MAGIC, LATENCY, MAGIC, MODE, STATS};
use crate::latency::{Latency, WORDS};
use crate::options::Trust;

/// What the owner of a ring segment has counted. It is its own word for it: a number to show, never one to rely on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingStats {
    /// Messages that it has sent.
    pub sent: u64,
    /// Bytes of texts that did not fit into messages.
    pub text_bytes: u64,
    /// How far it trusts its peer. `None`: it does not say.
    pub trust: Option<Trust>,
    /// Of a client: how long calls took that it waited for. Of a server: how long calls took from when they were read until the
    /// answer was sent. Of all calls few are measured.
    pub latency: Latency,
}

/// The word for how far a side trusts.
pub(super) fn mode_word(trust: Trust) -> u64 {
    match trust {
        Trust::Plain => 1,
        Trust::Verify => 2,
    }
}

fn trust_of(word: u64) -> Option<Trust> {
    [Trust::Plain, Trust::Verify]
        .into_iter()
        .find(|trust| mode_word(*trust) == word)
}

impl RingStats {
    /// Reads them from a segment's file; nothing if it is no ring segment.
    pub fn read(segment: &File) -> io::Result<Option<RingStats>> {
        let mut bytes = [0; 8 * (LATENCY + WORDS)];
        segment.read_exact_at(&mut bytes, 0)?;
        let (words, _) = bytes.as_chunks::<8>();
        let word = |n: usize| words.get(n).map_or(0, |b| u64::from_le_bytes(*b));
        let ours = word(HEADER_MAGIC) == MAGIC;
        Ok(ours.then(|| RingStats {
            sent: word(STATS),
            text_bytes: word(STATS + 2),
            trust: trust_of(word(MODE)),
            latency: Latency::of((LATENCY..LATENCY + WORDS).map(word)),
        }))
    }
}
