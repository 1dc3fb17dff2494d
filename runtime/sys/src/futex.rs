//! Waiting for a word that several processes share (futex(2), without the private flag).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crate::mem::{self, PAGE_SIZE};

/// Waits until somebody wakes `word`, unless it is not `expected` any more. Also returns without a reason now and then, and after
/// `limit`: the caller looks at the word again.
pub fn wait(word: &AtomicU32, expected: u32, limit: Duration) -> io::Result<()> {
    let limit = libc::timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    // SAFETY: the word and the time outlive the call; the kernel only reads both.
    let done = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            &raw const limit,
        )
    };
    if done == 0 {
        return Ok(());
    }
    let e = io::Error::last_os_error();
    match e.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT) => Ok(()),
        _ => Err(e),
    }
}

/// Wakes up to `count` of those who wait for `word`, in any process.
pub fn wake(word: &AtomicU32, count: i32) {
    // SAFETY: the word outlives the call, which does not look at it.
    let _ = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
}

/// Wakes all who wait for the first word of `file`, for a process that does not have it mapped.
pub fn wake_file(file: &File) -> io::Result<()> {
    // SAFETY: no MAP_FIXED: the kernel picks a range that nothing else uses.
    let addr = unsafe {
        mem::mmap(
            0,
            PAGE_SIZE,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    }?;
    // SAFETY: the page was mapped above and stays so until after the call; a wake does not read it, so a file that was cut
    // short does no harm.
    wake(unsafe { AtomicU32::from_ptr(addr as *mut u32) }, i32::MAX);
    // SAFETY: our own mapping, which nothing refers to any more.
    unsafe { mem::munmap(addr, PAGE_SIZE) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_changed_word_is_not_waited_for() {
        let word = AtomicU32::new(7);
        wait(&word, 8, Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn a_wake_ends_a_wait() {
        let word = AtomicU32::new(0);
        std::thread::scope(|s| {
            s.spawn(|| {
                while word.load(Ordering::SeqCst) == 0 {
                    wait(&word, 0, Duration::from_secs(60)).unwrap();
                }
            });
            word.store(1, Ordering::SeqCst);
            wake(&word, 1);
        });
    }
}
