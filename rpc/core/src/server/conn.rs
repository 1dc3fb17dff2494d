//! A connection as the server's threads share it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::call::Answer;
use crate::error::{Code, Error, Failure};
use crate::exclusive::Exclusive;
use crate::inject;
use crate::message::{Body, Kind, Message};
use crate::outbox::Outbox;
use crate::sandbox::Guard;
use crate::transport::{Link, Tx};

/// Items of a stream that may be under way without credit; the client's table has the same number.
const WINDOW: u32 = 32;

/// Reply objects that one client may hold at once.
const MAX_HELD: usize = 1 << 20;

/// How long a handler that waits for credit sleeps at most before it looks at its deadline again.
const ROUND: Duration = Duration::from_millis(100);

type ReleaseFn = Box<dyn FnOnce() + Send>;

/// A client.
pub(crate) struct Client {
    pub(crate) link: Arc<dyn Link>,
    /// Its sandbox, if the channel has them.
    pub(crate) guard: Option<Guard>,
    outbox: Exclusive<Outbox>,
    /// Objects that the client may be reading, by address; an object can be given more than once.
    held: Mutex<HashMap<u64, Vec<ReleaseFn>>>,
    /// Calls that run on worker threads.
    jobs: Mutex<Vec<Arc<Running>>>,
    /// How many there are.
    pub(crate) job_count: AtomicU32,
    /// The call that runs on the thread that polls.
    pub(crate) inline: Running,
    gone: AtomicBool,
}

/// A call whose handler runs.
#[derive(Default)]
pub(crate) struct Running {
    call: AtomicU64,
    cancelled: AtomicBool,
    credit: AtomicU32,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Running {
    pub(crate) fn of(call: u64) -> Running {
        let running = Running::default();
        running.begin(call);
        running
    }

    /// A call begins to run.
    #[inline]
    pub(crate) fn begin(&self, call: u64) {
        self.call.store(call, Ordering::Relaxed);
        self.cancelled.store(false, Ordering::Relaxed);
        self.credit.store(WINDOW, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    pub(crate) fn take_credit(&self) -> bool {
        let take = |n: u32| n.checked_sub(1);
        self.credit
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .is_ok()
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.notify();
    }

    /// More credit than the window is a client's lie: it would only be sent more than it takes.
    pub(crate) fn add_credit(&self, more: u32) {
        let add = |n: u32| Some(n.saturating_add(more).min(WINDOW));
        let _ = self
            .credit
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        self.notify();
    }

    fn notify(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until credit comes or the call is cancelled, for a while.
    pub(crate) fn wait_change(&self, deadline: Option<Instant>) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_cancelled() || self.credit.load(Ordering::Acquire) > 0 {
            return;
        }
        let left = deadline.map_or(ROUND, |d| d.saturating_duration_since(Instant::now()));
        let _ = self.changed.wait_timeout(guard, left.min(ROUND));
    }
}

impl Client {
    pub(crate) fn new(link: Arc<dyn Link>, tx: Box<dyn Tx>, guard: Option<Guard>) -> Client {
        Client {
            link,
            guard,
            outbox: Exclusive::new(Outbox::new(tx)),
            held: Mutex::default(),
            jobs: Mutex::default(),
            job_count: AtomicU32::new(0),
            inline: Running::default(),
            gone: AtomicBool::new(false),
        }
    }

    fn jobs(&self) -> MutexGuard<'_, Vec<Arc<Running>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u64, Vec<ReleaseFn>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message, or lets it wait.
    #[inline(always)]
    pub(crate) fn send(&self, mut message: Message) -> Result<(), Error> {
        self.outbox.claim().send(&mut message, &*self.link)
    }

    /// Goes on with what waits; `true`: nothing does.
    pub(crate) fn flush(&self) -> Result<bool, Error> {
        self.outbox.claim().flush()
    }

    /// The message of an answer. Its object is held until the client releases it.
    #[inline(always)]
    pub(crate) fn outgoing(
        &self,
        kind: Kind,
        call: u64,
        answer: Answer,
    ) -> Result<Message, Failure> {
        let (kind, body) = match answer {
            Answer::Body(body) => (kind, body),
            other => self.outgoing_object(kind, other)?,
        };
        Ok(Message {
            body,
            ..Message::bare(kind, call)
        })
    }

    #[inline(never)]
    fn outgoing_object(&self, kind: Kind, answer: Answer) -> Result<(Kind, Body), Failure> {
        Ok(match answer {
            Answer::Body(body) => (kind, body),
            Answer::Ended => (Kind::End, Body::EMPTY),
            Answer::Shared { addr, type_id } => (kind, Body::Shared { addr, type_id }),
            Answer::Object {
                addr,
                type_id,
                release,
            } => {
                self.hold(addr, release)?;
                (kind, Body::Object { addr, type_id })
            }
        })
    }

    fn hold(&self, addr: u64, release: ReleaseFn) -> Result<(), Failure> {
        let mut held = self.held();
        // Looked at under the lock that `leave` empties the table under: nothing is added to a table that nobody empties again.
        if self.gone.load(Ordering::Relaxed) || held.len() >= MAX_HELD {
            drop(held);
            release();
            return Err(Failure::new(
                Code::Busy,
                format!("the client is gone or holds {MAX_HELD} objects of replies"),
            ));
        }
        held.entry(addr).or_default().push(release);
        Ok(())
    }

    /// The client needs an object no more. `false`: it has no such object.
    pub(crate) fn release(&self, addr: u64) -> bool {
        let release = {
            let mut held = self.held();
            let Some(times) = held.get_mut(&addr) else {
                return false;
            };
            let release = times.pop();
            if times.is_empty() {
                held.remove(&addr);
            }
            release
        };
        match release {
            Some(release) => {
                inject::step();
                release();
                true
            }
            None => false,
        }
    }

    /// The client has what it was given, all of it.
    pub(crate) fn release_all(&self) {
        let held = std::mem::take(&mut *self.held());
        for release in held.into_values().flatten() {
            inject::step();
            release();
        }
    }

    /// A call begins to run on a worker.
    pub(crate) fn begin_job(&self, running: &Arc<Running>) {
        self.job_count.fetch_add(1, Ordering::AcqRel);
        self.jobs().push(Arc::clone(running));
    }

    /// It has ended.
    pub(crate) fn end_job(&self, running: &Arc<Running>) {
        self.jobs().retain(|r| !Arc::ptr_eq(r, running));
        self.job_count.fetch_sub(1, Ordering::AcqRel);
    }

    fn with_running(&self, call: u64, f: impl Fn(&Running)) {
        if self.inline.call.load(Ordering::Relaxed) == call {
            f(&self.inline);
        }
        for running in self.jobs().iter() {
            if running.call.load(Ordering::Relaxed) == call {
                f(running);
            }
        }
    }

    /// The client does not wait for a call any more.
    pub(crate) fn cancel(&self, call: u64) {
        self.with_running(call, Running::cancel);
    }

    /// The connection is broken while a handler runs on the polling thread.
    pub(crate) fn cancel_inline(&self) {
        self.inline.cancel();
    }

    /// The client has taken items of a stream.
    pub(crate) fn credit(&self, call: u64, more: u32) {
        self.with_running(call, |running| running.add_credit(more));
    }

    /// The client waits for none of its calls any more.
    pub(crate) fn cancel_all(&self) {
        self.inline.cancel();
        for running in self.jobs().iter() {
            running.cancel();
        }
    }

    /// The client is gone: its calls are cancelled, its objects are freed.
    pub(crate) fn leave(&self) {
        self.cancel_all();
        let held = {
            let mut held = self.held();
            self.gone.store(true, Ordering::Relaxed);
            std::mem::take(&mut *held)
        };
        for release in held.into_values().flatten() {
            inject::step();
            release();
        }
        self.link.close();
    }
}
