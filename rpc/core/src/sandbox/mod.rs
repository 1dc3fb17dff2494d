//! Handlers in a process of their own: the server passes on calls and answers, the helper admits arguments and runs handlers.
//!
//! Each client has a helper of its own, made with its first call: what one client's argument takes over sees no other client's calls.
//! A helper has the client's heap mapped for reading and a heap of its own for replies, which the server reads as it
//! reads any peer's: it copies what the handler replied with into the reply heap, and checks it on the way.
//!
//! `docs/adr/0024-helpers-as-sandboxes.md` has the reasons, `docs/trust.md` what it closes.

mod inside;
mod outside;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use vernal_heap::walk::{Budget, KnownTypes};
use vernal_sandbox::{Limits, Zygote};

use crate::error::Error;
use crate::options::{ChannelOptions, Trust, program_types};
use crate::server::methods::Snapshot;

pub(crate) use outside::Guard;

/// Keeps whole pages out of every sandbox that is made from now on, and of all other children of this process: who touches them there
/// ends. For what handlers must not see and was there before the sandbox was made.
pub fn hide(memory: &[u8]) -> Result<(), Error> {
    vernal_sandbox::hide(memory).map_err(error)
}

fn error(e: vernal_sandbox::Error) -> Error {
    match e {
        vernal_sandbox::Error::NotPages { .. } => Error::Invalid {
            what: e.to_string(),
            remedy: "round the allocation up, and align it",
        },
        e => Error::Sandbox { why: e.to_string() },
    }
}

/// The sandbox of a channel: what its helpers are forked from, and what they know.
#[derive(Debug)]
pub(crate) struct Cell {
    zygote: Zygote,
    methods: Snapshot,
    setup: Setup,
}

/// How helpers treat what they get, and the server what they answer.
#[derive(Debug, Clone)]
struct Setup {
    trust: Trust,
    budget: Budget,
    types: Arc<KnownTypes>,
    limit: Duration,
}

impl Cell {
    /// Forks what helpers are forked from: they have this process' memory as it is now, and these methods.
    pub(crate) fn new(options: &ChannelOptions, methods: Snapshot) -> Result<Cell, Error> {
        vernal_pool::segment::reserve().map_err(|e| Error::Sandbox { why: e.to_string() })?;
        let setup = Setup {
            trust: options.trust,
            budget: Budget {
                objects: options.max_objects,
                bytes: options.max_bytes,
            },
            types: options.types.clone().unwrap_or_else(program_types),
            limit: options.sandbox_limit,
        };
        let limits = Limits {
            memory: options.sandbox_memory,
            wait: options.wait.into(),
        };
        let (theirs, known) = (setup.clone(), Arc::clone(&methods));
        let entry = move |inside| inside::live(inside, &theirs, &known);
        let zygote = Zygote::start(limits, entry, |fork| {
            vernal_pool::segment::across_fork(fork)
        })
        .map_err(error)?;
        Ok(Cell {
            zygote,
            methods,
            setup,
        })
    }
}
