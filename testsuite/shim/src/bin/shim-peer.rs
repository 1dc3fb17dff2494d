//! A program that knows nothing of the shim: servers and clients of a stream socket that use it in every way there is.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::io::{Read, Write};
use std::mem::zeroed;
use vernal_shim_tests::{Sizes, byte};

#[path = "shim-peer/calls.rs"]
mod calls;
#[path = "shim-peer/semantics.rs"]
mod semantics;

use calls::{accept, check, close, connect, errno, listen, read, set_nonblocking, write};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match words[..] {
        ["echo", path, how] => echo(path, how),
        ["soak", path, how, seed, bytes] => soak(path, how, number(seed), number(bytes)),
        ["semantics", path] => semantics::run(path),
        ["exec", path] => exec(path),
        ["cache", path, seed, count] => cache(path, number(seed), number(count)),
        _ => panic!("unknown: {words:?}"),
    }
}

/// Prints a line at once.
fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .expect("stdout");
}

/// Segments of the shim in this process: two for each connection that uses it.
fn segments() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    maps.lines()
        .filter(|l| l.contains("memfd:vernal-shim"))
        .count()
}

/// Ends with the test: it holds the other end of standard input.
fn die_with_the_test() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0; 1]);
        std::process::exit(0);
    });
}

fn echo(path: &str, how: &str) {
    let listener = listen(path);
    say("ready");
    die_with_the_test();
    match how {
        "thread" => loop {
            let fd = accept(listener, 0);
            std::thread::spawn(move || serve(fd));
        },
        "fork" => loop {
            let fd = accept(listener, 0);
            // SAFETY: the child only serves the connection, in this thread.
            match unsafe { libc::fork() } {
                0 => {
                    serve(fd);
                    // SAFETY: ends the child.
                    unsafe { libc::_exit(0) };
                }
                _ => close(fd),
            }
        },
        _ => Loop::new(listener, how).run(),
    }
}

/// Sends back what comes, until the end.
fn serve(fd: i32) {
    let mut buffer = vec![0; 50_000];
    loop {
        let n = read(fd, &mut buffer);
        if n <= 0 {
            break;
        }
        let mut done = 0;
        while done < n as usize {
            let m = write(fd, &buffer[done..n as usize]);
            if m <= 0 {
                return close(fd);
            }
            done += m as usize;
        }
    }
    close(fd);
}

/// An event loop for many connections.
struct Loop {
    listener: i32,
    how: String,
    ep: i32,
    /// What waits to be sent back, and whether the end has come.
    conns: HashMap<i32, (Vec<u8>, bool)>,
}

impl Loop {
    fn new(listener: i32, how: &str) -> Loop {
        set_nonblocking(listener);
        // SAFETY: a system call without memory.
        let ep = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) });
        let this = Loop {
            listener,
            how: how.to_owned(),
            ep,
            conns: HashMap::new(),
        };
        this.control(libc::EPOLL_CTL_ADD, listener, libc::EPOLLIN as u32);
        this
    }

    fn control(&self, op: i32, fd: i32, events: u32) {
        let mut event = libc::epoll_event {
            events,
            u64: fd as u64 | 7 << 32,
        };
        // SAFETY: an event of this stack.
        check(unsafe { libc::epoll_ctl(self.ep, op, fd, &mut event) });
    }

    fn wanted(&self, fd: i32) -> u32 {
        let waiting = self
            .conns
            .get(&fd)
            .is_some_and(|(bytes, _)| !bytes.is_empty());
        let out = if waiting { libc::EPOLLOUT } else { 0 };
        let base = match self.how.as_str() {
            "edge" => libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET,
            "oneshot" => libc::EPOLLIN | out | libc::EPOLLONESHOT,
            // Who waits for room does not read more: so the peer has to wait, too.
            _ if waiting => libc::EPOLLOUT,
            _ => libc::EPOLLIN,
        };
        base as u32
    }

    fn run(&mut self) {
        loop {
            for (fd, events) in self.wait() {
                if fd == self.listener {
                    self.accept();
                } else if self.conns.contains_key(&fd) {
                    self.turn(fd, events);
                }
            }
        }
    }

    fn accept(&mut self) {
        loop {
            // SAFETY: no address is wanted.
            let fd = unsafe {
                libc::accept4(
                    self.listener,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    libc::SOCK_NONBLOCK,
                )
            };
            if fd < 0 {
                return;
            }
            self.conns.insert(fd, (Vec::new(), false));
            if !matches!(self.how.as_str(), "poll" | "select") {
                self.control(libc::EPOLL_CTL_ADD, fd, self.wanted(fd));
            }
        }
    }

    /// What is ready.
    fn wait(&self) -> Vec<(i32, u32)> {
        match self.how.as_str() {
            "poll" => {
                let all = std::iter::once((self.listener, libc::EPOLLIN as u32));
                let all = all.chain(self.conns.keys().map(|&fd| (fd, self.wanted(fd))));
                let mut fds: Vec<libc::pollfd> = all
                    .map(|(fd, events)| libc::pollfd {
                        fd,
                        events: events as i16,
                        revents: 0,
                    })
                    .collect();
                // SAFETY: a list of this stack.
                check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as u64, -1) });
                let ready = fds.iter().filter(|p| p.revents != 0);
                ready.map(|p| (p.fd, p.revents as u32)).collect()
            }
            "select" => {
                let mut top = self.listener;
                // SAFETY: all-zero sets are empty.
                let (mut r, mut w): (libc::fd_set, libc::fd_set) = unsafe { zeroed() };
                // SAFETY: sets of this stack.
                unsafe { libc::FD_SET(self.listener, &mut r) };
                for &fd in self.conns.keys() {
                    let out = self.wanted(fd) & libc::EPOLLOUT as u32 != 0;
                    // SAFETY: as above.
                    unsafe { libc::FD_SET(fd, if out { &mut w } else { &mut r }) };
                    top = top.max(fd);
                }
                let none = std::ptr::null_mut();
                // SAFETY: as above.
                check(unsafe { libc::select(top + 1, &mut r, &mut w, none, none.cast()) });
                // SAFETY: as above.
                let ready = (0..=top)
                    .filter(|&fd| unsafe { libc::FD_ISSET(fd, &r) || libc::FD_ISSET(fd, &w) });
                ready
                    .map(|fd| (fd, (libc::EPOLLIN | libc::EPOLLOUT) as u32))
                    .collect()
            }
            _ => {
                let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
                // SAFETY: a list of this stack.
                let n = check(unsafe { libc::epoll_wait(self.ep, events.as_mut_ptr(), 8, -1) });
                let events = events.iter().take(n as usize);
                events
                    .map(|e| {
                        let (data, events) = (e.u64, e.events);
                        assert_eq!(data >> 32, 7, "data of the program");
                        (data as i32, events)
                    })
                    .collect()
            }
        }
    }

    fn turn(&mut self, fd: i32, _events: u32) {
        let edge = self.how == "edge";
        let (bytes, ended) = self.conns.get_mut(&fd).expect("known");
        let mut broken = false;
        let mut buffer = [0; 30_000];
        // Edges: both directions until they say no. Levels: once each.
        loop {
            let mut progress = false;
            if !*ended && bytes.len() < 200_000 {
                match read(fd, &mut buffer) {
                    0 => (*ended, progress) = (true, true),
                    n if n > 0 => {
                        bytes.extend_from_slice(&buffer[..n as usize]);
                        progress = true;
                    }
                    _ => broken = errno() != libc::EAGAIN,
                }
            }
            if !bytes.is_empty() && !broken {
                match write(fd, bytes) {
                    n if n >= 0 => {
                        bytes.drain(..n as usize);
                        progress |= n > 0;
                    }
                    _ => broken = errno() != libc::EAGAIN,
                }
            }
            if broken || !edge || !progress {
                break;
            }
        }
        if broken || (*ended && bytes.is_empty()) {
            self.conns.remove(&fd);
            close(fd);
            return;
        }
        match self.how.as_str() {
            "edge" | "poll" | "select" => {}
            _ => self.control(libc::EPOLL_CTL_MOD, fd, self.wanted(fd)),
        }
    }
}

/// Sends a stream whose bytes both sides can compute, and checks what comes back: until the end, or until the server is gone.
fn soak(path: &str, how: &str, seed: u64, bytes: u64) {
    let fd = connect(path);
    let wrote = match how {
        // Half of it by a child, then the rest.
        "fork" => {
            // One round trip, so that there is something to share.
            send(fd, seed, 0, 1, Sizes(seed | 1));
            receive(fd, seed, 0, 1);
            send(fd, seed, 1, 2, Sizes(seed | 1));
            receive(fd, seed, 1, 2);
            // SAFETY: the child only writes, in this thread.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let to = send(fd, seed, 2, bytes / 2, Sizes(seed | 1));
                // SAFETY: ends the child.
                unsafe { libc::_exit(i32::from(to != bytes / 2)) };
            }
            let writer = std::thread::spawn(move || {
                let mut status = 0;
                // SAFETY: a status of this stack.
                unsafe { libc::waitpid(child, &mut status, 0) };
                assert_eq!(status, 0, "the child has written its half");
                let to = send(fd, seed, bytes / 2, bytes, Sizes(seed | 1));
                // SAFETY: a system call without memory.
                unsafe { libc::shutdown(fd, libc::SHUT_WR) };
                to
            });
            let got = receive(fd, seed, 2, u64::MAX);
            return done(fd, writer.join().expect("the writer"), got, bytes);
        }
        "nonblocking" => return nonblocking(fd, seed, bytes),
        "dup" => {
            // SAFETY: system calls without memory.
            let other = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 100) };
            std::thread::spawn(move || {
                let to = send(other, seed, 0, bytes, Sizes(seed | 1));
                // SAFETY: as above.
                unsafe { libc::shutdown(other, libc::SHUT_WR) };
                close(other);
                to
            })
        }
        _ => std::thread::spawn(move || {
            let to = send(fd, seed, 0, bytes, Sizes(seed | 1));
            // SAFETY: a system call without memory.
            unsafe { libc::shutdown(fd, libc::SHUT_WR) };
            to
        }),
    };
    let got = receive(fd, seed, 0, u64::MAX);
    done(fd, wrote.join().expect("the writer"), got, bytes);
}

fn done(fd: i32, wrote: u64, got: u64, bytes: u64) {
    let all = if wrote == bytes && got == bytes {
        "all"
    } else {
        "part"
    };
    say(&format!("{all} segments {}", segments()));
    close(fd);
}

/// Writes bytes `from` to `to`; how far it came.
fn send(fd: i32, seed: u64, from: u64, to: u64, mut sizes: Sizes) -> u64 {
    let mut at = from;
    while at < to {
        let size = sizes.next((to - at).min(1 << 17) as usize) as u64;
        let chunk: Vec<u8> = (at..at + size).map(|at| byte(seed, at)).collect();
        let n = if size.is_multiple_of(3) {
            let (a, b) = chunk.split_at(chunk.len() / 2);
            calls::writev(fd, [a, b])
        } else {
            calls::send(fd, &chunk, libc::MSG_NOSIGNAL)
        };
        if n <= 0 {
            return at;
        }
        at += n as u64;
    }
    at
}

/// Reads and checks bytes `from` to `to`; how far it came.
fn receive(fd: i32, seed: u64, from: u64, to: u64) -> u64 {
    let mut sizes = Sizes(seed | 2);
    let mut at = from;
    let mut reported = from;
    while at < to {
        let mut buffer = vec![0; sizes.next((to - at).min(1 << 17) as usize)];
        let n = read(fd, &mut buffer);
        if n <= 0 {
            return at;
        }
        for (i, &found) in buffer[..n as usize].iter().enumerate() {
            let at = at + i as u64;
            assert_eq!(found, byte(seed, at), "byte {at} of seed {seed}");
        }
        at += n as u64;
        if at - reported > 1 << 18 {
            reported = at;
            say("on");
        }
    }
    at
}

/// One thread that never blocks but in `poll`.
fn nonblocking(fd: i32, seed: u64, bytes: u64) {
    set_nonblocking(fd);
    let (mut sizes, mut wrote, mut got) = (Sizes(seed | 1), 0, 0);
    loop {
        let mut p = libc::pollfd {
            fd,
            events: libc::POLLIN | if wrote < bytes { libc::POLLOUT } else { 0 },
            revents: 0,
        };
        // SAFETY: one descriptor of this stack.
        check(unsafe { libc::poll(&mut p, 1, -1) });
        if p.revents & libc::POLLOUT != 0 && wrote < bytes {
            let size = sizes.next((bytes - wrote).min(1 << 17) as usize) as u64;
            let chunk: Vec<u8> = (wrote..wrote + size).map(|at| byte(seed, at)).collect();
            let n = write(fd, &chunk);
            assert!(n > 0, "poll says that there is room: {}", errno());
            wrote += n as u64;
            if wrote == bytes {
                // SAFETY: a system call without memory.
                unsafe { libc::shutdown(fd, libc::SHUT_WR) };
            }
        }
        if p.revents & (libc::POLLIN | libc::POLLHUP) != 0 {
            let mut buffer = vec![0; sizes.next(1 << 17)];
            match read(fd, &mut buffer) {
                0 => return done(fd, wrote, got, bytes),
                n if n > 0 => {
                    let read = buffer[..n as usize].iter();
                    read.enumerate()
                        .for_each(|(i, &b)| assert_eq!(b, byte(seed, got + i as u64)));
                    got += n as u64;
                }
                _ => assert_eq!(errno(), libc::EAGAIN),
            }
        }
    }
}

/// A connection in use is closed by `exec`, and one that is not is the socket.
fn exec(path: &str) {
    let used = connect(path);
    for at in 0..3 {
        send(used, 1, at, at + 1, Sizes(1));
        receive(used, 1, at, at + 1);
    }
    let fresh = connect(path);
    let shell = CString::new("/bin/sh").expect("no zero");
    let script = format!(
        "test -e /proc/self/fd/{used} && echo used open || echo used closed; \
         printf hello >&{fresh}; dd bs=5 count=1 <&{fresh} 2>/dev/null; echo"
    );
    let script = CString::new(script).expect("no zero");
    say(&format!("segments {}", segments()));
    let arguments = [
        shell.as_ptr(),
        c"-c".as_ptr(),
        script.as_ptr(),
        std::ptr::null(),
    ];
    // SAFETY: strings that end with zero, a list that ends with null.
    unsafe { libc::execv(shell.as_ptr(), arguments.as_ptr()) };
    let _: *const c_void = std::ptr::null();
    panic!("exec: {}", errno());
}

/// A client of memcached over an ordinary stream: sets values of all sizes, gets them, counts, deletes.
fn cache(path: &str, seed: u64, count: u64) {
    let mut stream = std::os::unix::net::UnixStream::connect(path).expect("memcached");
    let mut sizes = Sizes(seed | 1);
    let mut ask = |request: &[u8], end: &[u8]| {
        stream.write_all(request).expect("memcached reads");
        let mut reply = Vec::new();
        let mut buffer = [0; 30_000];
        while !reply.ends_with(end) {
            let n = stream.read(&mut buffer).expect("memcached writes");
            assert!(n > 0, "memcached has closed the connection after {reply:?}");
            reply.extend_from_slice(&buffer[..n]);
        }
        reply
    };
    for at in 0..count {
        let key = format!("k{seed}-{at}");
        let value: Vec<u8> = (0..sizes.next(1 << 17) as u64)
            .map(|i| byte(seed + at, i))
            .collect();
        let head = format!("set {key} 0 0 {}\r\n", value.len());
        let set = [head.as_bytes(), &value, b"\r\n"].concat();
        assert_eq!(ask(&set, b"\r\n"), b"STORED\r\n");
        let head = format!("VALUE {key} 0 {}\r\n", value.len());
        let found = [head.as_bytes(), &value, b"\r\nEND\r\n"].concat();
        for _ in 0..3 {
            assert_eq!(
                ask(format!("get {key}\r\n").as_bytes(), b"\r\nEND\r\n"),
                found
            );
        }
    }
    assert_eq!(ask(b"get none\r\n", b"END\r\n"), b"END\r\n");
    say(&format!("all segments {}", segments()));
}
