//! The page: a mailbox of two turns, one written by the server, one by its helper, who alternate.
//!
//! ```text
//!   words 0..8    the server's turn: number (written last), head, two numbers, four words
//!   word  8       the server sleeps
//!   words 16..24  the helper's turn
//!   word  24      the helper sleeps
//!   words 32..    the server's bytes, then the helper's
//! ```
//!
//! Both can write all of it. The server never reads what it wrote, and reads each word of the helper once.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::{Error, os};

/// The most bytes that travel with a turn.
pub const BYTES_MAX: usize = 4096;

const BYTE_WORDS: usize = BYTES_MAX / 8;
const WORDS: usize = 32 + 2 * BYTE_WORDS;
const SIZE: usize = (WORDS * 8).next_multiple_of(4096);

/// What one side says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turn {
    /// What it is; the crate above numbers them.
    pub kind: u8,
    /// What `words` and the bytes are.
    pub tag: u8,
    /// How many bytes.
    pub len: u16,
    /// A method or a code.
    pub code: u32,
    /// Two numbers.
    pub aux: [u64; 2],
    /// Four words.
    pub words: [u64; 4],
}

/// Whose words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Helper,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Server => Side::Helper,
            Side::Helper => Side::Server,
        }
    }

    fn turn(self) -> usize {
        match self {
            Side::Server => 0,
            Side::Helper => 16,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Side::Server => 32,
            Side::Helper => 32 + BYTE_WORDS,
        }
    }
}

/// One side's view.
#[derive(Debug)]
pub(crate) struct Page {
    at: *mut libc::c_void,
    side: Side,
    /// Turns of this side so far.
    said: u64,
}

// SAFETY: the mapping is used through atomics alone, and belongs to this value.
unsafe impl Send for Page {}

/// Memory for a page. It can neither grow nor shrink: an access of either side never fails.
pub(crate) fn create() -> Result<std::os::fd::OwnedFd, Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("vernal-sandbox", flags).map_err(os("making a page"))?;
    rustix::fs::ftruncate(&fd, SIZE as u64).map_err(os("making a page"))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals).map_err(os("sealing a page"))?;
    Ok(fd)
}

impl Page {
    pub(crate) fn map(fd: impl AsFd, side: Side) -> Result<Page, Error> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let at =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), SIZE, prot, MapFlags::SHARED, fd, 0) }
                .map_err(os("mapping a page"))?;
        Ok(Page { at, side, said: 0 })
    }

    #[inline]
    fn words(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: mapped, aligned and of that size for as long as `self` is; its size is sealed.
        unsafe { &*self.at.cast::<[AtomicU64; WORDS]>() }
    }

    #[inline]
    fn put(&self, at: usize, value: u64) {
        if let Some(w) = self.words().get(at) {
            w.store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn get(&self, at: usize) -> u64 {
        self.words()
            .get(at)
            .map_or(0, |w| w.load(Ordering::Relaxed))
    }

    /// Says something; `true`: the other side sleeps and has to be woken.
    #[inline]
    pub(crate) fn say(&mut self, turn: &Turn, bytes: &[u8]) -> bool {
        for (n, chunk) in bytes.chunks(8).take(BYTE_WORDS).enumerate() {
            let mut word = [0; 8];
            word.iter_mut()
                .zip(chunk)
                .for_each(|(to, from)| *to = *from);
            self.put(self.side.bytes() + n, u64::from_le_bytes(word));
        }
        let at = self.side.turn();
        let head = u64::from(turn.kind)
            | u64::from(turn.tag) << 8
            | u64::from(turn.len) << 16
            | u64::from(turn.code) << 32;
        self.put(at + 1, head);
        let [a, b] = turn.aux;
        let [c, d, e, f] = turn.words;
        for (n, word) in [a, b, c, d, e, f].into_iter().enumerate() {
            self.put(at + 2 + n, word);
        }
        self.said = self.said.wrapping_add(1);
        if let Some(number) = self.words().get(at) {
            number.store(self.said, Ordering::Release);
        }
        // The other side says that it sleeps, then looks at the number; one of both sees what the other wrote.
        fence(Ordering::SeqCst);
        self.get(self.side.other().turn() + 8) != 0
    }

    /// Whether the other side has taken its turn: the server's is behind the helper's, the helper's the one before.
    #[inline]
    pub(crate) fn heard(&self) -> bool {
        let expected = match self.side {
            Side::Server => self.said,
            Side::Helper => self.said.wrapping_add(1),
        };
        let number = self.get(self.side.other().turn());
        fence(Ordering::Acquire);
        number == expected
    }

    /// What the other side said, each word of it read once.
    #[inline]
    pub(crate) fn take(&self, bytes: &mut Vec<u8>) -> Turn {
        let at = self.side.other().turn();
        let head = self.get(at + 1);
        let turn = Turn {
            kind: head as u8,
            tag: (head >> 8) as u8,
            len: ((head >> 16) as u16).min(BYTES_MAX as u16),
            code: (head >> 32) as u32,
            aux: [self.get(at + 2), self.get(at + 3)],
            words: [4, 5, 6, 7].map(|n| self.get(at + n)),
        };
        bytes.clear();
        let len = usize::from(turn.len);
        for n in 0..len.div_ceil(8) {
            bytes.extend(self.get(self.side.other().bytes() + n).to_le_bytes());
        }
        bytes.truncate(len);
        turn
    }

    /// This side is about to sleep, or does not any more. To be followed by another look.
    pub(crate) fn asleep(&self, is: bool) {
        self.put(self.side.turn() + 8, is.into());
        fence(Ordering::SeqCst);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing refers to any more.
        let _ = unsafe { rustix::mm::munmap(self.at, SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_alternate_and_carry_what_they_were_given() {
        let fd = create().unwrap();
        let mut server = Page::map(&fd, Side::Server).unwrap();
        let mut helper = Page::map(&fd, Side::Helper).unwrap();
        let mut bytes = Vec::new();
        for n in 1..100u16 {
            assert!(!helper.heard());
            let turn = Turn {
                kind: n as u8,
                tag: 2,
                len: n * 41,
                code: u32::MAX - u32::from(n),
                aux: [1, u64::MAX],
                words: [n.into(), 0, 7, u64::MAX],
            };
            let data: Vec<u8> = (0..n * 41).map(|b| b as u8).collect();
            assert!(!server.say(&turn, &data));
            assert!(helper.heard() && !server.heard());
            assert_eq!((helper.take(&mut bytes), &bytes), (turn, &data));
            helper.asleep(true);
            helper.say(&turn, &data);
            assert!(server.heard());
            assert_eq!((server.take(&mut bytes), &bytes), (turn, &data));
            assert!(server.say(&turn, &[]), "the helper sleeps");
            helper.asleep(false);
            assert!(helper.heard());
            helper.say(&turn, &[]);
            assert!(server.heard());
        }
    }

    #[test]
    fn any_word_may_be_anything() {
        let fd = create().unwrap();
        let server = Page::map(&fd, Side::Server).unwrap();
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut bytes = Vec::new();
        for _ in 0..2000 {
            for at in 0..WORDS {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                server.put(at, seed);
            }
            let turn = server.take(&mut bytes);
            assert_eq!(bytes.len(), usize::from(turn.len));
            assert!(bytes.len() <= BYTES_MAX);
        }
    }
}
