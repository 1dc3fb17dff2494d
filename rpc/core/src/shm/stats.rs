//! What a ring segment says of its own traffic, for tools that look from outside.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::layout::{HEADER_MAGIC, LATENCY, MAGIC, MODE, STATS};
use super::link::Limits;
use crate::latency::{Latency, WORDS};
use crate::options::{Sandbox, Trust};

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
    /// Where it runs handlers, if it is a server.
    pub sandbox: Sandbox,
    /// Of a client: how long calls took that it waited for. Of a server: how long calls took from when they were read until the
    /// answer was sent. Of all calls few are measured.
    pub latency: Latency,
}

/// Set in the word for how far a side trusts, if its handlers run in helper processes.
const HELPERS: u64 = 1 << 8;

/// The word for how far a side trusts.
pub(super) fn mode_word(limits: &Limits) -> u64 {
    let helpers = if limits.lends { HELPERS } else { 0 };
    trust_word(limits.trust) | helpers
}

fn trust_word(trust: Trust) -> u64 {
    match trust {
        Trust::Plain => 1,
        Trust::Verify => 2,
    }
}

fn trust_of(word: u64) -> Option<Trust> {
    [Trust::Plain, Trust::Verify]
        .into_iter()
        .find(|trust| trust_word(*trust) == word & 0xff)
}

/// Where handlers run, of a side that says how far it trusts.
fn sandbox_of(word: u64) -> Sandbox {
    match word & HELPERS {
        0 => Sandbox::None,
        _ => Sandbox::Process,
    }
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
            sandbox: sandbox_of(word(MODE)),
            latency: Latency::of((LATENCY..LATENCY + WORDS).map(word)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Types;
    use vernal_heap::walk::Budget;

    #[test]
    fn modes_come_back_and_others_are_not_guessed() {
        for trust in [Trust::Plain, Trust::Verify] {
            for lends in [false, true] {
                let limits = Limits {
                    trust,
                    budget: Budget::default(),
                    types: Types::Program,
                    lends,
                };
                let word = mode_word(&limits);
                assert_eq!(trust_of(word), Some(trust));
                assert_eq!(sandbox_of(word) == Sandbox::Process, lends);
            }
        }
        for word in [0, 3, 0x100, u64::MAX] {
            assert_eq!(trust_of(word), None);
        }
    }
}
