//! Size classes of slabs, and the slab header.
//!
//! ```text
//!   0  magic     u32  "VSLB" · class u8 · zero u8 · slots u16
//!   8  type      u32  index into the type table · zero u32
//!  16  bitmap    4 x u64     1: the slot holds an object; bits beyond the slots are 0
//!  48  zero      16
//!  64            slots, so that the last one ends with the span
//! ```

use super::PAGE_BYTES;

/// Objects up to this size lie in slabs.
pub const SLAB_MAX: u64 = 2048;
/// Size classes.
pub const CLASS_COUNT: usize = 24;
/// Bytes of a slab header: one line.
const HEADER: u64 = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"VSLB");
const SIZES: [u64; CLASS_COUNT] = [
    16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024,
    1280, 1536, 1792, 2048,
];

/// A size class and the shape of its spans.
#[derive(Debug, Clone, Copy)]
pub struct Class {
    /// Bytes of a slot, a multiple of 16. A slot is aligned to the largest power of two in this number.
    pub size: u64,
    /// log2 of the span's pages.
    pub order: u32,
    /// Slots of a span.
    pub slots: u32,
    /// Offset of the first slot.
    pub first: u64,
    /// The first word of a slab header of this class.
    pub head: u64,
    /// Which bits of the bitmap are slots.
    pub valid: [u64; Class::BITMAP_WORDS],
    reciprocal: u64,
}

impl Class {
    /// Index of the word with the type.
    pub const TYPE_WORD: usize = 1;
    /// Index of the bitmap's first word.
    pub const BITMAP_WORD: usize = 2;
    /// Words of the bitmap.
    pub const BITMAP_WORDS: usize = 4;
    /// Words of the header.
    pub const HEADER_WORDS: usize = 8;

    const fn new(index: usize) -> Class {
        let size = SIZES[index];
        // Larger slots get larger spans, so that the remainder stays small.
        let order = match size {
            0..=256 => 0,
            257..=512 => 1,
            513..=1024 => 2,
            _ => 3,
        };
        let span = PAGE_BYTES << order;
        let slots = (span - HEADER) / size;
        let mut valid = [0; Class::BITMAP_WORDS];
        let mut slot = 0;
        while slot < slots {
            valid[slot as usize / 64] |= 1 << (slot % 64);
            slot += 1;
        }
        Class {
            size,
            order,
            slots: slots as u32,
            // Slots end with the span: a size that is a power of two is then aligned to itself.
            first: span - slots * size,
            head: MAGIC as u64 | (index as u64) << 32 | slots << 48,
            valid,
            reciprocal: (1 << 32) / size + 1,
        }
    }

    /// Bytes of a span.
    #[inline(always)]
    pub const fn span_bytes(&self) -> u64 {
        PAGE_BYTES << self.order
    }

    /// The slot at `offset` in the span, and the offset within the slot; `None` for the header.
    #[inline(always)]
    pub const fn slot_at(&self, offset: u64) -> Option<(u32, u64)> {
        let Some(at) = offset.checked_sub(self.first) else {
            return None;
        };
        // Exact for offsets below 2^15: the reciprocal's error stays below one slot.
        let slot = (at * self.reciprocal) >> 32;
        if slot >= self.slots as u64 {
            return None;
        }
        Some((slot as u32, at - slot * self.size))
    }

    /// Offset of a slot in the span.
    #[inline(always)]
    pub const fn slot_offset(&self, slot: u32) -> u64 {
        self.first + slot as u64 * self.size
    }
}

/// The size classes.
pub static CLASSES: [Class; CLASS_COUNT] = {
    let mut all = [Class::new(0); CLASS_COUNT];
    let mut i = 1;
    while i < CLASS_COUNT {
        all[i] = Class::new(i);
        i += 1;
    }
    all
};

static CLASS_OF: [u8; SLAB_MAX as usize / 16 + 1] = {
    let mut of = [0; SLAB_MAX as usize / 16 + 1];
    let mut class = 0;
    let mut i = 0;
    while i < of.len() {
        if SIZES[class] < i as u64 * 16 {
            class += 1;
        }
        of[i] = class as u8;
        i += 1;
    }
    of
};

/// The smallest class for `size` bytes at a multiple of `align` (a power of two); `None` when that needs pages.
#[inline(always)]
pub fn class_for(size: u64, align: u64) -> Option<usize> {
    if size > SLAB_MAX {
        return None;
    }
    let class = usize::from(*CLASS_OF.get(size.div_ceil(16) as usize)?);
    if align <= 16 {
        return Some(class);
    }
    (class..CLASS_COUNT).find(|c| SIZES.get(*c).is_some_and(|s| s % align == 0))
}

const _: () = {
    let mut i = 0;
    while i < CLASS_COUNT {
        let class = &Class::new(i);
        assert!(class.size.is_multiple_of(16) && (i == 0 || SIZES[i - 1] < class.size));
        assert!(class.first >= HEADER && class.slots as usize <= Class::BITMAP_WORDS * 64);
        assert!(class.first + class.slots as u64 * class.size == class.span_bytes());
        assert!(class.span_bytes() <= 1 << 15);
        i += 1;
    }
    assert!(SIZES[CLASS_COUNT - 1] == SLAB_MAX);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_of_every_class_finds_its_slot() {
        for class in &CLASSES {
            for offset in 0..class.span_bytes() {
                let expected = (offset >= class.first).then(|| {
                    let at = offset - class.first;
                    ((at / class.size) as u32, at % class.size)
                });
                assert_eq!(class.slot_at(offset), expected, "{class:?} {offset}");
            }
            assert_eq!(class.slot_at(class.span_bytes()), None);
        }
    }

    #[test]
    fn the_smallest_class_that_fits_and_is_aligned() {
        for size in 0..=SLAB_MAX {
            for shift in 0..=12 {
                let align = 1u64 << shift;
                let found = class_for(size, align).map(|c| CLASSES[c].size);
                let expected = SIZES
                    .iter()
                    .copied()
                    .find(|s| *s >= size && s % align.max(16) == 0);
                assert_eq!(found, expected, "{size} {align}");
            }
        }
        assert_eq!(class_for(SLAB_MAX + 1, 8), None);
        assert_eq!(class_for(u64::MAX, 8), None);
    }

    #[test]
    fn slots_of_a_power_of_two_are_aligned_to_it() {
        for class in &CLASSES {
            let natural = 1 << class.size.trailing_zeros();
            for slot in 0..class.slots {
                assert_eq!(class.slot_offset(slot) % natural, 0);
            }
        }
    }
}
