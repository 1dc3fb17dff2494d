//! The suite: everything that calls promise, on any transport.
//!
//! A transport gives a [`Harness`]; [`suite!`](crate::suite) makes a test of each promise.

pub mod basics;
pub mod endings;
pub mod many;
pub mod streams;
pub mod tasks;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use vernal_rpc_core::{
    Answer, Body, Call, CallOptions, Channel, ChannelOptions, Code, ConnectOptions, Connection,
    Error, Failure, Signature, WaitPolicy,
};

/// A transport under test.
pub trait Harness: Sync {
    /// A channel that listens, under a name that no other test has, and the address to connect to.
    fn channel(&self, options: ChannelOptions) -> (Channel, String);
    /// Connects.
    fn connect(&self, address: &str, options: ConnectOptions) -> Result<Connection, Error>;
}

/// Returns its argument.
pub const ECHO: u32 = 1;
/// Fails with the code in its argument.
pub const FAIL: u32 = 2;
/// Runs until nobody waits for it any more, then counts.
pub const LINGER: u32 = 3;
/// Panics.
pub const PANIC: u32 = 4;
/// Answers with as many items as its argument says.
pub const COUNT: u32 = 5;
/// Adds its argument to a sum and returns the sum.
pub const ADD: u32 = 6;
/// No method.
pub const NONE: u32 = 99;

/// How long anything may take before a test fails. No test waits so long on purpose.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs, and is shut down at the end of a test.
pub struct Server {
    /// The channel.
    pub channel: Channel,
    /// Where.
    pub address: String,
    /// How often [`LINGER`] has begun.
    pub begun: Arc<AtomicU64>,
    /// How often it was given up.
    pub lingered: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// The number in plain bytes.
pub fn number(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(word)
}

/// Plain bytes of a number.
pub fn word(n: u64) -> Body {
    Body::from_bytes(&n.to_le_bytes()).expect("eight bytes")
}

/// A call with patience.
pub fn patient() -> CallOptions {
    CallOptions {
        deadline: Some(PATIENCE),
        ..CallOptions::default()
    }
}

impl Server {
    /// A server with the suite's methods.
    pub fn start(harness: &dyn Harness, options: ChannelOptions) -> Server {
        let (channel, address) = harness.channel(options);
        let begun = Arc::new(AtomicU64::new(0));
        let lingered = Arc::new(AtomicU64::new(0));
        let plain = Signature::default();
        channel.serve(ECHO, plain, |call: &mut Call<'_>| {
            Answer::bytes(call.bytes())
        });
        channel.serve(FAIL, plain, |call: &mut Call<'_>| {
            let code = number(call.bytes()) as u32;
            Err(Failure::application(code, "as you wish ".repeat(1000)))
        });
        let (begins, ends) = (Arc::clone(&begun), Arc::clone(&lingered));
        channel.serve(LINGER, plain, move |call: &mut Call<'_>| {
            begins.fetch_add(1, Ordering::SeqCst);
            let until = std::time::Instant::now() + PATIENCE;
            while !call.is_cancelled() {
                if std::time::Instant::now() > until {
                    return Err(Failure::new(
                        Code::Internal,
                        "nobody has given this call up",
                    ));
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            ends.fetch_add(1, Ordering::SeqCst);
            Ok(Answer::EMPTY)
        });
        channel.serve(PANIC, plain, |_: &mut Call<'_>| panic!("on purpose"));
        channel.serve(COUNT, plain, |call: &mut Call<'_>| {
            for n in 0..number(call.bytes()) {
                call.send(Answer::Body(word(n)))?;
            }
            Ok(Answer::Ended)
        });
        let sum = AtomicU64::new(0);
        channel.serve(ADD, plain, move |call: &mut Call<'_>| {
            let n = number(call.bytes());
            let before = sum.fetch_add(n, Ordering::SeqCst);
            Ok(Answer::Body(word(before + n)))
        });
        let thread = channel.spawn().expect("a thread");
        Server {
            channel,
            address,
            begun,
            lingered,
            thread: Some(thread),
        }
    }

    /// Waits until every [`LINGER`] that has begun was given up; how many these are.
    pub fn all_lingered(&self) -> u64 {
        let ended = || self.lingered.load(Ordering::SeqCst);
        eventually("the handlers learn of it", || {
            ended() == self.begun.load(Ordering::SeqCst)
        });
        ended()
    }

    /// Waits for the end of the server's thread.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic").expect("a clean end");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.channel.shutdown(Duration::ZERO);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// All ways to wait and both ways to run handlers.
pub fn variants() -> Vec<ChannelOptions> {
    let mut all = Vec::new();
    for wait in [WaitPolicy::Adaptive, WaitPolicy::Block] {
        for threads in [0, 2] {
            all.push(ChannelOptions {
                wait,
                threads,
                ..ChannelOptions::default()
            });
        }
    }
    all
}

/// Waits until `done` says so.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(std::time::Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A test of each promise.
#[macro_export]
macro_rules! suite {
    ($harness:expr) => {
        $crate::suite!(@ $harness, basics: echo_of_every_length, failures_have_code_and_text, deadlines_pass, a_panic_fails_one_call, waits_of_every_kind);
        $crate::suite!(@ $harness, many: pipelined_calls_in_any_order, the_table_has_an_end, threads_share_a_connection, many_connections, long_texts_from_many_threads, small_rings_wrap);
        $crate::suite!(@ $harness, tasks: futures_without_an_executor, many_futures_at_once, a_future_has_its_deadline, threads_and_futures_together);
        $crate::suite!(@ $harness, streams: items_come_in_order, a_dropped_stream_is_cancelled, streams_of_several_calls, a_stream_of_a_task);
        $crate::suite!(@ $harness, endings: a_cancelled_call_is_known_to_its_handler, shutdown_is_graceful, a_closed_connection_fails_its_calls, a_server_that_goes_fails_calls, nobody_serves_the_name);
    };
    (@ $harness:expr, $module:ident: $($test:ident),*) => {
        $(#[test]
        fn $test() {
            $crate::conformance::$module::$test(&$harness);
        })*
    };
}
