//! A call that is under way: waited for, or awaited.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::reply::Reply;
use super::{Handle, Started};
use crate::Error;
use crate::message::{Kind, Message};

/// A call that is under way. A future that needs no particular executor; dropping it cancels the call.
#[must_use = "dropping it cancels the call"]
pub struct PendingCall {
    inner: Arc<Handle>,
    started: Option<Started>,
    method: u32,
    deadline: Option<Instant>,
    reply_type: Option<u64>,
}

impl std::fmt::Debug for PendingCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingCall")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl PendingCall {
    pub(super) fn new(
        inner: Arc<Handle>,
        started: Started,
        method: u32,
        deadline: Option<Instant>,
        reply_type: Option<u64>,
    ) -> PendingCall {
        PendingCall {
            inner,
            started: Some(started),
            method,
            deadline,
            reply_type,
        }
    }

    /// Waits for the reply.
    pub fn wait(mut self) -> Result<Reply, Error> {
        let Some(started) = self.started.take() else {
            return Err(self.inner.why_closed(self.method));
        };
        let mut answer = Message::bare(Kind::Goodbye, 0);
        self.inner
            .wait_answer(started, self.method, self.deadline, &mut answer)?;
        self.inner.timed(&started);
        self.inner.reply(self.method, answer, self.reply_type)
    }

    /// Whether the reply is there: `wait` will not block.
    pub fn is_ready(&self) -> bool {
        self.inner.pump();
        self.started
            .and_then(|s| self.inner.table.place(s.index))
            .is_none_or(|place| place.is_ready())
    }

    /// Cancels the call: the server is told, nobody waits for what it does.
    pub fn cancel(self) {}
}

impl Future for PendingCall {
    type Output = Result<Reply, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(started) = this.started else {
            return Poll::Ready(Err(this.inner.why_closed(this.method)));
        };
        let Some(place) = this.inner.table.place(started.index) else {
            return Poll::Ready(Err(this.inner.why_closed(this.method)));
        };
        if !this.inner.look(place) {
            if this.deadline.is_some_and(|d| d <= Instant::now()) {
                this.started = None;
                this.inner.abandon(started);
                return Poll::Ready(Err(Error::DeadlineExceeded {
                    method: this.method,
                }));
            }
            if place.wait_task(context.waker()) {
                return match this.inner.drive(this.deadline) {
                    Ok(()) => Poll::Pending,
                    Err(e) => Poll::Ready(Err(e)),
                };
            }
        }
        this.started = None;
        let answer = place.take();
        this.inner.timed(&started);
        let reply = answer
            .ok_or_else(|| this.inner.why_closed(this.method))
            .and_then(|answer| this.inner.reply(this.method, answer, this.reply_type));
        Poll::Ready(reply)
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if let Some(started) = self.started.take() {
            self.inner.abandon(started);
        }
    }
}
