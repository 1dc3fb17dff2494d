//! Hostile requests on channels: foreign numbers, wrong times, noise, a server that does not accept.

mod common;

use common::{connected, place, rpc};
use vernal_puddled_client::Client;
use vernal_puddled_proto::limits::MAX_SEGMENTS;
use vernal_puddled_proto::{ChannelId, ConnId, Request, SegmentId, SegmentOf};
use vernal_puddled_tests::rpc::{MIN, assert_empty, wait_for, word};
use vernal_puddled_tests::{USER_A, USER_B, need_root};

#[test]
fn a_server_that_does_not_accept_delays_nobody() {
    let mut place = place();
    place.start();
    let mut lazy = rpc(&place, "lazy", None);
    lazy.ok("open lazy 0600");
    let mut brisk = rpc(&place, "brisk", None);
    brisk.ok("open brisk 0600");
    let mut client = rpc(&place, "client", None);
    let mut made = 0;
    let refused = loop {
        let answer = client.ask("connect lazy");
        if !answer.starts_with("ok") {
            break answer;
        }
        made += 1;
        assert!(made < 1000, "the queue is bounded");
    };
    assert!(refused.starts_with("err Busy"), "{refused}");
    assert!(refused.contains("lazy"), "{refused}");
    println!("{made} arrivals wait");
    assert!((16..=256).contains(&made), "{made}");
    let conn = word(&client.ok("connect brisk"), 0);
    assert_eq!(word(&brisk.ok("accept"), 0), conn);
    // As soon as it accepts there is room again, and nobody was lost.
    for _ in 0..made {
        lazy.ok("accept");
    }
    assert_eq!(lazy.ok("try-accept"), "none");
    let conn = word(&client.ok("connect lazy"), 0);
    assert_eq!(word(&lazy.ok("accept"), 0), conn);
    let status = place.client().rpc_status().unwrap();
    assert_eq!(status.connections, made + 2);
    assert_eq!(status.connected, made + 2);
}

#[test]
fn hostile_requests_get_nothing() {
    if !need_root("hostile requests") {
        return;
    }
    let mut place = place();
    place.start();
    let (mut server, mut client, conn) = connected(&place, Some(USER_A), Some(USER_A));
    let ring = client.ok(&format!("new conn {conn} {MIN}"));
    let fresh = client.ok(&format!("make conn {conn} {MIN}"));
    let channel = server.ok("open shop/other 0600");
    let shared = server.ok(&format!("new channel {channel} {MIN}"));
    // A stranger, who guesses all numbers right.
    let mut evil = rpc(&place, "evil", Some(USER_B));
    let own = word(&evil.ok("connect shop/stock"), 0);
    server.ok("accept");
    for (line, code) in [
        (format!("lease {ring}"), "NotFound"),
        (format!("lease {shared}"), "NotFound"),
        (format!("ready {fresh}"), "NotFound"),
        (format!("drop {ring}"), "NotFound"),
        (format!("leave {conn}"), "Invalid"),
        (format!("make conn {conn} {MIN}"), "Invalid"),
        (format!("make channel {channel} {MIN}"), "Invalid"),
        (format!("close {channel}"), "Invalid"),
        ("lease 1".to_owned(), "NotFound"),
        ("ready ffffffffffffffff".to_owned(), "NotFound"),
        ("drop 0".to_owned(), "NotFound"),
    ] {
        evil.refused(&line, code);
    }
    // Lists show nothing of it either.
    assert_eq!(evil.ok("segments"), "");
    // The parties themselves, at the wrong time.
    server.refused(&format!("lease {fresh}"), "Busy");
    client.refused(&format!("ready {ring}"), "Invalid");
    client.refused(&format!("lease {ring}"), "Invalid");
    let text = client.refused(&format!("ready {fresh}"), "Invalid");
    assert!(text.contains("not mapped"), "{text}");
    client.refused(&format!("ready {fresh}"), "NotFound");
    server.refused(&format!("lease {fresh}"), "NotFound");
    // After leaving, a side gets nothing new.
    server.ok(&format!("lease {ring}"));
    let late = client.ok(&format!("new conn {conn} {MIN}"));
    server.ok(&format!("leave {conn}"));
    server.refused(&format!("make conn {conn} {MIN}"), "Invalid");
    server.refused(&format!("leave {conn}"), "Invalid");
    // (The same user may look at what its own processes own: tools do.)
    server.ok(&format!("lease {late}"));
    server.ok(&format!("drop {late}"));
    server.refused(&format!("drop {late}"), "NotFound");
    // Nobody makes segments without end.
    for _ in 0..MAX_SEGMENTS {
        evil.ok(&format!("make conn {own} {MIN}"));
    }
    evil.refused(&format!("make conn {own} {MIN}"), "Limit");
    assert!(evil.ask("make conn 1 4096").starts_with("err Client"));
    evil.ok(&format!("leave {own}"));
    wait_for(&place, "what it made there", |s| s.segments == 3);
    evil.kill();
    client.end();
    server.end();
    assert_empty(&place, &[USER_A, USER_B]);
}

#[test]
fn requests_at_random_change_nothing_of_others() {
    let mut place = place();
    place.start();
    let (mut server, mut client, conn) = connected(&place, None, None);
    let ring = client.ok(&format!("new conn {conn} {MIN}"));
    server.ok(&format!("lease {ring}"));
    client.ok(&format!("write {ring} 0 intact"));
    // Root opens the memory anew through /proc, and meets the seals.
    assert_eq!(server.ok(&format!("attack {ring}")), "");
    let base = u64::from_str_radix(&conn, 16).unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    println!("seed {seed:#x}");
    let mut next = move |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    // All of them of root, who may see everything: the worst that a client can be.
    let mut clients: Vec<Client> = (0..4).map(|_| place.client()).collect();
    let mut kept = Vec::new();
    for i in 0..4000 {
        let id = base.wrapping_add(next(64)).wrapping_sub(32);
        let name = format!("evil/{}", next(8));
        let of = match next(2) {
            0 => SegmentOf::Conn(ConnId(id)),
            _ => SegmentOf::Channel(ChannelId(id)),
        };
        let request = match next(9) {
            0 => Request::ChannelOpen {
                name,
                owner: None,
                group: None,
                mode: 0o666,
            },
            1 => Request::ChannelClose {
                channel: ChannelId(id),
            },
            2 => Request::Connect { name },
            3 => Request::Disconnect { conn: ConnId(id) },
            4 => Request::Segment { of, size: MIN },
            5 => Request::SegmentReady {
                segment: SegmentId(id),
            },
            6 => Request::SegmentMap {
                segment: SegmentId(id),
            },
            7 => Request::SegmentDrop {
                segment: SegmentId(id),
            },
            _ => Request::RpcStatus,
        };
        let who = next(4) as usize;
        match clients[who].call(&request) {
            Ok((_, fds)) => kept.extend(fds),
            Err(e) => assert!(e.code().is_some(), "{e}: {request:?}"),
        }
        if next(50) == 0 {
            clients[who] = place.client();
        }
        if i % 500 == 0 {
            kept.clear();
        }
    }
    assert_eq!(server.ok(&format!("read {ring} 0 6")), "intact");
    assert_eq!(server.ok(&format!("alive {conn}")), "true");
    drop(clients);
    drop(kept);
    client.end();
    server.end();
    assert_empty(&place, &[]);
}
