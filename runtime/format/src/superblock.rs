//! The front of a journal: two superblock slots, a table of paths, and then the log.
//!
//! ```text
//!      0  superblock slot 0    4096
//!   4096  superblock slot 1    4096
//!   8192  member paths    64 x 2048
//! 139264  log                       records, from the front, restarted by each new generation
//! ```
//!
//! A superblock:
//!
//! ```text
//!    0  slot head        32   magic, checksum, version, update (see `slot`)
//!   32  journal uuid     16
//!   48  generation        8   of the records that are alive
//!   56  first sequence    8   of this generation's first record
//!   64  log offset        8
//!   72  log length        8
//!   80  write unit        8   a record starts where the one before ends, or at the next multiple of this
//!   88  reserved         40   zero
//!  128  members     64 x 40   file uuid 16, base line 8, line count 8 (0: unused), committed length 8
//! 2688  zero                  to 4096
//! ```
//!
//! The members and their committed lengths are part of the superblock, so that they change atomically with the
//! generation: the record that set a length may be recycled as soon as the superblock knows the length.
//!
//! A member path says where a member's metadata is, only to know when nobody needs the journal any more:
//!
//! ```text
//!    0  checksum     8   XXH3-64 over bytes 8..2048
//!    8  file uuid   16   counts only if the superblock's member at this index has the same
//!   24  path length  8
//!   32  path      1024   zero-padded
//! 1056  zero             to 2048
//! ```

use vernal_abi::LINE_COUNT;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::record::RECORD_ALIGN;
use crate::slot::{FormatError, HEAD_LEN, SLOT_COUNT, SLOT_LEN, Slot};
use crate::uuid::Uuid;

/// Version of the journal that this code writes. Version 1 is the same without runs of lines in its records.
pub const JOURNAL_VERSION: u32 = 2;
/// Most files that one journal can serve at a time.
pub const MAX_MEMBERS: usize = 64;
/// Bytes of one member path entry.
pub const MEMBER_PATH_LEN: usize = 2048;
/// Longest path of a member's metadata.
pub const MEMBER_PATH_MAX: usize = 1024;
/// Where the member paths begin.
pub const MEMBER_PATHS_OFFSET: u64 = (SLOT_LEN * SLOT_COUNT) as u64;
/// Where the log begins.
pub const LOG_OFFSET: u64 = MEMBER_PATHS_OFFSET + (MAX_MEMBERS * MEMBER_PATH_LEN) as u64;

/// Largest write unit that is believed.
const MAX_WRITE_UNIT: u64 = 1 << 20;
/// Longest log that is believed: 4 TiB.
const MAX_LOG_LEN: u64 = 1 << 42;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct RawMember {
    file: [u8; 16],
    base_line: U64,
    line_count: U64,
    committed_len: U64,
}

impl RawMember {
    fn member(&self) -> Option<Member> {
        (self.line_count.get() != 0).then(|| Member {
            file: Uuid(self.file),
            base_line: self.base_line.get(),
            line_count: self.line_count.get(),
            committed_len: self.committed_len.get(),
        })
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Body {
    journal: [u8; 16],
    generation: U64,
    first_sequence: U64,
    log_offset: U64,
    log_len: U64,
    write_unit: U64,
    reserved: [u8; 40],
    members: [RawMember; MAX_MEMBERS],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawPath {
    checksum: U64,
    file: [u8; 16],
    path_len: U64,
    path: [u8; MEMBER_PATH_MAX],
    zero: [u8; MEMBER_PATH_LEN - MEMBER_PATH_MAX - 32],
}

const _: () = {
    assert!(size_of::<RawMember>() == 40);
    assert!(std::mem::offset_of!(Body, members) == 128 - HEAD_LEN);
    assert!(size_of::<Body>() == 2688 - HEAD_LEN);
    assert!(size_of::<RawPath>() == MEMBER_PATH_LEN);
    assert!(LOG_OFFSET == 139264);
    assert!(LOG_OFFSET.is_multiple_of(SLOT_LEN as u64));
};

/// One file that a journal serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Identity of the file.
    pub file: Uuid,
    /// First line of its place in the tracked range.
    pub base_line: u64,
    /// Lines in its place.
    pub line_count: u64,
    /// Its length in bytes when this generation began.
    pub committed_len: u64,
}

impl Member {
    /// Whether `line` lies in this file's place.
    #[inline]
    pub fn contains(&self, line: u64) -> bool {
        line.wrapping_sub(self.base_line) < self.line_count
    }

    /// Whether two members share a line.
    pub fn overlaps(&self, other: &Member) -> bool {
        self.contains(other.base_line) || other.contains(self.base_line)
    }
}

/// What a journal says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Counts the stores; the newest valid slot wins.
    pub update: u64,
    /// Identity of the journal.
    pub journal: Uuid,
    /// Generation of the records that are alive.
    pub generation: u64,
    /// Sequence of this generation's first record.
    pub first_sequence: u64,
    /// Where the log begins.
    pub log_offset: u64,
    /// Its length in bytes.
    pub log_len: u64,
    /// Unit of the writes that made the records.
    pub write_unit: u64,
    /// The files, by member index; [`MAX_MEMBERS`] places.
    pub members: Vec<Option<Member>>,
}

impl Superblock {
    /// The member with this identity.
    pub fn member(&self, file: Uuid) -> Option<(usize, &Member)> {
        self.members
            .iter()
            .enumerate()
            .find_map(|(i, m)| m.as_ref().filter(|m| m.file == file).map(|m| (i, m)))
    }

    /// The member in whose place `line` lies.
    pub fn member_at(&self, line: u64) -> Option<&Member> {
        self.members.iter().flatten().find(|m| m.contains(line))
    }

    /// Checks what [`Slot::decode`] would refuse, so that nothing unreadable is ever written.
    pub fn validate(&self) -> Result<(), FormatError> {
        let bad = |field, value| {
            Err(FormatError::Field {
                what: Self::WHAT,
                field,
                value,
            })
        };
        if self.log_offset < LOG_OFFSET
            || !self.log_offset.is_multiple_of(SLOT_LEN as u64)
            || self.log_offset > MAX_LOG_LEN
        {
            return bad("log offset", self.log_offset);
        }
        if self.log_len > MAX_LOG_LEN || !self.log_len.is_multiple_of(RECORD_ALIGN as u64) {
            return bad("log length", self.log_len);
        }
        let unit = self.write_unit;
        if !unit.is_power_of_two() || !(RECORD_ALIGN as u64..=MAX_WRITE_UNIT).contains(&unit) {
            return bad("write unit", unit);
        }
        for (i, m) in self.members.iter().enumerate() {
            let Some(m) = m else { continue };
            if m.base_line >= LINE_COUNT || m.line_count > LINE_COUNT - m.base_line {
                return bad("first line of a member", m.base_line);
            }
            if m.committed_len > m.line_count * vernal_abi::LINE_SIZE {
                return bad("committed length of a member", m.committed_len);
            }
            if self.members[..i].iter().flatten().any(|o| o.overlaps(m)) {
                return bad("first line of a member that overlaps another", m.base_line);
            }
        }
        Ok(())
    }
}

impl Slot for Superblock {
    const MAGIC: u64 = u64::from_le_bytes(*b"VRNLJRNL");
    const VERSION: u32 = JOURNAL_VERSION;
    const WHAT: &'static str = "journal superblock";

    fn update(&self) -> u64 {
        self.update
    }

    fn encode_body(&self, out: &mut [u8; SLOT_LEN - HEAD_LEN]) {
        let body = Body {
            journal: self.journal.0,
            generation: self.generation.into(),
            first_sequence: self.first_sequence.into(),
            log_offset: self.log_offset.into(),
            log_len: self.log_len.into(),
            write_unit: self.write_unit.into(),
            reserved: [0; 40],
            members: std::array::from_fn(|i| match self.members.get(i).copied().flatten() {
                Some(m) => RawMember {
                    file: m.file.0,
                    base_line: m.base_line.into(),
                    line_count: m.line_count.into(),
                    committed_len: m.committed_len.into(),
                },
                None => {
                    RawMember::read_from_bytes(&[0; size_of::<RawMember>()]).expect("its own size")
                }
            }),
        };
        out[..size_of::<Body>()].copy_from_slice(body.as_bytes());
    }

    fn decode_body(
        _version: u32,
        update: u64,
        body: &[u8; SLOT_LEN - HEAD_LEN],
    ) -> Result<Self, FormatError> {
        let (body, _) = Body::ref_from_prefix(body).expect("a slot holds the body");
        let sb = Superblock {
            update,
            journal: Uuid(body.journal),
            generation: body.generation.get(),
            first_sequence: body.first_sequence.get(),
            log_offset: body.log_offset.get(),
            log_len: body.log_len.get(),
            write_unit: body.write_unit.get(),
            members: body.members.iter().map(RawMember::member).collect(),
        };
        sb.validate()?;
        Ok(sb)
    }
}

/// Where a member's metadata is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberPath {
    /// Identity of the file.
    pub file: Uuid,
    /// Path of its metadata, at most [`MEMBER_PATH_MAX`] bytes.
    pub path: Vec<u8>,
}

impl MemberPath {
    /// Where the entry of member `index` lies.
    pub fn offset(index: usize) -> u64 {
        MEMBER_PATHS_OFFSET + (index * MEMBER_PATH_LEN) as u64
    }

    /// The entry's bytes; `path` must not be longer than [`MEMBER_PATH_MAX`] (the rest is cut).
    pub fn encode(&self) -> [u8; MEMBER_PATH_LEN] {
        let len = self.path.len().min(MEMBER_PATH_MAX);
        let mut raw = RawPath {
            checksum: 0.into(),
            file: self.file.0,
            path_len: (len as u64).into(),
            path: [0; MEMBER_PATH_MAX],
            zero: [0; MEMBER_PATH_LEN - MEMBER_PATH_MAX - 32],
        };
        raw.path[..len].copy_from_slice(&self.path[..len]);
        raw.checksum = xxh3_64(&raw.as_bytes()[8..]).into();
        let mut out = [0; MEMBER_PATH_LEN];
        out.copy_from_slice(raw.as_bytes());
        out
    }

    /// The entry in `bytes`, if it is intact.
    pub fn decode(bytes: &[u8; MEMBER_PATH_LEN]) -> Option<MemberPath> {
        let raw = RawPath::ref_from_bytes(bytes).ok()?;
        let len = usize::try_from(raw.path_len.get())
            .ok()
            .filter(|len| *len <= MEMBER_PATH_MAX)?;
        (raw.checksum.get() == xxh3_64(&bytes[8..])).then(|| MemberPath {
            file: Uuid(raw.file),
            path: raw.path[..len].to_vec(),
        })
    }
}
