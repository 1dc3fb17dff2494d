//! How calls, connections and servers end.

use super::*;

/// Dropping a call cancels it, and its handler learns of it.
pub fn a_cancelled_call_is_known_to_its_handler(harness: &dyn Harness) {
    for options in variants() {
        let server = Server::start(harness, options);
        let conn = harness
            .connect(&server.address, ConnectOptions::default())
            .expect("connects");
        for n in 1..=3 {
            let call = conn.start(LINGER, Body::EMPTY, &patient()).expect("room");
            eventually("it runs", || server.begun.load(Ordering::SeqCst) == n);
            call.cancel();
            assert_eq!(server.all_lingered(), n);
        }
        conn.call(ECHO, word(1), &patient()).expect("an echo");
    }
}

/// A server that goes away finishes what runs, refuses what is new, and returns.
pub fn shutdown_is_graceful(harness: &dyn Harness) {
    let options = ChannelOptions {
        threads: 1,
        ..ChannelOptions::default()
    };
    let mut server = Server::start(harness, options);
    let conn = harness
        .connect(&server.address, ConnectOptions::default())
        .expect("connects");
    let running = conn.start(LINGER, Body::EMPTY, &patient()).expect("room");
    // The next call waits for the only thread, so it is known to be queued or running when the channel is told to go.
    let queued = conn.start(ADD, word(5), &patient()).expect("room");
    eventually("both have come", || server.channel.stats().calls == 2);
    server.channel.shutdown(PATIENCE);
    let soon = CallOptions {
        deadline: Some(Duration::from_millis(100)),
        ..patient()
    };
    eventually("new calls are refused", || {
        // The loop may not have heard of it yet: then the call waits behind the others for the only thread, and is given up.
        match conn.call(ECHO, word(1), &soon) {
            Err(Error::Remote { failure, .. }) => failure.code == Code::ShuttingDown,
            Ok(_) | Err(Error::DeadlineExceeded { .. }) => false,
            Err(other) => panic!("{other}"),
        }
    });
    assert!(!conn.is_open());
    running.cancel();
    let reply = queued.wait().expect("what was there before is finished");
    assert_eq!(number(reply.bytes()), 5);
    server.join();
    assert!(
        harness
            .connect(&server.address, ConnectOptions::default())
            .is_err()
    );
}

/// Closing a connection fails the calls that wait for it, in other threads too.
pub fn a_closed_connection_fails_its_calls(harness: &dyn Harness) {
    for wait in [WaitPolicy::Adaptive, WaitPolicy::Block, WaitPolicy::Spin] {
        let server = Server::start(harness, ChannelOptions::default());
        let options = ConnectOptions {
            wait,
            ..ConnectOptions::default()
        };
        let conn = harness.connect(&server.address, options).expect("connects");
        let pending = conn.start(LINGER, Body::EMPTY, &patient()).expect("room");
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| conn.call(ECHO, Body::EMPTY, &patient()));
            eventually("the handler runs", || {
                server.begun.load(Ordering::SeqCst) == 1
            });
            conn.close();
            let failed = waiter.join().expect("no panic");
            assert!(matches!(failed, Err(Error::Closed { .. })), "{failed:?}");
        });
        let failed = pending.wait();
        assert!(matches!(failed, Err(Error::Closed { .. })), "{failed:?}");
        let failed = conn.call(ECHO, Body::EMPTY, &patient());
        assert!(matches!(failed, Err(Error::Closed { .. })), "{failed:?}");
        eventually("the server sees it go", || {
            server.channel.stats().clients == 0
        });
        assert_eq!(server.lingered.load(Ordering::SeqCst), 1);
        assert_eq!(server.channel.stats().corrupt, 0);
    }
}

/// A server that is gone fails the calls that wait for it, and those that come later.
pub fn a_server_that_goes_fails_calls(harness: &dyn Harness) {
    for wait in [WaitPolicy::Adaptive, WaitPolicy::Block, WaitPolicy::Spin] {
        let options = ChannelOptions {
            threads: 1,
            ..ChannelOptions::default()
        };
        let mut server = Server::start(harness, options);
        let options = ConnectOptions {
            wait,
            ..ConnectOptions::default()
        };
        let conn = harness.connect(&server.address, options).expect("connects");
        let pending = conn.start(LINGER, Body::EMPTY, &patient()).expect("room");
        eventually("the handler runs", || {
            server.begun.load(Ordering::SeqCst) == 1
        });
        server.channel.shutdown(std::time::Duration::ZERO);
        server.join();
        // The handler is told, and may still answer before the link ends.
        let failed = pending.wait();
        assert!(
            !matches!(failed, Err(Error::DeadlineExceeded { .. })),
            "{failed:?}"
        );
        let failed = conn.call(ECHO, Body::EMPTY, &patient());
        assert!(
            matches!(failed, Err(Error::PeerDied { .. } | Error::Remote { .. })),
            "{failed:?}"
        );
    }
}

/// There is an error for a name that nobody serves.
pub fn nobody_serves_the_name(harness: &dyn Harness) {
    let (channel, address) = harness.channel(ChannelOptions::default());
    drop(channel);
    assert!(
        harness
            .connect(&address, ConnectOptions::default())
            .is_err()
    );
}
