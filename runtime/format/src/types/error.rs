//! What can be wrong with a descriptor.

use super::TYPE_VERSION;
use thiserror::Error;

/// Why bytes are no descriptor.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypeError {
    /// Shorter than it says, or longer.
    #[error("type descriptor of {len} bytes: it needs {needed}; the pool or archive is damaged")]
    Length {
        /// Bytes given.
        len: usize,
        /// Bytes that the header asks for, or the least that any descriptor has.
        needed: u64,
    },
    /// Not a descriptor.
    #[error(
        "type descriptor begins with {found:#010x}, not \"VTYP\"; the pool or archive is damaged"
    )]
    Magic {
        /// What stands there.
        found: u32,
    },
    /// From another Vernal.
    #[error(
        "type descriptor of version {found}: this Vernal reads version {TYPE_VERSION}; use a newer one"
    )]
    Version {
        /// Its version.
        found: u16,
    },
    /// A number in the header is out of range.
    #[error(
        "type descriptor of `{name}`: {what} is {value}; compile the program with matching vernal-cc, or the pool is damaged"
    )]
    Header {
        /// The type.
        name: String,
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A string lies outside, or is not printable text.
    #[error(
        "type descriptor: the string at {offset}, {len} bytes, is {what}; the pool or archive is damaged"
    )]
    Text {
        /// From the start of the strings.
        offset: u32,
        /// Its length.
        len: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// A field contradicts the rules.
    #[error(
        "type `{name}`, field `{field}`: {what}; compile the program with matching vernal-cc, or the pool is damaged"
    )]
    Field {
        /// The type.
        name: String,
        /// The field's path.
        field: String,
        /// What is wrong.
        what: &'static str,
    },
    /// Two fields claim the same bytes, and one is an address.
    #[error(
        "type `{name}`: `{first}` and `{second}` overlap, and one of them is an address; annotate the union that holds them"
    )]
    Overlap {
        /// The type.
        name: String,
        /// One field.
        first: String,
        /// The other.
        second: String,
    },
    /// The id does not follow from the content.
    #[error(
        "type descriptor of `{name}`: id {found:#018x}, but its layout gives {computed:#018x}; the pool or archive is damaged"
    )]
    Id {
        /// The type.
        name: String,
        /// What it says.
        found: u64,
        /// What its canonical text hashes to.
        computed: u64,
    },
}
