//! The server's side of a call that runs in a helper.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vernal_heap::walk::Examiner;
use vernal_pool::foreign::{ForeignHeap, copy_verified};
use vernal_sandbox::{Ended, Helper, Tick, Turn};

use super::Cell;
use super::turns::{self, CALL, END, FAILED, GO, GROW, HELLO, ITEM, PEER, REPLIES, REPLY};
use crate::error::{Code, Error, Failure};
use crate::message::{Body, Kind, Message};
use crate::registry::SegmentId;
use crate::server::call::{Answer, Call, failed};
use crate::server::conn::{Client, Running};
use crate::server::methods::Method;
use crate::server::run::Inbox;
use crate::transport::{Lend, Link};

/// How long a fresh helper may take to say that it is there.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// Reply memory of one helper at least.
const REPLY_BYTES_MIN: u64 = 64 << 20;

/// The sandbox of one client.
#[derive(Debug)]
pub(crate) struct Guard {
    cell: Arc<Cell>,
    /// The helper that waits for the client's next call; none before the first, and after one that ended its helper.
    seat: Mutex<Option<Seat>>,
}

/// A helper and what it was lent.
struct Seat {
    helper: Helper,
    /// Segments of the client's heap that it has.
    lent: usize,
    replies: Replies,
    answer: Vec<u8>,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Seat").field(&self.helper.pid()).finish()
    }
}

/// The heap that the helper makes replies in: a peer's heap like any other.
struct Replies {
    link: Arc<dyn Link>,
    /// Taken on drop: the mappings go before the registry is told.
    heap: Option<ForeignHeap>,
    /// Segments that it has got and may not have mapped yet.
    new: Vec<(Arc<File>, u64, u64)>,
    ids: Vec<SegmentId>,
    bytes: u64,
    examiner: Examiner,
}

/// A handler that did not come to its end.
enum Fault {
    /// The helper is gone.
    Ended(Ended),
    /// What it said is nonsense: it has been taken over.
    Nonsense(&'static str),
    /// The call fails; the helper is as good as before.
    Failed(Failure),
}

impl From<Ended> for Fault {
    fn from(ended: Ended) -> Fault {
        Fault::Ended(ended)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Failed(internal(error))
    }
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Internal, format!("in the sandbox: {error}"))
}

impl Guard {
    pub(crate) fn new(cell: &Arc<Cell>) -> Guard {
        Guard {
            cell: Arc::clone(cell),
            seat: Mutex::default(),
        }
    }

    /// Has the client's helper run the handler; the answer's message.
    #[cold]
    pub(crate) fn perform(
        &self,
        client: &Client,
        running: &Running,
        method: &Method,
        message: &Message,
        deadline: Option<Instant>,
        inbox: Option<&mut Inbox>,
    ) -> Message {
        let mut call = Call {
            client,
            running,
            message,
            argument: None,
            deadline,
            inbox,
        };
        let answer = self.run(&mut call, method);
        let late = deadline.is_some_and(|d| d <= Instant::now());
        let answer = match answer {
            Ok(_) if late => Err(Failure::new(
                Code::DeadlineExceeded,
                "the handler ended after the deadline",
            )),
            answer => answer,
        };
        let made = answer.and_then(|a| client.outgoing(Kind::Reply, message.call, a));
        made.unwrap_or_else(|failure| failed(message.call, &failure))
    }

    fn run(&self, call: &mut Call<'_>, method: &Method) -> Result<Answer, Failure> {
        let at = self
            .cell
            .methods
            .binary_search_by_key(&call.message.method, |(n, _)| *n);
        let known = at.ok().and_then(|at| self.cell.methods.get(at));
        if !known.is_some_and(|(_, m)| std::ptr::eq(&**m, method)) {
            return Err(internal(format!(
                "method {} is not known there: serve all methods before the sandbox is made",
                call.message.method
            )));
        }
        let link = Arc::clone(&call.client.link);
        let Some(lend) = link.lend() else {
            return Err(internal(
                "this client shares no memory with the server: the sandbox is for clients on this host",
            ));
        };
        let mut seat = self.seat.lock().unwrap_or_else(PoisonError::into_inner);
        if seat.is_none() {
            *seat = Some(Seat::new(&self.cell, &link).map_err(internal)?);
        }
        let Some(known) = seat.as_mut() else {
            return Err(internal("no helper"));
        };
        let mut until = call.until(self.cell.setup.limit);
        let fault = match known.call(call, method, lend, &self.cell, &mut until) {
            Ok(answer) => return Ok(answer),
            Err(Fault::Failed(failure)) => return Err(failure),
            Err(fault) => fault,
        };
        // Whatever it is now, it serves nobody any more; the next call gets a fresh one.
        *seat = None;
        Err(match fault {
            Fault::Nonsense(what) => internal(format!("the helper was ended: {what}")),
            Fault::Ended(Ended::Stopped) if call.is_overdue() => {
                Failure::new(Code::DeadlineExceeded, "the handler was ended: too late")
            }
            Fault::Ended(Ended::Stopped) if until <= Instant::now() => Failure::new(
                Code::DeadlineExceeded,
                format!(
                    "the handler was ended: it ran for more than {:?}, the limit of the sandbox",
                    self.cell.setup.limit
                ),
            ),
            Fault::Ended(Ended::Stopped) => Failure::new(
                Code::Cancelled,
                "the handler was ended: nobody waits for it",
            ),
            Fault::Ended(ended) => internal(format!("the handler has ended: {ended}")),
            Fault::Failed(failure) => failure,
        })
    }
}

impl Call<'_> {
    fn is_overdue(&self) -> bool {
        self.deadline.is_some_and(|d| d <= Instant::now())
    }

    fn until(&self, limit: Duration) -> Instant {
        let most = Instant::now() + limit;
        self.deadline.map_or(most, |d| d.min(most))
    }

    fn tick(&mut self, until: Instant) -> Tick {
        match until <= Instant::now() || self.is_cancelled() {
            true => Tick::Stop,
            false => Tick::Wait,
        }
    }
}

impl Seat {
    fn new(cell: &Cell, link: &Arc<dyn Link>) -> Result<Seat, Error> {
        let mut helper = cell.zygote.helper().map_err(super::error)?;
        let peer = link.peer();
        let none = u64::MAX;
        let number = |n: Option<u32>| n.map_or(none, u64::from);
        let name = peer.name.as_bytes();
        let name = name.get(..name.len().min(256)).unwrap_or_default();
        let hello = Turn {
            kind: HELLO,
            len: name.len() as u16,
            words: [number(peer.uid), number(peer.gid), number(peer.pid), 0],
            ..Turn::default()
        };
        let until = Instant::now() + HELLO_LIMIT;
        let mut answer = Vec::new();
        let tick = &mut || match until <= Instant::now() {
            true => Tick::Stop,
            false => Tick::Wait,
        };
        let said = helper.ask(&hello, name, &mut answer, tick);
        said.map_err(|ended| Error::Sandbox {
            why: format!("a fresh helper did not begin: {ended}"),
        })?;
        let types = Arc::clone(&cell.setup.types);
        Ok(Seat {
            helper,
            lent: 0,
            replies: Replies {
                link: Arc::clone(link),
                heap: Some(ForeignHeap::new("replies of a sandbox")),
                new: Vec::new(),
                ids: Vec::new(),
                bytes: 0,
                examiner: Examiner::new(types),
            },
            answer,
        })
    }

    fn call(
        &mut self,
        call: &mut Call<'_>,
        method: &Method,
        lend: &dyn Lend,
        cell: &Cell,
        until: &mut Instant,
    ) -> Result<Answer, Fault> {
        let mut new = Vec::new();
        if let Body::Object { .. } = call.message.body {
            new = lend.peer_segments(self.lent).map_err(bad_argument)?;
        }
        for (file, addr, size) in &new {
            self.helper
                .lend(PEER, *addr, *size, std::os::fd::AsFd::as_fd(&**file))?;
        }
        self.lent += new.len();
        let (mut turn, mut bytes) = turns::with_body(CALL, &call.message.body);
        turn.code = call.message.method;
        let left = call.deadline.map_or(0, |d| {
            d.saturating_duration_since(Instant::now())
                .as_nanos()
                .max(1) as u64
        });
        turn.aux = [left, new.len() as u64];
        loop {
            let mut tick = || call.tick(*until);
            let said = self.helper.ask(&turn, bytes, &mut self.answer, &mut tick)?;
            turn = Turn {
                kind: GO,
                ..Turn::default()
            };
            bytes = &[];
            match said.kind {
                REPLY => return self.answer(&said, call, method, cell),
                END => return Ok(Answer::Ended),
                FAILED => return Err(Fault::Failed(turns::failure(&said, &self.answer))),
                ITEM => {
                    let item = self.answer(&said, call, method, cell)?;
                    // Its client takes no more: the handler hears of it, and has its time to end.
                    turn.code = u32::from(call.send(item).is_err());
                    *until = call.until(cell.setup.limit);
                }
                GROW => {
                    let [size, _] = said.aux;
                    let grown = self.grow(size, lend, cell)?;
                    turn.code = u32::from(!grown);
                }
                _ => return Err(Fault::Nonsense("it says what no helper says")),
            }
        }
    }

    /// More memory for replies; `false`: it has enough.
    fn grow(&mut self, size: u64, lend: &dyn Lend, cell: &Cell) -> Result<bool, Fault> {
        let most = cell.setup.budget.bytes.max(REPLY_BYTES_MIN);
        let bytes = self.replies.bytes.saturating_add(size);
        if bytes > most {
            return Ok(false);
        }
        // The registry says what sizes there are.
        let Ok(segment) = lend.segment(size) else {
            return Ok(false);
        };
        self.replies.ids.push(segment.id);
        self.replies.bytes = bytes;
        let file = Arc::new(segment.file);
        self.helper.lend(
            REPLIES,
            segment.addr,
            segment.size,
            std::os::fd::AsFd::as_fd(&*file),
        )?;
        self.replies.new.push((file, segment.addr, segment.size));
        Ok(true)
    }

    /// The answer that a reply or an item is. An object is copied into the reply heap, and checked on the way.
    fn answer(
        &mut self,
        said: &Turn,
        call: &Call<'_>,
        method: &Method,
        cell: &Cell,
    ) -> Result<Answer, Fault> {
        let (addr, type_id) = match turns::body(said, &self.answer) {
            Some(body @ (Body::Inline { .. } | Body::Bytes(_))) => return Ok(Answer::Body(body)),
            Some(Body::Object { addr, type_id }) => (addr, type_id),
            Some(Body::Shared { .. }) => {
                return Err(Fault::Failed(internal(
                    "a reply out of the channel's heap, which it has not: reply with bytes, or an object of the call's heap",
                )));
            }
            None => return Err(Fault::Nonsense("its reply is none")),
        };
        let Some(expected) = method.signature.reply else {
            return Err(Fault::Failed(internal(
                "an object, where the method replies with plain bytes",
            )));
        };
        if type_id != expected {
            return Err(Fault::Failed(internal(format!(
                "an object of type {type_id:#x}, where the method replies with {expected:#x}"
            ))));
        }
        let pool = call.client.link.heap()?;
        let replies = &mut self.replies;
        replies.map_new()?;
        let Some(heap) = &replies.heap else {
            return Err(Fault::Nonsense("it has no heap"));
        };
        let budget = cell.setup.budget;
        let copied = copy_verified(&mut replies.examiner, heap, addr, expected, budget, &pool);
        let copied = copied.map_err(|e| Fault::Failed(internal(format!("its reply: {e}"))))?;
        Ok(Answer::Object {
            addr: copied.root,
            type_id: expected,
            release: Box::new(move || {
                for object in copied.objects {
                    let _ = pool.free(object);
                }
            }),
        })
    }
}

/// The client's heap is not what it should be.
fn bad_argument(error: Error) -> Fault {
    Fault::Failed(Failure::new(Code::BadArgument, error.to_string()))
}

impl Replies {
    /// Maps what the helper has got: it has mapped it by now, or it is no heap of its.
    fn map_new(&mut self) -> Result<(), Fault> {
        let Some(lend) = self.link.lend() else {
            return Ok(());
        };
        let first = self.ids.len() - self.new.len().min(self.ids.len());
        let ids = self.ids.get(first..).unwrap_or_default();
        for ((file, addr, size), id) in self.new.drain(..).zip(ids) {
            let nonsense = "it has not mapped the memory that it asked for";
            lend.ready(*id).map_err(|_| Fault::Nonsense(nonsense))?;
            if let Some(heap) = &self.heap {
                heap.add(&file, addr, size)
                    .map_err(internal)
                    .map_err(Fault::Failed)?;
            }
        }
        Ok(())
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.heap = None;
        if let Some(lend) = self.link.lend() {
            self.ids.iter().for_each(|id| lend.drop_segment(*id));
        }
    }
}
