//! Small system services: locks, randomness, thread count, expedited memory barriers.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Takes an exclusive advisory lock on `file` without waiting: `false` when another process holds it.
pub fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: flock takes no pointers.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    let e = io::Error::last_os_error();
    if e.raw_os_error() == Some(libc::EWOULDBLOCK) {
        Ok(false)
    } else {
        Err(e)
    }
}

/// The process that holds a lock on `file`, as far as /proc/locks tells.
pub fn lock_holder(file: &File) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 1234 08:02:4711 0 EOF
        let f: Vec<&str> = line.split_ascii_whitespace().collect();
        let hit = f.get(1) == Some(&"FLOCK")
            && f.get(5)
                .is_some_and(|d| d.rsplit(':').next() == Some(&inode));
        if hit { f.get(4)?.parse().ok() } else { None }
    })
}

/// 16 random bytes from the kernel.
pub fn random_uuid() -> io::Result<[u8; 16]> {
    let mut out = [0u8; 16];
    // SAFETY: the buffer is 16 bytes long; requests up to 256 bytes are never short once the pool is ready.
    let n = unsafe { libc::getrandom(out.as_mut_ptr().cast(), out.len(), 0) };
    if n == 16 {
        Ok(out)
    } else {
        Err(io::Error::last_os_error())
    }
}

unsafe extern "C" {
    // glibc 2.32 and later: nonzero while the process has had one thread only (The GNU C Library manual, 36.2.1.5).
    static __libc_single_threaded: libc::c_char;
}

/// Whether no second thread can be running: pthread_create has not been called.
#[inline]
pub fn single_threaded() -> bool {
    // SAFETY: a byte that glibc writes only from the single thread or under pthread_create.
    unsafe { std::ptr::read_volatile(&raw const __libc_single_threaded) != 0 }
}

const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
const MEMBARRIER_CMD_PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

fn membarrier_call(cmd: libc::c_int) -> bool {
    // SAFETY: membarrier(2) takes no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, cmd, 0, 0) == 0 }
}

/// Registers this process for expedited barriers. Call once before threads matter.
pub fn membarrier_register() -> bool {
    membarrier_call(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
}

/// Makes every thread of the process pass a full memory barrier before it returns (membarrier(2),
/// PRIVATE_EXPEDITED, else GLOBAL): stores that any thread had issued are visible to the caller afterwards. `false` when
/// the kernel offers neither.
pub fn membarrier() -> bool {
    membarrier_call(MEMBARRIER_CMD_PRIVATE_EXPEDITED)
        || (membarrier_register() && membarrier_call(MEMBARRIER_CMD_PRIVATE_EXPEDITED))
        || membarrier_call(MEMBARRIER_CMD_GLOBAL)
}
