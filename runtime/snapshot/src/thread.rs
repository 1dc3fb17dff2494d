//! Per-thread dirty lists, and the cold half of the write barrier.
//!
//! # Protocol
//!
//! Each thread owns a ring of [`RING_SLOTS`] slots. The owner appends, a committer (under the commit lock) consumes; the
//! owner may be interrupted at any instruction by its own signal handler, whose stores append too.
//!
//! - *Append*: with room on the ring, `i = produced++` with one `xadd` (atomic with respect to signals on this thread); slot
//!   `i % RING_SLOTS` *announces* the line; its shadow byte is set; the slot is *filled* with the line's address. A slot
//!   between its `xadd` and its announcement reads 0, a *hole*.
//! - *Consume*: read slots from `consumed` to `produced`. Zero each slot that held an address. Stop advancing at the first
//!   hole or announcement, but go on reading behind it (a signal handler may have appended there and be the one that
//!   commits); what was taken behind it is left as [`TAKEN`].
//! - *Announcements*: whoever finds a byte set lists nothing, so a commit looks at a line that is announced as at one that is
//!   listed: its byte may be set already, and another thread, or a handler of this one, may have relied on that. The owner
//!   fills the slot later, and a later commit looks at the line once more. Behind a hole no byte has been set.
//! - *Runs*: a slot holds the address of a line, or of several that follow each other: their number less one is in the upper
//!   16 bits, which no tracked address has.
//! - *Overflow*: without room, an owner raises `dropping`, sets the byte, sets `overflow`, and lowers `dropping`. A committer
//!   that reads `dropping` above zero, or then finds the flag, scans the shadow of all mappings. Room ends [`HANDLERS`]
//!   slots before the ring does: what is between the look for room and the `xadd` fits there, once for each level of signal
//!   handlers, so that every slot that was handed out is filled.
//!
//! So a set byte has a slot, an announcement, `dropping` or `overflow` to be found by, at every instant. All of it relies on
//! the order in which x86 makes stores visible, and needs no fence (docs/adr/0020).
//!
//! # Why the mark follows the store, and the recheck list
//!
//! See `commit.rs`, and the model in `testsuite/crash`.

use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, compiler_fence,
};
use vernal_abi as abi;
use vernal_sys::{cpu, mem};

/// Slots of a thread's ring: 512 KiB, touched as it is used. A transaction that dirties more lines in one thread falls
/// back to scanning the shadow.
pub const RING_SLOTS: u64 = 1 << 16;
/// Slots beyond those that count as room, for marks of nested signal handlers.
const HANDLERS: u64 = 256;
/// Slots in use from which on marks are dropped. The hook in the C interface compares with it.
pub const RING_ROOM: u64 = RING_SLOTS - HANDLERS;
/// Lines of another thread that a commit fetches before it takes the first.
const FETCHED: u64 = 64;
/// A slot that was consumed out of order, behind a hole.
const TAKEN: u64 = 1;
/// Above the address in a slot, or the number of the line that it announces: how many lines follow.
const RUN_SHIFT: u32 = 48;
const ADDR_MASK: u64 = (1 << RUN_SHIFT) - 1;
/// Runs do not cross multiples of this.
const RUN_WITHIN: u64 = vernal_sys::RESERVE_CHUNK;
/// Offset of the ring from its control block; the assembly in `hooks.rs` of the C API knows it.
pub const RING_OFFSET: u64 = 4096;

/// A thread's control block. It lives at the front of a mapping that is never unmapped (a thread that starts after this
/// one died takes it over), so that a committer may read it at any time.
#[repr(C)]
#[derive(Debug)]
pub struct Control {
    /// Slots handed out. Written by the owner only.
    pub produced: AtomicU64,
    /// Slots consumed. Written by the committer only (and by the owner when it is the committer).
    pub consumed: AtomicU64,
    /// [`RING_SLOTS`]; 0 sends every mark through the slow path (fault injection counts them there).
    pub fast_slots: AtomicU64,
    /// Marks that are being dropped at this instant. Written by the owner only.
    pub dropping: AtomicU32,
    /// Marks were dropped because the ring was full.
    pub overflow: AtomicBool,
    /// A thread owns this block.
    owned: AtomicBool,
    /// Depth of `op` brackets.
    pub op_depth: AtomicU32,
    /// This thread is inside a commit (guards against a signal handler that commits).
    pub in_commit: AtomicBool,
    /// An abort has rolled back the transaction that waits with `tx_ticket`.
    pub tx_killed: AtomicBool,
    /// The arrival of this thread's transaction while it waits for its commit; 0: it does not.
    pub tx_ticket: AtomicU64,
    /// What pools keep of this thread's transactions: here, because one load finds it, where a `thread_local!` of a shared
    /// library is a call.
    pub tx: TxLocal,
    next: AtomicPtr<Control>,
}

/// A thread's transactions on pools. Read and written by the thread only; 0 in a thread that has none open.
#[repr(C)]
#[derive(Debug)]
pub struct TxLocal {
    /// How many are open, one inside the other.
    pub depth: AtomicU32,
    /// Not 0: its end has more to do than to commit. The bits are the pools'.
    pub extras: AtomicU32,
    /// The C interface: which levels are blocks of `VN_TX`.
    pub blocks: AtomicU64,
    /// The C interface: how the last one ended.
    pub result: AtomicI32,
}

const _: () = {
    assert!(std::mem::offset_of!(Control, produced) == 0);
    assert!(std::mem::offset_of!(Control, consumed) == 8);
    assert!(std::mem::offset_of!(Control, fast_slots) == 16);
    assert!(std::mem::size_of::<Control>() as u64 <= RING_OFFSET);
    assert!(abi::TRACKED_END <= 1 << RUN_SHIFT && RUN_WITHIN / abi::LINE_SIZE <= 1 << 16);
    assert!(RING_SLOTS == 1 << 16); // the hook masks with movzx of a 16-bit register
    // What announces and what is filled are told apart by their size.
    assert!(abi::TRACKED_END >> abi::LINE_SHIFT < abi::TRACKED_BASE);
    assert!(abi::TRACKED_BASE >> abi::LINE_SHIFT > TAKEN);
};

static CONTROLS: AtomicPtr<Control> = AtomicPtr::new(null_mut());
/// Not 0: a mark prefetches its home line, because the next commit will read it. The hook in the C interface reads this.
pub static PREFETCH_HOME: AtomicU8 = AtomicU8::new(1);

/// Sets [`PREFETCH_HOME`].
pub(crate) fn set_prefetch(on: bool) {
    PREFETCH_HOME.store(u8::from(on), Ordering::Relaxed);
}

static SLOW_MARKS: AtomicBool = AtomicBool::new(false);
/// Marks of threads without a control block that are being dropped at this instant.
static DROPPING: AtomicU32 = AtomicU32::new(0);

// The one thread-local variable: a pointer to the thread's control block, null until its first mark. Defined in assembly
// so that the hooks reach it with the initial-exec model: one load, no call, no register but the destination.
std::arch::global_asm!(
    ".pushsection .tbss.__vernal_tls,\"awT\",@nobits",
    ".p2align 3",
    ".type __vernal_tls,@object",
    ".size __vernal_tls,8",
    ".hidden __vernal_tls",
    ".globl __vernal_tls",
    "__vernal_tls:",
    ".zero 8",
    ".popsection",
);

#[inline]
fn tls() -> *mut *mut Control {
    let p: *mut *mut Control;
    // SAFETY: computes fs:0 + the variable's offset, the address of this thread's instance (ELF TLS ABI, initial exec).
    unsafe {
        std::arch::asm!(
            "mov {p}, qword ptr fs:[0]",
            "add {p}, qword ptr [rip + __vernal_tls@GOTTPOFF]",
            p = out(reg) p,
            options(pure, readonly, nostack),
        );
    }
    p
}

/// This thread's control block, made or taken over at first use. `None` when the kernel gives no memory for one.
#[inline]
pub fn current() -> Option<&'static Control> {
    // SAFETY: the thread's own variable; only this thread reads or writes it.
    let p = unsafe { tls().read() };
    if p.is_null() {
        register()
    } else {
        // SAFETY: set by `register` to a block that is never unmapped.
        Some(unsafe { &*p })
    }
}

/// This thread's control block, if it has one already.
#[inline]
pub fn known() -> Option<&'static Control> {
    // SAFETY: the thread's own variable, null or a block that is never unmapped.
    unsafe { tls().read().as_ref() }
}

/// Sends every later mark of every thread through [`mark_slow`], where fault injection counts it.
pub fn route_marks_slowly() {
    SLOW_MARKS.store(true, Ordering::SeqCst);
    for c in all() {
        c.fast_slots.store(0, Ordering::SeqCst);
    }
}

/// Every control block ever made.
#[inline]
pub fn all() -> impl Iterator<Item = &'static Control> {
    let mut p = CONTROLS.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        if p.is_null() {
            return None;
        }
        // SAFETY: blocks are pushed once and never unmapped.
        let c = unsafe { &*p };
        p = c.next.load(Ordering::Relaxed);
        Some(c)
    })
}

#[cold]
fn register() -> Option<&'static Control> {
    // Async-signal-safe: no allocator, no lock.
    let free = all().find(|c| {
        c.owned
            .compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    });
    let c = match free {
        Some(c) => c,
        None => {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let len = RING_OFFSET + RING_SLOTS * 8;
            // SAFETY: a fresh, zeroed mapping at an address that the kernel picks.
            let at = unsafe { mem::mmap(0, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) }
                .ok()?;
            // SAFETY: all-zero bytes are a valid Control (atomics and a null pointer); the mapping is never unmapped.
            let c = unsafe { &*(at as *const Control) };
            c.owned.store(true, Ordering::Relaxed);
            let mut head = CONTROLS.load(Ordering::Relaxed);
            loop {
                c.next.store(head, Ordering::Relaxed);
                let new = std::ptr::from_ref(c).cast_mut();
                match CONTROLS.compare_exchange_weak(
                    head,
                    new,
                    Ordering::Release,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => break,
                    Err(h) => head = h,
                }
            }
            c
        }
    };
    c.op_depth.store(0, Ordering::Relaxed);
    c.in_commit.store(false, Ordering::Relaxed);
    c.tx.depth.store(0, Ordering::Relaxed);
    c.tx.extras.store(0, Ordering::Relaxed);
    c.tx.blocks.store(0, Ordering::Relaxed);
    c.tx.result.store(0, Ordering::Relaxed);
    let fast = if SLOW_MARKS.load(Ordering::SeqCst) {
        0
    } else {
        RING_SLOTS
    };
    c.fast_slots.store(fast, Ordering::Relaxed);
    // SAFETY: the thread's own variable.
    unsafe { tls().write(std::ptr::from_ref(c).cast_mut()) };
    exit_key::arm(c);
    Some(c)
}

/// Gives a control block back when its thread ends. What is on its ring stays there for the next commit.
mod exit_key {
    use super::{Control, Ordering};
    use std::sync::OnceLock;

    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();

    extern "C" fn release(p: *mut libc::c_void) {
        // SAFETY: the value set in `arm`, a block that is never unmapped.
        let c = unsafe { &*p.cast::<Control>() };
        // SAFETY: the ending thread's own variable.
        unsafe { super::tls().write(std::ptr::null_mut()) };
        c.op_depth.store(0, Ordering::Release);
        c.owned.store(false, Ordering::Release);
    }

    pub(super) fn arm(c: &'static Control) {
        let key = KEY.get_or_init(|| {
            let mut key = 0;
            // SAFETY: `key` is writable; the destructor is a plain function.
            (unsafe { libc::pthread_key_create(&mut key, Some(release)) } == 0).then_some(key)
        });
        if let Some(key) = *key {
            // SAFETY: the key exists. Without it the block is merely not reused.
            unsafe { libc::pthread_setspecific(key, std::ptr::from_ref(c).cast()) };
        }
    }
}

impl Control {
    #[inline]
    fn slot(&self, i: u64) -> &AtomicU64 {
        let ring = (std::ptr::from_ref(self) as u64 + RING_OFFSET) as *const UnsafeCell<u64>;
        // SAFETY: the ring follows the block in the same mapping; the index is reduced to its size.
        unsafe { &*ring.add((i % RING_SLOTS) as usize).cast::<AtomicU64>() }
    }

    /// Adds one to `produced` in a way that is atomic with respect to signal handlers of this thread.
    #[inline]
    fn bump(&self) -> u64 {
        let mut i: u64 = 1;
        // SAFETY: `produced` is written by this thread only; xadd is one instruction, so a handler runs before or after.
        unsafe {
            std::arch::asm!("xadd qword ptr [{p}], {i}", p = in(reg) self.produced.as_ptr(), i = inout(reg) i, options(nostack));
        }
        i
    }

    /// Marks `count` lines from `line` on: `set` sets their shadow bytes.
    #[inline]
    fn append(&self, line: u64, count: u64, set: impl FnOnce()) {
        let produced = self.produced.load(Ordering::Relaxed);
        if produced.wrapping_sub(self.consumed.load(Ordering::Acquire)) >= RING_ROOM {
            return self.drop_mark(set);
        }
        let run = (count - 1) << RUN_SHIFT;
        let slot = self.slot(self.bump());
        slot.store(line >> abi::LINE_SHIFT | run, Ordering::Release);
        set();
        slot.store(line | run, Ordering::Release);
    }

    /// Handlers that interrupt this leave the count as they have found it.
    #[cold]
    fn drop_mark(&self, set: impl FnOnce()) {
        let n = self.dropping.load(Ordering::Relaxed);
        self.dropping.store(n + 1, Ordering::Release);
        set();
        self.overflow.store(true, Ordering::Release);
        self.dropping.store(n, Ordering::Release);
    }

    /// Consumes what the thread has marked; `take` gets each address. Returns whether marks were dropped, so that the
    /// shadow must be scanned. Call under the commit lock.
    #[inline]
    pub fn drain(&self, own: bool, mut take: impl FnMut(u64)) -> bool {
        let start = self.consumed.load(Ordering::Relaxed);
        // The count before the flag: whoever has lowered it had set the flag.
        let mut scan = self.is_dropping();
        // The flag before the slots: a mark dropped after this read sets the flag again, for the next commit.
        scan |=
            self.overflow.load(Ordering::Relaxed) && self.overflow.swap(false, Ordering::AcqRel);
        let produced = self.produced.load(Ordering::Acquire);
        let end = produced.min(start.wrapping_add(RING_SLOTS));
        if !own {
            // What another CPU has written is in its cache: fetch it all at once, and not line after line.
            for i in start..end.min(start.wrapping_add(FETCHED)) {
                let at = self.slot(i).load(Ordering::Relaxed) & ADDR_MASK;
                if at >= abi::TRACKED_BASE {
                    cpu::prefetch(at);
                    cpu::prefetch_for_write(abi::shadow_addr(at));
                }
            }
        }
        let mut next = start;
        let mut open = false;
        for i in start..end {
            let slot = self.slot(i);
            let v = slot.load(Ordering::Acquire);
            let mut at = v & ADDR_MASK;
            // A hole or an announcement: its owner will write to this slot again.
            let unfilled = v != TAKEN && at < abi::TRACKED_BASE;
            if unfilled {
                open = true;
                at <<= abi::LINE_SHIFT;
            }
            if v > TAKEN {
                for line in 0..=v >> RUN_SHIFT {
                    take(at + line * abi::LINE_SIZE);
                }
            }
            if !open {
                slot.store(0, Ordering::Relaxed);
                next = i + 1;
            } else if !unfilled {
                slot.store(TAKEN, Ordering::Relaxed);
            }
        }
        self.consumed.store(next, Ordering::Release);
        if own && next == produced && next != 0 {
            self.rewind(produced);
        }
        scan
    }

    #[inline]
    fn is_dropping(&self) -> bool {
        self.dropping.load(Ordering::Acquire) != 0
    }

    /// Whether marks wait, on the ring or in the shadow alone.
    #[inline]
    pub fn has_marks(&self) -> bool {
        self.produced.load(Ordering::Acquire) != self.consumed.load(Ordering::Relaxed)
            || self.is_dropping()
            || self.overflow.load(Ordering::Relaxed)
    }

    /// Whether this is the only block there is: no other thread has ever marked anything.
    #[inline]
    pub fn is_only(&self) -> bool {
        std::ptr::eq(CONTROLS.load(Ordering::Relaxed), self)
            && self.next.load(Ordering::Relaxed).is_null()
    }

    /// [`Control::drain`] for the process' only thread: consumes its marks in order until `take`, which gets the first line of
    /// a run and their number, refuses one; that then counts as not consumed. `true`: none is left. A slot that its owner has
    /// yet to fill, or marks that were dropped, are refused alike.
    #[inline(always)]
    pub fn drain_only(&self, mut take: impl FnMut(u64, u64) -> bool) -> bool {
        let start = self.consumed.load(Ordering::Relaxed);
        let produced = self.produced.load(Ordering::Relaxed);
        let dropped = self.overflow.load(Ordering::Relaxed) || self.is_dropping();
        if dropped || produced.wrapping_sub(start) > RING_SLOTS {
            return false;
        }
        for i in start..produced {
            let slot = self.slot(i);
            let v = slot.load(Ordering::Relaxed);
            let line = v & ADDR_MASK & !(abi::LINE_SIZE - 1);
            if line < abi::TRACKED_BASE || !take(line, (v >> RUN_SHIFT) + 1) {
                self.consumed.store(i, Ordering::Release);
                return false;
            }
            slot.store(0, Ordering::Relaxed);
        }
        self.consumed.store(produced, Ordering::Release);
        if produced != 0 {
            self.rewind(produced);
        }
        true
    }

    /// Starts the owner's empty ring from its first slot again, so that small transactions stay in a few cache lines.
    ///
    /// `consumed` goes first: a handler that marks between the two finds room behind `produced`, and its slot is found
    /// because `produced` then has moved on. The other way round the ring would look full to it, and its mark would leave a
    /// hole that nobody fills.
    #[inline]
    fn rewind(&self, produced: u64) {
        if produced > RING_SLOTS / 2 {
            return;
        }
        self.consumed.store(0, Ordering::Release);
        compiler_fence(Ordering::SeqCst);
        let mut seen = produced;
        // SAFETY: as in `bump`: cmpxchg without lock, one instruction, this thread is the only writer.
        unsafe {
            std::arch::asm!(
                "cmpxchg qword ptr [{p}], {zero}",
                p = in(reg) self.produced.as_ptr(),
                zero = in(reg) 0u64,
                inout("rax") seen,
                options(nostack),
            );
        }
        if seen != produced {
            self.consumed.store(produced, Ordering::Release);
        }
    }
}

/// The shadow byte of the line that holds `addr`.
///
/// # Safety
///
/// `addr` must lie in a mapped file's slot (its shadow is accessible then).
#[inline]
unsafe fn shadow(addr: u64) -> &'static AtomicU8 {
    // SAFETY: shadow of a mapped slot is readable and writable; other threads touch it with single-byte accesses only.
    unsafe { AtomicU8::from_ptr(abi::shadow_addr(addr) as *mut u8) }
}

/// The cold path of `__vernal_mark_line`: first mark of a thread, or injection. The shadow byte was clear.
pub extern "C" fn mark_slow(addr: u64) {
    let line = addr & !(abi::LINE_SIZE - 1);
    // SAFETY: instrumented code calls the hook with addresses in mapped slots only.
    append(line, unsafe { shadow(line) });
}

/// Appends a line and sets its shadow byte, which was clear until now.
#[inline]
fn append(line: u64, byte: &AtomicU8) {
    crate::inject::point(crate::inject::Site::Mark);
    // Behind the slot's announcement, and before the slot is filled.
    let set = || byte.store(abi::SHADOW_DIRTY, Ordering::Release);
    match current() {
        Some(c) => c.append(line, 1, set),
        // No memory for a list: the next commit must look at the shadow itself.
        None => {
            DROPPING.fetch_add(1, Ordering::SeqCst);
            set();
            crate::commit::SCAN_SHADOW.store(true, Ordering::Release);
            DROPPING.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Whether a thread without a list is dropping a mark at this instant. To be read before `SCAN_SHADOW`.
#[inline]
pub fn dropping() -> bool {
    DROPPING.load(Ordering::Acquire) != 0
}

/// Marks every line of `[addr, addr + len)` that lies in a mapped file.
#[inline]
pub extern "C" fn mark_range(addr: u64, len: u64) {
    let Some(end) = addr.checked_add(len) else {
        return;
    };
    if len == 0 || end <= abi::TRACKED_BASE || addr >= abi::TRACKED_END {
        return;
    }
    crate::space::for_each_mapped(addr, end, mark_mapped);
}

/// Marks the lines of `[lo, hi)`, all of which lies in a mapped file's slot.
fn mark_mapped(lo: u64, hi: u64) {
    let mut line = lo & !(abi::LINE_SIZE - 1);
    let prefetch = PREFETCH_HOME.load(Ordering::Relaxed) != 0;
    if !prefetch
        && let Some(c) = known()
        && c.fast_slots.load(Ordering::Relaxed) != 0
    {
        return mark_runs(c, line, hi);
    }
    while line < hi {
        // SAFETY: lo..hi lies in a mapped file's slot.
        let byte = unsafe { shadow(line) };
        if byte.load(Ordering::Relaxed) == abi::SHADOW_CLEAN {
            if prefetch {
                cpu::prefetch_for_write(line + abi::HOME_DISTANCE);
            }
            append(line, byte);
        }
        line += abi::LINE_SIZE;
    }
}

/// [`mark_mapped`] without a prefetch: lines that follow each other share a slot.
#[inline]
fn mark_runs(c: &Control, mut line: u64, hi: u64) {
    // SAFETY: the caller's lines lie in a mapped file's slot.
    let byte = |line| unsafe { shadow(line) };
    let is_clean = |line| byte(line).load(Ordering::Relaxed) == abi::SHADOW_CLEAN;
    while line < hi {
        if !is_clean(line) {
            line += abi::LINE_SIZE;
            continue;
        }
        let first = line;
        let end = hi.min((line | (RUN_WITHIN - 1)) + 1);
        line += abi::LINE_SIZE;
        while line < end && is_clean(line) {
            line += abi::LINE_SIZE;
        }
        c.append(first, (line - first).div_ceil(abi::LINE_SIZE), || {
            for l in (first..line).step_by(abi::LINE_SIZE as usize) {
                byte(l).store(abi::SHADOW_DIRTY, Ordering::Release);
            }
        });
    }
}

/// Marks the NUL-terminated string at `addr`, terminator included, when it is tracked.
pub extern "C" fn mark_cstr(addr: u64) {
    if abi::is_tracked(addr) {
        // SAFETY: the caller has just written a terminated string there.
        let len = unsafe { libc::strlen(addr as *const libc::c_char) } as u64;
        mark_range(addr, len + 1);
    }
}
