//! Writing archives.

use super::copy::Copier;
use super::sums::{Each, Part, Piece, Write as WritePart, beside, chunk_pieces};
use super::{ArchiveFailure, Progress, extents_of};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use vernal_abi::puddle::CHUNK_SIZE;
use vernal_format::archive::{
    ARCHIVE_PAGE, ArchiveHeader, DataLayout, Manifest, StoredChunk, Trailer, chunk_sum,
};

/// Header, manifest and trailer of an archive that is a directory.
pub const MANIFEST_FILE: &str = "archive.vernal-archive";
/// Bytes that go through a pipe at once.
const BUFFER: usize = 1 << 20;
/// Buffers between the reading and the writing thread.
const BUFFERS: usize = 4;

/// Told of each stored chunk whose bytes have been read, by several threads.
pub type Look<'a> = &'a (dyn Fn(&StoredChunk) + Sync);

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the archive.
    pub bytes: u64,
    /// Bytes of puddles in it.
    pub stored: u64,
}

/// The file of puddle `index` in an archive that is a directory.
pub fn puddle_file(directory: &Path, index: usize) -> PathBuf {
    directory.join(format!("{index}.puddle"))
}

/// Fills in the extents of `manifest` from the files of its puddles, and checks their lengths.
fn survey(manifest: &mut Manifest, files: &[&File]) -> Result<(), ArchiveFailure> {
    for (index, puddle) in manifest.puddles.iter_mut().enumerate() {
        let name = format!("puddle {}", puddle.uuid);
        let Some(file) = files.get(index) else {
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(ArchiveFailure::io("opening", &name, source));
        };
        let io = |source| ArchiveFailure::io("reading", &name, source);
        let found = file.metadata().map_err(io)?.len();
        if found != puddle.size {
            return Err(ArchiveFailure::Length {
                name,
                found,
                expected: puddle.size,
            });
        }
        puddle.extents = extents_of(file, puddle.size).map_err(io)?;
    }
    Ok(())
}

/// Header and manifest, padded to a page.
fn head(manifest: &Manifest, layout: DataLayout) -> Vec<u8> {
    let body = manifest.encode();
    let header = ArchiveHeader::of(layout, &body);
    let mut out = header.encode().to_vec();
    out.extend_from_slice(&body);
    out.resize(header.data_offset() as usize, 0);
    out
}

fn trailer(manifest: &Manifest, sums: Vec<u64>) -> Vec<u8> {
    Trailer {
        stored: manifest.stored_bytes(),
        sums,
    }
    .encode()
}

/// Writes an archive in one piece to `out`, named `name` in messages. `files` are the puddles' files in the order of the
/// manifest, whose extents are filled in here. Nobody may write to them meanwhile.
///
/// `look` is called for each chunk that is stored, as soon as its bytes have been read, by several threads. `finish` is called when
/// only the trailer is missing: if it fails, the archive stays without one.
///
/// Into a regular file several threads read, sum and write, or the kernel shares blocks where the file system can; into a pipe
/// or a socket bytes go through buffers.
pub fn write_stream(
    mut manifest: Manifest,
    files: &[&File],
    out: &File,
    name: &str,
    look: Look<'_>,
    finish: impl FnOnce() -> Result<(), ArchiveFailure>,
    progress: Progress<'_>,
) -> Result<Written, ArchiveFailure> {
    survey(&mut manifest, files)?;
    manifest
        .validate()
        .map_err(|e| ArchiveFailure::format(name, e))?;
    let head = head(&manifest, DataLayout::Packed);
    let io = |source| ArchiveFailure::io("writing", name, source);
    let regular = out.metadata().map_err(io)?.is_file();
    // A file that was opened for appending, or is not at its start, is written like a pipe.
    let at_start = || matches!(rustix::fs::tell(out), Ok(0));
    let seekable = regular && at_start() && !appends(out);
    let sums = if seekable {
        out.write_all_at(&head, 0).map_err(io)?;
        to_file(&manifest, files, out, head.len() as u64, look, progress)
    } else {
        (&*out).write_all(&head).map_err(io)?;
        to_pipe(&manifest, files, out, look, progress)
    };
    let end = trailer(&manifest, sums.map_err(io)?);
    finish()?;
    let stored = manifest.stored_bytes();
    let data_end = head.len() as u64 + stored;
    if seekable {
        out.write_all_at(&end, data_end).map_err(io)?;
        out.set_len(data_end + end.len() as u64).map_err(io)?;
    } else {
        (&*out).write_all(&end).map_err(io)?;
    }
    Ok(Written {
        bytes: data_end + end.len() as u64,
        stored,
    })
}

fn appends(file: &File) -> bool {
    rustix::fs::fcntl_getfl(file).map_or(true, |flags| flags.contains(rustix::fs::OFlags::APPEND))
}

fn to_file(
    manifest: &Manifest,
    files: &[&File],
    out: &File,
    start: u64,
    look: Look<'_>,
    progress: Progress<'_>,
) -> io::Result<Vec<u64>> {
    let chunks = chunk_pieces(manifest, |puddle, offset, _| (puddle, offset));
    if !shares_blocks(out) {
        let starts: Vec<u64> = chunks
            .iter()
            .scan(start, |at, (chunk, _)| {
                let this = *at;
                *at += chunk.bytes;
                Some(this)
            })
            .collect();
        let write = |part: &Part<'_>| {
            let to = starts.get(part.index).copied().unwrap_or_default() + part.before;
            out.write_all_at(part.bytes, to)?;
            progress(part.bytes.len() as u64);
            Ok(())
        };
        return one_pass(files, &chunks, &write, look);
    }
    let each = Each {
        look: Some(look),
        ..Each::default()
    };
    beside(files, &chunks, each, || {
        let copier = Copier::new(progress);
        let mut to = start;
        for (puddle, file) in manifest.puddles.iter().zip(files) {
            for extent in &puddle.extents {
                copier.copy(file, extent.offset, out, to, extent.len)?;
                to += extent.len;
            }
        }
        Ok(())
    })
}

/// Whether the file system of `file` may share blocks between files, or copy them where they are: all but those that are known
/// to do neither.
pub(super) fn shares_blocks(file: &File) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const EXT: u64 = 0xef53;
    !rustix::fs::fstatfs(file).is_ok_and(|s| [TMPFS, EXT].contains(&(s.f_type as u64)))
}

/// Reads, sums, writes and looks while the bytes are in the cache: where a copy in the kernel is a copy all the same, fetching them
/// again for the sums costs more than it gains.
pub(super) fn one_pass(
    files: &[&File],
    chunks: &[(StoredChunk, Vec<Piece>)],
    write: WritePart<'_>,
    look: Look<'_>,
) -> io::Result<Vec<u64>> {
    let each = Each {
        write: Some(write),
        look: Some(look),
    };
    beside(files, chunks, each, || Ok(()))
}

/// One thread reads and sums, this one writes.
fn to_pipe(
    manifest: &Manifest,
    files: &[&File],
    out: &File,
    look: Look<'_>,
    progress: Progress<'_>,
) -> io::Result<Vec<u64>> {
    // A larger pipe means fewer switches between us and the reader; not being allowed one is no failure.
    let _ = rustix::pipe::fcntl_setpipe_size(out, BUFFER);
    let (full, filled) = mpsc::sync_channel::<Vec<u8>>(BUFFERS);
    let (back, emptied) = mpsc::channel::<Vec<u8>>();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || read_all(manifest, files, look, &full, &emptied));
        let mut outcome = Ok(());
        for buffer in &filled {
            outcome = (&*out).write_all(&buffer);
            if outcome.is_err() {
                break;
            }
            progress(buffer.len() as u64);
            let _ = back.send(buffer);
        }
        // The reader stops when its buffers find no taker.
        drop(filled);
        let sums = reader
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the reading thread has panicked")));
        outcome.and(sums)
    })
}

fn read_all(
    manifest: &Manifest,
    files: &[&File],
    look: Look<'_>,
    full: &mpsc::SyncSender<Vec<u8>>,
    emptied: &mpsc::Receiver<Vec<u8>>,
) -> io::Result<Vec<u64>> {
    let mut sums = Vec::new();
    for (chunk, pieces) in chunk_pieces(manifest, |puddle, offset, _| (puddle, offset)) {
        debug_assert!(chunk.bytes <= CHUNK_SIZE);
        let mut state = chunk_sum();
        for piece in pieces {
            let file = files.get(piece.file).ok_or(io::ErrorKind::NotFound)?;
            let mut done = 0;
            while done < piece.len {
                let mut buffer = emptied.try_recv().unwrap_or_default();
                buffer.resize((piece.len - done).min(BUFFER as u64) as usize, 0);
                file.read_exact_at(&mut buffer, piece.at + done)?;
                state.update(&buffer);
                done += buffer.len() as u64;
                if full.send(buffer).is_err() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
        }
        sums.push(state.digest());
        look(&chunk);
    }
    Ok(sums)
}

/// Writes an archive as the directory `directory`, which must exist and be empty: one file for each puddle, and
/// [`MANIFEST_FILE`], which is written when `finish` has agreed. `look` as for [`write_stream`].
pub fn write_directory(
    mut manifest: Manifest,
    files: &[&File],
    directory: &Path,
    look: Look<'_>,
    finish: impl FnOnce() -> Result<(), ArchiveFailure>,
    progress: Progress<'_>,
) -> Result<Written, ArchiveFailure> {
    survey(&mut manifest, files)?;
    let name = directory.display().to_string();
    manifest
        .validate()
        .map_err(|e| ArchiveFailure::format(&name, e))?;
    let io = |source| ArchiveFailure::io("writing", &name, source);
    let copies = (0..files.len())
        .map(|index| new_file(&puddle_file(directory, index)))
        .collect::<io::Result<Vec<File>>>()
        .map_err(io)?;
    let chunks = chunk_pieces(&manifest, |puddle, offset, _| (puddle, offset));
    for (puddle, copy) in manifest.puddles.iter().zip(&copies) {
        copy.set_len(puddle.size).map_err(io)?;
    }
    let sums = if copies.first().is_some_and(shares_blocks) {
        let each = Each {
            look: Some(look),
            ..Each::default()
        };
        beside(files, &chunks, each, || {
            let copier = Copier::new(progress);
            for ((puddle, file), copy) in manifest.puddles.iter().zip(files).zip(&copies) {
                for extent in &puddle.extents {
                    copier.copy(file, extent.offset, copy, extent.offset, extent.len)?;
                }
            }
            Ok(())
        })
    } else {
        let write = |part: &Part<'_>| {
            let (file, at) = part.from;
            let copy = copies.get(file).ok_or(io::ErrorKind::NotFound)?;
            copy.write_all_at(part.bytes, at)?;
            progress(part.bytes.len() as u64);
            Ok(())
        };
        one_pass(files, &chunks, &write, look)
    };
    let mut bytes = head(&manifest, DataLayout::Beside);
    bytes.extend_from_slice(&trailer(&manifest, sums.map_err(io)?));
    finish()?;
    let mut file = new_file(&directory.join(MANIFEST_FILE)).map_err(io)?;
    file.write_all(&bytes).map_err(io)?;
    debug_assert!((bytes.len() as u64).is_multiple_of(ARCHIVE_PAGE));
    Ok(Written {
        bytes: bytes.len() as u64 + manifest.stored_bytes(),
        stored: manifest.stored_bytes(),
    })
}

/// A file that nobody else can read: an archive holds whatever the pool does.
fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
