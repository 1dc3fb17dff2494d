//! Streams whose bytes both sides can compute, through every kind of server and client, with the shim on both sides, one, or none.

use std::path::Path;
use vernal_shim_tests::{Peer, Place};

const BYTES: u64 = 600_000;

fn peer(place: &Place, wait: Option<&str>, arguments: &[&str]) -> std::process::Command {
    let mut command = place.command(Path::new(env!("CARGO_BIN_EXE_shim-peer")), wait);
    command.args(arguments);
    command
}

fn soak(place: &Place, wait: Option<&str>, path: &str, how: &str, seed: u64) -> String {
    let bytes = BYTES.to_string();
    let client = Peer::start(peer(
        place,
        wait,
        &["soak", path, how, &seed.to_string(), &bytes],
    ));
    let (well, text) = client.finish();
    assert!(well, "{how} seed {seed}:\n{text}");
    text.lines().last().unwrap_or_default().to_owned()
}

/// The same stream through one server, by clients of each kind; which use shared memory if `shared`.
fn through(server: &str, wait: Option<&str>, clients: Option<&str>, seed: u64) {
    let place = Place::new(&format!(
        "soak-{server}-{}-{}",
        wait.unwrap_or("none"),
        clients.unwrap_or("none")
    ));
    let path = place.socket("s");
    let path = path.to_str().expect("a path");
    let _server = Peer::server(peer(&place, wait, &["echo", path, server]));
    for (i, how) in ["thread", "nonblocking", "dup", "fork"]
        .into_iter()
        .enumerate()
    {
        let seed = seed * 10 + i as u64;
        println!("{server} {wait:?}, {how} {clients:?}: seed {seed}");
        let segments = if wait.is_some() && clients.is_some() {
            2
        } else {
            0
        };
        let said = soak(&place, clients, path, how, seed);
        assert_eq!(said, format!("all segments {segments}"), "{server} {how}");
    }
}

#[test]
fn threads() {
    through("thread", Some("adaptive"), Some("adaptive"), 1);
    through("thread", Some("block"), Some("block"), 2);
}

#[test]
fn a_fork_for_each_connection() {
    through("fork", Some("adaptive"), Some("block"), 3);
}

#[test]
fn epoll_by_levels() {
    through("level", Some("adaptive"), Some("adaptive"), 4);
    through("level", Some("block"), Some("block"), 5);
}

#[test]
fn epoll_by_edges() {
    through("edge", Some("block"), Some("adaptive"), 6);
    through("edge", Some("adaptive"), Some("block"), 7);
}

#[test]
fn epoll_by_single_shots() {
    through("oneshot", Some("adaptive"), Some("block"), 8);
}

#[test]
fn poll_and_select() {
    through("poll", Some("adaptive"), Some("block"), 9);
    through("select", Some("block"), Some("adaptive"), 10);
}

#[test]
fn a_side_without_the_shim() {
    for server in ["thread", "edge", "level", "fork"] {
        through(server, None, Some("adaptive"), 11);
        through(server, Some("adaptive"), None, 12);
    }
}

#[test]
fn a_killed_server_is_the_end_of_the_stream() {
    for (round, wait) in ["adaptive", "block", "spin"].into_iter().enumerate() {
        let place = Place::new(&format!("killed-server-{wait}"));
        let path = place.socket("s");
        let path = path.to_str().expect("a path");
        let mut server = Peer::server(peer(&place, Some(wait), &["echo", path, "level"]));
        let seed = (100 + round).to_string();
        let bytes = u64::MAX.to_string();
        let mut client = Peer::start(peer(
            &place,
            Some(wait),
            &["soak", path, "thread", &seed, &bytes],
        ));
        for _ in 0..=round {
            assert_eq!(client.line(), "on");
        }
        server.child.kill().expect("a child");
        // It has checked each byte, and has seen the end in both directions.
        let (well, text) = client.finish();
        assert!(well, "{text}");
        assert!(text.ends_with("part segments 2\n"), "{text}");
    }
}

#[test]
fn a_server_outlives_killed_clients() {
    let place = Place::new("killed-clients");
    let path = place.socket("s");
    let path = path.to_str().expect("a path");
    for server in ["edge", "thread", "poll"] {
        let _ = std::fs::remove_file(path);
        let _server = Peer::server(peer(&place, Some("adaptive"), &["echo", path, server]));
        for round in 0..3 {
            let bytes = u64::MAX.to_string();
            let mut client = Peer::start(peer(
                &place,
                Some("adaptive"),
                &["soak", path, "thread", &round.to_string(), &bytes],
            ));
            assert_eq!(client.line(), "on");
            drop(client);
        }
        let said = soak(&place, Some("adaptive"), path, "thread", 7);
        assert_eq!(said, "all segments 2");
    }
}

#[test]
fn exec_keeps_sockets_and_closes_what_is_in_use() {
    let place = Place::new("exec");
    let path = place.socket("s");
    let path = path.to_str().expect("a path");
    let _server = Peer::server(peer(&place, Some("block"), &["echo", path, "level"]));
    let (well, text) = Peer::start(peer(&place, Some("block"), &["exec", path])).finish();
    assert!(well, "{text}");
    // The second connection has its own segment only: nothing was said on it.
    assert_eq!(text, "segments 3\nused closed\nhello\n");
}
