//! The log space of a process: which log files there are, in a double slot.
//!
//! ```text
//!   32  log space uuid   16
//!   48  count             4   of log files
//!   52  reserved          4   zero
//!   56  100 x log file   40   uuid 16, log uuid 16, position 4, pages 4
//! 4056  zero                  to 4096
//! ```

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::LOG_FILE_MIN;
use crate::slot::{FormatError, HEAD_LEN, SLOT_COUNT, SLOT_LEN, Slot};
use crate::uuid::Uuid;

/// Version of the log space that this code writes.
pub const LOG_SPACE_VERSION: u32 = 1;
/// Length of a log space.
pub const LOG_SPACE_LEN: u64 = (SLOT_LEN * SLOT_COUNT) as u64;
/// Log files of one log space.
pub const MAX_LOG_FILES: usize = 100;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct RawRef {
    file: [u8; 16],
    log: [u8; 16],
    position: U32,
    pages: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Body {
    space: [u8; 16],
    count: U32,
    reserved: U32,
    files: [RawRef; MAX_LOG_FILES],
    zero: [U64; 5],
}

const _: () = {
    assert!(size_of::<Body>() == SLOT_LEN - HEAD_LEN);
    assert!(std::mem::offset_of!(Body, files) == 56 - HEAD_LEN);
};

/// A log file, as its log space names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRef {
    /// Identity of the file.
    pub file: Uuid,
    /// Identity of its log: of the log's first file.
    pub log: Uuid,
    /// Place in the log's chain.
    pub position: u32,
    /// Length of the file.
    pub len: u64,
}

/// The log space of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSpace {
    /// Counts the stores; the newest valid slot wins.
    pub update: u64,
    /// Identity of the log space.
    pub uuid: Uuid,
    /// Its log files, at most [`MAX_LOG_FILES`].
    pub files: Vec<LogRef>,
}

impl LogSpace {
    /// The files of each log, in the order of the chain; `Err` names a log whose chain has a gap or a file twice.
    pub fn chains(&self) -> Vec<(Uuid, Result<Vec<LogRef>, ChainGap>)> {
        let mut heads: Vec<Uuid> = Vec::new();
        for file in &self.files {
            if !heads.contains(&file.log) {
                heads.push(file.log);
            }
        }
        let chain = |log: Uuid| {
            let mut files: Vec<LogRef> = self
                .files
                .iter()
                .filter(|f| f.log == log)
                .copied()
                .collect();
            files.sort_by_key(|f| f.position);
            match (0u32..).zip(&files).find(|(at, f)| f.position != *at) {
                Some((position, _)) => Err(ChainGap { log, position }),
                None => Ok(files),
            }
        };
        heads.into_iter().map(|log| (log, chain(log))).collect()
    }
}

/// A log whose files do not make a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log space does not name exactly one file of log {log} for position {position}")]
pub struct ChainGap {
    /// The log.
    pub log: Uuid,
    /// First place that has no file.
    pub position: u32,
}

impl Slot for LogSpace {
    const MAGIC: u64 = u64::from_le_bytes(*b"VRNLLGSP");
    const VERSION: u32 = LOG_SPACE_VERSION;
    const WHAT: &'static str = "log space";

    fn update(&self) -> u64 {
        self.update
    }

    fn encode_body(&self, body: &mut [u8; SLOT_LEN - HEAD_LEN]) {
        let mut raw = Body {
            space: self.uuid.0,
            count: (self.files.len().min(MAX_LOG_FILES) as u32).into(),
            reserved: 0.into(),
            files: [RawRef {
                file: [0; 16],
                log: [0; 16],
                position: 0.into(),
                pages: 0.into(),
            }; MAX_LOG_FILES],
            zero: [0.into(); 5],
        };
        for (to, from) in raw.files.iter_mut().zip(&self.files) {
            *to = RawRef {
                file: from.file.0,
                log: from.log.0,
                position: from.position.into(),
                pages: ((from.len / 4096) as u32).into(),
            };
        }
        body.copy_from_slice(raw.as_bytes());
    }

    fn decode_body(
        _version: u32,
        update: u64,
        body: &[u8; SLOT_LEN - HEAD_LEN],
    ) -> Result<LogSpace, FormatError> {
        let field = |field, value| FormatError::Field {
            what: Self::WHAT,
            field,
            value,
        };
        let raw = Body::ref_from_bytes(body).map_err(|_| field("length", body.len() as u64))?;
        let count = raw.count.get();
        let named = raw
            .files
            .get(..count as usize)
            .ok_or_else(|| field("number of log files", count.into()))?;
        let mut files = Vec::with_capacity(named.len());
        for f in named {
            let file = LogRef {
                file: Uuid(f.file),
                log: Uuid(f.log),
                position: f.position.get(),
                len: u64::from(f.pages.get()) * 4096,
            };
            if file.len < LOG_FILE_MIN {
                return Err(field("length of a log file", file.len));
            }
            if (file.position == 0) != (file.file == file.log) {
                return Err(field("position of a log file", file.position.into()));
            }
            if files.iter().any(|other: &LogRef| other.file == file.file) {
                return Err(field("uuid of two log files", file.file.short()));
            }
            files.push(file);
        }
        Ok(LogSpace {
            update,
            uuid: Uuid(raw.space),
            files,
        })
    }
}
