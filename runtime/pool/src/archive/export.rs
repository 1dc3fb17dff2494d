//! Export of a whole pool: the copy, the checksums and the search for pointers out of the pool in one pass.

use super::image::PoolImage;
use super::search::{Dangling, Search};
use super::write::{Written, write_directory, write_stream};
use super::{ArchiveFailure, Progress};
use std::fs::File;
use std::path::Path;
use vernal_format::archive::StoredChunk;

/// Where an archive goes.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    /// One stream: a file or a pipe, and its name for messages.
    Stream(&'a File, &'a str),
    /// An empty directory.
    Directory(&'a Path),
}

/// How a pool is exported.
#[derive(Debug, Clone, Copy)]
pub struct ExportOptions {
    /// Pointers that lead out of the pool are no error.
    pub allow_dangling: bool,
    /// Memory without type that holds what looks like pointers into the pool is no error.
    pub allow_untyped: bool,
    /// How many of them are named.
    pub list: usize,
}

/// What an export gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// What was written.
    pub written: Written,
    /// Pointers that lead out of the pool.
    pub dangling_count: u64,
    /// The first of them.
    pub dangling: Vec<Dangling>,
}

/// Writes the archive of `image`. Each chunk is searched as soon as it has been read, so that its bytes come from memory once. When
/// pointers that lead out of the pool are not allowed and there are some, the archive never gets its trailer, so that no import takes
/// what has gone through a pipe already.
pub fn export(
    image: &PoolImage,
    to: Destination<'_>,
    options: ExportOptions,
    progress: Progress<'_>,
) -> Result<Exported, ArchiveFailure> {
    let search = Search::new(image, options.list, !options.allow_untyped);
    let look = |chunk: &StoredChunk| search.look(chunk.puddle, chunk.chunk);
    let mut found = (0, Vec::new());
    let finish = || {
        found = search.found()?;
        match found.0 {
            0 => Ok(()),
            _ if options.allow_dangling => Ok(()),
            count => Err(ArchiveFailure::Dangling {
                name: image.name().to_owned(),
                count,
                list: std::mem::take(&mut found.1),
            }),
        }
    };
    let (manifest, files) = (image.manifest(), image.files());
    let written = match to {
        Destination::Stream(out, name) => {
            write_stream(manifest, &files, out, name, &look, finish, progress)
        }
        Destination::Directory(path) => {
            write_directory(manifest, &files, path, &look, finish, progress)
        }
    }?;
    Ok(Exported {
        written,
        dangling_count: found.0,
        dangling: found.1,
    })
}
