//! The same state in volatile memory, with the collections of std.

use crate::{Change, digest_of};
use std::collections::BTreeMap;

pub struct Twin {
    pub steps: u64,
    tree: BTreeMap<u64, String>,
    texts: Vec<String>,
    samples: Vec<f64>,
    flags: [bool; 64],
}

impl Default for Twin {
    fn default() -> Self {
        Self {
            steps: 0,
            tree: BTreeMap::new(),
            texts: Vec::new(),
            samples: Vec::new(),
            flags: [false; 64],
        }
    }
}

impl Twin {
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Insert { key, text } => drop(self.tree.insert(key, text)),
            Change::Remove { key } => drop(self.tree.remove(&key)),
            Change::Push { text } => self.texts.insert(self.texts.len() / 2, text),
            Change::Take { at, keep_order } => {
                if let Some(at) = (at as usize).checked_rem(self.texts.len()) {
                    if keep_order {
                        self.texts.remove(at);
                    } else {
                        self.texts.swap_remove(at);
                    }
                }
            }
            Change::Rewrite { at, text } => {
                if let Some(at) = (at as usize).checked_rem(self.texts.len()) {
                    self.texts[at] = text + "!";
                }
            }
            Change::Sample { value } => {
                self.samples.push(value);
                if self.samples.len() > 100 {
                    self.samples.truncate(50);
                    self.samples.reverse();
                }
            }
            Change::Flip { at } => {
                let flag = &mut self.flags[at as usize % 64];
                *flag = !*flag;
            }
        }
    }

    pub fn sum(&self) -> u64 {
        digest_of(
            self.steps,
            &mut |visit| self.tree.iter().for_each(|(key, text)| visit(*key, text)),
            &mut self.texts.iter().map(String::as_str),
            &self.samples,
            &self.flags,
        )
    }
}
