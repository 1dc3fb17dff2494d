//! The completion table: a place for each call that is in flight.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::Thread;

use crate::message::{Kind, Message};

const FREE: u32 = 0;
/// Its call is under way.
const WAITING: u32 = 1;
/// Somebody is storing the answer.
const FILLING: u32 = 2;
/// The answer is stored.
const DONE: u32 = 3;

/// Bits of a call's number that name its place; the rest counts the uses of the place.
pub(super) const PLACE_BITS: u32 = 16;

/// Items of a stream that its sender may have under way without credit.
pub(crate) const WINDOW: u32 = 32;

/// What wakes who waits for a place.
enum Waiter {
    Thread(Thread),
    Task(Waker),
}

/// What a place has besides its state. Untouched by a call whose own thread reads the reply.
#[derive(Default)]
struct Parcel {
    answer: Option<Message>,
    items: VecDeque<Message>,
    waiter: Option<Waiter>,
}

/// A line of its own, so that threads that share a connection do not share lines.
#[repr(align(128))]
pub(crate) struct Place {
    state: AtomicU32,
    stream: AtomicBool,
    call: AtomicU64,
    parcel: Mutex<Parcel>,
}

/// All places of a connection.
pub(crate) struct Table {
    places: Box<[Place]>,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It is where its caller finds it.
    Done,
    /// Nobody waits for it any more: an object in it has to be released.
    Stale,
    /// No honest server sends it.
    Unexpected(&'static str),
}

impl Place {
    /// Takes the place for a call, if it is free; the call's number.
    #[inline(always)]
    fn claim(&self, stream: bool) -> Option<u64> {
        if self.state.load(Ordering::Acquire) != FREE {
            return None;
        }
        let call = self.call.load(Ordering::Relaxed);
        let call = call.wrapping_add(1 << PLACE_BITS);
        // The bits above the place's count its calls: a sample for a clock costs no counter of its own.
        self.call.store(call, Ordering::Relaxed);
        self.stream.store(stream, Ordering::Relaxed);
        self.state.store(WAITING, Ordering::Release);
        Some(call)
    }

    fn parcel(&self) -> MutexGuard<'_, Parcel> {
        self.parcel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its call is answered by a stream.
    #[inline]
    pub(crate) fn is_stream(&self) -> bool {
        self.stream.load(Ordering::Relaxed)
    }

    /// Whether the answer is there.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.state.load(Ordering::SeqCst) == DONE
    }

    /// Whether there is something to take: an item or the answer.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.is_done() || (self.stream.load(Ordering::Relaxed) && !self.parcel().items.is_empty())
    }

    /// Ends the call from its own thread, which has its answer in hand, or gives it up; an answer that was stored in between comes
    /// back.
    #[inline]
    pub(crate) fn free(&self) -> Option<Message> {
        if self.stream.load(Ordering::Relaxed) {
            return self.free_stream();
        }
        match self
            .state
            .compare_exchange(WAITING, FREE, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => None,
            Err(FREE) => None,
            Err(_) => self.take(),
        }
    }

    /// As [`Place::free`], for the holder of the receiving half whose place was not ready when it took the half: nobody else
    /// delivers, so nothing has to be taken back. Only the end of the connection can come in between; the place is then of no use
    /// any more, whatever it says.
    #[inline]
    pub(crate) fn free_held(&self) {
        self.state.store(FREE, Ordering::Release);
    }

    #[cold]
    fn free_stream(&self) -> Option<Message> {
        let mut parcel = self.parcel();
        parcel.items.clear();
        parcel.waiter = None;
        let answer = parcel.answer.take();
        self.stream.store(false, Ordering::Relaxed);
        self.state.store(FREE, Ordering::Release);
        answer
    }

    /// Takes a stored answer; the place is free again.
    pub(crate) fn take(&self) -> Option<Message> {
        let mut parcel = self.parcel();
        // Whoever is filling holds the parcel until it is done.
        if self.state.load(Ordering::Acquire) != DONE {
            return None;
        }
        let answer = parcel.answer.take();
        parcel.waiter = None;
        self.stream.store(false, Ordering::Relaxed);
        self.state.store(FREE, Ordering::Release);
        answer
    }

    /// The next item of a stream.
    pub(crate) fn take_item(&self) -> Option<Message> {
        self.parcel().items.pop_front()
    }

    /// All items that nobody will take any more.
    pub(crate) fn take_items(&self) -> VecDeque<Message> {
        std::mem::take(&mut self.parcel().items)
    }

    /// Who is to be woken: this thread.
    pub(crate) fn wait_thread(&self) {
        self.parcel().waiter = Some(Waiter::Thread(std::thread::current()));
    }

    /// Who is to be woken: this task. `false`: there is something to take already.
    pub(crate) fn wait_task(&self, waker: &Waker) -> bool {
        let mut parcel = self.parcel();
        if self.is_done() || !parcel.items.is_empty() {
            return false;
        }
        match &mut parcel.waiter {
            Some(Waiter::Task(known)) => known.clone_from(waker),
            other => *other = Some(Waiter::Task(waker.clone())),
        }
        true
    }

    fn wake(waiter: Option<Waiter>) {
        match waiter {
            Some(Waiter::Thread(thread)) => thread.unpark(),
            Some(Waiter::Task(waker)) => waker.wake(),
            None => {}
        }
    }

    /// Stores the answer and wakes who waits for it.
    fn fill(&self, call: u64, message: Option<Message>) -> Delivery {
        let waiter = {
            let mut parcel = self.parcel();
            // Under the parcel's lock: who gives the call up meanwhile waits for it in `take`.
            if self.call.load(Ordering::Relaxed) != call
                || self
                    .state
                    .compare_exchange(WAITING, FILLING, Ordering::AcqRel, Ordering::Acquire)
                    .is_err()
            {
                return Delivery::Stale;
            }
            parcel.answer = message;
            // Sequentially consistent: a waiter that announced itself before looks at the state afterwards.
            self.state.store(DONE, Ordering::SeqCst);
            parcel.waiter.take()
        };
        Place::wake(waiter);
        Delivery::Done
    }

    fn push(&self, call: u64, message: Message) -> Delivery {
        let waiter = {
            let mut parcel = self.parcel();
            if self.call.load(Ordering::Relaxed) != call
                || self.state.load(Ordering::Acquire) != WAITING
            {
                return Delivery::Stale;
            }
            if !self.stream.load(Ordering::Relaxed) {
                return Delivery::Unexpected("an item answers a call that takes one reply");
            }
            if parcel.items.len() >= WINDOW as usize {
                return Delivery::Unexpected("a stream sends more items than it has credit for");
            }
            parcel.items.push_back(message);
            parcel.waiter.take()
        };
        Place::wake(waiter);
        Delivery::Done
    }
}

impl Table {
    /// A table of `count` places, at most 65536.
    pub(crate) fn new(count: usize) -> Table {
        let place = |index| Place {
            state: AtomicU32::new(FREE),
            stream: AtomicBool::new(false),
            call: AtomicU64::new(index as u64),
            parcel: Mutex::default(),
        };
        Table {
            places: (0..count.clamp(1, 1 << PLACE_BITS)).map(place).collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The place at `index`.
    #[inline]
    pub(crate) fn place(&self, index: usize) -> Option<&Place> {
        self.places.get(index)
    }

    /// Claims a free place for a call; the result is its index and the number of the call. Called by one thread at a time: the
    /// holder of the sending half, which keeps `hint`.
    #[inline]
    pub(crate) fn claim(&self, hint: &mut usize, stream: bool) -> Option<(usize, u64)> {
        // Used again soon: its line is in this thread's cache.
        if let Some(call) = self.places.get(*hint).and_then(|p| p.claim(stream)) {
            return Some((*hint, call));
        }
        self.claim_other(hint, stream)
    }

    #[cold]
    fn claim_other(&self, hint: &mut usize, stream: bool) -> Option<(usize, u64)> {
        let count = self.places.len();
        for step in 1..count {
            let index = hint.wrapping_add(step) % count;
            if let Some(call) = self.places.get(index).and_then(|p| p.claim(stream)) {
                *hint = index;
                return Some((index, call));
            }
        }
        None
    }

    /// The place of a call's number, as a peer sent it.
    #[inline]
    pub(crate) fn index_of(&self, call: u64) -> usize {
        (call & ((1 << PLACE_BITS) - 1)) as usize
    }

    /// Gives a message to the call that it belongs to.
    pub(crate) fn deliver(&self, message: Message) -> Delivery {
        let call = message.call;
        let Some(place) = self.places.get(self.index_of(call)) else {
            return Delivery::Unexpected("an answer to a call that was never made");
        };
        match message.kind {
            Kind::Item => place.push(call, message),
            _ => place.fill(call, Some(message)),
        }
    }

    /// Ends all calls: their places are done, without an answer.
    pub(crate) fn fail_all(&self) {
        for place in &self.places {
            let call = place.call.load(Ordering::Relaxed);
            let _ = place.fill(call, None);
        }
    }

    /// Wakes every task: a deadline has come.
    pub(crate) fn wake_tasks(&self) {
        for place in &self.places {
            let mut parcel = place.parcel();
            if let Some(Waiter::Task(waker)) = &parcel.waiter {
                let waker = waker.clone();
                parcel.waiter = None;
                drop(parcel);
                waker.wake();
            }
        }
    }

    /// Whether any call is under way.
    pub(crate) fn any_waiting(&self) -> bool {
        let waits = |p: &Place| p.state.load(Ordering::SeqCst) == WAITING;
        self.places.iter().any(waits)
    }
}
