//! Both directions of a connection in one hand: send, and receive with waiting.

use crate::backoff::{Backoff, Step, WaitPolicy};
use crate::consumer::Consumer;
use crate::error::{Corrupt, SendError};
use crate::message::Message;
use crate::producer::Producer;
use crate::sleep::Sleeper;
use crate::words::{OwnWords, PeerWords};
use std::ops::ControlFlow;
use std::time::Instant;

/// Blocking and waking, by whatever the two sides share: eventfds, futexes, a condition variable.
pub trait Park {
    /// Why waiting ends for good: the peer is dead, this side is told to stop.
    type Stop;

    /// Blocks until the peer wakes this side or the deadline passes. It may return early for any reason. A wake-up that came
    /// before the call must make it return at once.
    fn block(&mut self, deadline: Option<Instant>) -> ControlFlow<Self::Stop>;

    /// Whether waiting has ended for good, without blocking. Asked about once per millisecond by a waiter that never blocks.
    fn check(&mut self) -> ControlFlow<Self::Stop>;

    /// Wakes the peer out of [`block`](Self::block), or makes its next one return at once.
    fn wake(&mut self);
}

/// How receiving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<S> {
    /// With a message.
    Message(Message),
    /// The deadline has passed.
    Deadline,
    /// [`Park::block`] said that waiting is over.
    Stopped(S),
}

/// One side of a connection, used by one thread.
#[derive(Debug)]
pub struct Endpoint<O, P, K> {
    /// The outgoing ring.
    pub producer: Producer<O, P>,
    /// The incoming ring.
    pub consumer: Consumer<O, P>,
    /// This side's announcement of sleep.
    pub sleeper: Sleeper<O>,
    /// Blocking and waking.
    pub park: K,
    backoff: Backoff,
}

impl<O: OwnWords, P: PeerWords, K: Park> Endpoint<O, P, K> {
    /// An endpoint of these parts.
    pub fn new(
        producer: Producer<O, P>,
        consumer: Consumer<O, P>,
        sleeper: Sleeper<O>,
        park: K,
        policy: WaitPolicy,
    ) -> Self {
        Endpoint {
            producer,
            consumer,
            sleeper,
            park,
            backoff: Backoff::new(policy),
        }
    }

    /// Sends a message, if there is room, and wakes a sleeping peer.
    #[inline(always)]
    pub fn try_send(&mut self, message: &Message) -> Result<(), SendError> {
        self.producer.try_send(message)?;
        if self.producer.must_wake() {
            self.park.wake();
        }
        Ok(())
    }

    /// Takes a message that is there.
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<Option<Message>, Corrupt> {
        let message = self.consumer.try_recv()?;
        if self.consumer.must_wake() {
            self.park.wake();
        }
        Ok(message)
    }

    /// Waits for a message.
    #[inline(always)]
    pub fn recv(&mut self, deadline: Option<Instant>) -> Result<Received<K::Stop>, Corrupt> {
        let mut wait = self.backoff.begin(deadline);
        loop {
            if let Some(message) = self.try_recv()? {
                self.backoff.end(wait);
                return Ok(Received::Message(message));
            }
            let step = self.backoff.step(&mut wait);
            if let Some(end) = self.follow(step, deadline, |e| e.consumer.has_message())? {
                return Ok(end);
            }
        }
    }

    /// Waits until there is room for a message, or one has come in: a peer may be unable to go on before it is taken.
    /// `Ok(None)` when one of both is so.
    pub fn wait_room(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Option<Received<K::Stop>>, Corrupt> {
        let mut wait = self.backoff.begin(deadline);
        loop {
            if self.producer.has_room()? || self.consumer.has_message()? {
                self.backoff.end(wait);
                return Ok(None);
            }
            let step = self.backoff.step(&mut wait);
            let ready = |e: &mut Self| Ok(e.producer.has_room()? || e.consumer.has_message()?);
            if let Some(end) = self.follow(step, deadline, ready)? {
                return Ok(Some(end));
            }
        }
    }

    #[inline]
    fn follow(
        &mut self,
        step: Step,
        deadline: Option<Instant>,
        ready: impl Fn(&mut Self) -> Result<bool, Corrupt>,
    ) -> Result<Option<Received<K::Stop>>, Corrupt> {
        match step {
            Step::Look => Ok(None),
            Step::Check => Ok(self.park.check().break_value().map(Received::Stopped)),
            Step::Sleep => self.sleep(deadline, ready),
        }
    }

    /// Blocks unless `ready` says, after the announcement, that there is something to do.
    fn sleep(
        &mut self,
        deadline: Option<Instant>,
        ready: impl Fn(&mut Self) -> Result<bool, Corrupt>,
    ) -> Result<Option<Received<K::Stop>>, Corrupt> {
        if deadline.is_some_and(|d| d <= Instant::now()) {
            return Ok(Some(Received::Deadline));
        }
        // A peer that waits for credits gets all there are: this side may sleep for long.
        self.consumer.give_credits();
        if self.consumer.must_wake() {
            self.park.wake();
        }
        self.sleeper.arm();
        let looked = ready(self);
        let blocked = match looked {
            Ok(false) => self.park.block(deadline),
            _ => ControlFlow::Continue(()),
        };
        self.sleeper.disarm();
        looked?;
        Ok(match blocked {
            ControlFlow::Break(stop) => Some(Received::Stopped(stop)),
            ControlFlow::Continue(()) => None,
        })
    }
}
