//! What the files of a directory archive held before an import that takes them over changed them.
//!
//! Such an import gives the files new identities in place. If it is interrupted, the archive must still be what it was: the bytes
//! are saved here first, durably, and put back by whoever reads the archive next.
//!
//! ```text
//!   0  magic     8   "VRNLABEF"
//!   8  checksum  8   XXH3-64 of everything behind it
//!  16  entries       file 4, length 4, offset 8, bytes
//! ```

use super::{ArchiveFailure, puddle_file};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use vernal_format::archive::sum_of;

/// The file in the archive's directory.
pub(super) const BEFORE_FILE: &str = "before-move.vernal-archive";
const MAGIC: &[u8; 8] = b"VRNLABEF";
/// The largest file that is put back: 64 puddles' first pages and a pool page are far below.
const LONGEST: u64 = 64 << 20;

/// Saves ranges `(puddle, offset, length)` of an archive's files, durably, before they are changed.
pub fn save_before(
    directory: &Path,
    files: &[(PathBuf, File)],
    ranges: &[(usize, u64, u32)],
) -> Result<(), ArchiveFailure> {
    let path = directory.join(BEFORE_FILE);
    let io = |e| ArchiveFailure::io("writing", &path.display().to_string(), e);
    let mut body = Vec::new();
    for (index, offset, len) in ranges {
        let (_, file) = files
            .get(*index)
            .ok_or_else(|| io(io::ErrorKind::NotFound.into()))?;
        body.extend_from_slice(&(*index as u32).to_le_bytes());
        body.extend_from_slice(&len.to_le_bytes());
        body.extend_from_slice(&offset.to_le_bytes());
        let at = body.len();
        body.resize(at + *len as usize, 0);
        let bytes = body.get_mut(at..).unwrap_or_default();
        file.read_exact_at(bytes, *offset).map_err(io)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&sum_of(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    file.write_all(&bytes).map_err(io)?;
    file.sync_all().map_err(io)?;
    File::open(directory).and_then(|d| d.sync_all()).map_err(io)
}

/// Puts back what an interrupted import had changed. A torn file was never followed by a change: it is removed.
pub(super) fn restore_before(directory: &Path) -> Result<(), ArchiveFailure> {
    let path = directory.join(BEFORE_FILE);
    let io = |e| ArchiveFailure::io("restoring from", &path.display().to_string(), e);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io(e)),
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, LONGEST), &mut bytes).map_err(io)?;
    for (index, offset, data) in entries(&bytes).unwrap_or_default() {
        let name = puddle_file(directory, index as usize);
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&name)
            .map_err(io)?;
        // Hostile entries change nothing but the archive that they are part of, and make no file longer.
        let end = offset.checked_add(data.len() as u64);
        if end.is_some_and(|end| file.metadata().is_ok_and(|m| end <= m.len())) {
            file.write_all_at(data, offset).map_err(io)?;
            file.sync_all().map_err(io)?;
        }
    }
    std::fs::remove_file(&path).map_err(io)
}

/// The entries `(puddle, offset, bytes)`; `None` if anything is not as it was written.
fn entries(bytes: &[u8]) -> Option<Vec<(u32, u64, &[u8])>> {
    let body = bytes.strip_prefix(MAGIC)?;
    let (sum, mut body) = body.split_first_chunk::<8>()?;
    if u64::from_le_bytes(*sum) != sum_of(body) {
        return None;
    }
    let mut out = Vec::new();
    while !body.is_empty() {
        let (index, rest) = body.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (data, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        out.push((
            u32::from_le_bytes(*index),
            u64::from_le_bytes(*offset),
            data,
        ));
        body = rest;
    }
    Some(out)
}
