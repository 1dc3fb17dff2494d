//! What a process gives up before it runs a handler. Each function runs in a child that has one thread.

use std::io;

use libc::{c_int, c_ulong};

fn done(result: libc::c_long) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn prctl(option: c_int, value: c_ulong) -> io::Result<()> {
    // SAFETY: the options that are used here take a number and touch no memory.
    done(unsafe { libc::prctl(option, value, 0, 0, 0) }.into())
}

fn limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    // SAFETY: `limit` lives through the call.
    done(unsafe { libc::setrlimit(resource, &raw const limit) }.into())
}

/// Signals do what they do by themselves: a handler of the parent would run on a state that is not this process'.
fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: the default action runs no code of ours. Numbers that are none, or are the C library's, are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an empty set of our own.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// The first number of descriptors that are kept. Far from those of the program: a handler that still uses one of its program's numbers must
/// not speak for the helper.
pub(crate) const FIRST: c_int = 1000;

/// Closes all descriptors but these, which get the numbers from [`FIRST`] on; 0 to 2 are `/dev/null`.
pub(crate) fn keep_only(keep: &[c_int]) -> io::Result<()> {
    let first = FIRST as libc::c_uint;
    let behind = first + keep.len() as libc::c_uint;
    // SAFETY: descriptors of this process, which has one thread, and of which only those in `keep` are used from here on.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        done(null.into())?;
        // Behind all targets first: no target is a source that comes later.
        let highest = keep.iter().copied().max().unwrap_or(0).max(null);
        let base = highest.max(FIRST + keep.len() as c_int) + 1;
        for (n, &fd) in keep.iter().chain(&[null]).enumerate() {
            done(libc::dup2(fd, base + n as c_int).into())?;
        }
        let null = base + keep.len() as c_int;
        for fd in 0..3 {
            done(libc::dup2(null, fd).into())?;
        }
        for n in 0..keep.len() as c_int {
            done(libc::dup2(base + n, FIRST + n).into())?;
        }
        done(libc::syscall(libc::SYS_close_range, 3, first - 1, 0))?;
        done(libc::syscall(libc::SYS_close_range, behind, u32::MAX, 0))
    }
}

/// Unmaps what is shared with anybody: stores there would be seen outside.
fn unshare_memory() -> io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(perms)) = (words.next(), words.next()) else {
            continue;
        };
        if !perms.ends_with('s') {
            continue;
        }
        let number = |text: &str| usize::from_str_radix(text, 16).ok();
        let ends = range
            .split_once('-')
            .and_then(|(a, b)| Some((number(a)?, number(b)?)));
        let Some((start, end)) = ends else {
            return Err(io::Error::other(format!("{line:?} is no mapping")));
        };
        // SAFETY: nothing in this child uses what it shared with its parent; who tries ends.
        done(unsafe { libc::munmap(start as *mut libc::c_void, end - start) }.into())?;
    }
    Ok(())
}

/// All sets of capabilities, empty.
fn drop_capabilities() -> io::Result<()> {
    // Version 3; this process.
    let header = [0x2008_0522u32, 0];
    let none = [0u32; 6];
    // SAFETY: the header and two empty sets, as version 3 has them.
    done(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) })
}

/// What the process that forks helpers gives up, and they inherit.
pub(crate) fn zygote(control: c_int) -> io::Result<()> {
    reset_signals();
    // A signal from the terminal is for the server, which may want to end its calls first.
    // SAFETY: no memory.
    let _ = unsafe { libc::setpgid(0, 0) };
    unshare_memory()?;
    keep_only(&[control])?;
    prctl(libc::PR_SET_DUMPABLE, 0)?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    drop_capabilities()?;
    limit(libc::RLIMIT_CORE, 0)?;
    limit(libc::RLIMIT_FSIZE, 0)
}

/// Bytes of data that this process has, as `RLIMIT_DATA` counts them.
fn data_bytes() -> io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_whitespace().nth(5).and_then(|w| w.parse().ok());
    let pages: u64 = pages.ok_or_else(|| io::Error::other("no size in /proc/self/statm"))?;
    Ok(pages * 4096)
}

/// The rest, for a helper, whose descriptors `keep` have the numbers from [`FIRST`] on from here on.
pub(crate) fn helper(keep: &[c_int], zygote: u32, memory: u64) -> io::Result<()> {
    // When the server goes, its zygote goes, and a handler that runs without end goes with it.
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong)?;
    if std::os::unix::process::parent_id() != zygote {
        return Err(io::Error::other("the zygote is gone"));
    }
    let data = data_bytes()?;
    keep_only(keep)?;
    limit(libc::RLIMIT_DATA, data.saturating_add(memory))?;
    limit(libc::RLIMIT_NOFILE, FIRST as u64 + 2)?;
    limit(libc::RLIMIT_NPROC, 0)
}
