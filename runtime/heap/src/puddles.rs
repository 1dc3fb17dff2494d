//! Where the puddles are mapped, and who owns which span: what every thread reads without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use vernal_abi::puddle::MAX_PUDDLES;
use vernal_format::puddle::{Extent, Place};

const SHIFT_MASK: u64 = 63;

/// The puddles by slot of the directory. A slot serves puddles of one size as long as the heap is open, so that what it
/// holds can be read without a lock.
#[derive(Debug)]
pub(crate) struct Puddles {
    /// Address | log2 of the size; 0: no puddle.
    spots: [AtomicU64; MAX_PUDDLES],
    /// One more than the last slot in use.
    top: AtomicUsize,
    states: Box<[OnceLock<State>]>,
}

#[derive(Debug)]
struct State {
    size: u64,
    /// One bit for each page: a thread cache allocates from the span that begins there.
    owned: Box<[AtomicU64]>,
    /// For each chunk the generation of the last abort that changed its header.
    restored: Box<[AtomicU64]>,
}

fn zeros(count: u64) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

impl Puddles {
    pub fn new() -> Puddles {
        Puddles {
            spots: std::array::from_fn(|_| AtomicU64::new(0)),
            top: AtomicUsize::new(0),
            states: (0..MAX_PUDDLES).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Whether a puddle of this size can be put into the slot.
    pub fn fits(&self, slot: usize, size: u64) -> bool {
        self.states
            .get(slot)
            .is_some_and(|s| s.get().is_none_or(|s| s.size == size))
    }

    /// Puts a puddle into a slot that it fits.
    pub fn set(&self, slot: usize, ext: Extent) {
        if let (Some(state), Some(spot)) = (self.states.get(slot), self.spots.get(slot)) {
            state.get_or_init(|| State {
                size: ext.size(),
                owned: zeros(ext.pages() / 64),
                restored: zeros(ext.chunks()),
            });
            spot.store(ext.base | u64::from(ext.shift), SeqCst);
            self.top.fetch_max(slot + 1, SeqCst);
        }
    }

    /// Empties a slot.
    pub fn clear(&self, slot: usize) {
        if let Some(spot) = self.spots.get(slot) {
            spot.store(0, SeqCst);
        }
    }

    /// The puddle in a slot.
    pub fn get(&self, slot: usize) -> Option<Extent> {
        match self.spots.get(slot)?.load(Relaxed) {
            0 => None,
            spot => Some(Extent {
                base: spot & !SHIFT_MASK,
                shift: (spot & SHIFT_MASK) as u32,
            }),
        }
    }

    /// All puddles by slot.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Extent)> {
        let top = self.top.load(Relaxed);
        (0..top).filter_map(|slot| Some((slot, self.get(slot)?)))
    }

    /// The puddle that holds `addr`.
    #[inline]
    pub fn locate(&self, addr: u64) -> Option<(usize, Extent)> {
        let top = self.top.load(Relaxed);
        // A pool grows by puddles as large as all before, so the last ones hold most objects.
        let spots = self.spots.get(..top)?;
        for (slot, spot) in spots.iter().enumerate().rev() {
            let spot = spot.load(Relaxed);
            let ext = Extent {
                base: spot & !SHIFT_MASK,
                shift: (spot & SHIFT_MASK) as u32,
            };
            // An empty slot is one byte at address 0.
            if ext.contains(addr) && spot != 0 {
                return Some((slot, ext));
            }
        }
        None
    }

    /// The address of a place; `None` when it is none, lies outside its puddle, or where no object begins.
    pub fn address(&self, place: Place) -> Option<u64> {
        let ext = self.get(place.slot())?;
        let fits = place.offset() < ext.size() && place.offset().is_multiple_of(16);
        (!place.is_none() && fits).then(|| ext.base + place.offset())
    }

    /// The place of an address.
    pub fn place(&self, addr: u64) -> Option<Place> {
        let (slot, ext) = self.locate(addr)?;
        Some(Place::new(slot, addr - ext.base))
    }

    fn owned_word(&self, slot: usize, page: u64) -> Option<(&AtomicU64, u64)> {
        let state = self.states.get(slot)?.get()?;
        let word = state.owned.get(usize::try_from(page / 64).ok()?)?;
        Some((word, 1 << (page % 64)))
    }

    /// Whether a thread cache allocates from the span at `page`.
    #[inline]
    pub fn is_owned(&self, slot: usize, page: u64) -> bool {
        self.owned_word(slot, page)
            .is_some_and(|(word, bit)| word.load(SeqCst) & bit != 0)
    }

    /// Says so, or that none does any more.
    pub fn set_owned(&self, slot: usize, page: u64, owned: bool) {
        if let Some((word, bit)) = self.owned_word(slot, page) {
            if owned {
                word.fetch_or(bit, SeqCst);
            } else {
                word.fetch_and(!bit, SeqCst);
            }
        }
    }

    /// The generation of the last abort that changed the chunk's header.
    pub fn restored(&self, slot: usize, chunk: u64) -> u64 {
        self.restored_word(slot, chunk)
            .map_or(0, |w| w.load(SeqCst))
    }

    fn restored_word(&self, slot: usize, chunk: u64) -> Option<&AtomicU64> {
        let state = self.states.get(slot)?.get()?;
        state.restored.get(usize::try_from(chunk).ok()?)
    }

    /// The chunk's header was changed by an abort: no span in it is owned any more.
    pub fn set_restored(&self, slot: usize, chunk: u64, generation: u64) {
        if let Some(word) = self.restored_word(slot, chunk) {
            word.store(generation, SeqCst);
        }
        for page in (chunk * 512..(chunk + 1) * 512).step_by(64) {
            if let Some((word, _)) = self.owned_word(slot, page) {
                word.store(0, SeqCst);
            }
        }
    }
}
