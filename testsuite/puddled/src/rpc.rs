//! Tests of channels: what their processes have in common, and what must be left when they are gone.

use std::path::Path;
use std::time::{Duration, Instant};

use vernal_puddled_proto::RpcStatus;

use crate::{Actor, Place};

/// The smallest segment.
pub const MIN: u64 = 2 << 20;

/// The n-th word of an answer.
pub fn word(text: &str, n: usize) -> String {
    let word = text.split(' ').nth(n);
    word.unwrap_or_else(|| panic!("{text:?} has no word {n}"))
        .to_owned()
}

/// Waits until puddled's table is as `is` wants it.
pub fn wait_for(place: &Place, what: &str, is: impl Fn(&RpcStatus) -> bool) -> RpcStatus {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let status = place.client().rpc_status().expect("puddled serves");
        if is(&status) {
            return status;
        }
        assert!(
            Instant::now() < until,
            "{what}: {status:?}\n{}",
            place.log_text()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Nothing is left: no segment, no lease, no address, nothing on anybody's account.
pub fn assert_empty(place: &Place, uids: &[u32]) {
    wait_for(place, "something is left", |s| {
        let RpcStatus {
            channels,
            connections,
            segments,
            segment_bytes,
            address_bytes,
            leases,
            orphans,
            ..
        } = *s;
        [
            channels,
            connections,
            segments,
            segment_bytes,
            address_bytes,
            leases,
            orphans,
        ]
        .iter()
        .all(|&n| n == 0)
    });
    let mut root = place.client();
    let metrics = root.metrics().unwrap();
    for gauge in ["segments", "address_bytes", "leases", "orphans"] {
        let row = format!("\npuddled_rpc_{gauge} 0\n");
        assert!(metrics.contains(&row), "{gauge}: {metrics}");
    }
    for &uid in uids {
        assert_eq!(root.quota(uid).unwrap().0, 0, "user {uid}");
    }
}

/// A server with the channel `shop/stock` and a client that is connected to it: both, and the connection. `program` is `puddled-rpc`.
pub fn connected(
    program: &Path,
    place: &Place,
    server: Option<u32>,
    client: Option<u32>,
) -> (Actor, Actor, String) {
    let mut s = place.run(program, "server", server);
    s.ok("open shop/stock 0666");
    let mut c = place.run(program, "client", client);
    let conn = word(&c.ok("connect shop/stock"), 0);
    assert_eq!(word(&s.ok("accept"), 0), conn);
    (s, c, conn)
}
