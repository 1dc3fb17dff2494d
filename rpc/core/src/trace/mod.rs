//! Tracing spans of calls: `rpc.call` around a call that its caller waits for, `rpc.serve` around a handler.
//!
//! While nobody listens, a call costs one load of a word that nobody writes, and a comparison. Who listens is whoever the program gives to
//! the crate `tracing`; a program in C or C++, or one that does not care, gets a line of text for each span when
//! `VERNAL_RPC_TRACE` is set ([`init`]).

mod lines;

use tracing::level_filters::LevelFilter;
use tracing::{Level, field};

use crate::error::{Code, Error};
use crate::message::{Body, Kind, Message};
use crate::options::Passed;
use crate::transport::Peer;
use crate::{Connection, Reply};

/// Whether somebody may listen.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    Level::DEBUG <= LevelFilter::current()
}

/// Reads the environment. Called by whatever opens the first channel or connection.
pub(crate) fn init() {
    lines::init();
}

fn size(body: &Body) -> usize {
    body.bytes().map_or(0, <[u8]>::len)
}

/// Makes a call in a span of its own.
#[cold]
pub(crate) fn call(
    conn: &Connection,
    method: u32,
    argument: Body,
    make: impl FnOnce(Body) -> Result<Reply, Error>,
) -> Result<Reply, Error> {
    let span = tracing::debug_span!(
        target: "vernal_rpc",
        "rpc.call",
        server = conn.peer().name,
        method,
        bytes = size(&argument),
        object = argument.object().map(|(addr, _)| addr),
        passed = field::Empty,
        outcome = field::Empty,
    );
    let _in = span.enter();
    let reply = make(argument);
    match &reply {
        Ok(reply) => {
            span.record("passed", field::debug(reply.passed()));
            span.record("outcome", "ok");
        }
        Err(e) => drop(span.record("outcome", field::display(e))),
    }
    reply
}

/// Runs a handler in a span of its own; the message that answers the call.
#[cold]
pub(crate) fn serve(
    peer: &Peer,
    message: &Message,
    perform: impl FnOnce(&mut Option<Passed>) -> Message,
) -> Message {
    let span = tracing::debug_span!(
        target: "vernal_rpc",
        "rpc.serve",
        client = peer.name,
        uid = peer.uid,
        pid = peer.pid,
        method = message.method,
        bytes = size(&message.body),
        object = message.body.object().map(|(addr, _)| addr),
        passed = field::Empty,
        outcome = field::Empty,
    );
    let _in = span.enter();
    let plain = message.body.object().is_none();
    let mut passed = plain.then_some(Passed::Inline);
    let answer = perform(&mut passed);
    // A sandbox takes its objects itself, and says so in its own span.
    if let Some(passed) = passed {
        span.record("passed", field::debug(passed));
    }
    match answer.kind {
        Kind::Error => {
            let text = String::from_utf8_lossy(answer.body.bytes().unwrap_or_default());
            let code = Code::from_wire(answer.method);
            span.record("outcome", field::display(format_args!("{code}: {text}")));
        }
        kind => drop(span.record("outcome", field::debug(kind))),
    }
    answer
}
