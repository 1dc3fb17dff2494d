//! Which address a span of an image has.
//!
//! Spans follow each other in pages. None crosses a boundary of the regions 0..2 MiB, 2..4 MiB, 4..8 MiB, …: each region is what
//! a puddle is in a heap, and an examiner that has seen a region once need not learn it again for the next image.

use vernal_abi::puddle::PUDDLE_MIN;
use vernal_format::puddle::PAGE_BYTES;

/// Address of the first byte of an image. Nothing is ever mapped there.
pub const IMAGE_BASE: u64 = 1 << 46;
/// Bytes of addresses that an image may have.
const LIMIT: u64 = 1 << 38;

/// First byte and end of the region with this byte.
pub(super) fn region(offset: u64) -> (u64, u64) {
    if offset < PUDDLE_MIN {
        return (0, PUDDLE_MIN);
    }
    let start = 1 << offset.ilog2();
    (start, start * 2)
}

/// Gives addresses to spans, one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    next: u64,
}

impl Cursor {
    /// The offset of the next span, which has so many bytes. `None`: the image would be too large.
    pub fn take(&mut self, bytes: u64) -> Option<u64> {
        let bytes = bytes.checked_next_multiple_of(PAGE_BYTES)?;
        let mut at = self.next;
        if at.checked_add(bytes)? > region(at).1 {
            at = region(at).1.max(bytes.checked_next_power_of_two()?);
        }
        let end = at.checked_add(bytes)?;
        if end > LIMIT {
            return None;
        }
        self.next = end;
        Some(at)
    }

    /// Where the addresses end.
    pub fn end(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_span_crosses_a_region() {
        let mut cursor = Cursor::default();
        let mut before = 0;
        for bytes in [
            1,
            4096,
            4097,
            1 << 20,
            1 << 20,
            3 << 20,
            1,
            100 << 20,
            8,
            1 << 32,
            8,
        ] {
            let at = cursor.take(bytes).expect("room");
            assert!(at >= before && at.is_multiple_of(PAGE_BYTES));
            let (start, end) = region(at);
            assert!(start <= at && at + bytes <= end, "{bytes} bytes at {at:#x}");
            assert!((end - start).is_multiple_of(PUDDLE_MIN));
            before = at + bytes;
        }
        for bytes in [u64::MAX, u64::MAX - 4096, 1 << 63, (1 << 38) + 1] {
            assert_eq!(cursor.take(bytes), None);
        }
    }
}
