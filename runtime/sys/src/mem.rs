//! Address space: reservations, mappings and what is in their way.
//!
//! Every call here is a raw system call: libvernal interposes `mmap`, `munmap`, `mremap` and `msync`, and the runtime
//! must reach the kernel and not itself.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

/// Bytes per page.
pub const PAGE_SIZE: u64 = 4096;

/// `len` rounded up to whole pages; `None` when that overflows.
pub const fn page_up(len: u64) -> Option<u64> {
    match len.checked_add(PAGE_SIZE - 1) {
        Some(n) => Some(n & !(PAGE_SIZE - 1)),
        None => None,
    }
}

/// A mapping that is in the way of a fixed reservation.
#[derive(Debug, Clone)]
pub struct Obstacle {
    /// First address of the mapping.
    pub start: u64,
    /// One past its last address.
    pub end: u64,
    /// The kernel's name for it: a path, `[heap]`, or `(anonymous)`.
    pub name: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x} {}", self.start, self.end, self.name)
    }
}

/// Why a fixed range could not be reserved.
#[derive(Debug)]
pub enum ReserveError {
    /// Something is mapped there already.
    Taken(Obstacle),
    /// The kernel refused for another reason.
    Os(io::Error),
}

fn cvt(ret: libc::c_long) -> io::Result<u64> {
    if ret == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret as u64)
    }
}

/// The `mmap` system call.
///
/// # Safety
///
/// With `MAP_FIXED` it replaces what is mapped at `addr`: the caller must own that range.
pub unsafe fn mmap(
    addr: u64,
    len: u64,
    prot: i32,
    flags: i32,
    fd: RawFd,
    off: i64,
) -> io::Result<u64> {
    // SAFETY: mmap has no memory-safety precondition beyond the caller's promise about MAP_FIXED.
    cvt(unsafe { libc::syscall(libc::SYS_mmap, addr, len, prot, flags, fd, off) })
}

/// The `munmap` system call.
///
/// # Safety
///
/// The caller must own the range, and nothing may use it afterwards.
pub unsafe fn munmap(addr: u64, len: u64) -> io::Result<()> {
    // SAFETY: the caller owns the range.
    cvt(unsafe { libc::syscall(libc::SYS_munmap, addr, len) }).map(drop)
}

/// The `mprotect` system call.
///
/// # Safety
///
/// The caller must own the range; code that relies on the old protection must be gone.
pub unsafe fn mprotect(addr: u64, len: u64, prot: i32) -> io::Result<()> {
    // SAFETY: the caller owns the range.
    cvt(unsafe { libc::syscall(libc::SYS_mprotect, addr, len, prot) }).map(drop)
}

/// The `madvise` system call.
///
/// # Safety
///
/// The caller must own the range; for advice that drops pages, their content must no longer be needed.
pub unsafe fn madvise(addr: u64, len: u64, advice: i32) -> io::Result<()> {
    // SAFETY: the caller owns the range.
    cvt(unsafe { libc::syscall(libc::SYS_madvise, addr, len, advice) }).map(drop)
}

/// The `msync` system call.
pub fn msync(addr: u64, len: u64, flags: i32) -> io::Result<()> {
    // SAFETY: msync changes no memory.
    cvt(unsafe { libc::syscall(libc::SYS_msync, addr, len, flags) }).map(drop)
}

/// The `mremap` system call.
///
/// # Safety
///
/// The caller must own the old range, and the new one under `MREMAP_FIXED`.
pub unsafe fn mremap(addr: u64, old: u64, new: u64, flags: i32, to: u64) -> io::Result<u64> {
    // SAFETY: the caller owns both ranges.
    cvt(unsafe { libc::syscall(libc::SYS_mremap, addr, old, new, flags, to) })
}

/// The `pread64` system call, to an address.
///
/// # Safety
///
/// `len` bytes from `to` on are the caller's to be overwritten.
pub unsafe fn pread(fd: RawFd, to: u64, len: u64, off: u64) -> io::Result<u64> {
    // SAFETY: the caller owns what is written.
    cvt(unsafe { libc::syscall(libc::SYS_pread64, fd, to, len, off) })
}

/// The `ftruncate` system call.
pub fn ftruncate(fd: RawFd, len: i64) -> io::Result<()> {
    // SAFETY: ftruncate takes no pointers.
    cvt(unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) }).map(drop)
}

/// Reserves `[base, base + len)` without memory behind it, exactly there, or says what is in the way.
pub fn reserve(base: u64, len: u64) -> Result<(), ReserveError> {
    let flags =
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE replaces nothing.
    match unsafe { mmap(base, len, libc::PROT_NONE, flags, -1, 0) } {
        Ok(at) if at == base => Ok(()),
        Ok(at) => {
            // A kernel older than 4.17 takes the address as a hint only.
            // SAFETY: the mapping at `at` was made by the call above and nothing knows it yet.
            let _ = unsafe { munmap(at, len) };
            Err(taken(base, len)
                .unwrap_or_else(|| ReserveError::Os(io::Error::from_raw_os_error(libc::EEXIST))))
        }
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
            Err(taken(base, len).unwrap_or(ReserveError::Os(e)))
        }
        Err(e) => Err(ReserveError::Os(e)),
    }
}

fn taken(base: u64, len: u64) -> Option<ReserveError> {
    obstacle(base, base + len).map(ReserveError::Taken)
}

/// The first mapping of this process that overlaps `[start, end)`.
pub fn obstacle(start: u64, end: u64) -> Option<Obstacle> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (lo, hi) = fields.next()?.split_once('-')?;
        let (lo, hi) = (
            u64::from_str_radix(lo, 16).ok()?,
            u64::from_str_radix(hi, 16).ok()?,
        );
        if lo >= end || hi <= start {
            return None;
        }
        let name = fields
            .nth(4)
            .map_or_else(|| "(anonymous)".to_owned(), str::to_owned);
        Some(Obstacle {
            start: lo,
            end: hi,
            name,
        })
    })
}

/// An anonymous, zeroed, lazily backed array that the runtime owns; it is unmapped on drop. Backed by page faults and
/// not by the allocator, so that a 1 GiB file does not cost its bookkeeping up front.
#[derive(Debug)]
pub struct LazyBytes {
    base: *mut u8,
    len: usize,
}

// SAFETY: the array is plain memory owned by this value; access goes through &self/&mut self.
unsafe impl Send for LazyBytes {}
// SAFETY: as above, shared access only reads.
unsafe impl Sync for LazyBytes {}

impl LazyBytes {
    /// Maps `len` zero bytes.
    pub fn new(len: u64) -> io::Result<Self> {
        let len = page_up(len.max(1)).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address that the kernel picks.
        let at = unsafe { mmap(0, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) }?;
        Ok(Self {
            base: at as *mut u8,
            len: len as usize,
        })
    }

    /// The bytes.
    #[inline]
    pub fn get(&self) -> &[u8] {
        // SAFETY: base..base+len is our mapping, readable for the life of self.
        unsafe { std::slice::from_raw_parts(self.base, self.len) }
    }

    /// The bytes, to be changed.
    #[inline]
    pub fn get_mut(&mut self) -> &mut [u8] {
        // SAFETY: base..base+len is our mapping, writable, and &mut self makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.len) }
    }
}

impl Drop for LazyBytes {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference to it outlives self.
        let _ = unsafe { munmap(self.base as u64, self.len as u64) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserve_names_what_is_in_the_way() {
        let base = 0x5b00_0000_0000;
        reserve(base, PAGE_SIZE * 4).unwrap();
        match reserve(base + PAGE_SIZE, PAGE_SIZE) {
            Err(ReserveError::Taken(o)) => assert!(
                o.start <= base + PAGE_SIZE && o.end > base + PAGE_SIZE,
                "{o}"
            ),
            other => panic!("expected a collision, got {other:?}"),
        }
        // SAFETY: reserved by this test.
        unsafe { munmap(base, PAGE_SIZE * 4) }.unwrap();
    }

    #[test]
    fn lazy_bytes_start_zeroed() {
        let mut b = LazyBytes::new(10_000).unwrap();
        assert!(b.get().iter().all(|&x| x == 0));
        b.get_mut()[9_999] = 7;
        assert_eq!(b.get()[9_999], 7);
    }
}
