//! Text in a pool.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use super::persist::Persist;
use super::tx::Tx;
use super::vec::PVec;
use crate::error::Error;
use crate::layout::{self, Collector, Demands, Shape};

/// `String` in a pool: 24 bytes and its text. Reads are those of `str`.
#[repr(transparent)]
#[derive(Default)]
pub struct PString<'p> {
    /// UTF-8.
    bytes: PVec<'p, u8>,
}

// SAFETY: as the vector in it.
unsafe impl<'p> Persist for PString<'p> {
    type At<'q> = PString<'q>;
    fn name() -> String {
        "vernal::PString".to_owned()
    }
    fn shape() -> Shape {
        layout::record::<Self>(vec![layout::member::<PVec<'p, u8>>("bytes", 0)])
    }
    fn collect(types: &mut Collector) {
        if types.enter::<Self>() {
            types.pointee::<u8>();
        }
    }
    fn demand(at: u64, demands: &mut Demands) {
        <PVec<'p, u8>>::demand(at, demands);
    }
}

impl<'p> PString<'p> {
    /// An empty string, without memory of its own.
    pub const fn new() -> Self {
        Self { bytes: PVec::new() }
    }

    /// Appends text.
    pub fn push_str(&mut self, tx: &Tx<'p>, text: &str) -> Result<(), Error> {
        // A failure in between must not leave half a character.
        self.bytes.reserve(tx, text.len())?;
        let before = self.bytes.len();
        self.bytes
            .extend(tx, text.bytes())
            .inspect_err(|_| self.bytes.truncate(before))
    }

    /// Replaces the text.
    pub fn set(&mut self, tx: &Tx<'p>, text: &str) -> Result<(), Error> {
        self.bytes.clear();
        self.push_str(tx, text)
    }

    /// Empties it; keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // SAFETY: only whole texts are appended.
        unsafe { std::str::from_utf8_unchecked(&self.bytes) }
    }
}

impl Deref for PString<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}
impl Borrow<str> for PString<'_> {
    fn borrow(&self) -> &str {
        self
    }
}
impl fmt::Debug for PString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}
impl fmt::Display for PString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}
impl<'q> PartialEq<PString<'q>> for PString<'_> {
    fn eq(&self, other: &PString<'q>) -> bool {
        self.as_str() == other.as_str()
    }
}
impl Eq for PString<'_> {}
impl PartialEq<str> for PString<'_> {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}
impl PartialEq<&str> for PString<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}
impl PartialOrd for PString<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for PString<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}
impl Hash for PString<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}
