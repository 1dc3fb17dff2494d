//! Documents in ordinary memory.

use super::{Kind, Reader, Step, Value};
use crate::Result;

/// A JSON value of Rust's own types.
#[derive(Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Real(f64),
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// From its encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::read(&mut Reader::new(bytes))
    }

    fn read(reader: &mut Reader) -> Result<Self> {
        Ok(match reader.step()? {
            Step::Null => Self::Null,
            Step::Bool(b) => Self::Bool(b),
            Step::Int(i) => Self::Int(i),
            Step::Real(r) => Self::Real(r),
            Step::Text(t) => Self::Text(t.to_owned()),
            Step::Array(n) => {
                let items = (0..n).map(|_| Self::read(reader)).collect::<Result<_>>()?;
                Self::Array(items)
            }
            Step::Object(n) => {
                let mut fields = Vec::with_capacity(n.min(1024));
                for _ in 0..n {
                    let name = reader.text()?.to_owned();
                    fields.push((name, Self::read(reader)?));
                }
                Self::Object(fields)
            }
        })
    }
}

impl Value for Json {
    fn kind(&self) -> Kind<'_> {
        match self {
            Self::Null => Kind::Null,
            Self::Bool(b) => Kind::Bool(*b),
            Self::Int(i) => Kind::Int(*i),
            Self::Real(r) => Kind::Real(*r),
            Self::Text(t) => Kind::Text(t.as_bytes()),
            Self::Array(_) => Kind::Array,
            Self::Object(_) => Kind::Object,
        }
    }

    fn items(&self) -> impl Iterator<Item = &Self> {
        match self {
            Self::Array(items) => items.iter(),
            _ => [].iter(),
        }
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &Self)> {
        let fields = match self {
            Self::Object(fields) => fields.as_slice(),
            _ => &[],
        };
        fields.iter().map(|(name, value)| (name.as_bytes(), value))
    }
}
