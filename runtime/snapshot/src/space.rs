//! The tracked range: its reservation, which slots of it are mapped, and where a new file goes.

use crate::error::Error;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use vernal_abi as abi;
use vernal_sys::mem::{self, Obstacle, ReserveError};

/// Files that one process can have mapped at a time.
pub const MAX_MAPPED: usize = 64;
/// Home addresses are multiples of this.
pub const SLOT_GRANULE: u64 = 1 << 30;
/// The least address space kept for a file, so that it can grow in place.
const SLOT_MIN: u64 = 4 << 30;

struct Entry {
    base: AtomicU64,
    end: AtomicU64,
}

// Read without a lock by the mark hooks. An entry is valid while base < end; `insert` writes `end` last and `remove`
// clears it first.
static MAPPED: [Entry; MAX_MAPPED] = [const {
    Entry {
        base: AtomicU64::new(0),
        end: AtomicU64::new(0),
    }
}; MAX_MAPPED];

/// Entries that have ever been in use.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Calls `f` with each part of `[lo, hi)` that lies in a mapped slot.
#[inline]
pub fn for_each_mapped(lo: u64, hi: u64, mut f: impl FnMut(u64, u64)) {
    for e in MAPPED.iter().take(USED.load(Ordering::Acquire)) {
        let end = e.end.load(Ordering::Acquire);
        let base = e.base.load(Ordering::Relaxed);
        let (a, b) = (lo.max(base), hi.min(end));
        if a < b {
            f(a, b);
        }
    }
}

/// Whether a file is mapped at `addr`.
pub fn is_mapped(addr: u64) -> bool {
    let mut hit = false;
    for_each_mapped(addr, addr + 1, |_, _| hit = true);
    hit
}

fn insert(base: u64, end: u64) -> bool {
    for (i, e) in MAPPED.iter().enumerate() {
        if e.end.load(Ordering::Relaxed) == 0 {
            e.base.store(base, Ordering::Relaxed);
            e.end.store(end, Ordering::Release);
            USED.fetch_max(i + 1, Ordering::AcqRel);
            return true;
        }
    }
    false
}

fn remove(base: u64) {
    for e in &MAPPED {
        if e.end.load(Ordering::Relaxed) != 0 && e.base.load(Ordering::Relaxed) == base {
            e.end.store(0, Ordering::Release);
        }
    }
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
        let Some(end) = end.filter(|_| {
            base.is_multiple_of(SLOT_GRANULE) && len.is_multiple_of(SLOT_GRANULE) && len > 0
        }) else {
            return Err(Error::BadHome {
                path: path.into(),
                base,
                len,
            });
        };
        let mut by = None;
        for_each_mapped(base, end, |lo, hi| by = Some((lo, hi)));
        if let Some((lo, hi)) = by {
            return Err(Error::AddressTaken {
                what: format!("the home address of {path}"),
                start: base,
                end,
                by: format!("{lo:#x}-{hi:#x}, a file that this process has mapped"),
            });
        }
        let (shadow, shadow_len) = (abi::shadow_addr(base), len / abi::LINE_SIZE);
        // SAFETY: the shadow is our reservation, and no mapped file uses this part of it.
        unsafe { mem::mprotect(shadow, shadow_len, libc::PROT_READ | libc::PROT_WRITE) }.map_err(
            |source| Error::Reserve {
                start: shadow,
                end: shadow + shadow_len,
                source,
            },
        )?;
        if !insert(base, end) {
            return Err(Error::TooManyFiles {
                path: path.into(),
                max: MAX_MAPPED,
            });
        }
        Ok(Self { base, len })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        remove(self.base);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        for (at, len) in [
            (self.base, self.len),
            (abi::shadow_addr(self.base), self.len / abi::LINE_SIZE),
        ] {
            // SAFETY: puts our own reservation back; the slot is ours and nothing is mapped in it any more. A stray
            // store to it faults from now on, as after any munmap.
            let _ = unsafe { mem::mmap(at, len, libc::PROT_NONE, flags, -1, 0) };
        }
    }
}
