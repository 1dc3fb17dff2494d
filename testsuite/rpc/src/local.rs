//! A registry of one process: names, segments and control sockets without a daemon. What it cannot give is a second process.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use vernal_rpc_core::Error;
use vernal_rpc_core::registry::{
    Announcements, ChannelId, ConnGrant, ConnId, Registry, Scope, Segment, SegmentId,
};

/// Addresses are given once in the life of the process, however many registries there are.
static NEXT_ADDR: AtomicU64 = AtomicU64::new(vernal_abi::RPC_BASE);
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

fn id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

struct Queue {
    waiting: Mutex<VecDeque<ConnGrant>>,
    event: OwnedFd,
}

struct Entry {
    segment: Segment,
    holders: usize,
    ready: bool,
}

#[derive(Default)]
struct State {
    channels: HashMap<String, (ChannelId, Arc<Queue>)>,
    segments: HashMap<SegmentId, Entry>,
    conns: HashMap<ConnId, usize>,
}

/// The registry.
#[derive(Default)]
pub struct Local {
    state: Mutex<State>,
}

struct Channel {
    id: ChannelId,
    queue: Arc<Queue>,
}

fn copy(segment: &Segment) -> Segment {
    Segment {
        id: segment.id,
        scope: segment.scope,
        addr: segment.addr,
        size: segment.size,
        file: segment.file.try_clone().expect("a descriptor"),
    }
}

impl Local {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the registry")
    }

    /// Segments that somebody has, connections that somebody is in, channels that are open.
    pub fn left(&self) -> (usize, usize, usize) {
        let state = self.state();
        (
            state.segments.len(),
            state.conns.len(),
            state.channels.len(),
        )
    }
}

impl Announcements for Channel {
    fn channel(&self) -> ChannelId {
        self.id
    }

    fn event(&self) -> BorrowedFd<'_> {
        self.queue.event.as_fd()
    }

    fn next(&self) -> Result<Option<ConnGrant>, Error> {
        let mut waiting = self.queue.waiting.lock().expect("the queue");
        let next = waiting.pop_front();
        if waiting.is_empty() {
            let _ = rustix::io::read(&self.queue.event, &mut [0u8; 8]);
        }
        Ok(next)
    }
}

impl Registry for Local {
    fn open_channel(&self, name: &str, _mode: u16) -> Result<Box<dyn Announcements>, Error> {
        let mut state = self.state();
        if state.channels.contains_key(name) {
            return Err(Error::Taken { name: name.into() });
        }
        let queue = Arc::new(Queue {
            waiting: Mutex::default(),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an event"),
        });
        let id = id();
        state.channels.insert(name.into(), (id, Arc::clone(&queue)));
        Ok(Box::new(Channel { id, queue }))
    }

    fn close_channel(&self, channel: ChannelId) -> Result<(), Error> {
        self.state().channels.retain(|_, (id, _)| *id != channel);
        Ok(())
    }

    fn connect(&self, name: &str) -> Result<ConnGrant, Error> {
        let mut state = self.state();
        let Some((channel, queue)) = state.channels.get(name).map(|(c, q)| (*c, Arc::clone(q)))
        else {
            return Err(Error::NotFound { name: name.into() });
        };
        let flags = SocketFlags::CLOEXEC;
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("sockets");
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (wait_a, wake_a) = pipe_with(flags).expect("a pipe");
        let (wait_b, wake_b) = pipe_with(flags).expect("a pipe");
        let id = id();
        state.conns.insert(id, 2);
        let grant = |control, wait, wake| ConnGrant {
            id,
            channel,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            pid: std::process::id(),
            control,
            wait,
            wake,
        };
        let theirs = grant(b, wait_b, wake_a);
        queue.waiting.lock().expect("the queue").push_back(theirs);
        rustix::io::write(&queue.event, &1u64.to_ne_bytes()).expect("an event");
        Ok(grant(a, wait_a, wake_b))
    }

    fn disconnect(&self, conn: ConnId) -> Result<(), Error> {
        let mut state = self.state();
        if let Some(sides) = state.conns.get_mut(&conn) {
            *sides -= 1;
            if *sides == 0 {
                state.conns.remove(&conn);
            }
        }
        Ok(())
    }

    fn segment(&self, scope: Scope, size: u64) -> Result<Segment, Error> {
        let fd = memfd_create("segment", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
        let file = File::from(fd.expect("a memfd"));
        ftruncate(&file, size).expect("its size");
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).expect("seals");
        let segment = Segment {
            id: id(),
            scope,
            addr: NEXT_ADDR.fetch_add(size, Ordering::Relaxed),
            size,
            file,
        };
        let entry = Entry {
            segment: copy(&segment),
            holders: 1,
            ready: false,
        };
        self.state().segments.insert(segment.id, entry);
        Ok(segment)
    }

    fn ready(&self, segment: SegmentId) -> Result<(), Error> {
        let mut state = self.state();
        let entry = state.segments.get_mut(&segment).expect("a segment");
        fcntl_add_seals(
            &entry.segment.file,
            SealFlags::FUTURE_WRITE | SealFlags::SEAL,
        )
        .expect("seals");
        entry.ready = true;
        Ok(())
    }

    fn map(&self, segment: SegmentId) -> Result<Segment, Error> {
        let mut state = self.state();
        match state.segments.get_mut(&segment) {
            Some(entry) if entry.ready => {
                entry.holders += 1;
                Ok(copy(&entry.segment))
            }
            _ => Err(Error::Registry {
                doing: "mapping a segment",
                why: format!("there is no segment {segment:x}"),
            }),
        }
    }

    fn drop_segment(&self, segment: SegmentId) -> Result<(), Error> {
        let mut state = self.state();
        if let Some(entry) = state.segments.get_mut(&segment) {
            entry.holders -= 1;
            if entry.holders == 0 {
                state.segments.remove(&segment);
            }
        }
        Ok(())
    }
}
