//! What commits know of one mapped file.

use vernal_abi as abi;
use vernal_sys::RESERVE_CHUNK;
use vernal_sys::mem::LazyBytes;

/// What a commit needs to know of one mapped file.
#[derive(Debug)]
pub struct Extent {
    /// Home address.
    pub base: u64,
    /// Bytes of the file that take part in commits (its length as the program sees it).
    pub len: u64,
    /// The file is a member of the journal.
    pub member: bool,
    /// Per line, four bytes: its place on the recheck list, counted from 1; 0: it has none.
    places: LazyBytes,
    /// Per [`RESERVE_CHUNK`]: whether the home image is known to have blocks there.
    pub(crate) reserved: LazyBytes,
}

impl Extent {
    /// An extent for a slot of `slot` bytes.
    pub fn new(base: u64, len: u64, slot: u64) -> std::io::Result<Self> {
        Ok(Self {
            base,
            len,
            member: false,
            places: LazyBytes::new(slot / abi::LINE_SIZE * 4)?,
            reserved: LazyBytes::new(slot / RESERVE_CHUNK)?,
        })
    }

    #[inline]
    pub(crate) fn holds(&self, addr: u64) -> bool {
        addr >= self.base && addr - self.base < self.len
    }

    fn place_at(&self, line: u64) -> std::ops::Range<usize> {
        let at = ((line - self.base) / abi::LINE_SIZE * 4) as usize;
        at..at + 4
    }

    /// The place of a line of this file on the recheck list.
    #[inline]
    pub(crate) fn place(&self, line: u64) -> Option<usize> {
        let bytes = self.places.get().get(self.place_at(line))?;
        let n = u32::from_le_bytes(bytes.try_into().ok()?);
        (n as usize).checked_sub(1)
    }

    #[inline]
    pub(crate) fn set_place(&mut self, line: u64, place: Option<usize>) {
        let at = self.place_at(line);
        let n = place.map_or(0, |p| p as u32 + 1);
        self.places.get_mut()[at].copy_from_slice(&n.to_le_bytes());
    }
}
