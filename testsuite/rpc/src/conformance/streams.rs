//! Replies in many items.

use super::*;
use crate::block_on;

/// All items come, in order, and the end after them; more of them than fit anywhere at once.
pub fn items_come_in_order(harness: &dyn Harness) {
    for options in variants() {
        let server = Server::start(harness, options);
        let conn = harness
            .connect(&server.address, ConnectOptions::default())
            .expect("connects");
        for count in [0, 1, 31, 32, 33, 2000] {
            let stream = conn.stream(COUNT, word(count), &patient()).expect("room");
            let mut next = 0;
            for item in stream {
                assert_eq!(number(item.expect("an item").bytes()), next);
                next += 1;
            }
            assert_eq!(next, count);
        }
        let mut one = conn.stream(ECHO, word(5), &patient()).expect("room");
        assert_eq!(
            number(one.next().expect("one").expect("an echo").bytes()),
            5
        );
        assert!(one.next().is_none());
        let mut failed = conn.stream(FAIL, word(5), &patient()).expect("room");
        assert!(matches!(failed.next(), Some(Err(Error::Remote { .. }))));
        assert!(failed.next().is_none());
    }
}

/// A stream that nobody takes any more ends its handler; the connection goes on.
pub fn a_dropped_stream_is_cancelled(harness: &dyn Harness) {
    for options in variants() {
        let server = Server::start(harness, options);
        let conn = harness
            .connect(&server.address, ConnectOptions::default())
            .expect("connects");
        for taken in [0, 1, 20, 100] {
            let mut stream = conn
                .stream(COUNT, word(u64::MAX), &patient())
                .expect("room");
            for n in 0..taken {
                let item = stream.next().expect("endless").expect("an item");
                assert_eq!(number(item.bytes()), n);
            }
            drop(stream);
            let reply = conn.call(ECHO, word(taken), &patient()).expect("an echo");
            assert_eq!(number(reply.bytes()), taken);
        }
    }
}

/// Streams of several calls of one connection do not mix.
pub fn streams_of_several_calls(harness: &dyn Harness) {
    let options = ChannelOptions {
        threads: 3,
        ..ChannelOptions::default()
    };
    let server = Server::start(harness, options);
    let conn = harness
        .connect(&server.address, ConnectOptions::default())
        .expect("connects");
    let mut streams: Vec<_> = (0..3)
        .map(|_| conn.stream(COUNT, word(300), &patient()).expect("room"))
        .collect();
    for n in 0..300 {
        for stream in &mut streams {
            let item = stream.next().expect("an item").expect("no error");
            assert_eq!(number(item.bytes()), n);
        }
    }
    for mut stream in streams {
        assert!(stream.next().is_none());
    }
}

/// A task takes a stream.
pub fn a_stream_of_a_task(harness: &dyn Harness) {
    for options in variants() {
        let server = Server::start(harness, options);
        let conn = harness
            .connect(&server.address, ConnectOptions::default())
            .expect("connects");
        let mut stream = conn.stream(COUNT, word(500), &patient()).expect("room");
        let total = block_on(async {
            let mut total = 0;
            while let Some(item) = stream.next_item().await {
                total += number(item.expect("an item").bytes());
            }
            total
        });
        assert_eq!(total, 499 * 500 / 2);
    }
}
