//! memcached as Debian ships it, and a client that knows nothing of the shim.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vernal_shim_tests::{Peer, Place};

/// Where Debian puts it.
fn memcached() -> Option<PathBuf> {
    let found = ["/usr/bin/memcached", "/usr/local/bin/memcached"]
        .iter()
        .map(PathBuf::from)
        .find(|p| p.exists());
    if found.is_none() {
        println!("skipped: memcached is not installed (apt-get install memcached)");
    }
    found
}

struct Server {
    place: Place,
    _peer: Peer,
    process: u32,
    path: String,
}

fn server(name: &str, program: &Path, wait: Option<&str>) -> Server {
    let place = Place::new(name);
    let path = place
        .socket("memcached")
        .to_str()
        .expect("a path")
        .to_owned();
    let mut command = place.command(program, wait);
    command.args(["-u", "root", "-t", "4", "-s", &path]);
    let peer = Peer::start(command);
    let until = Instant::now() + Duration::from_secs(60);
    while UnixStream::connect(&path).is_err() {
        assert!(Instant::now() < until, "memcached does not listen");
        std::thread::yield_now();
    }
    Server {
        process: peer.child.id(),
        _peer: peer,
        place,
        path,
    }
}

impl Server {
    fn client(&self, wait: Option<&str>, seed: u64) -> Peer {
        let mut command = self
            .place
            .command(Path::new(env!("CARGO_BIN_EXE_shim-peer")), wait);
        command.args(["cache", &self.path, &seed.to_string(), "60"]);
        Peer::start(command)
    }

    fn segments(&self) -> usize {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.process)).expect("maps");
        maps.lines()
            .filter(|l| l.contains("memfd:vernal-shim"))
            .count()
    }
}

fn check(client: Peer, segments: usize) {
    let (well, text) = client.finish();
    assert!(well, "{text}");
    assert_eq!(text, format!("all segments {segments}\n"));
}

#[test]
fn several_clients_over_the_shim() {
    let Some(program) = memcached() else { return };
    for wait in ["adaptive", "block"] {
        let server = server(&format!("memcached-{wait}"), &program, Some(wait));
        let clients: Vec<Peer> = (0..3).map(|seed| server.client(Some(wait), seed)).collect();
        clients.into_iter().for_each(|client| check(client, 2));
        // One without it beside them, and one after it.
        check(server.client(None, 7), 0);
        check(server.client(Some("adaptive"), 8), 2);
        // What was closed is unmapped: it may be a moment until memcached has heard of the last one.
        let until = Instant::now() + Duration::from_secs(60);
        while server.segments() > 0 {
            assert!(
                Instant::now() < until,
                "segments of closed connections stay mapped"
            );
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_server_without_the_shim() {
    let Some(program) = memcached() else { return };
    let server = server("memcached-plain", &program, None);
    check(server.client(Some("adaptive"), 1), 0);
}
