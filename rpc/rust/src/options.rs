//! How channels are opened and connections made.

use std::time::Duration;

use crate::channel::Channel;
use crate::connection::Connection;
use crate::error::Error;
use crate::sys;

/// How one side waits for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// Polls for as long as it has paid off lately, then sleeps.
    #[default]
    Adaptive,
    /// Polls without end: for a core of its own.
    Spin,
    /// Sleeps at once: for sides that share a core, or are called rarely.
    Block,
}

/// Where the handlers of a channel run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Sandbox {
    /// In the server.
    #[default]
    None,
    /// In a helper process for each client, forked from a copy of the server that [`Channel::prefork`] has made. What an argument does
    /// to a handler ends the helper, and its caller gets an error. Handlers see the server's memory as it was then, cannot change it,
    /// and open nothing. Such a channel takes no clients over TCP.
    Process,
}

fn wait(flags: u32, wait: Wait) -> u32 {
    let flags = flags & !(sys::SPIN | sys::BLOCK);
    flags
        | match wait {
            Wait::Adaptive => 0,
            Wait::Spin => sys::SPIN,
            Wait::Block => sys::BLOCK,
        }
}

pub(crate) fn milliseconds(time: Duration) -> u32 {
    // Rounded up: 0 would mean the usual time, or none at all.
    u32::try_from(time.as_nanos().div_ceil(1_000_000).max(1)).unwrap_or(u32::MAX)
}

macro_rules! common {
    () => {
        /// How this side waits.
        pub fn wait(mut self, how: Wait) -> Self {
            self.raw.flags = wait(self.raw.flags, how);
            self
        }

        /// Calls under way at once: a power of two, usually 256.
        pub fn slots(mut self, slots: u32) -> Self {
            self.raw.slots = slots;
            self
        }

        /// Bytes of one value that a peer passes, with all that it leads to; usually 2^30.
        pub fn max_bytes(mut self, bytes: u64) -> Self {
            self.raw.max_bytes = bytes;
            self
        }

        /// Objects of one value that a peer passes; usually 2^20.
        pub fn max_objects(mut self, objects: u64) -> Self {
            self.raw.max_objects = objects;
            self
        }

        /// Reads what peers on this host pass in place, and unchecked: no copy, and no protection. Without it everything is copied
        /// into this process' own memory and verified on the way.
        ///
        /// # Safety
        ///
        /// Every peer passes sound values of the types that the methods name, and changes and frees nothing of them before this
        /// side is done: an argument until its handler has returned, also if the call was cancelled; a reply until it is dropped.
        pub unsafe fn trust_peers(mut self) -> Self {
            self.raw.flags |= sys::PLAIN;
            self
        }
    };
}

/// How to open a [`Channel`].
#[derive(Debug, Clone)]
pub struct ChannelOptions {
    raw: sys::Options,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            raw: sys::Options::USUAL,
        }
    }
}

impl ChannelOptions {
    /// The usual ones.
    pub fn new() -> Self {
        Self::default()
    }

    /// Who may connect, as the mode of a file; both bits of a class are needed. Usually 0o666.
    pub fn mode(mut self, mode: u32) -> Self {
        self.raw.mode = mode;
        self
    }

    /// Threads that run handlers. 0, which is usual: the thread that polls does, which suits handlers of a few microseconds.
    pub fn threads(mut self, threads: u32) -> Self {
        self.raw.threads = threads;
        self
    }

    /// Where handlers run; usually in the server.
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.raw.sandbox = match sandbox {
            Sandbox::None => 0,
            Sandbox::Process => sys::SANDBOX_PROCESS,
        };
        self
    }

    /// How long a call may take in a sandbox, usually 1 s; then its helper is killed.
    pub fn sandbox_time(mut self, time: Duration) -> Self {
        self.raw.sandbox_ms = milliseconds(time);
        self
    }

    /// Memory that a handler may take in a sandbox, usually 256 MiB.
    pub fn sandbox_bytes(mut self, bytes: u64) -> Self {
        self.raw.sandbox_bytes = bytes;
        self
    }

    common!();

    /// Opens the channel: see [`Channel::open`].
    pub fn open(&self, name: &str) -> Result<Channel, Error> {
        Channel::open_with(name, &self.raw)
    }
}

/// How to connect.
#[derive(Clone)]
pub struct ConnectOptions {
    raw: sys::Options,
    token: Vec<u8>,
}

impl std::fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the secret itself.
        f.debug_struct("ConnectOptions")
            .field("raw", &self.raw)
            .field("token", &!self.token.is_empty())
            .finish()
    }
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            raw: sys::Options::USUAL,
            token: Vec::new(),
        }
    }
}

impl ConnectOptions {
    /// The usual ones.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long connecting may take, usually 10 s. Of calls, [`Connection::timeout`] says it.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.raw.timeout_ms = milliseconds(time);
        self
    }

    /// The secret of a server that listens with one, over TCP.
    pub fn token(mut self, token: &[u8]) -> Self {
        self.token = token.to_vec();
        self
    }

    common!();

    /// Connects: see [`connect`](crate::connect).
    pub fn connect(&self, address: &str) -> Result<Connection, Error> {
        Connection::open(address, &self.raw, &self.token)
    }
}
