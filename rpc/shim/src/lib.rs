//! `libvernal_shim`: unmodified programs that talk over stream sockets of one host talk over shared memory instead.
//!
//! The library is preloaded (`vernal rpc shim -- program`) and replaces the calls of the C library that touch descriptors. A connection
//! over a Unix stream socket whose path matches `VERNAL_SHIM` goes over to two rings of bytes, one for each direction, when both sides are
//! preloaded; every other descriptor, and every connection with a side that is not, is left to the kernel.
//!
//! # Invariants
//!
//! 1. *The program's descriptor stays the socket.* `dup`, `fork`, `close`, passing time limits and death of the peer mean what they mean to
//!    the kernel; the socket carries single bytes as bells, nothing else, once a direction has gone over.
//! 2. *Each byte of the stream has one place* ([`conn`]): a sender goes over once, at a count that it publishes before its first bell.
//! 3. *Memory has one writer*: each side writes its own sealed memfd and maps the other's for reading. What a peer writes is checked once
//!    it was read ([`vernal_ring`]); a lie is `ECONNRESET`.
//! 4. *No lost wake-up*: announce, fence, look again, sleep; the sleep is in the socket itself, or in an epoll instance that has it.
//! 5. *What is not understood stays with the socket*, and that is decided before a direction goes over; after that it fails loudly.
//!
//! # What stays with the socket, or fails
//!
//! A connection that meets one of these before its first read, write, poll or epoll stays with the socket: `fdopen`, descriptors as
//! ancillary data, `exec`, an instance of epoll that is itself watched. Later, `fdopen` and ancillary data are refused with an error, and
//! `exec` closes the descriptor, so that no program takes bells for bytes. `io_uring`, and system calls that do not go through the C
//! library, are not seen: such programs do not belong into `VERNAL_SHIM`.
//!
//! A signal handler may use descriptors that are not the shim's. While a thread looks at memory (`VERNAL_SHIM_WAIT=spin`, or the first
//! 50 µs otherwise) a signal does not end its call.
#![warn(missing_docs)]

mod calls;
mod config;
mod conn;
mod epoll;
mod fork;
mod greet;
mod lock;
mod poll;
mod ready;
mod real;
mod segment;
mod sleep;
mod stream;
mod table;
