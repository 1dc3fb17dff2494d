//! What a handler does that has been taken over, and pages to hide from it.

use std::io;

/// Some pages of this process.
#[derive(Debug)]
pub struct Pages(*mut libc::c_void);

const LEN: usize = 8192;

// SAFETY: memory of its own.
unsafe impl Send for Pages {}

fn map(len: usize, prot: i32) -> io::Result<*mut libc::c_void> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: new memory, at an address that the kernel chooses.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
    match at {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        at => Ok(at),
    }
}

impl Pages {
    /// New ones. They stay until the process ends.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Pages {
        Pages(map(LEN, libc::PROT_READ | libc::PROT_WRITE).expect("memory"))
    }

    /// Where.
    pub fn addr(&self) -> u64 {
        self.0 as u64
    }

    /// Their bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped, readable, and never unmapped.
        unsafe { std::slice::from_raw_parts(self.0.cast(), LEN) }
    }
}

/// Takes so much memory, and touches a little of it.
pub fn take_memory(bytes: usize) -> io::Result<()> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    for _ in 0..bytes >> 20 {
        let at = map(1 << 20, prot)?;
        // SAFETY: new memory of that size.
        unsafe { at.cast::<u8>().write_volatile(1) };
    }
    Ok(())
}

/// Forks; the child ends at once.
pub fn fork() -> io::Result<()> {
    // SAFETY: the child calls nothing but `_exit`.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the child, which has done nothing.
        0 => unsafe { libc::_exit(0) },
        child => {
            // SAFETY: a child of ours.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            Ok(())
        }
    }
}

/// Asks whether it could signal its process' parent.
pub fn signal_group() -> io::Result<()> {
    // SAFETY: signal 0 is none: it only asks.
    match unsafe { libc::kill(libc::getppid(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Maps memory that can be executed.
pub fn map_code() -> io::Result<()> {
    map(4096, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC).map(drop)
}
