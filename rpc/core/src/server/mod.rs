//! The server side: a channel, its methods, and the loop that serves them, on any transport.

pub(crate) mod call;
pub(crate) mod conn;
pub(crate) mod methods;
mod pool;
pub(crate) mod run;
mod seat;

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

pub use call::{Answer, Call};
pub use methods::Signature;

use crate::error::{Error, Failure};
use crate::options::{ChannelOptions, Sandbox};
use crate::sandbox::Cell;
use crate::shm::{ChannelHeap, Shm};
use crate::tcp::Tcp;
use crate::trace;
use crate::transport::Listen;
use methods::{Method, Methods};

/// A channel that this process serves. Clones are the same one.
#[derive(Clone)]
pub struct Channel {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}

/// What a channel has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Calls answered, failures included.
    pub calls: u64,
    /// Of these, failures.
    pub failed: u64,
    /// Clients that are connected.
    pub clients: u64,
    /// Clients that were, too.
    pub clients_ever: u64,
    /// Clients that were put out because they broke the protocol.
    pub corrupt: u64,
    /// Times that the polling thread went to sleep.
    pub sleeps: u64,
}

#[derive(Default)]
struct Counters {
    calls: AtomicU64,
    failed: AtomicU64,
    clients: AtomicU64,
    clients_ever: AtomicU64,
    corrupt: AtomicU64,
    sleeps: AtomicU64,
}

pub(crate) struct Inner {
    name: String,
    options: ChannelOptions,
    methods: Methods,
    /// What the handlers' helpers are forked from.
    cell: OnceLock<Arc<Cell>>,
    shared: OnceLock<Arc<ChannelHeap>>,
    /// Taken by the loop.
    listeners: Mutex<Vec<Box<dyn Listen>>>,
    /// Set with `stop`.
    until: Mutex<Option<Instant>>,
    stop: AtomicBool,
    running: AtomicBool,
    nudge: OwnedFd,
    counters: Counters,
}

impl Channel {
    /// A channel without a transport: [`Channel::listen`] gives it one or several.
    pub fn new(name: &str, options: ChannelOptions) -> Result<Channel, Error> {
        trace::init();
        let nudge = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::os("making an event", e))?;
        Ok(Channel {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                options,
                methods: Methods::default(),
                cell: OnceLock::new(),
                shared: OnceLock::new(),
                listeners: Mutex::default(),
                until: Mutex::default(),
                stop: AtomicBool::new(false),
                running: AtomicBool::new(false),
                nudge,
                counters: Counters::default(),
            }),
        })
    }

    /// A channel on this host, under a name of its registry. The name is free again when the channel is shut down, never ran and is
    /// dropped, or when the process ends.
    pub fn open(shm: &Shm, name: &str, options: ChannelOptions) -> Result<Channel, Error> {
        let listener = shm.listen(name, &options)?;
        let channel = Channel::new(name, options)?;
        let _ = channel.inner.shared.set(listener.shared_heap());
        channel.listen(Box::new(listener));
        Ok(channel)
    }

    /// The heap that this server shares with all clients of a channel that was opened on this host.
    pub fn shared_heap(&self) -> Option<&ChannelHeap> {
        self.inner.shared.get().map(|heap| &**heap)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// How it was opened.
    pub fn options(&self) -> &ChannelOptions {
        &self.inner.options
    }

    /// Takes clients from this transport, too; also while the channel runs.
    pub fn listen(&self, listener: Box<dyn Listen>) {
        self.inner.new_listeners().push(listener);
        self.inner.nudge();
    }

    /// Takes clients over TCP, too, at `at`; what they connect to. Objects of the channel's heap are sent as copies.
    pub fn listen_tcp(&self, tcp: &Tcp, at: SocketAddr) -> Result<String, Error> {
        if self.inner.options.sandbox != Sandbox::None {
            return Err(Error::Invalid {
                what: format!(
                    "channel {} has a sandbox, which is for clients on this host",
                    self.name()
                ),
                remedy: "open a second channel for TCP, with Sandbox::None",
            });
        }
        let mut listener = tcp.listen(at, self.name(), self.options())?;
        if let Some(heap) = self.inner.shared.get() {
            listener = listener.with_shared_heap(Arc::clone(heap));
        }
        let address = listener.address();
        self.listen(Box::new(listener));
        Ok(address)
    }

    /// Serves a method; also while the channel runs. The handler must return soon if the channel has no threads of its own for handlers:
    /// all clients wait for it.
    pub fn serve<F>(&self, method: u32, signature: Signature, handler: F)
    where
        F: Fn(&mut Call<'_>) -> Result<Answer, Failure> + Send + Sync + 'static,
    {
        let method_of = Method {
            signature,
            handler: Box::new(handler),
        };
        self.inner.methods.set(method, method_of);
    }

    /// Makes the sandbox of a channel that was opened with one: from here on its handlers see the memory of this process as it is now,
    /// and the methods that are served now. What the program loads afterwards (keys, other people's data) is not in the sandbox; what
    /// is there already can be kept out with [`crate::hide`]. Best called with no other threads: locks that they hold
    /// stay locked in the sandbox. [`Channel::run`] and [`Channel::spawn`] call it if nobody has.
    pub fn prefork(&self) -> Result<(), Error> {
        if self.inner.options.sandbox == Sandbox::None {
            return Err(Error::Invalid {
                what: format!("channel {} has no sandbox", self.inner.name),
                remedy: "open it with options.sandbox",
            });
        }
        let made = Arc::new(Cell::new(
            &self.inner.options,
            self.inner.methods.snapshot(),
        )?);
        self.inner.cell.set(made).map_err(|_| Error::Invalid {
            what: format!("channel {} has its sandbox already", self.inner.name),
            remedy: "make it once, when all methods are served",
        })
    }

    fn ensure_sandbox(&self) -> Result<(), Error> {
        if self.inner.options.sandbox == Sandbox::None || self.inner.cell.get().is_some() {
            return Ok(());
        }
        self.prefork()
    }

    /// Serves clients on this thread, until [`Channel::shutdown`].
    pub fn run(&self) -> Result<(), Error> {
        if self.inner.running.swap(true, Ordering::AcqRel) {
            return Err(Error::Invalid {
                what: format!("channel {} runs already", self.inner.name),
                remedy: "call `run` once; options.threads says how many threads run handlers",
            });
        }
        let ran = self
            .ensure_sandbox()
            .and_then(|()| run::Loop::new(&self.inner))
            .and_then(run::Loop::run);
        self.inner.running.store(false, Ordering::Release);
        ran
    }

    /// As [`Channel::run`], on a thread of its own.
    pub fn spawn(&self) -> Result<std::thread::JoinHandle<Result<(), Error>>, Error> {
        self.ensure_sandbox()?;
        let channel = self.clone();
        std::thread::Builder::new()
            .name(format!("rpc {}", self.inner.name))
            .spawn(move || channel.run())
            .map_err(|e| Error::os("starting the thread of a channel", e))
    }

    /// Goes away gracefully: the name is free, new calls are refused with [`crate::Code::ShuttingDown`], calls that run may end within
    /// `grace`; then [`Channel::run`] returns. Does not wait.
    pub fn shutdown(&self, grace: Duration) {
        let until = Instant::now() + grace;
        *self
            .inner
            .until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.inner.stop.store(true, Ordering::Release);
        self.inner.nudge();
    }

    /// What it has done.
    pub fn stats(&self) -> Stats {
        let c = &self.inner.counters;
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Stats {
            calls: get(&c.calls),
            failed: get(&c.failed),
            clients: get(&c.clients),
            clients_ever: get(&c.clients_ever),
            corrupt: get(&c.corrupt),
            sleeps: get(&c.sleeps),
        }
    }
}

impl Inner {
    fn new_listeners(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Listen>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn nudge(&self) {
        // It cannot fail but for a count that is already high, which is as good.
        let _ = rustix::io::write(&self.nudge, &1u64.to_ne_bytes());
    }

    fn nudge_event(&self) -> BorrowedFd<'_> {
        self.nudge.as_fd()
    }

    fn take_nudge(&self) {
        let _ = rustix::io::read(&self.nudge, &mut [0u8; 8]);
    }

    /// When it must have ended. `None`: it goes on.
    fn stopping(&self) -> Option<Instant> {
        if !self.stop.load(Ordering::Acquire) {
            return None;
        }
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
