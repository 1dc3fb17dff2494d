//! A reply in many items.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::reply::Reply;
use super::table::{Place, WINDOW};
use super::wait::Got;
use super::{Handle, Started};
use crate::Error;
use crate::message::{Kind, Message};

/// The items that answer a call; an iterator that blocks, or [`Stream::next_item`] for tasks. Dropping it cancels the call.
pub struct Stream {
    inner: Arc<Handle>,
    started: Option<Started>,
    method: u32,
    deadline: Option<Instant>,
    reply_type: Option<u64>,
    /// Items taken since the server was last told.
    owed: u32,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn new(
        inner: Arc<Handle>,
        started: Started,
        method: u32,
        deadline: Option<Instant>,
        reply_type: Option<u64>,
    ) -> Stream {
        Stream {
            inner,
            started: Some(started),
            method,
            deadline,
            reply_type,
            owed: 0,
        }
    }

    /// What is there now: an item, or the end. `None`: nothing yet.
    fn take(&mut self, place: &Place, started: Started) -> Option<Option<Result<Reply, Error>>> {
        if let Some(item) = place.take_item() {
            self.pay(started);
            return Some(Some(self.inner.reply(self.method, item, self.reply_type)));
        }
        if !place.is_done() {
            return None;
        }
        // Items that came before the answer, and after the look above.
        if let Some(item) = place.take_item() {
            self.pay(started);
            return Some(Some(self.inner.reply(self.method, item, self.reply_type)));
        }
        self.started = None;
        Some(match place.take() {
            None => Some(Err(self.inner.why_closed(self.method))),
            Some(end) if end.kind == Kind::End => None,
            // A server may answer with one reply instead: a stream of one item.
            Some(answer) => Some(self.inner.reply(self.method, answer, self.reply_type)),
        })
    }

    /// Tells the server how much was taken, once for half a window.
    fn pay(&mut self, started: Started) {
        self.owed += 1;
        if self.owed >= WINDOW / 2 {
            let credit = Message {
                method: std::mem::take(&mut self.owed),
                ..Message::bare(Kind::Credit, started.call)
            };
            let _ = self.inner.send(credit);
        }
    }

    fn expire(&mut self, started: Started) -> Option<Result<Reply, Error>> {
        self.started = None;
        self.inner.abandon(started);
        Some(Err(Error::DeadlineExceeded {
            method: self.method,
        }))
    }

    /// The next item, for tasks. `None`: the stream has ended well.
    pub async fn next_item(&mut self) -> Option<Result<Reply, Error>> {
        poll_fn(|context| self.poll_item(context)).await
    }

    /// As [`Stream::next_item`], for executors that poll by themselves.
    pub fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Reply, Error>>> {
        let inner = Arc::clone(&self.inner);
        loop {
            let Some(started) = self.started else {
                return Poll::Ready(None);
            };
            let Some(place) = inner.table.place(started.index) else {
                return Poll::Ready(None);
            };
            inner.look(place);
            if let Some(item) = self.take(place, started) {
                return Poll::Ready(item);
            }
            if self.deadline.is_some_and(|d| d <= Instant::now()) {
                return Poll::Ready(self.expire(started));
            }
            if place.wait_task(context.waker()) {
                return match inner.drive(self.deadline) {
                    Ok(()) => Poll::Pending,
                    Err(e) => Poll::Ready(Some(Err(e))),
                };
            }
        }
    }
}

impl Iterator for Stream {
    type Item = Result<Reply, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let inner = Arc::clone(&self.inner);
        loop {
            let started = self.started?;
            let place = inner.table.place(started.index)?;
            if let Some(item) = self.take(place, started) {
                return item;
            }
            let mut answer = Message::bare(Kind::Goodbye, 0);
            match inner.wait(place, started.call, self.deadline, &mut answer) {
                Got::Ready => {}
                Got::Own => {
                    self.started = None;
                    return Some(inner.reply(self.method, answer, self.reply_type));
                }
                Got::Deadline => return self.expire(started),
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(started) = self.started.take() {
            self.inner.abandon(started);
        }
    }
}
