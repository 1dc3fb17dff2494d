//! The process sandbox: helpers that run code which may be taken over by what it reads.
//!
//! A [`Zygote`] is forked once, when the program says so. It forks a [`Helper`] for each party that is to be kept apart. A helper has the
//! program's code, a copy of its private memory as it was when the zygote was forked, a page of words that it shares with
//! its server, and a socket over which it is given memory. Everything else is gone before it runs a handler:
//!
//! - descriptors: all closed; shared mappings: unmapped; children and debuggers: refused;
//! - system calls: a list of some twenty that need no descriptor (`filter`), the others fail with `EPERM`;
//! - capabilities and new privileges: none; memory, files, descriptors: limits of the kernel.
//!
//! What a helper says is hostile to the server: each word of the page is read once, nothing is kept there, and the server never
//! waits for longer than its caller wants. *This crate knows neither calls nor heaps.*
#![warn(missing_docs)]

mod filter;
mod helper;
mod inside;
mod jail;
mod page;
mod zygote;

pub use helper::{Ended, Helper, Tick};
pub use inside::{Inside, Lent};
pub use page::{BYTES_MAX, Turn};
pub use zygote::{Limits, Zygote};

use std::io;

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error(
        "{doing} for a sandbox failed: {source}; `vernal rpc modes` says what this kernel offers"
    )]
    Os {
        /// What was tried.
        doing: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// The process that forks helpers is gone.
    #[error(
        "the process that forks helpers has ended, or could not give up what it must (it needs /proc, and descriptors up to number 1010): \
         `vernal rpc modes` says what this kernel offers"
    )]
    Gone,
    /// Memory that cannot be hidden.
    #[error(
        "{len} bytes at {addr:#x} are not whole pages: allocate what is to be hidden with mmap or aligned_alloc(4096, ..)"
    )]
    NotPages {
        /// Where.
        addr: usize,
        /// How much.
        len: usize,
    },
}

pub(crate) fn os(doing: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |e| Error::Os {
        doing,
        source: e.into(),
    }
}

/// Keeps whole pages out of every helper that is forked from now on, and of all other children: a helper that touches them ends.
pub fn hide(memory: &[u8]) -> Result<(), Error> {
    let (addr, len) = (memory.as_ptr() as usize, memory.len());
    if len == 0 || !addr.is_multiple_of(4096) || !len.is_multiple_of(4096) {
        return Err(Error::NotPages { addr, len });
    }
    // SAFETY: changes what a child inherits, and nothing of this process.
    let done = unsafe { libc::madvise(addr as *mut libc::c_void, len, libc::MADV_DONTFORK) };
    match done {
        0 => Ok(()),
        _ => Err(Error::Os {
            doing: "hiding memory",
            source: io::Error::last_os_error(),
        }),
    }
}
