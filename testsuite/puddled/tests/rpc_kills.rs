//! Kills of servers, clients and puddled at every step: nothing is left, and who lives goes on.

mod common;

use common::{connected, place, rpc};
use vernal_puddled_tests::rpc::{MIN, assert_empty, wait_for, word};
use vernal_puddled_tests::{Actor, USER_A, USER_B, need_root};

#[test]
fn a_name_is_free_as_soon_as_its_server_is_dead() {
    let mut place = place();
    place.start();
    for round in 0..20 {
        let mut server = rpc(&place, &format!("server-{round}"), None);
        server.ok("open shop/stock 0600");
        // Nothing is waited for: the kernel has closed the socket, whatever puddled's threads have seen of it.
        server.kill();
    }
    let mut server = rpc(&place, "last", None);
    let channel = server.ok("open shop/stock 0600");
    let mut client = rpc(&place, "client", None);
    client.ok("connect shop/stock");
    // A server that closes the channel's socket serves nobody there, even if it does not say so.
    server.ok(&format!("deafen {channel}"));
    client.refused("connect shop/stock", "NotFound");
    let channel = client.ok("open shop/stock 0600");
    client.ok(&format!("close {channel}"));
    server.ok("open shop/stock 0600");
}

#[test]
fn clients_that_were_not_accepted_see_that_the_server_is_dead() {
    let mut place = place();
    place.start();
    let mut server = rpc(&place, "server", None);
    server.ok("open shop 0600");
    let mut client = rpc(&place, "client", None);
    let conn = word(&client.ok("connect shop"), 0);
    assert_eq!(client.ok(&format!("alive {conn}")), "true");
    server.kill();
    assert_eq!(client.ok(&format!("hangup {conn}")), "true");
    client.refused("connect shop", "NotFound");
    client.end();
    assert_empty(&place, &[]);
}

/// Every step of a conversation, with the side that takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Server,
    Client,
}

#[test]
fn killing_either_side_at_every_step_leaves_nothing() {
    if !need_root("kills of both sides") {
        return;
    }
    let mut place = place();
    place.start();
    let steps: [(Side, &str); 17] = [
        (Side::Server, "open shop/stock 0666"),
        (Side::Client, "connect shop/stock"),
        (Side::Server, "accept"),
        (Side::Client, "make conn CONN 2097152"),
        (Side::Client, "map CLIENTS"),
        (Side::Client, "ready CLIENTS"),
        (Side::Client, "write CLIENTS 0 question"),
        (Side::Server, "lease CLIENTS"),
        (Side::Server, "new conn CONN 4194304"),
        (Side::Server, "write SERVERS 0 answer"),
        (Side::Client, "lease SERVERS"),
        (Side::Server, "new channel CHANNEL 2097152"),
        (Side::Client, "lease SHOP"),
        (Side::Client, "leave CONN"),
        (Side::Server, "leave CONN"),
        (Side::Server, "drop CLIENTS"),
        (Side::Client, "drop SERVERS"),
    ];
    for victim in [Side::Server, Side::Client] {
        for last in 0..steps.len() {
            let mut server = rpc(&place, "server", Some(USER_A));
            let mut client = rpc(&place, "client", Some(USER_B));
            let mut names: Vec<(&str, String)> = Vec::new();
            for (i, (side, step)) in steps.iter().enumerate().take(last + 1) {
                let mut line = (*step).to_owned();
                for (name, id) in &names {
                    line = line.replace(name, id);
                }
                let actor = match side {
                    Side::Server => &mut server,
                    Side::Client => &mut client,
                };
                if i == last && *side == victim {
                    // It dies while puddled may be answering.
                    actor.send(&line);
                    continue;
                }
                let answer = actor.ok(&line);
                let name = match i {
                    0 => "CHANNEL",
                    1 => "CONN",
                    3 => "CLIENTS",
                    8 => "SERVERS",
                    11 => "SHOP",
                    _ => continue,
                };
                names.push((name, word(&answer, 0)));
            }
            let (dies, mut lives) = match victim {
                Side::Server => (server, client),
                Side::Client => (client, server),
            };
            dies.kill();
            // Who is left learns of it, and what it has leased is still there.
            let conn = names.iter().find(|(name, _)| *name == "CONN");
            if let Some((_, conn)) = conn
                && (3..13).contains(&last)
            {
                assert_eq!(lives.ok(&format!("hangup {conn}")), "true", "step {last}");
            }
            let (leased, from, text) = match victim {
                Side::Client => ("CLIENTS", 8, "question"),
                Side::Server => ("SERVERS", 11, "answer"),
            };
            let until = if victim == Side::Client { 15 } else { 16 };
            if (from..until).contains(&last)
                && let Some((_, id)) = names.iter().find(|(name, _)| *name == leased)
            {
                // Its owner goes when puddled has seen the end of the dead one.
                wait_for(&place, "no orphan", |s| s.orphans >= 1);
                let read = lives.ok(&format!("read {id} 0 {}", text.len()));
                assert_eq!(read, text, "step {last}");
            }
            lives.end();
            assert_empty(&place, &[USER_A, USER_B]);
        }
    }
}

#[test]
fn connections_live_on_when_puddled_dies() {
    let mut place = place();
    place.start();
    let (mut server, mut client, conn) = connected(&place, None, None);
    let ring = client.ok(&format!("new conn {conn} {MIN}"));
    server.ok(&format!("lease {ring}"));
    place.kill();
    client.ok(&format!("write {ring} 0 still"));
    assert_eq!(server.ok(&format!("read {ring} 0 5")), "still");
    client.ok(&format!("wake {conn} 1"));
    server.ok(&format!("woken {conn}"));
    assert_eq!(server.ok(&format!("alive {conn}")), "true");
    let old: u64 = client.ok(&format!("address {ring}")).parse().unwrap();
    place.start();
    let socket = place.socket();
    // The name is free, nothing is left of the old table, and new segments keep away from what is still mapped.
    assert_empty(&place, &[]);
    server.ok(&format!("reconnect {}", socket.display()));
    client.ok(&format!("reconnect {}", socket.display()));
    server.refused(&format!("make conn {conn} {MIN}"), "Invalid");
    server.refused(&format!("lease {ring}"), "NotFound");
    server.ok("open shop/stock 0600");
    let again = word(&client.ok("connect shop/stock"), 0);
    assert_ne!(again, conn);
    server.ok("accept");
    for _ in 0..8 {
        let next = client.ok(&format!("new conn {again} {MIN}"));
        let addr: u64 = client.ok(&format!("address {next}")).parse().unwrap();
        assert!(addr.abs_diff(old) >= MIN);
        server.ok(&format!("lease {next}"));
    }
    assert_eq!(server.ok(&format!("read {ring} 0 5")), "still");
    client.kill();
    assert_eq!(server.ok(&format!("hangup {conn}")), "true");
    assert_eq!(server.ok(&format!("hangup {again}")), "true");
    server.end();
    assert_empty(&place, &[]);
}

/// puddled dies at every step of a conversation; neither side hangs, and the next puddled knows nothing and serves.
#[test]
fn puddled_is_killed_at_every_step() {
    for step in 1..200 {
        let mut place = place();
        if !place.try_start(Some(step)) {
            continue;
        }
        let mut server = rpc(&place, "server", None);
        let mut client = rpc(&place, "client", None);
        let survived = conversation(&mut server, &mut client).is_some();
        place.reap_or_kill();
        place.start();
        let socket = place.socket();
        for actor in [&mut server, &mut client] {
            // Who never got through to the dead one has ended already.
            actor.try_ask(&format!("reconnect {}", socket.display()));
        }
        drop((server, client));
        let (mut server, mut client, conn) = connected(&place, None, None);
        let ring = client.ok(&format!("new conn {conn} {MIN}"));
        server.ok(&format!("lease {ring}"));
        server.end();
        client.end();
        assert_empty(&place, &[]);
        if survived {
            println!("{} steps", step - 1);
            assert!(step > 10, "there are steps to die at");
            return;
        }
    }
    panic!("more steps than any conversation has");
}

/// `None`: puddled has died.
fn conversation(server: &mut Actor, client: &mut Actor) -> Option<()> {
    let channel = server.try_ok("open shop/stock 0666")?;
    let conn = word(&client.try_ok("connect shop/stock")?, 0);
    server.try_ok("accept")?;
    let ring = client.try_ok(&format!("new conn {conn} {MIN}"))?;
    let shop = server.try_ok(&format!("new channel {channel} {MIN}"))?;
    server.try_ok(&format!("lease {ring}"))?;
    client.try_ok(&format!("lease {shop}"))?;
    client.try_ok(&format!("drop {ring}"))?;
    server.try_ok(&format!("drop {ring}"))?;
    client.try_ok(&format!("leave {conn}"))?;
    server.try_ok(&format!("close {channel}"))?;
    Some(())
}
