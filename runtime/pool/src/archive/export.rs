//! Export of a whole pool: the copy, the checksums and the search for pointers out of the pool at the same time.

use super::image::{Dangling, PoolImage};
use super::write::{Written, write_directory, write_stream};
use super::{ArchiveFailure, Progress};
use std::fs::File;
use std::path::Path;

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
    /// Threads that look for them.
    pub jobs: usize,
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

/// Writes the archive of `image`. When pointers that lead out of the pool are not allowed and there are some, the archive
/// never gets its trailer, so that no import takes what has gone through a pipe already.
pub fn export(
    image: &PoolImage,
    to: Destination<'_>,
    options: ExportOptions,
    progress: Progress<'_>,
) -> Result<Exported, ArchiveFailure> {
    std::thread::scope(|scope| {
        let search = scope.spawn(|| {
            let refused = match options.allow_untyped {
                true => Ok(()),
                false => image.refuse_untyped(options.list, options.jobs),
            };
            refused.map(|()| image.dangling(options.list, options.jobs))
        });
        let mut found = (0, Vec::new());
        let finish = || {
            found = search.join().map_err(|_| ArchiveFailure::Damaged {
                name: image.name().to_owned(),
                why: "the search for pointers out of it has panicked".to_owned(),
            })??;
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
                write_stream(manifest, &files, out, name, finish, progress)
            }
            Destination::Directory(path) => {
                write_directory(manifest, &files, path, finish, progress)
            }
        }?;
        Ok(Exported {
            written,
            dangling_count: found.0,
            dangling: found.1,
        })
    })
}
