//! The direct address space: reserved once, puddles mapped shared in it, and a table that says which pool each chunk is of.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use vernal_abi::puddle::CHUNK_SIZE;
use vernal_abi::{DIRECT_BASE, DIRECT_SIZE};
use vernal_sys::mem::{self, ReserveError};
use vernal_sys::{Backing, os, probe_backing};

use crate::Error;

const CHUNKS: usize = (DIRECT_SIZE / CHUNK_SIZE) as usize;
/// Embedded pools take addresses in the lower half, puddled gives those of the upper.
const EMBEDDED_SIZE: u64 = DIRECT_SIZE / 2;
const MAP_SYNC: i32 = 0x8_0000;

/// What each chunk holds: 0 nothing, else the number of the pool. Written under `MAPPING`, read by everybody.
static OWNER: [AtomicU8; CHUNKS] = [const { AtomicU8::new(0) }; CHUNKS];
static MAPPING: Mutex<()> = Mutex::new(());

/// The number of an open pool in this process, 1 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolNumber(u8);

impl PoolNumber {
    /// A number that no open direct pool has.
    pub fn take() -> Result<PoolNumber, Error> {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (1..=u8::MAX).find(|n| !taken.contains(n));
        let number = free.ok_or_else(|| {
            Error::invalid("255 direct pools are open, which is the limit: close one first")
        })?;
        taken.push(number);
        Ok(PoolNumber(number))
    }

    /// Gives the number back; nothing is mapped for it any more.
    pub fn give_back(self) {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|n| *n != self.0);
    }
}

static TAKEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn reserve() -> Result<(), Error> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| match mem::reserve(DIRECT_BASE, DIRECT_SIZE) {
        Ok(()) => Ok(()),
        Err(ReserveError::Taken(what)) => Err(format!(
            "the address space of direct pools is taken: {what} is in the way"
        )),
        Err(ReserveError::Os(e)) => Err(format!(
            "the address space of direct pools cannot be reserved: {e}"
        )),
    })
    .clone()
    .map_err(Error::invalid)
}

fn chunks(addr: u64, len: u64) -> Option<&'static [AtomicU8]> {
    let off = addr.checked_sub(DIRECT_BASE)?;
    let end = off.checked_add(len)?;
    OWNER.get((off / CHUNK_SIZE) as usize..end.div_ceil(CHUNK_SIZE) as usize)
}

/// Whether all of `len` bytes at `addr` are mapped for writing in some direct pool.
#[inline]
pub fn is_mapped(addr: u64, len: u64) -> bool {
    chunks(addr, len.max(1))
        .is_some_and(|chunks| chunks.iter().all(|c| c.load(Ordering::Acquire) != 0))
}

/// Whether all of `len` bytes at `addr` are mapped for this pool.
#[inline]
pub fn belongs_to(pool: PoolNumber, addr: u64, len: u64) -> bool {
    chunks(addr, len.max(1))
        .is_some_and(|chunks| chunks.iter().all(|c| c.load(Ordering::Acquire) == pool.0))
}

/// A home address for a new puddle of an embedded pool: `size` free bytes at random in the lower half of the space.
pub fn pick(size: u64) -> Result<u64, Error> {
    reserve()?;
    for _ in 0..64 {
        let random = os::random_uuid().map_err(|e| Error::io("/dev/urandom", "reading", e))?;
        let (number, _) = random.split_at(8);
        let number = number.try_into().map_or(0, u64::from_le_bytes);
        let Some(places) = EMBEDDED_SIZE
            .checked_sub(size)
            .map(|room| room / CHUNK_SIZE + 1)
        else {
            break;
        };
        let addr = DIRECT_BASE + number % places * CHUNK_SIZE;
        let free = |c: &AtomicU8| c.load(Ordering::Acquire) == 0;
        if chunks(addr, size).is_some_and(|chunks| chunks.iter().all(free)) {
            return Ok(addr);
        }
    }
    Err(Error::invalid(format!(
        "there is no room for {size} bytes in the address space of direct pools: close pools that are not needed"
    )))
}

/// A puddle mapped shared at its home address. Unmapped on drop.
#[derive(Debug)]
pub struct DirectMapping {
    addr: u64,
    len: u64,
}

impl DirectMapping {
    /// Maps `len` bytes of `file` at `addr` for this pool. The file must lie on byte-addressable media.
    pub fn new(
        file: &File,
        name: &str,
        addr: u64,
        len: u64,
        pool: PoolNumber,
    ) -> Result<DirectMapping, Error> {
        reserve()?;
        if probe_backing(file).map_err(|e| Error::io(name, "finding out what backs it", e))?
            != Backing::ByteAddressable
        {
            return Err(Error::invalid(format!(
                "{name} is not on byte-addressable media (DAX or tmpfs), and a direct pool is changed in place: open it \
                 without VN_DIRECT, or move it"
            )));
        }
        let have = file
            .metadata()
            .map_err(|e| Error::io(name, "reading its length", e))?
            .len();
        let aligned = addr.is_multiple_of(CHUNK_SIZE) && len.is_multiple_of(CHUNK_SIZE) && len > 0;
        let chunks = chunks(addr, len).filter(|_| aligned && have >= len);
        let Some(chunks) = chunks else {
            return Err(Error::invalid(format!(
                "{name}: {len} bytes at {addr:#x} of a file of {have} bytes are no puddle of a direct pool"
            )));
        };
        let _mapping = MAPPING.lock().unwrap_or_else(PoisonError::into_inner);
        if chunks.iter().any(|c| c.load(Ordering::Acquire) != 0) {
            return Err(Error::invalid(format!(
                "{name}: another puddle is mapped at {addr:#x}: the pool has to be relocated"
            )));
        }
        map(file, addr, len).map_err(|e| Error::io(name, "mapping", e))?;
        for chunk in chunks {
            chunk.store(pool.0, Ordering::Release);
        }
        Ok(DirectMapping { addr, len })
    }

    /// First address.
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.len
    }
}

fn map(file: &File, addr: u64, len: u64) -> std::io::Result<()> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let fd = file.as_raw_fd();
    let dax = libc::MAP_SHARED_VALIDATE | MAP_SYNC | libc::MAP_FIXED;
    // SAFETY: inside our reservation, at chunks that the table, whose lock the caller holds, says are free.
    if unsafe { mem::mmap(addr, len, prot, dax, fd, 0) }.is_ok() {
        return Ok(());
    }
    // tmpfs: memory that stands in for a device.
    // SAFETY: as above.
    unsafe { mem::mmap(addr, len, prot, libc::MAP_SHARED | libc::MAP_FIXED, fd, 0) }.map(drop)
}

impl Drop for DirectMapping {
    fn drop(&mut self) {
        let _mapping = MAPPING.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in chunks(self.addr, self.len).unwrap_or_default() {
            chunk.store(0, Ordering::Release);
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: puts our own reservation back over a mapping of ours that the table does not name any more.
        let _ = unsafe { mem::mmap(self.addr, self.len, libc::PROT_NONE, flags, -1, 0) };
    }
}
