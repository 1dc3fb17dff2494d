//! Relocation on first touch.
//!
//! A pool that is mapped elsewhere than its pointers say starts a new address epoch. The chunks of an older epoch are
//! mapped without access; the first touch of one faults, and the handler builds the rewritten chunk aside and puts it in
//! place with one `mremap`, so that no other thread sees half of it. The chunk's epoch and the changed lines are ordinary
//! tracked memory: they become durable with the program's next commit, and a crash before it starts from the committed
//! chunk again. The handler is inside an `op` bracket, so a commit takes all of a chunk or nothing of it.
//!
//! Objects are enumerated in an image of the pool as it was when it was opened: a chunk that nobody has touched is as it was
//! then, whatever has become of its page descriptors since.
//!
//! A system call that is given untouched memory fails with `EFAULT`: the kernel's own accesses raise no signal.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use vernal_abi::puddle::{CHUNK_HEADER, CHUNK_SIZE};
use vernal_heap::walk::{Binding, Move, Plans, Rewrite, Translate, Translation, scan_untyped};
use vernal_heap::{Heap, HeapError, Mapped, ObjectSpace, PoolMemory};
use vernal_snapshot::runtime;
use vernal_snapshot::thread::mark_range;
use vernal_sys::{WordMap, WordMode, mem, touch};

use crate::pool::{Inner, Puddle};
use crate::{Error, binding, registry};

/// Chunks that are rewritten together before a commit, so that no record becomes too large.
const BATCH: usize = 32;

const PENDING: u8 = 0;
const BUSY: u8 = 1;
const DONE: u8 = 2;
/// It could not be protected again after an abort: nobody can reach it any more.
const LOST: u8 = 3;

/// The accessible part of a chunk behind the headers.
struct Region {
    chunk: usize,
    chunk_start: u64,
    start: u64,
    end: u64,
    /// Its pointers are of the epoch before the last.
    older: bool,
    state: AtomicU8,
}

/// A pool's puddles as they were when it was opened.
struct Image {
    areas: Vec<Area>,
}

struct Area {
    base: u64,
    /// Headers and pool page: they change while the chunks behind them wait.
    front: Vec<AtomicU64>,
    map: WordMap,
    file: File,
}

impl PoolMemory for Image {
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        self.areas.iter().find_map(|a| {
            let at = usize::try_from(addr.checked_sub(a.base)? / 8).ok()?;
            let end = at.checked_add(count)?;
            match a.front.get(at..end) {
                Some(words) => Some(words),
                None => a.map.words().get(at..end),
            }
        })
    }

    fn before_write(&self, addr: u64, len: u64) -> Result<(), HeapError> {
        Err(HeapError::Refused {
            addr,
            len,
            why: "this is the image that the pool was opened with".into(),
        })
    }

    fn after_write(&self, _addr: u64, _len: u64) {}
}

/// What is left to be rewritten of a pool.
pub(crate) struct Lazy {
    /// By address.
    regions: Vec<Region>,
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

fn front_len(size: u64, root: bool) -> u64 {
    let headers = size / CHUNK_SIZE * CHUNK_HEADER;
    // The pool page follows the root puddle's headers.
    headers + if root { mem::PAGE_SIZE } else { 0 }
}

impl Image {
    fn new(pool: &Inner, puddles: &[Puddle]) -> Result<Self, Error> {
        let root = puddles.first().map(|p| p.mapped.addr);
        let mut areas = Vec::with_capacity(puddles.len());
        for p in puddles {
            let name = || format!("{}: puddle {}", pool.info.name, p.mapped.uuid);
            let file = p
                .file
                .try_clone()
                .map_err(|e| Error::io(name(), "duplicating the descriptor", e))?;
            let map = WordMap::new(&file, WordMode::Private)
                .map_err(|e| Error::io(name(), "mapping the image", e))?;
            let front = front_len(p.mapped.size, root == Some(p.mapped.addr)) as usize / 8;
            let front = map
                .words()
                .get(..front)
                .unwrap_or_default()
                .iter()
                .map(|w| AtomicU64::new(w.load(Ordering::Relaxed)))
                .collect();
            areas.push(Area {
                base: p.mapped.addr,
                front,
                map,
                file,
            });
        }
        Ok(Image { areas })
    }
}

fn damaged(pool: &Inner, why: impl std::fmt::Display) -> Error {
    Error::Puddle {
        pool: pool.info.name.clone(),
        puddle: "root.puddle".into(),
        why: format!("cannot be relocated: {why}; import the pool from an archive"),
    }
}

/// Where pointers of an epoch point, and where the puddles are.
fn translation(
    pool: &Inner,
    mapped: &[Mapped],
    old: impl Fn(&vernal_heap::DirectoryEntry) -> u64,
    directory: &[vernal_heap::DirectoryEntry],
) -> Result<Translation, Error> {
    let mut moves = Vec::new();
    for entry in directory {
        if let Some(m) = mapped.iter().find(|m| m.uuid == entry.uuid) {
            moves.push(Move {
                old: old(entry),
                new: m.addr,
                len: entry.size,
            });
        }
    }
    Translation::new(&moves).map_err(|e| damaged(pool, e))
}

/// Finds out whether the pool or the program has moved since its pointers were written, and arranges for them to be
/// rewritten. The pool is mapped, and nobody uses it yet.
pub(crate) fn prepare(pool: &Arc<Inner>, eager: bool) -> Result<(), Error> {
    let heap_error = |e| pool.heap_error(e);
    let heap = &pool.heap;
    let directory = heap.directory().map_err(heap_error)?;
    let puddles = pool.puddles.lock().unwrap_or_else(|e| e.into_inner());
    let mapped: Vec<Mapped> = puddles.iter().map(|p| p.mapped).collect();
    let moved = directory.iter().any(|e| {
        !mapped
            .iter()
            .any(|m| m.uuid == e.uuid && m.addr == e.current)
    });
    let (address, bound) = heap.epochs().map_err(heap_error)?;
    let rebind = binding::changed(pool)?;
    let mut pending = Vec::new();
    for chunk in 0..heap.chunk_count() {
        let (a, b) = heap.chunk_epochs(chunk).map_err(heap_error)?;
        if a > address || b > bound || (a < address && a.checked_add(1) != Some(address)) {
            return Err(damaged(
                pool,
                format!("chunk {chunk} is of the epoch {a} and the pool of {address}"),
            ));
        }
        if moved || rebind.is_some() || a < address || b < bound {
            pending.push((chunk, a < address));
        }
    }
    if pending.is_empty() {
        return Ok(());
    }
    let image = Heap::open(Arc::new(Image::new(pool, &puddles)?), &mapped).map_err(heap_error)?;
    let plans = Plans::of(heap);
    let mut current = translation(pool, &mapped, |e| e.current, &directory)?;
    let mut previous = translation(pool, &mapped, |e| e.previous, &directory)?;
    let mut epochs = (address, bound);
    drop(puddles);
    if moved {
        let of = |older: bool| if older { &previous } else { &current };
        refuse_untyped(
            pool,
            pending.iter().map(|(chunk, older)| (*chunk, of(*older))),
        )?;
    }
    if !pool.info.read_only {
        if moved {
            finish_older(pool, &pending, &plans, &directory)?;
            for p in &mut pending {
                p.1 = false;
            }
            // The directory holds two generations of addresses and no third.
            epochs.0 = heap.begin_address_epoch().map_err(heap_error)?;
            previous = current.clone();
            for p in &mut pending {
                p.1 = true;
            }
            let now = heap.directory().map_err(heap_error)?;
            current = translation(pool, &mapped, |e| e.current, &now)?;
        }
        if rebind.is_some() {
            epochs.1 = heap.begin_binding_epoch().map_err(heap_error)?;
            binding::record(pool)?;
        }
        // An abort must find the epoch in which the program runs.
        runtime::commit()?;
    }
    let mut regions: Vec<Region> = Vec::with_capacity(pending.len());
    for (chunk, older) in pending {
        let Some((chunk_start, end)) = heap.chunk_range(chunk) else {
            continue;
        };
        let Some(puddle) = mapped
            .iter()
            .find(|m| chunk_start >= m.addr && chunk_start - m.addr < m.size)
        else {
            continue;
        };
        let root = mapped.first().map(|m| m.addr) == Some(puddle.addr);
        let start = chunk_start.max(puddle.addr + front_len(puddle.size, root));
        if start >= end {
            // Nothing but headers, which hold no addresses.
            if !pool.info.read_only {
                heap.set_chunk_epochs(chunk, epochs.0, epochs.1)
                    .map_err(heap_error)?;
            }
            continue;
        }
        regions.push(Region {
            chunk,
            chunk_start,
            start,
            end,
            older,
            state: AtomicU8::new(PENDING),
        });
    }
    regions.sort_by_key(|r| r.start);
    let lazy = Lazy {
        left: AtomicUsize::new(regions.len()),
        regions,
        image: AtomicPtr::new(Box::into_raw(Box::new(image))),
        plans,
        current,
        previous,
        binding: rebind,
        epochs,
        read_only: pool.info.read_only,
    };
    touch::on_touch(on_touch).map_err(|e| Error::io("SIGSEGV", "installing the handler", e))?;
    for r in &lazy.regions {
        // SAFETY: the region lies in a mapped puddle of this pool, which nobody uses yet.
        unsafe { mem::mprotect(r.start, r.end - r.start, libc::PROT_NONE) }
            .map_err(|e| Error::io(&pool.info.name, "protecting a chunk of", e))?;
    }
    let _ = pool.lazy.set(lazy);
    if eager {
        // Not registered yet: `finish` rewrites without touching.
        finish(pool)?;
    }
    Ok(())
}

static ALLOW_UNTYPED: AtomicBool = AtomicBool::new(false);

/// Lets this process open pools at other addresses although memory without type in them holds what looks like pointers.
/// They stay as they are, and a program that follows one crashes, or does worse.
pub fn allow_untyped() {
    ALLOW_UNTYPED.store(true, Ordering::Relaxed);
}

/// A pool with pointers in memory without type must stay where it is. Chunks, and from where their pointers move; nothing has
/// been changed yet.
fn refuse_untyped<'a>(
    pool: &Inner,
    chunks: impl Iterator<Item = (usize, &'a Translation)>,
) -> Result<(), Error> {
    if ALLOW_UNTYPED.load(Ordering::Relaxed) || std::env::var_os("VERNAL_ALLOW_UNTYPED").is_some() {
        return Ok(());
    }
    let mut first = None;
    for (chunk, moves) in chunks {
        let here = |value: u64| {
            let inside = moves.moves().any(|m| value.wrapping_sub(m.old) < m.len);
            inside.then(|| moves.translate(value))
        };
        scan_untyped(&pool.heap, chunk, &here, &mut |found| {
            first = Some(found);
            false
        });
        if first.is_some() {
            break;
        }
    }
    let Some(found) = first else { return Ok(()) };
    Err(Error::Type {
        what: format!(
            "pool {} cannot be opened at another address: the memory at {:#x} has no type, and its word {:#x} is the address of an object, which would \
             have to be rewritten; give it a type (`vn::allocator` instead of `vn::memory_resource`), open the pool in a process in which its own \
             addresses are free, or set VERNAL_ALLOW_UNTYPED=1 if such words are never followed",
            pool.info.name, found.object.addr, found.value
        ),
    })
}

/// Brings chunks that an earlier relocation has left behind to the current epoch, in place, before a new one begins.
fn finish_older(
    pool: &Inner,
    pending: &[(usize, bool)],
    plans: &Plans,
    directory: &[vernal_heap::DirectoryEntry],
) -> Result<(), Error> {
    if !pending.iter().any(|(_, older)| *older) {
        return Ok(());
    }
    let moves: Vec<Move> = directory
        .iter()
        .map(|e| Move {
            old: e.previous,
            new: e.current,
            len: e.size,
        })
        .collect();
    let pointers = Translation::new(&moves).map_err(|e| damaged(pool, e))?;
    let rewrite = Rewrite {
        plans,
        pointers: &pointers,
        binding: None,
    };
    let (address, _) = pool.heap.epochs().map_err(|e| pool.heap_error(e))?;
    for &(chunk, _) in pending.iter().filter(|(_, older)| *older) {
        let Some((start, end)) = pool.heap.chunk_range(chunk) else {
            continue;
        };
        let Some(words) = pool.heap.words(start, ((end - start) / 8) as usize) else {
            continue;
        };
        rewrite
            .chunk(&pool.heap, chunk, words, &mut |line| mark_range(line, 64))
            .map_err(|e| damaged(pool, e))?;
        let (_, bound) = pool
            .heap
            .chunk_epochs(chunk)
            .map_err(|e| pool.heap_error(e))?;
        pool.heap
            .set_chunk_epochs(chunk, address, bound)
            .map_err(|e| pool.heap_error(e))?;
    }
    Ok(())
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
                if !lazy.rewrite(pool, i) {
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
    let at = lazy.regions.partition_point(|r| r.end <= addr);
    match lazy.regions.get(at) {
        Some(r) if addr >= r.start && !(store && lazy.read_only) => lazy.rewrite(pool, at),
        _ => false,
    }
}

impl Lazy {
    pub fn any_pending(&self) -> bool {
        self.left.load(Ordering::Acquire) > 0
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
            r.state.store(DONE, Ordering::SeqCst);
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

    /// Rewrites a region if nobody has; waits for whoever does. Allocates nothing and takes no lock but the gate's, because
    /// it runs in a signal handler. `false`: it is impossible.
    fn rewrite(&self, pool: &Inner, index: usize) -> bool {
        let r = &self.regions[index];
        // First the bracket, which may have to wait for a commit, and then the region: whoever has claimed it never waits.
        vernal_snapshot::op_begin();
        let mut done = true;
        let claimed = loop {
            match r
                .state
                .compare_exchange(PENDING, BUSY, Ordering::SeqCst, Ordering::Acquire)
            {
                Ok(_) => break true,
                Err(state @ (DONE | LOST)) => {
                    done = state == DONE;
                    break false;
                }
                Err(_) => std::thread::yield_now(),
            }
        };
        if claimed {
            done = self.build(pool, r).is_some();
            let state = if done { DONE } else { PENDING };
            r.state.store(state, Ordering::Release);
            if done {
                self.left.fetch_sub(1, Ordering::AcqRel);
            }
        }
        vernal_snapshot::op_end();
        done
    }

    fn build(&self, pool: &Inner, r: &Region) -> Option<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address that the kernel picks.
        let aside = unsafe { mem::mmap(0, CHUNK_SIZE, prot, flags, -1, 0) }.ok()?;
        // SAFETY: aside..aside+CHUNK_SIZE was mapped above, is aligned to a page and known to nobody else.
        let target = unsafe {
            std::slice::from_raw_parts(aside as *const AtomicU64, (CHUNK_SIZE / 8) as usize)
        };
        let built = self.fill(r, target, aside);
        if built.is_none() {
            // SAFETY: mapped above; `target` is not used any more.
            let _ = unsafe { mem::munmap(aside, CHUNK_SIZE) };
            return None;
        }
        let front = r.start - r.chunk_start;
        if front > 0 {
            // SAFETY: the part of the buffer that stands for headers, which stay as they are.
            let _ = unsafe { mem::munmap(aside, front) };
        }
        if !self.read_only {
            pool.heap
                .set_chunk_epochs(r.chunk, self.epochs.0, self.epochs.1)
                .ok()?;
        }
        Some(())
    }

    fn fill(&self, r: &Region, target: &[AtomicU64], aside: u64) -> Option<()> {
        let front = ((r.start - r.chunk_start) / 8) as usize;
        let image = self.image()?;
        let source = image
            .memory()
            .words(r.start, ((r.end - r.start) / 8) as usize)?;
        for (from, to) in source.chunks(512).zip(target.get(front..)?.chunks(512)) {
            // Pages of zeros stay unmade.
            if from.iter().any(|w| w.load(Ordering::Relaxed) != 0) {
                for (from, to) in from.iter().zip(to) {
                    to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
        }
        let rewrite = Rewrite {
            plans: &self.plans,
            pointers: if r.older {
                &self.previous
            } else {
                &self.current
            },
            binding: self.binding.as_ref(),
        };
        // The lines are marked before they are in place; no commit looks at them until the bracket ends.
        let mut mark = |line: u64| {
            if !self.read_only {
                mark_range(line, vernal_abi::LINE_SIZE);
            }
        };
        let report = rewrite.chunk(image, r.chunk, target, &mut mark).ok()?;
        if report.unknown > 0 {
            return None;
        }
        if self.read_only {
            // SAFETY: the buffer is ours; nobody writes to it any more.
            unsafe { mem::mprotect(aside, CHUNK_SIZE, libc::PROT_READ) }.ok()?;
        }
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let len = r.end - r.start;
        // SAFETY: the buffer is ours, and so is the region, which nobody can access until this call replaces it.
        unsafe { mem::mremap(aside + (r.start - r.chunk_start), len, len, flags, r.start) }.ok()?;
        Some(())
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
            let area = self.image().and_then(|image| {
                let mut areas = image.memory().areas.iter();
                areas.find(|a| r.start >= a.base && r.start - a.base < a.map.len())
            });
            let Some(area) = area else {
                r.state.store(DONE, Ordering::SeqCst);
                continue;
            };
            let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
            let offset = (r.start - area.base) as i64;
            let fd = area.file.as_raw_fd();
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
