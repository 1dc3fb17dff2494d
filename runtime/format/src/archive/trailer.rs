//! The end of an archive: totals, and the checksums of its chunks.

use super::wire::{Reader, Writer};
use super::{ARCHIVE_PAGE, ArchiveError, Manifest};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: u64 = u64::from_le_bytes(*b"VRNLAEND");
/// Bytes before the checksums.
const HEAD: u64 = 32;
/// First byte that the checksum covers.
const SUMMED_FROM: usize = 16;

/// ```text
///   0  magic        8   "VRNLAEND"
///   8  checksum     8   XXH3-64 of everything behind it, padding included
///  16  stored       8   bytes of all extents
///  24  chunks       8   how many checksums follow
///  32  checksums    8 each, in the order of the manifest
///      zero             to a page
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    /// Bytes of all extents.
    pub stored: u64,
    /// One checksum for each of [`Manifest::stored_chunks`].
    pub sums: Vec<u64>,
}

impl Trailer {
    /// How long the trailer of an archive with this manifest is.
    pub fn len_for(manifest: &Manifest) -> u64 {
        // A manifest's size bounds its chunks: 16 TiB of puddles are 2^23 chunks.
        let chunks = manifest.stored_chunks().count() as u64;
        chunks
            .saturating_mul(8)
            .saturating_add(HEAD)
            .next_multiple_of(ARCHIVE_PAGE)
    }

    /// The trailer's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        body.u64(self.stored);
        body.u64(self.sums.len() as u64);
        for sum in &self.sums {
            body.u64(*sum);
        }
        let len = (SUMMED_FROM + body.bytes.len()).next_multiple_of(ARCHIVE_PAGE as usize);
        body.bytes.resize(len - SUMMED_FROM, 0);
        let mut out = Writer::default();
        out.u64(MAGIC);
        out.u64(xxh3_64(&body.bytes));
        out.bytes.append(&mut body.bytes);
        out.bytes
    }

    /// The trailer in `bytes`, which must be [`Trailer::len_for`] long and belong to `manifest`.
    pub fn decode(bytes: &[u8], manifest: &Manifest) -> Result<Trailer, ArchiveError> {
        const WHAT: &str = "trailer";
        if (bytes.len() as u64) < Self::len_for(manifest) {
            return Err(ArchiveError::Truncated { what: WHAT });
        }
        let mut reader = Reader::new(bytes, WHAT);
        let magic = reader.u64()?;
        if magic != MAGIC {
            return Err(ArchiveError::field(WHAT, "magic number", magic));
        }
        let found = reader.u64()?;
        let computed = xxh3_64(bytes.get(SUMMED_FROM..).unwrap_or_default());
        if found != computed {
            return Err(ArchiveError::Checksum {
                what: WHAT,
                found,
                computed,
            });
        }
        let stored = reader.u64()?;
        let count = reader.u64()?;
        if stored != manifest.stored_bytes() {
            return Err(ArchiveError::field(WHAT, "stored bytes", stored));
        }
        if count != manifest.stored_chunks().count() as u64 {
            return Err(ArchiveError::field(WHAT, "chunk count", count));
        }
        let mut sums = Vec::new();
        for _ in 0..count {
            sums.push(reader.u64()?);
        }
        Ok(Trailer { stored, sums })
    }
}
