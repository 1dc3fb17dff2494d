//! Archives: one pool as a stream of bytes that another machine can import.
//!
//! ```text
//!      0   header     4096   fixed layout: magic, version, ABI, length and checksum of the manifest
//!   4096   manifest   what the pool is: puddles with their extents, types, modules; zero-padded to a page
//!      m   data       the extents of each puddle, in order; every extent starts on a page
//!      t   trailer    totals, and a checksum for each chunk that has data
//! ```
//!
//! An archive can be written to a pipe and read from one: nothing refers backwards except the trailer, whose length
//! follows from the manifest. All parsers here take hostile bytes. Checksums are XXH3-64: they find decay and cut-off
//! transfers, and stop nobody who can change an archive.

mod error;
mod header;
mod manifest;
mod trailer;
mod wire;

pub use error::ArchiveError;
pub use header::{ArchiveHeader, DataLayout, HEADER_LEN};
pub use manifest::{
    ArchivedPuddle, ArchivedType, Extent, MANIFEST_MAX, MAX_ARCHIVED_TYPES, MAX_EXTENTS, MAX_LABEL,
    Manifest, PoolMode, StoredChunk,
};
pub use trailer::Trailer;

/// Everything in an archive starts at a multiple of this.
pub const ARCHIVE_PAGE: u64 = 4096;

/// `len`, rounded up to whole pages; `None` beyond 2^64.
pub fn pages_of(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(ARCHIVE_PAGE)
}

/// The checksum of archived bytes, for those who compute it piece by piece.
pub type ChunkSum = xxhash_rust::xxh3::Xxh3Default;

/// A fresh [`ChunkSum`].
pub fn chunk_sum() -> ChunkSum {
    ChunkSum::new()
}

/// The checksum of bytes that lie in one piece: the same as [`ChunkSum`] gives.
pub fn sum_of(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}
