//! Where a file has bytes.

use std::fs::File;
use std::io;
use vernal_format::archive::{ARCHIVE_PAGE, Extent, MAX_EXTENTS};

/// Shorter holes are archived as zeros: a system call costs more than copying them.
const SHORTEST_HOLE: u64 = 64 << 10;

/// The parts of the first `len` bytes of `file` that may hold something else than zeros, on whole pages. A file system that does
/// not tell has no holes.
pub fn extents_of(file: &File, len: u64) -> io::Result<Vec<Extent>> {
    let mut out: Vec<Extent> = Vec::new();
    let mut at = 0;
    while at < len {
        let data = match seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(Some(data)) => data.min(len),
            // Nothing but a hole up to the end.
            Ok(None) => break,
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => at,
            Err(e) => return Err(e),
        };
        if data >= len {
            break;
        }
        let hole = match seek(file, rustix::fs::SeekFrom::Hole(data)) {
            Ok(found) => found.unwrap_or(len).min(len),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => len,
            Err(e) => return Err(e),
        };
        let start = data - data % ARCHIVE_PAGE;
        let end = hole.next_multiple_of(ARCHIVE_PAGE).min(len);
        match out.last_mut() {
            Some(last) if start < last.offset + last.len + SHORTEST_HOLE => {
                last.len = end.max(last.offset + last.len) - last.offset;
            }
            _ => out.push(Extent {
                offset: start,
                len: end - start,
            }),
        }
        // A manifest holds so many; the last one takes the rest of the file.
        if out.len() >= MAX_EXTENTS {
            if let Some(last) = out.last_mut() {
                last.len = len - last.offset;
            }
            break;
        }
        at = hole.max(at + 1);
    }
    Ok(out)
}

fn seek(file: &File, to: rustix::fs::SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
