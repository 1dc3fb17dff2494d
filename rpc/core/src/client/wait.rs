//! Waiting for answers: one thread polls for all.
//!
//! Invariant: while a place is waiting, either somebody holds the receiving half, or a thread that waits is awake and will try to
//! take it. Whoever gives the half up therefore calls `pass_on`, and so does whoever was woken to take it and did not need it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vernal_ring::Step;

use super::driver::Shared;
use super::table::Place;
use super::{Inner, Receiving, Started};
use crate::Error;
use crate::message::{Kind, Message};
use crate::transport::DOZE;

/// Polls between two looks at the clock and at what waits in the outbox.
const LOOKS_PER_CHECK: u32 = 256;
/// How long a side sleeps at most while something waits in its outbox.
const NAP: Duration = Duration::from_millis(1);
/// Looks at its own place before a thread that does not poll sleeps.
const LOOKS_BEFORE_SLEEP: u32 = 256;

/// How a wait ended.
pub(super) enum Got {
    /// The answer, which is no item of a stream, came to the thread that waits for it, into its own place.
    Own,
    /// The place is ready, or the connection is over.
    Ready,
    /// The deadline passed.
    Deadline,
}

impl Inner {
    /// Waits for the answer of a call; the place is free afterwards.
    #[inline]
    pub(super) fn wait_answer(
        &self,
        started: Started,
        method: u32,
        deadline: Option<Instant>,
        answer: &mut Message,
    ) -> Result<(), Error> {
        let Some(place) = self.table.place(started.index) else {
            return Err(self.why_closed(method));
        };
        match self.wait(place, started.call, deadline, answer) {
            Got::Own => Ok(()),
            Got::Ready => {
                *answer = place.take().ok_or_else(|| self.why_closed(method))?;
                Ok(())
            }
            Got::Deadline => {
                self.abandon(started);
                Err(Error::DeadlineExceeded { method })
            }
        }
    }

    /// Waits until there is something to take from a place.
    #[inline]
    pub(super) fn wait(
        &self,
        place: &Place,
        call: u64,
        deadline: Option<Instant>,
        answer: &mut Message,
    ) -> Got {
        let mut registered = false;
        let mut looks = 0u32;
        let got = loop {
            if let Some(mut receiving) = self.receiving.try_claim() {
                // Nobody else delivers from now on: one look at the place is enough.
                if place.is_ready() {
                    receiving.give_back();
                    break Got::Ready;
                }
                let got = self.poll_for(&mut receiving, place, call, deadline, answer);
                receiving.give_back();
                break got;
            }
            if place.is_ready() {
                break Got::Ready;
            }
            if deadline.is_some_and(|d| d <= Instant::now()) {
                break Got::Deadline;
            }
            looks = looks.wrapping_add(1);
            if looks < LOOKS_BEFORE_SLEEP {
                std::hint::spin_loop();
                continue;
            }
            if registered {
                match deadline {
                    Some(d) => {
                        std::thread::park_timeout(d.saturating_duration_since(Instant::now()))
                    }
                    None => std::thread::park(),
                }
                self.unregister();
                registered = false;
            } else {
                // Announce, then look again at the place and at the half: see `pass_on` and `Place::fill`.
                place.wait_thread();
                self.register();
                registered = true;
            }
        };
        if registered {
            self.unregister();
        }
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            self.pass_on();
        }
        got
    }

    fn register(&self) {
        let mut sleepers = self.lock_sleepers();
        sleepers.push(std::thread::current());
        self.sleeping.store(sleepers.len(), Ordering::SeqCst);
    }

    fn unregister(&self) {
        let me = std::thread::current().id();
        let mut sleepers = self.lock_sleepers();
        if let Some(at) = sleepers.iter().position(|t| t.id() == me) {
            sleepers.swap_remove(at);
        }
        self.sleeping.store(sleepers.len(), Ordering::SeqCst);
    }

    /// Wakes one of those who wait, if nobody polls.
    #[cold]
    pub(super) fn pass_on(&self) {
        // Whoever holds the half passes it on when it leaves.
        if !self.receiving.is_claimed()
            && let Some(thread) = self.lock_sleepers().last()
        {
            thread.unpark();
        }
    }

    pub(super) fn wake_all(&self) {
        for thread in self.lock_sleepers().iter() {
            thread.unpark();
        }
    }

    /// Takes what is there, for all, if nobody else is doing that. `true`: there was something.
    pub(super) fn pump(&self) -> bool {
        let Some(mut receiving) = self.receiving.try_claim() else {
            return false;
        };
        let mut any = false;
        loop {
            match receiving.rx.try_recv() {
                Ok(Some(message)) => {
                    any = true;
                    if let Err(e) = self.dispatch(message) {
                        self.fail_with(e);
                        break;
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    self.fail_with(e);
                    break;
                }
            }
        }
        receiving.give_back();
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            self.pass_on();
        }
        any
    }

    /// Polls until the place has something to take.
    #[inline]
    fn poll_for(
        &self,
        receiving: &mut Receiving,
        place: &Place,
        call: u64,
        deadline: Option<Instant>,
        answer: &mut Message,
    ) -> Got {
        let mut wait = receiving.backoff.begin(deadline);
        let mut looks = 0u32;
        let mut dozed = false;
        let got = loop {
            if receiving.rx.is_due() {
                match receiving.rx.recv_into(answer) {
                    Ok(true) => {
                        if answer.call == call
                            && matches!(answer.kind, Kind::Reply | Kind::Error)
                            && !place.is_stream()
                        {
                            place.free_held();
                            receiving.backoff.end(wait);
                            return Got::Own;
                        }
                        if let Some(end) = self.take_in(answer, place) {
                            break end;
                        }
                        dozed = false;
                        continue;
                    }
                    Ok(false) => {}
                    Err(e) => {
                        self.fail_with(e);
                        break Got::Ready;
                    }
                }
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_PER_CHECK)
                && let Some(end) = self.check(place, deadline)
            {
                break end;
            }
            let end = match receiving.backoff.step(&mut wait) {
                Step::Look => continue,
                Step::Check => self.probe(receiving, place),
                Step::Sleep => self.sleep(receiving, place, deadline, &mut dozed),
            };
            if let Some(end) = end {
                break end;
            }
        };
        receiving.backoff.end(wait);
        got
    }

    /// Something else than the answer that this thread waits for.
    #[inline(never)]
    fn take_in(&self, message: &mut Message, place: &Place) -> Option<Got> {
        let message = std::mem::replace(message, Message::bare(Kind::Goodbye, 0));
        if let Err(e) = self.dispatch(message) {
            self.fail_with(e);
        }
        place.is_ready().then_some(Got::Ready)
    }

    /// What a thread that polls for long has to look at besides.
    #[cold]
    fn check(&self, place: &Place, deadline: Option<Instant>) -> Option<Got> {
        if deadline.is_some_and(|d| d <= Instant::now()) {
            return Some(Got::Deadline);
        }
        // Another thread may have closed the connection.
        if place.is_ready() {
            return Some(Got::Ready);
        }
        self.flush();
        None
    }

    /// Does the peer live? For those who never sleep.
    #[cold]
    fn probe(&self, receiving: &mut Receiving, place: &Place) -> Option<Got> {
        match self.link.acknowledge() {
            Ok(()) => None,
            Err(e) => self.last_words(receiving, place, e),
        }
    }

    /// Goes on with what waits in the outbox; `false`: something still does.
    fn flush(&self) -> bool {
        // If it fails, the receiving half finds out why.
        self.sending.claim().outbox.flush().unwrap_or(true)
    }

    /// The peer is gone: what it said before is read, then everything ends.
    #[cold]
    fn last_words(&self, receiving: &mut Receiving, place: &Place, error: Error) -> Option<Got> {
        while let Ok(Some(message)) = receiving.rx.try_recv() {
            if let Err(e) = self.dispatch(message) {
                self.fail_with(e);
                return Some(Got::Ready);
            }
        }
        if place.is_ready() {
            // The next wait ends the rest.
            return Some(Got::Ready);
        }
        self.fail_with(error);
        Some(Got::Ready)
    }

    /// Sleeps until the peer says something, at most to the deadline. `Some`: the wait is over. The first sleep after a message is a
    /// short one on the cheaper way: a peer that wakes this side without saying anything gains nothing by it.
    #[cold]
    fn sleep(
        &self,
        receiving: &mut Receiving,
        place: &Place,
        deadline: Option<Instant>,
        dozed: &mut bool,
    ) -> Option<Got> {
        let flushed = self.flush();
        if flushed && !place.is_ready() && !std::mem::replace(dozed, true) {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            match receiving.rx.doze(left.map_or(DOZE, |l| l.min(DOZE))) {
                // Most calls end here.
                Ok(true) => return None,
                Ok(false) => {}
                Err(e) => {
                    self.fail_with(e);
                    return Some(Got::Ready);
                }
            }
        }
        match receiving.rx.arm() {
            Ok(true) => {}
            Ok(false) => {
                receiving.rx.disarm();
                return None;
            }
            Err(e) => {
                receiving.rx.disarm();
                self.fail_with(e);
                return Some(Got::Ready);
            }
        }
        if !place.is_ready() {
            self.block(deadline, flushed, None);
        }
        receiving.rx.disarm();
        if let Err(e) = self.link.acknowledge() {
            return self.last_words(receiving, place, e);
        }
        if place.is_ready() {
            return Some(Got::Ready);
        }
        deadline
            .is_some_and(|d| d <= Instant::now())
            .then_some(Got::Deadline)
    }

    /// Sleeps until an event of the link. Closing the connection ends the link, which is an event.
    fn block(&self, deadline: Option<Instant>, flushed: bool, nudge: Option<BorrowedFd<'_>>) {
        let mut timeout = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        if !flushed {
            timeout = Some(timeout.map_or(NAP, |t| t.min(NAP)));
        }
        let mut events = self.link.events();
        events.extend(nudge);
        let mut fds: Vec<PollFd<'_>> = events
            .iter()
            .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
            .collect();
        let spec = timeout.and_then(|t| Timespec::try_from(t).ok());
        // An interrupted sleep is a short one.
        let _ = poll(&mut fds, spec.as_ref());
    }

    /// The driver's round: waits for something to deliver, for all places, at most to the deadline; or until another thread polls no
    /// more. Tasks whose deadline has come are woken.
    pub(super) fn drive_once(&self, deadline: Option<Instant>, driver: &Shared) {
        match self.receiving.try_claim() {
            Some(mut receiving) => {
                self.drive_claimed(&mut receiving, deadline, driver);
                receiving.give_back();
            }
            None => {
                self.register();
                if self.receiving.is_claimed() {
                    match deadline {
                        Some(d) => {
                            std::thread::park_timeout(d.saturating_duration_since(Instant::now()));
                        }
                        None => std::thread::park(),
                    }
                }
                self.unregister();
                // It goes on, and takes the half itself if it is free.
            }
        }
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            self.pass_on();
        }
        if deadline.is_some_and(|d| d <= Instant::now()) {
            self.table.wake_tasks();
        }
    }

    fn drive_claimed(&self, receiving: &mut Receiving, deadline: Option<Instant>, driver: &Shared) {
        let mut any = false;
        loop {
            match receiving.rx.try_recv() {
                Ok(Some(message)) => {
                    any = true;
                    if let Err(e) = self.dispatch(message) {
                        self.fail_with(e);
                        return;
                    }
                    continue;
                }
                Ok(None) if any => return,
                Ok(None) => {}
                Err(e) => {
                    self.fail_with(e);
                    return;
                }
            }
            if self.dead.load(Ordering::SeqCst) || deadline.is_some_and(|d| d <= Instant::now()) {
                return;
            }
            let flushed = self.flush();
            let armed = receiving.rx.arm();
            if matches!(armed, Ok(true)) && !self.dead.load(Ordering::SeqCst) {
                self.block(deadline, flushed, Some(driver.nudge()));
            }
            receiving.rx.disarm();
            // Before the return: what made it readable is looked at by the driver's loop.
            any |= driver.take_nudge();
            if let Err(e) = armed {
                self.fail_with(e);
                return;
            }
            if let Err(e) = self.link.acknowledge() {
                while let Ok(Some(message)) = receiving.rx.try_recv() {
                    if let Err(e) = self.dispatch(message) {
                        self.fail_with(e);
                        return;
                    }
                }
                self.fail_with(e);
                return;
            }
        }
    }
}
