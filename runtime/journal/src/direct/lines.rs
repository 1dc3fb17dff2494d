//! Which bytes of which lines a transaction has logged: for logging nothing twice, and for writing every line back once.

/// One line of a transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// Its address.
    pub addr: u64,
    /// A bit for each byte that an undo entry holds.
    pub logged: u64,
}

/// A set of lines, emptied in constant time: a table of places in a dense list, each stamped with the round it is of.
#[derive(Debug)]
pub(super) struct Lines {
    list: Vec<Line>,
    /// Stamp in the upper half, place in `list` in the lower.
    table: Vec<u64>,
    stamp: u32,
}

const INITIAL: usize = 256;

impl Lines {
    pub fn new() -> Lines {
        Lines {
            list: Vec::with_capacity(INITIAL / 2),
            table: vec![0; INITIAL],
            stamp: 1,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Line> {
        self.list.iter()
    }

    pub fn clear(&mut self) {
        self.list.clear();
        match self.stamp.checked_add(1) {
            Some(next) => self.stamp = next,
            None => {
                // A stamp that comes round must not find marks of its last time.
                self.table.fill(0);
                self.stamp = 1;
            }
        }
    }

    /// The line at `addr`, a multiple of 64.
    #[inline]
    pub fn line(&mut self, addr: u64) -> &mut Line {
        let at = self.find(addr);
        &mut self.list[at]
    }

    #[inline]
    fn find(&mut self, addr: u64) -> usize {
        // What was touched last is touched again most often.
        if let Some(last) = self.list.last()
            && last.addr == addr
        {
            return self.list.len() - 1;
        }
        if self.list.len() * 2 >= self.table.len() {
            self.grow();
        }
        let mask = self.table.len() - 1;
        let mut slot = Self::hash(addr) & mask;
        loop {
            let mark = self.table[slot];
            if (mark >> 32) as u32 != self.stamp {
                break;
            }
            let at = mark as u32 as usize;
            if self.list[at].addr == addr {
                return at;
            }
            slot = (slot + 1) & mask;
        }
        self.table[slot] = u64::from(self.stamp) << 32 | self.list.len() as u64;
        self.list.push(Line { addr, logged: 0 });
        self.list.len() - 1
    }

    #[cold]
    fn grow(&mut self) {
        let mask = self.table.len() * 2 - 1;
        self.table.clear();
        self.table.resize(mask + 1, 0);
        for (i, line) in self.list.iter().enumerate() {
            let mut slot = Self::hash(line.addr) & mask;
            while self.table[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            self.table[slot] = u64::from(self.stamp) << 32 | i as u64;
        }
    }

    #[inline]
    fn hash(addr: u64) -> usize {
        ((addr >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn behaves_like_a_map_through_growth_and_rounds() {
        let mut lines = Lines::new();
        for round in 0..50u64 {
            let mut model: HashMap<u64, u64> = HashMap::new();
            let mut x = round + 1;
            for _ in 0..round * 40 {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (addr, bit) = ((x >> 33) % 700 * 64, 1 << ((x >> 50) % 64));
                lines.line(addr).logged |= bit;
                *model.entry(addr).or_default() |= bit;
            }
            let found: HashMap<u64, u64> = lines.iter().map(|l| (l.addr, l.logged)).collect();
            assert_eq!(found, model, "round {round}");
            assert_eq!(lines.iter().count(), model.len());
            lines.clear();
            assert!(lines.is_empty());
        }
    }

    #[test]
    fn a_stamp_that_comes_round_finds_nothing_old() {
        let mut lines = Lines::new();
        lines.line(64).logged = 5;
        lines.line(128);
        lines.clear();
        lines.stamp = u32::MAX;
        lines.line(64).logged = 9;
        lines.line(128);
        lines.clear();
        assert_eq!(lines.line(64).logged, 0);
    }
}
