//! Handlers in helper processes: what works, and what the server survives.

use std::collections::BTreeSet;
use std::path::Path;

use vernal_puddled_tests::Actor;
use vernal_rpc_tests::conformance::eventually;
use vernal_rpc_tests::world::{World, field};

/// The processes that were started as this program: what a helper is otherwise, nobody may look at.
fn processes(program: &Path) -> BTreeSet<u32> {
    let pids = std::fs::read_dir("/proc").expect("processes").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let runs = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).next() == Some(program.as_os_str().as_encoded_bytes())
    };
    pids.filter(runs).collect()
}

fn count(actor: &Actor, expected: usize) {
    eventually(&format!("{expected} processes of the server"), || {
        processes(&actor.program).len() == expected
    });
}

fn world() -> World {
    World::start(
        env!("CARGO_BIN_EXE_rpc-puddled"),
        env!("CARGO_BIN_EXE_rpc-actor"),
    )
}

#[test]
fn calls_work_as_without_a_sandbox() {
    let world = world();
    for (trust, threads) in [("process", 0), ("process-verify", 0), ("process", 2)] {
        let mut server: Actor = world.actor("server");
        server.ok(&format!("serve shop {trust} {threads}"));
        let mut client: Actor = world.actor("client");
        let conn = client.ok("connect shop verify adaptive");
        for len in [0, 1, 32, 33, 4096] {
            assert_eq!(client.ok(&format!("echo {conn} {len}")), "true");
        }
        for count in [1u64, 50, 200_000] {
            let sum = count * (count - 1) / 2;
            assert_eq!(
                client.ok(&format!("sum {conn} {count}")),
                format!("{count} {sum}")
            );
            let list = client.ok(&format!("list {conn} {count}"));
            assert_eq!(list, format!("{count} {sum} Copied"));
        }
        assert_eq!(client.ok(&format!("stream {conn} 500")), "500");
        // The channel's heap is the server's: a helper has it not.
        assert!(
            client
                .ask(&format!("shared {conn}"))
                .starts_with("err Remote")
        );
        let wild = client.ask(&format!("wild {conn} 0x1000 0"));
        assert!(wild.contains("err Remote bad argument"), "{wild}");
        assert_eq!(client.ok(&format!("sum {conn} 3")), "3 3");
        client.end();
        world.settled(1, 0, 0);
        assert_eq!(field(&server.ok("stats shop"), "corrupt"), 0);
        server.ok("shutdown shop");
        server.end();
        world.settled(0, 0, 0);
    }
}

/// A server, what it forks helpers from, and a helper for each client that has called: no more, and none that is left behind.
#[test]
fn helpers_end_with_their_client_and_with_their_server() {
    let world = world();
    let mut server: Actor = world.actor("server");
    server.ok("serve shop process 4");
    count(&server, 2);
    let mut clients: Vec<Actor> = (0..3)
        .map(|n| world.actor(&format!("client-{n}")))
        .collect();
    for client in &mut clients {
        let conn = client.ok("connect shop verify adaptive");
        for _ in 0..3 {
            assert_eq!(client.ok(&format!("sum {conn} 50")), "50 1225");
            client.ok(&format!("list {conn} 50"));
        }
    }
    count(&server, 5);
    // A helper that is killed from outside fails no call but the one that it ran: here there is none.
    let born = processes(&server.program);
    let helpers: Vec<u32> = born
        .into_iter()
        .filter(|pid| *pid != server.pid())
        .collect();
    let newest = helpers.last().copied().expect("helpers");
    let pid = rustix::process::Pid::from_raw(newest as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    let mut failed = 0;
    for client in &mut clients {
        failed += usize::from(!client.ask("sum 1 50").starts_with("ok"));
        assert_eq!(client.ok("sum 1 50"), "50 1225");
        assert!(client.ok("list 1 50").starts_with("50 1225"));
    }
    assert!(
        failed <= 1,
        "one helper was killed, {failed} calls have failed"
    );
    count(&server, 5);
    let first = clients.remove(0);
    first.end();
    count(&server, 4);
    // The next one dies while its handler runs without end: nobody waits any more.
    let mut next = clients.remove(0);
    next.send("linger 1");
    eventually("it runs", || field(&server.ok("stats shop"), "calls") >= 25);
    next.kill();
    count(&server, 3);
    // The server is killed while a handler runs.
    let mut last = clients.remove(0);
    last.send("linger 1");
    eventually("it runs", || field(&server.ok("stats shop"), "calls") >= 26);
    let program = server.program.clone();
    server.kill();
    assert!(last.answer().starts_with("err PeerDied"));
    drop(last);
    eventually("no helper outlives its server", || {
        processes(&program).is_empty()
    });
    world.settled(0, 0, 0);
}
