//! The addresses that puddled gives to puddles: the upper half of the tracked range for buffered pools, the upper half of the
//! direct space for direct ones. The lower halves belong to pools without a daemon, so that the two never meet.

use std::collections::BTreeMap;

use thiserror::Error;
use vernal_abi::puddle::PUDDLE_MIN;
use vernal_abi::{DIRECT_BASE, DIRECT_SIZE, TRACKED_BASE, TRACKED_SIZE};
use vernal_puddled_proto::PoolKind;

/// A range that puddles are allocated from.
#[derive(Debug, Clone)]
pub struct Space {
    start: u64,
    end: u64,
    /// Ends of the ranges in use, by their start; they do not overlap.
    used: BTreeMap<u64, u64>,
}

/// A place that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpaceError {
    /// No gap is large enough.
    #[error(
        "no {size} bytes of address space between {start:#x} and {end:#x} are free in one piece: remove a pool"
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
        }
    }

    /// Takes the lowest free place of `size` bytes.
    pub fn allocate(&mut self, size: u64) -> Result<u64, SpaceError> {
        let full = SpaceError::Full {
            size,
            start: self.start,
            end: self.end,
        };
        if size == 0 || !size.is_multiple_of(PUDDLE_MIN) {
            return Err(full);
        }
        let mut at = self.start;
        for (&start, &end) in &self.used {
            if start.saturating_sub(at) >= size {
                break;
            }
            at = end;
        }
        if self.end.saturating_sub(at) < size {
            return Err(full);
        }
        self.used.insert(at, at + size);
        Ok(at)
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

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn places_never_overlap(ops in proptest::collection::vec((any::<bool>(), 0u32..6, any::<usize>()), 1..200)) {
            let mut space = Space::new(PoolKind::Direct);
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
            let mut again = Space::new(PoolKind::Direct);
            for &(addr, size) in &live {
                again.claim(addr, size).unwrap();
            }
            prop_assert_eq!(again.used, space.used);
        }
    }
}
