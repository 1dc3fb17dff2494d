//! What each workload's structure must contain after n operations: written independently of the C programs.

use std::collections::BTreeMap;

/// Keys of the B-tree and of the hash table, as in the C sources.
const TREE_KEYS: u64 = 96;
const TABLE_KEYS: u64 = 128;
const LONGEST: u64 = 200;

/// One of the programs under `workloads/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// A doubly linked list.
    List,
    /// A B-tree of order 8.
    Btree,
    /// A growing hash table with values of changing length.
    Kv,
}

impl Workload {
    /// All of them.
    pub const ALL: [Workload; 3] = [Workload::List, Workload::Btree, Workload::Kv];

    /// The name of its source, without `.c`.
    pub fn name(self) -> &'static str {
        match self {
            Workload::List => "list",
            Workload::Btree => "btree",
            Workload::Kv => "kv",
        }
    }
}

/// The contents after some number of operations.
#[derive(Clone)]
pub struct Model {
    workload: Workload,
    seed: u64,
    done: u64,
    list: Vec<(u64, u64)>,
    tree: BTreeMap<u64, u64>,
    table: BTreeMap<u64, String>,
}

impl Model {
    /// The empty structure.
    pub fn new(workload: Workload, seed: u64) -> Model {
        Model {
            workload,
            seed,
            done: 0,
            list: Vec::new(),
            tree: BTreeMap::new(),
            table: BTreeMap::new(),
        }
    }

    /// Does operations until `n` are done.
    pub fn advance(&mut self, n: u64) {
        while self.done < n {
            self.done += 1;
            self.apply(self.done);
        }
    }

    /// The lines that a dump must print, in order; those of the hash table are compared sorted.
    pub fn lines(&self) -> Vec<String> {
        match self.workload {
            Workload::List => self.list.iter().map(|(k, v)| format!("{k} {v}")).collect(),
            Workload::Btree => self.tree.iter().map(|(k, v)| format!("{k} {v}")).collect(),
            Workload::Kv => {
                let mut lines: Vec<String> =
                    self.table.iter().map(|(k, v)| format!("{k} {v}")).collect();
                lines.sort();
                lines
            }
        }
    }

    /// Whether `lines` is what [`Model::lines`] says.
    pub fn matches(&self, lines: &[&str]) -> bool {
        let mut found = lines.to_vec();
        if self.workload == Workload::Kv {
            found.sort_unstable();
        }
        self.lines() == found
    }

    fn draw(&self, n: u64, index: u64) -> u64 {
        let step = (n * 8 + index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        crate::rng::mix(self.seed.wrapping_add(step))
    }

    fn apply(&mut self, n: u64) {
        let (kind, which, value) = (self.draw(n, 0) % 8, self.draw(n, 1), self.draw(n, 2));
        match self.workload {
            Workload::List => {
                let count = self.list.len() as u64;
                let index = which.checked_rem(count).unwrap_or(0) as usize;
                match kind {
                    _ if count == 0 => self.list.push((n, value)),
                    0..2 => self.list.insert(0, (n, value)),
                    2..4 => self.list.push((n, value)),
                    4..6 => self.list[index].1 = value,
                    _ => {
                        self.list.remove(index);
                    }
                }
            }
            Workload::Btree => {
                let key = which % TREE_KEYS;
                if kind < 5 {
                    self.tree.insert(key, value);
                } else {
                    self.tree.remove(&key);
                }
            }
            Workload::Kv => {
                let key = which % TABLE_KEYS;
                if kind >= 6 {
                    self.table.remove(&key);
                    return;
                }
                let length = 48 + (self.draw(n, 3) % (LONGEST - 48)) as usize;
                let letter = char::from(b'a' + (value % 26) as u8);
                let mut text = format!("{key}.{n}.");
                text.extend(std::iter::repeat_n(letter, length - text.len()));
                self.table.insert(key, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_depend_on_the_seed_and_their_number_alone() {
        for workload in Workload::ALL {
            let (mut at_once, mut in_steps) = (Model::new(workload, 3), Model::new(workload, 3));
            at_once.advance(200);
            for n in [1, 50, 51, 200] {
                in_steps.advance(n);
            }
            assert_eq!(at_once.lines(), in_steps.lines());
            let mut other = Model::new(workload, 4);
            other.advance(200);
            assert_ne!(at_once.lines(), other.lines());
        }
    }
}
