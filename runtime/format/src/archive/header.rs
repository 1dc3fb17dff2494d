//! The first page of an archive.

use super::{ARCHIVE_PAGE, ArchiveError, MANIFEST_MAX, pages_of};
use vernal_abi::{LINE_SIZE, TRACKED_BASE, puddle};
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the header.
pub const HEADER_LEN: usize = ARCHIVE_PAGE as usize;
/// First byte that the checksum covers.
const SUMMED_FROM: usize = 16;

const MAGIC: u64 = u64::from_le_bytes(*b"VRNLARCH");
const VERSION: u32 = 1;
/// x86-64. Another machine gets another number.
const ARCH: u32 = 1;
/// Read back as another number on a machine of the other byte order.
const ORDER: u32 = 0x0102_0304;
/// Bytes of a pointer.
const POINTER: u32 = 8;

/// ```text
///   0  magic              8   "VRNLARCH"
///   8  checksum           8   XXH3-64 of bytes 16..4096
///  16  version            4   1
///  20  architecture       4   1: x86-64
///  24  byte order         4   0x01020304
///  28  page size          4   4096
///  32  line size          4   64
///  36  chunk size         4   2 MiB
///  40  chunk header       4   4096
///  44  pointer size       4   8
///  48  tracked range      8   its first address
///  56  data layout        4   1 packed, 2 beside
///  60  reserved           4   zero
///  64  manifest length    8   bytes, not counting the padding
///  72  manifest checksum  8   XXH3-64
///  80  reserved               zero, to 4096
/// ```
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fields {
    magic: U64,
    checksum: U64,
    version: U32,
    arch: U32,
    order: U32,
    page: U32,
    line: U32,
    chunk: U32,
    chunk_header: U32,
    pointer: U32,
    tracked: U64,
    layout: U32,
    reserved: U32,
    manifest_len: U64,
    manifest_sum: U64,
    rest: [u8; 4016],
}

const _: () = {
    assert!(size_of::<Fields>() == HEADER_LEN);
    assert!(std::mem::offset_of!(Fields, version) == SUMMED_FROM);
    assert!(std::mem::offset_of!(Fields, tracked) == 48);
    assert!(std::mem::offset_of!(Fields, manifest_len) == 64);
    assert!(std::mem::offset_of!(Fields, rest) == 80);
};

/// Where the bytes of puddles are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataLayout {
    /// Extents one after the other, holes left out: one file, or a pipe.
    Packed,
    /// In files of their own beside this one, `0.puddle`, `1.puddle`, …, in the order of the manifest: a directory, whose
    /// files an import can take over without copying.
    Beside,
}

impl DataLayout {
    fn code(self) -> u32 {
        match self {
            DataLayout::Packed => 1,
            DataLayout::Beside => 2,
        }
    }
}

/// The header of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveHeader {
    /// Where the bytes of puddles are.
    pub layout: DataLayout,
    /// Bytes of the manifest.
    pub manifest_len: u64,
    /// Its checksum.
    pub manifest_sum: u64,
}

impl ArchiveHeader {
    /// The header before `manifest`, which must not be longer than [`MANIFEST_MAX`].
    pub fn of(layout: DataLayout, manifest: &[u8]) -> ArchiveHeader {
        ArchiveHeader {
            layout,
            manifest_len: manifest.len() as u64,
            manifest_sum: xxh3_64(manifest),
        }
    }

    /// Where the data begins: behind the manifest, on a page.
    pub fn data_offset(&self) -> u64 {
        // Both are bounded: decode refuses longer manifests.
        ARCHIVE_PAGE + pages_of(self.manifest_len.min(MANIFEST_MAX)).unwrap_or(MANIFEST_MAX)
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut fields = Fields {
            magic: MAGIC.into(),
            checksum: 0.into(),
            version: VERSION.into(),
            arch: ARCH.into(),
            order: ORDER.into(),
            page: (ARCHIVE_PAGE as u32).into(),
            line: (LINE_SIZE as u32).into(),
            chunk: (puddle::CHUNK_SIZE as u32).into(),
            chunk_header: (puddle::CHUNK_HEADER as u32).into(),
            pointer: POINTER.into(),
            tracked: TRACKED_BASE.into(),
            layout: self.layout.code().into(),
            reserved: 0.into(),
            manifest_len: self.manifest_len.into(),
            manifest_sum: self.manifest_sum.into(),
            rest: [0; 4016],
        };
        let sum = xxh3_64(fields.as_bytes().get(SUMMED_FROM..).unwrap_or_default());
        fields.checksum = sum.into();
        zerocopy::transmute!(fields)
    }

    /// The header in `bytes`. A newer version and another ABI are told from damage: the checksum rule and the first 28 bytes
    /// are the same in every version.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<ArchiveHeader, ArchiveError> {
        let fields: &Fields = zerocopy::transmute_ref!(bytes);
        if fields.magic.get() != MAGIC {
            return Err(ArchiveError::NotAnArchive {
                found: fields.magic.get(),
            });
        }
        let computed = xxh3_64(bytes.get(SUMMED_FROM..).unwrap_or_default());
        if fields.checksum.get() != computed {
            return Err(ArchiveError::Checksum {
                what: "header",
                found: fields.checksum.get(),
                computed,
            });
        }
        let bad = |field, value| Err(ArchiveError::field("header", field, value));
        match fields.version.get() {
            0 => return bad("version", 0),
            VERSION => {}
            found => {
                return Err(ArchiveError::NewerVersion {
                    found,
                    supported: VERSION,
                });
            }
        }
        let abi: [(&'static str, u64, u64); 8] = [
            ("architecture", fields.arch.get().into(), ARCH.into()),
            ("byte order", fields.order.get().into(), ORDER.into()),
            ("page size", fields.page.get().into(), ARCHIVE_PAGE),
            ("line size", fields.line.get().into(), LINE_SIZE),
            ("chunk size", fields.chunk.get().into(), puddle::CHUNK_SIZE),
            (
                "chunk header",
                fields.chunk_header.get().into(),
                puddle::CHUNK_HEADER,
            ),
            ("pointer size", fields.pointer.get().into(), POINTER.into()),
            ("tracked range", fields.tracked.get(), TRACKED_BASE),
        ];
        for (what, found, expected) in abi {
            if found != expected {
                return Err(ArchiveError::Abi {
                    what,
                    found,
                    expected,
                });
            }
        }
        let layout = match fields.layout.get() {
            1 => DataLayout::Packed,
            2 => DataLayout::Beside,
            other => return bad("data layout", other.into()),
        };
        if fields.reserved.get() != 0 || fields.rest.iter().any(|byte| *byte != 0) {
            return bad("reserved field", 1);
        }
        let manifest_len = fields.manifest_len.get();
        if manifest_len == 0 || manifest_len > MANIFEST_MAX {
            return bad("manifest length", manifest_len);
        }
        Ok(ArchiveHeader {
            layout,
            manifest_len,
            manifest_sum: fields.manifest_sum.get(),
        })
    }

    /// Checks the manifest's bytes against the header.
    pub fn verify_manifest(&self, manifest: &[u8]) -> Result<(), ArchiveError> {
        if manifest.len() as u64 != self.manifest_len {
            return Err(ArchiveError::Truncated { what: "manifest" });
        }
        let computed = xxh3_64(manifest);
        if computed != self.manifest_sum {
            return Err(ArchiveError::Checksum {
                what: "manifest",
                found: self.manifest_sum,
                computed,
            });
        }
        Ok(())
    }
}
