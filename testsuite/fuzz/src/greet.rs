//! What peers say over sockets: the greeting of a process of this host, and all that a TCP connection brings.

use crate::graph::{BUDGET, sound};
use crate::input::Input;
use std::sync::Arc;
use vernal_rpc_core::shm;
use vernal_rpc_core::tcp::feed;

/// Bytes of a frame's header, and where it says how many follow.
const HEADER: usize = 48;

/// A packet on the control socket.
pub(crate) fn packet(bytes: &[u8]) {
    if let Err(e) = shm::check_greeting(bytes) {
        drop(e.to_string());
    }
}

/// The greeting of a client or a server.
pub(crate) fn hello(bytes: &[u8]) {
    match feed::greeting(bytes) {
        Ok(taken) => assert!(taken.is_none_or(|taken| taken <= bytes.len())),
        Err(e) => drop(e.to_string()),
    }
}

/// What follows the greeting. The first byte: who reads, and whether lengths are set right; then frames. Behind a header of the
/// shape of an object comes either what the input has, or the sound graph.
pub(crate) fn frames(bytes: &[u8]) {
    let sound = sound();
    let mut input = Input(bytes);
    let how = input.u8();
    let mut stream = Vec::new();
    while !input.is_empty() {
        let mut header: [u8; HEADER] = input.array();
        let body = match input.u8() {
            0 => sound.image.as_slice(),
            most => input.take(usize::from(most)),
        };
        if how & 2 != 0
            && let Some(length) = header.first_chunk_mut::<8>()
        {
            *length = (body.len() as u64).to_le_bytes();
        }
        stream.extend_from_slice(&header);
        stream.extend_from_slice(body);
    }
    let types = Arc::clone(&sound.known);
    let (messages, end) = feed::frames(&stream, how & 1 != 0, types, sound.root_type, BUDGET);
    assert!(messages <= stream.len() / HEADER);
    if let Err(e) = end {
        drop(e.to_string());
    }
}
