//! Page descriptors: 4 bytes for each page, in the header of the page's chunk.
//!
//! ```text
//!   31           12 11          3 2    0
//!  +---------------+-------------+------+
//!  |       0       |      0      | NONE |  inside a block, or a page of headers
//!  |       0       | 0    order  | FREE |  first page of 2^order free pages
//!  |  type index   | hint  class | SLAB |  first page of a span; hint (bit 8): it may have free slots
//!  |  type index   |   unused    | PAGE |  an object of one page
//!  |  type index   |   unused    | RUN  |  first page of a larger object
//!  |        page count           | EXT  |  its second page
//!  |       0       |      0      | POOL |  the pool page
//!  +---------------+-------------+------+
//! ```
//!
//! *unused*: words of 8 bytes at the end of the object's last page that it does not use.

const NONE: u32 = 0;
const FREE: u32 = 1;
const SLAB: u32 = 2;
const PAGE: u32 = 3;
const RUN: u32 = 4;
const EXT: u32 = 5;
const POOL: u32 = 6;

const KIND_MASK: u32 = 7;
const HINT: u32 = 1 << 8;
const TYPE_SHIFT: u32 = 12;

/// Type indices are at most this.
pub const MAX_TYPE_INDEX: u32 = (1 << 20) - 1;
/// Pages of an object are at most this.
pub const RUN_PAGES_MAX: u64 = (1 << 29) - 1;

use super::CLASS_COUNT;

/// What a page is the beginning of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageDesc {
    /// Nothing begins here.
    None,
    /// A free block.
    Free {
        /// log2 of its pages.
        order: u32,
    },
    /// A span of slots.
    Slab {
        /// Its size class.
        class: usize,
        /// Whether it may have free slots.
        hint: bool,
        /// Type of its objects.
        type_index: u32,
    },
    /// An object of one page.
    Page {
        /// Words at its end that are not used.
        unused: u64,
        /// Its type.
        type_index: u32,
    },
    /// An object of several pages; their number is in the next page's descriptor.
    Run {
        /// Words at the end of the last page that are not used.
        unused: u64,
        /// Its type.
        type_index: u32,
    },
    /// The second page of an object of several pages.
    Ext {
        /// Pages of the object.
        pages: u64,
    },
    /// The pool page.
    Pool,
}

impl PageDesc {
    /// The descriptor's bits. Values that do not fit are cut: the caller has checked them.
    pub const fn encode(&self) -> u32 {
        match *self {
            PageDesc::None => NONE,
            PageDesc::Free { order } => FREE | (order & 31) << 3,
            PageDesc::Slab {
                class,
                hint,
                type_index,
            } => {
                let hint = if hint { HINT } else { 0 };
                SLAB | (class as u32 & 31) << 3 | hint | type_index << TYPE_SHIFT
            }
            PageDesc::Page { unused, type_index } => {
                PAGE | (unused as u32 & 511) << 3 | type_index << TYPE_SHIFT
            }
            PageDesc::Run { unused, type_index } => {
                RUN | (unused as u32 & 511) << 3 | type_index << TYPE_SHIFT
            }
            PageDesc::Ext { pages } => EXT | (pages as u32) << 3,
            PageDesc::Pool => POOL,
        }
    }

    /// Class, hint and type of a span's descriptor; `None`: the bits are something else. Cheaper than to decode all.
    #[inline(always)]
    pub const fn slab(bits: u32) -> Option<(usize, bool, u32)> {
        const ZERO: u32 = ((1 << TYPE_SHIFT) - 1) & !(KIND_MASK | 31 << 3 | HINT);
        if bits & (KIND_MASK | ZERO) != SLAB {
            return None;
        }
        Some((
            (bits >> 3 & 31) as usize,
            bits & HINT != 0,
            bits >> TYPE_SHIFT,
        ))
    }

    /// Whether the bits may describe objects of type 0, memory without type. Cheaper than to decode all; bits that describe
    /// nothing may count, too.
    #[inline(always)]
    pub const fn may_be_untyped(bits: u32) -> bool {
        bits >> TYPE_SHIFT == 0 && matches!(bits & KIND_MASK, SLAB | PAGE | RUN)
    }

    /// What the bits mean; `None` when nothing that this module writes has them.
    #[inline(always)]
    pub const fn decode(bits: u32) -> Option<PageDesc> {
        let type_index = bits >> TYPE_SHIFT;
        let unused = (bits >> 3 & 511) as u64;
        let desc = match bits & KIND_MASK {
            NONE => PageDesc::None,
            FREE => PageDesc::Free {
                order: bits >> 3 & 31,
            },
            SLAB => PageDesc::Slab {
                class: (bits >> 3 & 31) as usize,
                hint: bits & HINT != 0,
                type_index,
            },
            PAGE => PageDesc::Page { unused, type_index },
            RUN => PageDesc::Run { unused, type_index },
            EXT => PageDesc::Ext {
                pages: (bits >> 3) as u64,
            },
            POOL => PageDesc::Pool,
            _ => return None,
        };
        if let PageDesc::Slab { class, .. } = desc
            && class >= CLASS_COUNT
        {
            return None;
        }
        // Encoding again finds every stray bit.
        if desc.encode() == bits {
            Some(desc)
        } else {
            None
        }
    }
}

const _: () = {
    assert!(CLASS_COUNT <= 32);
    assert!(MAX_TYPE_INDEX as u64 == u32::MAX as u64 >> TYPE_SHIFT);
    assert!(RUN_PAGES_MAX == u32::MAX as u64 >> 3);
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_and_meaning_agree(bits: u32) {
            let decoded = PageDesc::decode(bits);
            if let Some(desc) = decoded {
                prop_assert_eq!(desc.encode(), bits);
            }
            let slab = PageDesc::slab(bits).filter(|(class, ..)| *class < CLASS_COUNT);
            let slab = slab.map(|(class, hint, type_index)| PageDesc::Slab { class, hint, type_index });
            prop_assert_eq!(slab, decoded.filter(|d| matches!(d, PageDesc::Slab { .. })));
        }

        #[test]
        fn a_descriptor_survives(type_index in 0..=MAX_TYPE_INDEX, unused in 0u64..512, class in 0..CLASS_COUNT,
                                 hint: bool, pages in 2..=RUN_PAGES_MAX, order in 0u32..27) {
            for desc in [
                PageDesc::None,
                PageDesc::Pool,
                PageDesc::Free { order },
                PageDesc::Slab { class, hint, type_index },
                PageDesc::Page { unused, type_index },
                PageDesc::Run { unused, type_index },
                PageDesc::Ext { pages },
            ] {
                prop_assert_eq!(PageDesc::decode(desc.encode()), Some(desc));
            }
        }
    }
}
