//! The loop: polls all clients, and sleeps when there is nothing to do.
//!
//! ```text
//!   look at every client ── something? ──> again
//!        │ nothing, for as long as polling has paid off
//!   arm every client (its line says "asleep"), look once more ── something? ──> disarm, again
//!        │ nothing
//!   epoll: events of clients, announcements, greetings, the nudge ──> disarm, again
//! ```

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use vernal_ring::{Backoff, Step};

use super::Inner;
use super::conn::Client;
use super::methods::View;
use super::pool::Pool;
pub(crate) use super::seat::Inbox;
use super::seat::Seat;
use crate::error::Error;
use crate::message::{Kind, Message};
use crate::sandbox::Guard;
use crate::transport::{Advance, DOZE, Endpoint, GREETING_TIMEOUT, Greeting, Listen};

/// Looks at all clients between two looks at the events, while there is always something to do, and while there is not.
const BUSY_TURNS: u32 = 512;
const IDLE_TURNS: u32 = 16_384;
/// Clients that may be greeting at once: a crowd of silent ones must not take all descriptors.
const MAX_GREETINGS: usize = 64;
/// Events taken at once.
const MAX_EVENTS: usize = 64;
/// The first and the longest pause between two attempts to listen again.
const REOPEN_FIRST: Duration = Duration::from_millis(10);
const REOPEN_MAX: Duration = Duration::from_secs(1);
/// How often a loop that waits for the end of handlers looks at them.
const DRAIN_ROUND: Duration = Duration::from_millis(5);
/// How long it sleeps at most while messages wait for room.
const NAP: Duration = Duration::from_millis(1);

/// What an event is about.
const NUDGE: u64 = 0;

/// A listener; without a key it has to be opened again.
struct Ear {
    listener: Box<dyn Listen>,
    key: Option<u64>,
    retry: Instant,
    pause: Duration,
}

struct Guest {
    greeting: Box<dyn Greeting>,
    key: u64,
    until: Instant,
}

/// The loop's state.
pub(crate) struct Loop<'a> {
    channel: &'a Inner,
    epoll: OwnedFd,
    ears: Vec<Ear>,
    guests: Vec<Guest>,
    seats: Vec<Seat>,
    view: View,
    pool: Pool,
    next_key: u64,
    draining: Option<Instant>,
    /// Something was there since the last time that the loop dozed.
    dozes: bool,
}

impl<'a> Loop<'a> {
    pub(crate) fn new(channel: &'a Inner) -> Result<Loop<'a>, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| Error::os("making an epoll", e))?;
        let nudge = epoll::EventData::new_u64(NUDGE);
        epoll::add(&epoll, channel.nudge_event(), nudge, epoll::EventFlags::IN)
            .map_err(|e| Error::os("watching an event", e))?;
        Ok(Loop {
            channel,
            epoll,
            ears: Vec::new(),
            guests: Vec::new(),
            seats: Vec::new(),
            view: View::new(&channel.methods),
            pool: Pool::start(channel.options.threads, &channel.name)?,
            next_key: NUDGE + 1,
            draining: None,
            dozes: true,
        })
    }

    pub(crate) fn run(mut self) -> Result<(), Error> {
        self.take_listeners();
        let mut backoff = Backoff::new(self.channel.options.wait.into());
        let mut wait = backoff.begin(None);
        let mut turns = 0u32;
        let mut idle = 0u32;
        loop {
            if self.turn() {
                self.dozes = true;
                backoff.end(wait);
                wait = backoff.begin(None);
                turns = turns.wrapping_add(1);
                idle = 0;
                if !turns.is_multiple_of(BUSY_TURNS) {
                    continue;
                }
                self.events(Some(Duration::ZERO))?;
            } else {
                idle = idle.wrapping_add(1);
                if self.seats.is_empty() || backoff.step(&mut wait) == Step::Sleep {
                    self.sleep()?;
                } else if idle.is_multiple_of(IDLE_TURNS) {
                    self.events(Some(Duration::ZERO))?;
                }
            }
            if self.channel.stop.load(Ordering::Acquire) && self.drained() {
                return Ok(());
            }
        }
    }

    /// One look at every client; `true`: something was there.
    #[inline]
    fn turn(&mut self) -> bool {
        let mut any = false;
        let mut at = 0;
        let draining = self.draining.is_some();
        while let Some(seat) = self.seats.get_mut(at) {
            if !seat.is_due() {
                at += 1;
                continue;
            }
            match seat.serve(self.channel, &mut self.view, &self.pool, draining) {
                Ok(found) => {
                    any |= found;
                    at += 1;
                }
                Err(e) => {
                    self.put_out(at, &e);
                    any = true;
                }
            }
        }
        any
    }

    /// A client is gone, or has to go.
    #[cold]
    fn put_out(&mut self, at: usize, why: &Error) {
        let seat = self.seats.swap_remove(at);
        if matches!(why, Error::Corrupt { .. }) {
            self.channel
                .counters
                .corrupt
                .fetch_add(1, Ordering::Relaxed);
        }
        for event in seat.client.link.events() {
            let _ = epoll::delete(&self.epoll, event);
        }
        seat.client.leave();
        let seats = self.seats.len() as u64;
        self.channel
            .counters
            .clients
            .store(seats, Ordering::Relaxed);
    }

    fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn watch(&self, event: std::os::fd::BorrowedFd<'_>, key: u64) -> Result<(), Error> {
        let data = epoll::EventData::new_u64(key);
        epoll::add(&self.epoll, event, data, epoll::EventFlags::IN)
            .map_err(|e| Error::os("watching a descriptor", e))
    }

    fn take_listeners(&mut self) {
        let new = std::mem::take(&mut *self.channel.new_listeners());
        for listener in new {
            let key = self.key();
            let watched = self.watch(listener.event(), key).is_ok();
            self.ears.push(Ear {
                listener,
                key: watched.then_some(key),
                retry: Instant::now(),
                pause: REOPEN_FIRST,
            });
        }
    }

    /// Sleeps until there is something to do.
    #[cold]
    fn sleep(&mut self) -> Result<(), Error> {
        let mut timeout = self.next_timer();
        if timeout.is_none() && self.doze() {
            return Ok(());
        }
        let mut ready = false;
        let mut at = 0;
        while let Some(seat) = self.seats.get_mut(at) {
            let flushed = seat.client.flush();
            let armed = seat.inbox.rx.arm();
            match (flushed, armed) {
                (Ok(flushed), Ok(empty)) => {
                    ready |= !empty;
                    if !flushed {
                        timeout = Some(timeout.map_or(NAP, |t| t.min(NAP)));
                    }
                    at += 1;
                }
                (Err(e), _) | (_, Err(e)) => self.put_out(at, &e),
            }
        }
        let slept = if ready {
            Ok(())
        } else {
            self.channel.counters.sleeps.fetch_add(1, Ordering::Relaxed);
            self.events(timeout)
        };
        for seat in &mut self.seats {
            seat.inbox.rx.disarm();
        }
        slept
    }

    /// Sleeps for a moment on what a single client says, which costs less than sleeping on everything: a client that calls and
    /// waits, and calls again, is found here. One that wakes the loop and says nothing finds it at the events next time. `true`:
    /// look again.
    fn doze(&mut self) -> bool {
        let [seat] = self.seats.as_mut_slice() else {
            return false;
        };
        if !std::mem::take(&mut self.dozes) || !matches!(seat.client.flush(), Ok(true)) {
            return false;
        }
        self.channel.counters.sleeps.fetch_add(1, Ordering::Relaxed);
        // After an error the next turn finds out why.
        seat.inbox.rx.doze(DOZE).unwrap_or(true)
    }

    /// How long the loop may sleep before something is due.
    fn next_timer(&self) -> Option<Duration> {
        let guests = self.guests.iter().map(|g| g.until);
        let ears = self
            .ears
            .iter()
            .filter(|e| e.key.is_none())
            .map(|e| e.retry);
        let due = guests.chain(ears).chain(self.draining).min();
        let timer = due.map(|d| d.saturating_duration_since(Instant::now()));
        match self.draining {
            Some(_) => Some(timer.map_or(DRAIN_ROUND, |t| t.min(DRAIN_ROUND))),
            None => timer,
        }
    }

    /// Takes events and does what they ask for.
    fn events(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; MAX_EVENTS];
        let spec = timeout.and_then(|t| Timespec::try_from(t).ok());
        let ready = match epoll::wait(&self.epoll, &mut events, spec.as_ref()) {
            Ok((ready, _)) => ready,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(e) => return Err(Error::os("waiting for events", e)),
        };
        let keys: Vec<u64> = ready.iter().map(|event| event.data.u64()).collect();
        if !keys.is_empty() {
            self.handle(&keys);
        }
        self.due();
        Ok(())
    }

    fn handle(&mut self, keys: &[u64]) {
        let mut index: HashMap<u64, usize> = HashMap::new();
        if keys.len() > 4 {
            index.extend(self.seats.iter().enumerate().map(|(at, s)| (s.key, at)));
        }
        let mut broken = Vec::new();
        for &key in keys {
            if key == NUDGE {
                self.channel.take_nudge();
                self.take_listeners();
                continue;
            }
            let at = match index.get(&key) {
                Some(at) => Some(*at),
                None => self.seats.iter().position(|s| s.key == key),
            };
            if let Some(seat) = at.and_then(|at| self.seats.get_mut(at)) {
                if let Err(e) = seat.client.link.acknowledge() {
                    broken.push((key, e));
                }
            } else if let Some(at) = self.guests.iter().position(|g| g.key == key) {
                self.advance(at);
            } else if let Some(at) = self.ears.iter().position(|e| e.key == Some(key)) {
                self.accept(at);
            }
        }
        for (key, error) in broken {
            self.last_words(key, &error);
        }
    }

    /// A client is gone: what it said before still counts (releases, calls that have effects), its answers go nowhere.
    fn last_words(&mut self, key: u64, error: &Error) {
        let Some(at) = self.seats.iter().position(|s| s.key == key) else {
            return;
        };
        let draining = self.draining.is_some();
        if let Some(seat) = self.seats.get_mut(at) {
            // As many as the ring has: a hostile survivor that goes on writing must not keep this side busy.
            for _ in 0..self.channel.options.slots {
                match seat.serve(self.channel, &mut self.view, &self.pool, draining) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => break,
                }
            }
        }
        self.put_out(at, error);
    }

    fn accept(&mut self, at: usize) {
        loop {
            let Some(ear) = self.ears.get_mut(at) else {
                return;
            };
            match ear.listener.accept() {
                Ok(Some(greeting)) => {
                    if self.seats.len() + self.guests.len() >= self.channel.options.max_connections
                    {
                        // Dropped: the client sees the end of its connection.
                        continue;
                    }
                    if self.guests.len() >= MAX_GREETINGS {
                        self.drop_oldest_guest();
                    }
                    let key = self.key();
                    self.guests.push(Guest {
                        greeting,
                        key,
                        until: Instant::now() + GREETING_TIMEOUT,
                    });
                    // It may have greeted already; else it is watched from here on.
                    self.advance(self.guests.len() - 1);
                }
                Ok(None) => return,
                Err(_) => {
                    let _ = epoll::delete(&self.epoll, ear.listener.event());
                    ear.key = None;
                    ear.retry = Instant::now();
                    ear.pause = REOPEN_FIRST;
                    return;
                }
            }
        }
    }

    /// Whoever has been silent for longest makes room: a crowd of silent clients must not keep others out, and one that means to talk
    /// does so at once.
    fn drop_oldest_guest(&mut self) {
        let oldest = self.guests.iter().enumerate().min_by_key(|(_, g)| g.until);
        if let Some(at) = oldest.map(|(at, _)| at) {
            let guest = self.guests.swap_remove(at);
            let _ = epoll::delete(&self.epoll, guest.greeting.event());
        }
    }

    fn advance(&mut self, at: usize) {
        if at >= self.guests.len() {
            return;
        }
        let guest = self.guests.swap_remove(at);
        // A connection may go on with the same socket, under another key.
        let _ = epoll::delete(&self.epoll, guest.greeting.event());
        match guest.greeting.advance() {
            Ok(Advance::Connected(endpoint)) => self.seat(endpoint),
            Ok(Advance::Waiting(greeting)) => {
                if self.watch(greeting.event(), guest.key).is_ok() {
                    self.guests.push(Guest { greeting, ..guest });
                }
            }
            Err(e) => {
                if matches!(e, Error::Corrupt { .. }) {
                    self.channel
                        .counters
                        .corrupt
                        .fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn seat(&mut self, endpoint: Endpoint) {
        let Endpoint { tx, rx, link } = endpoint;
        let key = self.key();
        for event in link.events() {
            if self.watch(event, key).is_err() {
                link.close();
                return;
            }
        }
        let guard = self.channel.cell.get().map(Guard::new);
        let client = Arc::new(Client::new(link, tx, guard));
        if self.draining.is_some() {
            let _ = client.send(Message::bare(Kind::Goodbye, 0));
        }
        self.seats.push(Seat {
            client,
            inbox: Inbox::new(rx),
            key,
        });
        let counters = &self.channel.counters;
        counters.clients_ever.fetch_add(1, Ordering::Relaxed);
        counters
            .clients
            .store(self.seats.len() as u64, Ordering::Relaxed);
    }

    /// What is due without an event.
    fn due(&mut self) {
        if self.guests.is_empty() && self.ears.iter().all(|e| e.key.is_some()) {
            return;
        }
        let now = Instant::now();
        let epoll = &self.epoll;
        self.guests.retain(|guest| {
            let stays = guest.until > now;
            if !stays {
                let _ = epoll::delete(epoll, guest.greeting.event());
            }
            stays
        });
        for at in 0..self.ears.len() {
            let key = self.key();
            let Some(ear) = self.ears.get_mut(at) else {
                break;
            };
            if ear.key.is_some() || ear.retry > now {
                continue;
            }
            let opened = ear.listener.reopen();
            if opened.is_ok() {
                let data = epoll::EventData::new_u64(key);
                let event = ear.listener.event();
                if epoll::add(&self.epoll, event, data, epoll::EventFlags::IN).is_ok() {
                    ear.key = Some(key);
                    continue;
                }
            }
            ear.pause = (ear.pause * 2).min(REOPEN_MAX);
            ear.retry = now + ear.pause;
        }
    }

    /// While the channel is going away: whether everything has ended, or has had its time.
    fn drained(&mut self) -> bool {
        let Some(until) = self.channel.stopping() else {
            return false;
        };
        if self.draining.is_none() {
            self.draining = Some(until);
            // The names are free from here on, and nobody new comes.
            for ear in self.ears.drain(..) {
                if ear.key.is_some() {
                    let _ = epoll::delete(&self.epoll, ear.listener.event());
                }
            }
            self.guests.clear();
            for seat in &self.seats {
                let _ = seat.client.send(Message::bare(Kind::Goodbye, 0));
            }
        }
        let idle = |seat: &Seat| {
            seat.client.job_count.load(Ordering::Acquire) == 0
                && seat.client.flush().unwrap_or(true)
        };
        if !self.seats.iter().all(idle) && Instant::now() < until {
            return false;
        }
        for seat in self.seats.drain(..) {
            for event in seat.client.link.events() {
                let _ = epoll::delete(&self.epoll, event);
            }
            seat.client.leave();
        }
        self.channel.counters.clients.store(0, Ordering::Relaxed);
        self.pool.stop(until);
        true
    }
}

impl Drop for Loop<'_> {
    fn drop(&mut self) {
        for seat in &self.seats {
            seat.client.leave();
        }
    }
}
