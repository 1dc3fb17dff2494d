//! The double slot: how a small structure is replaced without a moment in which a crash could lose it.
//!
//! ```text
//!   0  magic       u64   names the structure
//!   8  checksum    u64   XXH3-64 over bytes 16..4096
//!  16  version     u32   of the structure; the 16 bytes before it and the slot's length never change
//!  20  reserved    u32   zero
//!  24  update      u64   counts stores; the newest valid slot wins
//!  32  body              structure specific, zero-padded to 4096
//! ```
//!
//! Two slots lie in different 4 KiB blocks. A store goes to the slot that is *not* the newest valid one, so that a torn
//! store leaves the older value. The checksum rule is the same in every version: a slot of a newer version is told from a
//! damaged one.

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes in a slot.
pub const SLOT_LEN: usize = 4096;
/// Slots of a structure, one after the other.
pub const SLOT_COUNT: usize = 2;
/// Bytes of [`SlotHead`].
pub(crate) const HEAD_LEN: usize = 32;
/// First byte that the checksum covers.
const SUMMED_FROM: usize = 16;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct SlotHead {
    magic: U64,
    checksum: U64,
    version: U32,
    reserved: U32,
    update: U64,
}

const _: () = {
    assert!(size_of::<SlotHead>() == HEAD_LEN);
    assert!(std::mem::offset_of!(SlotHead, version) == SUMMED_FROM);
    assert!(std::mem::offset_of!(SlotHead, update) == 24);
};

/// What is wrong with a structure.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes do not begin with the structure's magic number: it was never written, or this is another file.
    #[error("no {what} here: the magic number is {found:#018x} instead of {expected:#018x}")]
    NotFound {
        /// Name of the structure.
        what: &'static str,
        /// Magic number that belongs here.
        expected: u64,
        /// Magic number found.
        found: u64,
    },
    /// The checksum does not match.
    #[error(
        "the {what} is damaged: its checksum is {found:#018x}, its contents give {computed:#018x}"
    )]
    Checksum {
        /// Name of the structure.
        what: &'static str,
        /// Checksum stored.
        found: u64,
        /// Checksum of the bytes.
        computed: u64,
    },
    /// The structure is intact and of a version this code does not know.
    #[error(
        "the {what} has format version {found}, and this Vernal reads versions up to {supported}: use the newer Vernal \
         that wrote it"
    )]
    NewerVersion {
        /// Name of the structure.
        what: &'static str,
        /// Version found.
        found: u32,
        /// Newest version this code reads.
        supported: u32,
    },
    /// The checksum matches and a field has a value that cannot be.
    #[error("the {what} is invalid: {field} is {value}")]
    Field {
        /// Name of the structure.
        what: &'static str,
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Neither slot is usable.
    #[error("both copies of the {what} are unusable (first: {first}; second: {second})")]
    BothSlots {
        /// Name of the structure.
        what: &'static str,
        /// What is wrong with the first.
        first: Box<FormatError>,
        /// What is wrong with the second.
        second: Box<FormatError>,
    },
}

/// A structure that is stored in a double slot.
pub trait Slot: Sized {
    /// Magic number.
    const MAGIC: u64;
    /// Version that this code writes, and the newest that it reads.
    const VERSION: u32;
    /// Name for messages.
    const WHAT: &'static str;

    /// The number of stores so far: the newest valid slot wins.
    fn update(&self) -> u64;

    /// Writes everything behind the head; `body` is zeroed.
    fn encode_body(&self, body: &mut [u8; SLOT_LEN - HEAD_LEN]);

    /// Reads everything behind the head of a slot whose checksum is right.
    fn decode_body(
        version: u32,
        update: u64,
        body: &[u8; SLOT_LEN - HEAD_LEN],
    ) -> Result<Self, FormatError>;

    /// The slot's bytes.
    fn encode(&self, slot: &mut [u8; SLOT_LEN]) {
        slot.fill(0);
        let (head, body) = split_mut(slot);
        self.encode_body(body);
        let mut fields = SlotHead {
            magic: Self::MAGIC.into(),
            checksum: 0.into(),
            version: Self::VERSION.into(),
            reserved: 0.into(),
            update: self.update().into(),
        };
        head.copy_from_slice(fields.as_bytes());
        fields.checksum = xxh3_64(&slot[SUMMED_FROM..]).into();
        slot[..HEAD_LEN].copy_from_slice(fields.as_bytes());
    }

    /// The structure in a slot's bytes.
    fn decode(slot: &[u8; SLOT_LEN]) -> Result<Self, FormatError> {
        let (head, body) = split(slot);
        let head = SlotHead::read_from_bytes(head).expect("the head has its own size");
        if head.magic.get() != Self::MAGIC {
            return Err(FormatError::NotFound {
                what: Self::WHAT,
                expected: Self::MAGIC,
                found: head.magic.get(),
            });
        }
        let computed = xxh3_64(&slot[SUMMED_FROM..]);
        if head.checksum.get() != computed {
            return Err(FormatError::Checksum {
                what: Self::WHAT,
                found: head.checksum.get(),
                computed,
            });
        }
        match head.version.get() {
            0 => Err(FormatError::Field {
                what: Self::WHAT,
                field: "version",
                value: 0,
            }),
            v if v > Self::VERSION => Err(FormatError::NewerVersion {
                what: Self::WHAT,
                found: v,
                supported: Self::VERSION,
            }),
            v => Self::decode_body(v, head.update.get(), body),
        }
    }
}

/// Chooses between the two slots: the newest valid one, and its index. A slot of a newer version is an error even when
/// the other one is readable, for the newer Vernal may have changed what the older slot describes.
pub fn newest_slot<S: Slot>(
    slots: &[[u8; SLOT_LEN]; SLOT_COUNT],
) -> Result<(usize, S), FormatError> {
    let newer = |e: &FormatError| matches!(e, FormatError::NewerVersion { .. });
    match (S::decode(&slots[0]), S::decode(&slots[1])) {
        (Err(e), _) | (_, Err(e)) if newer(&e) => Err(e),
        (Ok(a), Ok(b)) => Ok(if b.update() > a.update() {
            (1, b)
        } else {
            (0, a)
        }),
        (Ok(a), Err(_)) => Ok((0, a)),
        (Err(_), Ok(b)) => Ok((1, b)),
        (Err(first), Err(second)) => Err(FormatError::BothSlots {
            what: S::WHAT,
            first: Box::new(first),
            second: Box::new(second),
        }),
    }
}

fn split(slot: &[u8; SLOT_LEN]) -> (&[u8; HEAD_LEN], &[u8; SLOT_LEN - HEAD_LEN]) {
    let (head, rest) = slot
        .split_first_chunk()
        .expect("a slot is longer than its head");
    (
        head,
        rest.try_into().expect("the rest of a slot is its body"),
    )
}

fn split_mut(slot: &mut [u8; SLOT_LEN]) -> (&mut [u8; HEAD_LEN], &mut [u8; SLOT_LEN - HEAD_LEN]) {
    let (head, rest) = slot
        .split_first_chunk_mut()
        .expect("a slot is longer than its head");
    (
        head,
        rest.try_into().expect("the rest of a slot is its body"),
    )
}
