//! Reading and writing a connection: what one call finds now, and how a call waits.

use libc::{c_int, iovec};
use rustix::event::PollFlags;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, socket_timeout};
use std::cell::Cell;
use std::time::Instant;
use vernal_ring::{Backoff, Corrupt, Step, StreamConsumer, StreamProducer};

use crate::conn::{Conn, Rx, Source, Tx, kernel_events};
use crate::sleep::Turn;
use crate::{config, table};

/// What a call says with its flags, and whether the socket blocks.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Do not wait.
    pub now: bool,
    /// Look, do not take.
    pub peek: bool,
    /// Wait until all is there.
    pub all: bool,
}

thread_local! {
    static BACKOFF: Cell<Option<Backoff>> = const { Cell::new(None) };
}

/// This thread's memory of how long looking has paid.
pub fn backoff() -> Backoff {
    BACKOFF
        .get()
        .unwrap_or_else(|| Backoff::new(config::get().wait))
}

/// Keeps it.
pub fn keep_backoff(backoff: Backoff) {
    BACKOFF.set(Some(backoff));
}

fn reset(_: Corrupt) -> Errno {
    Errno::CONNRESET
}

/// The parts of a buffer, `skip` bytes of which are done.
fn parts(iov: &[iovec], skip: usize) -> impl Iterator<Item = (*mut u8, usize)> {
    let mut skip = skip;
    iov.iter().filter_map(move |part| {
        let done = skip.min(part.iov_len);
        skip -= done;
        // In bounds: at most the part's length.
        let at = part.iov_base.cast::<u8>().wrapping_add(done);
        (part.iov_len > done).then_some((at, part.iov_len - done))
    })
}

fn total(iov: &[iovec]) -> usize {
    iov.iter()
        .fold(0, |sum, part| sum.saturating_add(part.iov_len))
}

/// As many of the parts of a buffer as make `limit` bytes, from the `skip`-th byte on.
fn window(iov: &[iovec], skip: usize, limit: usize) -> Vec<iovec> {
    let mut left = limit;
    let mut window = Vec::with_capacity(iov.len());
    for (at, len) in parts(iov, skip) {
        let iov_len = len.min(left);
        if iov_len == 0 {
            break;
        }
        left -= iov_len;
        window.push(iovec {
            iov_base: at.cast(),
            iov_len,
        });
    }
    window
}

fn status(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| last_error())
}

/// What the last call of the C library has left in errno.
pub fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The socket itself, at once.
fn socket_read(fd: BorrowedFd<'_>, iov: &mut [iovec], flags: c_int) -> Result<usize, Errno> {
    // SAFETY: all-zero is a message without parts.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = iov.as_mut_ptr();
    message.msg_iovlen = iov.len();
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: the parts are those of the program's call, or of this thread's stack.
    status(
        unsafe { libc::syscall(libc::SYS_recvmsg, fd.as_raw_fd(), &mut message, flags) } as isize,
    )
}

fn socket_write(fd: BorrowedFd<'_>, iov: &mut [iovec]) -> Result<usize, Errno> {
    // SAFETY: as above.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = iov.as_mut_ptr();
    message.msg_iovlen = iov.len();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: as above.
    status(unsafe { libc::syscall(libc::SYS_sendmsg, fd.as_raw_fd(), &message, flags) } as isize)
}

/// Reads what is there. `AGAIN`: nothing, and it is not the end.
fn try_read(
    conn: &Conn,
    fd: BorrowedFd<'_>,
    iov: &[iovec],
    done: usize,
    peek: bool,
) -> Result<usize, Errno> {
    let mut guard = conn.rx();
    let rx = &mut *guard;
    loop {
        if rx.broken {
            return Err(Errno::CONNRESET);
        }
        conn.follow(rx);
        match rx.source {
            Source::Ring => return from_ring(conn, fd, rx, iov, done, peek),
            Source::Socket | Source::Rest(_) => {
                if let Some(n) = from_socket(conn, fd, rx, iov, done, peek)? {
                    return Ok(n);
                }
            }
        }
    }
}

/// `None`: only bells were there, and the ring goes on.
fn from_socket(
    conn: &Conn,
    fd: BorrowedFd<'_>,
    rx: &mut Rx,
    iov: &[iovec],
    done: usize,
    peek: bool,
) -> Result<Option<usize>, Errno> {
    let limit = match rx.source {
        Source::Rest(n) => usize::try_from(n).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    let flags = if peek { libc::MSG_PEEK } else { 0 };
    let mut n = match socket_read(fd, &mut window(iov, done, limit), flags) {
        Ok(n) => n as u64,
        Err(e) => {
            let before = rx.source;
            conn.follow(rx);
            // A peer that went over and closed with bells unread resets the socket, and not the stream.
            return if rx.source == before {
                Err(e)
            } else {
                Ok(None)
            };
        }
    };
    let ended = n == 0;
    conn.follow(rx);
    match &mut rx.source {
        // The last of what was read may be bells: the peer went over before it rang.
        Source::Rest(left) => {
            n = n.min(*left);
            if !peek {
                *left -= n;
            }
        }
        // Nothing of the stream was left: all of it was bells.
        Source::Ring => n = 0,
        Source::Socket => {}
    }
    if !peek {
        rx.from_socket += n;
    }
    if n > 0 {
        return Ok(Some(n as usize));
    }
    if ended {
        conn.ended(rx, fd);
    }
    match rx.source {
        // What was promised and does not come will not come.
        Source::Socket | Source::Rest(1..) => Ok(Some(0)),
        _ => Ok(None),
    }
}

fn from_ring(
    conn: &Conn,
    fd: BorrowedFd<'_>,
    rx: &mut Rx,
    iov: &[iovec],
    done: usize,
    peek: bool,
) -> Result<usize, Errno> {
    let broken = |rx: &mut Rx, e: Corrupt| {
        rx.broken = true;
        reset(e)
    };
    let Some(consumer) = &mut rx.consumer else {
        return Err(Errno::AGAIN);
    };
    match fill(consumer, iov, done, peek) {
        Ok(0) => {}
        Ok(n) => {
            rx.vain = 0;
            if consumer.must_wake() {
                conn.bell_for_room(fd);
            }
            return Ok(n);
        }
        Err(e) => return Err(broken(rx, e)),
    }
    match conn.at_end(rx) {
        Ok(true) => Ok(0),
        Ok(false) => Err(Errno::AGAIN),
        Err(e) => Err(broken(rx, e)),
    }
}

fn fill<O: vernal_ring::OwnWords, P: vernal_ring::PeerWords>(
    consumer: &mut StreamConsumer<O, P>,
    iov: &[iovec],
    done: usize,
    peek: bool,
) -> Result<usize, Corrupt> {
    let mut sum = 0;
    for (at, len) in parts(iov, done) {
        // SAFETY: a part of the buffer that the program has given to this call; its bytes are only written.
        let bytes = unsafe { std::slice::from_raw_parts_mut(at, len) };
        let n = match peek {
            true => consumer.peek(sum, bytes)?,
            false => consumer.read(bytes)?,
        };
        sum += n;
        if n < len {
            break;
        }
    }
    Ok(sum)
}

/// Writes what there is room for. `AGAIN`: none.
fn try_write(conn: &Conn, fd: BorrowedFd<'_>, iov: &[iovec], done: usize) -> Result<usize, Errno> {
    let mut guard = conn.tx();
    let tx = &mut *guard;
    if tx.broken {
        return Err(Errno::CONNRESET);
    }
    if tx.shut {
        return Err(Errno::PIPE);
    }
    conn.switch(tx);
    if !tx.switched {
        let n =
            socket_write(fd, &mut window(iov, done, usize::MAX)).inspect_err(|_| tx.full += 1)?;
        tx.to_socket += n as u64;
        return Ok(n);
    }
    if conn.is_gone() {
        return Err(Errno::PIPE);
    }
    let Some(producer) = &mut tx.producer else {
        return Err(Errno::CONNRESET);
    };
    match pour(producer, iov, done) {
        Ok(0) => {
            tx.full += 1;
            Err(Errno::AGAIN)
        }
        Ok(n) => {
            producer.publish();
            if producer.must_wake() {
                conn.bell(fd);
            }
            Ok(n)
        }
        Err(e) => {
            tx.broken = true;
            Err(reset(e))
        }
    }
}

fn pour<O: vernal_ring::OwnWords, P: vernal_ring::PeerWords>(
    producer: &mut StreamProducer<O, P>,
    iov: &[iovec],
    done: usize,
) -> Result<usize, Corrupt> {
    let mut sum = 0;
    for (at, len) in parts(iov, done) {
        // SAFETY: a part of the buffer that the program has given to this call.
        let bytes = unsafe { std::slice::from_raw_parts(at, len) };
        let n = producer.write(bytes)?;
        sum += n;
        if n < len {
            break;
        }
    }
    Ok(sum)
}

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Bytes,
    Room,
}

/// Whether a call could go on, from memory alone if that can say it.
fn ready(conn: &Conn, fd: BorrowedFd<'_>, what: For) -> bool {
    match what {
        For::Bytes => {
            let mut guard = conn.rx();
            let rx: &mut Rx = &mut guard;
            conn.follow(rx);
            if rx.source != Source::Ring {
                return rx.broken || kernel_events(fd, PollFlags::IN) != PollFlags::empty();
            }
            let there = rx.consumer.as_mut().is_none_or(|c| c.available() != Ok(0));
            rx.broken || there || conn.at_end(rx) != Ok(false)
        }
        For::Room => {
            let mut guard = conn.tx();
            let tx: &mut Tx = &mut guard;
            conn.switch(tx);
            if !tx.switched {
                return kernel_events(fd, PollFlags::OUT) != PollFlags::empty();
            }
            let room = tx.producer.as_mut().is_none_or(|p| p.room() != Ok(0));
            room || tx.broken || tx.shut || conn.is_gone()
        }
    }
}

/// Waits; an error ends the call. It may return for no reason.
fn wait(conn: &Conn, fd: BorrowedFd<'_>, what: For) -> Result<(), Errno> {
    let mut backoff = backoff();
    let mut waiting = backoff.begin(None);
    // The socket's own limit, asked for when looking at memory has not helped.
    let mut limit: Option<Option<Instant>> = None;
    let result = loop {
        if ready(conn, fd, what) {
            break Ok(());
        }
        let in_kernel = match what {
            For::Bytes => conn.rx().source != Source::Ring,
            For::Room => !conn.tx().switched,
        };
        // Each look at a socket is a system call: the kernel waits better.
        let step = if in_kernel {
            Step::Sleep
        } else {
            backoff.step(&mut waiting)
        };
        if step != Step::Look
            && let Some(limit) = *limit.get_or_insert_with(|| time_limit(fd, what))
            && limit <= Instant::now()
        {
            break Err(Errno::AGAIN);
        }
        match step {
            Step::Look => {}
            Step::Check => {
                let mut rx = conn.rx();
                conn.drain(&mut rx, fd);
            }
            Step::Sleep => {
                if let Err(e) = sleep(conn, fd, what) {
                    break Err(e);
                }
            }
        }
    };
    backoff.end(waiting);
    keep_backoff(backoff);
    result
}

/// When `SO_RCVTIMEO` or `SO_SNDTIMEO` ends a call that begins now.
fn time_limit(fd: BorrowedFd<'_>, what: For) -> Option<Instant> {
    let timeout = match what {
        For::Bytes => Timeout::Recv,
        For::Room => Timeout::Send,
    };
    let limit = socket_timeout(fd, timeout).ok().flatten();
    limit.map(|limit| Instant::now() + limit)
}

/// Sleeps until a bell comes, unless there is something to do after all.
fn sleep(conn: &Conn, fd: BorrowedFd<'_>, what: For) -> Result<(), Errno> {
    let (bytes, room) = (what == For::Bytes, what == For::Room);
    let turn = conn.turn();
    conn.arm(fd, bytes, room);
    let slept = if ready(conn, fd, what) {
        Ok(())
    } else {
        block(conn, fd, what, turn)
    };
    conn.disarm(bytes, room);
    slept
}

fn block(conn: &Conn, fd: BorrowedFd<'_>, what: For, turn: u32) -> Result<(), Errno> {
    let (ring, eof) = {
        let rx = conn.rx();
        (rx.source == Source::Ring, rx.eof)
    };
    // Room in the socket is no bell either.
    if what == For::Room && (!ring || eof || !conn.tx().switched) {
        return nap(conn, fd, ring);
    }
    if !ring {
        // Bytes of the stream stay where they are.
        return listen(conn, fd, 1, libc::MSG_PEEK);
    }
    match conn.lead(turn) {
        Turn::Look => Ok(()),
        Turn::Follower => {
            conn.await_turn(turn);
            Ok(())
        }
        Turn::Leader => {
            let heard = listen(conn, fd, 64, 0);
            conn.unlead();
            heard
        }
    }
}

/// Sleeps in the socket until a byte comes, or its end.
fn listen(conn: &Conn, fd: BorrowedFd<'_>, len: usize, flags: c_int) -> Result<(), Errno> {
    let mut bells = [0_u8; 64];
    let len = len.min(bells.len());
    let at = bells.as_mut_ptr();
    // SAFETY: a buffer of this thread.
    let got = unsafe { libc::syscall(libc::SYS_recvfrom, fd.as_raw_fd(), at, len, flags, 0, 0) };
    match status(got as isize) {
        Ok(1..) => Ok(()),
        // The socket's time limit is over, or somebody has made it non-blocking meanwhile; or a signal has come.
        Err(e @ (Errno::AGAIN | Errno::INTR)) => Err(e),
        Ok(0) | Err(_) => {
            let mut rx = conn.rx();
            conn.follow(&mut rx);
            conn.ended(&mut rx, fd);
            Ok(())
        }
    }
}

/// Waits for room a little: where the socket has ended, or still carries bytes that the program has not read, it is no bell.
fn nap(conn: &Conn, fd: BorrowedFd<'_>, ring: bool) -> Result<(), Errno> {
    let wanted = if conn.tx().switched {
        PollFlags::empty()
    } else {
        PollFlags::OUT
    };
    let nap = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, wanted)];
    rustix::event::poll(&mut fds, Some(&nap))?;
    if ring {
        // Whether anybody is there shows when the bell cannot be sent.
        conn.bell_for_room(fd);
    }
    Ok(())
}

/// `read` and its family. `None`: the connection stays with the socket, which has to be asked instead.
pub fn read(
    conn: &Conn,
    fd: BorrowedFd<'_>,
    iov: &[iovec],
    mode: Mode,
) -> Option<Result<usize, Errno>> {
    if total(iov) == 0 {
        return Some(Ok(0));
    }
    let mut done = 0;
    loop {
        match reading(conn, fd, iov, mode, &mut done) {
            Some(_) if done > 0 => return Some(Ok(done)),
            Some(result) => return Some(result),
            None if done == 0 && table::conn(fd.as_raw_fd()).is_none() => return None,
            None => {}
        }
    }
}

/// Reads until there is a result; `None` after each wait.
fn reading(
    conn: &Conn,
    fd: BorrowedFd<'_>,
    iov: &[iovec],
    mode: Mode,
    done: &mut usize,
) -> Option<Result<usize, Errno>> {
    let wanted = total(iov);
    let now = mode.now || conn.nonblocking();
    loop {
        match try_read(conn, fd, iov, *done, mode.peek) {
            Ok(0) => return Some(Ok(0)),
            Ok(n) => {
                *done += n;
                if !mode.all || mode.peek || *done == wanted {
                    return Some(Ok(n));
                }
            }
            Err(Errno::AGAIN) if now => {
                conn.in_vain(&mut conn.rx(), fd);
                return Some(Err(Errno::AGAIN));
            }
            Err(Errno::AGAIN) => return wait(conn, fd, For::Bytes).err().map(Err),
            Err(e) => return Some(Err(e)),
        }
    }
}

/// `write` and its family. A broken pipe is for the caller to signal.
pub fn write(conn: &Conn, fd: BorrowedFd<'_>, iov: &[iovec], mode: Mode) -> Result<usize, Errno> {
    let wanted = total(iov);
    if wanted == 0 {
        return Ok(0);
    }
    let now = mode.now || conn.nonblocking();
    let mut done = 0;
    loop {
        let error = match try_write(conn, fd, iov, done) {
            Ok(n) => {
                done += n;
                if done == wanted {
                    return Ok(done);
                }
                continue;
            }
            Err(Errno::AGAIN) if !now => wait(conn, fd, For::Room).err(),
            Err(e) => Some(e),
        };
        match error {
            None => {}
            Some(e) if done == 0 => return Err(e),
            Some(_) => return Ok(done),
        }
    }
}

/// Bytes that can be read now: `FIONREAD`.
pub fn available(conn: &Conn, fd: BorrowedFd<'_>) -> u64 {
    let mut guard = conn.rx();
    let rx: &mut Rx = &mut guard;
    conn.follow(rx);
    let in_ring = rx.consumer.as_mut().map_or(0, |c| match c.refresh() {
        Ok(tail) => tail.wrapping_sub(c.taken()),
        Err(_) => 0,
    });
    let in_socket = || rustix::io::ioctl_fionread(fd).unwrap_or(0);
    match rx.source {
        Source::Ring => in_ring,
        Source::Rest(left) => in_socket().min(left) + in_ring,
        Source::Socket => in_socket(),
    }
}
