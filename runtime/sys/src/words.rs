//! A file's bytes as words that several threads may read and change: offline access to puddles.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;

use crate::mem;

/// What happens to changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordMode {
    /// They stay in this process. Readers use this too: a page costs memory only once it is changed, and a protected one
    /// would turn a store, which safe code can make, into a fault.
    Private,
    /// They go to the file; [`WordMap::sync`] makes them durable.
    Shared,
}

/// A mapped file. Its length is fixed while it is mapped: bytes that somebody cuts off the file fault when they are read,
/// so the caller holds the lock under which files change their length.
#[derive(Debug)]
pub struct WordMap {
    addr: u64,
    len: u64,
    mode: WordMode,
}

impl WordMap {
    /// Maps all of `file`, whose length must be a multiple of 8 and not 0. A file that is mapped [`WordMode::Private`] needs
    /// only be readable.
    pub fn new(file: &File, mode: WordMode) -> io::Result<WordMap> {
        let len = file.metadata()?.len();
        if len == 0 || !len.is_multiple_of(8) {
            let what = format!("the file has {len} bytes, which is not a number of whole words");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let flags = match mode {
            WordMode::Private => libc::MAP_PRIVATE,
            WordMode::Shared => libc::MAP_SHARED,
        };
        let (prot, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            flags | libc::MAP_NORESERVE,
        );
        // SAFETY: no MAP_FIXED: the kernel picks a range that nothing else uses.
        let addr = unsafe { mem::mmap(0, len, prot, flags, file.as_raw_fd(), 0) }?;
        Ok(WordMap { addr, len, mode })
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes, which never happens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What happens to changes.
    pub fn mode(&self) -> WordMode {
        self.mode
    }

    /// All words.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        let count = (self.len / 8) as usize;
        // SAFETY: the mapping is page-aligned, `len` bytes long, lives as long as `self` and is reached by Rust code only
        // through this slice of atomics; other processes that change the file race with atomics only.
        unsafe { std::slice::from_raw_parts(self.addr as *const AtomicU64, count) }
    }

    /// Maps the pages of a part at once, if the kernel can (Linux 5.14): else each few fault when they are read.
    pub fn populate(&self, from: u64, len: u64) {
        const MADV_POPULATE_READ: i32 = 22;
        if from.checked_add(len).is_some_and(|end| end <= self.len) {
            // SAFETY: inside our own mapping; the advice changes nothing.
            let _ = unsafe { mem::madvise(self.addr + from, len, MADV_POPULATE_READ) };
        }
    }

    /// Makes all changes durable: msync and fsync of what is mapped [`WordMode::Shared`].
    pub fn sync(&self) -> io::Result<()> {
        match self.mode {
            WordMode::Shared => mem::msync(self.addr, self.len, libc::MS_SYNC),
            WordMode::Private => Ok(()),
        }
    }
}

impl Drop for WordMap {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own, and every slice of it has borrowed the value.
        let _ = unsafe { mem::munmap(self.addr, self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::sync::atomic::Ordering::Relaxed;

    fn file(name: &str, bytes: &[u8]) -> File {
        let name = format!("vernal-words-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(true);
        let mut file = options.open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn bytes_of(file: &mut File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn private_changes_stay_private_and_shared_ones_reach_the_file() {
        let mut f = file("modes", &[1; 4096 * 2]);
        let private = WordMap::new(&f, WordMode::Private).unwrap();
        private.words()[3].store(7, Relaxed);
        private.sync().unwrap();
        let shared = WordMap::new(&f, WordMode::Shared).unwrap();
        assert_eq!(shared.words().len(), 1024);
        assert_eq!(shared.words()[3].load(Relaxed), 0x0101_0101_0101_0101);
        shared.words()[1023].store(9, Relaxed);
        shared.sync().unwrap();
        let reader = WordMap::new(&f, WordMode::Private).unwrap();
        assert_eq!(reader.words()[1023].load(Relaxed), 9);
        assert_eq!(private.words()[3].load(Relaxed), 7);
        let bytes = bytes_of(&mut f);
        assert_eq!(bytes[8184..], 9u64.to_le_bytes());
        assert!(bytes[..8184].iter().all(|b| *b == 1));
    }

    #[test]
    fn a_file_of_no_whole_words_is_refused() {
        for len in [0, 1, 4095] {
            let e = WordMap::new(&file("odd", &vec![0; len]), WordMode::Private).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::InvalidData);
        }
    }
}
