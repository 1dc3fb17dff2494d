//! The sending half and what waits in front of it.
//!
//! A call waits for room; what answers a peer (replies, releases, credits) must not: the peer may be unable to make room before it
//! has read what this side says. So it queues here, in order. An honest peer has at most as many calls in flight as its ring
//! has slots, so a queue that grows beyond some rings' worth belongs to a peer that does not read, and ends the connection.

use std::collections::VecDeque;

use crate::Error;
use crate::message::{Kind, Message};
use crate::transport::{Link, Tx};

/// Messages that may wait.
const LIMIT: usize = 8192;

pub(crate) struct Outbox {
    tx: Box<dyn Tx>,
    waiting: VecDeque<Message>,
}

impl Outbox {
    pub(crate) fn new(tx: Box<dyn Tx>) -> Outbox {
        Outbox {
            tx,
            waiting: VecDeque::new(),
        }
    }

    /// Sends a message if it can go at once; never before one that waits.
    #[inline(always)]
    pub(crate) fn try_send(&mut self, message: &Message) -> Result<bool, Error> {
        if !self.waiting.is_empty() && !self.drain()? {
            return Ok(false);
        }
        self.tx.try_send(message)
    }

    /// Sends a message, or lets it wait: it is taken out of its place then.
    #[inline(always)]
    pub(crate) fn send(&mut self, message: &mut Message, link: &dyn Link) -> Result<(), Error> {
        match self.try_send(message)? {
            true => Ok(()),
            false => self.wait_for_room(message, &link.peer().name),
        }
    }

    #[cold]
    fn wait_for_room(&mut self, message: &mut Message, peer: &str) -> Result<(), Error> {
        if self.waiting.len() >= LIMIT {
            return Err(Error::Corrupt {
                peer: peer.to_owned(),
                why: format!("it does not read: {LIMIT} messages wait for it"),
            });
        }
        let message = std::mem::replace(message, Message::bare(Kind::Goodbye, 0));
        self.waiting.push_back(message);
        Ok(())
    }

    fn drain(&mut self) -> Result<bool, Error> {
        while let Some(message) = self.waiting.front() {
            if !self.tx.try_send(message)? {
                return Ok(false);
            }
            self.waiting.pop_front();
        }
        Ok(true)
    }

    /// Goes on with what waits; `true` when nothing does.
    pub(crate) fn flush(&mut self) -> Result<bool, Error> {
        Ok(self.drain()? & self.tx.flush()?)
    }
}
