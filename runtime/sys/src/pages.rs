//! Which pages of a range were written: userfaultfd write-protect-async plus `PAGEMAP_SCAN` (Linux 6.7 and later; kernel
//! documentation admin-guide/mm/pagemap.rst and userfaultfd.rst). The kernel resolves the protection faults itself, so
//! system calls that write into the range work as usual.

use crate::fault;
use crate::mem::LazyBytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const UFFD_USER_MODE_ONLY: i32 = 1;
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_REGISTER_MODE_WP: u64 = 2;
const PAGEMAP_SCAN: u64 = 0xc060_6610;
const PM_SCAN_WP_MATCHING: u64 = 1;
const PM_SCAN_CHECK_WPASYNC: u64 = 2;
const PAGE_IS_WRITTEN: u64 = 2;
const PAGE_IS_FILE: u64 = 4;
const PAGE_IS_PRESENT: u64 = 8;
const PAGE_IS_SWAPPED: u64 = 16;
/// Regions that one scan call returns at most.
const REGIONS: usize = 512;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = assert!(std::mem::size_of::<ScanArg>() == 96);

fn ioctl<T>(fd: i32, request: u64, arg: &mut T) -> io::Result<u64> {
    // SAFETY: each caller passes the structure that its request reads and writes, sized as the kernel's.
    let n = unsafe { libc::ioctl(fd, request, std::ptr::from_mut(arg)) };
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(n as u64)
    }
}

fn scan(pagemap: &File, arg: &mut ScanArg, mut each: impl FnMut(u64, u64)) -> io::Result<()> {
    let mut regions = [Region::default(); REGIONS];
    let end = arg.end;
    loop {
        arg.size = std::mem::size_of::<ScanArg>() as u64;
        arg.vec = regions.as_mut_ptr() as u64;
        arg.vec_len = REGIONS as u64;
        let n = ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, arg)?;
        for r in &regions[..n as usize] {
            each(r.start, r.end);
        }
        if arg.walk_end >= end || arg.walk_end <= arg.start {
            return Ok(());
        }
        arg.start = arg.walk_end;
    }
}

/// Finds the pages of registered ranges that were written since the last look.
#[derive(Debug)]
pub enum PageTracker {
    /// The kernel tracks (Linux 6.7).
    Kernel {
        /// Keeps the ranges registered.
        uffd: OwnedFd,
        /// Where the scans go.
        pagemap: File,
    },
    /// Protection faults, with the flags of each range by its start.
    Faults(BTreeMap<u64, LazyBytes>),
}

impl PageTracker {
    /// The kernel's tracking where there is one, else protection faults (`VERNAL_PAGE_FAULTS=1` asks for those).
    pub fn new() -> Self {
        if std::env::var_os("VERNAL_PAGE_FAULTS").is_some_and(|v| v == "1") {
            return Self::Faults(BTreeMap::new());
        }
        Self::kernel().unwrap_or_else(|_| Self::Faults(BTreeMap::new()))
    }

    fn kernel() -> io::Result<Self> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: userfaultfd takes no pointers. Unprivileged processes may ask for user-mode faults only.
        let mut fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags | UFFD_USER_MODE_ONLY) };
        if fd < 0 {
            // SAFETY: as above, for kernels before 5.11.
            fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        }
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that the kernel has just given us.
        let uffd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut api = [
            UFFD_API,
            UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED,
            0,
        ];
        ioctl(uffd.as_raw_fd(), UFFDIO_API, &mut api)?;
        let pagemap = File::open("/proc/self/pagemap")?;
        // Some sandboxes have the one without the other.
        let mut probe = ScanArg {
            start: 0,
            end: 4096,
            category_mask: PAGE_IS_WRITTEN,
            ..ScanArg::default()
        };
        scan(&pagemap, &mut probe, |_, _| {})?;
        Ok(Self::Kernel { uffd, pagemap })
    }

    /// Registers `[addr, addr + len)`, which may reach past the end of the file.
    pub fn register(&mut self, addr: u64, len: u64) -> io::Result<()> {
        match self {
            Self::Kernel { uffd, .. } => {
                let mut reg = [addr, len, UFFDIO_REGISTER_MODE_WP, 0];
                ioctl(uffd.as_raw_fd(), UFFDIO_REGISTER, &mut reg).map(drop)
            }
            Self::Faults(ranges) => fault::watch(addr, len).map(|flags| {
                ranges.insert(addr, flags);
            }),
        }
    }

    /// Forgets the range that [`PageTracker::register`] was given at `addr`. Call it before the range is unmapped.
    pub fn forget(&mut self, addr: u64) {
        if let Self::Faults(ranges) = self {
            fault::unwatch(addr);
            ranges.remove(&addr);
        }
    }

    /// Makes every page of a part of a registered range count as unwritten from here on.
    pub fn protect(&self, addr: u64, len: u64) -> io::Result<()> {
        match self {
            _ if len == 0 => Ok(()),
            Self::Kernel { .. } => self.take_written(addr, len, |_, _| {}),
            Self::Faults(_) => fault::close(addr, len),
        }
    }

    /// Calls `each` with every range of pages in `[addr, addr + len)` written since the last call, and starts afresh.
    /// A page written while this runs is reported now or by the next call.
    // Out of line: its buffer of three pages would lie in the stack frame of every commit, each page touched by it.
    #[cold]
    #[inline(never)]
    pub fn take_written(&self, addr: u64, len: u64, each: impl FnMut(u64, u64)) -> io::Result<()> {
        let Self::Kernel { pagemap, .. } = self else {
            return fault::take_written(addr, len, each);
        };
        let mut arg = ScanArg {
            flags: PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
            start: addr,
            end: addr + len,
            category_mask: PAGE_IS_WRITTEN,
            return_mask: PAGE_IS_WRITTEN,
            ..ScanArg::default()
        };
        scan(pagemap, &mut arg, each)
    }
}

impl Default for PageTracker {
    fn default() -> Self {
        Self::new()
    }
}

/// Calls `each` with every range of pages in `[addr, addr + len)` of a private file mapping that the process has written
/// to (the pages are its own and no longer the file's). Without `PAGEMAP_SCAN` it names the whole range.
pub fn private_pages(addr: u64, len: u64, mut each: impl FnMut(u64, u64)) {
    let mut arg = ScanArg {
        start: addr,
        end: addr + len,
        // Present or swapped, and not a page of the file.
        category_inverted: PAGE_IS_FILE,
        category_mask: PAGE_IS_FILE,
        category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        return_mask: PAGE_IS_PRESENT,
        ..ScanArg::default()
    };
    let scanned =
        File::open("/proc/self/pagemap").and_then(|pagemap| scan(&pagemap, &mut arg, &mut each));
    if scanned.is_err() {
        each(addr, addr + len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{self, PAGE_SIZE};

    fn private_file_mapping(pages: u64) -> (File, u64) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vernal-pages-{}-{n}", std::process::id()));
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(pages * PAGE_SIZE).unwrap();
        // SAFETY: a fresh mapping.
        let at = unsafe {
            mem::mmap(
                0,
                pages * PAGE_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        (file, at.unwrap())
    }

    fn collect(f: impl FnOnce(&mut dyn FnMut(u64, u64))) -> Vec<u64> {
        let mut pages = Vec::new();
        f(&mut |lo, hi| pages.extend((lo..hi).step_by(PAGE_SIZE as usize)));
        pages
    }

    fn store(addr: u64) {
        // SAFETY: inside the test's own mapping.
        unsafe { (addr as *mut u8).write_volatile(1) };
    }

    #[test]
    fn private_pages_are_the_written_ones() {
        let (_file, at) = private_file_mapping(64);
        store(at + 3 * PAGE_SIZE);
        store(at + 40 * PAGE_SIZE + 17);
        let pages = collect(|each| private_pages(at, 64 * PAGE_SIZE, each));
        assert!(pages.contains(&(at + 3 * PAGE_SIZE)) && pages.contains(&(at + 40 * PAGE_SIZE)));
    }

    fn reports_each_written_page_once(mut t: PageTracker) {
        let (_file, at) = private_file_mapping(64);
        t.register(at, 64 * PAGE_SIZE).unwrap();
        t.protect(at, 64 * PAGE_SIZE).unwrap();
        store(at + 5 * PAGE_SIZE);
        let first = collect(|each| t.take_written(at, 64 * PAGE_SIZE, each).unwrap());
        assert_eq!(first, [at + 5 * PAGE_SIZE]);
        let again = collect(|each| t.take_written(at, 64 * PAGE_SIZE, each).unwrap());
        assert!(again.is_empty(), "{again:?}");
        store(at + 5 * PAGE_SIZE);
        assert_eq!(
            collect(|each| t.take_written(at, 64 * PAGE_SIZE, each).unwrap()),
            [at + 5 * PAGE_SIZE]
        );
        t.forget(at);
    }

    #[test]
    fn kernel_tracker_reports_each_written_page_once() {
        match PageTracker::kernel() {
            Ok(t) => reports_each_written_page_once(t),
            Err(e) => {
                eprintln!("skipped: this kernel has no write-protect-async userfaultfd ({e})")
            }
        }
    }

    #[test]
    fn fault_tracker_reports_each_written_page_once() {
        reports_each_written_page_once(PageTracker::Faults(BTreeMap::new()));
    }
}
