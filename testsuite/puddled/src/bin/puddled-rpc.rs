//! A process with channels, connections and segments: it speaks puddled's protocol and maps memory, and does what it is told.
//!
//! ```text
//! open NAME MODE [OWNER GROUP]            accept              try-accept          close CHANNEL
//! connect NAME           leave CONN          hangup CONN (waits for it)
//! wake CONN TIMES        woken CONN (waits for it)
//! make conn|channel ID BYTES (memory, not mapped)      map SEG      ready SEG
//! new conn|channel ID BYTES (all three)                lease SEG    drop SEG
//! write SEG OFFSET TEXT  read SEG OFFSET LENGTH        attack SEG
//! many NAME COUNT BYTES  (connections, one segment each)            serve COUNT BYTES (accepts so many, one segment each)
//! channels               conns               segments               status    quota UID
//! reconnect SOCKET       address SEG         deafen CHANNEL (its socket goes, and puddled is not told)
//! ```

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals};
use vernal_puddled_client::{ChannelSpec, Client, ClientError, Connected, Link, Listener, Segment};
use vernal_puddled_proto::{ChannelId, ConnId, ErrorCode, SegmentId, SegmentOf};

/// `mmap(2)`.
const READ: i32 = 1;
const WRITE: i32 = 2;
const SHARED: i32 = 1;
const FIXED_NOREPLACE: i32 = 0x10_0000;

/// How long a wait may take before it is an error.
const PATIENCE: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};

type Answer = Result<String, String>;

fn local(e: impl Display) -> String {
    format!("Local {e}")
}

fn refused(e: ClientError) -> String {
    match e.code() {
        Some(code) => format!("{code:?} {e}"),
        None => format!("Client {e}"),
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(local)
}

fn hex(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(local)
}

struct Held {
    segment: Segment,
    mapped: bool,
}

impl Held {
    fn map(&mut self, prot: i32) -> Result<(), String> {
        let info = self.segment.info;
        let flags = SHARED | FIXED_NOREPLACE;
        let fd = self.segment.file.as_raw_fd();
        // SAFETY: a place that nothing is mapped at, or the call fails.
        let at = unsafe { vernal_sys::mem::mmap(info.addr, info.size, prot, flags, fd, 0) };
        let at = at.map_err(local)?;
        if at != info.addr {
            return Err(local("mapped elsewhere"));
        }
        self.mapped = true;
        Ok(())
    }

    fn unmap(&mut self) -> Result<(), String> {
        let info = self.segment.info;
        if std::mem::take(&mut self.mapped) {
            // SAFETY: mapped by `map`, and this program keeps no pointers into it.
            unsafe { vernal_sys::mem::munmap(info.addr, info.size) }.map_err(local)?;
        }
        Ok(())
    }

    fn at(&self, offset: u64, len: u64) -> Result<*mut u8, String> {
        let info = self.segment.info;
        let fits = offset.checked_add(len).is_some_and(|end| end <= info.size);
        if self.mapped && fits {
            Ok((info.addr + offset) as *mut u8)
        } else {
            Err(local("not mapped there"))
        }
    }

    /// What whoever holds the descriptor, or the mapping, might try: the names of what succeeded.
    fn attack(&self) -> String {
        let info = self.segment.info;
        let file = &self.segment.file;
        let fd = file.as_raw_fd();
        let mapped = |fd: i32, prot: i32| {
            // SAFETY: at a place of the kernel's choice; unmapped again at once.
            let at = unsafe { vernal_sys::mem::mmap(0, info.size, prot, SHARED, fd, 0) };
            // SAFETY: as above.
            at.is_ok_and(|at| unsafe { vernal_sys::mem::munmap(at, info.size) }.is_ok())
        };
        let path = format!("/proc/self/fd/{fd}");
        let again = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path);
        let file_of = |f: &File| f.write_all_at(b"evil", 0).is_ok();
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let mut through = Vec::new();
        let mut tried = |name: &'static str, succeeded: bool| {
            if succeeded {
                through.push(name);
            }
        };
        tried("truncate", file.set_len(4096).is_ok());
        tried("extend", file.set_len(info.size * 2).is_ok());
        tried("write", file_of(file));
        tried("punch", fallocate(file, punch, 0, 4096).is_ok());
        tried("map", mapped(fd, READ | WRITE));
        tried("seal", fcntl_add_seals(file, SealFlags::WRITE).is_ok());
        if let Ok(again) = &again {
            tried("reopen-truncate", again.set_len(4096).is_ok());
            tried("reopen-write", file_of(again));
            tried("reopen-punch", fallocate(again, punch, 0, 4096).is_ok());
            tried("reopen-map", mapped(again.as_raw_fd(), READ | WRITE));
        }
        if self.mapped {
            // SAFETY: changes what this program may do with its own mapping; a store follows only if it is allowed.
            let writable =
                unsafe { vernal_sys::mem::mprotect(info.addr, info.size, READ | WRITE) }.is_ok();
            tried("mprotect", writable);
        }
        through.join(" ")
    }
}

struct Program {
    client: Client,
    channels: BTreeMap<ChannelId, Listener>,
    links: BTreeMap<ConnId, Link>,
    segments: BTreeMap<SegmentId, Held>,
}

fn wait(fd: &impl AsFd, events: PollFlags) -> Result<PollFlags, String> {
    let mut fds = [PollFd::new(fd, events)];
    match poll(&mut fds, Some(&PATIENCE)) {
        Ok(0) => Err(local("waited too long")),
        Ok(_) => Ok(fds[0].revents()),
        Err(e) => Err(local(e)),
    }
}

impl Program {
    fn held(&mut self, id: &str) -> Result<&mut Held, String> {
        self.segments
            .get_mut(&SegmentId(hex(id)?))
            .ok_or_else(|| local("no such segment here"))
    }

    fn link(&self, id: &str) -> Result<&Link, String> {
        self.links
            .get(&ConnId(hex(id)?))
            .ok_or_else(|| local("no such connection here"))
    }

    fn of(what: &str, id: &str) -> Result<SegmentOf, String> {
        match what {
            "conn" => Ok(SegmentOf::Conn(ConnId(hex(id)?))),
            "channel" => Ok(SegmentOf::Channel(ChannelId(hex(id)?))),
            _ => Err(local("conn or channel")),
        }
    }

    fn make(&mut self, of: SegmentOf, size: u64) -> Result<SegmentId, String> {
        let segment = self.client.segment(of, size).map_err(refused)?;
        let id = segment.info.segment;
        let held = Held {
            segment,
            mapped: false,
        };
        self.segments.insert(id, held);
        Ok(id)
    }

    fn new_segment(&mut self, of: SegmentOf, size: u64) -> Result<SegmentId, String> {
        let id = self.make(of, size)?;
        self.held(&id.to_string())?.map(READ | WRITE)?;
        self.client.segment_ready(id).map_err(refused)?;
        Ok(id)
    }

    /// Connects to a server that may be busy with others.
    fn connect_patiently(&mut self, name: &str) -> Result<Connected, ClientError> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match self.client.connect_to(name) {
                Err(e) if e.code() == Some(ErrorCode::Busy) && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                other => return other,
            }
        }
    }

    fn lease(&mut self, id: &str) -> Answer {
        let segment = self
            .client
            .segment_map(SegmentId(hex(id)?))
            .map_err(refused)?;
        let seals = fcntl_get_seals(&segment.file).map_err(local)?;
        let must = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        if !seals.contains(must) {
            return Err(local(format!("the seals are {seals:?}")));
        }
        let id = segment.info.segment;
        let mut held = Held {
            segment,
            mapped: false,
        };
        if self.segments.contains_key(&id) {
            return Ok("again".to_owned());
        }
        held.map(READ)?;
        let text = format!("{:#x} {}", held.segment.info.addr, held.segment.info.size);
        self.segments.insert(id, held);
        Ok(text)
    }

    fn arrived(&mut self, arrival: vernal_puddled_client::Arrival) -> String {
        let who = arrival.client;
        self.links.insert(arrival.conn, arrival.link);
        format!("{} {} {}", arrival.conn, who.uid, who.pid)
    }

    fn obey(&mut self, words: &[&str]) -> Answer {
        match words {
            ["open", name, mode, rest @ ..] => {
                let mut ids = [None; 2];
                for (id, text) in ids.iter_mut().zip(rest) {
                    *id = Some(number(text)? as u32);
                }
                let spec = ChannelSpec {
                    name: (*name).to_owned(),
                    owner: ids[0],
                    group: ids[1],
                    mode: u16::from_str_radix(mode, 8).map_err(local)?,
                };
                let listener = self.client.channel_open(&spec).map_err(refused)?;
                let id = listener.channel();
                self.channels.insert(id, listener);
                Ok(id.to_string())
            }
            ["close", id] => {
                let id = ChannelId(hex(id)?);
                self.client.channel_close(id).map_err(refused)?;
                self.channels.remove(&id);
                Ok(String::new())
            }
            ["deafen", id] => {
                // The socket goes, and puddled is not told.
                self.channels.remove(&ChannelId(hex(id)?));
                Ok(String::new())
            }
            ["accept"] => {
                let listener = self
                    .channels
                    .values()
                    .next()
                    .ok_or_else(|| local("no channel"))?;
                let arrival = listener.accept().map_err(refused)?;
                Ok(self.arrived(arrival))
            }
            ["try-accept"] => {
                let listener = self
                    .channels
                    .values()
                    .next()
                    .ok_or_else(|| local("no channel"))?;
                match listener.try_accept().map_err(refused)? {
                    Some(arrival) => Ok(self.arrived(arrival)),
                    None => Ok("none".to_owned()),
                }
            }
            ["connect", name] => {
                let connected = self.client.connect_to(name).map_err(refused)?;
                let info = connected.info;
                self.links.insert(info.conn, connected.link);
                Ok(format!(
                    "{} {} {}",
                    info.conn, info.server.uid, info.server.pid
                ))
            }
            ["leave", id] => {
                let id = ConnId(hex(id)?);
                self.links.remove(&id);
                let done = self.client.disconnect(id);
                done.map(|()| String::new()).map_err(refused)
            }
            ["hangup", id] => {
                let events = wait(&self.link(id)?.control, PollFlags::RDHUP)?;
                Ok(format!(
                    "{}",
                    events.intersects(PollFlags::RDHUP | PollFlags::HUP)
                ))
            }
            ["alive", id] => {
                let mut fds = [PollFd::new(&self.link(id)?.control, PollFlags::RDHUP)];
                let hung = poll(&mut fds, Some(&Timespec::default())).map_err(local)?;
                Ok((hung == 0).to_string())
            }
            ["wake", id, times] => {
                let link = self.link(id)?;
                for _ in 0..number(times)? {
                    match rustix::io::write(&link.wake, &[1]) {
                        Ok(_) => {}
                        Err(rustix::io::Errno::AGAIN) => return Ok("full".to_owned()),
                        Err(e) => return Err(local(e)),
                    }
                }
                Ok(String::new())
            }
            ["woken", id] => {
                let link = self.link(id)?;
                wait(&link.wait, PollFlags::IN)?;
                let mut bytes = [0; 64];
                let n = rustix::io::read(&link.wait, &mut bytes).map_err(local)?;
                Ok(n.to_string())
            }
            ["make", what, id, size] => {
                let made = self.make(Self::of(what, id)?, number(size)?)?;
                Ok(made.to_string())
            }
            ["map", id] => self.held(id)?.map(READ | WRITE).map(|()| String::new()),
            ["ready", id] => {
                let done = self.client.segment_ready(SegmentId(hex(id)?));
                done.map(|()| String::new()).map_err(refused)
            }
            ["new", what, id, size] => {
                let made = self.new_segment(Self::of(what, id)?, number(size)?)?;
                Ok(made.to_string())
            }
            ["lease", id] => self.lease(id),
            ["drop", id] => {
                let number = SegmentId(hex(id)?);
                if let Some(mut held) = self.segments.remove(&number) {
                    held.unmap()?;
                }
                let done = self.client.segment_drop(number);
                done.map(|()| String::new()).map_err(refused)
            }
            ["write", id, offset, text] => {
                let at = self.held(id)?.at(number(offset)?, text.len() as u64)?;
                // SAFETY: mapped for at least so many bytes; other processes only read them.
                unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), at, text.len()) };
                Ok(String::new())
            }
            ["read", id, offset, len] => {
                let len = number(len)?;
                let at = self.held(id)?.at(number(offset)?, len)?;
                let mut bytes = vec![0; len as usize];
                // SAFETY: mapped for at least so many bytes, and it can never shrink.
                unsafe { std::ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), bytes.len()) };
                Ok(String::from_utf8_lossy(&bytes).replace('\0', "."))
            }
            ["attack", id] => self.held(id).map(|h| h.attack()),
            ["many", name, count, size] => {
                let size = number(size)?;
                for i in 0..number(count)? {
                    let connected = self.connect_patiently(name);
                    let connected = connected.map_err(|e| format!("{} at {i}", refused(e)))?;
                    let conn = connected.info.conn;
                    self.links.insert(conn, connected.link);
                    if size != 0 {
                        self.new_segment(SegmentOf::Conn(conn), size)?;
                    }
                }
                Ok(self.links.len().to_string())
            }
            ["serve", count, size] => {
                let size = number(size)?;
                for _ in 0..number(count)? {
                    let listener = self.channels.values().next();
                    let listener = listener.ok_or_else(|| local("no channel"))?;
                    let arrival = listener.accept().map_err(refused)?;
                    let conn = arrival.conn;
                    self.arrived(arrival);
                    self.new_segment(SegmentOf::Conn(conn), size)?;
                }
                Ok(self.links.len().to_string())
            }
            ["channels"] => {
                let all = self.client.channels().map_err(refused)?;
                let text = |c: &vernal_puddled_proto::ChannelStat| {
                    format!("{}:{:04o}:{}:{}", c.name, c.mode, c.connections, c.bytes)
                };
                Ok(all.iter().map(text).collect::<Vec<_>>().join(" "))
            }
            ["conns"] => {
                let all = self.client.connections().map_err(refused)?;
                let text = |c: &vernal_puddled_proto::ConnStat| {
                    let sides = (c.client.is_some(), c.server.is_some());
                    format!("{}:{}:{}:{}", c.conn, sides.0, sides.1, c.segments)
                };
                Ok(all.iter().map(text).collect::<Vec<_>>().join(" "))
            }
            ["segments"] => {
                let all = self.client.segments().map_err(refused)?;
                let text = |s: &vernal_puddled_proto::SegmentStat| {
                    let owned = s.owner.is_some();
                    format!("{}:{}:{owned}:{}", s.info.segment, s.ready, s.leases.len())
                };
                Ok(all.iter().map(text).collect::<Vec<_>>().join(" "))
            }
            ["quota", uid] => {
                let quota = self.client.quota(number(uid)? as u32);
                quota.map(|q| q.0.to_string()).map_err(refused)
            }
            ["reconnect", socket] => {
                // As a program does whose puddled has died: what it has mapped stays mapped.
                self.client = Client::connect(socket.as_ref(), "rpc").map_err(refused)?;
                self.channels.clear();
                Ok(String::new())
            }
            ["address", id] => self.held(id).map(|h| h.segment.info.addr.to_string()),
            ["status"] => {
                let s = self.client.rpc_status().map_err(refused)?;
                Ok(format!("{s:?}"))
            }
            _ => Err(local(format!("what is {words:?}?"))),
        }
    }
}

fn main() {
    // A thousand connections are some thousand descriptors.
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let limit = rustix::process::Rlimit {
        current: most,
        maximum: most,
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    let socket = std::env::args().nth(1).unwrap_or_default();
    let client = Client::connect(socket.as_ref(), "rpc");
    let mut program = match client {
        Ok(client) => Program {
            client,
            channels: BTreeMap::new(),
            links: BTreeMap::new(),
            segments: BTreeMap::new(),
        },
        Err(e) => {
            println!("err Connect {e}");
            return;
        }
    };
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match program.obey(&words) {
            Ok(text) => println!("ok {text}"),
            Err(text) => println!("err {}", text.replace('\n', " ")),
        }
        let _ = std::io::stdout().flush();
    }
}
