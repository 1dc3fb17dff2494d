//! Export and import: a pool's files become an archive, and an archive becomes a pool's files.
//!
//! [`write_stream`] and [`write_directory`] take the files of a pool that nobody writes, [`read_stream`] and
//! [`read_directory`] give the files of a pool that nobody sees yet. What turns one into a pool of this machine, with identities
//! and addresses of its own, is [`crate::dir`]'s part. Pointers are not touched here: the archive says for which addresses
//! they are valid, and they are rewritten when they are first reached.

mod before;
mod copy;
mod error;
mod extents;
mod read;
mod sums;
mod write;

pub use before::save_before;
pub use error::ArchiveFailure;
pub use extents::extents_of;
pub use read::{Arrived, ReadOptions, read_directory, read_head, read_stream, remove_taken};
pub use write::{MANIFEST_FILE, Written, puddle_file, write_directory, write_stream};

/// Told how many more bytes are done. Called from one thread, now and then.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);
