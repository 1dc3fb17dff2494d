//! Byte-addressable media: a journal written with non-temporal stores, and the home view.

use crate::cpu;
use crate::file::reserve_space;
use crate::media::Media;
use crate::mem::{self, PAGE_SIZE};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

const LINE: u64 = 64;

/// What backs a file, and so how its bytes become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Stores reach the medium itself: DAX (mapped with `MAP_SYNC`), or memory that stands in for it (tmpfs).
    ByteAddressable,
    /// Pages reach the device when the kernel writes them back: ext4, xfs, btrfs, …
    Blocks,
}

const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6u32 as i64;
const MAP_SYNC: i32 = 0x8_0000;

/// Finds out what backs `file`.
pub fn probe_backing(file: &File) -> io::Result<Backing> {
    // SAFETY: statfs is plain data, all zeros is a valid value.
    let mut fs: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `fs` is writable.
    if unsafe { libc::fstatfs(file.as_raw_fd(), &mut fs) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if matches!(fs.f_type as i64 & 0xffff_ffff, TMPFS_MAGIC)
        || fs.f_type as i64 & 0xffff_ffff == RAMFS_MAGIC & 0xffff_ffff
    {
        return Ok(Backing::ByteAddressable);
    }
    let flags = libc::MAP_SHARED_VALIDATE | MAP_SYNC;
    // SAFETY: a fresh mapping at an address that the kernel picks; only DAX files accept MAP_SYNC (mmap(2)).
    match unsafe { mem::mmap(0, PAGE_SIZE, libc::PROT_READ, flags, file.as_raw_fd(), 0) } {
        Ok(at) => {
            // SAFETY: the mapping was made above and is not used.
            unsafe { mem::munmap(at, PAGE_SIZE) }?;
            Ok(Backing::ByteAddressable)
        }
        Err(_) => Ok(Backing::Blocks),
    }
}

fn map_flags(backing: Backing, file: &File) -> i32 {
    match backing {
        Backing::ByteAddressable if is_dax(file) => libc::MAP_SHARED_VALIDATE | MAP_SYNC,
        _ => libc::MAP_SHARED,
    }
}

fn is_dax(file: &File) -> bool {
    // SAFETY: as in probe_backing.
    match unsafe {
        mem::mmap(
            0,
            PAGE_SIZE,
            libc::PROT_READ,
            libc::MAP_SHARED_VALIDATE | MAP_SYNC,
            file.as_raw_fd(),
            0,
        )
    } {
        // SAFETY: made above, unused.
        Ok(at) => unsafe { mem::munmap(at, PAGE_SIZE) }.is_ok(),
        Err(_) => false,
    }
}

/// A journal on byte-addressable media: non-temporal stores, one fence per durable write.
#[derive(Debug)]
pub struct MappedMedia {
    file: File,
    base: *mut u8,
    len: u64,
    flushes: u64,
}

// SAFETY: the mapping is owned by this value; all access is through &self/&mut self.
unsafe impl Send for MappedMedia {}

impl MappedMedia {
    /// Maps the whole of `file`, whose length must be a multiple of the page size and not 0.
    pub fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let mut m = Self {
            file,
            base: std::ptr::null_mut(),
            len: 0,
            flushes: 0,
        };
        m.map(len)?;
        Ok(m)
    }

    fn map(&mut self, len: u64) -> io::Result<()> {
        if len == 0 || !len.is_multiple_of(PAGE_SIZE) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a mapped journal of {len} bytes: the length must be a positive multiple of {PAGE_SIZE}"
                ),
            ));
        }
        let flags = map_flags(Backing::ByteAddressable, &self.file) | libc::MAP_POPULATE;
        // SAFETY: a fresh mapping at an address that the kernel picks.
        let at = unsafe {
            mem::mmap(
                0,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                self.file.as_raw_fd(),
                0,
            )
        }?;
        self.unmap();
        self.base = at as *mut u8;
        self.len = len;
        crate::cxl_emul::attach_if_enabled(at, len);
        Ok(())
    }

    fn unmap(&mut self) {
        if !self.base.is_null() {
            crate::cxl_emul::detach(self.base as u64, self.len);
            // SAFETY: our own mapping; self.base is replaced or self dropped right after.
            let _ = unsafe { mem::munmap(self.base as u64, self.len) };
        }
    }

    #[inline]
    fn check(&self, off: u64, len: usize) -> io::Result<()> {
        match off.checked_add(len as u64) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "{len} bytes at {off} reach past the end of a medium of {} bytes",
                    self.len
                ),
            )),
        }
    }

    #[inline]
    fn store(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        self.check(off, data.len())?;
        // SAFETY: check() keeps off+len inside the mapping, which stays in place while &mut self is held.
        let dst = unsafe { self.base.add(off as usize) };
        if (dst as u64).is_multiple_of(LINE) && (data.len() as u64).is_multiple_of(LINE) {
            // SAFETY: aligned, a whole number of lines, inside the mapping; `data` is not part of it (callers never hold
            // a slice of the mapping).
            unsafe { cpu::copy_non_temporal(dst, data) };
        } else {
            // SAFETY: inside the mapping, no overlap as above.
            unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), dst, data.len()) };
            let first = dst as u64 & !(LINE - 1);
            let last = dst as u64 + data.len() as u64;
            // SAFETY: every line lies in the mapping, whose ends are page-aligned.
            unsafe {
                cpu::write_back((first..last).step_by(LINE as usize).map(|a| a as *const u8))
            };
        }
        Ok(())
    }
}

impl Drop for MappedMedia {
    fn drop(&mut self) {
        self.unmap();
    }
}

impl Media for MappedMedia {
    fn len(&self) -> u64 {
        self.len
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        mem::ftruncate(self.file.as_raw_fd(), len as i64)?;
        if len > self.len {
            // Without blocks behind it a store would end in SIGBUS when the file system is full.
            reserve_space(&self.file, self.len, len - self.len)?;
        }
        self.map(len)
    }

    fn atom(&self) -> usize {
        8
    }

    fn write_unit(&self) -> usize {
        LINE as usize
    }

    fn read(&self, off: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check(off, buf.len())?;
        // SAFETY: checked range of our mapping; buf is ours.
        unsafe {
            std::ptr::copy_nonoverlapping(self.base.add(off as usize), buf.as_mut_ptr(), buf.len())
        };
        Ok(())
    }

    #[inline]
    fn write(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        self.store(off, data)
    }

    #[inline]
    fn persist(&mut self) -> io::Result<()> {
        self.flushes += 1;
        cpu::fence();
        Ok(())
    }

    #[inline]
    fn write_durable(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        self.store(off, data)?;
        self.persist()
    }

    fn flushes(&self) -> u64 {
        self.flushes
    }
}

/// Bytes reserved and populated at a time when a commit first touches a part of the home image.
pub const RESERVE_CHUNK: u64 = 128 << 10;

/// The home image of a mapped file: its committed content, mapped shared at a constant distance from the working copy.
///
/// Parts of lines are applied with ordinary stores, so that the next comparison finds them in the cache; whole lines on
/// byte-addressable media with non-temporal ones, which read nothing (docs/adr/0012). Nothing here needs to be durable
/// before the journal is recycled.
#[derive(Debug)]
pub struct HomeView {
    file: File,
    base: u64,
    slot: u64,
    len: u64,
    /// `len` in whole pages: what is mapped.
    mapped: u64,
    backing: Backing,
    prot: i32,
    /// Byte-addressable: the lines stored to since the last persist, in order, some of them twice (a flag per line would
    /// cost a cache miss where this costs nothing; writing a clean line back is cheap).
    dirty: Vec<u32>,
    /// One flag per RESERVE_CHUNK: blocks exist, a store cannot run out of space.
    reserved: Vec<bool>,
    flushes: u64,
}

impl HomeView {
    /// Maps `file` at `base`, inside a range of `slot` bytes that the caller has reserved there. The length of the file
    /// may be any; the last page's rest reads as zeros and is not part of the image.
    ///
    /// # Safety
    ///
    /// `[base, base + slot)` must be reserved by the caller, page-aligned, and used by nothing else.
    pub unsafe fn new(file: File, base: u64, slot: u64, backing: Backing) -> io::Result<Self> {
        // SAFETY: the caller's promise.
        unsafe {
            Self::with_prot(
                file,
                base,
                slot,
                backing,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        }
    }

    /// As [`HomeView::new`], for a file that was opened for reading only.
    ///
    /// # Safety
    ///
    /// As for [`HomeView::new`]; nothing may be written through the view.
    pub unsafe fn new_read_only(
        file: File,
        base: u64,
        slot: u64,
        backing: Backing,
    ) -> io::Result<Self> {
        // SAFETY: the caller's promise.
        unsafe { Self::with_prot(file, base, slot, backing, libc::PROT_READ) }
    }

    unsafe fn with_prot(
        file: File,
        base: u64,
        slot: u64,
        backing: Backing,
        prot: i32,
    ) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let mut home = Self {
            file,
            base,
            slot,
            len: 0,
            mapped: 0,
            backing,
            prot,
            dirty: Vec::with_capacity(1024),
            reserved: Vec::new(),
            flushes: 0,
        };
        home.map_to(len)?;
        Ok(home)
    }

    fn map_to(&mut self, len: u64) -> io::Result<()> {
        let have = self.mapped;
        let want = mem::page_up(len).filter(|&w| w <= self.slot).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!("length {len} does not fit the {} bytes of address space kept for this file", self.slot),
            )
        })?;
        if want > have {
            let flags = map_flags(self.backing, &self.file) | libc::MAP_FIXED;
            let prot = self.prot;
            // SAFETY: inside the caller's reservation, which only this value uses.
            unsafe {
                mem::mmap(
                    self.base + have,
                    want - have,
                    prot,
                    flags,
                    self.file.as_raw_fd(),
                    have as i64,
                )
            }?;
            crate::cxl_emul::attach_if_enabled(self.base + have, want - have);
        } else if want < have {
            let flags =
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
            crate::cxl_emul::detach(self.base + want, have - want);
            // SAFETY: puts our own reservation back over pages past the new end.
            unsafe { mem::mmap(self.base + want, have - want, libc::PROT_NONE, flags, -1, 0) }?;
        }
        self.len = len;
        self.mapped = want;
        // Blocks past the end have gone, and come back unreserved.
        self.reserved.truncate((len / RESERVE_CHUNK) as usize);
        self.reserved
            .resize(len.div_ceil(RESERVE_CHUNK) as usize, false);
        Ok(())
    }

    /// The descriptor of the home file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What backs the file.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// Makes sure that a store to the line at `off` cannot run out of space; the error is `StorageFull` then, and
    /// nothing has changed.
    #[inline]
    pub fn reserve(&mut self, off: u64) -> io::Result<()> {
        match self.reserved.get((off / RESERVE_CHUNK) as usize) {
            Some(true) => Ok(()),
            _ => self.reserve_chunk(off),
        }
    }

    #[cold]
    fn reserve_chunk(&mut self, off: u64) -> io::Result<()> {
        let chunk = off / RESERVE_CHUNK;
        let start = chunk * RESERVE_CHUNK;
        let end = mem::page_up((start + RESERVE_CHUNK).min(self.len)).unwrap_or(start);
        if start >= end {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "offset {off} lies past the end of a file of {} bytes",
                    self.len
                ),
            ));
        }
        reserve_space(&self.file, start, end - start)?;
        // Populating a chunk at once costs a tenth of its page faults one by one. Failing to is not an error.
        // SAFETY: populates our own mapping, its content does not change.
        let _ = unsafe { mem::madvise(self.base + start, end - start, libc::MADV_POPULATE_WRITE) };
        self.reserved[chunk as usize] = true;
        Ok(())
    }

    #[inline]
    fn note(&mut self, off: u64) {
        if self.backing == Backing::ByteAddressable {
            let line = (off / LINE) as u32;
            if self.dirty.last() != Some(&line) {
                self.dirty.push(line);
            }
        }
    }

    #[inline]
    fn check(&self, off: u64, len: u64) -> io::Result<()> {
        match off.checked_add(len) {
            Some(end) if end <= self.mapped => Ok(()),
            _ => Err(self.past_the_end(off, len)),
        }
    }

    #[cold]
    fn past_the_end(&self, off: u64, len: u64) -> io::Error {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!(
                "{len} bytes at offset {off} reach past the end of a file of {} bytes",
                self.len
            ),
        )
    }
}

impl Drop for HomeView {
    fn drop(&mut self) {
        let mapped = self.mapped;
        if mapped > 0 {
            crate::cxl_emul::detach(self.base, mapped);
            let flags =
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
            // SAFETY: puts the caller's reservation back over our own mapping.
            let _ = unsafe { mem::mmap(self.base, mapped, libc::PROT_NONE, flags, -1, 0) };
        }
    }
}

impl Media for HomeView {
    fn len(&self) -> u64 {
        self.len
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len != self.len {
            mem::ftruncate(self.file.as_raw_fd(), len as i64)?;
            self.map_to(len)?;
        }
        Ok(())
    }

    fn atom(&self) -> usize {
        8
    }

    fn write_unit(&self) -> usize {
        LINE as usize
    }

    fn read(&self, off: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check(off, buf.len() as u64)?;
        // SAFETY: checked range of our mapping.
        unsafe {
            std::ptr::copy_nonoverlapping(
                (self.base + off) as *const u8,
                buf.as_mut_ptr(),
                buf.len(),
            )
        };
        Ok(())
    }

    fn write(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        self.check(off, data.len() as u64)?;
        // SAFETY: checked range of our mapping; `data` is never part of it.
        unsafe {
            std::ptr::copy_nonoverlapping(data.as_ptr(), (self.base + off) as *mut u8, data.len())
        };
        let mut line = off & !(LINE - 1);
        while line < off + data.len() as u64 {
            self.note(line);
            line += LINE;
        }
        Ok(())
    }

    #[inline]
    fn write_word(&mut self, off: u64, word: u64) -> io::Result<()> {
        self.check(off, 8)?;
        // SAFETY: checked range of our mapping; off is a multiple of 8 and the base page-aligned.
        unsafe { ((self.base + off) as *mut u64).write(word.to_le()) };
        self.note(off);
        Ok(())
    }

    #[inline]
    fn write_line(&mut self, off: u64, mask: u8, words: &[u64]) -> io::Result<()> {
        self.check(off, LINE)?;
        if let (u8::MAX, Backing::ByteAddressable, Some(words)) =
            (mask, self.backing, words.first_chunk())
        {
            return self.write_whole_line(off, words);
        }
        let mut rest = mask;
        for word in words {
            let i = u64::from(rest.trailing_zeros());
            rest &= rest.wrapping_sub(1);
            // SAFETY: i < 8 while `words` holds one word per bit of `mask`, so this lies in the checked line; entries of a
            // record hold exactly as many (vernal-format's `Entries`), and an empty `rest` gives i = 64, which is masked.
            unsafe { ((self.base + off + (i & 7) * 8) as *mut u64).write(*word) };
        }
        self.note(off);
        Ok(())
    }

    #[inline(always)]
    fn write_whole_line(&mut self, off: u64, words: &[u64; 8]) -> io::Result<()> {
        if self.backing != Backing::ByteAddressable {
            for (word, at) in words.iter().zip((off..).step_by(8)) {
                self.write_word(at, u64::from_le(*word))?;
            }
            return Ok(());
        }
        self.check(off, LINE)?;
        // A whole line needs no read of the old one; the next fence, of a commit or of a checkpoint, makes it durable.
        let dst = (self.base + off) as *mut u8;
        // SAFETY: a line inside the checked range, aligned because base and off are; `words` is 64 bytes and never part
        // of the mapping.
        unsafe { cpu::stream_line(dst, words.as_ptr().cast()) };
        Ok(())
    }

    #[inline(always)]
    fn write_lines(&mut self, off: u64, words: &[u64]) -> io::Result<()> {
        let lines = words.as_chunks::<8>().0;
        if self.backing != Backing::ByteAddressable {
            for (off, line) in (off..).step_by(LINE as usize).zip(lines) {
                self.write_whole_line(off, line)?;
            }
            return Ok(());
        }
        self.check(off, lines.len() as u64 * LINE)?;
        let mut dst = (self.base + off) as *mut u8;
        for line in lines {
            // SAFETY: as in `write_whole_line`: all of the lines lie inside the checked range.
            unsafe {
                cpu::stream_line(dst, line.as_ptr().cast());
                dst = dst.add(LINE as usize);
            }
        }
        Ok(())
    }

    fn start_persist(&mut self) {
        if self.backing == Backing::Blocks {
            // SAFETY: takes no pointers; purely advisory.
            unsafe {
                libc::sync_file_range(self.file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE)
            };
        }
    }

    #[inline]
    fn persist(&mut self) -> io::Result<()> {
        self.flushes += 1;
        match self.backing {
            Backing::Blocks => self.file.sync_data(),
            Backing::ByteAddressable => {
                // A shrink may have unmapped pages since.
                let (base, end) = (self.base, self.mapped);
                let lines = self
                    .dirty
                    .drain(..)
                    .map(|l| u64::from(l) * LINE)
                    .filter(|&o| o < end);
                // SAFETY: every offset lies in the mapping.
                unsafe { cpu::write_back(lines.map(|o| (base + o) as *const u8)) };
                cpu::fence();
                Ok(())
            }
        }
    }

    fn write_durable(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        self.write(off, data)?;
        self.persist()
    }

    fn flushes(&self) -> u64 {
        self.flushes
    }
}

/// A journal on whatever backs it.
#[derive(Debug)]
pub enum JournalMedia {
    /// Non-temporal stores and one fence.
    Mapped(MappedMedia),
    /// One `O_DIRECT|O_DSYNC` write.
    File(crate::file::FileMedia),
}

macro_rules! forward {
    ($self:ident, $m:ident => $e:expr) => {
        match $self {
            JournalMedia::Mapped($m) => $e,
            JournalMedia::File($m) => $e,
        }
    };
}

impl Media for JournalMedia {
    fn len(&self) -> u64 {
        forward!(self, m => m.len())
    }
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        forward!(self, m => m.set_len(len))
    }
    fn atom(&self) -> usize {
        forward!(self, m => m.atom())
    }
    fn write_unit(&self) -> usize {
        forward!(self, m => m.write_unit())
    }
    fn read(&self, off: u64, buf: &mut [u8]) -> io::Result<()> {
        forward!(self, m => m.read(off, buf))
    }
    fn next_data(&self, off: u64) -> io::Result<u64> {
        forward!(self, m => m.next_data(off))
    }
    #[inline]
    fn write(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        forward!(self, m => m.write(off, data))
    }
    #[inline]
    fn persist(&mut self) -> io::Result<()> {
        forward!(self, m => m.persist())
    }
    #[inline]
    fn write_durable(&mut self, off: u64, data: &[u8]) -> io::Result<()> {
        forward!(self, m => m.write_durable(off, data))
    }
    fn flushes(&self) -> u64 {
        forward!(self, m => m.flushes())
    }
}
