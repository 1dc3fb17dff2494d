//! Channels, connections and segments with real processes and users: sharing, access, quotas, a thousand connections.

mod common;

use common::{connected, place, rpc};
use std::os::unix::fs::PermissionsExt;
use vernal_puddled_proto::ErrorCode;
use vernal_puddled_proto::limits::MAX_CHANNELS_PER_USER;
use vernal_puddled_tests::rpc::{MIN, assert_empty, wait_for, word};
use vernal_puddled_tests::{USER_A, USER_B, need_root};

#[test]
fn two_users_share_memory_that_one_of_them_writes() {
    if !need_root("shared memory") {
        return;
    }
    let mut place = place();
    place.start();
    let mut server = rpc(&place, "server", Some(USER_A));
    let channel = server.ok("open shop/stock 0666");
    let mut client = rpc(&place, "client", Some(USER_B));
    let told = client.ok("connect shop/stock");
    assert_eq!(word(&told, 1), USER_A.to_string());
    assert_eq!(word(&told, 2), server.pid().to_string());
    let conn = word(&told, 0);
    assert_eq!(
        server.ok("accept"),
        format!("{conn} {USER_B} {}", client.pid())
    );
    // Each side's own memory, and the channel's.
    let ring = client.ok(&format!("new conn {conn} {MIN}"));
    let replies = server.ok(&format!("new conn {conn} {}", 2 * MIN));
    let shop = server.ok(&format!("new channel {channel} {MIN}"));
    client.ok(&format!("write {ring} 100 question"));
    server.ok(&format!("write {replies} {} answer", 2 * MIN - 6));
    server.ok(&format!("write {shop} 0 documents"));
    server.ok(&format!("lease {ring}"));
    client.ok(&format!("lease {replies}"));
    client.ok(&format!("lease {shop}"));
    assert_eq!(server.ok(&format!("read {ring} 99 10")), ".question.");
    assert_eq!(
        client.ok(&format!("read {replies} {} 6", 2 * MIN - 6)),
        "answer"
    );
    assert_eq!(client.ok(&format!("read {shop} 0 9")), "documents");
    // Later stores are seen too: it is the same memory.
    client.ok(&format!("write {ring} 100 QUESTION"));
    assert_eq!(server.ok(&format!("read {ring} 100 8")), "QUESTION");
    // Neither descriptor nor mapping lets anybody do more, the owner included; its one mapping was writable from the start.
    assert_eq!(server.ok(&format!("attack {ring}")), "");
    assert_eq!(client.ok(&format!("attack {replies}")), "");
    assert_eq!(client.ok(&format!("attack {shop}")), "");
    assert_eq!(client.ok(&format!("attack {ring}")), "mprotect");
    // Both wake each other; a full pipe is awake enough.
    client.ok(&format!("wake {conn} 1"));
    server.ok(&format!("woken {conn}"));
    assert_eq!(server.ok(&format!("wake {conn} 10000000")), "full");
    client.ok(&format!("woken {conn}"));
    assert_eq!(server.ok(&format!("alive {conn}")), "true");
    let status = place.client().rpc_status().unwrap();
    assert_eq!(
        (status.channels, status.connections, status.segments),
        (1, 1, 3)
    );
    assert_eq!((status.leases, status.orphans), (3, 0));
    assert_eq!(status.segment_bytes, 4 * MIN);
    assert_eq!(status.address_bytes, 4 * MIN);
    // Lists: each sees its own, root all, others nothing.
    assert_eq!(
        client.ok("channels"),
        format!("shop/stock:0666:1:{}", 4 * MIN)
    );
    assert_eq!(client.ok("conns"), format!("{conn}:true:true:2"));
    assert_eq!(client.ok("segments").split(' ').count(), 3);
    let mut other = rpc(&place, "other", Some(USER_B + 1));
    assert_eq!(other.ok("channels").split(' ').count(), 1);
    assert_eq!(other.ok("conns"), "");
    assert_eq!(other.ok("segments"), "");
    let mut root = place.client();
    assert_eq!(root.connections().unwrap().len(), 1);
    assert_eq!(root.segments().unwrap().len(), 3);
    drop(root);
    client.ok(&format!("drop {ring}"));
    client.ok(&format!("leave {conn}"));
    assert_eq!(server.ok(&format!("hangup {conn}")), "true");
    client.end();
    server.end();
    other.end();
    assert_empty(&place, &[USER_A, USER_B]);
}

#[test]
fn who_may_connect_and_who_may_see() {
    if !need_root("access to channels") {
        return;
    }
    let mut place = place();
    place.start();
    let mut a = rpc(&place, "a", Some(USER_A));
    let mut b = rpc(&place, "b", Some(USER_B));
    let mut root = rpc(&place, "root", None);
    a.ok("open a/private 0600");
    a.ok("open a/seen 0644");
    a.ok("open a/public 0666");
    a.ok("open a/group 0660");
    b.refused("connect a/private", "NotFound");
    b.refused("connect a/none", "NotFound");
    b.refused("connect a/group", "NotFound");
    let text = b.refused("connect a/seen", "Access");
    assert!(text.contains("0644") && text.contains("a/seen"), "{text}");
    b.ok("connect a/public");
    let names = |list: String| -> Vec<String> {
        let name = |entry: &str| entry.split(':').next().unwrap_or_default().to_owned();
        list.split(' ').map(name).collect()
    };
    assert_eq!(names(b.ok("channels")), ["a/public", "a/seen"]);
    assert_eq!(names(root.ok("channels")).len(), 4);
    root.ok("connect a/private");
    // A channel of root's for the group of user B.
    root.ok(&format!("open root/for-b 0060 0 {USER_B}"));
    b.ok("connect root/for-b");
    a.refused("connect root/for-b", "NotFound");
    a.refused(&format!("open a/gift 0666 {USER_B}"), "Access");
    a.refused(&format!("open a/gift 0666 {USER_A} {USER_B}"), "Access");
    // Its own channel, over the same connection to puddled: that would be both sides at once.
    a.refused("connect a/public", "Invalid");
    // Names and modes that are none never leave the client.
    for bad in ["open a//b 0666", "open ../x 0666", "open x 0777"] {
        assert!(a.ask(bad).starts_with("err Client"), "{bad}");
    }
    b.refused("open a/public 0666", "Exists");
    // One user's limit is not another's.
    for i in 4..MAX_CHANNELS_PER_USER {
        a.ok(&format!("open many/{i} 0600"));
    }
    a.refused("open many/more 0600", "Limit");
    b.ok("open b/own 0600");
}

#[test]
fn quotas_count_what_a_user_owns_and_maps() {
    if !need_root("quotas of segments") {
        return;
    }
    let mut place = place();
    place.args = vec!["--quota-default".into(), "8M".into()];
    place.start();
    let (mut server, mut client, conn) = connected(&place, Some(USER_A), Some(USER_B));
    let one = client.ok(&format!("new conn {conn} {}", 2 * MIN));
    let two = client.ok(&format!("new conn {conn} {}", 2 * MIN));
    let text = client.refused(&format!("make conn {conn} {MIN}"), "Quota");
    assert!(
        text.contains("8388608") && text.contains("2097152"),
        "{text}"
    );
    // Who maps pays as well, once for all of its processes.
    server.ok(&format!("lease {one}"));
    assert_eq!(server.ok(&format!("lease {one}")), "again");
    assert_eq!(server.ok(&format!("quota {USER_A}")), (2 * MIN).to_string());
    let replies = server.ok(&format!("new conn {conn} {MIN}"));
    server.refused(&format!("lease {two}"), "Quota");
    client.refused(&format!("lease {replies}"), "Quota");
    let mut tool = rpc(&place, "tool", Some(USER_A));
    tool.ok(&format!("lease {replies}"));
    assert_eq!(server.ok(&format!("quota {USER_A}")), (3 * MIN).to_string());
    server.ok(&format!("drop {replies}"));
    // The tool keeps it, and the user pays for it.
    assert_eq!(tool.ok(&format!("quota {USER_A}")), (3 * MIN).to_string());
    server.refused(&format!("lease {two}"), "Quota");
    tool.end();
    wait_for(&place, "the tool's lease", |s| s.segments == 2);
    server.ok(&format!("lease {two}"));
    // A pool counts on the same account.
    let mut pools = place.actor("pools", Some(USER_A));
    pools.refused("create p 0600", "Quota");
    server.ok(&format!("drop {two}"));
    pools.ok("create p 0600");
    pools.ok("remove p");
    // Another user's quota is its own, and root has none.
    place.client().set_quota(USER_B, Some(16 << 20)).unwrap();
    client.ok(&format!("new conn {conn} {}", 4 * MIN));
    client.kill();
    server.kill();
    pools.end();
    assert_empty(&place, &[USER_A, USER_B]);
}

#[test]
fn a_thousand_connections() {
    let mut place = place();
    place.start();
    let mut server = rpc(&place, "server", None);
    server.ok("open shop 0600");
    let mut client = rpc(&place, "client", None);
    server.send(&format!("serve 1000 {MIN}"));
    client.send(&format!("many shop 1000 {MIN}"));
    assert_eq!(client.answer(), "ok 1000");
    assert_eq!(server.answer(), "ok 1000");
    let status = place.client().rpc_status().unwrap();
    assert_eq!((status.connections, status.segments), (1000, 2000));
    assert_eq!(status.address_bytes, 2000 * MIN);
    let mut root = place.client();
    let conns = root.connections().unwrap();
    assert_eq!(conns.len(), 1000);
    assert!(conns.is_sorted_by(|a, b| a.conn < b.conn));
    let segments = root.segments().unwrap();
    let mut places: Vec<u64> = segments.iter().map(|s| s.info.addr).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 2000);
    let last = conns[999].conn;
    client.kill();
    assert_eq!(server.ok(&format!("hangup {last}")), "true");
    wait_for(&place, "the client's segments", |s| s.segments == 1000);
    server.kill();
    assert_empty(&place, &[]);
}

#[test]
fn errors_carry_their_code() {
    let mut place = place();
    place.start();
    let mut client = place.client();
    let e = client.connect_to("nobody/here").unwrap_err();
    assert_eq!(e.code(), Some(ErrorCode::NotFound));
    assert!(e.to_string().contains("vernal rpc ls"), "{e}");
    assert!(client.rpc_status().unwrap().refused >= 1);
}

/// puddled as an ordinary user, as its service runs: what it hands out is for users that it is not.
#[test]
fn an_unprivileged_puddled_serves_other_users() {
    if !need_root("an unprivileged puddled") {
        return;
    }
    let mut place = place();
    let wrapper = place.dir().join("puddled");
    let user = USER_B + 7;
    let puddled = env!("CARGO_BIN_EXE_puddled-under-test");
    let text = format!(
        "#!/bin/sh\nexec setpriv --reuid={user} --regid={user} --clear-groups {puddled:?} \"$@\"\n"
    );
    std::fs::write(&wrapper, text).unwrap();
    let all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(&wrapper, all.clone()).unwrap();
    std::fs::set_permissions(place.dir(), all).unwrap();
    place.set_puddled(&wrapper);
    place.start();
    let (mut server, mut client, conn) = connected(&place, Some(USER_A), Some(USER_B));
    let ring = client.ok(&format!("new conn {conn} {MIN}"));
    client.ok(&format!("write {ring} 0 question"));
    server.ok(&format!("lease {ring}"));
    assert_eq!(server.ok(&format!("read {ring} 0 8")), "question");
    assert_eq!(server.ok(&format!("attack {ring}")), "");
    client.kill();
    assert_eq!(server.ok(&format!("hangup {conn}")), "true");
    server.end();
    assert_empty(&place, &[USER_A, USER_B]);
}
