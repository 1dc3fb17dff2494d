//! The client side of puddled: a connection, requests, descriptors.
//!
//! [`Client`] blocks: one request, one reply. Whatever puddled sends is checked like any other bytes from outside, and the number
//! of descriptors must be the one that the reply names.
//!
//! [`Client::channel_open`] gives a [`Listener`], whose socket is its own: it can be waited at while the connection is in use.
//!
//! This crate knows nothing of mappings, journals or heaps: it hands descriptors on.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod client;
mod error;
mod rpc;
mod socket;

pub use client::{Client, Granted, Import, OpenPool};
pub use error::ClientError;
pub use rpc::{Arrival, ChannelSpec, Connected, Link, Listener, Segment};
pub use socket::{DEFAULT_SOCKET, SOCKET_VARIABLE, socket_path};
pub use vernal_puddled_proto as proto;
