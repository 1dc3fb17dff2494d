//! Puddles: chunk headers, page descriptors, slabs and the pool page.
//!
//! Nothing in here holds an address except the directory of the pool page: places are a puddle's slot in the directory and
//! an offset, so that allocator metadata is valid wherever the puddles are mapped. Descriptors and slab headers are words
//! that many threads change; this module only says what their bits mean. `docs/format.md` draws the layouts.

mod class;
mod desc;
mod page;

pub use class::{CLASS_COUNT, CLASSES, Class, SLAB_MAX, class_for};
pub use desc::{MAX_TYPE_INDEX, PageDesc, RUN_PAGES_MAX};
pub use page::{
    DIRECTORY_ENTRY_WORDS, DIRECTORY_OFFSET, DirectorySlot, LABEL_MAX, POOL_MAGIC, POOL_VERSION,
    Place, PoolHead, TYPE_BLOCK_COUNT, TYPE_BLOCK_FIRST, TYPE_ENTRY_WORDS, pool_field,
    type_block_of,
};

use vernal_abi::puddle::{CHUNK_HEADER, CHUNK_SIZE, is_puddle_size};
use xxhash_rust::xxh3::xxh3_64;

use crate::{FormatError, Uuid};

/// Bytes of a page, the allocator's unit above slabs.
pub const PAGE_BYTES: u64 = 4096;
/// log2 of [`PAGE_BYTES`].
pub const PAGE_SHIFT: u32 = 12;
/// Pages of a chunk.
pub const CHUNK_PAGES: u64 = CHUNK_SIZE / PAGE_BYTES;
/// Offset of the page descriptors in a chunk header.
pub const DESC_OFFSET: u64 = 2048;
/// Offset of the puddle header in the header of chunk 0.
pub const PUDDLE_HEADER_OFFSET: u64 = 64;
/// Words of the puddle header.
pub const PUDDLE_HEADER_WORDS: usize = 8;
/// "VRNLPUDL"
pub const PUDDLE_MAGIC: u64 = u64::from_le_bytes(*b"VRNLPUDL");
/// Version of the layout of puddles.
pub const PUDDLE_VERSION: u32 = 1;
/// Flag of a puddle header: a pool page follows the chunk headers.
pub const PUDDLE_ROOT: u32 = 1;

/// Words of a chunk header's first line: address epoch, binding epoch.
pub mod chunk_field {
    /// Epoch for which the chunk's pointers are valid, if larger than the puddle's.
    pub const ADDRESS_EPOCH: u64 = 0;
    /// Epoch for which the chunk's process-bound values are valid, if larger than the puddle's.
    pub const BINDING_EPOCH: u64 = 8;
}

/// Offsets in the puddle header of the words that change.
pub mod puddle_field {
    /// Epoch that counts for chunks whose own is smaller.
    pub const ADDRESS_EPOCH: u64 = 40;
    /// Binding epoch that counts for chunks whose own is smaller.
    pub const BINDING_EPOCH: u64 = 48;
}

/// Where a puddle lies and how it is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub base: u64,
    /// log2 of the size.
    pub shift: u32,
}

impl Extent {
    /// The puddle of `size` bytes at `base`; `None` unless size, alignment and end are those of a puddle.
    pub fn new(base: u64, size: u64) -> Option<Extent> {
        (is_puddle_size(size) && base.is_multiple_of(CHUNK_SIZE) && base != 0)
            .then_some(())
            .and_then(|()| base.checked_add(size))?;
        Some(Extent {
            base,
            shift: size.trailing_zeros(),
        })
    }

    /// Bytes.
    pub const fn size(&self) -> u64 {
        1 << self.shift
    }

    /// One past the last byte.
    pub const fn end(&self) -> u64 {
        self.base + self.size()
    }

    /// Whether the byte at `addr` is in the puddle.
    #[inline(always)]
    pub const fn contains(&self, addr: u64) -> bool {
        addr.wrapping_sub(self.base) >> self.shift == 0
    }

    /// Chunks, which is also the number of pages that their headers take.
    pub const fn chunks(&self) -> u64 {
        self.size() / CHUNK_SIZE
    }

    /// Pages, those of the headers included.
    pub const fn pages(&self) -> u64 {
        self.size() >> PAGE_SHIFT
    }

    /// First page behind the chunk headers.
    pub const fn first_page(&self) -> u64 {
        self.chunks()
    }

    /// Address of page `page`.
    #[inline(always)]
    pub const fn page_addr(&self, page: u64) -> u64 {
        self.base + (page << PAGE_SHIFT)
    }

    /// The page that holds `addr`, which is in the puddle.
    #[inline(always)]
    pub const fn page_of(&self, addr: u64) -> u64 {
        addr.wrapping_sub(self.base) >> PAGE_SHIFT
    }

    /// Address of the header of chunk `chunk`.
    pub const fn chunk_header(&self, chunk: u64) -> u64 {
        self.base + chunk * CHUNK_HEADER
    }

    /// Address of the word that holds the descriptor of `page`, and the descriptor's lowest bit in it.
    #[inline(always)]
    pub const fn desc_word(&self, page: u64) -> (u64, u32) {
        let addr = self.base
            + (page / CHUNK_PAGES) * CHUNK_HEADER
            + DESC_OFFSET
            + (page % CHUNK_PAGES / 2) * 8;
        (addr, (page as u32 & 1) * 32)
    }
}

/// What a puddle says of itself.
///
/// ```text
///   0  magic          "VRNLPUDL"
///   8  version  u32 · flags u32 (1: a pool page follows the chunk headers)
///  16  uuid     16
///  32  size     u64
///  40  address epoch  u64   counts for chunks whose own is smaller
///  48  binding epoch  u64   likewise
///  56  checksum u64   XXH3-64 of bytes 0..40
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PuddleHeader {
    /// Flags: [`PUDDLE_ROOT`].
    pub flags: u32,
    /// The puddle's identity.
    pub uuid: Uuid,
    /// Its bytes.
    pub size: u64,
    /// Address epoch of chunks whose own is smaller.
    pub address_epoch: u64,
    /// Binding epoch of chunks whose own is smaller.
    pub binding_epoch: u64,
}

const WHAT: &str = "puddle header";

impl PuddleHeader {
    /// The header as words.
    pub fn encode(&self) -> [u64; PUDDLE_HEADER_WORDS] {
        let (u0, u1) = uuid_words(self.uuid);
        let fixed = [
            PUDDLE_MAGIC,
            u64::from(PUDDLE_VERSION) | u64::from(self.flags) << 32,
            u0,
            u1,
            self.size,
        ];
        let [w0, w1, w2, w3, w4] = fixed;
        let (a, b) = (self.address_epoch, self.binding_epoch);
        [w0, w1, w2, w3, w4, a, b, words_checksum(&fixed)]
    }

    /// Reads a header.
    pub fn parse(words: &[u64; PUDDLE_HEADER_WORDS]) -> Result<PuddleHeader, FormatError> {
        let [
            magic,
            version,
            u0,
            u1,
            size,
            address_epoch,
            binding_epoch,
            checksum,
        ] = *words;
        let field = |field, value| FormatError::Field {
            what: WHAT,
            field,
            value,
        };
        if magic != PUDDLE_MAGIC {
            return Err(FormatError::NotFound {
                what: WHAT,
                expected: PUDDLE_MAGIC,
                found: magic,
            });
        }
        let computed = words_checksum(&[magic, version, u0, u1, size]);
        if checksum != computed {
            return Err(FormatError::Checksum {
                what: WHAT,
                found: checksum,
                computed,
            });
        }
        let (version, flags) = (version as u32, (version >> 32) as u32);
        if version > PUDDLE_VERSION {
            return Err(FormatError::NewerVersion {
                what: WHAT,
                found: version,
                supported: PUDDLE_VERSION,
            });
        }
        if version == 0 {
            return Err(field("version", 0));
        }
        if flags & !PUDDLE_ROOT != 0 {
            return Err(field("flags", flags.into()));
        }
        if !is_puddle_size(size) {
            return Err(field("size", size));
        }
        Ok(PuddleHeader {
            flags,
            uuid: uuid_from_words(u0, u1),
            size,
            address_epoch,
            binding_epoch,
        })
    }
}

fn words_checksum(words: &[u64; 5]) -> u64 {
    let mut bytes = [0; 40];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    xxh3_64(&bytes)
}

/// A uuid as two words, in the byte order of the medium.
pub fn uuid_words(uuid: Uuid) -> (u64, u64) {
    let n = u128::from_le_bytes(uuid.0);
    (n as u64, (n >> 64) as u64)
}

/// The uuid of two words.
pub fn uuid_from_words(low: u64, high: u64) -> Uuid {
    Uuid((u128::from(low) | u128::from(high) << 64).to_le_bytes())
}

const _: () = {
    assert!(CHUNK_HEADER == PAGE_BYTES);
    assert!(DESC_OFFSET + CHUNK_PAGES * 4 == CHUNK_HEADER);
    assert!(PUDDLE_HEADER_OFFSET + PUDDLE_HEADER_WORDS as u64 * 8 <= DESC_OFFSET);
    assert!(chunk_field::BINDING_EPOCH + 8 <= PUDDLE_HEADER_OFFSET);
};
