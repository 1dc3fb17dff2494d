//! Both ends in one thread: each call's result is printed. With and without the shim it has to be the same.

use std::mem::zeroed;

use crate::calls::{
    accept, check, close, connect, errno, listen, poll_now, read, recv, send, set_nonblocking,
    waiting, write,
};
use crate::{say, segments};

const ALL: i16 = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;

/// A result, with its error.
fn result(n: isize) -> String {
    if n < 0 {
        format!("error {}", errno())
    } else {
        n.to_string()
    }
}

/// Two ends that have exchanged enough for the shim to be in use.
fn pair(listener: i32, path: &str) -> (i32, i32) {
    let a = connect(path);
    let b = accept(listener, 0);
    for _ in 0..3 {
        for (from, to) in [(a, b), (b, a)] {
            assert_eq!(write(from, b"warm"), 4);
            let mut buffer = [0; 4];
            assert_eq!(read(to, &mut buffer), 4);
            assert_eq!(&buffer, b"warm");
        }
    }
    (a, b)
}

fn epoll() -> i32 {
    // SAFETY: a system call without memory.
    check(unsafe { libc::epoll_create1(0) })
}

fn control(ep: i32, op: i32, fd: i32, events: i32) -> String {
    let mut event = libc::epoll_event {
        events: events as u32,
        u64: 42,
    };
    // SAFETY: an event of this stack.
    result(unsafe { libc::epoll_ctl(ep, op, fd, &mut event) } as isize)
}

/// What epoll says now.
fn events(ep: i32) -> String {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 4];
    // SAFETY: a list of this stack.
    let n = check(unsafe { libc::epoll_wait(ep, events.as_mut_ptr(), 4, 0) });
    let events = events.iter().take(n as usize);
    let names = |e: u32| {
        let known = [
            (libc::EPOLLIN, "in"),
            (libc::EPOLLOUT, "out"),
            (libc::EPOLLRDHUP, "rdhup"),
            (libc::EPOLLHUP, "hup"),
            (libc::EPOLLERR, "err"),
        ];
        let set = known.iter().filter(|(bit, _)| e & *bit as u32 != 0);
        set.map(|(_, name)| *name).collect::<Vec<_>>().join("+")
    };
    events
        .map(|e| {
            let (data, bits) = (e.u64, e.events);
            format!("{data}:{}", names(bits))
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// All of it, in order.
pub fn run(path: &str) {
    let listener = listen(path);
    // SAFETY: a program without handlers ignores a signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    reading(listener, path);
    ends(listener, path);
    level(listener, path);
    edge(listener, path);
    room(listener, path);
    times(listener, path);
    // The test compares everything but this line.
    let (a, b) = pair(listener, path);
    say(&format!("# segments {}", segments()));
    close(a);
    close(b);
}

fn reading(listener: i32, path: &str) {
    let (a, b) = pair(listener, path);
    let mut buffer = [0; 16];
    say(&format!("poll empty {}", poll_now(b, ALL)));
    say(&format!("write {}", result(write(a, b"hello world"))));
    say(&format!("waiting {}", waiting(b)));
    say(&format!("poll {}", poll_now(b, ALL)));
    say(&format!(
        "peek {} {buffer:?}",
        result(recv(b, &mut buffer, libc::MSG_PEEK))
    ));
    say(&format!("read 5 {}", result(read(b, &mut buffer[..5]))));
    say(&format!("waiting {}", waiting(b)));
    say(&format!(
        "rest {} {buffer:?}",
        result(recv(b, &mut buffer, libc::MSG_DONTWAIT))
    ));
    say(&format!(
        "none {}",
        result(recv(b, &mut buffer, libc::MSG_DONTWAIT))
    ));
    say(&format!("write {}", result(send(a, b"0123456789", 0))));
    say(&format!(
        "all {} {buffer:?}",
        result(recv(b, &mut buffer[..10], libc::MSG_WAITALL))
    ));
    say(&format!("nothing to read {}", result(read(b, &mut []))));
    say(&format!("nothing to write {}", result(write(a, &[]))));
    set_nonblocking(b);
    say(&format!("none {}", result(read(b, &mut buffer))));
    let other = check(unsafe_dup(b));
    close(b);
    say(&format!("write {}", result(write(a, b"after dup"))));
    say(&format!(
        "read {} {buffer:?}",
        result(read(other, &mut buffer))
    ));
    say(&format!("none {}", result(read(other, &mut buffer))));
    close(other);
    say(&format!("end {}", result(read(a, &mut buffer))));
    say(&format!("pipe {}", result(write(a, b"x"))));
    say(&format!(
        "pipe {}",
        result(send(a, b"x", libc::MSG_NOSIGNAL))
    ));
    close(a);
}

fn unsafe_dup(fd: i32) -> i32 {
    // SAFETY: a system call without memory.
    unsafe { libc::dup(fd) }
}

fn shutdown(fd: i32, how: i32) {
    // SAFETY: a system call without memory.
    check(unsafe { libc::shutdown(fd, how) });
}

fn ends(listener: i32, path: &str) {
    let (a, b) = pair(listener, path);
    let mut buffer = [0; 16];
    write(a, b"last words");
    shutdown(a, libc::SHUT_WR);
    say(&format!("half closed {}", poll_now(b, ALL)));
    say(&format!("read {}", result(read(b, &mut buffer))));
    say(&format!("end {}", result(read(b, &mut buffer))));
    say(&format!("end {}", result(read(b, &mut buffer))));
    say(&format!("half closed {}", poll_now(b, ALL)));
    say(&format!("shut {}", result(write(a, b"x"))));
    say(&format!("back {}", result(write(b, b"answer"))));
    say(&format!("read {}", result(read(a, &mut buffer))));
    close(b);
    say(&format!("closed {}", poll_now(a, ALL)));
    say(&format!("end {}", result(read(a, &mut buffer))));
    close(a);

    let (a, b) = pair(listener, path);
    write(a, b"left behind");
    close(a);
    say(&format!("closed {}", poll_now(b, ALL)));
    say(&format!("read {}", result(read(b, &mut buffer))));
    say(&format!("end {}", result(read(b, &mut buffer))));
    close(b);

    let (a, b) = pair(listener, path);
    shutdown(b, libc::SHUT_RDWR);
    say(&format!("both {}", poll_now(a, ALL)));
    say(&format!("end {}", result(read(a, &mut buffer))));
    say(&format!("pipe {}", result(write(a, b"x"))));
    say(&format!("own end {}", result(read(b, &mut buffer))));
    close(a);
    close(b);
}

fn level(listener: i32, path: &str) {
    let (a, b) = pair(listener, path);
    let ep = epoll();
    let mut buffer = [0; 4];
    say(&format!(
        "unknown {}",
        control(ep, libc::EPOLL_CTL_MOD, b, libc::EPOLLIN)
    ));
    say(&format!(
        "add {}",
        control(ep, libc::EPOLL_CTL_ADD, b, libc::EPOLLIN | libc::EPOLLRDHUP)
    ));
    say(&format!(
        "twice {}",
        control(ep, libc::EPOLL_CTL_ADD, b, libc::EPOLLIN)
    ));
    say(&format!("idle {}", events(ep)));
    write(a, b"12345678");
    say(&format!("level {}", events(ep)));
    read(b, &mut buffer);
    say(&format!("level {}", events(ep)));
    read(b, &mut buffer);
    say(&format!("idle {}", events(ep)));
    say(&format!(
        "mod {}",
        control(ep, libc::EPOLL_CTL_MOD, b, libc::EPOLLIN | libc::EPOLLOUT)
    ));
    say(&format!("out {}", events(ep)));
    say(&format!(
        "mod {}",
        control(
            ep,
            libc::EPOLL_CTL_MOD,
            b,
            libc::EPOLLIN | libc::EPOLLONESHOT
        )
    ));
    write(a, b"1234");
    say(&format!("once {}", events(ep)));
    say(&format!("spent {}", events(ep)));
    say(&format!(
        "mod {}",
        control(
            ep,
            libc::EPOLL_CTL_MOD,
            b,
            libc::EPOLLIN | libc::EPOLLONESHOT
        )
    ));
    say(&format!("once {}", events(ep)));
    read(b, &mut buffer);
    say(&format!(
        "mod {}",
        control(ep, libc::EPOLL_CTL_MOD, b, libc::EPOLLIN | libc::EPOLLRDHUP)
    ));
    shutdown(a, libc::SHUT_WR);
    say(&format!("half {}", events(ep)));
    close(a);
    say(&format!("closed {}", events(ep)));
    say(&format!("del {}", control(ep, libc::EPOLL_CTL_DEL, b, 0)));
    say(&format!("gone {}", events(ep)));
    say(&format!("del {}", control(ep, libc::EPOLL_CTL_DEL, b, 0)));
    close(b);
    close(ep);
}

fn edge(listener: i32, path: &str) {
    let (a, b) = pair(listener, path);
    let ep = epoll();
    let mut buffer = [0; 4];
    control(ep, libc::EPOLL_CTL_ADD, b, libc::EPOLLIN | libc::EPOLLET);
    say(&format!("idle {}", events(ep)));
    write(a, b"12345678");
    say(&format!("edge {}", events(ep)));
    say(&format!("same {}", events(ep)));
    read(b, &mut buffer);
    say(&format!("part {}", events(ep)));
    write(a, b"more");
    say(&format!("new edge {}", events(ep)));
    say(&format!("same {}", events(ep)));
    control(ep, libc::EPOLL_CTL_MOD, b, libc::EPOLLIN | libc::EPOLLET);
    say(&format!("armed again {}", events(ep)));
    // A pipe beside it is heard as well.
    let mut pipe = [0; 2];
    // SAFETY: two numbers of this stack.
    check(unsafe { libc::pipe(pipe.as_mut_ptr()) });
    control(ep, libc::EPOLL_CTL_ADD, pipe[0], libc::EPOLLIN);
    write(pipe[1], b"x");
    say(&format!("pipe {}", events(ep)));
    close(b);
    say(&format!("closed {}", events(ep)));
    close(ep);
    close(a);
}

fn room(listener: i32, path: &str) {
    let (a, b) = pair(listener, path);
    let ep = epoll();
    set_nonblocking(a);
    control(ep, libc::EPOLL_CTL_ADD, a, libc::EPOLLOUT | libc::EPOLLET);
    say(&format!("room {}", events(ep)));
    let chunk = [7; 10_000];
    let mut sent = 0;
    loop {
        let n = write(a, &chunk);
        if n < 0 {
            break;
        }
        sent += n;
    }
    say(&format!("full {}", errno()));
    say(&format!(
        "no room {} {}",
        events(ep),
        poll_now(a, libc::POLLOUT)
    ));
    let mut got = 0;
    let mut buffer = [0; 7_000];
    while got < sent {
        got += read(b, &mut buffer);
    }
    say(&format!(
        "room {} {}",
        events(ep),
        poll_now(a, libc::POLLOUT)
    ));
    close(a);
    close(b);
    close(ep);
}

fn times(listener: i32, path: &str) {
    let (a, b) = pair(listener, path);
    let limit = libc::timeval {
        tv_sec: 0,
        tv_usec: 20_000,
    };
    let size = size_of::<libc::timeval>() as u32;
    // SAFETY: a time of this stack.
    check(unsafe {
        libc::setsockopt(
            b,
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const limit).cast(),
            size,
        )
    });
    let mut buffer = [0; 4];
    say(&format!("time is up {}", result(read(b, &mut buffer))));
    let mut p = libc::pollfd {
        fd: b,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one descriptor of this stack.
    say(&format!("time is up {}", unsafe {
        libc::poll(&mut p, 1, 5)
    }));
    // SAFETY: all-zero sets are empty.
    let mut set: libc::fd_set = unsafe { zeroed() };
    // SAFETY: a set of this stack.
    unsafe { libc::FD_SET(b, &mut set) };
    let (none, mut limit) = (std::ptr::null_mut(), limit);
    // SAFETY: as above.
    say(&format!("time is up {}", unsafe {
        libc::select(b + 1, &mut set, none, none, &mut limit)
    }));
    write(a, b"now");
    // SAFETY: as above.
    unsafe { libc::FD_SET(b, &mut set) };
    // SAFETY: as above.
    say(&format!("select {}", unsafe {
        libc::select(b + 1, &mut set, none, none, none.cast())
    }));
    close(a);
    close(b);
}
