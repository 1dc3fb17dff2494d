//! Memory that is built aside and then put in its place with one call, so that no other thread sees half of it.

use crate::mem;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;

/// Linux 5.14: makes pages without a fault for each.
const MADV_POPULATE_WRITE: i32 = 23;

/// A private mapping at an address that nobody else knows. Unmapped when it is dropped.
#[derive(Debug)]
pub struct Aside {
    at: u64,
    len: u64,
}

impl Aside {
    /// Zero memory, made now. In small pages: a huge one that the host of a virtual machine has taken back costs it more to
    /// give again than all of its small ones (docs/adr/0017).
    pub fn zeroed(len: u64) -> io::Result<Aside> {
        let len = mem::page_up(len.max(1)).ok_or_else(invalid)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address that the kernel picks.
        let at = unsafe { mem::mmap(0, len, prot, flags, -1, 0) }?;
        let aside = Aside { at, len };
        aside.populate(0, len);
        Ok(aside)
    }

    /// A private view of `len` bytes of `file` from `offset`: what is not written to costs no memory.
    pub fn view(file: &File, offset: u64, len: u64) -> io::Result<Aside> {
        let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let offset = i64::try_from(offset).map_err(|_| invalid())?;
        // SAFETY: a fresh mapping at an address that the kernel picks.
        let at = unsafe { mem::mmap(0, len, prot, flags, file.as_raw_fd(), offset) }?;
        Ok(Aside { at, len })
    }

    /// Makes the pages of a part writable at once, if the kernel can (Linux 5.14): else each faults when it is written to.
    pub fn populate(&self, from: u64, len: u64) {
        if from.checked_add(len).is_some_and(|end| end <= self.len) {
            // SAFETY: inside our own mapping; the advice drops nothing.
            let _ = unsafe { mem::madvise(self.at + from, len, MADV_POPULATE_WRITE) };
        }
    }

    /// Reads `len` bytes of `file` from `offset` to `to`. A hole of the file stays one, which reading it through a mapping does
    /// not ensure.
    pub fn fill(&self, to: u64, file: &File, offset: u64, len: u64) -> io::Result<()> {
        if to.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(invalid());
        }
        let mut done = 0;
        while done < len {
            // SAFETY: the kernel writes inside our own mapping, whose words are atomics to everybody else.
            let n = unsafe {
                mem::pread(
                    file.as_raw_fd(),
                    self.at + to + done,
                    len - done,
                    offset + done,
                )
            };
            match n {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// All words.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is ours, aligned to a page, readable and writable until `protect`, after which nobody stores; it
        // lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.at as *const AtomicU64, (self.len / 8) as usize) }
    }

    /// Makes it read-only. Consumes it, so that nothing stores to it any more.
    pub fn protect(self) -> io::Result<ReadOnlyAside> {
        // SAFETY: our own mapping.
        unsafe { mem::mprotect(self.at, self.len, libc::PROT_READ) }?;
        Ok(ReadOnlyAside(self))
    }

    /// Puts the bytes from `from` on, which is a multiple of the page size, at `to`, in place of what is mapped there.
    ///
    /// # Safety
    ///
    /// The caller owns the range from `to` on, as long as what is left of this value behind `from`, and nobody relies on what it
    /// held.
    pub unsafe fn put(mut self, from: u64, to: u64) -> io::Result<()> {
        let len = self.len.checked_sub(from).ok_or_else(invalid)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the mapping is ours, and the caller owns the other range.
        unsafe { mem::mremap(self.at + from, len, len, flags, to) }?;
        // What has moved is no longer ours to unmap.
        self.len = from;
        Ok(())
    }
}

/// [`Aside`] to which nobody can store any more.
#[derive(Debug)]
pub struct ReadOnlyAside(Aside);

impl ReadOnlyAside {
    /// [`Aside::put`].
    ///
    /// # Safety
    ///
    /// As there.
    pub unsafe fn put(self, from: u64, to: u64) -> io::Result<()> {
        // SAFETY: the caller's promise is that of the called function.
        unsafe { self.0.put(from, to) }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: our own mapping, and every slice of it has borrowed this value.
            let _ = unsafe { mem::munmap(self.at, self.len) };
        }
    }
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::atomic::Ordering::Relaxed;

    fn file(name: &str, bytes: &[u8]) -> File {
        let name = format!("vernal-aside-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn what_is_built_aside_appears_in_its_place() {
        let f = file("put", &[7; 3 * 4096]);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping.
        let place = unsafe { mem::mmap(0, 2 * 4096, libc::PROT_NONE, flags, -1, 0) }.unwrap();
        for filled in [true, false] {
            let aside = match filled {
                true => {
                    let aside = Aside::zeroed(3 * 4096).unwrap();
                    aside.fill(4096, &f, 4096, 2 * 4096).unwrap();
                    aside
                }
                false => Aside::view(&f, 0, 3 * 4096).unwrap(),
            };
            aside.populate(4096, 4096);
            aside.words()[512].store(9, Relaxed);
            // SAFETY: mapped above, and nothing uses it.
            unsafe { aside.protect().unwrap().put(4096, place) }.unwrap();
            // SAFETY: two pages lie there now.
            let seen = unsafe { std::slice::from_raw_parts(place as *const u64, 1024) };
            assert_eq!(seen[0], 9);
            assert!(seen[1..].iter().all(|w| *w == 0x0707_0707_0707_0707));
        }
        // SAFETY: this test's own.
        unsafe { mem::munmap(place, 2 * 4096) }.unwrap();
    }

    #[test]
    fn short_files_and_ranges_outside_are_refused() {
        let aside = Aside::zeroed(8192).unwrap();
        assert!(aside.words().iter().all(|w| w.load(Relaxed) == 0));
        let f = file("short", &[1; 100]);
        let e = aside.fill(0, &f, 0, 4096).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
        assert!(aside.fill(8184, &f, 0, 16).is_err());
    }
}
