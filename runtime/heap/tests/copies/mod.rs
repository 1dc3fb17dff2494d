//! Takes the copies of a graph into another space.
#![allow(dead_code, reason = "each test uses its own part")]

use super::space::Space;
use vernal_format::types::TypeDesc;
use vernal_heap::walk::CopyTarget;
use vernal_heap::{Object, ObjectSpace, TYPE_RAW};

/// Takes the copies of a graph.
pub struct Into<'a>(pub &'a mut Space);

impl CopyTarget for Into<'_> {
    type Error = String;
    fn allocate(&mut self, object: &Object, desc: Option<&TypeDesc>) -> Result<u64, String> {
        assert!(desc.is_some() || object.type_index == TYPE_RAW);
        self.0
            .alloc(0, object.size, object.type_index)
            .ok_or("full".to_string())
    }
    fn write(&mut self, addr: u64, words: &[u64]) -> Result<(), String> {
        assert_eq!(self.0.object_at(addr).unwrap().size, words.len() as u64 * 8);
        for (i, w) in words.iter().enumerate() {
            self.0.set(addr + i as u64 * 8, *w);
        }
        Ok(())
    }
}
