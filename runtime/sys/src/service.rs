//! What a service needs of the system: inherited sockets, the groups of a peer, signals that end it, waiting for a lock.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// First descriptor that a service manager passes (sd_listen_fds(3)).
const LISTEN_FDS_START: i32 = 3;
/// More sockets than any unit of ours lists.
const LISTEN_FDS_MAX: i32 = 16;

/// Takes the sockets that a service manager has opened for this process (`LISTEN_PID`, `LISTEN_FDS`), marked close-on-exec.
/// Empty when there are none, or when they are meant for another process.
///
/// Call it at most once, before any other descriptor is opened: it takes ownership of descriptors by their number.
pub fn take_listen_fds() -> Vec<OwnedFd> {
    let var = |name| std::env::var(name).ok()?.parse::<i32>().ok();
    let ours = var("LISTEN_PID").is_some_and(|pid| pid.cast_unsigned() == std::process::id());
    let count = var("LISTEN_FDS").unwrap_or(0);
    if !ours || !(1..=LISTEN_FDS_MAX).contains(&count) {
        return Vec::new();
    }
    (LISTEN_FDS_START..LISTEN_FDS_START + count)
        .filter(|&fd| {
            // SAFETY: F_SETFD takes no pointers; an unused number is an error and filtered out.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) == 0 }
        })
        // SAFETY: the descriptor is open, and by the protocol of sd_listen_fds(3) it was passed to this process to own.
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect()
}

/// The supplementary groups of the process at the other end of a connected Unix socket, as of its connect(2).
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // The kernel says how many there are when the buffer is too small; they cannot change after the connect.
    let mut groups = vec![0u32; 64];
    loop {
        let mut len = libc::socklen_t::try_from(size_of_val(groups.as_slice()))
            .map_err(|_| io::Error::from_raw_os_error(libc::ERANGE))?;
        // SAFETY: `groups` is writable for `len` bytes.
        let rc = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut len,
            )
        };
        let count = len as usize / size_of::<u32>();
        if rc == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let e = io::Error::last_os_error();
        if e.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(e);
        }
        groups.resize(count, 0);
    }
}

fn termination_set() -> libc::sigset_t {
    // SAFETY: a zeroed set is valid storage, and sigemptyset makes it a valid set.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        set
    }
}

/// Blocks SIGTERM and SIGINT in this thread and all that it starts, so that [`wait_termination`] gets them. Call it first in
/// `main`.
pub fn block_termination() -> io::Result<()> {
    let set = termination_set();
    // SAFETY: `set` is initialised; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
        0 => Ok(()),
        e => Err(io::Error::from_raw_os_error(e)),
    }
}

/// Waits for SIGTERM or SIGINT, which [`block_termination`] has blocked, and returns its number.
pub fn wait_termination() -> io::Result<i32> {
    let set = termination_set();
    let mut signal = 0;
    // SAFETY: both are initialised and live.
    match unsafe { libc::sigwait(&set, &mut signal) } {
        0 => Ok(signal),
        e => Err(io::Error::from_raw_os_error(e)),
    }
}

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Together with other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// Takes an advisory lock on the open file description of `file` without waiting: `false` when another one is in the way. The
/// lock lives as long as the description, in every process that a descriptor of it was passed to, and in every mapping made
/// through it.
pub fn try_lock_as(file: &File, hold: Hold) -> io::Result<bool> {
    match flock(file, hold, libc::LOCK_NB) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        other => other.map(|()| true),
    }
}

/// Takes an advisory lock on the open file description of `file`, and waits for it.
pub fn lock_as(file: &File, hold: Hold) -> io::Result<()> {
    loop {
        match flock(file, hold, 0) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn flock(file: &File, hold: Hold, flags: libc::c_int) -> io::Result<()> {
    let how = match hold {
        Hold::Shared => libc::LOCK_SH,
        Hold::Exclusive => libc::LOCK_EX,
    };
    // SAFETY: flock takes no pointers.
    if unsafe { libc::flock(file.as_raw_fd(), how | flags) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_peer_has_this_process_groups() {
        let (a, _b) = UnixStream::pair().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("Groups:")).unwrap();
        let mut want: Vec<u32> = line["Groups:".len()..]
            .split_ascii_whitespace()
            .map(|g| g.parse().unwrap())
            .collect();
        let mut got = peer_groups(a.as_fd()).unwrap();
        want.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, want);
    }

    #[test]
    fn a_lock_lives_as_long_as_a_mapping_of_its_description() {
        let path = std::env::temp_dir().join(format!("vernal-sys-{}-hold", std::process::id()));
        std::fs::write(&path, [0u8; 4096]).unwrap();
        let open = || File::open(&path).unwrap();
        let first = open();
        assert!(try_lock_as(&first, Hold::Shared).unwrap());
        assert!(try_lock_as(&open(), Hold::Shared).unwrap());
        assert!(!try_lock_as(&open(), Hold::Exclusive).unwrap());
        let flags = libc::MAP_SHARED;
        // SAFETY: a fresh mapping at an address that the kernel picks.
        let at = unsafe { crate::mem::mmap(0, 4096, libc::PROT_READ, flags, first.as_raw_fd(), 0) };
        drop(first);
        assert!(!try_lock_as(&open(), Hold::Exclusive).unwrap());
        // SAFETY: made above, unused.
        unsafe { crate::mem::munmap(at.unwrap(), 4096) }.unwrap();
        assert!(try_lock_as(&open(), Hold::Exclusive).unwrap());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn sockets_for_another_process_are_left_alone() {
        // Nothing of a service manager reaches a test.
        assert!(take_listen_fds().is_empty());
    }
}
