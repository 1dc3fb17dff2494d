//! Where things lie in a ring segment.
//!
//! ```text
//!   byte 0     header      magic, version | slots, offset and length of the text area
//!   byte 64    statistics  messages sent, messages received, bytes of texts sent   (for tools; written by the owner now and then)
//!   byte 128   directory   how many segments of heaps the owner has published
//!   byte 192   entries     segment, kind: 16 bytes each, MAX_ENTRIES of them
//!   byte 2752  mode        how far the owner trusts the peer                          (for tools)
//!   byte 2816  latency     sum in ns, then the buckets of a histogram: of calls (client), of handlers (server)   (for tools)
//!   byte 4096  ring        the owner's line, then its outgoing slots (vernal-ring's area)
//!   then       texts       plain bytes that do not fit into a slot, page-aligned, to the end of what they need
//! ```

use vernal_abi::segment::SEGMENT_MIN;
use vernal_ring::{Area, MAX_SLOTS};

use crate::Error;
use crate::message::TEXT_MAX;

/// "VNRPCSG1".
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"VNRPCSG1");
/// The version of everything that two sides share: ring segments, greetings, messages.
pub(super) const VERSION: u32 = 2;

/// Words of the header.
pub(super) const HEADER_MAGIC: usize = 0;
pub(super) const HEADER_VERSION_SLOTS: usize = 1;
pub(super) const HEADER_TEXT_OFFSET: usize = 2;
pub(super) const HEADER_TEXT_LEN: usize = 3;
/// First word of the statistics.
pub(super) const STATS: usize = 8;
/// Word of the directory's count.
pub(super) const COUNT: usize = 16;
/// First word of its entries.
pub(super) const ENTRIES: usize = 24;
/// Segments of heaps that one side can publish on one connection.
pub(super) const MAX_ENTRIES: usize = 160;
/// How far the owner of the segment trusts its peer: see `stats`.
pub(super) const MODE: usize = ENTRIES + 2 * MAX_ENTRIES;
/// First word of the histogram of how long calls take.
pub(super) const LATENCY: usize = MODE + 8;
/// First word of the ring.
pub(super) const RING: usize = 512;

const PAGE_WORDS: usize = 512;

/// A ring segment with so many slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    slots: usize,
}

impl Layout {
    pub(super) fn new(slots: u32) -> Result<Layout, Error> {
        let slots = slots as usize;
        if !slots.is_power_of_two() || !(4..=MAX_SLOTS / 4).contains(&slots) {
            return Err(Error::TooLarge {
                what: "the number of slots",
                value: slots as u64,
                limit: MAX_SLOTS as u64 / 4,
                remedy: "use a power of two from 4 on",
            });
        }
        Ok(Layout { slots })
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Words of the line.
    pub(super) fn line(&self) -> std::ops::Range<usize> {
        let line = Area::new(self.slots).line();
        RING + line.start..RING + line.end
    }

    /// Words of the slots.
    pub(super) fn ring(&self) -> std::ops::Range<usize> {
        let slots = Area::new(self.slots).slots();
        RING + slots.start..RING + slots.end
    }

    /// Words of the texts: as much as all slots can need, and two more for what the end of the area leaves unused and for the text
    /// that is being read while its slot is free again.
    pub(super) fn texts(&self) -> std::ops::Range<usize> {
        let start = self.ring().end.next_multiple_of(PAGE_WORDS);
        start..start + (self.slots + 2) * TEXT_MAX / 8
    }

    /// Bytes of the segment.
    pub(super) fn size(&self) -> u64 {
        let need = (self.texts().end as u64 * 8).max(SEGMENT_MIN);
        need.next_power_of_two()
    }
}

const _: () = {
    assert!(LATENCY + crate::latency::WORDS <= RING);
    assert!(MODE * 8 == 2752 && LATENCY * 8 == 2816);
    assert!(TEXT_MAX.is_multiple_of(8));
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_do_not_overlap_and_fit() {
        for shift in 2..=12 {
            let layout = Layout::new(1 << shift).unwrap();
            assert!(layout.line().start >= RING);
            assert!(layout.line().end <= layout.ring().start);
            assert!(layout.ring().end <= layout.texts().start);
            assert!(layout.texts().end as u64 * 8 <= layout.size());
            assert!(vernal_abi::segment::is_segment_size(layout.size()));
        }
        assert_eq!(Layout::new(256).unwrap().size(), SEGMENT_MIN);
        for bad in [0, 1, 2, 3, 255, 1 << 13, u32::MAX] {
            assert!(Layout::new(bad).is_err(), "{bad}");
        }
    }
}
