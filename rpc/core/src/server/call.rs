//! A call as its handler sees it.

use std::time::{Duration, Instant};

use vernal_pool::Pool;

use super::conn::{Client, Running};
use super::methods::Method;
use super::run::Inbox;
use crate::error::{Code, Error, Failure};
use crate::message::{Body, Kind, Message};
use crate::options::Passed;
use crate::trace;
use crate::transport::{Admitted, Peer};

/// A call. Dropped when the handler returns: nothing of the argument may be kept.
pub struct Call<'a> {
    pub(crate) client: &'a Client,
    pub(crate) running: &'a Running,
    pub(crate) message: &'a Message,
    pub(crate) argument: Option<Admitted>,
    pub(crate) deadline: Option<Instant>,
    /// The connection's receiving half, when the handler runs on the thread that polls.
    pub(crate) inbox: Option<&'a mut Inbox>,
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("message", self.message)
            .finish_non_exhaustive()
    }
}

/// What a handler answers with.
pub enum Answer {
    /// Plain bytes.
    Body(Body),
    /// An object of the heap that this server gives replies from; `release` runs when the client needs it no more, or is gone.
    Object {
        /// Its address.
        addr: u64,
        /// Its type.
        type_id: u64,
        /// Frees it.
        release: Box<dyn FnOnce() + Send>,
    },
    /// An object of the channel-wide heap. It stays; what the handler must not do is free it while clients may read it.
    Shared {
        /// Its address.
        addr: u64,
        /// Its type.
        type_id: u64,
    },
    /// The items were sent with [`Call::send`]; the stream ends.
    Ended,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Answer::Body(body) => f.debug_tuple("Body").field(body).finish(),
            Answer::Object { addr, type_id, .. } => f
                .debug_struct("Object")
                .field("addr", addr)
                .field("type_id", type_id)
                .finish_non_exhaustive(),
            Answer::Shared { addr, type_id } => f
                .debug_struct("Shared")
                .field("addr", addr)
                .field("type_id", type_id)
                .finish(),
            Answer::Ended => f.write_str("Ended"),
        }
    }
}

impl Answer {
    /// Nothing.
    pub const EMPTY: Answer = Answer::Body(Body::EMPTY);

    /// Plain bytes, at most [`crate::TEXT_MAX`].
    #[inline]
    pub fn bytes(data: &[u8]) -> Result<Answer, Failure> {
        match Body::from_bytes(data) {
            Some(body) => Ok(Answer::Body(body)),
            None => Err(too_long(data.len())),
        }
    }
}

#[cold]
fn too_long(len: usize) -> Failure {
    let limit = crate::TEXT_MAX;
    let text = format!("a reply of {len} plain bytes, the limit is {limit}: reply with an object");
    Failure::new(Code::Internal, text)
}

impl Call<'_> {
    /// Who calls, as the kernel or the registry says.
    pub fn peer(&self) -> &Peer {
        self.client.link.peer()
    }

    /// The method.
    #[inline]
    pub fn method(&self) -> u32 {
        self.message.method
    }

    /// The argument's plain bytes; empty if it is an object.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.message.body.bytes().unwrap_or_default()
    }

    /// The argument's address in this process. `None`: it is plain bytes.
    #[inline]
    pub fn object(&self) -> Option<u64> {
        self.argument.as_ref().map(|a| a.addr)
    }

    /// How the argument got here.
    pub fn passed(&self) -> Passed {
        self.argument.as_ref().map_or(Passed::Inline, |a| a.passed)
    }

    /// The heap that reply objects for this client come from; made at first use.
    pub fn heap(&self) -> Result<Pool, Error> {
        self.client.link.heap()
    }

    /// When the caller gives up.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether nobody waits for the answer any more: cancelled, past its deadline, or its client is gone.
    pub fn is_cancelled(&mut self) -> bool {
        if let Some(inbox) = &mut self.inbox {
            inbox.look_ahead(self.client);
        }
        self.running.is_cancelled() || self.deadline.is_some_and(|d| d <= Instant::now())
    }

    /// Sends an item of the stream that answers this call; waits while the client has as many items before it as it takes. The handler
    /// ends the stream with [`Answer::Ended`].
    pub fn send(&mut self, item: Answer) -> Result<(), Failure> {
        self.wait_credit()?;
        let message = self.client.outgoing(Kind::Item, self.message.call, item)?;
        self.client.send(message).map_err(gone)
    }

    fn wait_credit(&mut self) -> Result<(), Failure> {
        loop {
            if self.is_cancelled() {
                return Err(Failure::new(
                    Code::Cancelled,
                    "nobody takes the stream any more",
                ));
            }
            if self.running.take_credit() {
                return Ok(());
            }
            match &mut self.inbox {
                Some(inbox) => inbox.wait_ahead(self.client, self.deadline),
                None => self.running.wait_change(self.deadline),
            }
        }
    }
}

fn gone(error: Error) -> Failure {
    Failure::new(Code::Cancelled, error.to_string())
}

/// Admits the argument, runs the handler, and makes the answer's message; in a span if somebody listens.
#[inline(always)]
pub(crate) fn perform(
    client: &Client,
    running: &Running,
    method: &Method,
    message: &Message,
    deadline: Option<Instant>,
    inbox: Option<&mut Inbox>,
) -> Message {
    let handle = |passed: &mut Option<Passed>| {
        handle(client, running, method, message, deadline, inbox, passed)
    };
    match trace::is_on() {
        false => handle(&mut None),
        true => trace::serve(client.link.peer(), message, handle),
    }
}

fn handle(
    client: &Client,
    running: &Running,
    method: &Method,
    message: &Message,
    deadline: Option<Instant>,
    inbox: Option<&mut Inbox>,
    passed: &mut Option<Passed>,
) -> Message {
    if let Some(guard) = &client.guard {
        return guard.perform(client, running, method, message, deadline, inbox);
    }
    let argument = match admit(client, method, message) {
        Ok(argument) => argument,
        Err(failure) => return failed(message.call, &failure),
    };
    if let Some(admitted) = &argument {
        *passed = Some(admitted.passed);
    }
    let mut call = Call {
        client,
        running,
        message,
        argument,
        deadline,
        inbox,
    };
    // A handler that panics fails its call, not the server.
    let handler = std::panic::AssertUnwindSafe(|| (method.handler)(&mut call));
    let answer = match std::panic::catch_unwind(handler) {
        Ok(answer) => answer,
        Err(panic) => Err(panicked(&*panic)),
    };
    drop(call);
    let made = match answer {
        Ok(_) if deadline.is_some_and(|d| d <= Instant::now()) => Err(Failure::new(
            Code::DeadlineExceeded,
            "the handler ended after the deadline",
        )),
        Ok(answer) => client.outgoing(Kind::Reply, message.call, answer),
        Err(failure) => Err(failure),
    };
    match made {
        Ok(message) => message,
        Err(failure) => failed(message.call, &failure),
    }
}

#[cold]
fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = format!("the handler panicked: {}", panic_text(panic));
    Failure::new(Code::Internal, text)
}

/// When a call is over that has so many nanoseconds left; 0: never. A time that no clock reaches is none.
pub(crate) fn until(left: u64) -> Option<Instant> {
    match left {
        0 => None,
        left => Instant::now().checked_add(Duration::from_nanos(left)),
    }
}

/// The message of a failure.
#[cold]
pub(crate) fn failed(call: u64, failure: &Failure) -> Message {
    Message {
        method: failure.code.to_wire(),
        body: Body::from_text(&failure.text),
        ..Message::bare(Kind::Error, call)
    }
}

#[inline(always)]
fn admit(client: &Client, method: &Method, message: &Message) -> Result<Option<Admitted>, Failure> {
    match (&message.body, method.signature.argument) {
        (Body::Inline { .. } | Body::Bytes(_), None) => Ok(None),
        _ => admit_object(client, method, message),
    }
}

#[inline(never)]
fn admit_object(
    client: &Client,
    method: &Method,
    message: &Message,
) -> Result<Option<Admitted>, Failure> {
    let bad = |why: String| Failure::new(Code::BadArgument, why);
    match (&message.body, method.signature.argument) {
        (Body::Inline { .. } | Body::Bytes(_), None) => Ok(None),
        (body @ Body::Object { .. }, Some(expected)) => client
            .link
            .admit(body, expected)
            .map(Some)
            .map_err(|e| bad(e.to_string())),
        (Body::Object { .. }, None) => {
            Err(bad("an object, where the method takes plain bytes".into()))
        }
        (Body::Inline { .. } | Body::Bytes(_), Some(_)) => {
            Err(bad("plain bytes, where the method takes an object".into()))
        }
        (Body::Shared { .. }, _) => Err(bad(
            "an object of the channel's heap, of which clients can pass none".into(),
        )),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
