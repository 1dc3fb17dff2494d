//! The store: documents in the order of their insertion, and an index of some integer fields.

use super::Value;
use std::collections::HashMap;
use std::ops::Deref;

/// The fields that are indexed. With n documents their values repeat so that a search finds 10, 100 or 1000.
pub const INDEXED: [(&str, u64); 3] = [("per10", 10), ("per100", 100), ("per1000", 1000)];

/// Documents of any memory; `D` owns one, or is a pointer to one.
pub struct Store<D> {
    documents: Vec<D>,
    index: [HashMap<i64, Vec<u32>>; INDEXED.len()],
}

impl<D> Default for Store<D> {
    fn default() -> Self {
        Self {
            documents: Vec::new(),
            index: Default::default(),
        }
    }
}

impl<V: Value, D: Deref<Target = V>> Store<D> {
    /// Adds a document; how many there are now.
    pub fn insert(&mut self, document: D) -> u64 {
        let id = self.documents.len() as u32;
        for ((name, _), index) in INDEXED.iter().zip(&mut self.index) {
            if let Some(value) = document.field(name).and_then(Value::int) {
                index.entry(value).or_default().push(id);
            }
        }
        self.documents.push(document);
        self.documents.len() as u64
    }

    /// The documents whose `field` has `value`, in the order of their insertion.
    pub fn search(&self, field: &str, value: i64) -> impl ExactSizeIterator<Item = &D> {
        let index = INDEXED.iter().position(|(name, _)| *name == field);
        let found = index.and_then(|i| self.index[i].get(&value));
        let found = found.map_or(&[][..], Vec::as_slice);
        found.iter().map(|&id| &self.documents[id as usize])
    }
}

/// The value that search number `i` looks for, among `distinct` ones.
pub fn query_value(seed: u64, i: u64, distinct: u64) -> i64 {
    let x = seed
        .wrapping_add(i)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(31)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x >> 16) % distinct.max(1)) as i64
}

#[cfg(test)]
mod tests {
    use super::super::{Depth, Json, Source, fold, write_documents};
    use super::*;

    fn store(count: u64) -> (Store<Box<Json>>, Source) {
        let file =
            std::env::temp_dir().join(format!("vernal-cooldb-{}-{count}", std::process::id()));
        write_documents(&file, count, 5).unwrap();
        let source = Source::open(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let mut store = Store::default();
        for id in 0..count {
            let document = Json::decode(source.document(id).unwrap()).unwrap();
            assert_eq!(store.insert(Box::new(document)), id + 1);
        }
        (store, source)
    }

    #[test]
    fn a_search_finds_as_many_documents_as_its_field_says() {
        let (store, source) = store(2000);
        assert_eq!(source.len(), 2000);
        for (name, found) in INDEXED {
            let distinct = 2000 / found;
            for i in 0..50 {
                let value = query_value(1, i, distinct);
                let documents: Vec<_> = store.search(name, value).collect();
                assert_eq!(documents.len() as u64, found, "{name} = {value}");
                assert!(
                    documents
                        .iter()
                        .all(|d| d.field(name).unwrap().int() == Some(value))
                );
            }
        }
        assert_eq!(store.search("num", 1).len(), 0);
    }

    #[test]
    fn both_depths_see_a_changed_document() {
        let (store, _) = store(20);
        let found = |value, depth| fold(store.search("per10", value).map(|d| &**d), depth);
        let sums = |depth| found(1, depth);
        let none: [&Json; 0] = [];
        assert_ne!(sums(Depth::Fields), fold(none, Depth::Fields));
        assert_ne!(sums(Depth::Whole), sums(Depth::Fields));
        let other = |depth| found(0, depth);
        assert_ne!(sums(Depth::Fields), other(Depth::Fields));
        assert_ne!(sums(Depth::Whole), other(Depth::Whole));
    }
}
