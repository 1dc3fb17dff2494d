//! The [`Media`] trait: everything that must survive a crash goes through it.
//!
//! The journal, the metadata and the home images are written by generic code over this trait, so that the simulator of
//! the test suite, which implements it too, sees every store, flush and fence that the real media see.

use std::io;

/// One persistent byte range: a home image, a journal or a metadata file.
///
/// # What a crash leaves
///
/// A medium has a *block*, its [`Media::atom`]: aligned blocks persist whole or not at all, in any order, at any time
/// after they were written, until [`Media::persist`] or [`Media::write_durable`] returns; then they are durable. Nothing
/// else is promised: not the order of two writes, not that a write persists as a whole.
///
/// # Errors
///
/// An error from [`Media::persist`] or [`Media::write_durable`] leaves it unknown what is durable. The caller must stop
/// writing to the medium and say so (a retried flush can report success for data that the kernel has thrown away).
pub trait Media {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether the medium has length 0.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes the length; new bytes read as zeros. Durable after [`Media::persist`].
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// The unit that persists whole: 8 bytes for byte-addressable media, 512 for files.
    fn atom(&self) -> usize;

    /// Offsets and lengths given to [`Media::write_durable`] must be multiples of this many bytes: 64 for byte-addressable
    /// media (a whole line per non-temporal burst), 4096 for files opened with `O_DIRECT`.
    fn write_unit(&self) -> usize;

    /// Reads `buf.len()` bytes at `off`.
    fn read(&self, off: u64, buf: &mut [u8]) -> io::Result<()>;

    /// The first place at or behind `off` that may hold anything but zeros, or the length: what lies between need not be read.
    fn next_data(&self, off: u64) -> io::Result<u64> {
        Ok(off)
    }

    /// Writes `data` at `off`; readers of this medium see it at once, a crash may lose any part of it until
    /// [`Media::persist`].
    fn write(&mut self, off: u64, data: &[u8]) -> io::Result<()>;

    /// Writes one aligned word at `off` (a multiple of 8): the hot path of applying a commit.
    #[inline]
    fn write_word(&mut self, off: u64, word: u64) -> io::Result<()> {
        self.write(off, &word.to_le_bytes())
    }

    /// Writes the words of one line at `off` (a multiple of 64) that `mask` selects; `words` holds only those, lowest
    /// first, in little-endian order.
    #[inline]
    fn write_line(&mut self, off: u64, mask: u8, words: &[u64]) -> io::Result<()> {
        let mut rest = mask;
        for word in words {
            self.write_word(
                off + u64::from(rest.trailing_zeros()) * 8,
                u64::from_le(*word),
            )?;
            rest &= rest.wrapping_sub(1);
        }
        Ok(())
    }

    /// Writes a whole line at `off` (a multiple of 64); `words` are in little-endian order.
    #[inline]
    fn write_whole_line(&mut self, off: u64, words: &[u64; 8]) -> io::Result<()> {
        self.write_line(off, u8::MAX, words)
    }

    /// Writes whole lines, one behind the other, from `off` (a multiple of 64) on; `words` are in little-endian order, eight
    /// for each line.
    #[inline]
    fn write_lines(&mut self, off: u64, words: &[u64]) -> io::Result<()> {
        for (off, line) in (off..).step_by(64).zip(words.as_chunks().0) {
            self.write_whole_line(off, line)?;
        }
        Ok(())
    }

    /// A hint that [`Media::persist`] will be called before long: where writing takes time, it may start now. Promises
    /// nothing.
    fn start_persist(&mut self) {}

    /// Makes every earlier write durable, with one flush or fence.
    fn persist(&mut self) -> io::Result<()>;

    /// Writes `data` at `off` and makes it durable with one flush or fence: the commit point.
    fn write_durable(&mut self, off: u64, data: &[u8]) -> io::Result<()>;

    /// Flushes and fences issued so far, for tests and statistics.
    fn flushes(&self) -> u64;
}
