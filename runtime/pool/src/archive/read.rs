//! Reading archives. Every byte may be an attacker's: nothing is made larger than the archive itself has shown to be.

use super::before::{BEFORE_FILE, restore_before};
use super::copy::Copier;
use super::sums::{Each, Part, Piece, beside, chunk_pieces, compare};
use super::write::{one_pass, shares_blocks};
use super::{ArchiveFailure, MANIFEST_FILE, Progress, puddle_file};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use vernal_format::archive::{
    ArchiveError, ArchiveHeader, DataLayout, HEADER_LEN, Manifest, StoredChunk, Trailer, chunk_sum,
};

/// Bytes read from a pipe at once.
const BUFFER: usize = 1 << 20;
/// Buffers between the reading and the writing thread.
const BUFFERS: usize = 4;

/// How an archive is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions {
    /// Take over the files of a directory instead of copying them. Their checksums are not compared: that would read every byte.
    pub take: bool,
}

/// The files of an archive, made but not yet those of a pool.
#[derive(Debug)]
pub struct Arrived {
    /// What the archive says of itself.
    pub manifest: Manifest,
    /// The puddles' files, in the order of the manifest: open for reading and writing, of the puddle's size.
    pub files: Vec<(PathBuf, File)>,
    /// The directory archive to which the files still belong too: what is changed in them is saved first with
    /// [`save_before`].
    pub taken: Option<PathBuf>,
}

/// Where an archive's puddles go.
pub trait Target {
    /// Makes the files of the puddles, empty and of their sizes, in the order of the manifest.
    fn files(&mut self, manifest: &Manifest) -> Result<Vec<(PathBuf, File)>, ArchiveFailure>;

    /// The directory of the files, if they are this process's own: whole files can then be put there.
    fn directory(&self) -> Option<&Path>;
}

/// A directory of this process, in which the files are made.
#[derive(Debug, Clone, Copy)]
pub struct Staging<'a>(pub &'a Path);

impl Target for Staging<'_> {
    fn files(&mut self, manifest: &Manifest) -> Result<Vec<(PathBuf, File)>, ArchiveFailure> {
        stage(manifest, self.0)
    }

    fn directory(&self) -> Option<&Path> {
        Some(self.0)
    }
}

/// Reads header and manifest from the front of `from`.
pub fn read_head(
    from: &mut impl Read,
    name: &str,
) -> Result<(ArchiveHeader, Manifest), ArchiveFailure> {
    let bad = |e| ArchiveFailure::format(name, e);
    let io = |what| move |e| cut(name, what, e);
    let mut page = [0; HEADER_LEN];
    from.read_exact(&mut page).map_err(io("header"))?;
    let header = ArchiveHeader::decode(&page).map_err(bad)?;
    // Reading what is there, not allocating what is promised.
    let mut bytes = Vec::new();
    let padded = header.data_offset() - HEADER_LEN as u64;
    from.take(padded)
        .read_to_end(&mut bytes)
        .map_err(io("manifest"))?;
    if (bytes.len() as u64) < padded {
        return Err(bad(ArchiveError::Truncated { what: "manifest" }));
    }
    bytes.truncate(header.manifest_len as usize);
    header.verify_manifest(&bytes).map_err(bad)?;
    let manifest = Manifest::decode(&bytes).map_err(bad)?;
    Ok((header, manifest))
}

/// An early end is a cut archive; any other error is the system's.
fn cut(name: &str, what: &'static str, source: io::Error) -> ArchiveFailure {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => {
            ArchiveFailure::format(name, ArchiveError::Truncated { what })
        }
        _ => ArchiveFailure::io("reading", name, source),
    }
}

fn read_trailer(
    from: &mut impl Read,
    manifest: &Manifest,
    name: &str,
) -> Result<Trailer, ArchiveFailure> {
    let len = Trailer::len_for(manifest);
    let mut bytes = Vec::new();
    from.take(len)
        .read_to_end(&mut bytes)
        .map_err(|e| cut(name, "trailer", e))?;
    Trailer::decode(&bytes, manifest).map_err(|e| ArchiveFailure::format(name, e))
}

/// Reads an archive from `from`, named `name` in messages, into the files of `target`, which the caller removes if this fails.
/// All checksums are compared.
pub fn read_stream(
    from: &File,
    name: &str,
    target: &mut dyn Target,
    progress: Progress<'_>,
) -> Result<Arrived, ArchiveFailure> {
    let regular = from
        .metadata()
        .map_err(|e| ArchiveFailure::io("reading", name, e))?
        .is_file();
    let start = rustix::fs::tell(from).ok().filter(|_| regular);
    let (header, manifest) = read_head(&mut &*from, name)?;
    if header.layout != DataLayout::Packed {
        let e = ArchiveError::Field {
            what: "header",
            field: "data layout (this archive is a directory: give its path)",
            value: 2,
        };
        return Err(ArchiveFailure::format(name, e));
    }
    let files = target.files(&manifest)?;
    let (sums, trailer) = match start {
        Some(start) => {
            let data = start + header.data_offset();
            let end = data.saturating_add(manifest.stored_bytes());
            let len = from.metadata().map_or(0, |m| m.len());
            // Known before anything is copied: a cut file is refused at once.
            if len < end.saturating_add(Trailer::len_for(&manifest)) {
                return Err(ArchiveFailure::format(
                    name,
                    ArchiveError::Truncated { what: "data" },
                ));
            }
            let sums = from_file(&manifest, from, data, &files, progress)
                .map_err(|e| cut(name, "data", e))?;
            rustix::fs::seek(from, rustix::fs::SeekFrom::Start(end))
                .map_err(|e| ArchiveFailure::io("reading", name, e.into()))?;
            (sums, read_trailer(&mut &*from, &manifest, name)?)
        }
        None => {
            let sums =
                from_pipe(&manifest, from, &files, progress).map_err(|e| cut(name, "data", e))?;
            (sums, read_trailer(&mut &*from, &manifest, name)?)
        }
    };
    compare(&manifest, &trailer.sums, &sums).map_err(|e| ArchiveFailure::format(name, e))?;
    Ok(Arrived {
        manifest,
        files,
        taken: None,
    })
}

/// Makes the empty files of the puddles. They are sparse: a manifest that promises terabytes costs nothing.
fn stage(manifest: &Manifest, staging: &Path) -> Result<Vec<(PathBuf, File)>, ArchiveFailure> {
    let mut files = Vec::new();
    for (index, puddle) in manifest.puddles.iter().enumerate() {
        let path = puddle_file(staging, index);
        let io = |e| ArchiveFailure::io("creating", &path.display().to_string(), e);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        file.set_len(puddle.size).map_err(io)?;
        files.push((path, file));
    }
    Ok(files)
}

fn from_file(
    manifest: &Manifest,
    from: &File,
    data: u64,
    files: &[(PathBuf, File)],
    progress: Progress<'_>,
) -> io::Result<Vec<u64>> {
    let chunks = chunk_pieces(manifest, |_, _, stored| (0, data + stored));
    if files.first().is_some_and(|(_, file)| !shares_blocks(file)) {
        // The same pieces, where they belong in the puddles, by where they are in the archive: both are in this order.
        let places = chunk_pieces(manifest, |puddle, offset, _| (puddle, offset));
        let sources = chunks.iter().flat_map(|(_, pieces)| pieces);
        let targets = places.iter().flat_map(|(_, pieces)| pieces);
        let map: Vec<(u64, Piece)> = sources.map(|p| p.at).zip(targets.copied()).collect();
        let write = |part: &Part<'_>| {
            let after = map.partition_point(|(at, _)| *at <= part.from.1);
            let place = after.checked_sub(1).and_then(|at| map.get(at));
            let (start, piece) = place.ok_or(io::ErrorKind::NotFound)?;
            let (_, file) = files.get(piece.file).ok_or(io::ErrorKind::NotFound)?;
            file.write_all_at(part.bytes, piece.at + (part.from.1 - start))?;
            progress(part.bytes.len() as u64);
            Ok(())
        };
        return one_pass(&[from], &chunks, &write, &|_| ());
    }
    beside(&[from], &chunks, Each::default(), || {
        let copier = Copier::new(progress);
        let mut at = data;
        for (puddle, (_, file)) in manifest.puddles.iter().zip(files) {
            for extent in &puddle.extents {
                copier.copy(from, at, file, extent.offset, extent.len)?;
                at += extent.len;
            }
        }
        Ok(())
    })
}

/// This thread reads the pipe, the other one sums and writes to the files.
fn from_pipe(
    manifest: &Manifest,
    from: &File,
    files: &[(PathBuf, File)],
    progress: Progress<'_>,
) -> io::Result<Vec<u64>> {
    let _ = rustix::pipe::fcntl_setpipe_size(from, BUFFER);
    // Here a piece's place is the puddle's file.
    let chunks = chunk_pieces(manifest, |puddle, offset, _| (puddle, offset));
    let (full, filled) = mpsc::sync_channel::<Vec<u8>>(BUFFERS);
    let (back, emptied) = mpsc::channel::<Vec<u8>>();
    std::thread::scope(|scope| {
        let chunks = &chunks;
        let writer = scope.spawn(move || store(chunks, files, &filled, &back));
        let mut outcome = Ok(());
        'all: for piece in chunks.iter().flat_map(|(_, pieces)| pieces) {
            let mut left = piece.len;
            while left > 0 {
                let mut buffer = emptied.try_recv().unwrap_or_default();
                buffer.resize(left.min(BUFFER as u64) as usize, 0);
                outcome = (&*from).read_exact(&mut buffer);
                left -= buffer.len() as u64;
                progress(buffer.len() as u64);
                // The writer has gone: its own error is told.
                if outcome.is_err() || full.send(buffer).is_err() {
                    break 'all;
                }
            }
        }
        drop(full);
        let sums = writer
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the writing thread has panicked")));
        outcome.and(sums)
    })
}

fn store(
    chunks: &[(StoredChunk, Vec<Piece>)],
    files: &[(PathBuf, File)],
    filled: &mpsc::Receiver<Vec<u8>>,
    back: &mpsc::Sender<Vec<u8>>,
) -> io::Result<Vec<u64>> {
    let mut sums = Vec::new();
    for (_, pieces) in chunks {
        let mut state = chunk_sum();
        for piece in pieces {
            let (_, file) = files.get(piece.file).ok_or(io::ErrorKind::NotFound)?;
            let mut done = 0;
            while done < piece.len {
                let buffer = filled
                    .recv()
                    .map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
                state.update(&buffer);
                file.write_all_at(&buffer, piece.at + done)?;
                done += buffer.len() as u64;
                let _ = back.send(buffer);
            }
        }
        sums.push(state.digest());
    }
    Ok(sums)
}

/// Reads the archive that is the directory `directory`. With `take` the puddles' files get names in the directory of `target` where
/// that is on the same file system ([`remove_taken`] ends the archive's part); else they are copied, and their checksums compared.
pub fn read_directory(
    directory: &Path,
    target: &mut dyn Target,
    options: ReadOptions,
    progress: Progress<'_>,
) -> Result<Arrived, ArchiveFailure> {
    let path = directory.join(MANIFEST_FILE);
    let name = path.display().to_string();
    let mut file = File::open(&path).map_err(|e| ArchiveFailure::io("opening", &name, e))?;
    restore_before(directory)?;
    let (header, manifest) = read_head(&mut file, &name)?;
    let trailer = read_trailer(&mut file, &manifest, &name)?;
    if header.layout != DataLayout::Beside {
        let e = ArchiveError::Field {
            what: "header",
            field: "data layout",
            value: 1,
        };
        return Err(ArchiveFailure::format(&name, e));
    }
    let mut sources = Vec::new();
    for (index, puddle) in manifest.puddles.iter().enumerate() {
        let path = puddle_file(directory, index);
        let source = open_plain(&path, options.take, puddle.size)?;
        sources.push((path, source));
    }
    if options.take
        && let Some(staging) = target.directory()
        && let Some(files) = take(&sources, staging)?
    {
        return Ok(Arrived {
            manifest,
            files,
            taken: Some(directory.to_owned()),
        });
    }
    let files = target.files(&manifest)?;
    let chunks = chunk_pieces(&manifest, |puddle, offset, _| (puddle, offset));
    let open: Vec<&File> = sources.iter().map(|(_, file)| file).collect();
    let sums = beside(&open, &chunks, Each::default(), || {
        let copier = Copier::new(progress);
        for ((puddle, from), (_, to)) in manifest.puddles.iter().zip(&open).zip(&files) {
            for extent in &puddle.extents {
                copier.copy(from, extent.offset, to, extent.offset, extent.len)?;
            }
        }
        Ok(())
    })
    .map_err(|e| cut(&name, "data", e))?;
    compare(&manifest, &trailer.sums, &sums).map_err(|e| ArchiveFailure::format(&name, e))?;
    Ok(Arrived {
        manifest,
        files,
        taken: None,
    })
}

/// Opens a puddle's file of a directory: a regular file of the right size that is reached through no link, so that nothing
/// else on the machine can be passed off as part of an archive.
fn open_plain(path: &Path, write: bool, size: u64) -> Result<File, ArchiveFailure> {
    use std::os::unix::fs::MetadataExt;
    let name = path.display().to_string();
    let io = |e| ArchiveFailure::io("opening", &name, e);
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    // A second name would let somebody change the pool's file behind its back.
    if !metadata.is_file() || (write && metadata.nlink() != 1) {
        return Err(io(io::Error::other(
            "this is no regular file with one name: copy the archive and import the copy",
        )));
    }
    if metadata.len() != size {
        return Err(ArchiveFailure::Length {
            name,
            found: metadata.len(),
            expected: size,
        });
    }
    Ok(file)
}

/// Gives the files second names in `staging`; `None` when that is another file system, or one without links. The archive keeps
/// its names until the import is complete, so that an interrupted one loses nothing.
fn take(
    sources: &[(PathBuf, File)],
    staging: &Path,
) -> Result<Option<Vec<(PathBuf, File)>>, ArchiveFailure> {
    let mut files = Vec::new();
    for (index, (path, file)) in sources.iter().enumerate() {
        let to = puddle_file(staging, index);
        let io = |e| ArchiveFailure::io("linking", &path.display().to_string(), e);
        match std::fs::hard_link(path, &to) {
            Ok(()) => files.push((to, file.try_clone().map_err(io)?)),
            Err(e) if index == 0 && !matches!(e.kind(), io::ErrorKind::AlreadyExists) => {
                return Ok(None);
            }
            Err(e) => return Err(io(e)),
        }
    }
    Ok(Some(files))
}

/// Removes what an import has taken over from the directory archive `directory`. Called when the pool is there to stay.
pub fn remove_taken(directory: &Path, manifest: &Manifest) -> io::Result<()> {
    // The manifest goes first: what is left of a directory without it is no archive.
    std::fs::remove_file(directory.join(MANIFEST_FILE))?;
    for index in 0..manifest.puddles.len() {
        std::fs::remove_file(puddle_file(directory, index))?;
    }
    match std::fs::remove_file(directory.join(BEFORE_FILE)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    std::fs::remove_dir(directory)
}
