//! An emulated memory-semantic CXL SSD: a byte-addressable device whose DRAM cache holds only some pages, so that touching
//! any other page costs a device access.
//!
//! A mapping of a tmpfs file is put behind the device with [`attach`]. At most `VERNAL_CXL_CACHE_MIB` MiB (128) of all
//! attached mappings together are accessible at a time. A touch of any other page raises a fault; the handler evicts the
//! page that was admitted first, admits the wanted one, and returns when `VERNAL_CXL_LATENCY_NS` (2400) have passed since
//! it was entered. The data never moves: it stays in the page cache, only its page-table entries come and go, so a crash
//! of the process loses nothing that a real device would keep. Entering and leaving a handler costs some 2–4 µs, which is
//! the least latency that can be had.
//!
//! The mechanism is userfaultfd in *minor* mode: page-table entries go with `MADV_DONTNEED` and come back with
//! `UFFDIO_CONTINUE`. Unlike `mprotect` it splits no kernel mappings, so the number of resident pages has no limit. Faults
//! arrive as SIGBUS in the touching thread (`UFFD_FEATURE_SIGBUS`): a program's own SIGSEGV handler is not involved, and a
//! SIGBUS that is not ours goes to the handler that was there before.
//!
//! System calls that are handed an address on a page that is not resident fail with EFAULT; the runtime never does that
//! with a home view or a journal.

use std::cell::UnsafeCell;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

const PAGE: u64 = 4096;
/// Mappings that can be attached at the same time.
const MAX_RANGES: usize = 256;
const DEFAULT_CACHE_MIB: u64 = 128;
const DEFAULT_LATENCY_NS: u64 = 2400;

// From linux/userfaultfd.h.
const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_SIGBUS: u64 = 1 << 7;
const UFFD_FEATURE_MINOR_SHMEM: u64 = 1 << 10;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_UNREGISTER: libc::c_ulong = 0x8010_aa01;
const UFFDIO_ZEROPAGE: libc::c_ulong = 0xc020_aa04;
const UFFDIO_CONTINUE: libc::c_ulong = 0xc020_aa07;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
const UFFDIO_REGISTER_MODE_MINOR: u64 = 4;

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`, `uffdio_continue` and `uffdio_zeropage` have this one shape, and `uffdio_range` is its
/// beginning.
#[repr(C)]
struct UffdioOp {
    start: u64,
    len: u64,
    mode: u64,
    result: u64,
}

/// The ring of resident pages, in the order of their admission.
struct Fifo {
    pages: UnsafeCell<Vec<u64>>,
    next: UnsafeCell<usize>,
    locked: AtomicBool,
}

// SAFETY: both cells are only touched between `Fifo::lock` and its release, or in `start` before any range is published.
unsafe impl Sync for Fifo {}

static FIFO: Fifo = Fifo {
    pages: UnsafeCell::new(Vec::new()),
    next: UnsafeCell::new(0),
    locked: AtomicBool::new(false),
};
static UFFD: AtomicI32 = AtomicI32::new(-1);
static LATENCY_NS: AtomicU64 = AtomicU64::new(DEFAULT_LATENCY_NS);
static MISSES: AtomicU64 = AtomicU64::new(0);
/// Attached ranges, `[start, end)`; 0 marks a free slot. Written under `SETUP`, read by the handler.
static STARTS: [AtomicU64; MAX_RANGES] = [const { AtomicU64::new(0) }; MAX_RANGES];
static ENDS: [AtomicU64; MAX_RANGES] = [const { AtomicU64::new(0) }; MAX_RANGES];
/// Whether the emulator is running; held while ranges change.
static SETUP: Mutex<bool> = Mutex::new(false);

struct PreviousHandler(UnsafeCell<mem::MaybeUninit<libc::sigaction>>);
// SAFETY: written once in `start`, before the handler that reads it is installed.
unsafe impl Sync for PreviousHandler {}
static PREVIOUS: PreviousHandler = PreviousHandler(UnsafeCell::new(mem::MaybeUninit::zeroed()));

/// Misses of the device's cache since the process started.
pub fn misses() -> u64 {
    MISSES.load(Ordering::Relaxed)
}

/// Whether `VERNAL_MEDIA=cxl-ssd` asks for the emulation.
pub fn enabled() -> bool {
    static ENABLED: OnceLock<bool> = OnceLock::new();
    *ENABLED.get_or_init(|| std::env::var_os("VERNAL_MEDIA").is_some_and(|v| v == "cxl-ssd"))
}

/// [`attach`], when [`enabled`]. A failure is reported on standard error and leaves ordinary memory: slower or faster, but
/// not wrong.
pub fn attach_if_enabled(addr: u64, len: u64) {
    if enabled()
        && let Err(e) = attach(addr, len)
    {
        eprintln!("vernal: VERNAL_MEDIA=cxl-ssd is not in force for {addr:#x}+{len:#x}: {e}");
    }
}

/// Puts the shared tmpfs mapping `[addr, addr + len)` behind the emulated device, with nothing of it in the cache. `addr`
/// must be page-aligned; `len` is rounded up to whole pages.
///
/// # Errors
///
/// `InvalidInput` when the range is not in shared mappings, or when a setting is not a number; the kernel's error when it
/// has no userfaultfd minor mode for the mapping (it needs Linux 5.14 and a file on tmpfs).
pub fn attach(addr: u64, len: u64) -> io::Result<()> {
    let end = addr
        .checked_add(len)
        .and_then(|e| e.checked_next_multiple_of(PAGE))
        .filter(|_| len > 0 && addr.is_multiple_of(PAGE))
        .ok_or_else(|| {
            invalid(format!(
                "the range {addr:#x}+{len:#x} is empty or not page-aligned"
            ))
        })?;
    require_shared(addr, end)?;
    let mut running = SETUP.lock().unwrap_or_else(|e| e.into_inner());
    if !*running {
        start()?;
        *running = true;
    }
    let slot = publish(addr, end)?;
    let mut op = UffdioOp {
        start: addr,
        len: end - addr,
        mode: UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_MISSING,
        result: 0,
    };
    // SAFETY: `op` is a live uffdio_register; the kernel checks the range itself.
    let registered = unsafe { uffd_ioctl(UFFDIO_REGISTER, &raw mut op) };
    // SAFETY: `require_shared` saw shared file mappings here, so dropping their page-table entries loses no data.
    if let Err(e) = registered.and_then(|()| unsafe { drop_entries(addr, end - addr) }) {
        STARTS[slot].store(0, Ordering::Release);
        return Err(io::Error::new(
            e.kind(),
            format!(
                "cannot emulate a CXL device at {addr:#x}: {e} (it needs Linux 5.14 and a mapped file on tmpfs)"
            ),
        ));
    }
    Ok(())
}

/// Takes `[addr, addr + len)` from behind the device again. Call it before unmapping. What is not attached is ignored.
pub fn detach(addr: u64, len: u64) {
    let running = SETUP.lock().unwrap_or_else(|e| e.into_inner());
    let end = addr
        .saturating_add(len)
        .checked_next_multiple_of(PAGE)
        .unwrap_or(u64::MAX);
    if !*running || len == 0 {
        return;
    }
    for slot in 0..MAX_RANGES {
        let (start, stop) = (
            STARTS[slot].load(Ordering::Relaxed),
            ENDS[slot].load(Ordering::Relaxed),
        );
        if start == 0 || stop <= addr || end <= start {
            continue;
        }
        let (from, to) = (start.max(addr), stop.min(end));
        let mut op = UffdioOp {
            start: from,
            len: to - from,
            mode: 0,
            result: 0,
        };
        // SAFETY: `op` begins with a live uffdio_range. A failure means that the mapping is gone already.
        let _ = unsafe { uffd_ioctl(UFFDIO_UNREGISTER, &raw mut op) };
        STARTS[slot].store(0, Ordering::Release);
        for (from, to) in [(start, from), (to, stop)] {
            // One slot was freed just now; only a hole in the middle of a full table has no room, and then the rest is
            // merely served without latency.
            if from < to && publish(from, to).is_err() {
                let mut op = UffdioOp {
                    start: from,
                    len: to - from,
                    mode: 0,
                    result: 0,
                };
                // SAFETY: as above.
                let _ = unsafe { uffd_ioctl(UFFDIO_UNREGISTER, &raw mut op) };
            }
        }
    }
    let pages = FIFO.lock();
    for page in pages.iter_mut().filter(|p| (addr..end).contains(p)) {
        *page = 0; // else a later eviction would drop the entries of whatever is mapped there next
    }
    FIFO.unlock();
}

/// Lets the handler know a range; returns its slot. `SETUP` is held.
fn publish(start: u64, end: u64) -> io::Result<usize> {
    let slot = STARTS
        .iter()
        .position(|s| s.load(Ordering::Relaxed) == 0)
        .ok_or_else(|| {
            invalid(format!(
                "{MAX_RANGES} mappings are attached already; detach some"
            ))
        })?;
    ENDS[slot].store(end, Ordering::Relaxed);
    STARTS[slot].store(start, Ordering::Release);
    Ok(slot)
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn setting(name: &str, default: u64, max: u64) -> io::Result<u64> {
    match std::env::var(name) {
        Err(_) => Ok(default),
        Ok(text) => match text.parse() {
            Ok(n) if n <= max => Ok(n),
            _ => Err(invalid(format!(
                "{name}={text}: give a whole number up to {max}"
            ))),
        },
    }
}

/// `MADV_DONTNEED` throws the data of a private mapping away, so only shared ones may be attached.
fn require_shared(start: u64, end: u64) -> io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut at = start;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(mode)) = (fields.next(), fields.next()) else {
            continue;
        };
        let Some((from, to)) = range.split_once('-') else {
            continue;
        };
        let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16))
        else {
            continue;
        };
        if from <= at && at < to {
            if !mode.ends_with('s') {
                return Err(invalid(format!(
                    "the mapping at {at:#x} is private; only shared file mappings can be attached"
                )));
            }
            at = to;
            if at >= end {
                return Ok(());
            }
        }
    }
    Err(invalid(format!("nothing is mapped at {at:#x}")))
}

/// Opens the userfaultfd, sizes the cache, and installs the handler.
fn start() -> io::Result<()> {
    let cache_mib = setting("VERNAL_CXL_CACHE_MIB", DEFAULT_CACHE_MIB, 1 << 20)?;
    let latency = setting("VERNAL_CXL_LATENCY_NS", DEFAULT_LATENCY_NS, 1_000_000_000)?;
    LATENCY_NS.store(latency, Ordering::Relaxed);
    let pages = FIFO.lock();
    *pages = vec![0; ((cache_mib << 20) / PAGE).max(16) as usize];
    FIFO.unlock();
    // SAFETY: a system call without pointers.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_userfaultfd,
            libc::O_CLOEXEC | libc::O_NONBLOCK | UFFD_USER_MODE_ONLY,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = fd as libc::c_int;
    let mut api = UffdioApi {
        api: UFFD_API,
        features: UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MINOR_SHMEM,
        ioctls: 0,
    };
    UFFD.store(fd, Ordering::Relaxed);
    // SAFETY: `api` is a live uffdio_api.
    if let Err(e) = unsafe { uffd_ioctl(UFFDIO_API, &raw mut api) } {
        // SAFETY: `fd` was opened above and nobody else knows it.
        unsafe { libc::close(fd) };
        return Err(e);
    }
    // SAFETY: both structures are live; `on_sigbus` has the signature that SA_SIGINFO asks for, and PREVIOUS is not read
    // before the handler is installed, which this call does after filling it in.
    let rc = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        libc::sigaction(libc::SIGBUS, &action, (*PREVIOUS.0.get()).as_mut_ptr())
    };
    if rc != 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

impl Fifo {
    /// Async-signal-safe. A handler never interrupts a holder of the same thread: no holder touches attached memory.
    #[allow(clippy::mut_from_ref)] // the lock makes the reference unique until `unlock`
    fn lock(&self) -> &mut Vec<u64> {
        while self
            .locked
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            std::hint::spin_loop();
        }
        // SAFETY: the lock is held, and callers do not use the reference after `unlock`.
        unsafe { &mut *self.pages.get() }
    }

    fn unlock(&self) {
        self.locked.store(false, Ordering::Release);
    }

    /// Puts `page` into the ring and takes the page whose place it takes out of the cache.
    fn admit(&self, page: u64) {
        let pages = self.lock();
        // SAFETY: the lock is held.
        let next = unsafe { &mut *self.next.get() };
        let evicted = mem::replace(&mut pages[*next], page);
        *next = (*next + 1) % pages.len();
        // The entries go while the lock is held, so that no other thread can admit the page again in between.
        if evicted != 0 && evicted != page {
            // SAFETY: only pages of attached shared mappings enter the ring, and `detach` takes them out.
            let _ = unsafe { drop_entries(evicted, PAGE) };
        }
        self.unlock();
    }
}

/// A raw system call: libvernal interposes `ioctl`.
///
/// # Safety
/// `arg` must point to the structure that `request` takes.
unsafe fn uffd_ioctl<T>(request: libc::c_ulong, arg: *mut T) -> io::Result<()> {
    // SAFETY: passed on to the caller.
    if unsafe { libc::syscall(libc::SYS_ioctl, UFFD.load(Ordering::Relaxed), request, arg) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// # Safety
/// The range must lie in shared file mappings: in private memory this destroys data.
unsafe fn drop_entries(addr: u64, len: u64) -> io::Result<()> {
    // SAFETY: passed on to the caller.
    if unsafe { libc::syscall(libc::SYS_madvise, addr, len, libc::MADV_DONTNEED) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn now_ns() -> u64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` is a live timespec; clock_gettime is async-signal-safe.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

fn is_attached(addr: u64) -> bool {
    STARTS.iter().zip(&ENDS).any(|(start, end)| {
        let start = start.load(Ordering::Acquire);
        start != 0 && start <= addr && addr < end.load(Ordering::Relaxed)
    })
}

/// Makes the page at `addr` accessible; false when the kernel refuses, so that the fault is a real one.
fn admit_page(page: u64) -> bool {
    let mut op = UffdioOp {
        start: page,
        len: PAGE,
        mode: 0,
        result: 0,
    };
    // SAFETY: `op` is a live uffdio_continue.
    let mut done = unsafe { uffd_ioctl(UFFDIO_CONTINUE, &raw mut op) };
    if matches!(&done, Err(e) if e.raw_os_error() == Some(libc::EFAULT)) {
        // A hole in the file: nothing is in the page cache yet.
        op.result = 0;
        // SAFETY: `op` is a live uffdio_zeropage.
        done = unsafe { uffd_ioctl(UFFDIO_ZEROPAGE, &raw mut op) };
    }
    match done {
        Ok(()) => true,
        Err(e) => matches!(e.raw_os_error(), Some(libc::EEXIST | libc::EAGAIN)), // another thread was first, or: try again
    }
}

extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let entered = now_ns();
    // SAFETY: errno is this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    // SAFETY: the kernel hands a live siginfo to an SA_SIGINFO handler; for SIGBUS si_addr is set.
    let addr = unsafe { (*info).si_addr() } as u64;
    let page = addr & !(PAGE - 1);
    if !is_attached(addr) || !admit_page(page) {
        // SAFETY: signal, info and context are what the kernel gave us.
        unsafe {
            crate::signal::chain((*PREVIOUS.0.get()).assume_init_ref(), signal, info, context)
        };
        // SAFETY: errno is this thread's own.
        unsafe { *errno = saved };
        return;
    }
    FIFO.admit(page);
    MISSES.fetch_add(1, Ordering::Relaxed);
    let latency = LATENCY_NS.load(Ordering::Relaxed);
    while now_ns() - entered < latency {
        std::hint::spin_loop();
    }
    // SAFETY: errno is this thread's own.
    unsafe { *errno = saved };
}
