//! Opening a pool: whether it or the program has moved since its pointers were written, and what has to be rewritten then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use vernal_heap::walk::{Move, Plans, Rewrite, Translate, Translation, scan_untyped};
use vernal_heap::{Heap, Mapped, ObjectSpace};
use vernal_snapshot::runtime;
use vernal_snapshot::thread::mark_range;
use vernal_sys::{mem, touch};

use super::chunk::ChangedPages;
use super::image::{Image, front_len};
use super::{BATCH, Lazy, PENDING, Region, WAITING, damaged, deferred, finish, on_touch};
use crate::pool::Inner;
use crate::{Error, binding};

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
            part: AtomicU64::new(0),
            changed: ChangedPages::default(),
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
        partly: AtomicUsize::new(0),
    };
    WAITING.fetch_add(1, Ordering::SeqCst);
    touch::on_touch(on_touch).map_err(|e| Error::io("SIGSEGV", "installing the handler", e))?;
    // Chunks that follow each other with one call: large puddles have thousands.
    let mut rest = lazy.regions.as_slice();
    while let Some(first) = rest.first() {
        let mut end = first.end;
        let adjacent = rest.iter().skip(1).take_while(|r| {
            let follows = r.start == end;
            if follows {
                end = r.end;
            }
            follows
        });
        let count = 1 + adjacent.count();
        // SAFETY: the regions lie in mapped puddles of this pool, which nobody uses yet.
        unsafe { mem::mprotect(first.start, end - first.start, libc::PROT_NONE) }
            .map_err(|e| Error::io(&pool.info.name, "protecting chunks of", e))?;
        rest = rest.get(count..).unwrap_or_default();
    }
    let _ = pool.lazy.set(lazy);
    deferred::begin(pool);
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
    let older = pending.iter().filter(|(_, older)| *older);
    for (n, &(chunk, _)) in older.enumerate() {
        if n > 0 && n % BATCH == 0 {
            // A chunk's words and its epoch are in one commit: a crash after it goes on from there.
            runtime::commit()?;
        }
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
