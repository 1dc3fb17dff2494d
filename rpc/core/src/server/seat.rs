//! One client as the polling thread has it: the receiving half, and what is done with each message.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Inner;
use super::call::{failed, perform, until};
use super::conn::{Client, Running};
use super::methods::View;
use super::pool::{Job, Pool};
use crate::error::{Code, Error, Failure};
use crate::latency::is_sampled;
use crate::message::{Body, Kind, Message};
use crate::transport::Rx;

/// Messages of one client that are taken before the next client's turn.
const BATCH: u32 = 32;
/// Calls that are read ahead while a handler waits for something of the same client.
const AHEAD: usize = 256;
/// How long a waiting handler sleeps at most before it looks at its deadline again.
const ROUND: Duration = Duration::from_millis(100);

/// The receiving half.
pub(crate) struct Inbox {
    pub(crate) rx: Box<dyn Rx>,
    /// Calls that a handler has read while it waited.
    ahead: VecDeque<Message>,
    /// What ended the connection while a handler ran.
    broken: Option<Error>,
}

/// A client that is served.
pub(crate) struct Seat {
    pub(crate) client: Arc<Client>,
    pub(crate) inbox: Inbox,
    /// Names it among the events.
    pub(crate) key: u64,
}

impl Inbox {
    pub(crate) fn new(rx: Box<dyn Rx>) -> Inbox {
        Inbox {
            rx,
            ahead: VecDeque::new(),
            broken: None,
        }
    }

    /// Whether [`Inbox::next`] may have something: asked at every turn, for every client.
    #[inline(always)]
    fn is_due(&mut self) -> bool {
        self.rx.is_due() || !self.ahead.is_empty() || self.broken.is_some()
    }

    #[inline]
    fn next(&mut self, client: &Client, message: &mut Message) -> Result<bool, Error> {
        if let Some(read) = self.ahead.pop_front() {
            *message = read;
            return Ok(true);
        }
        if self.broken.is_some()
            && let Some(e) = self.broken.take()
        {
            return Err(e);
        }
        if !self.rx.recv_into(message)? {
            return Ok(false);
        }
        if message.kind != Kind::Call {
            control(client, message)?;
        }
        Ok(true)
    }

    /// While a handler runs: takes what the client says about calls that run, and keeps its next calls for later.
    fn read_ahead(&mut self, client: &Client) {
        while self.broken.is_none() && self.ahead.len() < AHEAD {
            let step = match self.rx.try_recv() {
                Ok(None) => return,
                Ok(Some(message)) if message.kind == Kind::Call => {
                    self.ahead.push_back(message);
                    Ok(())
                }
                Ok(Some(message)) => {
                    if message.kind == Kind::Cancel {
                        self.ahead.retain(|m| m.call != message.call);
                    }
                    control(client, &message)
                }
                Err(e) => Err(e),
            };
            if let Err(e) = step {
                self.break_with(client, e);
            }
        }
    }

    fn break_with(&mut self, client: &Client, error: Error) {
        self.broken = Some(error);
        client.cancel_inline();
    }

    /// While a handler runs that asks whether anybody still waits for it: takes what the client says, and looks whether it lives.
    pub(crate) fn look_ahead(&mut self, client: &Client) {
        self.read_ahead(client);
        if self.broken.is_none()
            && let Err(e) = client.link.acknowledge()
        {
            self.read_ahead(client);
            self.break_with(client, e);
        }
    }

    /// While a handler runs: waits until the client says something.
    pub(crate) fn wait_ahead(&mut self, client: &Client, deadline: Option<Instant>) {
        let flushed = client.flush().unwrap_or(true);
        let most = if flushed {
            ROUND
        } else {
            Duration::from_millis(1)
        };
        match self.rx.arm() {
            Ok(true) => {
                let left = deadline.map_or(most, |d| d.saturating_duration_since(Instant::now()));
                let events = client.link.events();
                let mut fds: Vec<PollFd<'_>> = events
                    .iter()
                    .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
                    .collect();
                let spec = Timespec::try_from(left.min(most)).ok();
                let _ = poll(&mut fds, spec.as_ref());
                self.rx.disarm();
                if let Err(e) = client.link.acknowledge() {
                    self.read_ahead(client);
                    self.break_with(client, e);
                }
            }
            Ok(false) => {
                self.rx.disarm();
                if self.ahead.len() >= AHEAD {
                    // It sends call after call and takes nothing: credit can only come behind them.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Err(e) => {
                self.rx.disarm();
                self.break_with(client, e);
            }
        }
    }
}

/// What a client says besides calls.
#[inline(never)]
fn control(client: &Client, message: &Message) -> Result<(), Error> {
    let corrupt = |why: &str| Error::Corrupt {
        peer: client.link.peer().name.clone(),
        why: why.to_owned(),
    };
    match message.kind {
        Kind::Cancel => client.cancel(message.call),
        Kind::Credit => client.credit(message.call, message.method),
        Kind::Release => {
            let Body::Object { addr, .. } = message.body else {
                return Err(corrupt("a release names no object"));
            };
            if !client.release(addr) {
                return Err(corrupt("it releases an object that it does not hold"));
            }
        }
        // It waits for nothing any more. The end of the link follows.
        Kind::Goodbye => client.cancel_all(),
        _ => return Err(corrupt("a client sends what only servers send")),
    }
    Ok(())
}

impl Seat {
    /// Whether [`Seat::serve`] may find something.
    #[inline(always)]
    pub(crate) fn is_due(&mut self) -> bool {
        self.inbox.is_due()
    }

    /// Serves what is there; `true`: there was something.
    #[inline(never)]
    pub(crate) fn serve(
        &mut self,
        channel: &Inner,
        view: &mut View,
        pool: &Pool,
        draining: bool,
    ) -> Result<bool, Error> {
        let mut any = false;
        let mut message = Message::bare(Kind::Goodbye, 0);
        for _ in 0..BATCH {
            if !self.inbox.next(&self.client, &mut message)? {
                break;
            }
            any = true;
            if message.kind == Kind::Call {
                self.answer(channel, view, pool, draining, &mut message)?;
            }
            if !self.inbox.is_due() {
                break;
            }
        }
        Ok(any)
    }

    #[inline(always)]
    fn answer(
        &mut self,
        channel: &Inner,
        view: &mut View,
        pool: &Pool,
        draining: bool,
        message: &mut Message,
    ) -> Result<(), Error> {
        let call = message.call;
        let counters = &channel.counters;
        // One thread counts: no locked instruction. Whoever wants to time calls takes those whose count ends in zeros: no clock is
        // read for the others.
        let calls = counters.calls.load(Ordering::Relaxed).wrapping_add(1);
        counters.calls.store(calls, Ordering::Relaxed);
        let begun = is_sampled(calls.wrapping_sub(1)).then(Instant::now);
        if draining {
            return self.refuse(
                channel,
                call,
                Code::ShuttingDown,
                "the server is going away",
            );
        }
        let Some(method) = view.find(&channel.methods, message.method) else {
            let text = format!(
                "channel {} serves no method {}",
                channel.name, message.method
            );
            return self.refuse(channel, call, Code::UnknownMethod, &text);
        };
        let deadline = until(message.deadline);
        if !pool.is_empty() {
            let job = Job {
                client: Arc::clone(&self.client),
                running: Arc::new(Running::of(call)),
                method: Arc::clone(method),
                message: std::mem::replace(message, Message::bare(Kind::Goodbye, 0)),
                deadline,
                begun,
            };
            return match pool.push(job) {
                true => Ok(()),
                false => self.refuse(channel, call, Code::Busy, "too many calls wait"),
            };
        }
        let client = &*self.client;
        client.inline.begin(call);
        let inbox = Some(&mut self.inbox);
        let answer = perform(client, &client.inline, method, message, deadline, inbox);
        if answer.kind == Kind::Error {
            counters.failed.fetch_add(1, Ordering::Relaxed);
        }
        client.send(answer)?;
        if let Some(begun) = begun {
            client.link.timed(begun.elapsed());
        }
        Ok(())
    }

    #[cold]
    fn refuse(&self, channel: &Inner, call: u64, code: Code, text: &str) -> Result<(), Error> {
        channel.counters.failed.fetch_add(1, Ordering::Relaxed);
        self.client.send(failed(call, &Failure::new(code, text)))
    }
}
