//! The pool page: the first page behind the chunk headers of a pool's root puddle.
//!
//! ```text
//!    0  magic           "VRNLPOOL"
//!    8  version u32 · mode u32 (1 buffered, 2 direct)
//!   16  uuid            16
//!   32  label           64, UTF-8, zero-padded
//!   96  address epoch   u64   104  binding epoch u64
//!  112  root object     place  120  zero
//!  128  binding record  place  136  types u64: entries of the type table
//!  144  type blocks     14 x place; block k holds 64·2^k entries {id u64, blob place, blob length u64}
//!  256  zero            to 512
//!  512  directory       64 x {uuid 16, size u64, current address u64, previous address u64, zero 8}; size 0: unused
//! 3584  zero            to 4096
//! ```
//!
//! Slot 0 of the directory is the root puddle.

use vernal_abi::puddle::{CHUNK_SIZE, MAX_PUDDLES, is_puddle_size};

use super::{uuid_from_words, uuid_words};
use crate::{FormatError, Uuid};

/// "VRNLPOOL"
pub const POOL_MAGIC: u64 = u64::from_le_bytes(*b"VRNLPOOL");
/// Version of the pool page.
pub const POOL_VERSION: u32 = 1;
/// Bytes of a pool's name at most.
pub const LABEL_MAX: usize = 63;
/// Offset of the directory in the pool page.
pub const DIRECTORY_OFFSET: u64 = 512;
/// Words of an entry of the directory.
pub const DIRECTORY_ENTRY_WORDS: usize = 6;
/// Blocks of the type table.
pub const TYPE_BLOCK_COUNT: usize = 14;
/// Entries of the first block; each block holds twice as many as the one before.
pub const TYPE_BLOCK_FIRST: u64 = 64;
/// Words of an entry of the type table.
pub const TYPE_ENTRY_WORDS: usize = 3;

const WHAT: &str = "pool page";
const LABEL_WORDS: usize = 8;

/// Offsets of the words of the pool page that change.
pub mod pool_field {
    /// The pool's address epoch.
    pub const ADDRESS_EPOCH: u64 = 96;
    /// The pool's binding epoch.
    pub const BINDING_EPOCH: u64 = 104;
    /// The root object.
    pub const ROOT: u64 = 112;
    /// The binding record.
    pub const BINDING: u64 = 128;
    /// Entries of the type table.
    pub const TYPES: u64 = 136;
    /// First of the type table's blocks.
    pub const TYPE_BLOCKS: u64 = 144;
}

/// Where entry `entry` of the type table lies: block, and index in the block. `None`: beyond the last block.
pub const fn type_block_of(entry: u64) -> Option<(usize, u64)> {
    let group = entry / TYPE_BLOCK_FIRST + 1;
    let block = group.ilog2();
    if block as usize >= TYPE_BLOCK_COUNT {
        return None;
    }
    let first = ((1u64 << block) - 1) * TYPE_BLOCK_FIRST;
    Some((block as usize, entry - first))
}

/// A place in a pool that stays valid when its puddles move: slot of the directory in the highest byte, offset below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place(pub u64);

impl Place {
    /// No place: the first byte of the root puddle is never one.
    pub const NONE: Place = Place(0);
    const SLOT_SHIFT: u32 = 56;

    /// The byte at `offset` of the puddle in `slot`.
    pub const fn new(slot: usize, offset: u64) -> Place {
        Place((slot as u64) << Self::SLOT_SHIFT | offset)
    }

    /// Whether this is no place.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Slot of the directory.
    pub const fn slot(self) -> usize {
        (self.0 >> Self::SLOT_SHIFT) as usize
    }

    /// Offset in the puddle.
    pub const fn offset(self) -> u64 {
        self.0 & ((1 << Self::SLOT_SHIFT) - 1)
    }
}

/// The part of the pool page that never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolHead {
    /// The pool's identity.
    pub uuid: Uuid,
    /// Its name when it was made.
    pub label: String,
    /// Whether it is changed in place.
    pub direct: bool,
}

impl PoolHead {
    /// Words of this part.
    pub const WORDS: usize = 12;

    /// The words; `None` when the label is longer than [`LABEL_MAX`] or has a zero byte.
    pub fn encode(&self) -> Option<[u64; Self::WORDS]> {
        let label = self.label.as_bytes();
        if label.len() > LABEL_MAX || label.contains(&0) {
            return None;
        }
        let mode: u64 = if self.direct { 2 } else { 1 };
        let (u0, u1) = uuid_words(self.uuid);
        let mut words = [0; Self::WORDS];
        words[..4].copy_from_slice(&[POOL_MAGIC, u64::from(POOL_VERSION) | mode << 32, u0, u1]);
        for (word, bytes) in words[4..].iter_mut().zip(label.chunks(8)) {
            let mut le = [0; 8];
            le[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(le);
        }
        Some(words)
    }

    /// Reads the words.
    pub fn parse(words: &[u64; Self::WORDS]) -> Result<PoolHead, FormatError> {
        let [magic, version, u0, u1, label @ ..] = words;
        let field = |field, value| FormatError::Field {
            what: WHAT,
            field,
            value,
        };
        if *magic != POOL_MAGIC {
            return Err(FormatError::NotFound {
                what: WHAT,
                expected: POOL_MAGIC,
                found: *magic,
            });
        }
        let (version, mode) = (*version as u32, *version >> 32);
        if version > POOL_VERSION {
            return Err(FormatError::NewerVersion {
                what: WHAT,
                found: version,
                supported: POOL_VERSION,
            });
        }
        if version == 0 {
            return Err(field("version", 0));
        }
        if mode != 1 && mode != 2 {
            return Err(field("mode", mode));
        }
        let bytes: Vec<u8> = label.iter().flat_map(|w| w.to_le_bytes()).collect();
        let len = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        let (text, rest) = bytes.split_at(len);
        if len > LABEL_MAX || rest.iter().any(|b| *b != 0) {
            return Err(field("length of the label", len as u64));
        }
        let label = std::str::from_utf8(text)
            .map_err(|e| {
                field(
                    "first byte of the label that is not UTF-8",
                    e.valid_up_to() as u64,
                )
            })?
            .to_owned();
        Ok(PoolHead {
            uuid: uuid_from_words(*u0, *u1),
            label,
            direct: mode == 2,
        })
    }
}

/// An entry of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectorySlot {
    /// The puddle's identity.
    pub uuid: Uuid,
    /// Its bytes.
    pub size: u64,
    /// Address for which pointers of the current epoch are valid.
    pub current: u64,
    /// Address for which pointers of the epoch before are valid.
    pub previous: u64,
}

impl DirectorySlot {
    /// Offset of the entry in the pool page.
    pub const fn offset(slot: usize) -> u64 {
        DIRECTORY_OFFSET + (slot * DIRECTORY_ENTRY_WORDS * 8) as u64
    }

    /// The entry as words.
    pub fn encode(&self) -> [u64; DIRECTORY_ENTRY_WORDS] {
        let (u0, u1) = uuid_words(self.uuid);
        [u0, u1, self.size, self.current, self.previous, 0]
    }

    /// Reads an entry; `None`: the slot is unused.
    pub fn parse(
        words: &[u64; DIRECTORY_ENTRY_WORDS],
    ) -> Result<Option<DirectorySlot>, FormatError> {
        let [u0, u1, size, current, previous, zero] = *words;
        let field = |field, value| FormatError::Field {
            what: "puddle directory",
            field,
            value,
        };
        if size == 0 {
            return match words.iter().find(|w| **w != 0) {
                None => Ok(None),
                Some(w) => Err(field("a word of an unused entry", *w)),
            };
        }
        if !is_puddle_size(size) {
            return Err(field("size", size));
        }
        for (name, addr) in [("current address", current), ("previous address", previous)] {
            let end = addr.checked_add(size).filter(|end| *end < 1 << 47);
            if addr == 0 || !addr.is_multiple_of(CHUNK_SIZE) || end.is_none() {
                return Err(field(name, addr));
            }
        }
        if zero != 0 {
            return Err(field("reserved word", zero));
        }
        let uuid = uuid_from_words(u0, u1);
        if uuid.is_nil() {
            return Err(field("uuid", 0));
        }
        Ok(Some(DirectorySlot {
            uuid,
            size,
            current,
            previous,
        }))
    }
}

const _: () = {
    assert!(PoolHead::WORDS == 4 + LABEL_WORDS);
    assert!(PoolHead::WORDS as u64 * 8 == pool_field::ADDRESS_EPOCH);
    assert!(LABEL_MAX < LABEL_WORDS * 8);
    assert!(pool_field::TYPE_BLOCKS + TYPE_BLOCK_COUNT as u64 * 8 <= DIRECTORY_OFFSET);
    assert!(DirectorySlot::offset(MAX_PUDDLES) <= super::PAGE_BYTES);
    assert!(MAX_PUDDLES <= 256);
    // Every entry of the type table has an index that a descriptor can hold.
    assert!(type_block_of(super::MAX_TYPE_INDEX as u64 - 8).is_none());
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn type_entries_fill_the_blocks_one_after_the_other() {
        let mut expected = (0, 0);
        for entry in 0..100_000 {
            assert_eq!(type_block_of(entry), Some(expected));
            expected.1 += 1;
            if expected.1 == TYPE_BLOCK_FIRST << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(type_block_of(u64::MAX), None);
    }

    #[test]
    fn a_label_survives_and_a_long_one_is_refused() {
        for label in ["", "sensors", "Schwämme", &"x".repeat(LABEL_MAX)] {
            let head = PoolHead {
                uuid: Uuid([7; 16]),
                label: label.to_owned(),
                direct: label.is_empty(),
            };
            assert_eq!(PoolHead::parse(&head.encode().unwrap()).unwrap(), head);
        }
        for label in ["x".repeat(LABEL_MAX + 1), "a\0b".to_owned()] {
            let head = PoolHead {
                uuid: Uuid([7; 16]),
                label,
                direct: false,
            };
            assert_eq!(head.encode(), None);
        }
    }

    proptest! {
        #[test]
        fn any_words_parse_or_are_refused(mut words: [u64; 12], fix: bool) {
            if fix {
                words[0] = POOL_MAGIC;
                words[1] = 1 << 32 | 1;
            }
            if let Ok(head) = PoolHead::parse(&words) {
                prop_assert_eq!(head.encode(), Some(words));
            }
        }

        #[test]
        fn any_entry_parses_or_is_refused(mut words: [u64; 6], shift in 0u32..30, fix: bool) {
            if fix {
                words[2] = CHUNK_SIZE << shift;
                words[3] &= 0x5fff_ffe0_0000;
                words[4] &= 0x5fff_ffe0_0000;
                words[5] = 0;
            }
            if let Ok(Some(entry)) = DirectorySlot::parse(&words) {
                prop_assert_eq!(entry.encode(), words);
            }
        }
    }
}
