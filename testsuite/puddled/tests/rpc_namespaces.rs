//! Channels between containers: other users, other user, PID and mount namespaces, and nothing in common but puddled's socket.

use std::path::Path;
use std::process::Command;

use vernal_puddled_proto::ProcessInfo;
use vernal_puddled_tests::rpc::{MIN, assert_empty, wait_for, word};
use vernal_puddled_tests::{Actor, Place, USER_A, USER_B, need_root, spawn, until};

fn place() -> Place {
    Place::new(
        env!("CARGO_BIN_EXE_puddled-under-test"),
        env!("CARGO_BIN_EXE_puddled-actor"),
    )
}

/// A container: it sees itself as root with few processes, no /tmp of the host, and of puddled only the socket.
const CONTAINER: &str = r#"
set -e
mount -t tmpfs none /mnt
cp "$0" /mnt/program
touch /mnt/puddled.sock
mount --bind "$1" /mnt/puddled.sock
mount -t tmpfs none /tmp
mount -t proc proc /proc
test "$(id -u)" = 0
test ! -e "$1"
export VERNAL_PUDDLED=/mnt/puddled.sock
if [ $# = 1 ]; then set -- /mnt/puddled.sock; else shift; fi
exec /mnt/program "$@"
"#;

/// Whether this kernel lets an ordinary user make namespaces; says so when it does not.
fn need_namespaces(test: &str) -> bool {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--mount", "--fork"]);
    command.arg("true").uid(USER_B).gid(USER_B);
    let works = spawn(&mut command).wait().is_ok_and(|s| s.success());
    if !works {
        eprintln!("SKIPPED {test}: an ordinary user may make no namespaces here");
    }
    works
}

/// The program `from` in a container, with arguments of its own if there are any.
fn start(place: &Place, from: &str, words: &[&str], name: &str, uid: u32) -> Actor {
    let program = place.copy_of(Path::new(from), name);
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--pid", "--mount", "--fork"])
        .args(["--kill-child", "sh", "-c", CONTAINER])
        .arg(&program);
    if !words.is_empty() {
        command.arg(place.socket()).args(words);
    }
    place.run_command(command, program, Some(uid))
}

fn contained(place: &Place, name: &str, uid: u32) -> Actor {
    start(place, env!("CARGO_BIN_EXE_puddled-rpc"), &[], name, uid)
}

/// Connects `client` to the server's channel and shares memory both ways.
fn share(server: &mut Actor, client: &mut Actor) -> (String, String, String) {
    let conn = word(&client.ok("connect shop/stock"), 0);
    assert_eq!(word(&server.ok("accept"), 0), conn);
    let asked = client.ok(&format!("new conn {conn} {MIN}"));
    let answered = server.ok(&format!("new conn {conn} {MIN}"));
    client.ok(&format!("write {asked} 0 question"));
    server.ok(&format!("lease {asked}"));
    assert_eq!(server.ok(&format!("read {asked} 0 8")), "question");
    server.ok(&format!("write {answered} 0 answer"));
    client.ok(&format!("lease {answered}"));
    assert_eq!(client.ok(&format!("read {answered} 0 6")), "answer");
    client.ok(&format!("wake {conn} 1"));
    server.ok(&format!("woken {conn}"));
    server.ok(&format!("wake {conn} 1"));
    client.ok(&format!("woken {conn}"));
    assert_eq!(server.ok(&format!("attack {asked}")), "");
    assert_eq!(client.ok(&format!("attack {answered}")), "");
    (conn, asked, answered)
}

#[test]
fn containers_of_two_users_share_memory() {
    if !need_root("containers") || !need_namespaces("containers") {
        return;
    }
    let mut place = place();
    place.start();
    let mut server = contained(&place, "server", USER_A);
    server.ok("open shop/stock 0666");
    let mut client = contained(&place, "client", USER_B);
    let (conn, asked, _) = share(&mut server, &mut client);
    // puddled knows them by the users and processes that they are on the host, whatever they are to themselves.
    let conns = place.client().connections().unwrap();
    let [one] = conns.as_slice() else {
        panic!("{conns:?}");
    };
    let sides = [(one.server, USER_A, &server), (one.client, USER_B, &client)];
    for (side, user, actor) in sides {
        let ProcessInfo { pid, uid, .. } = side.unwrap();
        assert_eq!(uid, user);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        // The process is the child of the one that made the namespaces.
        assert!(status.contains(&format!("PPid:\t{}\n", actor.pid())));
        assert!(status.contains(&format!("NSpid:\t{pid}\t1\n")), "{status}");
    }
    // A container dies as a whole: the other side learns of it, and keeps what it has leased.
    client.kill();
    assert_eq!(server.ok(&format!("hangup {conn}")), "true");
    wait_for(&place, "no orphan", |s| s.orphans == 1);
    assert_eq!(server.ok(&format!("read {asked} 0 8")), "question");
    server.ok(&format!("drop {asked}"));
    server.kill();
    assert_empty(&place, &[USER_A, USER_B]);
}

#[test]
fn root_of_a_container_is_no_root_for_puddled() {
    if !need_root("root of a container") || !need_namespaces("root of a container") {
        return;
    }
    let mut place = place();
    place.start();
    let program = Path::new(env!("CARGO_BIN_EXE_puddled-rpc"));
    let mut host = place.run(program, "host", Some(USER_A));
    host.ok("open shop/private 0600");
    let channel = host.ok("open shop/stock 0666");
    let shared = host.ok(&format!("new channel {channel} {MIN}"));
    let mut client = contained(&place, "client", USER_B);
    client.refused("connect shop/private", "NotFound");
    client.refused(&format!("lease {shared}"), "NotFound");
    client.refused(&format!("quota {USER_A}"), "Access");
    client.refused(&format!("open shop/gift 0666 {USER_A}"), "Access");
    assert_eq!(client.ok("segments"), "");
    client.ok("connect shop/stock");
    client.ok(&format!("lease {shared}"));
    // It is root enough there to open the memory anew, if the file let it; the seals hold in any case.
    assert_eq!(client.ok(&format!("attack {shared}")), "");
    client.kill();
    host.end();
    assert_empty(&place, &[USER_A, USER_B]);
}

#[test]
fn programs_in_containers_call_each_other() {
    if !need_root("calls of containers") || !need_namespaces("calls of containers") {
        return;
    }
    let mut place = place();
    place.start();
    let program = env!("CARGO_BIN_EXE_puddled-rpc-program");
    let mut server = start(&place, program, &["serve", "box/shop"], "server", USER_A);
    let mut client = start(
        &place,
        program,
        &["call", "box/shop", "7"],
        "client",
        USER_B,
    );
    // Lists by pointer, and answers that are checked: it goes on until it is wrong.
    let mut calls = || -> u64 { client.ok("count").parse().expect("a number") };
    until("no calls", || calls() > 200);
    assert!(server.ok("count").parse::<u64>().unwrap() > 200);
    client.kill();
    server.kill();
    assert_empty(&place, &[USER_A, USER_B]);
}
