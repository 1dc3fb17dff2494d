//! Type descriptors: what a compiler says about the layout of a type, as bytes that pools and archives keep.
//!
//! A descriptor is a small little-endian blob without pointers: a header, one entry per leaf field, and the strings.
//! Compilers build one with [`TypeBuilder`], so that C, C++ and Rust agree on every byte that counts; everything else
//! reads it through [`TypeDesc::parse`], which accepts any bytes and validates all of them once. `docs/format.md`
//! draws the layout.

mod build;
mod check;
mod desc;
mod error;
mod shape;
mod text;

pub use build::{BuildError, TypeBuilder};
pub use desc::{Field, FieldKind, TypeDesc};
pub use error::TypeError;
pub use shape::{Member, Shape};
pub use text::{canonical_text, diff, type_id};

/// First word of a descriptor, "VTYP".
pub const TYPE_MAGIC: u32 = 0x5059_5456;
/// Version of the descriptor's layout.
pub const TYPE_VERSION: u16 = 1;
/// Bytes of the header, and of each field.
pub const TYPE_HEADER_LEN: usize = 48;
/// Bytes of one field.
pub const TYPE_FIELD_LEN: usize = 48;
/// Fields of one type. What has more is refused by name.
pub const MAX_TYPE_FIELDS: usize = 4096;
/// Bytes of one descriptor.
pub const MAX_TYPE_LEN: usize = 1 << 20;
/// Bytes of one object of a type: the largest puddle.
pub const MAX_TYPE_SIZE: u64 =
    vernal_abi::puddle::PUDDLE_MIN << vernal_abi::puddle::PUDDLE_MAX_SHIFT;
/// Alignment of a type.
pub const MAX_TYPE_ALIGN: u32 = 1 << 21;

/// Flags of a descriptor. Each follows from the fields, and a descriptor whose flags do not is refused.
pub mod type_flags {
    /// Some field is the pointer to a vtable.
    pub const POLYMORPHIC: u16 = 1;
    /// Ends in a flexible array member.
    pub const FLEXIBLE: u16 = 2;
    /// Holds no pointers of any kind.
    pub const OPAQUE: u16 = 4;
    /// Some field is refused: objects of this type cannot be allocated.
    pub const REFUSED: u16 = 8;
}

/// Flags of a field.
pub mod field_flags {
    /// Repeats every `stride` bytes to the end of the object.
    pub const FLEX: u16 = 1;
    /// The program's annotation, not its type, says what this is.
    pub const ANNOTATED: u16 = 2;
}

/// Why a field is refused: its target name is one of these, so that all compilers name a cause alike.
pub mod refusal {
    /// A union whose members disagree about where pointers are.
    pub const UNION: &str = "union without annotation";
    /// An integer that an annotation or a type says is a pointer in disguise.
    pub const TAGGED: &str = "tagged pointer";
    /// A pointer that is not aligned to 8 bytes in every object.
    pub const UNALIGNED: &str = "unaligned pointer";
    /// A pointer to a member function: 16 bytes that may be an address or an index.
    pub const MEMBER_FUNCTION: &str = "pointer to member function";
    /// The type has more leaf fields than a descriptor holds.
    pub const TOO_MANY_FIELDS: &str = "more than 4096 fields";
    /// The compiler does not say what is inside.
    pub const UNKNOWN: &str = "type without layout";
}
