//! Gathering a commit: which lines may have changed, and what changed in them.
//!
//! # Nothing is lost
//!
//! A mark follows its store: *store the data; read the shadow byte; if it is clear, announce the line on the list, set the byte,
//! and fill the place on the list*. A commit goes through the lists, announced lines included: *clear the byte; read the line;
//! compare it with home*. So what a thread has stored before it commits is found, even where another thread has set the byte
//! and got no further. Two cases exist for a store that a commit did not see:
//!
//! 1. The mark read the byte after the commit had cleared it. It sets it and lists the line: a later commit finds it.
//! 2. The mark read the byte as set, before the clear became visible, while the store itself still sat in the store
//!    buffer when the commit read the line. Nobody appends. Therefore a line stays on the *recheck list* when its byte is
//!    cleared, and is compared again by each later commit, until a process-wide barrier (membarrier) has been passed by
//!    every thread since the clear: the store that preceded such a mark is visible from then on, and one more comparison
//!    after the barrier finds it.
//!
//! To look again costs little: what a line held when a commit last looked is kept beside its address, and a line that still holds
//! it is done with; home, which is seldom in the cache after a commit, is read for the others only.
//!
//! While the process has had one thread only, case 2 cannot happen and the list stays empty. The model that enumerates
//! this protocol under x86-TSO, and shows that each omitted step loses an update, is in `testsuite/crash`.

use crate::barrier;
use crate::deferred::{Deferred, deferred, is_deferred};
use crate::extent::Extent;
use crate::space;
use crate::thread::{self, Control};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use vernal_abi as abi;
use vernal_sys::RESERVE_CHUNK;
use vernal_sys::{cpu, os};

mod whole;

/// Marks were dropped outside any thread's list (no memory for a list): look at the shadow itself.
pub static SCAN_SHADOW: AtomicBool = AtomicBool::new(false);

/// Lines on the recheck list above which a commit waits for a barrier. Long before that, who has committed executes one.
const RECHECK_MAX: usize = 4096;
/// A line whose byte was cleared and not yet followed by a barrier.
#[derive(Debug, Clone, Copy)]
struct Cleared {
    line: u64,
    /// The last commit that has cleared its byte.
    by: u64,
    /// What the commit that looked last has seen there is kept; whatever home did not hold of it was staged. Not when that commit
    /// failed, or was taken back.
    known: bool,
}

/// How lines are looked at in one commit.
#[derive(Debug, Clone, Copy)]
struct Mode {
    /// Other threads may run: keep the recheck list.
    threads: bool,
    /// Stage without comparing with home: because home is not the committed content (asynchronous commits are pending), or
    /// because reading it costs more than writing it (see [`Look`]).
    always: bool,
    /// The same for lines of the recheck list: most of them have not changed.
    always_again: bool,
}

/// Whether a commit compares lines with home before it stages them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Look {
    /// Stage the words that differ.
    #[default]
    Compare,
    /// Stage every line that was marked, whole. On byte-addressable media a whole line goes to the journal and to home with
    /// non-temporal stores, which read nothing; the comparison would fetch a home line that is seldom in the cache
    /// (docs/adr/0012). The recheck of racing stores compares.
    WholeLines,
    /// Stage every line; the caller compares with what is pending.
    Pending,
}

impl Mode {
    #[inline]
    fn now(look: Look) -> Self {
        let threads = !os::single_threaded();
        Self {
            threads,
            always: look != Look::Compare,
            always_again: look == Look::Pending,
        }
    }
}

/// The gathering half of the commit pipeline. Used under the commit lock.
#[derive(Debug, Default)]
pub struct Gather {
    /// The mapped files.
    pub extents: Vec<Extent>,
    /// The recheck list.
    recheck: Vec<Cleared>,
    /// What they held when a commit last looked, in the same order.
    seen: Vec<Line>,
    /// Lines of the recheck list that were looked at since a barrier was last asked for.
    looks: u64,
    /// Lines that a commit consumed and could not stage.
    left: Vec<u64>,
    /// Lines were marked while this gathered: there is more to take.
    more: bool,
}

/// A line as a commit sees it: its changed words.
#[derive(Debug)]
pub struct Changed<'a> {
    /// Index of the extent.
    pub extent: usize,
    /// Tracked address of the line.
    pub addr: u64,
    /// Whether the home image may lack blocks for this line.
    pub reserve: bool,
    /// Which words differ from home.
    pub mask: u8,
    /// The line's words.
    pub words: &'a [u64; 8],
}

#[repr(align(64))]
#[derive(Debug, Clone, Copy)]
struct Line([u64; 8]);

/// Reads a line that other threads may be writing: each word is seen old or new.
#[inline(always)]
fn read_line(addr: u64) -> Line {
    let mut out = Line([0; 8]);
    // SAFETY: the line lies in a mapped file or its home view; `out` is 64-byte aligned.
    unsafe { cpu::copy_line(addr as *const u8, out.0.as_mut_ptr().cast()) };
    out
}

#[inline]
fn shadow(addr: u64) -> &'static AtomicU8 {
    // SAFETY: callers pass addresses in mapped slots only, whose shadow is accessible.
    unsafe { AtomicU8::from_ptr(abi::shadow_addr(addr) as *mut u8) }
}

/// The home line of the working line at `addr`.
#[inline]
pub fn read_home(addr: u64) -> [u64; 8] {
    read_line(addr + abi::HOME_DISTANCE).0
}

/// Compares the line at `addr` with home; calls `stage` when it differs, or `always`. With threads, `seen` gets what it has
/// looked at.
#[inline]
fn examine<E>(
    extents: &mut [Extent],
    extent: usize,
    addr: u64,
    mode: Mode,
    seen: Option<&mut Line>,
    stage: &mut impl FnMut(Changed<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let copy;
    let words = if mode.threads {
        // What is staged must be what was compared.
        copy = read_line(addr);
        if let Some(seen) = seen {
            *seen = copy;
        }
        &copy.0
    } else {
        // SAFETY: a mapped, aligned line that nobody else can be writing to: there is one thread, and it is here.
        unsafe { &*(addr as *const [u64; 8]) }
    };
    let mask = if mode.always {
        u8::MAX
    } else {
        let home = (addr + abi::HOME_DISTANCE) as *const u8;
        // SAFETY: `words` is 64-byte aligned (a line, or a copy of one), and so is the home line, which is mapped.
        unsafe { cpu::differing_words(words.as_ptr().cast(), home) }
    };
    if mask == 0 {
        return Ok(());
    }
    let e = &mut extents[extent];
    let chunk = ((addr - e.base) / RESERVE_CHUNK) as usize;
    let reserve = e.reserved.get()[chunk] == 0;
    stage(Changed {
        extent,
        addr,
        reserve,
        mask,
        words,
    })?;
    if reserve {
        e.reserved.get_mut()[chunk] = 1;
    }
    Ok(())
}

/// The extent that holds `addr`.
#[inline]
fn find(extents: &[Extent], addr: u64, hint: &mut usize) -> Option<usize> {
    if extents.get(*hint).is_some_and(|e| e.holds(addr)) {
        return Some(*hint);
    }
    // A pool grows by puddles as large as all before: the last ones hold most lines.
    *hint = extents.iter().rposition(|e| e.holds(addr))?;
    Some(*hint)
}

impl Gather {
    #[inline]
    fn find(&self, addr: u64, hint: &mut usize) -> Option<usize> {
        find(&self.extents, addr, hint)
    }

    /// Collects every line that may have changed since the last commit and stages those that did. `Ok(n)`: n lines were
    /// looked at. On an error from `stage` call [`Gather::put_back`].
    #[inline]
    pub fn run<E>(
        &mut self,
        own: Option<&Control>,
        look: Look,
        mut stage: impl FnMut(Changed<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mode = Mode::now(look);
        if self.recheck.len() > RECHECK_MAX {
            barrier::pass(barrier::number());
        }
        let passed = barrier::passed();
        barrier::begin_commit();
        let listed_before = self.recheck.len();
        let mut failed = None;
        let mut hint = 0;
        let mut looked = 0;
        loop {
            self.more = false;
            let mut scan = thread::dropping();
            // Read first: an exchange is a locked instruction.
            scan |=
                SCAN_SHADOW.load(Ordering::Relaxed) && SCAN_SHADOW.swap(false, Ordering::AcqRel);
            for c in thread::all() {
                let is_own = own.is_some_and(|o| std::ptr::eq(o, c));
                scan |= c.drain(is_own, |addr| {
                    let line = addr & !(abi::LINE_SIZE - 1);
                    if failed.is_none() {
                        looked += 1;
                        if let Err(e) = self.take(line, mode, &mut hint, &mut stage) {
                            failed = Some(e);
                        }
                    } else {
                        self.left.push(line);
                    }
                });
            }
            if scan && failed.is_none() {
                looked += self.scan_shadow(mode, &mut stage)?;
            } else if scan {
                SCAN_SHADOW.store(true, Ordering::Release);
            }
            if let Some(e) = failed {
                return Err(e);
            }
            if !self.more {
                break;
            }
        }
        if !self.recheck.is_empty() {
            looked += self.recheck(listed_before, passed, mode, &mut stage)?;
        }
        Ok(looked)
    }

    #[inline]
    fn take<E>(
        &mut self,
        line: u64,
        mode: Mode,
        hint: &mut usize,
        stage: &mut impl FnMut(Changed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(extent) = self.find(line, hint) else {
            // Unmapped since, or past the end of the file: its shadow may be gone, its bytes are nobody's.
            if space::is_mapped(line) {
                shadow(line).store(abi::SHADOW_CLEAN, Ordering::Relaxed);
            }
            return Ok(());
        };
        shadow(line).store(abi::SHADOW_CLEAN, Ordering::Relaxed);
        match deferred(line, true) {
            Deferred::No => {}
            Deferred::Untouched => return Ok(()),
            Deferred::Taken => self.more = true,
        }
        let mut seen = None;
        if mode.threads {
            let e = &mut self.extents[extent];
            let cleared = Cleared {
                line,
                by: barrier::number(),
                known: true,
            };
            let place = e.place(line).unwrap_or(self.recheck.len());
            match self.recheck.get_mut(place) {
                Some(c) => *c = cleared,
                None => {
                    e.set_place(line, Some(place));
                    self.recheck.push(cleared);
                    self.seen.push(Line([0; 8]));
                }
            }
            seen = self.seen.get_mut(place);
        }
        // A result that is moved as a whole is read back wider than it was written: that waits for every store before it, the
        // byte's in another CPU's cache included.
        match examine(&mut self.extents, extent, line, mode, seen, stage) {
            Ok(()) => Ok(()),
            Err(e) => {
                self.left.push(line);
                Err(e)
            }
        }
    }

    /// Whether the recheck list is empty, as it is while the process has one thread.
    pub fn nothing_to_recheck(&self) -> bool {
        self.recheck.is_empty()
    }

    /// A barrier after the commit with this number is worth its cost by now: all that looking again has cost since the last one.
    #[inline]
    pub fn wants_barrier(&mut self) -> Option<u64> {
        if !barrier::is_worth(self.looks) {
            return None;
        }
        self.looks = 0;
        Some(barrier::number())
    }

    /// Looks again at the first `n` lines of the recheck list, those that commits before this one have cleared; drops those that
    /// were last cleared by a commit up to `passed`, because every thread has passed a barrier between that and this look.
    fn recheck<E>(
        &mut self,
        n: usize,
        passed: u64,
        mode: Mode,
        stage: &mut impl FnMut(Changed<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mode = Mode {
            always: mode.always_again,
            ..mode
        };
        let mut looked = 0;
        let mut hint = 0;
        let mut drops = false;
        for i in 0..n {
            let c = &mut self.recheck[i];
            let line = c.line;
            looked += 1;
            drops |= c.by <= passed;
            let seen = &mut self.seen[i];
            // SAFETY: both are aligned; lines that are unmapped or cut leave the list.
            let same = unsafe { cpu::differing_words(line as *const u8, seen.0.as_ptr().cast()) };
            // A line that a roll-back has deferred again has no store that was not taken back.
            if (same == 0 && c.known) || is_deferred(line) {
                continue;
            }
            c.known = mode.threads;
            if let Some(extent) = find(&self.extents, line, &mut hint) {
                examine(&mut self.extents, extent, line, mode, Some(seen), stage)?;
            }
        }
        self.looks += looked;
        if drops {
            self.keep(|c| c.by > passed);
        }
        Ok(looked)
    }

    /// Takes the other lines off the recheck list.
    fn keep(&mut self, mut wanted: impl FnMut(&Cleared) -> bool) {
        let mut hint = 0;
        let mut to = 0;
        for i in 0..self.recheck.len() {
            let c = self.recheck[i];
            let keep = wanted(&c);
            if let Some(extent) = self.find(c.line, &mut hint) {
                self.extents[extent].set_place(c.line, keep.then_some(to));
            }
            if keep {
                self.recheck[to] = c;
                self.seen[to] = self.seen[i];
                to += 1;
            }
        }
        self.recheck.truncate(to);
        self.seen.truncate(to);
    }

    /// What was seen on the recheck list, and perhaps staged, is in no commit; and lines were perhaps cleared.
    fn know_nothing(&mut self) {
        for c in &mut self.recheck {
            c.known = false;
            c.by = barrier::number();
        }
    }

    /// Finds set bytes in the shadow itself: after marks were dropped.
    fn scan_shadow<E>(
        &mut self,
        mode: Mode,
        stage: &mut impl FnMut(Changed<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut looked = 0;
        for i in 0..self.extents.len() {
            let (base, len) = (self.extents[i].base, self.extents[i].len);
            let mut hint = i;
            let mut addr = base;
            while addr < base + len {
                // Eight lines' bytes at a time. Slots are multiples of 512 bytes, so the word lies in this shadow.
                // SAFETY: shadow of a mapped slot; aligned because addr is a multiple of 512.
                let eight = unsafe { AtomicU64::from_ptr(abi::shadow_addr(addr) as *mut u64) }
                    .load(Ordering::Relaxed);
                if eight != 0 {
                    for line in (addr..addr + 512).step_by(abi::LINE_SIZE as usize) {
                        if shadow(line).load(Ordering::Relaxed) != abi::SHADOW_CLEAN {
                            looked += 1;
                            self.take(line, mode, &mut hint, stage)?;
                        }
                    }
                }
                addr += 512;
            }
        }
        Ok(looked)
    }

    /// Adds the lines of written pages (page mode).
    pub fn pages<E>(
        &mut self,
        extent: usize,
        lo: u64,
        hi: u64,
        look: Look,
        mut stage: impl FnMut(Changed<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let hi = hi.min(self.extents[extent].base + self.extents[extent].len);
        let mut looked = 0;
        let mut line = lo;
        while line < hi {
            looked += 1;
            examine(
                &mut self.extents,
                extent,
                line,
                Mode::now(look),
                None,
                &mut stage,
            )?;
            line += abi::LINE_SIZE;
        }
        Ok(looked)
    }

    /// Marks the lines of a commit that failed before its record was written again, so that the next one finds them:
    /// those that were staged, and those that it consumed and did not get to. In page mode these marks stand in for the
    /// pages, which count as unwritten by now.
    pub fn put_back(&mut self, staged: impl Iterator<Item = u64>) {
        for line in staged {
            thread::mark_range(line, abi::LINE_SIZE);
        }
        for line in std::mem::take(&mut self.left) {
            thread::mark_range(line, abi::LINE_SIZE);
        }
        // Lines that only the recheck list knew are still on it.
        self.know_nothing();
    }

    /// Takes every changed line back to home and gives its address to `restored`. No other thread may be storing to the
    /// mapped files.
    pub fn roll_back(&mut self, own: Option<&Control>, mut restored: impl FnMut(u64)) {
        let ok = self.run(
            own,
            Look::Compare,
            |c: Changed<'_>| -> Result<(), std::convert::Infallible> {
                let home = (c.addr + abi::HOME_DISTANCE) as *const u8;
                // SAFETY: both lines are mapped, do not overlap, and the caller promises that nobody writes to them.
                unsafe {
                    std::ptr::copy_nonoverlapping(home, c.addr as *mut u8, abi::LINE_SIZE as usize)
                };
                restored(c.addr);
                Ok(())
            },
        );
        match ok {
            Ok(_) => {}
        }
        self.know_nothing();
    }

    /// Sets the length of a file; lines past it are forgotten.
    pub fn set_len(&mut self, index: usize, len: u64) {
        let (base, old) = (self.extents[index].base, self.extents[index].len);
        if len < old {
            self.keep(|c| !(base + len..base + old).contains(&c.line));
        }
        let e = &mut self.extents[index];
        if len < old {
            // What is cut loses its blocks.
            let (from, to) = (len / RESERVE_CHUNK, old.div_ceil(RESERVE_CHUNK));
            e.reserved.get_mut()[from as usize..to as usize].fill(0);
        }
        e.len = len;
    }

    /// Forgets a file that is being unmapped.
    pub fn remove(&mut self, index: usize) -> Extent {
        let (base, len) = (self.extents[index].base, self.extents[index].len);
        self.keep(|c| !(base..base + len).contains(&c.line));
        self.extents.remove(index)
    }

    /// Consumes and forgets the marks of one file; those of the others are put back.
    pub fn forget_marks(&mut self, index: usize, own: Option<&Control>) {
        let (base, len) = (self.extents[index].base, self.extents[index].len);
        let mut others = Vec::new();
        for c in thread::all() {
            let is_own = own.is_some_and(|o| std::ptr::eq(o, c));
            let dropped = c.drain(is_own, |addr| {
                if addr < base || addr - base >= len {
                    others.push(addr);
                }
            });
            if dropped {
                SCAN_SHADOW.store(true, Ordering::Release);
            }
        }
        for addr in others {
            if space::is_mapped(addr) {
                shadow(addr).store(abi::SHADOW_CLEAN, Ordering::Relaxed);
                thread::mark_range(addr, 1);
            }
        }
    }

    /// Whether the line at `addr` waits for a commit or a recheck.
    pub fn is_pending(&self, extent: usize, addr: u64) -> bool {
        shadow(addr).load(Ordering::Relaxed) != abi::SHADOW_CLEAN
            || self.extents[extent].place(addr).is_some()
    }
}
