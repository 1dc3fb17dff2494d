//! What a channel, a connection and a call may be told.

use std::sync::Arc;
use std::time::Duration;

use vernal_heap::walk::KnownTypes;

/// The types that the compiler described to this program, for checking what peers pass.
pub fn program_types() -> Arc<KnownTypes> {
    vernal_pool::program::known()
}

/// The types that one side verifies by.
#[derive(Debug, Clone)]
pub(crate) enum Types {
    /// These.
    Given(Arc<KnownTypes>),
    /// Those of the program: new ones come while channels and connections are open.
    Program,
}

impl From<&Option<Arc<KnownTypes>>> for Types {
    fn from(given: &Option<Arc<KnownTypes>>) -> Types {
        given.clone().map_or(Types::Program, Types::Given)
    }
}

/// Something that was made for the types of some moment.
pub(crate) struct Made<T> {
    generation: u64,
    pub(crate) value: T,
}

impl Types {
    #[inline]
    fn generation(&self) -> u64 {
        match self {
            Types::Given(_) => 0,
            Types::Program => vernal_pool::program::generation(),
        }
    }

    /// What was made for the types as they are, or made anew.
    #[inline]
    pub(crate) fn current<T>(
        &self,
        known: Option<Made<T>>,
        make: impl FnOnce(Arc<KnownTypes>) -> T,
    ) -> Made<T> {
        let generation = self.generation();
        match known {
            Some(made) if made.generation == generation => made,
            _ => Made {
                generation,
                value: make(match self {
                    Types::Given(types) => Arc::clone(types),
                    Types::Program => program_types(),
                }),
            },
        }
    }
}

/// How far a receiver trusts what a peer passes by pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// Pointers are used as they are. Only between processes that could harm each other anyway: a wild pointer crashes the receiver,
    /// and the sender can change what is being read.
    Plain,
    /// Nothing is used before it is checked: graphs are copied into private memory while they are checked, and what the sender does
    /// to them afterwards does not count (`docs/adr/0019-copies-not-seals.md`).
    #[default]
    Verify,
}

/// Where the handlers of a channel run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Sandbox {
    /// In the server. With [`Trust::Verify`] what clients pass cannot harm it, unless a handler is wrong.
    #[default]
    None,
    /// In a helper process for each client, which can reach next to nothing: whatever an argument does to a handler ends the helper, or
    /// stays in it. Handlers see the server's memory as it was when the sandbox was made ([`crate::Channel::prefork`]), and answer with
    /// bytes, objects of [`crate::Call::heap`] or streams. Only for clients on this host.
    Process,
}

/// How one side waits for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitPolicy {
    /// Polls without end. For a core of its own.
    Spin,
    /// Polls for as long as it has paid off lately, then sleeps.
    #[default]
    Adaptive,
    /// Sleeps at once. For sides that share a core, or are called rarely.
    Block,
}

impl From<WaitPolicy> for vernal_ring::WaitPolicy {
    fn from(policy: WaitPolicy) -> vernal_ring::WaitPolicy {
        match policy {
            WaitPolicy::Spin => vernal_ring::WaitPolicy::Spin,
            WaitPolicy::Adaptive => vernal_ring::WaitPolicy::Adaptive,
            WaitPolicy::Block => vernal_ring::WaitPolicy::Block,
        }
    }
}

/// How an argument or a reply got to its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Passed {
    /// Plain bytes in the message.
    Inline,
    /// Copied into the receiver's own memory and checked on the way.
    Copied,
    /// Read in place, unchecked: [`Trust::Plain`].
    Plain,
}

/// How a server opens a channel.
#[derive(Debug, Clone)]
pub struct ChannelOptions {
    /// Who may connect: read and write bits for owner, group and others, as for a file. Both bits of a class are needed.
    pub mode: u16,
    /// How far clients are trusted.
    pub trust: Trust,
    /// Threads that run handlers beside the thread that polls. 0: handlers run where the message was read, which is fastest for
    /// handlers of a few microseconds.
    pub threads: usize,
    /// How the server waits.
    pub wait: WaitPolicy,
    /// Slots of each ring; a power of two.
    pub slots: u32,
    /// Connections at once.
    pub max_connections: usize,
    /// Objects of one argument at most.
    pub max_objects: u64,
    /// Bytes of one argument at most.
    pub max_bytes: u64,
    /// The types of this program, which arguments are verified by. `None`: those that the compiler described.
    pub types: Option<Arc<KnownTypes>>,
    /// Where handlers run.
    pub sandbox: Sandbox,
    /// How long a call, or the time to a stream's next item, may take in a sandbox; then its helper is ended. A caller's deadline
    /// counts, too.
    pub sandbox_limit: Duration,
    /// Bytes of memory that a handler may take in a sandbox.
    pub sandbox_memory: u64,
}

impl Default for ChannelOptions {
    fn default() -> ChannelOptions {
        ChannelOptions {
            mode: 0o666,
            trust: Trust::default(),
            threads: 0,
            wait: WaitPolicy::default(),
            slots: DEFAULT_SLOTS,
            max_connections: 1024,
            max_objects: 1 << 20,
            max_bytes: 1 << 30,
            types: None,
            sandbox: Sandbox::default(),
            sandbox_limit: Duration::from_secs(1),
            sandbox_memory: 256 << 20,
        }
    }
}

/// How a client connects.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// How far the server is trusted.
    pub trust: Trust,
    /// How the client waits.
    pub wait: WaitPolicy,
    /// Slots of each ring; a power of two.
    pub slots: u32,
    /// How long connecting may take, the server's answer included.
    pub timeout: Duration,
    /// Objects of one reply at most.
    pub max_objects: u64,
    /// Bytes of one reply at most.
    pub max_bytes: u64,
    /// The types of this program, which replies are verified by. `None`: those that the compiler described.
    pub types: Option<Arc<KnownTypes>>,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            trust: Trust::default(),
            wait: WaitPolicy::default(),
            slots: DEFAULT_SLOTS,
            timeout: Duration::from_secs(10),
            max_objects: 1 << 20,
            max_bytes: 1 << 30,
            types: None,
        }
    }
}

/// How one call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallOptions {
    /// How long it may take. `None`: as long as the server lives.
    pub deadline: Option<Duration>,
    /// The type of the object that the reply is. `None`: the reply is plain bytes.
    pub reply_type: Option<u64>,
}

/// Slots of a ring, unless told otherwise.
pub const DEFAULT_SLOTS: u32 = 256;
