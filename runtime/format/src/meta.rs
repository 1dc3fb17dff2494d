//! The metadata of an opted-in file `F`, kept in `F.vernal`: two slots of one [`Meta`].
//!
//! ```text
//!    0  slot head        32   magic, checksum, version, update (see `slot`)
//!   32  file uuid        16
//!   48  home address      8   where the file is mapped, in every run
//!   56  slot length       8   address space reserved for it, a multiple of 64
//!   64  committed length  8   of the file in bytes, when this slot was stored
//!   72  state             4   1 clean, 2 active
//!   76  path length       4   bytes of journal path
//!   80  journal uuid     16   zero when clean
//!   96  journal path   1024   zero-padded
//! 1120  zero                  to 4096
//! ```

use vernal_abi::{DIRECT_BASE, DIRECT_SIZE, LINE_SIZE, TRACKED_BASE, TRACKED_END, line_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::slot::{FormatError, HEAD_LEN, SLOT_COUNT, SLOT_LEN, Slot};
use crate::uuid::Uuid;

/// Version of the metadata that this code writes.
pub const META_VERSION: u32 = 1;
/// Length of a metadata file.
pub const META_FILE_LEN: u64 = (SLOT_LEN * SLOT_COUNT) as u64;
/// Longest path of a journal, in bytes.
pub const JOURNAL_PATH_MAX: usize = 1024;

const STATE_CLEAN: u32 = 1;
const STATE_ACTIVE: u32 = 2;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Body {
    file: [u8; 16],
    home_addr: U64,
    slot_len: U64,
    committed_len: U64,
    state: U32,
    path_len: U32,
    journal: [u8; 16],
    path: [u8; JOURNAL_PATH_MAX],
}

const _: () = {
    assert!(size_of::<Body>() == 1120 - HEAD_LEN);
    assert!(std::mem::offset_of!(Body, home_addr) == 48 - HEAD_LEN);
    assert!(std::mem::offset_of!(Body, state) == 72 - HEAD_LEN);
    assert!(std::mem::offset_of!(Body, path) == 96 - HEAD_LEN);
};

/// Whether a file's home image stands alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaState {
    /// The file is complete; no journal belongs to it.
    Clean,
    /// A process has (or had, until it died) the file mapped: its journal may hold commits that the file lacks.
    Active {
        /// Identity of the journal.
        journal: Uuid,
        /// Where the journal is. Bytes of a path, at most [`JOURNAL_PATH_MAX`].
        path: Vec<u8>,
    },
}

/// The metadata of an opted-in file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Counts the stores; the newest valid slot wins.
    pub update: u64,
    /// Identity of the file.
    pub file: Uuid,
    /// The address at which the file is mapped, in every run.
    pub home_addr: u64,
    /// Address space reserved for it in bytes.
    pub slot_len: u64,
    /// Length of the file in bytes when this was stored.
    pub committed_len: u64,
    /// Clean or active.
    pub state: MetaState,
}

impl Meta {
    /// The first line of the file's place in the tracked range.
    pub fn base_line(&self) -> u64 {
        line_of(self.home_addr)
    }

    /// Lines in the file's place.
    pub fn line_count(&self) -> u64 {
        self.slot_len / LINE_SIZE
    }

    /// Whether the file may lack commits that the journal `journal` holds.
    pub fn needs_journal(&self, journal: Uuid) -> bool {
        matches!(&self.state, MetaState::Active { journal: j, .. } if *j == journal)
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
        // A puddle that is changed in place has its home elsewhere, and never a journal.
        let in_place = DIRECT_BASE..DIRECT_BASE + DIRECT_SIZE;
        let (in_range, end) = match self.state {
            MetaState::Clean if in_place.contains(&self.home_addr) => (true, in_place.end),
            _ => (
                (TRACKED_BASE..TRACKED_END).contains(&self.home_addr),
                TRACKED_END,
            ),
        };
        if !in_range || !self.home_addr.is_multiple_of(LINE_SIZE) {
            return bad("home address", self.home_addr);
        }
        if self.slot_len == 0
            || !self.slot_len.is_multiple_of(LINE_SIZE)
            || self.slot_len > end - self.home_addr
        {
            return bad("slot length", self.slot_len);
        }
        if self.committed_len > self.slot_len {
            return bad("committed length", self.committed_len);
        }
        match &self.state {
            MetaState::Active { path, .. } if path.len() > JOURNAL_PATH_MAX => {
                bad("journal path length", path.len() as u64)
            }
            _ => Ok(()),
        }
    }
}

impl Slot for Meta {
    const MAGIC: u64 = u64::from_le_bytes(*b"VRNLMETA");
    const VERSION: u32 = META_VERSION;
    const WHAT: &'static str = "metadata";

    fn update(&self) -> u64 {
        self.update
    }

    fn encode_body(&self, out: &mut [u8; SLOT_LEN - HEAD_LEN]) {
        let (state, journal, path) = match &self.state {
            MetaState::Clean => (STATE_CLEAN, Uuid::NIL, [].as_slice()),
            MetaState::Active { journal, path } => (STATE_ACTIVE, *journal, path.as_slice()),
        };
        let mut body = Body {
            file: self.file.0,
            home_addr: self.home_addr.into(),
            slot_len: self.slot_len.into(),
            committed_len: self.committed_len.into(),
            state: state.into(),
            path_len: (path.len() as u32).into(),
            journal: journal.0,
            path: [0; JOURNAL_PATH_MAX],
        };
        body.path[..path.len()].copy_from_slice(path);
        out[..size_of::<Body>()].copy_from_slice(body.as_bytes());
    }

    fn decode_body(
        _version: u32,
        update: u64,
        body: &[u8; SLOT_LEN - HEAD_LEN],
    ) -> Result<Self, FormatError> {
        let (body, _) = Body::ref_from_prefix(body).expect("a slot holds the body");
        let bad = |field, value| {
            Err(FormatError::Field {
                what: Self::WHAT,
                field,
                value,
            })
        };
        let path_len = body.path_len.get();
        if path_len as usize > JOURNAL_PATH_MAX {
            return bad("journal path length", path_len.into());
        }
        let state = match body.state.get() {
            STATE_CLEAN => MetaState::Clean,
            STATE_ACTIVE => MetaState::Active {
                journal: Uuid(body.journal),
                path: body.path[..path_len as usize].to_vec(),
            },
            other => return bad("state", other.into()),
        };
        let meta = Meta {
            update,
            file: Uuid(body.file),
            home_addr: body.home_addr.get(),
            slot_len: body.slot_len.get(),
            committed_len: body.committed_len.get(),
            state,
        };
        meta.validate()?;
        Ok(meta)
    }
}
