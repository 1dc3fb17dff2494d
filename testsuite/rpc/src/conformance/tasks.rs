//! Calls as futures.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::*;
use crate::block_on;

/// A future of a call needs no particular executor.
pub fn futures_without_an_executor(harness: &dyn Harness) {
    for options in variants() {
        let server = Server::start(harness, options);
        let conn = harness
            .connect(&server.address, ConnectOptions::default())
            .expect("connects");
        block_on(async {
            for n in 0..300 {
                let call = conn.start(ECHO, word(n), &patient()).expect("room");
                assert_eq!(number(call.await.expect("an echo").bytes()), n);
            }
        });
    }
}

/// Many futures are awaited together.
pub fn many_futures_at_once(harness: &dyn Harness) {
    for options in variants() {
        let server = Server::start(harness, options);
        let conn = harness
            .connect(&server.address, ConnectOptions::default())
            .expect("connects");
        let mut pending: Vec<_> = (0..100)
            .map(|n| (n, conn.start(ECHO, word(n), &patient()).expect("room")))
            .collect();
        let all = std::future::poll_fn(|context| {
            pending.retain_mut(|(n, call)| match Pin::new(call).poll(context) {
                Poll::Ready(reply) => {
                    assert_eq!(number(reply.expect("an echo").bytes()), *n);
                    false
                }
                Poll::Pending => true,
            });
            if pending.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        block_on(all);
    }
}

/// A task is woken at its call's deadline, also when another call with a later one waits already.
pub fn a_future_has_its_deadline(harness: &dyn Harness) {
    let options = ChannelOptions {
        threads: 2,
        ..ChannelOptions::default()
    };
    let server = Server::start(harness, options);
    let conn = harness
        .connect(&server.address, ConnectOptions::default())
        .expect("connects");
    let mut long = conn.start(LINGER, Body::EMPTY, &patient()).expect("room");
    eventually("it runs", || server.begun.load(Ordering::SeqCst) == 1);
    block_on(std::future::poll_fn(|context| {
        assert!(Pin::new(&mut long).poll(context).is_pending());
        Poll::Ready(())
    }));
    let short = CallOptions {
        deadline: Some(Duration::from_millis(5)),
        ..CallOptions::default()
    };
    let late = block_on(conn.start(LINGER, Body::EMPTY, &short).expect("room"));
    assert!(
        matches!(late, Err(Error::DeadlineExceeded { .. })),
        "{late:?}"
    );
    long.cancel();
    assert!(server.all_lingered() >= 1);
}

/// Threads that wait and tasks that wait share a connection.
pub fn threads_and_futures_together(harness: &dyn Harness) {
    let server = Server::start(harness, ChannelOptions::default());
    let conn = harness
        .connect(&server.address, ConnectOptions::default())
        .expect("connects");
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let conn = conn.clone();
            scope.spawn(move || {
                for n in 0..300 {
                    let n = thread << 32 | n;
                    let reply = if thread % 2 == 0 {
                        conn.call(ECHO, word(n), &patient())
                    } else {
                        block_on(conn.start(ECHO, word(n), &patient()).expect("room"))
                    };
                    assert_eq!(number(reply.expect("an echo").bytes()), n);
                }
            });
        }
    });
}
