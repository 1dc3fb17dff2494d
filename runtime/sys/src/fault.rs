//! Written pages by protection faults: what page mode uses where the kernel has no write-protect-async userfaultfd
//! (Debian 12's own kernel 6.1, for one).
//!
//! Pages are kept read-only; the first store to one raises SIGSEGV, and the handler notes the page and opens it. System
//! calls that write into a page which is still closed fail with EFAULT: programs that read() straight into the mapped
//! file need the kernel's own tracking (Linux 6.7).

use crate::mem::{self, LazyBytes, PAGE_SIZE};
use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, Once};

/// Ranges that can be tracked at the same time.
const MAX_RANGES: usize = 64;

struct Range {
    start: AtomicU64,
    end: AtomicU64,
    /// One byte per page of the range: 1 when it was written.
    written: AtomicPtr<u8>,
}

static RANGES: [Range; MAX_RANGES] = [const {
    Range {
        start: AtomicU64::new(0),
        end: AtomicU64::new(0),
        written: AtomicPtr::new(std::ptr::null_mut()),
    }
}; MAX_RANGES];
static REGISTERING: Mutex<()> = Mutex::new(());

struct Previous(UnsafeCell<MaybeUninit<libc::sigaction>>);
// SAFETY: written once, by the sigaction call that installs the handler which reads it.
unsafe impl Sync for Previous {}
static PREVIOUS: Previous = Previous(UnsafeCell::new(MaybeUninit::zeroed()));

fn find(addr: u64) -> Option<(&'static AtomicU8, u64)> {
    RANGES.iter().find_map(|r| {
        let end = r.end.load(Ordering::Acquire);
        let start = r.start.load(Ordering::Relaxed);
        if addr < start || addr >= end {
            return None;
        }
        let page = (addr - start) / PAGE_SIZE;
        // SAFETY: the array has a byte for each page of the range and is never freed while the range is listed.
        let flag =
            unsafe { AtomicU8::from_ptr(r.written.load(Ordering::Relaxed).add(page as usize)) };
        Some((flag, start + page * PAGE_SIZE))
    })
}

extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands an SA_SIGINFO handler a live siginfo; for SIGSEGV si_addr is set.
    let addr = unsafe { (*info).si_addr() } as u64;
    if let Some((flag, page)) = find(addr)
        && flag.load(Ordering::Relaxed) == 0
    {
        // Opened first: a committer that sees the flag closes the page again, and the store faults again.
        // SAFETY: the page belongs to a registered mapping of the runtime.
        if unsafe { mem::mprotect(page, PAGE_SIZE, libc::PROT_READ | libc::PROT_WRITE) }.is_ok() {
            flag.store(1, Ordering::SeqCst);
            return;
        }
    } else if let Some((_, page)) = find(addr) {
        // Another thread has just opened it, or a committer has closed it in between: open it (again) and retry.
        // SAFETY: as above.
        if unsafe { mem::mprotect(page, PAGE_SIZE, libc::PROT_READ | libc::PROT_WRITE) }.is_ok() {
            return;
        }
    }
    // SAFETY: PREVIOUS was filled in when this handler was installed; the arguments are this handler's own.
    unsafe { crate::signal::chain((*PREVIOUS.0.get()).assume_init_ref(), signal, info, context) };
}

fn install() -> io::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        // SAFETY: the handler has the signature that SA_SIGINFO asks for; PREVIOUS is not read before this call returns.
        let rc = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(libc::SIGSEGV, &action, (*PREVIOUS.0.get()).as_mut_ptr())
        };
        if rc != 0 {
            result = Err(io::Error::last_os_error());
        }
    });
    result
}

/// Starts watching `[start, start + len)`; its pages are open until [`close`].
pub(crate) fn watch(start: u64, len: u64) -> io::Result<LazyBytes> {
    install()?;
    let mut flags = LazyBytes::new(len / PAGE_SIZE)?;
    let _registering = REGISTERING.lock().unwrap_or_else(|e| e.into_inner());
    let free = RANGES.iter().find(|r| r.end.load(Ordering::Relaxed) == 0);
    let Some(r) = free else {
        return Err(io::Error::new(
            io::ErrorKind::QuotaExceeded,
            format!("{MAX_RANGES} files are tracked already"),
        ));
    };
    r.start.store(start, Ordering::Relaxed);
    r.written
        .store(flags.get_mut().as_mut_ptr(), Ordering::Relaxed);
    r.end.store(start + len, Ordering::Release);
    Ok(flags)
}

/// Stops watching a range that [`watch`] was given. Call it before its array is dropped.
pub(crate) fn unwatch(start: u64) {
    for r in RANGES
        .iter()
        .filter(|r| r.start.load(Ordering::Relaxed) == start)
    {
        r.end.store(0, Ordering::Release);
    }
}

/// Closes the pages of `[addr, addr + len)`.
pub(crate) fn close(addr: u64, len: u64) -> io::Result<()> {
    // SAFETY: the range belongs to a watched mapping; stores to it fault and are resumed.
    unsafe { mem::mprotect(addr, len, libc::PROT_READ) }
}

/// Calls `each` with every page of `[addr, addr + len)` written since the last call, and closes it again.
pub(crate) fn take_written(addr: u64, len: u64, mut each: impl FnMut(u64, u64)) -> io::Result<()> {
    let mut page = addr;
    while page < addr + len {
        if let Some((flag, _)) = find(page)
            && flag.load(Ordering::Relaxed) != 0
        {
            // Flag, then protection, then the caller's look: a store before the protection took hold is seen by the look,
            // one after it faults and sets the flag again.
            flag.store(0, Ordering::SeqCst);
            close(page, PAGE_SIZE)?;
            each(page, page + PAGE_SIZE);
        }
        page += PAGE_SIZE;
    }
    Ok(())
}
