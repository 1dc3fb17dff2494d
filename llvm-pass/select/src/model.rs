//! What the placement needs to know of a function.

/// A function: its reachable blocks (block 0 is the entry), the address bases its stores use, its loops.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Address bases.
    pub keys: Vec<Key>,
    /// Basic blocks; 0 is the entry and has no predecessor.
    pub blocks: Vec<Block>,
    /// Natural loops, an outer loop before the loops inside it.
    pub loops: Vec<Loop>,
}

/// An address base: an SSA value from which stores are addressed by constant offsets.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The object it points into: keys of one root share a range check, because no object straddles the tracked range.
    pub root: u32,
    /// The block that computes the value, if one does: what was stored through the last value must be marked before the
    /// block is entered again.
    pub def: Option<u32>,
}

/// A basic block.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Distinct successors.
    pub succs: Vec<u32>,
    /// What happens in it, in order.
    pub events: Vec<Event>,
}

/// Something that matters to the placement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A store that may reach tracked memory.
    Store(Store),
    /// A point that may commit or publish, leave the function, or unwind.
    Barrier,
}

/// A store to tracked memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Store {
    /// Its address base.
    pub key: u32,
    /// What it writes.
    pub access: Access,
    /// False if the store may not have happened when control passes here (it was moved out of a loop).
    pub certain: bool,
}

/// The bytes that a store writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// `[lo, hi)` from the base. `one_line`: known not to straddle a line.
    Fixed {
        /// First byte.
        lo: i64,
        /// One past the last byte.
        hi: i64,
        /// Whether its alignment keeps it inside one line.
        one_line: bool,
    },
    /// A length that only the emitter knows; the key belongs to this store alone.
    Whole,
}

/// A natural loop.
#[derive(Clone, Debug, Default)]
pub struct Loop {
    /// Its blocks.
    pub blocks: Vec<u32>,
    /// Its exit blocks, if all their predecessors lie in the loop; empty when some exit is shared.
    pub exits: Vec<u32>,
}

impl Function {
    /// Distinct predecessors of every block.
    pub fn preds(&self) -> Vec<Vec<u32>> {
        let mut preds = vec![Vec::new(); self.blocks.len()];
        for (b, block) in self.blocks.iter().enumerate() {
            for &s in &block.succs {
                preds[s as usize].push(b as u32);
            }
        }
        preds
    }
}
