//! All of the operating system and the CPU that Vernal touches: reservations and mappings, flushes and fences, media,
//! locks. What is above this crate contains no system calls for persistence and no intrinsics.
//!
//! This crate knows nothing of journals, commits or heaps.
mod aside;
pub mod cpu;
pub mod cxl_emul;
mod fault;
mod file;
pub mod futex;
mod mapped;
mod media;
pub mod mem;
pub mod os;
pub mod pages;
pub mod service;
mod signal;
pub mod touch;
mod words;

pub use aside::{Aside, ReadOnlyAside};
pub use file::{FileMedia, create_like, reserve_space, sync_parent_dir};
pub use mapped::{Backing, HomeView, JournalMedia, MappedMedia, RESERVE_CHUNK, probe_backing};
pub use media::Media;
pub use words::{WordMap, WordMode};
