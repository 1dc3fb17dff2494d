//! Packets between puddled and its clients.

use vernal_puddled_proto::{
    Announce, Hello, Reply, Request, VERSION_MAX, VERSION_MIN, Welcome, check_channel_name,
    check_name,
};

/// The same bytes as every kind of packet, of the version that they claim, or of the newest one.
pub(crate) fn packets(bytes: &[u8]) {
    let version = match bytes.first() {
        Some(&claimed) if (VERSION_MIN..=VERSION_MAX).contains(&claimed) => claimed,
        _ => VERSION_MAX,
    };
    match Request::decode(version, bytes) {
        Ok(request) => {
            let again = request.encode(version).expect("it was accepted");
            assert_eq!(Request::decode(version, &again).as_ref(), Ok(&request));
        }
        Err(e) => drop(e.to_string()),
    }
    if let Ok(reply) = Reply::decode(version, bytes) {
        let again = reply.encode(version).expect("it was accepted");
        assert_eq!(Reply::decode(version, &again).as_ref(), Ok(&reply));
    }
    if let Ok(announce) = Announce::decode(version, bytes) {
        let again = announce.encode(version).expect("it was accepted");
        assert_eq!(Announce::decode(version, &again).as_ref(), Ok(&announce));
    }
    let _ = Hello::decode(bytes);
    let _ = Welcome::decode(bytes);
    if let Ok(name) = std::str::from_utf8(bytes) {
        let _ = check_name(name);
        let _ = check_channel_name(name);
    }
}
