//! CoolDB: a store of JSON documents, searched by the values of fields. The documents lie in whatever memory a system has
//! for them; the store and the readers are the same.

mod json;
mod nobench;
mod source;
mod store;

pub use json::Json;
pub use nobench::write_documents;
pub use source::{Reader, Source, Step};
pub use store::{INDEXED, Store, query_value};

use crate::{Failure, Result};

/// A JSON value in some memory.
pub trait Value: Sized {
    /// What it is.
    fn kind(&self) -> Kind<'_>;
    /// The elements of an array; none for anything else.
    fn items(&self) -> impl Iterator<Item = &Self>;
    /// The members of an object; none for anything else.
    fn fields(&self) -> impl Iterator<Item = (&[u8], &Self)>;

    /// The member of an object called `name`: objects are searched, as JSON libraries for small objects do.
    fn field(&self, name: &str) -> Option<&Self> {
        self.fields()
            .find(|(n, _)| *n == name.as_bytes())
            .map(|(_, value)| value)
    }

    /// The integer that it is.
    fn int(&self) -> Option<i64> {
        match self.kind() {
            Kind::Int(value) => Some(value),
            _ => None,
        }
    }
}

/// The kinds of JSON values; integers are kept apart from other numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind<'a> {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Real(f64),
    /// A string.
    Text(&'a [u8]),
    /// An array.
    Array,
    /// An object.
    Object,
}

/// What a client reads of the documents that it has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Two numbers, one of them nested, and the head of a string.
    Fields,
    /// Every word.
    Whole,
}

impl Depth {
    /// By its name in the protocol.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "fields" => Ok(Self::Fields),
            "whole" => Ok(Self::Whole),
            _ => Err(Failure(format!(
                "depth {name:?} is neither fields nor whole"
            ))),
        }
    }

    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fields => "fields",
            Self::Whole => "whole",
        }
    }
}

/// A sum that depends on each document and on their order. `cpp/store.hpp` computes the same.
pub fn fold<'a, V: Value + 'a>(documents: impl IntoIterator<Item = &'a V>, depth: Depth) -> u64 {
    documents.into_iter().fold(0, |sum, document| {
        let one = match depth {
            Depth::Fields => some_fields(document),
            Depth::Whole => whole(document, 0),
        };
        mix(sum, one)
    })
}

fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
}

fn some_fields<V: Value>(document: &V) -> u64 {
    let num = document.field("num").and_then(Value::int).unwrap_or(-1);
    let nested = document
        .field("nested_obj")
        .and_then(|o| o.field("num"))
        .and_then(Value::int);
    let head = match document.field("str1").map(Value::kind) {
        Some(Kind::Text(text)) => word(text.get(..8).unwrap_or(text)),
        _ => 0,
    };
    mix(mix(num as u64, nested.unwrap_or(-1) as u64), head)
}

/// Up to eight bytes as a word, little-endian.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

fn text(sum: u64, bytes: &[u8]) -> u64 {
    bytes
        .chunks(8)
        .fold(mix(sum, bytes.len() as u64), |sum, chunk| {
            mix(sum, word(chunk))
        })
}

fn whole<V: Value>(value: &V, sum: u64) -> u64 {
    match value.kind() {
        Kind::Null => mix(sum, 0),
        Kind::Bool(b) => mix(sum, 1 + u64::from(b)),
        Kind::Int(i) => mix(mix(sum, 3), i as u64),
        Kind::Real(r) => mix(mix(sum, 4), r.to_bits()),
        Kind::Text(t) => text(mix(sum, 5), t),
        Kind::Array => value
            .items()
            .fold(mix(sum, 6), |sum, item| whole(item, sum)),
        Kind::Object => value.fields().fold(mix(sum, 7), |sum, (name, value)| {
            whole(value, text(sum, name))
        }),
    }
}
