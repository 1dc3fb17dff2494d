//! Graphs on their way: those that have arrived and wait to be taken, and the encoders of those that go out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vernal_heap::walk::{Arena, Budget};
use vernal_pool::Pool;

use super::memory::OwnHeap;
use crate::Error;
use crate::options::{Made, Passed, Types};
use crate::shm::ChannelHeap;
use crate::transport::Admitted;
use crate::wire::{Decoder, Encoder};

/// A graph, or why there is none, as its sender or this side says.
type Image = Result<Vec<u8>, String>;

/// An object that the peer has sent.
struct Entry {
    /// `None`: it was taken.
    image: Option<Image>,
    /// As the peer knows it. `None`: the peer does not wait to hear that it is no longer needed.
    theirs: Option<u64>,
}

#[derive(Default)]
struct State {
    entries: HashMap<u64, Entry>,
    /// Arguments, by their calls: they are forgotten with the answer.
    by_call: HashMap<u64, u64>,
    /// Bytes of images.
    bytes: u64,
    next: u64,
}

impl State {
    fn remove(&mut self, handle: u64) -> Option<Entry> {
        let entry = self.entries.remove(&handle)?;
        if let Some(Ok(image)) = &entry.image {
            self.bytes = self.bytes.saturating_sub(image.len() as u64);
        }
        Some(entry)
    }
}

/// The objects of one connection.
pub(super) struct Graphs {
    types: Types,
    budget: Budget,
    state: Mutex<State>,
    decoders: Mutex<Vec<Made<Decoder>>>,
    own: OwnHeap,
    shared: Option<Arc<ChannelHeap>>,
    /// Of the own heap, and of the channel's.
    encoders: [Mutex<Option<Made<Encoder>>>; 2],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Graphs {
    pub fn new(
        name: &str,
        types: Types,
        budget: Budget,
        shared: Option<Arc<ChannelHeap>>,
    ) -> Graphs {
        Graphs {
            encoders: Default::default(),
            types,
            budget,
            state: Mutex::default(),
            decoders: Mutex::default(),
            own: OwnHeap::new(name),
            shared,
        }
    }

    /// The longest image that this side takes: tables are a part of it, objects are bounded by the budget.
    pub fn longest(budget: Budget) -> u64 {
        budget.bytes.saturating_mul(2).saturating_add(1 << 20)
    }

    pub fn heap(&self) -> Result<Pool, Error> {
        self.own.pool()
    }

    /// Appends the graph of an object of this side to `out`; the peer takes at most `limit` bytes. `Err` says why not.
    pub fn encode(
        &self,
        shared: bool,
        addr: u64,
        type_id: u64,
        limit: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let pool = match (shared, &self.shared) {
            (false, _) => self.own.known().cloned(),
            (true, Some(heap)) => heap.pool().ok(),
            (true, None) => None,
        };
        let Some(pool) = pool else {
            return Err(format!("{addr:#x} is in no heap of this connection"));
        };
        let [own, channel] = &self.encoders;
        let mut kept = lock(if shared { channel } else { own });
        let made = self.types.current(kept.take(), Encoder::new);
        let start = out.len();
        kept.insert(made)
            .value
            .encode(pool.space(), addr, type_id, Budget::default(), out)
            .map_err(|e| e.to_string())?;
        let length = (out.len() - start) as u64;
        if length > limit {
            out.truncate(start);
            return Err(format!(
                "the graph has {length} bytes, its receiver takes {limit}"
            ));
        }
        Ok(())
    }

    /// Keeps an object that has arrived; the number that stands for its address here.
    pub fn arrived(&self, argument_of: Option<u64>, theirs: Option<u64>, image: Image) -> u64 {
        let mut state = lock(&self.state);
        let limit = Graphs::longest(self.budget).saturating_mul(2);
        let length = image.as_ref().map_or(0, |i| i.len() as u64);
        let image = match state.bytes.saturating_add(length) > limit {
            // Its call fails; others, and the connection, go on.
            true => Err(format!(
                "more than {limit} bytes of graphs wait to be taken"
            )),
            false => image,
        };
        if image.is_ok() {
            state.bytes += length;
        }
        state.next += 8;
        let handle = state.next;
        if let Some(call) = argument_of
            && let Some(before) = state.by_call.insert(call, handle)
        {
            // A call number that is used twice: the first argument is lost, which harms its sender alone.
            state.remove(before);
        }
        let image = Some(image);
        state.entries.insert(handle, Entry { image, theirs });
        handle
    }

    /// The call has its answer: its argument is no longer needed.
    pub fn answered(&self, call: u64) {
        let mut state = lock(&self.state);
        if let Some(handle) = state.by_call.remove(&call) {
            state.remove(handle);
        }
    }

    /// The object is no longer needed. What the peer is to be told: its own address of it.
    pub fn released(&self, handle: u64) -> Option<u64> {
        lock(&self.state).remove(handle)?.theirs
    }

    /// Decodes an object that has arrived. Once: the result is this side's own.
    pub fn admit(&self, handle: u64, expected: u64) -> Result<Admitted, String> {
        let image = {
            let mut state = lock(&self.state);
            let image = state.entries.get_mut(&handle).and_then(|e| e.image.take());
            if let Some(Ok(image)) = &image {
                state.bytes = state.bytes.saturating_sub(image.len() as u64);
            }
            image
        };
        let image = match image {
            None => return Err("its object was taken before".into()),
            Some(image) => image?,
        };
        let known = lock(&self.decoders).pop();
        let mut decoder = self.types.current(known, Decoder::new);
        let mut arena = Arena::new();
        let decoded = decoder
            .value
            .decode(&image, expected, self.budget, &mut arena);
        lock(&self.decoders).push(decoder);
        let copy = decoded.map_err(|e| e.to_string())?;
        Ok(Admitted {
            addr: copy.root,
            passed: Passed::Copied,
            guard: Box::new(arena),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graphs(bytes: u64) -> Graphs {
        let budget = Budget { objects: 10, bytes };
        Graphs::new("it", Types::Given(Arc::default()), budget, None)
    }

    fn waiting(graphs: &Graphs) -> (usize, u64) {
        let state = lock(&graphs.state);
        (state.entries.len(), state.bytes)
    }

    #[test]
    fn what_waits_is_bounded() {
        let graphs = graphs(1 << 20);
        let longest = Graphs::longest(graphs.budget);
        let image = || Ok(vec![0; longest as usize / 2]);
        let handles: Vec<u64> = (0..9)
            .map(|_| graphs.arrived(None, None, image()))
            .collect();
        // Twice the longest one: four halves of it.
        assert_eq!(waiting(&graphs), (9, longest * 2));
        let too_many = |handle: &u64| {
            let why = graphs.admit(*handle, 1).expect_err("no graph");
            why.contains("wait to be taken")
        };
        let refused: Vec<bool> = handles.iter().map(too_many).collect();
        assert_eq!(refused, [vec![false; 4], vec![true; 5]].concat());
        assert_eq!(waiting(&graphs).1, 0);
        assert!(handles.iter().all(|h| graphs.released(*h).is_none()));
        assert_eq!(waiting(&graphs), (0, 0));
    }

    #[test]
    fn arguments_go_with_their_calls() {
        let graphs = graphs(1 << 20);
        graphs.arrived(Some(7), None, Ok(vec![0; 100]));
        let handle = graphs.arrived(Some(7), None, Ok(vec![0; 50]));
        // A number that is used twice keeps one argument only.
        assert_eq!(waiting(&graphs), (1, 50));
        graphs.answered(8);
        assert_eq!(waiting(&graphs), (1, 50));
        graphs.answered(7);
        assert_eq!(waiting(&graphs), (0, 0));
        assert!(graphs.admit(handle, 1).is_err());
        // The peer's own address of what it waits for.
        let handle = graphs.arrived(None, Some(64), Err("none".into()));
        assert_eq!(graphs.released(handle), Some(64));
        assert_eq!(graphs.released(handle), None);
    }
}
