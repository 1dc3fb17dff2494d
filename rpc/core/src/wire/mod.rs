//! A typed graph as bytes, for peers that share no memory.
//!
//! The image is a small heap of its own: objects of one type and size class lie together in spans, as they do in slabs, and each
//! span has an address that follows from its place in the table. So there is nothing new to walk or to trust: encoding is the
//! checked copy of a graph into an image, decoding is the checked copy of an image, which is just another peer's heap, into
//! the receiver's memory. Both are [`vernal_heap::walk::Examiner::copy`], and one set of rules holds for shared memory and wire.
//!
//! ```text
//!   0   magic      u64  "VNGRAPH1"
//!   8   version    u32 · types u32
//!   16  spans      u32 · 0     u32
//!   24  objects    u64
//!   32  length     u64  bytes of the whole, a multiple of 8
//!   40  root       u64  address in the image
//!   48  root type  u64  id
//!   56  checksum   u64  XXH3-64 of the whole, this word taken as zero
//!   64  types      id u64 · bytes of the name u32 · 0 u32 · name, zeros up to a multiple of 8
//!   …   spans      class u8 · type u24 · objects u32 · size u64
//!   …   objects    span after span, without gaps
//! ```
//!
//! Numbers are little-endian. A type of a span is 0 (memory without type) or one more than its place in the table of types. Class
//! 255 is one object of `size` bytes; with any other class `size` is zero, and the objects have the size of the class. Pointers
//! are addresses in the image: [`IMAGE_BASE`] for the first span; each next one begins at the page behind, unless it would cross
//! 2 MiB or a larger power of two.
#![forbid(unsafe_code)]

mod address;
mod decode;
mod encode;
mod error;
mod image;

pub use address::IMAGE_BASE;
pub use decode::Decoder;
pub use encode::{Encoder, Full};
pub use error::WireError;

/// First word.
const MAGIC: u64 = u64::from_le_bytes(*b"VNGRAPH1");
/// This layout.
pub const WIRE_VERSION: u32 = 1;
/// Bytes before the types.
pub const HEADER_BYTES: usize = 64;
/// Where the checksum is.
const CHECKSUM: usize = 56;
/// Bytes of a span's entry.
const SPAN_BYTES: usize = 16;
/// Class of an object that has a span of its own.
const WHOLE: u8 = 0xff;
/// The longest name of a type.
const NAME_MAX: usize = 4096;

/// The checksum of an image, as if its own word were zero.
fn checksum(bytes: &[u8]) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let (before, rest) = bytes.split_at_checked(CHECKSUM).unwrap_or((bytes, &[]));
    hash.update(before);
    hash.update(&[0; 8]);
    hash.update(rest.get(8..).unwrap_or_default());
    hash.digest()
}
