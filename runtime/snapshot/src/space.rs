//! The tracked range: its reservation, which chunks of it are mapped, and where a new file or puddle goes.

use crate::error::Error;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use vernal_abi as abi;
use vernal_sys::mem::{self, Obstacle, ReserveError};

/// Home addresses of files are multiples of this; those of puddles of [`CHUNK`].
pub const SLOT_GRANULE: u64 = 1 << 30;
/// The least address space kept for a file, so that it can grow in place.
const SLOT_MIN: u64 = 4 << 30;
/// Slots are multiples of this.
pub const CHUNK: u64 = abi::puddle::CHUNK_SIZE;
const CHUNKS: usize = (abi::TRACKED_SIZE / CHUNK) as usize;

// Whether a file is mapped there, for each chunk of the tracked range. Read without a lock by the mark hooks; a chunk is
// claimed with one exchange, so two threads can claim slots at the same time.
static MAPPED: [AtomicU8; CHUNKS] = [const { AtomicU8::new(FREE) }; CHUNKS];
const FREE: u8 = 0;
/// Claimed, but its shadow is not accessible (yet, or any more).
const CLAIMED: u8 = 1;
const IN_USE: u8 = 2;

#[inline]
fn chunk_of(addr: u64) -> usize {
    ((addr - abi::TRACKED_BASE) / CHUNK) as usize
}

fn chunks_of(base: u64, end: u64) -> &'static [AtomicU8] {
    let first = chunk_of(base);
    MAPPED
        .get(first..first + ((end - base) / CHUNK) as usize)
        .unwrap_or_default()
}

/// Calls `f` with each part of `[lo, hi)` that lies in a mapped slot.
#[inline]
pub fn for_each_mapped(lo: u64, hi: u64, mut f: impl FnMut(u64, u64)) {
    let (mut lo, hi) = (lo.max(abi::TRACKED_BASE), hi.min(abi::TRACKED_END));
    while lo < hi {
        let end = hi.min((lo & !(CHUNK - 1)) + CHUNK);
        if MAPPED[chunk_of(lo)].load(Ordering::Acquire) == IN_USE {
            f(lo, end);
        }
        lo = end;
    }
}

/// Whether a file is mapped at `addr`.
pub fn is_mapped(addr: u64) -> bool {
    abi::is_tracked(addr) && MAPPED[chunk_of(addr)].load(Ordering::Acquire) == IN_USE
}

/// Claims the chunks of `[base, end)`, all or none; the error is the address of one that is in use.
fn insert(base: u64, end: u64) -> Result<(), u64> {
    let chunks = chunks_of(base, end);
    for (i, chunk) in chunks.iter().enumerate() {
        let claimed = chunk.compare_exchange(FREE, CLAIMED, Ordering::AcqRel, Ordering::Relaxed);
        if claimed.is_err() {
            for mine in &chunks[..i] {
                mine.store(FREE, Ordering::Release);
            }
            return Err(base + i as u64 * CHUNK);
        }
    }
    Ok(())
}

fn set(base: u64, end: u64, state: u8) {
    for chunk in chunks_of(base, end) {
        chunk.store(state, Ordering::Release);
    }
}

/// Whether no file of this process is mapped in `[base, base + size)`, which lies in the tracked range.
pub fn is_free(base: u64, size: u64) -> bool {
    let end = base.checked_add(size);
    end.is_some_and(|end| {
        base >= abi::TRACKED_BASE
            && end <= abi::TRACKED_END
            && base.is_multiple_of(CHUNK)
            && chunks_of(base, end)
                .iter()
                .all(|c| c.load(Ordering::Acquire) == FREE)
    })
}

/// Picks a home address for a new puddle in `[lo, hi)` of the tracked range: a random free place.
pub fn pick_puddle(size: u64, lo: u64, hi: u64, random: u64) -> Option<u64> {
    let places = (hi.checked_sub(lo)?.checked_sub(size)?) / CHUNK + 1;
    let first = random % places;
    (0..places)
        .map(|i| lo + (first + i) % places * CHUNK)
        .find(|&base| {
            chunks_of(base, base + size)
                .iter()
                .all(|c| c.load(Ordering::Acquire) == FREE)
        })
}

/// Why the ranges could not be reserved; kept, because every later attempt fails alike.
#[derive(Debug)]
struct Refused {
    start: u64,
    end: u64,
    by: Option<Obstacle>,
    errno: i32,
}

fn reserve_all() -> Result<(), Refused> {
    for (start, len) in [
        (abi::SHADOW_BASE, abi::SHADOW_SIZE),
        (abi::TRACKED_BASE, abi::TRACKED_SIZE),
        (abi::HOME_BASE, abi::TRACKED_SIZE),
    ] {
        mem::reserve(start, len).map_err(|e| match e {
            ReserveError::Taken(o) => Refused {
                start,
                end: start + len,
                by: Some(o),
                errno: 0,
            },
            ReserveError::Os(e) => Refused {
                start,
                end: start + len,
                by: None,
                errno: e.raw_os_error().unwrap_or(0),
            },
        })?;
    }
    Ok(())
}

/// Reserves the shadow, the tracked range and the home view, once per process.
pub fn reserve() -> Result<(), Error> {
    static DONE: OnceLock<Result<(), Refused>> = OnceLock::new();
    match DONE.get_or_init(reserve_all) {
        Ok(()) => Ok(()),
        Err(Refused {
            start,
            end,
            by: Some(by),
            ..
        }) => Err(Error::AddressTaken {
            what: "the address range that Vernal keeps for mapped files".into(),
            start: *start,
            end: *end,
            by: by.to_string(),
        }),
        Err(Refused {
            start,
            end,
            by: None,
            errno,
        }) => Err(Error::Reserve {
            start: *start,
            end: *end,
            source: std::io::Error::from_raw_os_error(*errno),
        }),
    }
}

/// Address space for a file of `len` bytes: four times its size, so that it can grow in place.
pub fn slot_len_for(len: u64) -> Option<u64> {
    let want = len.checked_mul(4)?.max(SLOT_MIN);
    let want = want.checked_next_multiple_of(SLOT_GRANULE)?;
    if want <= abi::TRACKED_SIZE / 2 {
        return Some(want);
    }
    let least = len.checked_next_multiple_of(SLOT_GRANULE)?;
    (least <= abi::TRACKED_SIZE).then_some(least)
}

/// Picks a home address for a new file: a random free slot, so that files made by different processes seldom want the
/// same one.
pub fn pick(slot: u64, random: u64) -> Option<u64> {
    let granules = (abi::TRACKED_SIZE - slot) / SLOT_GRANULE + 1;
    let first = random % granules;
    (0..granules)
        .map(|i| abi::TRACKED_BASE + (first + i) % granules * SLOT_GRANULE)
        .find(|&base| {
            let mut free = true;
            for_each_mapped(base, base + slot, |_, _| free = false);
            free
        })
}

/// A slot of the tracked range that is in use by one mapped file; dropping it gives the slot back.
#[derive(Debug)]
pub struct Slot {
    /// First address.
    pub base: u64,
    /// Bytes of address space.
    pub len: u64,
}

impl Slot {
    /// Claims `[base, base + len)` and makes its shadow accessible.
    pub fn claim(base: u64, len: u64, path: &str) -> Result<Self, Error> {
        reserve()?;
        let end = base
            .checked_add(len)
            .filter(|&e| base >= abi::TRACKED_BASE && e <= abi::TRACKED_END);
        let Some(end) =
            end.filter(|_| base.is_multiple_of(CHUNK) && len.is_multiple_of(CHUNK) && len > 0)
        else {
            return Err(Error::BadHome {
                path: path.into(),
                base,
                len,
            });
        };
        if let Err(at) = insert(base, end) {
            return Err(Error::AddressTaken {
                what: format!("the home address of {path}"),
                start: base,
                end,
                by: format!("the file or puddle at {at:#x}, which this process has mapped"),
            });
        }
        let (shadow, shadow_len) = (abi::shadow_addr(base), len / abi::LINE_SIZE);
        // SAFETY: the shadow is our reservation, and no other slot uses this part of it.
        let opened =
            unsafe { mem::mprotect(shadow, shadow_len, libc::PROT_READ | libc::PROT_WRITE) };
        if let Err(source) = opened {
            set(base, end, FREE);
            return Err(Error::Reserve {
                start: shadow,
                end: shadow + shadow_len,
                source,
            });
        }
        set(base, end, IN_USE);
        Ok(Self { base, len })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        let end = self.base + self.len;
        set(self.base, end, CLAIMED);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        for (at, len) in [
            (self.base, self.len),
            (abi::shadow_addr(self.base), self.len / abi::LINE_SIZE),
        ] {
            // SAFETY: puts our own reservation back; the slot is ours and nothing is mapped in it any more. A stray
            // store to it faults from now on, as after any munmap.
            let _ = unsafe { mem::mmap(at, len, libc::PROT_NONE, flags, -1, 0) };
        }
        // Last: from here on another thread may claim the place.
        set(self.base, end, FREE);
    }
}
