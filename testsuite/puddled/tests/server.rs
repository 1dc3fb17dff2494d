//! Many clients, many pools, hostile messages, quotas, damage, a second puddled.

use std::io::{IoSlice, Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, sendmsg, socket_with,
};
use vernal_puddled_client::Client;
use vernal_puddled_proto::limits::MAX_FRAME;
use vernal_puddled_proto::{
    Access, Condition, ErrorCode, Hello, PoolKind, Request, VERSION_MAX, Welcome,
};
use vernal_puddled_tests::{Place, USER_A, USER_B, need_root, until};

fn place() -> Place {
    Place::new(
        env!("CARGO_BIN_EXE_puddled-under-test"),
        env!("CARGO_BIN_EXE_puddled-actor"),
    )
}

const MIB: u64 = 1 << 20;

#[test]
fn quotas_count_what_a_user_owns() {
    if !need_root("quotas") {
        return;
    }
    let mut place = place();
    place.args = vec!["--quota-default".into(), "8M".into()];
    place.start();
    let mut a = place.actor("a", Some(USER_A));
    a.ok("create one 0600");
    a.ok("create two 0600 buffered 4194304");
    let text = a.refused("create three 0600 buffered 4194304", "Quota");
    assert!(
        text.contains("8388608") && text.contains("6291456"),
        "{text}"
    );
    a.ok("open one w");
    a.ok("grow one 2097152");
    a.refused("grow one 2097152", "Quota");
    a.refused(&format!("set_quota {USER_A} 99999999"), "Access");
    a.refused(&format!("quota {USER_B}"), "Access");
    assert_eq!(a.ok(&format!("quota {USER_A}")), "(8388608, Some(8388608))");
    // Another user has its own, and root any.
    let mut b = place.actor("b", Some(USER_B));
    b.ok("create bs 0600");
    let mut root = place.client();
    root.create("roots", 0o600, PoolKind::Buffered, 64 * MIB)
        .unwrap();
    root.set_quota(USER_A, Some(10 * MIB)).unwrap();
    a.ok("grow one 2097152");
    a.refused("import four 2097152", "Quota");
    // Giving a pool away must fit the receiver's quota; a user cannot give any away.
    b.refused(&format!("chown bs {USER_A}"), "Access");
    let refused = root.chown("bs", Some(USER_A), None).unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Quota));
    root.set_quota(USER_A, Some(20 * MIB)).unwrap();
    root.chown("bs", Some(USER_A), None).unwrap();
    assert_eq!(root.quota(USER_B).unwrap().0, 0);
    // The uncommitted growth goes, and with it its share; quotas outlive puddled.
    a.end();
    b.end();
    drop(root);
    place.wait_settled();
    place.stop();
    place.assert_tidy();
    place.start();
    assert_eq!(
        place.client().quota(USER_A).unwrap(),
        (8 * MIB, Some(20 * MIB))
    );
}

#[test]
fn damaged_pools_are_named_and_the_others_served() {
    let mut place = place();
    place.start();
    let mut client = place.client();
    for name in ["fine", "missing", "short", "meta"] {
        client.create(name, 0o600, PoolKind::Buffered, 0).unwrap();
    }
    let root = |client: &mut Client, name: &str| {
        let id = client.stat(name).unwrap().0.id;
        place.layout().pool(id).join("root.puddle")
    };
    let (missing, short) = (root(&mut client, "missing"), root(&mut client, "short"));
    let meta = root(&mut client, "meta").with_extension("puddle.vernal");
    drop(client);
    place.stop();
    let saved = place.dir().join("saved");
    std::fs::rename(&missing, &saved).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&short)
        .unwrap()
        .set_len(4096)
        .unwrap();
    std::fs::write(&meta, "no metadata").unwrap();
    place.start();
    let mut client = place.client();
    client.open("fine", Access::Write).unwrap();
    for (name, file) in [("missing", &missing), ("short", &short), ("meta", &meta)] {
        let e = client.open(name, Access::Read).unwrap_err();
        assert_eq!(e.code(), Some(ErrorCode::Damaged), "{e}");
        assert!(e.to_string().contains(&file.display().to_string()), "{e}");
        let (stat, _) = client.stat(name).unwrap();
        assert!(
            matches!(stat.condition, Condition::Damaged { .. }),
            "{stat:?}"
        );
    }
    assert!(
        client
            .metrics()
            .unwrap()
            .contains("puddled_pools_damaged 3")
    );
    // Put back, it is fine again; what cannot be put back can be removed.
    std::fs::rename(&saved, &missing).unwrap();
    client.open("missing", Access::Read).unwrap();
    client.remove("short").unwrap();
    client.remove("meta").unwrap();
}

#[test]
fn a_second_puddled_is_refused_by_name() {
    let mut place = place();
    place.start();
    let mut second = place.command();
    let output = second.stderr(Stdio::piped()).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&place.pid().to_string()), "{text}");
    // Another data directory, the same socket: refused as well, and the socket is still there.
    let mut third = place.command();
    let other = place.dir().join("other");
    let output = third
        .arg("--data")
        .arg(&other)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(!output.status.success());
    place.client().status().unwrap();
}

fn raw(place: &Place) -> OwnedFd {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    connect(&socket, &SocketAddrUnix::new(place.socket()).unwrap()).unwrap();
    socket
}

fn send(socket: &OwnedFd, packet: &[u8]) -> bool {
    let mut none = SendAncillaryBuffer::default();
    sendmsg(
        socket,
        &[IoSlice::new(packet)],
        &mut none,
        SendFlags::NOSIGNAL,
    )
    .is_ok()
}

fn receive(socket: &OwnedFd) -> Vec<u8> {
    let mut buf = vec![0; MAX_FRAME];
    let (len, _) =
        rustix::net::recv(socket, &mut buf[..], rustix::net::RecvFlags::empty()).unwrap_or((0, 0));
    buf.truncate(len);
    buf
}

#[test]
fn hostile_messages_end_their_own_connection_only() {
    let mut place = place();
    place.start();
    let mut witness = place.client();
    // Garbage instead of Hello; an empty Hello; too large a message.
    for packet in [vec![0xff; 100], vec![0], vec![0; MAX_FRAME + 1]] {
        let socket = raw(&place);
        send(&socket, &packet);
        let answer = receive(&socket);
        if !answer.is_empty() {
            assert!(Welcome::decode(&answer).unwrap().is_err());
            assert!(receive(&socket).is_empty(), "closed after the refusal");
        }
    }
    // A version of the future is named.
    let socket = raw(&place);
    let future = Hello {
        min: 40,
        max: 41,
        client: "x".into(),
    };
    send(&socket, &future.encode().unwrap());
    let refusal = Welcome::decode(&receive(&socket)).unwrap().unwrap_err();
    assert!(refusal.text.contains("40 to 41"), "{refusal}");
    // After Hello: random bytes, from a fixed seed.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    println!("seed {seed:#x}");
    for _ in 0..200 {
        let socket = raw(&place);
        send(&socket, &Hello::new("fuzz").encode().unwrap());
        receive(&socket);
        let mut packet = vec![VERSION_MAX];
        for _ in 0..seed % 64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            packet.push((seed >> 56) as u8);
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        send(&socket, &packet);
        assert!(!receive(&socket).is_empty(), "a reply or a refusal");
    }
    // A connection that never says Hello, and one that never reads, hinder nobody.
    let silent = raw(&place);
    let deaf = raw(&place);
    send(&deaf, &Hello::new("deaf").encode().unwrap());
    let status = Request::Metrics.encode(VERSION_MAX).unwrap();
    rustix::fs::fcntl_setfl(&deaf, rustix::fs::OFlags::NONBLOCK).unwrap();
    let mut sent = 0;
    while sent < 10_000 && send(&deaf, &status) {
        sent += 1;
    }
    assert!(sent < 10_000, "the kernel's buffers are bounded");
    for i in 0..50 {
        let name = format!("pool{i}");
        witness.create(&name, 0o600, PoolKind::Buffered, 0).unwrap();
    }
    drop(silent);
    drop(deaf);
    let metrics = witness.metrics().unwrap();
    assert!(
        !metrics.contains("puddled_protocol_errors_total 0\n"),
        "{metrics}"
    );
}

#[test]
fn a_thousand_clients() {
    let mut place = place();
    place.start();
    let mut first = place.client();
    first
        .create("shared", 0o600, PoolKind::Buffered, 0)
        .unwrap();
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit {
            current: Some(4096),
            maximum: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
        },
    )
    .unwrap();
    let mut clients: Vec<Client> = (0..1000).map(|_| place.client()).collect();
    let mut open = Vec::new();
    for client in &mut clients {
        open.push(client.open("shared", Access::Read).unwrap());
    }
    // The connection that saw puddled come up may still be on its way out.
    until("a thousand clients and one", || {
        first.status().unwrap().clients == 1001
    });
    let e = first.open("shared", Access::Write).unwrap_err();
    assert_eq!(e.code(), Some(ErrorCode::Busy));
    drop(open);
    drop(clients);
    place.wait_settled_with(2);
    first.open("shared", Access::Write).unwrap();
}

fn many_pools(count: usize) {
    let mut place = place();
    place.start();
    let mut clients: Vec<Client> = (0..8).map(|_| place.client()).collect();
    std::thread::scope(|scope| {
        let per = count / clients.len();
        for (t, client) in clients.iter_mut().enumerate() {
            scope.spawn(move || {
                for i in 0..per {
                    let name = format!("pool-{t}-{i:05}");
                    client.create(&name, 0o600, PoolKind::Buffered, 0).unwrap();
                }
            });
        }
    });
    let listed = clients[0].list().unwrap();
    assert_eq!(listed.len(), count);
    assert!(listed.is_sorted_by(|a, b| a.name < b.name));
    let mut places: Vec<u64> = Vec::with_capacity(count);
    for pool in listed.iter().step_by(97) {
        places.push(clients[1].stat(&pool.name).unwrap().1[0].addr);
    }
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), count.div_ceil(97), "addresses are unique");
    drop(clients);
    let began = std::time::Instant::now();
    place.kill();
    place.start();
    eprintln!("{count} pools: started in {:?}", began.elapsed());
    let mut client = place.client();
    assert_eq!(client.status().unwrap().pools, count as u64);
    client.open("pool-3-00007", Access::Write).unwrap();
    drop(client);
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}

#[test]
fn two_thousand_pools() {
    many_pools(2000);
}

#[test]
#[ignore = "takes minutes and 20 GiB of disk"]
fn ten_thousand_pools() {
    many_pools(10_000);
}

#[test]
fn metrics_over_http() {
    let mut place = place();
    let socket = place.dir().join("metrics");
    place.args = vec!["--metrics".into(), socket.display().to_string()];
    place.start();
    for (path, status) in [("/metrics", "200"), ("/", "200"), ("/x", "404")] {
        let mut http = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        write!(http, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        http.read_to_string(&mut text).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
        assert_eq!(
            text.contains("# TYPE puddled_pools gauge\npuddled_pools 0\n"),
            status == "200"
        );
    }
}

#[test]
fn lists_show_what_may_be_seen() {
    if !need_root("lists") {
        return;
    }
    let mut place = place();
    place.start();
    let mut a = place.actor("a", Some(USER_A));
    a.ok("create open-to-all 0644");
    a.ok("create private 0600");
    a.refused("create private 0600", "Exists");
    let mut b = place.actor("b", Some(USER_B));
    b.ok("create bs 0600");
    assert_eq!(a.ok("list"), "open-to-all private");
    assert_eq!(b.ok("list"), "bs open-to-all");
    b.refused("stat private", "NotFound");
    b.refused("remove open-to-all", "Access");
    b.refused("set_mode open-to-all 0666", "Access");
    a.ok("set_mode open-to-all 0600");
    assert_eq!(b.ok("list"), "bs");
    let mut root = place.client();
    let all: Vec<String> = root.list().unwrap().into_iter().map(|p| p.name).collect();
    assert_eq!(all, ["bs", "open-to-all", "private"]);
    let e = root
        .create("x/y", 0o600, PoolKind::Buffered, 0)
        .unwrap_err();
    assert!(e.to_string().contains("x/y"), "{e}");
}

#[test]
fn an_import_is_seen_whole_or_not_at_all() {
    let mut place = place();
    place.start();
    let mut a = place.actor("a", None);
    a.ok("import one 2097152 2097152");
    let mut other = place.client();
    assert!(other.list().unwrap().is_empty());
    assert_eq!(
        other.open("one", Access::Read).unwrap_err().code(),
        Some(ErrorCode::NotFound)
    );
    a.refused("finish-open", "Busy");
    a.ok("finish");
    assert_eq!(other.open("one", Access::Read).unwrap().puddles.len(), 2);
    a.ok("import two 2097152");
    a.ok("abort");
    a.ok("import three 2097152");
    a.kill();
    place.wait_settled_with(2);
    assert_eq!(other.list().unwrap().len(), 1);
    // Zeros are no pool.
    let import = other
        .import_begin("zero", 0o600, PoolKind::Buffered, &[2 * MIB], true)
        .unwrap();
    let id = import.id;
    drop(import);
    let e = other.import_finish(id).unwrap_err();
    assert_eq!(e.code(), Some(ErrorCode::Invalid), "{e}");
    let pool = other.list().unwrap()[0].id;
    other.close(pool).unwrap();
    // A clone has the same bytes under other identities, and both are open together.
    let mut b = place.actor("b", None);
    b.ok("clone one copy");
    b.ok("finish");
    b.ok("open one r");
    b.ok("open copy r");
    b.end();
    drop(other);
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}

#[test]
fn a_passed_socket_is_used_and_left() {
    let place = place();
    let at = place.socket();
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(&at).unwrap()).unwrap();
    rustix::net::listen(&socket, 16).unwrap();
    // As a service manager does it: descriptor 3, and the process that it is meant for.
    let script =
        "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" --data \"$1\" --json-logs 3<&0 </dev/null";
    let mut child = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_puddled-under-test")])
        .arg(place.layout().data())
        .stdin(Stdio::from(socket))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The connection waits in the socket's queue until puddled is up.
    let mut client = place.client();
    let status = client.status().unwrap();
    assert_eq!(status.pid, child.id());
    drop(client);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert!(at.exists(), "the socket belongs to the service manager");
    let up = log.lines().find(|l| l.contains("puddled is up")).unwrap();
    assert!(up.starts_with('{') && up.contains("\"pools\":0"), "{up}");
}

#[test]
#[ignore = "prints times, checks nothing"]
fn latencies() {
    let mut place = place();
    place.start();
    let mut client = place.client();
    let mut times: std::collections::BTreeMap<&str, Vec<std::time::Duration>> = Default::default();
    let mut add = |what, began: std::time::Instant| {
        times.entry(what).or_default().push(began.elapsed());
    };
    let now = std::time::Instant::now;
    for i in 0..50 {
        let name = format!("pool{i}");
        let began = now();
        client.status().unwrap();
        add("status", began);
        let began = now();
        let pool = client
            .create(&name, 0o600, PoolKind::Buffered, 0)
            .unwrap()
            .id;
        add("create", began);
        let began = now();
        drop(client.open(&name, Access::Read).unwrap());
        add("open for reading", began);
        client.close(pool).unwrap();
        let began = now();
        let open = client.open(&name, Access::Write).unwrap();
        add("open for writing", began);
        let began = now();
        let grown = client.grow(pool, 0).unwrap();
        add("grow", began);
        drop((open, grown));
        let began = now();
        client.close(pool).unwrap();
        add("close", began);
        let began = now();
        client.remove(&name).unwrap();
        add("remove", began);
    }
    for (what, mut all) in times {
        all.sort_unstable();
        println!("{what}: median {:?}", all[all.len() / 2]);
    }
}
