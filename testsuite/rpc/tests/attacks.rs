//! Hostile clients: each is put out or refused, and nobody else notices.

use vernal_puddled_tests::Actor;
use vernal_rpc_tests::attack::ATTACKS;
use vernal_rpc_tests::conformance::eventually;
use vernal_rpc_tests::world::{World, field};

#[test]
fn hostile_clients_harm_themselves_alone() {
    let world = World::start(
        env!("CARGO_BIN_EXE_rpc-puddled"),
        env!("CARGO_BIN_EXE_rpc-actor"),
    );
    let mut server: Actor = world.actor("server");
    server.ok("serve shop verify 0");
    let mut honest: Actor = world.actor("honest");
    let conn = honest.ok("connect shop verify adaptive");
    assert_eq!(honest.ok(&format!("sum {conn} 50")), "50 1225");
    world.settled(1, 1, 3);
    for attack in ATTACKS {
        for seed in 1..=4u64 {
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut attacker: Actor = world.actor("attacker");
            attacker.send(&format!("attack shop {attack} {seed}"));
            // Meanwhile the others are served.
            for _ in 0..20 {
                assert_eq!(
                    honest.ok(&format!("sum {conn} 50")),
                    "50 1225",
                    "{attack} {seed}"
                );
            }
            let answer = attacker.answer();
            let expected = if attack == "silent" {
                "ok waits"
            } else {
                "ok put out"
            };
            assert_eq!(answer, expected, "{attack}, seed {seed}");
            attacker.end();
            world.settled(1, 1, 3);
        }
    }
    assert_eq!(honest.ok(&format!("sum {conn} 50")), "50 1225");
    eventually("nobody else is left", || {
        field(&server.ok("stats shop"), "clients") == 1
    });
    assert!(field(&server.ok("stats shop"), "corrupt") >= 20);
}

#[test]
fn a_crowd_of_silent_clients_keeps_nobody_out() {
    let world = World::start(
        env!("CARGO_BIN_EXE_rpc-puddled"),
        env!("CARGO_BIN_EXE_rpc-actor"),
    );
    let mut server: Actor = world.actor("server");
    server.ok("serve shop verify 0");
    let mut crowd: Actor = world.actor("crowd");
    crowd.ok("crowd shop 200");
    for _ in 0..3 {
        let mut honest: Actor = world.actor("honest");
        let conn = honest.ok("connect shop verify adaptive");
        assert_eq!(honest.ok(&format!("sum {conn} 50")), "50 1225");
        honest.end();
    }
    crowd.end();
    world.settled(1, 0, 0);
    // Nobody is heard any more, and nothing wakes it.
    let mut sleeps = 0;
    eventually("it sleeps", || {
        let now = field(&server.ok("stats shop"), "sleeps");
        std::mem::replace(&mut sleeps, now) == now && now > 0
    });
}
