//! The client side of a connection: calls, on any transport.

mod driver;
mod pending;
mod reply;
mod stream;
mod table;
mod wait;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use vernal_ring::Backoff;

pub use pending::PendingCall;
pub use reply::Reply;
pub use stream::Stream;

use crate::error::{Code, Error, Failure};
use crate::exclusive::Exclusive;
use crate::latency::{Latency, is_sampled};
use crate::message::{Body, Kind, Message};
use crate::options::{CallOptions, ConnectOptions};
use crate::outbox::Outbox;
use crate::trace;
use crate::transport::{Dial, Endpoint, Link, Peer, Rx};
use table::{Delivery, PLACE_BITS, Table};

/// A connection to a server. Clones are the same connection; it ends when the last one is dropped, and no call, stream or object of it is
/// held any more.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Handle>,
}

/// What users hold. The driver's thread does not: a connection that nobody holds ends at once.
pub(crate) struct Handle(Arc<Inner>);

impl Deref for Handle {
    type Target = Inner;

    #[inline]
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.end();
        if let Some(Some(driver)) = self.0.driver.get() {
            driver.stop();
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("peer", self.inner.link.peer())
            .finish_non_exhaustive()
    }
}

/// The sending half and what its holder keeps.
struct Sending {
    outbox: Outbox,
    hint: usize,
}

/// The receiving half and what its holder keeps.
struct Receiving {
    rx: Box<dyn Rx>,
    backoff: Backoff,
}

/// What all threads of a connection share.
pub(crate) struct Inner {
    link: Arc<dyn Link>,
    sending: Exclusive<Sending>,
    receiving: Exclusive<Receiving>,
    table: Table,
    /// Threads that wait for an answer while another one polls.
    sleepers: Mutex<Vec<Thread>>,
    /// How many these are.
    sleeping: AtomicUsize,
    /// Set once; nothing goes any more.
    dead: AtomicBool,
    reason: OnceLock<Reason>,
    /// The server takes no new calls.
    draining: AtomicBool,
    driver: OnceLock<Option<driver::Driver>>,
}

/// Why a connection is over.
#[derive(Debug, Clone)]
enum Reason {
    PeerDied,
    Closed,
    Corrupt(String),
}

/// How long a sender naps between two looks for room, at first and at most.
const NAP: Duration = Duration::from_micros(20);
const NAP_MAX: Duration = Duration::from_millis(1);

impl Connection {
    /// Connects to the server at `address`, over any transport.
    pub fn connect(
        dial: &dyn Dial,
        address: &str,
        options: &ConnectOptions,
    ) -> Result<Connection, Error> {
        Ok(Connection::over(dial.dial(address, options)?, options))
    }

    /// A connection over an endpoint that has greeted.
    pub fn over(endpoint: Endpoint, options: &ConnectOptions) -> Connection {
        trace::init();
        let Endpoint { tx, rx, link } = endpoint;
        let inner = Inner {
            link,
            sending: Exclusive::new(Sending {
                outbox: Outbox::new(tx),
                hint: 0,
            }),
            receiving: Exclusive::new(Receiving {
                rx,
                backoff: Backoff::new(options.wait.into()),
            }),
            table: Table::new(options.slots as usize),
            sleepers: Mutex::default(),
            sleeping: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            reason: OnceLock::new(),
            draining: AtomicBool::new(false),
            driver: OnceLock::new(),
        };
        Connection {
            inner: Arc::new(Handle(Arc::new(inner))),
        }
    }

    /// Who serves.
    pub fn peer(&self) -> &Peer {
        self.inner.link.peer()
    }

    /// The transport's end of it.
    pub fn link(&self) -> &Arc<dyn Link> {
        &self.inner.link
    }

    /// Calls a method and waits for its reply.
    #[inline]
    pub fn call(&self, method: u32, argument: Body, options: &CallOptions) -> Result<Reply, Error> {
        if trace::is_on() {
            return trace::call(self, method, argument, |argument| {
                self.call_now(method, argument, options)
            });
        }
        self.call_now(method, argument, options)
    }

    #[inline]
    fn call_now(&self, method: u32, argument: Body, options: &CallOptions) -> Result<Reply, Error> {
        let deadline = deadline_of(options);
        let started = self
            .inner
            .start(method, argument, options, deadline, false)?;
        let mut answer = Message::bare(Kind::Goodbye, 0);
        self.inner
            .wait_answer(started, method, deadline, &mut answer)?;
        self.inner.timed(&started);
        self.inner.reply(method, answer, options.reply_type)
    }

    /// Calls a method and does not wait: any number of calls, up to the slots of the ring, may be under way. The result is a future,
    /// too; dropping it cancels the call.
    pub fn start(
        &self,
        method: u32,
        argument: Body,
        options: &CallOptions,
    ) -> Result<PendingCall, Error> {
        let deadline = deadline_of(options);
        let started = self
            .inner
            .start(method, argument, options, deadline, false)?;
        Ok(PendingCall::new(
            Arc::clone(&self.inner),
            started,
            method,
            deadline,
            options.reply_type,
        ))
    }

    /// Calls a method that answers with a stream. Dropping the stream cancels it.
    pub fn stream(
        &self,
        method: u32,
        argument: Body,
        options: &CallOptions,
    ) -> Result<Stream, Error> {
        let deadline = deadline_of(options);
        let started = self
            .inner
            .start(method, argument, options, deadline, true)?;
        Ok(Stream::new(
            Arc::clone(&self.inner),
            started,
            method,
            deadline,
            options.reply_type,
        ))
    }

    /// How long calls took, from sending until their caller had the answer, over the whole connection. The first calls are all measured,
    /// then one in 64; streams are not.
    pub fn latency(&self) -> Latency {
        self.inner.link.latency()
    }

    /// Whether calls can be made still.
    pub fn is_open(&self) -> bool {
        !self.inner.dead.load(Ordering::Acquire) && !self.inner.draining.load(Ordering::Acquire)
    }

    /// Ends the connection: calls that are under way fail. Objects of replies stay readable while they are held.
    pub fn close(&self) {
        self.inner.end();
    }
}

#[inline]
fn deadline_of(options: &CallOptions) -> Option<Instant> {
    options.deadline.map(|d| Instant::now() + d)
}

/// A call that was sent: the index of its place and its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started {
    index: usize,
    call: u64,
    /// When, if it is one of the calls that are measured.
    begun: Option<Instant>,
}

impl Inner {
    /// Sends a call.
    #[inline]
    fn start(
        &self,
        method: u32,
        body: Body,
        options: &CallOptions,
        deadline: Option<Instant>,
        stream: bool,
    ) -> Result<Started, Error> {
        if self.dead.load(Ordering::Acquire) || self.draining.load(Ordering::Relaxed) {
            return Err(self.why_closed(method));
        }
        let left = options.deadline.map_or(0, |d| d.as_nanos().max(1) as u64);
        let mut message = Message {
            kind: Kind::Call,
            call: 0,
            method,
            deadline: left,
            body,
        };
        let mut nap = NAP;
        loop {
            {
                let mut sending = self.sending.claim();
                let sending = &mut *sending;
                let Some((index, call)) = self.table.claim(&mut sending.hint, stream) else {
                    return Err(Error::TooLarge {
                        what: "the number of calls under way",
                        value: self.table.len() as u64 + 1,
                        limit: self.table.len() as u64,
                        remedy: "wait for one of them, or connect with more slots",
                    });
                };
                message.call = call;
                // The first call of a place has number 1.
                let number = (call >> PLACE_BITS).wrapping_sub(1);
                let begun = is_sampled(number).then(Instant::now);
                match sending.outbox.try_send(&message) {
                    Ok(true) => {
                        // The place of a call that is sent after `fail_all` would wait for ever.
                        if self.dead.load(Ordering::SeqCst) {
                            if let Some(place) = self.table.place(index) {
                                let _ = place.free();
                            }
                            return Err(self.why_closed(method));
                        }
                        return Ok(Started { index, call, begun });
                    }
                    Ok(false) => {}
                    Err(e) => {
                        if let Some(place) = self.table.place(index) {
                            let _ = place.free();
                        }
                        return Err(self.fail_with(e));
                    }
                }
                if let Some(place) = self.table.place(index) {
                    let _ = place.free();
                }
            }
            // The ring is full: the server reads, or is dead, or waits for this side to read.
            self.wait_room(method, deadline, &mut nap)?;
        }
    }

    /// A call has its answer.
    #[inline(always)]
    fn timed(&self, started: &Started) {
        if let Some(begun) = started.begun {
            self.link.timed(begun.elapsed());
        }
    }

    #[cold]
    fn wait_room(
        &self,
        method: u32,
        deadline: Option<Instant>,
        nap: &mut Duration,
    ) -> Result<(), Error> {
        if self.dead.load(Ordering::Acquire) {
            return Err(self.why_closed(method));
        }
        if deadline.is_some_and(|d| d <= Instant::now()) {
            return Err(Error::DeadlineExceeded { method });
        }
        self.pump();
        std::thread::sleep(*nap);
        *nap = (*nap * 2).min(NAP_MAX);
        Ok(())
    }

    /// Sends something that belongs to no answer; it may wait in the outbox.
    fn send(&self, mut message: Message) -> Result<(), Error> {
        if self.dead.load(Ordering::Acquire) {
            return Ok(());
        }
        let sent = self.sending.claim().outbox.send(&mut message, &*self.link);
        sent.map_err(|e| self.fail_with(e))
    }

    /// Says that an object of a reply is no longer needed.
    fn release(&self, addr: u64, type_id: u64) {
        let message = Message {
            body: Body::Object { addr, type_id },
            ..Message::bare(Kind::Release, 0)
        };
        let _ = self.send(message);
    }

    /// Releases the object of an answer that nobody takes.
    fn discard(&self, message: &Message) {
        if let Body::Object { addr, type_id } = message.body {
            self.release(addr, type_id);
        }
    }

    /// Gives a call up: the server is told, a late answer will be discarded.
    fn abandon(&self, started: Started) {
        let Some(place) = self.table.place(started.index) else {
            return;
        };
        let items = place.take_items();
        let answer = place.free();
        for message in items.iter().chain(answer.as_ref()) {
            self.discard(message);
        }
        if answer.is_none() {
            let _ = self.send(Message::bare(Kind::Cancel, started.call));
        }
    }

    /// What a message is for this side. Called by the holder of the receiving half.
    fn dispatch(&self, message: Message) -> Result<(), Error> {
        match message.kind {
            Kind::Reply | Kind::Error | Kind::End | Kind::Item => {
                let object = match message.body {
                    Body::Object { addr, type_id } => Some((addr, type_id)),
                    _ => None,
                };
                match self.table.deliver(message) {
                    Delivery::Done => Ok(()),
                    Delivery::Stale => {
                        if let Some((addr, type_id)) = object {
                            self.release(addr, type_id);
                        }
                        Ok(())
                    }
                    Delivery::Unexpected(why) => Err(self.corrupt(why)),
                }
            }
            Kind::Goodbye => {
                self.draining.store(true, Ordering::Release);
                Ok(())
            }
            Kind::Call | Kind::Cancel | Kind::Release | Kind::Credit => {
                Err(self.corrupt("a server sends what only clients send"))
            }
        }
    }

    fn corrupt(&self, why: &str) -> Error {
        Error::Corrupt {
            peer: self.link.peer().name.clone(),
            why: why.to_owned(),
        }
    }

    /// Ends everything because of an error of a half or of the link.
    #[cold]
    fn fail_with(&self, error: Error) -> Error {
        let reason = match &error {
            Error::Corrupt { why, .. } => Reason::Corrupt(why.clone()),
            Error::Closed { .. } => Reason::Closed,
            _ => Reason::PeerDied,
        };
        self.fail(reason);
        self.link.close();
        error
    }

    /// Ends the connection from this side.
    fn end(&self) {
        let _ = self.send(Message::bare(Kind::Goodbye, 0));
        self.fail(Reason::Closed);
        self.link.close();
    }

    #[cold]
    fn fail(&self, reason: Reason) {
        let _ = self.reason.set(reason);
        // Before the places are looked at: a call that is being sent looks at this afterwards.
        self.dead.store(true, Ordering::SeqCst);
        self.table.fail_all();
        self.wake_all();
    }

    #[cold]
    fn why_closed(&self, method: u32) -> Error {
        let peer = self.link.peer().name.clone();
        match self.reason.get() {
            Some(Reason::PeerDied) => Error::PeerDied { peer },
            Some(Reason::Corrupt(why)) => Error::Corrupt {
                peer,
                why: why.clone(),
            },
            Some(Reason::Closed) => Error::Closed {
                what: format!("the connection to {peer}"),
            },
            None => Error::Remote {
                method,
                failure: Failure::new(Code::ShuttingDown, format!("{peer} is going away")),
            },
        }
    }

    fn lock_sleepers(&self) -> std::sync::MutexGuard<'_, Vec<Thread>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
