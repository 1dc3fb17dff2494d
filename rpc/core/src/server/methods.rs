//! What a channel serves: methods by number, looked up without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::call::{Answer, Call};
use crate::error::Failure;

/// What a method takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signature {
    /// The type of the object that the argument is. `None`: plain bytes.
    pub argument: Option<u64>,
    /// The type of the object that the reply is. `None`: plain bytes. For the readers of the program and for tools: what a handler
    /// returns is checked by the client.
    pub reply: Option<u64>,
}

type Handler = dyn Fn(&mut Call<'_>) -> Result<Answer, Failure> + Send + Sync;

impl std::fmt::Debug for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Method")
            .field("signature", &self.signature)
            .finish_non_exhaustive()
    }
}

/// One method.
pub(crate) struct Method {
    pub(crate) signature: Signature,
    pub(crate) handler: Box<Handler>,
}

/// The methods, sorted by number.
pub(crate) type Snapshot = Arc<Vec<(u32, Arc<Method>)>>;

/// All methods of a channel.
#[derive(Default)]
pub(crate) struct Methods {
    version: AtomicU64,
    current: Mutex<Snapshot>,
}

impl Methods {
    pub(crate) fn set(&self, number: u32, method: Method) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Vec::clone(&current);
        let method = Arc::new(method);
        match next.binary_search_by_key(&number, |(n, _)| *n) {
            Ok(at) => {
                if let Some(entry) = next.get_mut(at) {
                    entry.1 = method;
                }
            }
            Err(at) => next.insert(at, (number, method)),
        }
        *current = Arc::new(next);
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A thread's view of the methods.
pub(crate) struct View {
    version: u64,
    methods: Snapshot,
}

impl View {
    pub(crate) fn new(all: &Methods) -> View {
        let version = all.version.load(Ordering::Acquire);
        View {
            version,
            methods: all.snapshot(),
        }
    }

    /// The method of that number.
    #[inline]
    pub(crate) fn find(&mut self, all: &Methods, number: u32) -> Option<&Arc<Method>> {
        if all.version.load(Ordering::Acquire) != self.version {
            *self = View::new(all);
        }
        let at = self
            .methods
            .binary_search_by_key(&number, |(n, _)| *n)
            .ok()?;
        self.methods.get(at).map(|(_, method)| method)
    }
}
