//! Many calls, threads and connections.

use super::*;

/// Calls that are under way at once are answered, whatever the order in which they are waited for.
pub fn pipelined_calls_in_any_order(harness: &dyn Harness) {
    for options in variants() {
        let server = Server::start(harness, options);
        let conn = harness
            .connect(&server.address, ConnectOptions::default())
            .expect("connects");
        for round in 0..20 {
            let mut pending: Vec<_> = (0..200)
                .map(|n| (n, conn.start(ECHO, word(n), &patient()).expect("room")))
                .collect();
            match round % 3 {
                0 => {}
                1 => pending.reverse(),
                _ => pending.sort_by_key(|(n, _)| n * 37 % 200),
            }
            for (n, call) in pending {
                let reply = call.wait().expect("an echo");
                assert_eq!(number(reply.bytes()), n);
            }
        }
    }
}

/// One call more than there are slots is an error that says so, not a wait for ever.
pub fn the_table_has_an_end(harness: &dyn Harness) {
    let server = Server::start(harness, ChannelOptions::default());
    let options = ConnectOptions {
        slots: 16,
        ..ConnectOptions::default()
    };
    let conn = harness.connect(&server.address, options).expect("connects");
    let pending: Vec<_> = (0..16)
        .map(|n| conn.start(ECHO, word(n), &patient()).expect("room"))
        .collect();
    match conn.start(ECHO, word(0), &patient()) {
        Err(Error::TooLarge { limit: 16, .. }) => {}
        other => panic!("{other:?}"),
    }
    for (n, call) in pending.into_iter().enumerate() {
        assert_eq!(number(call.wait().expect("an echo").bytes()), n as u64);
    }
    conn.call(ECHO, word(0), &patient()).expect("room again");
}

/// Several threads call over one connection, and each gets its own replies.
pub fn threads_share_a_connection(harness: &dyn Harness) {
    for options in variants() {
        for wait in [WaitPolicy::Adaptive, WaitPolicy::Block] {
            let server = Server::start(harness, options.clone());
            let options = ConnectOptions {
                wait,
                ..ConnectOptions::default()
            };
            let conn = harness.connect(&server.address, options).expect("connects");
            std::thread::scope(|scope| {
                for thread in 0..4u64 {
                    let conn = conn.clone();
                    scope.spawn(move || {
                        for n in 0..500 {
                            let n = thread << 32 | n;
                            let reply = conn.call(ECHO, word(n), &patient()).expect("an echo");
                            assert_eq!(number(reply.bytes()), n);
                        }
                    });
                }
            });
        }
    }
}

/// Many connections to one server, used in turn and at once.
pub fn many_connections(harness: &dyn Harness) {
    let server = Server::start(harness, ChannelOptions::default());
    let conns: Vec<_> = (0..24)
        .map(|_| {
            harness
                .connect(&server.address, ConnectOptions::default())
                .expect("connects")
        })
        .collect();
    for round in 0..10 {
        let pending: Vec<_> = conns
            .iter()
            .map(|c| c.start(ECHO, word(round), &patient()).expect("room"))
            .collect();
        for call in pending {
            assert_eq!(number(call.wait().expect("an echo").bytes()), round);
        }
    }
    assert_eq!(server.channel.stats().clients, 24);
    drop(conns);
    eventually("the server sees them go", || {
        server.channel.stats().clients == 0
    });
    assert_eq!(server.channel.stats().corrupt, 0);
}

/// Texts of all lengths from several threads fill the text area and its end many times.
pub fn long_texts_from_many_threads(harness: &dyn Harness) {
    let server = Server::start(harness, ChannelOptions::default());
    let options = ConnectOptions {
        slots: 16,
        ..ConnectOptions::default()
    };
    let conn = harness.connect(&server.address, options).expect("connects");
    std::thread::scope(|scope| {
        for thread in 0..3usize {
            let conn = conn.clone();
            scope.spawn(move || {
                for n in 0..400usize {
                    let len = (n * 997 + thread * 31) % 4097;
                    let data: Vec<u8> = (0..len).map(|i| (i + n + thread) as u8).collect();
                    let body = Body::from_bytes(&data).expect("not too long");
                    let reply = conn.call(ECHO, body, &patient()).expect("an echo");
                    assert!(
                        reply.bytes() == data,
                        "thread {thread}, call {n}, {len} bytes"
                    );
                }
            });
        }
    });
}

/// The smallest rings go round many times, with more calls under way than their half.
pub fn small_rings_wrap(harness: &dyn Harness) {
    let options = ChannelOptions {
        slots: 4,
        ..ChannelOptions::default()
    };
    let server = Server::start(harness, options);
    let options = ConnectOptions {
        slots: 4,
        ..ConnectOptions::default()
    };
    let conn = harness.connect(&server.address, options).expect("connects");
    for round in 0..500 {
        let pending: Vec<_> = (0..4)
            .map(|n| conn.start(ECHO, word(round + n), &patient()).expect("room"))
            .collect();
        for (n, call) in pending.into_iter().enumerate() {
            assert_eq!(
                number(call.wait().expect("an echo").bytes()),
                round + n as u64
            );
        }
    }
}
