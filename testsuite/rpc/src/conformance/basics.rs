//! One call at a time.

use std::time::Duration;

use super::*;
use vernal_rpc_core::TEXT_MAX;

/// Plain bytes come back, whether they travel in the message or beside it.
pub fn echo_of_every_length(harness: &dyn Harness) {
    for options in variants() {
        let server = Server::start(harness, options);
        let conn = harness
            .connect(&server.address, ConnectOptions::default())
            .expect("connects");
        let data: Vec<u8> = (0..TEXT_MAX).map(|n| (n * 7 % 251) as u8).collect();
        let lengths = (0..130).chain([511, 512, 1000, 4095, TEXT_MAX]);
        for len in lengths {
            let body = Body::from_bytes(&data[..len]).expect("not too long");
            let reply = conn.call(ECHO, body, &patient()).expect("an echo");
            assert_eq!(reply.bytes(), &data[..len], "{len} bytes");
            assert_eq!(reply.object(), None);
        }
        assert_eq!(Body::from_bytes(&[0; TEXT_MAX + 1]), None);
    }
}

/// An application's code and text reach the caller, the text cut to what travels; there is a code for a method that is not there.
pub fn failures_have_code_and_text(harness: &dyn Harness) {
    let server = Server::start(harness, ChannelOptions::default());
    let conn = harness
        .connect(&server.address, ConnectOptions::default())
        .expect("connects");
    for code in [0, 1, 77, 0x7fff_ffff] {
        match conn.call(FAIL, word(code), &patient()) {
            Err(Error::Remote { method, failure }) => {
                assert_eq!(method, FAIL);
                assert_eq!(failure.code, Code::Application(code as u32));
                assert_eq!(failure.text.len(), TEXT_MAX);
                assert!(failure.text.starts_with("as you wish as"));
            }
            other => panic!("{other:?}"),
        }
    }
    match conn.call(NONE, Body::EMPTY, &patient()) {
        Err(Error::Remote { failure, .. }) => assert_eq!(failure.code, Code::UnknownMethod),
        other => panic!("{other:?}"),
    }
    let stats = server.channel.stats();
    assert_eq!((stats.calls, stats.failed), (5, 5));
}

/// A call ends at its deadline; its handler learns of it, and the connection goes on.
pub fn deadlines_pass(harness: &dyn Harness) {
    for options in variants() {
        let server = Server::start(harness, options);
        let conn = harness
            .connect(&server.address, ConnectOptions::default())
            .expect("connects");
        for _ in 0..3 {
            let short = CallOptions {
                deadline: Some(Duration::from_millis(5)),
                ..CallOptions::default()
            };
            let late = conn.call(LINGER, Body::EMPTY, &short);
            assert!(
                matches!(late, Err(Error::DeadlineExceeded { method: LINGER })),
                "{late:?}"
            );
        }
        // A call that expires before a thread is free for it does not begin.
        server.all_lingered();
        let reply = conn.call(ECHO, word(9), &patient()).expect("an echo");
        assert_eq!(number(reply.bytes()), 9);
    }
}

/// A handler that panics fails its call and nothing else.
pub fn a_panic_fails_one_call(harness: &dyn Harness) {
    for options in variants() {
        let server = Server::start(harness, options);
        let conn = harness
            .connect(&server.address, ConnectOptions::default())
            .expect("connects");
        for n in 0..3 {
            match conn.call(PANIC, Body::EMPTY, &patient()) {
                Err(Error::Remote { failure, .. }) => {
                    assert_eq!(failure.code, Code::Internal);
                    assert!(failure.text.contains("on purpose"), "{failure}");
                }
                other => panic!("{other:?}"),
            }
            let reply = conn.call(ECHO, word(n), &patient()).expect("an echo");
            assert_eq!(number(reply.bytes()), n);
        }
    }
}

/// Any two ways of waiting work together, after a pause, too, in which both sides have gone to sleep.
pub fn waits_of_every_kind(harness: &dyn Harness) {
    let all = [WaitPolicy::Spin, WaitPolicy::Adaptive, WaitPolicy::Block];
    for wait in all {
        let options = ChannelOptions {
            wait,
            ..ChannelOptions::default()
        };
        let server = Server::start(harness, options);
        for wait in all {
            let options = ConnectOptions {
                wait,
                ..ConnectOptions::default()
            };
            let conn = harness.connect(&server.address, options).expect("connects");
            let sleeps = server.channel.stats().sleeps;
            for n in 0..300 {
                let reply = conn.call(ECHO, word(n), &patient()).expect("an echo");
                assert_eq!(number(reply.bytes()), n);
            }
            if server.channel.options().wait != WaitPolicy::Spin {
                eventually("the server sleeps", || {
                    server.channel.stats().sleeps > sleeps
                });
            }
            let reply = conn
                .call(ECHO, word(7), &patient())
                .expect("an echo after a sleep");
            assert_eq!(number(reply.bytes()), 7);
        }
    }
}
