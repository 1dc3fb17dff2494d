//! `poll` over connections of the shim and everything else; `select` is made of it.

use libc::{c_int, pollfd, sigset_t, timespec};
use rustix::fd::{BorrowedFd, RawFd};
use rustix::io::Errno;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vernal_ring::Step;

use crate::conn::Conn;
use crate::ready::{Effort, look};
use crate::sleep::Turn;
use crate::stream::{backoff, keep_backoff, last_error};
use crate::table;

/// Looks between two questions to the kernel while nothing is there.
const LOOKS: u32 = 256;

/// The longest sleep beside somebody who takes the bells.
const NAP: Duration = Duration::from_millis(2);

/// The connections of a call: where they are in its list.
struct Ours {
    at: usize,
    conn: Arc<Conn>,
    fd: RawFd,
}

fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: used for one system call, which says so if the program has closed it meanwhile.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// `poll`, when one of the descriptors is the shim's; `None` when none is.
pub fn poll(
    fds: &mut [pollfd],
    timeout: Option<Duration>,
    mask: *const sigset_t,
) -> Option<Result<usize, Errno>> {
    let list = fds.iter().enumerate();
    let ours: Vec<Ours> = list
        .filter_map(|(at, p)| {
            let conn = table::conn(p.fd)?;
            let fd = p.fd;
            Some(Ours { at, conn, fd })
        })
        .collect();
    if ours.is_empty() {
        return None;
    }
    Some(wait(fds, &ours, timeout, mask))
}

fn wait(
    fds: &mut [pollfd],
    ours: &[Ours],
    timeout: Option<Duration>,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    let deadline = timeout.map(|t| Instant::now() + t);
    let others = fds.iter().filter(|p| p.fd >= 0).count() > ours.len();
    let mut effort = Effort::Kernel;
    let mut backoff = backoff();
    let mut waiting = backoff.begin(deadline);
    let mut looks = 0_u32;
    let result = loop {
        let mut found = report(fds, ours, effort);
        effort = Effort::Memory;
        if found > 0 || timeout == Some(Duration::ZERO) {
            if others {
                match kernel(fds, ours, Some(Duration::ZERO), mask) {
                    Ok(more) => found += more,
                    Err(e) if found == 0 => break Err(e),
                    Err(_) => {}
                }
            }
            break Ok(found);
        }
        let step = backoff.step(&mut waiting);
        looks += 1;
        let asked = match step {
            Step::Look if !looks.is_multiple_of(LOOKS) => continue,
            Step::Look | Step::Check => {
                drain(ours);
                kernel(fds, ours, Some(Duration::ZERO), mask)
            }
            Step::Sleep => sleep(fds, ours, deadline, mask),
        };
        match asked {
            Ok(0) => {}
            other => break other,
        }
        effort = Effort::Kernel;
        if deadline.is_some_and(|d| d <= Instant::now()) {
            break Ok(report(fds, ours, effort));
        }
    };
    backoff.end(waiting);
    keep_backoff(backoff);
    result
}

/// Enters what is ready of the shim's; how many.
fn report(fds: &mut [pollfd], ours: &[Ours], effort: Effort) -> usize {
    let mut found = 0;
    for one in ours {
        let Some(p) = fds.get_mut(one.at) else {
            continue;
        };
        let always = libc::POLLERR | libc::POLLHUP;
        let ready = look(&one.conn, borrow(one.fd), p.events as u32, effort);
        // `POLLRDNORM` and its like are what epoll calls in and out.
        let both = |a: i16, b: i16| {
            if ready.events as i16 & a != 0 {
                a | b
            } else {
                0
            }
        };
        let events = ready.events as i16
            | both(libc::POLLIN, libc::POLLRDNORM)
            | both(libc::POLLOUT, libc::POLLWRNORM);
        p.revents = events & (p.events | always);
        found += usize::from(p.revents != 0);
    }
    found
}

fn drain(ours: &[Ours]) {
    for one in ours {
        one.conn.drain(&mut one.conn.rx(), borrow(one.fd));
    }
}

/// Asks the kernel: for what is not the shim's, and for bells. How many of the others are ready.
fn kernel(
    fds: &mut [pollfd],
    ours: &[Ours],
    timeout: Option<Duration>,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    let mut copy: Vec<pollfd> = fds.to_vec();
    for one in ours {
        if let Some(p) = copy.get_mut(one.at) {
            let rx = one.conn.rx();
            // A connection that has ended says so for ever, which is no bell.
            p.fd = if rx.eof { -1 } else { one.fd };
            p.events = libc::POLLIN
                | if one.conn.tx().switched {
                    0
                } else {
                    p.events & libc::POLLOUT
                };
        }
    }
    let time = timeout.map(|t| timespec {
        tv_sec: t.as_secs() as i64,
        tv_nsec: i64::from(t.subsec_nanos()),
    });
    let mut time = time;
    let time = time
        .as_mut()
        .map_or(std::ptr::null_mut(), |t| t as *mut timespec);
    let size = size_of::<u64>();
    // SAFETY: a list and a time of this stack; the program's mask or none.
    let n = unsafe {
        libc::syscall(
            libc::SYS_ppoll,
            copy.as_mut_ptr(),
            copy.len(),
            time,
            mask,
            size,
        )
    };
    if n < 0 {
        return Err(last_error());
    }
    let mut found = 0;
    for (at, (p, said)) in fds.iter_mut().zip(&copy).enumerate() {
        if ours.iter().all(|one| one.at != at) {
            p.revents = said.revents;
            found += usize::from(p.revents != 0);
        }
    }
    Ok(found)
}

fn sleep(
    fds: &mut [pollfd],
    ours: &[Ours],
    deadline: Option<Instant>,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    // Before announcing: a bell that was rung until now has nothing to say that the look below does not see.
    drain(ours);
    let room = |fds: &[pollfd], one: &Ours| {
        fds.get(one.at)
            .is_some_and(|p| p.events & libc::POLLOUT != 0)
    };
    let turns: Vec<u32> = ours.iter().map(|one| one.conn.turn()).collect();
    for one in ours {
        one.conn.arm(borrow(one.fd), true, room(fds, one));
    }
    let slept = if report(fds, ours, Effort::Kernel) > 0 {
        Ok(0)
    } else {
        lead(fds, ours, &turns, deadline, mask)
    };
    for one in ours {
        one.conn.disarm(true, room(fds, one));
    }
    drain(ours);
    slept
}

/// Sleeps as the one who takes the bells of all connections that nobody else sleeps on; of the others it may miss one.
fn lead(
    fds: &mut [pollfd],
    ours: &[Ours],
    turns: &[u32],
    deadline: Option<Instant>,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    let mut left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
    let mut limit = |nap: Duration| left = Some(left.map_or(nap, |l| l.min(nap)));
    let mut led = Vec::with_capacity(ours.len());
    for (one, turn) in ours.iter().zip(turns) {
        match one.conn.lead(*turn) {
            Turn::Leader => led.push(one),
            Turn::Look => limit(Duration::ZERO),
            Turn::Follower => {
                one.conn.leave_turn();
                limit(NAP);
            }
        }
    }
    let slept = kernel(fds, ours, left, mask);
    led.iter().for_each(|one| one.conn.unlead());
    slept
}

/// Milliseconds of `poll`, where everything below zero is for ever.
pub fn timeout(milliseconds: c_int) -> Option<Duration> {
    u64::try_from(milliseconds).ok().map(Duration::from_millis)
}
