//! Shared memory of a connection: a segment that this side writes, one that the peer writes, and what forked children share.
//!
//! ```text
//!   segment    word 0  magic       1  capacity in bytes
//!              word 2  switch: 0, or 1 + the bytes that went over the socket before the first one of the ring
//!              word 3  state: 0 not yet, 1 has mapped the other segment, 2 stays with the socket
//!              word 4  end: 0, or 1 + the bytes of the ring before the end of the stream
//!              word 5  closed: bit 0 the connection, bit 1 the reading side
//!              word 32 the area of vernal-ring's StreamArea
//! ```
//!
//! A segment is a memfd that its owner maps once, writable; then it is sealed against shrinking, growing and every other writer, and
//! only then sent. The receiver asks the kernel for the seals and maps it for reading.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use vernal_ring::{Mapped, StreamArea};

/// "VNSHIM01".
pub const MAGIC: u64 = u64::from_le_bytes(*b"VNSHIM01");
/// Words of the header.
pub const SWITCH: usize = 2;
/// See the layout.
pub const STATE: usize = 3;
/// See the layout.
pub const END: usize = 4;
/// See the layout.
pub const CLOSED: usize = 5;
/// First word of the area.
const AREA: usize = 32;

/// Values of the word `STATE`.
pub const MAPPED: u64 = 1;
/// The side stays with the socket.
pub const GIVEN_UP: u64 = 2;
/// Bits of the word `CLOSED`.
pub const CLOSED_ALL: u64 = 1;
/// Nobody will read any more.
pub const CLOSED_READING: u64 = 2;

const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::FUTURE_WRITE)
    .union(SealFlags::SEAL);

/// Mapped memory; unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    at: *mut u64,
    bytes: usize,
}

// SAFETY: the memory is used through atomics and locks only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed memory that forked children share.
    pub fn shared(bytes: usize) -> Result<Mapping, Errno> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, prot, MapFlags::SHARED) }?;
        Ok(Mapping {
            at: at.cast(),
            bytes,
        })
    }

    /// First address.
    pub fn at(&self) -> *mut u64 {
        self.at
    }

    fn file(fd: impl AsFd, bytes: usize, prot: ProtFlags) -> Result<Mapping, Errno> {
        // SAFETY: a new mapping at an address that the kernel chooses, of a file that cannot shrink (own and sealed, or checked).
        let at = unsafe { mmap(std::ptr::null_mut(), bytes, prot, MapFlags::SHARED, fd, 0) }?;
        Ok(Mapping {
            at: at.cast(),
            bytes,
        })
    }

    fn words(&self, range: Range<usize>) -> Words {
        let inside = range.start <= range.end && range.end * 8 <= self.bytes;
        let (start, len) = if inside {
            (range.start, range.len())
        } else {
            (0, 0)
        };
        Words {
            // SAFETY: inside of the mapping, or its first word.
            at: unsafe { self.at.add(start) },
            len,
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that this value owns; whoever holds words of it has said that it drops them first.
        let _ = unsafe { munmap(self.at.cast(), self.bytes) };
    }
}

/// Words of a mapping. Whoever keeps them keeps the mapping.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    at: *const u64,
    len: usize,
}

// SAFETY: the words are used as atomics only.
unsafe impl Send for Words {}

impl AsRef<[AtomicU64]> for Words {
    #[inline(always)]
    fn as_ref(&self) -> &[AtomicU64] {
        // SAFETY: `Conn` keeps the mapping for as long as anything made of its words is used; the words are aligned, and
        // everybody uses them as atomics or is in no position to expect more.
        unsafe { std::slice::from_raw_parts(self.at.cast(), self.len) }
    }
}

/// A segment of either side.
#[derive(Debug)]
pub struct Segment {
    mapping: Mapping,
    area: StreamArea,
}

fn size(area: StreamArea) -> usize {
    ((AREA + area.words()) * 8).next_multiple_of(4096)
}

impl Segment {
    /// A new one of this side, mapped and sealed, and the file to send.
    pub fn own(capacity: usize) -> Result<(Segment, OwnedFd), Errno> {
        let area = StreamArea::new(capacity).map_err(|_| Errno::INVAL)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("vernal-shim", flags)?;
        ftruncate(&file, size(area) as u64)?;
        let mapping = Mapping::file(&file, size(area), ProtFlags::READ | ProtFlags::WRITE)?;
        fcntl_add_seals(&file, SEALS)?;
        let segment = Segment { mapping, area };
        segment.set(0, MAGIC);
        segment.set(1, capacity as u64);
        Ok((segment, file))
    }

    /// The peer's, of the capacity that it has said.
    pub fn peer(file: &OwnedFd, capacity: u64) -> Result<Segment, Errno> {
        let capacity = usize::try_from(capacity).map_err(|_| Errno::INVAL)?;
        let area = StreamArea::new(capacity).map_err(|_| Errno::INVAL)?;
        // Without the seals its owner could shrink it, and this side would die of a fault; or a third could write it.
        if !fcntl_get_seals(file)?.contains(SEALS) || fstat(file)?.st_size < size(area) as i64 {
            return Err(Errno::PERM);
        }
        let mapping = Mapping::file(file, size(area), ProtFlags::READ)?;
        Ok(Segment { mapping, area })
    }

    /// Its rings' layout.
    pub fn area(&self) -> StreamArea {
        self.area
    }

    /// A word of the header.
    #[inline]
    pub fn get(&self, word: usize) -> u64 {
        let words = self.mapping.words(0..AREA);
        let value = words
            .as_ref()
            .get(word)
            .map_or(0, |w| w.load(Ordering::Relaxed));
        std::sync::atomic::fence(Ordering::Acquire);
        value
    }

    /// Publishes a word of the own header.
    pub fn set(&self, word: usize, value: u64) {
        if let Some(w) = self.mapping.words(0..AREA).as_ref().get(word) {
            w.store(value, Ordering::SeqCst);
        }
    }

    /// Words of the area.
    pub fn words(&self, range: Range<usize>) -> Mapped<Words> {
        Mapped::new(self.mapping.words(AREA + range.start..AREA + range.end))
    }
}
