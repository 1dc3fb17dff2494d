//! One pass over the chunks of an archive, by several threads: each chunk is read once, and summed, written and looked at while it
//! is in the cache of the CPU. Where the kernel shares blocks instead of copying them, it does so beside this.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use vernal_abi::puddle::CHUNK_SIZE;
use vernal_format::archive::{ArchiveError, Manifest, StoredChunk, chunk_sum};

/// Bytes read at once: a piece stays in the second-level cache between the read and the checksum.
pub(super) const PIECE: usize = 128 << 10;

/// A range of bytes of a chunk, and where it is in the file that holds them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// Which file.
    pub(super) file: usize,
    /// Where in it.
    pub(super) at: u64,
    /// How many bytes.
    pub(super) len: u64,
}

/// The pieces of every stored chunk, in the order of the trailer. `place` tells where the bytes of an extent are: of which file,
/// and from which offset for (puddle, offset in the puddle, bytes stored before).
pub(super) fn chunk_pieces(
    manifest: &Manifest,
    place: impl Fn(usize, u64, u64) -> (usize, u64),
) -> Vec<(StoredChunk, Vec<Piece>)> {
    let mut pieces: Vec<(StoredChunk, Vec<Piece>)> = manifest
        .stored_chunks()
        .map(|chunk| (chunk, Vec::new()))
        .collect();
    let mut chunk = 0;
    let mut stored = 0;
    for (index, puddle) in manifest.puddles.iter().enumerate() {
        for extent in &puddle.extents {
            let mut at = extent.offset;
            let end = extent.offset + extent.len;
            while at < end {
                let number = at / CHUNK_SIZE;
                let stop = end.min((number + 1) * CHUNK_SIZE);
                while pieces
                    .get(chunk)
                    .is_some_and(|(c, _)| (c.puddle, c.chunk) != (index, number))
                {
                    chunk += 1;
                }
                let (file, from) = place(index, at, stored);
                if let Some((_, list)) = pieces.get_mut(chunk) {
                    list.push(Piece {
                        file,
                        at: from,
                        len: stop - at,
                    });
                }
                stored += stop - at;
                at = stop;
            }
        }
    }
    pieces
}

/// A part of a chunk that has been read.
pub(super) struct Part<'a> {
    /// Which chunk, in the order of the trailer.
    pub(super) index: usize,
    /// Where it comes from: file, and offset there.
    pub(super) from: (usize, u64),
    /// Stored bytes of the chunk before it.
    pub(super) before: u64,
    /// The bytes.
    pub(super) bytes: &'a [u8],
}

/// Told of parts that have been read.
pub(super) type Write<'a> = &'a (dyn Fn(&Part<'_>) -> io::Result<()> + Sync);

/// What else is done with chunks, by several threads at the same time.
#[derive(Clone, Copy, Default)]
pub(super) struct Each<'a> {
    /// Gets every part of every chunk.
    pub(super) write: Option<Write<'a>>,
    /// Gets every chunk whose bytes have been read.
    pub(super) look: Option<&'a (dyn Fn(&StoredChunk) + Sync)>,
}

/// Sums being computed by worker threads.
pub(super) struct Summer<'a> {
    files: &'a [&'a File],
    chunks: &'a [(StoredChunk, Vec<Piece>)],
    each: Each<'a>,
    next: AtomicUsize,
    sums: Mutex<Vec<u64>>,
    stop: AtomicBool,
}

impl<'a> Summer<'a> {
    pub(super) fn new(
        files: &'a [&'a File],
        chunks: &'a [(StoredChunk, Vec<Piece>)],
        each: Each<'a>,
    ) -> Summer<'a> {
        Summer {
            files,
            chunks,
            each,
            next: AtomicUsize::new(0),
            sums: Mutex::new(vec![0; chunks.len()]),
            stop: AtomicBool::new(false),
        }
    }

    /// Takes chunks until none is left. Any number of threads may be in here; the copying thread joins them when it is done.
    pub(super) fn work(&self) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((chunk, pieces)) = self.chunks.get(index) else {
                return Ok(());
            };
            let sum = self
                .sum(index, pieces, &mut buffer)
                .inspect_err(|_| self.stop())?;
            if let Some(look) = self.each.look {
                look(chunk);
            }
            let mut sums = self.sums.lock().unwrap_or_else(|e| e.into_inner());
            if let Some(slot) = sums.get_mut(index) {
                *slot = sum;
            }
        }
        Ok(())
    }

    fn sum(&self, index: usize, pieces: &[Piece], buffer: &mut [u8]) -> io::Result<u64> {
        let mut state = chunk_sum();
        let mut before = 0;
        for piece in pieces {
            let file = self.files.get(piece.file).ok_or(io::ErrorKind::NotFound)?;
            let mut done = 0;
            while done < piece.len {
                let want = (piece.len - done).min(buffer.len() as u64) as usize;
                let part = buffer.get_mut(..want).ok_or(io::ErrorKind::UnexpectedEof)?;
                file.read_exact_at(part, piece.at + done)?;
                state.update(part);
                if let Some(write) = self.each.write {
                    write(&Part {
                        index,
                        from: (piece.file, piece.at + done),
                        before,
                        bytes: part,
                    })?;
                }
                done += want as u64;
                before += want as u64;
            }
        }
        Ok(state.digest())
    }

    /// Makes the workers leave: the copying has failed.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn finish(self) -> Vec<u64> {
        self.sums.into_inner().unwrap_or_else(|e| e.into_inner())
    }
}

/// Runs `copy` on this thread while the pass over `chunks` runs on others, then helps with what is left of it.
pub(super) fn beside(
    files: &[&File],
    chunks: &[(StoredChunk, Vec<Piece>)],
    each: Each<'_>,
    copy: impl FnOnce() -> io::Result<()>,
) -> io::Result<Vec<u64>> {
    let summer = Summer::new(files, chunks, each);
    let helpers = std::thread::available_parallelism()
        .map_or(1, |n| n.get() - 1)
        .clamp(1, 4);
    let outcome = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..helpers)
            .map(|_| scope.spawn(|| summer.work()))
            .collect();
        let mut outcome = copy();
        match outcome {
            Ok(()) => outcome = summer.work(),
            Err(_) => summer.stop(),
        }
        for worker in workers {
            let result = worker
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a checksum thread has panicked")));
            outcome = outcome.and(result);
        }
        outcome
    });
    outcome.map(|()| summer.finish())
}

/// Compares checksums with those of the trailer.
pub(super) fn compare(
    manifest: &Manifest,
    expected: &[u64],
    computed: &[u64],
) -> Result<(), ArchiveError> {
    if expected.len() != computed.len() {
        return Err(ArchiveError::Truncated { what: "data" });
    }
    for ((chunk, found), computed) in manifest.stored_chunks().zip(expected).zip(computed) {
        if found != computed {
            return Err(ArchiveError::Chunk {
                puddle: chunk.puddle,
                chunk: chunk.chunk,
                found: *found,
                computed: *computed,
            });
        }
    }
    Ok(())
}
