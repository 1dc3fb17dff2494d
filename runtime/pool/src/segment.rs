//! The RPC address space: segments of shared memory, each at the one address that it has in every process.
//!
//! One process may write a segment and has it mapped writable; every other one maps it for reading, and checks by itself
//! that the kernel keeps both promises: the file never shrinks, so no access of a receiver can fail, and nobody maps it
//! writable from now on, whatever descriptors go round.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::SealFlags;
use vernal_abi::puddle::CHUNK_SIZE;
use vernal_abi::{RPC_BASE, RPC_SIZE};
use vernal_sys::mem::{self, ReserveError};

use crate::Error;

/// What is mapped: first address and bytes. Held while a mapping is made or taken away.
static MAPPED: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());

/// Reserves the address space, once. Every [`Segment`] does; whoever wants a collision to be found early calls it.
pub fn reserve() -> Result<(), Error> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| match mem::reserve(RPC_BASE, RPC_SIZE) {
        Ok(()) => Ok(()),
        Err(ReserveError::Taken(what)) => Err(format!(
            "the address space of RPC is taken: {what} is in the way"
        )),
        Err(ReserveError::Os(e)) => {
            Err(format!("the address space of RPC cannot be reserved: {e}"))
        }
    })
    .clone()
    .map_err(Error::invalid)
}

/// Has `fork` fork, while nothing is being mapped and no pool is being opened. The child, in which it returns 0, has none of the segments
/// of its parent: it may map others at their addresses.
pub fn across_fork(fork: impl FnOnce() -> i32) -> i32 {
    crate::registry::at_rest(|| {
        let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = fork();
        if pid == 0 {
            mapped.clear();
        }
        pid
    })
}

/// A segment that is mapped at its home address; unmapped on drop.
#[derive(Debug)]
pub struct Segment {
    addr: u64,
    len: u64,
    writable: bool,
}

impl Segment {
    /// Maps a segment that this process writes. A child that is forked does not have it: it would write, too.
    pub fn own(file: &File, name: &str, addr: u64, len: u64) -> Result<Segment, Error> {
        let segment = Self::map(file, name, addr, len, true)?;
        // SAFETY: a mapping of our own; this process goes on having it.
        unsafe { mem::madvise(addr, len, libc::MADV_DONTFORK) }
            .map_err(|e| Error::io(name, "keeping it out of children", e))?;
        Ok(segment)
    }

    /// Maps a segment that another process writes, for reading.
    pub fn peer(file: &File, name: &str, addr: u64, len: u64) -> Result<Segment, Error> {
        check_seals(file, name)?;
        Self::map(file, name, addr, len, false)
    }

    fn map(file: &File, name: &str, addr: u64, len: u64, writable: bool) -> Result<Segment, Error> {
        reserve()?;
        // Not `File::metadata`: a sandbox that maps segments may make few system calls.
        let have = rustix::fs::fstat(file)
            .map_err(|e| Error::io(name, "reading its length", e.into()))?
            .st_size as u64;
        let inside = addr >= RPC_BASE
            && len > 0
            && addr
                .checked_add(len)
                .is_some_and(|end| end <= RPC_BASE + RPC_SIZE);
        let aligned = addr.is_multiple_of(CHUNK_SIZE) && len.is_multiple_of(CHUNK_SIZE);
        if !inside || !aligned || have < len {
            return Err(Error::invalid(format!(
                "{name}: {len} bytes at {addr:#x} of a file of {have} bytes are no segment of the RPC space"
            )));
        }
        let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        let before = mapped.range(..addr + len).next_back();
        if let Some((base, size)) = before.filter(|(base, size)| **base + **size > addr) {
            return Err(Error::invalid(format!(
                "{name}: at {addr:#x} another segment is mapped ({base:#x}, {size} bytes): close the connection or heap \
                 that it belongs to"
            )));
        }
        let prot = match writable {
            true => libc::PROT_READ | libc::PROT_WRITE,
            false => libc::PROT_READ,
        };
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: inside our reservation, at addresses that the table, whose lock is held, says are free.
        unsafe { mem::mmap(addr, len, prot, flags, file.as_raw_fd(), 0) }
            .map_err(|e| Error::io(name, "mapping", e))?;
        mapped.insert(addr, len);
        Ok(Segment {
            addr,
            len,
            writable,
        })
    }

    /// First address.
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Whether this process writes it.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Its words. Of a segment that is mapped for reading they may only be loaded, and may change at any time.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped, readable and aligned as long as `self` is; other threads and processes use the words as atomics,
        // or are in no position to expect more.
        unsafe { std::slice::from_raw_parts(self.addr as *const AtomicU64, self.len as usize / 8) }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: puts our own reservation back over a mapping of ours that nobody can name any more.
        let _ = unsafe { mem::mmap(self.addr, self.len, libc::PROT_NONE, flags, -1, 0) };
        mapped.remove(&self.addr);
    }
}

/// What the kernel has to promise about a segment before a process that does not own it reads a byte of it.
pub fn check_seals(file: &File, name: &str) -> Result<(), Error> {
    let refuse = |why: &str| {
        Err(Error::Access {
            what: format!(
                "{name} is no segment that can be trusted to stay: {why}; segments are made by puddled"
            ),
        })
    };
    let Ok(seals) = rustix::fs::fcntl_get_seals(file) else {
        return refuse("it is not memory that can be sealed");
    };
    // Pages of other file systems may be missing when they are needed, which is SIGBUS for the reader.
    let tmpfs = rustix::fs::fstatfs(file).is_ok_and(|s| s.f_type == libc::TMPFS_MAGIC);
    if !tmpfs {
        return refuse("it is not ordinary shared memory");
    }
    if !seals.contains(SealFlags::SHRINK) {
        return refuse("it can be truncated");
    }
    if !seals.intersects(SealFlags::FUTURE_WRITE | SealFlags::WRITE) {
        return refuse("it can still be mapped for writing");
    }
    Ok(())
}
