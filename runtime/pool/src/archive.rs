//! Export and import: a pool's files become an archive, and an archive becomes a pool's files.
//!
//! [`PoolImage`] is a pool that nobody writes; [`write_stream`] and [`write_directory`] take its files. [`read_stream`] and
//! [`read_directory`] give the files of a pool that nobody sees yet, and [`set_identities`] makes them another pool than the
//! archived one; [`import`] and [`clone`](clone()) do all of it for pools in directories. Pointers are not touched here: the archive says
//! for which addresses they are valid, and they are rewritten when they are first reached.

mod before;
mod copy;
mod error;
mod export;
mod extents;
mod identity;
mod image;
mod place;
mod read;
mod search;
mod sums;
mod write;

pub use before::save_before;
pub use error::ArchiveFailure;
pub use export::{Destination, ExportOptions, Exported, export};
pub use extents::extents_of;
pub use identity::{Identities, identity_ranges, set_identities};
pub use image::{ImageMemory, PoolImage, ROOT_FILE, member_file, peek};
pub use place::{Source, clone, copy_into, import, sweep};
pub use read::{
    Arrived, ReadOptions, Staging, Target, read_directory, read_head, read_stream, remove_taken,
};
pub use search::Dangling;
pub use write::{Look, MANIFEST_FILE, Written, puddle_file, write_directory, write_stream};

/// Told how many more bytes are done, now and then, by several threads.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);
