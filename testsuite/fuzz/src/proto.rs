//! Packets between puddled and its clients.

use vernal_puddled_proto::{Hello, Reply, Request, VERSION_MAX, Welcome, check_name};

/// The same bytes as every kind of packet.
pub(crate) fn packets(bytes: &[u8]) {
    match Request::decode(VERSION_MAX, bytes) {
        Ok(request) => {
            let again = request.encode(VERSION_MAX).expect("it was accepted");
            assert_eq!(Request::decode(VERSION_MAX, &again).as_ref(), Ok(&request));
        }
        Err(e) => drop(e.to_string()),
    }
    if let Ok(reply) = Reply::decode(VERSION_MAX, bytes) {
        let again = reply.encode(VERSION_MAX).expect("it was accepted");
        assert_eq!(Reply::decode(VERSION_MAX, &again).as_ref(), Ok(&reply));
    }
    let _ = Hello::decode(bytes);
    let _ = Welcome::decode(bytes);
    if let Ok(name) = std::str::from_utf8(bytes) {
        let _ = check_name(name);
    }
}
