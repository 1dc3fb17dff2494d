//! Relocation on first touch.
//!
//! A pool that is mapped elsewhere than its pointers say starts a new address epoch. The chunks of an older epoch are mapped
//! without access; the first touch of one faults, and the handler builds the rewritten chunk aside (`chunk.rs`) and puts it in
//! place with one `mremap`, so that no other thread sees half of it.
//!
//! # States of a chunk
//!
//! ```text
//! PENDING --touch--> PARTLY --touch beside--> SHOWN --marked line meets a commit, or relocate_all--> DONE
//!    ^                                                                                                 |
//!    +------------------------------------------ abort ------------------------------------------------+
//! ```
//!
//! - `PENDING`: no access. Its bytes in the file are those that were there when the pool was opened.
//! - `PARTLY`: 64 KiB of it are as in `SHOWN`, the rest is as in `PENDING`: the first look at a pool must not wait for a whole
//!   chunk, and who looks further reads on.
//! - `SHOWN`: the program reads and writes it; its rewritten pointers are in this process only. *No line of it is in a commit.*
//!   Reading a pool costs no commit anything, and a crash or a close loses nothing but work that the next open does again.
//! - `DONE`: the rewritten lines and the chunk's new epoch are marked like any store of the program, so they become durable in
//!   one commit, or not at all. A chunk becomes `DONE` in the very commit (or abort) that meets the first marked line of it
//!   (`deferred.rs`).
//!
//! So a chunk on the medium is wholly of one epoch, whenever the power goes.
//!
//! The handler is inside an `op` bracket, so a commit takes all of a chunk or nothing of it. Objects are enumerated in an image
//! of the pool as it was when it was opened (`image.rs`): a chunk that nobody has touched is as it was then, whatever has become
//! of its page descriptors since.
//!
//! The kernel's own accesses raise no signal: a system call that is given memory of a chunk that waits fails with `EFAULT`,
//! unless somebody touches it first ([`touch_range`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use vernal_abi::puddle::CHUNK_SIZE;
use vernal_heap::Heap;
use vernal_heap::walk::{Binding, Plans, Translation};
use vernal_snapshot::runtime;
use vernal_sys::mem;

use crate::pool::Inner;
use crate::{Error, registry};
use chunk::{Built, ChangedPages};
use image::Image;

mod chunk;
mod deferred;
mod image;
mod prepare;

pub(crate) use deferred::end as end_deferring;
pub use prepare::allow_untyped;
pub(crate) use prepare::prepare;

/// Chunks that are rewritten together before a commit, so that no record becomes too large.
const BATCH: usize = 32;

const PENDING: u8 = 0;
/// Somebody builds it, or takes it into a commit.
const BUSY: u8 = 1;
const PARTLY: u8 = 2;
const SHOWN: u8 = 3;
const DONE: u8 = 4;
/// It could not be protected again after an abort, or the pool is closed: nobody can reach it any more.
const LOST: u8 = 5;

/// Bytes of a chunk that its first touch rewrites.
const PART: u64 = 64 << 10;
/// Chunks of a pool that are rewritten in part: each splits a mapping in three, and a process has 65 530.
const MOST_PARTLY: usize = 4096;

/// The accessible part of a chunk behind the headers.
struct Region {
    chunk: usize,
    chunk_start: u64,
    start: u64,
    end: u64,
    /// Its pointers are of the epoch before the last.
    older: bool,
    state: AtomicU8,
    /// While it is `PARTLY`: where the accessible part begins.
    part: AtomicU64,
    /// Once it is `PARTLY` or `SHOWN`.
    changed: ChangedPages,
}

impl Region {
    /// The part that holds `addr`.
    fn part_of(&self, addr: u64) -> (u64, u64) {
        let from = addr & !(PART - 1);
        (from.max(self.start), (from + PART).min(self.end))
    }

    /// The accessible part of a region that is `PARTLY`.
    fn part(&self) -> (u64, u64) {
        self.part_of(self.part.load(Ordering::Relaxed))
    }

    /// Whether a region that is `PARTLY` has what is wanted.
    fn shows(&self, want: Want) -> bool {
        let (from, to) = self.part();
        matches!(want, Want::Address(addr) if addr >= from && addr < to)
    }

    fn claim(&self, from: u8) -> bool {
        self.state
            .compare_exchange(from, BUSY, Ordering::SeqCst, Ordering::Acquire)
            .is_ok()
    }
}

/// What is wanted of a region.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// That this address can be read.
    Address(u64),
    /// That all of it can be read.
    All,
    /// That the next commit takes it.
    Marked,
}

/// What is left to be rewritten of a pool.
pub(crate) struct Lazy {
    /// By address.
    regions: Vec<Region>,
    /// Regions that are not `DONE`.
    left: AtomicUsize,
    /// Null when the pool has been closed. Who has made a region `BUSY` and finds an image may use it until the region is not.
    image: AtomicPtr<Heap<Arc<Image>>>,
    plans: Plans,
    /// From the current addresses of the directory, and from the previous ones.
    current: Translation,
    previous: Translation,
    binding: Option<Binding>,
    epochs: (u64, u64),
    read_only: bool,
    /// Regions that have been `PARTLY`.
    partly: AtomicUsize,
}

fn damaged(pool: &Inner, why: impl std::fmt::Display) -> Error {
    Error::Puddle {
        pool: pool.info.name.clone(),
        puddle: "root.puddle".into(),
        why: format!("cannot be relocated: {why}; import the pool from an archive"),
    }
}

/// Rewrites everything that is left, several chunks at a time on several threads when there are many, and commits it.
pub(crate) fn finish(pool: &Inner) -> Result<(), Error> {
    let Some(lazy) = pool.lazy.get() else {
        return Ok(());
    };
    let todo: Vec<usize> = (0..lazy.regions.len())
        .filter(|i| lazy.regions[*i].state.load(Ordering::Acquire) != DONE)
        .collect();
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8);
    for batch in todo.chunks(BATCH * threads) {
        let failed = AtomicUsize::new(0);
        let work = |part: &[usize]| {
            for &i in part {
                if !lazy.rewrite(pool, i, Want::Marked) {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        if batch.len() < BATCH {
            // A second thread makes every later commit dearer: not for a small pool.
            work(batch);
        } else {
            std::thread::scope(|s| {
                for part in batch.chunks(batch.len().div_ceil(threads)) {
                    s.spawn(move || work(part));
                }
            });
        }
        if failed.load(Ordering::Relaxed) > 0 {
            return Err(damaged(
                pool,
                "a chunk could not be rewritten: no memory, or damaged page descriptors",
            ));
        }
        if !lazy.read_only {
            runtime::commit()?;
        }
    }
    Ok(())
}

/// Pools with regions that may wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// The pool that holds `addr`, if it has moved, and the region.
fn waiting_at(addr: u64) -> Option<(&'static Inner, &'static Lazy, usize)> {
    let handle = registry::handle_at(addr)?;
    // SAFETY: a pool is in the table of chunks only while it is open, and stays in memory as long as its puddles are mapped;
    // who touches a pool that another thread is closing would have faulted for good a moment later.
    let pool: &'static Inner = unsafe { &*(handle as *const Inner) };
    let lazy = pool.lazy.get()?;
    let (at, _) = lazy.at(addr)?;
    Some((pool, lazy, at))
}

/// The handler of the first touch.
fn on_touch(addr: u64, store: bool) -> bool {
    match waiting_at(addr) {
        Some((pool, lazy, at)) if !(store && lazy.read_only) => {
            lazy.rewrite(pool, at, Want::Address(addr))
        }
        _ => false,
    }
}

/// Makes the memory of pools in `[addr, addr + len)` accessible, as touching it would: for whoever gives it to the kernel, whose
/// accesses raise no signal. Costs a load while no pool that has moved is open.
#[inline]
pub fn touch_range(addr: u64, len: u64) {
    if any_waiting() {
        touch_slowly(addr, len);
    }
}

/// Whether a pool is open that has moved.
#[inline]
pub fn any_waiting() -> bool {
    WAITING.load(Ordering::Relaxed) != 0
}

#[cold]
fn touch_slowly(addr: u64, len: u64) {
    let end = addr.saturating_add(len).min(vernal_abi::TRACKED_END);
    let mut at = addr.max(vernal_abi::TRACKED_BASE);
    while at < end {
        let mut next = (at & !(CHUNK_SIZE - 1)) + CHUNK_SIZE;
        if let Some((pool, lazy, index)) = waiting_at(at)
            && let Some(r) = lazy.regions.get(index)
        {
            next = r.end;
            let (from, to) = r.part_of(at);
            let want = match at >= from && end.min(r.end) <= to {
                true => Want::Address(at),
                false => Want::All,
            };
            // The kernel says what is wrong with memory that cannot be had.
            lazy.rewrite(pool, index, want);
        } else if let Some((_, lazy)) = registry::handle_at(at)
            // SAFETY: as in `waiting_at`.
            .and_then(|h| unsafe { &*(h as *const Inner) }.lazy.get().map(|l| (h, l)))
            && let Some(r) = lazy.regions.iter().find(|r| r.start > at && r.start < next)
        {
            // Headers, and objects behind them.
            next = r.start;
        }
        at = next;
    }
}

impl Lazy {
    pub fn any_pending(&self) -> bool {
        self.left.load(Ordering::Acquire) > 0
    }

    /// The region that holds `addr`.
    fn at(&self, addr: u64) -> Option<(usize, &Region)> {
        let at = self.regions.partition_point(|r| r.end <= addr);
        let region = self.regions.get(at).filter(|r| addr >= r.start)?;
        Some((at, region))
    }

    /// The pool is being unmapped: there is nothing left to do. The image maps the puddles' files and holds their descriptors
    /// open, and the pool's source must find both gone: threads keep a closed pool in memory for longer.
    pub fn forget(&self) {
        // In one order with a claim and the look at the image that follows it: one of the two sees the other.
        let image = self.image.swap(std::ptr::null_mut(), Ordering::SeqCst);
        for r in &self.regions {
            // Whoever is rewriting, or restoring after an abort, still reads the image.
            while r.state.load(Ordering::SeqCst) == BUSY {
                std::thread::yield_now();
            }
            // What is shown stays readable until it is unmapped, and out of commits.
            let _ = r
                .state
                .compare_exchange(PENDING, LOST, Ordering::SeqCst, Ordering::SeqCst);
        }
        if !image.is_null() {
            WAITING.fetch_sub(1, Ordering::SeqCst);
            // SAFETY: the box of `prepare`, taken out once by the swap; whoever had claimed a region before has left it, and
            // whoever claims one from now on finds null.
            drop(unsafe { Box::from_raw(image) });
        }
    }

    /// The image, for whoever has made a region `BUSY`.
    fn image(&self) -> Option<&Heap<Arc<Image>>> {
        // SAFETY: `forget` takes the pointer away first, then waits for every region that is `BUSY`, and frees it after that;
        // the caller's claim came before the wait, or it reads null here.
        unsafe { self.image.load(Ordering::SeqCst).as_ref() }
    }

    /// Gives what is wanted of a region, unless somebody has; waits for whoever does. Allocates nothing and takes no lock but the
    /// gate's, because it runs in a signal handler. `false`: it is impossible.
    fn rewrite(&self, pool: &Inner, index: usize, want: Want) -> bool {
        let r = &self.regions[index];
        // First the bracket, which may have to wait for a commit, and then the region: whoever has claimed it never waits.
        vernal_snapshot::op_begin();
        let done = loop {
            match r.state.load(Ordering::Acquire) {
                PENDING if r.claim(PENDING) => break self.first(pool, r, want),
                PARTLY if r.shows(want) => break true,
                // It is `SHOWN` then.
                PARTLY if r.claim(PARTLY) && !self.rest(r) => break false,
                PARTLY => {}
                SHOWN if want != Want::Marked => break true,
                SHOWN if r.claim(SHOWN) => break self.take(pool, r, u64::MAX),
                DONE => break true,
                LOST => break false,
                _ => std::thread::yield_now(),
            }
        };
        vernal_snapshot::op_end();
        done
    }

    /// The first touch of a region, which the caller has claimed.
    fn first(&self, pool: &Inner, r: &Region, want: Want) -> bool {
        r.changed.clear();
        if let Want::Address(addr) = want
            && r.part_of(addr) != (r.start, r.end)
            && self.partly.load(Ordering::Relaxed) < MOST_PARTLY
            && self.has_addresses(r)
        {
            let built = self.build(r, &[r.part_of(addr)], false) == Built::All;
            r.part.store(addr, Ordering::Relaxed);
            self.partly.fetch_add(usize::from(built), Ordering::Relaxed);
            // A region that could not be built is as it was; whoever touches it next tries again.
            r.state
                .store(if built { PARTLY } else { PENDING }, Ordering::Release);
            return built;
        }
        let mark = want == Want::Marked && !self.read_only;
        let built = self.build(r, &[(r.start, r.end)], mark) == Built::All;
        if built && mark && self.finish_marked(pool, r) {
            return true;
        }
        r.state
            .store(if built { SHOWN } else { PENDING }, Ordering::Release);
        built && !mark
    }

    /// Builds what a region that was `PARTLY`, and which the caller has claimed, still lacks: it is `SHOWN` then, or as it was.
    fn rest(&self, r: &Region) -> bool {
        let (from, to) = r.part();
        let both = [(r.start, from), (to, r.end)];
        let pieces = match (r.start < from, to < r.end) {
            (true, true) => &both[..],
            (true, false) => &both[..1],
            _ => &both[1..],
        };
        let built = self.build(r, pieces, false);
        let state = match built {
            Built::All => SHOWN,
            Built::Nothing => PARTLY,
            // What is accessible may have been stored to: it cannot be built again.
            Built::Half => LOST,
        };
        r.state.store(state, Ordering::Release);
        built == Built::All
    }

    /// Makes a region that was `SHOWN` part of what the next commit takes. The caller has claimed it.
    fn take(&self, pool: &Inner, r: &Region, but: u64) -> bool {
        let taken = !self.read_only && self.mark_changed(r, &*pool.memory, but).is_some();
        if taken && self.finish_marked(pool, r) {
            return true;
        }
        r.state.store(SHOWN, Ordering::Release);
        self.read_only
    }

    /// The chunk's epoch, which goes with its lines.
    fn finish_marked(&self, pool: &Inner, r: &Region) -> bool {
        let set = pool
            .heap
            .set_chunk_epochs(r.chunk, self.epochs.0, self.epochs.1);
        if set.is_ok() {
            self.left.fetch_sub(1, Ordering::AcqRel);
            r.state.store(DONE, Ordering::Release);
        }
        set.is_ok()
    }

    /// After a roll-back: regions whose rewriting was not committed are as they were when the pool was opened, and wait
    /// for their first touch again. No thread is inside an operation.
    pub fn rolled_back(&self, pool: &Inner) {
        if self.read_only {
            return;
        }
        for r in &self.regions {
            if r.state.load(Ordering::Acquire) != DONE
                || pool
                    .heap
                    .chunk_epochs(r.chunk)
                    .is_ok_and(|e| e == self.epochs)
                || r.state
                    .compare_exchange(DONE, BUSY, Ordering::SeqCst, Ordering::Acquire)
                    .is_err()
            {
                continue;
            }
            let area = self.image().and_then(|image| image.memory().area(r.start));
            let Some(area) = area else {
                r.state.store(DONE, Ordering::SeqCst);
                continue;
            };
            let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
            let (fd, offset) = (area.fd(), area.offset(r.start) as i64);
            // SAFETY: the region lies in a mapped puddle of this pool; its content has been rolled back to the file's, and a
            // thread that touches it now waits in the handler.
            let remapped =
                unsafe { mem::mmap(r.start, r.end - r.start, libc::PROT_NONE, flags, fd, offset) };
            if remapped.is_ok() {
                self.left.fetch_add(1, Ordering::AcqRel);
                r.state.store(PENDING, Ordering::Release);
            } else {
                // Better no access at all than pointers to nowhere.
                r.state.store(LOST, Ordering::SeqCst);
                vernal_snapshot::config::say(format_args!(
                    "pool {}: a chunk could not be protected again after an abort; close the pool",
                    pool.info.name
                ));
            }
        }
    }
}

impl Drop for Lazy {
    fn drop(&mut self) {
        self.forget();
    }
}
