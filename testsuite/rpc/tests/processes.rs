//! Two processes and a real puddled: objects by pointer, both ways, in heaps that grow; what dies, restarts, or sleeps.

use std::process::{Command, Stdio};

use vernal_puddled_tests::Actor;
use vernal_rpc_tests::conformance::eventually;
use vernal_rpc_tests::world::{World, field};

fn world() -> World {
    World::start(
        env!("CARGO_BIN_EXE_rpc-puddled"),
        env!("CARGO_BIN_EXE_rpc-actor"),
    )
}

fn pair(world: &World, trust: &str) -> (Actor, Actor) {
    let mut server = world.actor("server");
    server.ok(&format!("serve shop/stock {trust} 0"));
    let client = world.actor("client");
    (server, client)
}

#[test]
fn objects_travel_both_ways() {
    let world = world();
    for trust in ["verify", "plain"] {
        let (mut server, mut client) = pair(&world, trust);
        for wait in ["adaptive", "block", "spin"] {
            let conn = client.ok(&format!("connect shop/stock {trust} {wait}"));
            assert_eq!(client.ok(&format!("echo {conn} 3000")), "true");
            let passed = if trust == "plain" { "Plain" } else { "Copied" };
            for count in [1u64, 2, 100, 3000] {
                let sum = count * (count - 1) / 2;
                assert_eq!(
                    client.ok(&format!("sum {conn} {count}")),
                    format!("{count} {sum}")
                );
                assert_eq!(
                    client.ok(&format!("list {conn} {count}")),
                    format!("{count} {sum} {passed}")
                );
            }
            assert_eq!(
                client.ok(&format!("shared {conn}")),
                format!("100 4950 {passed}")
            );
            assert_eq!(client.ok(&format!("stream {conn} 1000")), "1000");
            client.ok(&format!("close {conn}"));
        }
        eventually("the objects of replies are freed", || {
            field(&server.ok("stats shop/stock"), "freed") == 12
        });
        client.end();
        server.ok("shutdown shop/stock");
        server.end();
        world.settled(0, 0, 0);
    }
}

#[test]
fn heaps_grow_while_they_are_shared() {
    let world = world();
    let (mut server, mut client) = pair(&world, "verify");
    let conn = client.ok("connect shop/stock verify adaptive");
    for count in [10u64, 200_000, 300_000] {
        let sum = count * (count - 1) / 2;
        assert_eq!(
            client.ok(&format!("sum {conn} {count}")),
            format!("{count} {sum}")
        );
        assert_eq!(
            client.ok(&format!("list {conn} {count}")),
            format!("{count} {sum} Copied")
        );
    }
    assert!(world.status().segments > 6, "{:?}", world.status());
    client.end();
    server.ok("shutdown shop/stock");
    server.end();
    world.settled(0, 0, 0);
}

#[test]
fn wild_arguments_are_refused_and_change_nothing() {
    let world = world();
    let (mut server, mut client) = pair(&world, "verify");
    let conn = client.ok("connect shop/stock verify adaptive");
    client.ok(&format!("sum {conn} 10"));
    let wild = [
        "0",
        "1",
        "8",
        "0x4141414141414141",
        "0xffffffffffffffff",
        "0xfffffffffffffff8",
        "0x578000000000",
        "0x578000000008",
        "0x578000001000",
        "0x578000200000",
        "0x5780003ffff8",
        "0x578000400000",
        "0x57c000000000",
        "0x580000000000",
        "0x7ffff7000000",
    ];
    for addr in wild {
        let answer = client.ask(&format!("wild {conn} {addr} 0"));
        assert!(
            answer.starts_with("err Remote bad argument"),
            "{addr}: {answer}"
        );
        let answer = client.ask(&format!("wild {conn} {addr} 0x1234"));
        assert!(
            answer.starts_with("err Remote bad argument"),
            "{addr}: {answer}"
        );
    }
    assert_eq!(client.ok(&format!("sum {conn} 10")), "10 45");
    let answer = client.ok(&format!("tamper {conn} 500 1500"));
    assert!(answer.starts_with("500 "), "{answer}");
    assert_eq!(field(&server.ok("stats shop/stock"), "corrupt"), 0);
}

#[test]
fn a_name_has_one_live_server_and_is_free_when_it_dies() {
    let world = world();
    let (server, mut client) = pair(&world, "verify");
    let mut second = world.actor("second");
    second.refused("serve shop/stock verify 0", "Taken");
    let conn = client.ok("connect shop/stock verify adaptive");
    client.ok(&format!("sum {conn} 10"));
    server.kill();
    second.ok("serve shop/stock verify 0");
    client.refused(&format!("echo {conn} 1"), "PeerDied");
    client.ok(&format!("close {conn}"));
    let conn = client.ok("connect shop/stock verify adaptive");
    assert_eq!(client.ok(&format!("sum {conn} 10")), "10 45");
    client.refused("connect shop/nothing verify adaptive", "NotFound");
}

#[test]
fn calls_that_wait_learn_of_a_death() {
    let world = world();
    for (wait, threads) in [("adaptive", 0), ("block", 1), ("spin", 0)] {
        let mut server = world.actor("server");
        server.ok(&format!("serve shop verify {threads}"));
        let mut client = world.actor("client");
        let conn = client.ok(&format!("connect shop verify {wait}"));
        client.ok(&format!("echo {conn} 1"));
        client.send(&format!("linger {conn}"));
        eventually("the handler runs", || {
            field(&server.ok("stats shop"), "calls") == 2
        });
        server.kill();
        let answer = client.answer();
        assert!(answer.starts_with("err PeerDied"), "{wait}: {answer}");
        client.end();
        world.settled(0, 0, 0);
    }
}

#[test]
fn a_client_that_dies_leaves_nothing() {
    let world = world();
    let mut server = world.actor("server");
    server.ok("serve shop verify 1");
    for _ in 0..5 {
        let mut client = world.actor("client");
        let conn = client.ok("connect shop verify adaptive");
        client.ok(&format!("list {conn} 100"));
        client.ok(&format!("sum {conn} 100"));
        client.send(&format!("linger {conn}"));
        eventually("the handler runs", || {
            field(&server.ok("stats shop"), "clients") == 1
        });
        client.kill();
        eventually("the server sees it", || {
            field(&server.ok("stats shop"), "clients") == 0
        });
        world.settled(1, 0, 0);
    }
    assert_eq!(field(&server.ok("stats shop"), "corrupt"), 0);
}

#[test]
fn connections_live_on_without_puddled_and_names_come_back() {
    let mut world = world();
    let (mut server, mut client) = pair(&world, "verify");
    let conn = client.ok("connect shop/stock verify adaptive");
    assert_eq!(client.ok(&format!("sum {conn} 10")), "10 45");
    assert_eq!(client.ok(&format!("list {conn} 20")), "20 190 Copied");
    world.place.kill();
    assert_eq!(client.ok(&format!("sum {conn} 20")), "20 190");
    assert_eq!(client.ok(&format!("list {conn} 20")), "20 190 Copied");
    world.place.start();
    eventually("the name is back", || world.status().channels == 1);
    let mut late = world.actor("late");
    let second = late.ok("connect shop/stock verify adaptive");
    assert_eq!(late.ok(&format!("sum {second} 10")), "10 45");
    assert_eq!(client.ok(&format!("sum {conn} 20")), "20 190");
    late.end();
    client.end();
    server.ok("shutdown shop/stock");
    server.end();
    world.settled(0, 0, 0);
}

/// Processor time of a process so far, in clock ticks.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let mut words = rest.split_whitespace().skip(11);
    let mut next = || {
        words
            .next()
            .and_then(|w| w.parse::<u64>().ok())
            .unwrap_or(0)
    };
    next() + next()
}

#[test]
fn an_idle_server_sleeps() {
    let world = world();
    let (mut server, mut client) = pair(&world, "verify");
    let conns: Vec<String> = (0..3)
        .map(|_| client.ok("connect shop/stock verify adaptive"))
        .collect();
    for conn in &conns {
        client.ok(&format!("echo {conn} 100"));
    }
    // Its sleeps stop growing and it takes no time, from some moment on.
    eventually("nothing wakes it", || {
        let sleeps = |server: &mut Actor| field(&server.ok("stats shop/stock"), "sleeps");
        let (slept, spent) = (sleeps(&mut server), ticks(server.pid()));
        std::thread::sleep(std::time::Duration::from_millis(500));
        let spent = ticks(server.pid()) - spent;
        let woken = sleeps(&mut server) - slept;
        slept > 0 && woken <= 1 && spent <= 1
    });
    for conn in &conns {
        assert_eq!(client.ok(&format!("echo {conn} 100")), "true");
    }
}

/// With the environment asking for it, each call and each handler is a line: who, what, how it was passed, how it ended.
#[test]
fn calls_and_handlers_are_traced() {
    let world = world();
    let log = |name: &str| world.place.dir().join(format!("{name}.trace"));
    let traced = |name: &str| {
        let actor = std::path::Path::new(env!("CARGO_BIN_EXE_rpc-actor"));
        let program = world.place.copy_of(actor, name);
        let mut command = Command::new(&program);
        let file = std::fs::File::create(log(name)).expect("a file");
        command
            .env("VERNAL_RPC_TRACE", "1")
            .stderr(Stdio::from(file));
        world.place.run_command(command, program, None)
    };
    let (mut server, mut client) = (traced("server"), traced("client"));
    let (server_pid, client_pid) = (server.pid(), client.pid());
    server.ok("serve shop/stock verify 0");
    let conn = client.ok("connect shop/stock verify block");
    assert_eq!(client.ok(&format!("echo {conn} 40")), "true");
    assert_eq!(client.ok(&format!("sum {conn} 10")), "10 45");
    client.ask(&format!("wild {conn} 8 0"));
    client.end();
    server.ok("shutdown shop/stock");
    server.end();
    let lines = |name: &str, span: &str| -> Vec<String> {
        let text = std::fs::read_to_string(log(name)).expect("a trace");
        let lines = text.lines().filter(|line| line.starts_with(span));
        lines.map(str::to_owned).collect()
    };
    let all_in = |line: &str, parts: &[&str]| parts.iter().all(|part| line.contains(part));
    let calls = lines("client", "rpc.call ");
    let peer = format!("(pid {server_pid})");
    let has = |lines: &[String], parts: &[&str]| lines.iter().any(|line| all_in(line, parts));
    for parts in [
        [" method=1 ", " passed=Inline ", " outcome=\"ok\" "],
        [" method=2 ", " object=", " outcome=\"ok\" "],
        [" method=2 ", " object=8 ", "bad argument"],
    ] {
        assert!(has(&calls, &parts), "{parts:?}: {calls:#?}");
    }
    assert!(
        calls.iter().all(|line| all_in(line, &[&peer, " took="])),
        "{calls:#?}"
    );
    let served = lines("server", "rpc.serve ");
    let pid = format!(" pid={client_pid} ");
    for parts in [
        [" method=1 ", " passed=Inline ", " outcome=Reply "],
        [" method=2 ", " passed=Copied ", " outcome=Reply "],
        [" method=2 ", " object=8 ", "bad argument"],
    ] {
        assert!(has(&served, &parts), "{parts:?}: {served:#?}");
    }
    assert!(
        served
            .iter()
            .all(|line| all_in(line, &[&pid, " uid=", " took="])),
        "{served:#?}"
    );
    assert_eq!(calls.len(), served.len());
    world.settled(0, 0, 0);
}
