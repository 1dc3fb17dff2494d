//! Relocation on first touch.
//!
//! A pool that is mapped elsewhere than its pointers say starts a new address epoch. The chunks of an older epoch are mapped
//! without access; the first touch of one faults, and the handler builds the rewritten chunk aside (`chunk.rs`) and puts it in
//! place with one `mremap`, so that no other thread sees half of it.
//!
//! # States of a chunk
//!
//! ```text
//! PENDING --touch--> BUSY --> SHOWN --marked line meets a commit, or relocate_all--> DONE
//!    ^                                                                                |
//!    +--------------------------- abort, or close without commit ---------------------+
//! ```
//!
//! - `PENDING`: no access. Its bytes in the file are those that were there when the pool was opened.
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
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use vernal_heap::Heap;
use vernal_heap::walk::{Binding, Plans, Translation};
use vernal_snapshot::runtime;
use vernal_sys::mem;

use crate::pool::Inner;
use crate::{Error, registry};
use chunk::ChangedPages;
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
const SHOWN: u8 = 2;
const DONE: u8 = 3;
/// It could not be protected again after an abort, or the pool is closed: nobody can reach it any more.
const LOST: u8 = 4;

/// The accessible part of a chunk behind the headers.
struct Region {
    chunk: usize,
    chunk_start: u64,
    start: u64,
    end: u64,
    /// Its pointers are of the epoch before the last.
    older: bool,
    state: AtomicU8,
    /// Once it is `SHOWN`.
    changed: ChangedPages,
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
                if !lazy.rewrite(pool, i, true) {
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

/// The handler of the first touch.
fn on_touch(addr: u64, store: bool) -> bool {
    let Some(handle) = registry::handle_at(addr) else {
        return false;
    };
    // SAFETY: a pool is in the table of chunks only while it is open, and stays in memory as long as its puddles are mapped;
    // who touches a pool that another thread is closing would have faulted for good a moment later.
    let pool = unsafe { &*(handle as *const Inner) };
    let Some(lazy) = pool.lazy.get() else {
        return false;
    };
    match lazy.at(addr) {
        Some((at, _)) if !(store && lazy.read_only) => lazy.rewrite(pool, at, false),
        _ => false,
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

    /// Makes a region accessible if nobody has, and `DONE` if `mark`; waits for whoever does. Allocates nothing and takes no
    /// lock but the gate's, because it runs in a signal handler. `false`: it is impossible.
    fn rewrite(&self, pool: &Inner, index: usize, mark: bool) -> bool {
        let r = &self.regions[index];
        // First the bracket, which may have to wait for a commit, and then the region: whoever has claimed it never waits.
        vernal_snapshot::op_begin();
        let claim = |from| {
            r.state
                .compare_exchange(from, BUSY, Ordering::SeqCst, Ordering::Acquire)
                .is_ok()
        };
        let done = loop {
            match r.state.load(Ordering::Acquire) {
                PENDING if claim(PENDING) => break self.claimed(pool, r, mark),
                SHOWN if !mark => break true,
                SHOWN if claim(SHOWN) => break self.take(pool, r, u64::MAX),
                DONE => break true,
                LOST => break false,
                _ => std::thread::yield_now(),
            }
        };
        vernal_snapshot::op_end();
        done
    }

    /// Builds a region that the caller has claimed.
    fn claimed(&self, pool: &Inner, r: &Region, mark: bool) -> bool {
        let mark = mark && !self.read_only;
        let built = self.build(r, mark).is_some();
        if built && mark && self.finish_marked(pool, r) {
            return true;
        }
        // A region that could not be built is as it was; whoever touches it next tries again.
        r.state
            .store(if built { SHOWN } else { PENDING }, Ordering::Release);
        built && !mark
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
