//! A global allocator that serves from a mapped file while it is switched on.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Size classes: multiples of 16 up to 1 KiB, then powers of two.
const CLASSES: usize = 64 + 40;

/// The beginning of the file.
#[repr(C)]
pub struct Header {
    /// 0 in a new file.
    pub magic: u64,
    /// Steps made.
    pub steps: u64,
    /// The root object.
    pub root: *mut u8,
    fresh: usize,
    end: usize,
    free: [*mut u8; CLASSES],
}

static BASE: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);
/// Held while the lists change; it lies outside the file.
static LOCK: Mutex<()> = Mutex::new(());

thread_local! {
    static IN_FILE: Cell<bool> = const { Cell::new(false) };
}

/// Makes `[base, base + len)` the arena; `base` holds zeros or an arena that was there before.
///
/// # Safety
///
/// The range is mapped, aligned to a page, and used by nothing else until the process ends.
pub unsafe fn install(base: *mut u8, len: usize) -> &'static mut Header {
    // SAFETY: the caller's promise; any bytes are a header.
    let header = unsafe { &mut *base.cast::<Header>() };
    if header.fresh == 0 {
        header.fresh = (base as usize + size_of::<Header>()).next_multiple_of(64);
        header.end = base as usize + len;
    }
    END.store(base as usize + len, Ordering::Release);
    BASE.store(base as usize, Ordering::Release);
    header
}

/// Runs `f` with this thread's allocations in the arena.
pub fn within<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            IN_FILE.set(self.0);
        }
    }
    let _restore = Restore(IN_FILE.replace(true));
    f()
}

/// The allocator.
pub struct Arena;

fn class(layout: Layout) -> (usize, usize) {
    let size = layout.size().max(layout.align()).max(16);
    if size <= 1024 {
        (size.div_ceil(16) - 1, size.next_multiple_of(16))
    } else {
        let size = size.next_power_of_two();
        (64 + size.trailing_zeros() as usize - 11, size)
    }
}

// SAFETY: pieces come from the free list of their class or from fresh memory, and go back to the list of the same class;
// memory outside the arena is System's.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !IN_FILE.try_with(Cell::get).unwrap_or(false) {
            // SAFETY: the caller's layout.
            return unsafe { System.alloc(layout) };
        }
        let _guard = LOCK.lock().unwrap_or_else(|e| e.into_inner());
        // SAFETY: installed before any thread is switched into it; the lock is held.
        let header = unsafe { &mut *(BASE.load(Ordering::Acquire) as *mut Header) };
        let (class, size) = class(layout);
        let listed = header.free[class];
        if !listed.is_null() && (listed as usize).is_multiple_of(layout.align()) {
            // SAFETY: a free piece holds the address of the next.
            header.free[class] = unsafe { listed.cast::<*mut u8>().read() };
            return listed;
        }
        let at = header.fresh.next_multiple_of(layout.align().max(16));
        if at + size > header.end {
            return ptr::null_mut();
        }
        header.fresh = at + size;
        at as *mut u8
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if !(BASE.load(Ordering::Acquire)..END.load(Ordering::Acquire)).contains(&(memory as usize))
        {
            // SAFETY: not the arena's, so System's.
            return unsafe { System.dealloc(memory, layout) };
        }
        let _guard = LOCK.lock().unwrap_or_else(|e| e.into_inner());
        // SAFETY: the piece is the caller's to give back, and large enough for an address; the lock is held.
        unsafe {
            let header = &mut *(BASE.load(Ordering::Acquire) as *mut Header);
            let (class, _) = class(layout);
            memory.cast::<*mut u8>().write(header.free[class]);
            header.free[class] = memory;
        }
    }
}
