//! Handlers in helper processes: what works, and what the server survives.

use vernal_puddled_tests::Actor;
use vernal_rpc_tests::world::{World, field};

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
