//! The documents that clients insert: a file of encoded values, the same for every system and language.
//!
//! ```text
//! file      document*
//! document  u32 bytes, value
//! value     0 null │ 1 false │ 2 true │ 3 i64 │ 4 f64 │ 5 text │ 6 u32 n, value* │ 7 u32 n, (text, value)*
//! text      u32 bytes, bytes                                               all little-endian
//! ```

use crate::{Failure, Result};
use std::path::Path;
use std::sync::Arc;

/// An open file of documents.
#[derive(Clone)]
pub struct Source {
    bytes: Arc<Vec<u8>>,
    /// Where each begins, after its length, and where it ends.
    ranges: Arc<Vec<(usize, usize)>>,
}

impl Source {
    /// Reads the whole file.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Failure(format!("{}: {e}", path.display())))?;
        let mut ranges = Vec::new();
        let mut reader = Reader::new(&bytes);
        while !reader.rest.is_empty() {
            let length = reader.u32()? as usize;
            let start = bytes.len() - reader.rest.len();
            reader.take(length)?;
            ranges.push((start, start + length));
        }
        Ok(Self {
            bytes: Arc::new(bytes),
            ranges: Arc::new(ranges),
        })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The encoded document number `id`.
    pub fn document(&self, id: u64) -> Result<&[u8]> {
        let range = self.ranges.get(id as usize);
        range
            .and_then(|&(from, to)| self.bytes.get(from..to))
            .ok_or_else(|| Failure(format!("there is no document {id}")))
    }
}

/// One step of reading a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step<'a> {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Real(f64),
    /// A string.
    Text(&'a str),
    /// An array of so many values, which follow.
    Array(usize),
    /// An object of so many members, each a name ([`Reader::text`]) and a value.
    Object(usize),
}

/// Reads encoded values from front to back.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// From the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next value, or the head of one with parts.
    pub fn step(&mut self) -> Result<Step<'a>> {
        let tag = self.take(1)?[0];
        Ok(match tag {
            0 => Step::Null,
            1 => Step::Bool(false),
            2 => Step::Bool(true),
            3 => Step::Int(self.u64()? as i64),
            4 => Step::Real(f64::from_bits(self.u64()?)),
            5 => Step::Text(self.text()?),
            6 => Step::Array(self.u32()? as usize),
            7 => Step::Object(self.u32()? as usize),
            _ => return Err(Failure(format!("{tag} is no kind of value"))),
        })
    }

    /// A string without a tag.
    pub fn text(&mut self) -> Result<&'a str> {
        let length = self.u32()? as usize;
        std::str::from_utf8(self.take(length)?).map_err(|e| Failure(format!("text: {e}")))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| Failure("a document ends early".to_owned()))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?.try_into();
        Ok(bytes.map(u32::from_le_bytes).unwrap_or_default())
    }

    fn u64(&mut self) -> Result<u64> {
        let bytes = self.take(8)?.try_into();
        Ok(bytes.map(u64::from_le_bytes).unwrap_or_default())
    }
}
