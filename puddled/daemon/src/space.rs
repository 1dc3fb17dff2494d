//! The addresses that puddled gives to puddles: the upper half of the tracked range for buffered pools, the upper half of the
//! direct space for direct ones. The lower halves belong to pools without a daemon, so that the two never meet. And those of RPC
//! segments: all of the RPC space.

use std::collections::BTreeMap;

use thiserror::Error;
use vernal_abi::puddle::PUDDLE_MIN;
use vernal_abi::{DIRECT_BASE, DIRECT_SIZE, RPC_BASE, RPC_SIZE, TRACKED_BASE, TRACKED_SIZE};
use vernal_puddled_proto::PoolKind;

/// A range that puddles are allocated from.
#[derive(Debug, Clone)]
pub struct Space {
    start: u64,
    end: u64,
    /// Ends of the ranges in use, by their start; they do not overlap.
    used: BTreeMap<u64, u64>,
    /// Where to look first, for a space that is given out in a circle.
    next: Option<u64>,
}

/// A place that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpaceError {
    /// No gap is large enough.
    #[error(
        "no {size} bytes of address space between {start:#x} and {end:#x} are free in one piece: remove a pool, or drop a segment"
    )]
    Full {
        /// What was asked for.
        size: u64,
        /// Where the space begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// Somebody else has it.
    #[error("the puddle at {addr:#x} with {size} bytes overlaps the one at {other:#x}")]
    Overlap {
        /// What was claimed.
        addr: u64,
        /// Its size.
        size: u64,
        /// What is there.
        other: u64,
    },
    /// Not in the space.
    #[error(
        "the puddle at {addr:#x} with {size} bytes lies outside of {start:#x} to {end:#x}, or on no multiple of 2 MiB"
    )]
    Outside {
        /// What was claimed.
        addr: u64,
        /// Its size.
        size: u64,
        /// Where the space begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
}

impl Space {
    /// The empty space for pools of one kind.
    pub fn new(kind: PoolKind) -> Self {
        let (base, size) = match kind {
            PoolKind::Buffered => (TRACKED_BASE, TRACKED_SIZE),
            PoolKind::Direct => (DIRECT_BASE, DIRECT_SIZE),
        };
        Space {
            start: base + size / 2,
            end: base + size,
            used: BTreeMap::new(),
            next: None,
        }
    }

    /// The empty space for RPC segments, which is given out in a circle that begins at `from`: what was given back does not come up
    /// again before all the rest.
    pub fn rpc(from: u64) -> Self {
        Space {
            start: RPC_BASE,
            end: RPC_BASE + RPC_SIZE,
            used: BTreeMap::new(),
            next: Some(from.clamp(RPC_BASE, RPC_BASE + RPC_SIZE)),
        }
    }

    /// Takes a free place of `size` bytes: the lowest one, or in a circle the next one.
    pub fn allocate(&mut self, size: u64) -> Result<u64, SpaceError> {
        let full = SpaceError::Full {
            size,
            start: self.start,
            end: self.end,
        };
        if size == 0 || !size.is_multiple_of(PUDDLE_MIN) {
            return Err(full);
        }
        let first = self.next.unwrap_or(self.start);
        let Some(at) = self.fit(first, size).or_else(|| self.fit(self.start, size)) else {
            return Err(full);
        };
        self.used.insert(at, at + size);
        if let Some(next) = &mut self.next {
            *next = at + size;
        }
        Ok(at)
    }

    /// The lowest free place of `size` bytes at or behind `from`.
    fn fit(&self, from: u64, size: u64) -> Option<u64> {
        let before = self.used.range(..from).next_back();
        let mut at = before.map_or(from, |(_, &end)| end.max(from));
        for (&start, &end) in self.used.range(from..) {
            if start.saturating_sub(at) >= size {
                break;
            }
            at = end;
        }
        (self.end.saturating_sub(at) >= size).then_some(at)
    }

    /// Takes the place of a puddle that has one already.
    pub fn claim(&mut self, addr: u64, size: u64) -> Result<(), SpaceError> {
        let end = addr.checked_add(size).filter(|&end| {
            size != 0
                && addr >= self.start
                && end <= self.end
                && addr.is_multiple_of(PUDDLE_MIN)
                && size.is_multiple_of(PUDDLE_MIN)
        });
        let Some(end) = end else {
            return Err(SpaceError::Outside {
                addr,
                size,
                start: self.start,
                end: self.end,
            });
        };
        if let Some((&other, _)) = self
            .used
            .range(..end)
            .next_back()
            .filter(|&(_, &other_end)| other_end > addr)
        {
            return Err(SpaceError::Overlap { addr, size, other });
        }
        self.used.insert(addr, end);
        Ok(())
    }

    /// Gives a place back.
    pub fn release(&mut self, addr: u64) {
        self.used.remove(&addr);
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.iter().map(|(start, end)| end - start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const M: u64 = PUDDLE_MIN;

    #[test]
    fn halves_and_limits() {
        let mut space = Space::new(PoolKind::Buffered);
        assert_eq!(space.allocate(M).unwrap(), 0x5880_0000_0000);
        let mut direct = Space::new(PoolKind::Direct);
        assert_eq!(direct.allocate(M).unwrap(), 0x5740_0000_0000);
        // Half of the tracked range is 512 GiB: two puddles of 256 GiB do not fit beside a small one.
        assert!(space.allocate(M << 17).is_ok());
        assert!(matches!(
            space.allocate(M << 17),
            Err(SpaceError::Full { .. })
        ));
        assert!(space.claim(TRACKED_BASE, M).is_err());
        assert!(space.claim(0x5880_0000_0000, M).is_err());
        assert!(space.claim(u64::MAX - M + 1, M).is_err());
        assert!(space.claim(0x58f0_0000_0001, M).is_err());
    }

    #[test]
    fn a_circle_comes_back_to_what_is_free() {
        let end = RPC_BASE + RPC_SIZE;
        let mut space = Space::rpc(end - 2 * M);
        let last = space.allocate(M).unwrap();
        assert_eq!(last, end - 2 * M);
        // Too large for the rest: the circle begins again, and the rest is not lost.
        let first = space.allocate(2 * M).unwrap();
        assert_eq!(first, RPC_BASE);
        assert_eq!(space.allocate(M).unwrap(), RPC_BASE + 2 * M);
        space.release(first);
        let middle = space.allocate((RPC_SIZE - 5 * M) & !(M - 1)).unwrap();
        assert_eq!(middle, RPC_BASE + 3 * M);
        assert_eq!(space.allocate(M).unwrap(), end - M);
        assert_eq!(space.allocate(2 * M).unwrap(), first);
        assert!(matches!(space.allocate(M), Err(SpaceError::Full { .. })));
        assert_eq!(space.used(), RPC_SIZE);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn places_never_overlap(circle in any::<bool>(), ops in proptest::collection::vec((any::<bool>(), 0u32..6, any::<usize>()), 1..200)) {
            let empty = || if circle { Space::rpc(RPC_BASE + RPC_SIZE - 50 * M) } else { Space::new(PoolKind::Direct) };
            let mut space = empty();
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (free, shift, pick) in ops {
                if free && !live.is_empty() {
                    let (addr, _) = live.swap_remove(pick % live.len());
                    space.release(addr);
                } else {
                    let size = M << shift;
                    let addr = space.allocate(size).unwrap();
                    prop_assert!(live.iter().all(|&(a, s)| addr + size <= a || a + s <= addr));
                    prop_assert!(space.claim(addr, M).is_err());
                    live.push((addr, size));
                }
                prop_assert_eq!(space.used(), live.iter().map(|l| l.1).sum::<u64>());
            }
            // A registry with these puddles gives the same space again.
            let mut again = empty();
            for &(addr, size) in &live {
                again.claim(addr, size).unwrap();
            }
            prop_assert_eq!(again.used, space.used);
        }
    }
}
