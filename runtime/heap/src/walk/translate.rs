//! From old addresses to new ones.

use std::hint::select_unpredictable;
use thiserror::Error;

/// Most ranges of one [`Translation`]: the puddles of a pool.
pub const MAX_RANGES: usize = vernal_abi::puddle::MAX_PUDDLES;

/// Gives each pointer its new value.
pub trait Translate {
    /// The new value of a pointer; the same for one that does not move.
    fn translate(&self, value: u64) -> u64;

    /// The same, with what is known from the last pointers: most lead to where the one before them leads. A hint belongs to one
    /// translation.
    #[inline(always)]
    fn translate_near(&self, value: u64, _hint: &mut Hint) -> u64 {
        self.translate(value)
    }
}

/// The range that a pointer was found in: first value that means it, bytes from there, and how far it moves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hint {
    from: u64,
    len: u64,
    delta: u64,
}

/// One range that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Where pointers mean it to be.
    pub old: u64,
    /// Where it is.
    pub new: u64,
    /// Its bytes.
    pub len: u64,
}

/// Why ranges are no translation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TranslationError {
    /// More than a pool has puddles.
    #[error("{count} ranges to relocate: a pool has at most {MAX_RANGES} puddles")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// A range that is empty, unaligned or reaches over the end of the address space.
    #[error(
        "{len} bytes from {old:#x} to {new:#x} are no range to relocate: addresses must be aligned to 8 and the range inside the address space"
    )]
    Range {
        /// Old address.
        old: u64,
        /// New address.
        new: u64,
        /// Bytes.
        len: u64,
    },
    /// Two ranges share addresses: the pool's directory is damaged.
    #[error(
        "the ranges at {first:#x} and {second:#x} overlap: the directory of the pool is damaged"
    )]
    Overlap {
        /// One.
        first: u64,
        /// The other.
        second: u64,
    },
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// First value that means this range.
    from: u64,
    start: u64,
    len: u64,
    delta: u64,
}

/// Behind the last range: begins where no pointer points, so that the search never ends here.
const PAD: Entry = Entry {
    from: u64::MAX,
    start: u64::MAX,
    len: 0,
    delta: 0,
};

/// Old to new addresses of at most [`MAX_RANGES`] ranges; everything else stays as it is.
///
/// A pointer one past the end of a range moves with it, even where another range begins: it is the end of an array that ends
/// with its puddle. No object begins where a puddle does, because its headers are there.
#[derive(Debug, Clone)]
pub struct Translation {
    entries: Box<[Entry; MAX_RANGES]>,
    count: usize,
    low: u64,
    span: u64,
    step: usize,
}

impl Translation {
    /// The translation that makes these moves. Moves to the same place may be given.
    pub fn new(moves: &[Move]) -> Result<Translation, TranslationError> {
        if moves.len() > MAX_RANGES {
            return Err(TranslationError::TooMany { count: moves.len() });
        }
        for m in moves {
            let inside = m.old.checked_add(m.len).is_some_and(|e| e < u64::MAX)
                && m.new.checked_add(m.len).is_some_and(|e| e < u64::MAX);
            if !inside || m.len == 0 || (m.old | m.new) % 8 != 0 {
                return Err(TranslationError::Range {
                    old: m.old,
                    new: m.new,
                    len: m.len,
                });
            }
        }
        check_disjoint(moves, |m| m.new)?;
        let sorted = check_disjoint(moves, |m| m.old)?;
        let mut entries = Box::new([PAD; MAX_RANGES]);
        for (entry, m) in entries.iter_mut().zip(&sorted) {
            *entry = Entry {
                from: m.old,
                start: m.old,
                len: m.len,
                delta: m.new.wrapping_sub(m.old),
            };
        }
        for at in 1..sorted.len() {
            if let Some([a, b]) = entries.get_mut(at - 1..=at) {
                b.from += u64::from(a.start + a.len == b.start);
            }
        }
        let low = sorted.first().map_or(0, |m| m.old);
        let high = sorted.last().map_or(0, |m| m.old + m.len);
        Ok(Translation {
            entries,
            count: sorted.len(),
            low,
            span: high - low,
            step: sorted.len().next_power_of_two() / 2,
        })
    }

    /// Back from new to old addresses.
    pub fn inverse(&self) -> Translation {
        let moves: Vec<Move> = self
            .moves()
            .map(|m| Move {
                old: m.new,
                new: m.old,
                len: m.len,
            })
            .collect();
        // New ranges are disjoint and in bounds: `new` has checked them.
        Translation::new(&moves).unwrap_or_else(|_| self.clone())
    }

    /// The ranges, by old address.
    pub fn moves(&self) -> impl Iterator<Item = Move> + '_ {
        self.entries.iter().take(self.count).map(|e| Move {
            old: e.start,
            new: e.start.wrapping_add(e.delta),
            len: e.len,
        })
    }

    /// The entry that a value belongs to, if it belongs to any.
    #[inline(always)]
    fn search(&self, value: u64) -> &Entry {
        let mut at = 0;
        let mut step = self.step;
        // Without branches on the data: pointers of a graph hit the ranges in no order.
        while step > 0 {
            let next = (at + step) % MAX_RANGES;
            at = select_unpredictable(self.entries[next].from <= value, next, at);
            step /= 2;
        }
        &self.entries[at % MAX_RANGES]
    }

    /// Whether the value is far from all ranges: null, and most of what is no pointer of this pool.
    #[inline(always)]
    fn is_outside(&self, value: u64) -> bool {
        self.count == 0 || value.wrapping_sub(self.low) > self.span
    }

    /// Whether nothing moves.
    pub fn is_identity(&self) -> bool {
        self.moves().all(|m| m.old == m.new)
    }
}

impl Translate for Translation {
    #[inline(always)]
    fn translate(&self, value: u64) -> u64 {
        if self.is_outside(value) {
            return value;
        }
        let e = self.search(value);
        let inside = value.wrapping_sub(e.start) <= e.len;
        value.wrapping_add(select_unpredictable(inside, e.delta, 0))
    }

    #[inline(always)]
    fn translate_near(&self, value: u64, hint: &mut Hint) -> u64 {
        // An empty hint holds only 0, which moves nowhere.
        if value.wrapping_sub(hint.from) <= hint.len {
            return value.wrapping_add(hint.delta);
        }
        if self.is_outside(value) {
            return value;
        }
        let e = self.search(value);
        if value.wrapping_sub(e.start) > e.len {
            return value;
        }
        *hint = Hint {
            from: e.from,
            len: e.len - (e.from - e.start),
            delta: e.delta,
        };
        value.wrapping_add(e.delta)
    }
}

/// The moves sorted by `key`, if no two overlap there.
fn check_disjoint(moves: &[Move], key: fn(&Move) -> u64) -> Result<Vec<Move>, TranslationError> {
    let mut sorted = moves.to_vec();
    sorted.sort_by_key(key);
    for pair in sorted.windows(2) {
        if let [a, b] = pair
            && key(b) - key(a) < a.len
        {
            return Err(TranslationError::Overlap {
                first: key(a),
                second: key(b),
            });
        }
    }
    Ok(sorted)
}

/// Old to new addresses of any number of objects or modules: what a migration moves, what a loader has mapped elsewhere.
/// A pointer one past the end does not belong to a range here: the next object may begin there.
#[derive(Debug, Clone, Default)]
pub struct Redirects {
    moves: Vec<Move>,
}

impl Redirects {
    /// The redirection of these ranges, which must not overlap where they were.
    pub fn new(moves: &[Move]) -> Result<Redirects, TranslationError> {
        for m in moves {
            if m.old.checked_add(m.len).is_none() || m.new.checked_add(m.len).is_none() {
                return Err(TranslationError::Range {
                    old: m.old,
                    new: m.new,
                    len: m.len,
                });
            }
        }
        Ok(Redirects {
            moves: check_disjoint(moves, |m| m.old)?,
        })
    }

    /// The new value, if `value` lies in a range.
    pub fn find(&self, value: u64) -> Option<u64> {
        let at = self.moves.partition_point(|m| m.old <= value);
        let m = self.moves.get(at.checked_sub(1)?)?;
        let offset = value - m.old;
        (offset < m.len).then(|| m.new + offset)
    }
}

impl Translate for Redirects {
    fn translate(&self, value: u64) -> u64 {
        self.find(value).unwrap_or(value)
    }
}
