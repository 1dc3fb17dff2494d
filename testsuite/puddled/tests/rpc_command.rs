//! The command `vernal rpc` on channels of a real puddled.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use vernal_puddled_tests::rpc::{MIN, assert_empty, connected};
use vernal_puddled_tests::{Place, spawn, until};

fn place() -> Place {
    Place::new(
        env!("CARGO_BIN_EXE_puddled-under-test"),
        env!("CARGO_BIN_EXE_puddled-actor"),
    )
}

fn vernal(place: &Place, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vernal-under-test"));
    command
        .arg("rpc")
        .args(words)
        .env("VERNAL_PUDDLED", place.socket())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    spawn(&mut command).wait_with_output().unwrap()
}

fn text(place: &Place, words: &[&str]) -> String {
    let output = vernal(place, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(place: &Place, words: &[&str]) -> Value {
    let text = text(place, &[words, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{words:?}: {e}: {text}"))
}

#[test]
fn ls_names_everything() {
    let mut place = place();
    place.start();
    let program = Path::new(env!("CARGO_BIN_EXE_puddled-rpc"));
    let (mut server, mut client, conn) = connected(program, &place, None, None);
    let ring = client.ok(&format!("new conn {conn} {MIN}"));
    server.ok(&format!("lease {ring}"));
    client.ok(&format!("make conn {conn} {MIN}"));
    let all = json(&place, &["ls"]);
    assert_eq!(all["channels"][0]["channel"], "shop/stock");
    assert_eq!(all["channels"][0]["server"]["pid"], server.pid());
    assert_eq!(all["channels"][0]["bytes"], 2 * MIN);
    assert_eq!(all["connections"][0]["connection"], conn.as_str());
    assert_eq!(all["connections"][0]["client"]["pid"], client.pid());
    assert_eq!(all["segments"][0]["segment"], ring.as_str());
    assert_eq!(all["segments"][0]["sealed"], true);
    assert_eq!(all["segments"][0]["leases"][0]["pid"], server.pid());
    assert_eq!(all["segments"][1]["sealed"], false);
    assert_eq!(all["totals"]["leases"], 1);
    let words = text(&place, &["ls", "-c", "-s"]);
    for part in [
        "shop/stock",
        "0666",
        &conn,
        &ring,
        "sealed",
        "new",
        "4.00 MiB",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    client.kill();
    server.end();
    assert_empty(&place, &[]);
    let all = json(&place, &["ls"]);
    assert_eq!(all["channels"].as_array().unwrap().len(), 0);
    // Without puddled it says so.
    place.stop();
    let output = vernal(&place, &["ls"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no connection to puddled"), "{said}");
}

#[test]
fn top_shows_what_ring_segments_count() {
    let mut place = place();
    place.start();
    let program = Path::new(env!("CARGO_BIN_EXE_puddled-rpc"));
    let (mut server, mut client, conn) = connected(program, &place, None, None);
    // A ring segment as far as it counts: the magic, and 0x41 messages.
    let ring = client.ok(&format!("new conn {conn} {MIN}"));
    client.ok(&format!("write {ring} 0 VNRPCSG1"));
    client.ok(&format!("write {ring} 64 A"));
    // A heap is none, whatever lies in it.
    let heap = server.ok(&format!("new conn {conn} {MIN}"));
    server.ok(&format!("write {heap} 64 BBBBBBBB"));
    let top = json(&place, &["top", "--interval", "0.01"]);
    let [row] = top["connections"].as_array().unwrap().as_slice() else {
        panic!("{top}");
    };
    assert_eq!(row["channel"], "shop/stock");
    assert_eq!(row["client_messages"], 0x41);
    assert_eq!(row["server_messages"], 0);
    assert_eq!(row["client_messages_per_second"], 0.0);
    // Which neither says how far it trusts, nor has measured a call.
    assert_eq!(row["client_trusts"], "?");
    assert_eq!(row["call"]["all"]["measured"], 0);
    assert!(row["call"]["all"]["p50_ns"].is_null(), "{row}");
    let words = text(&place, &["top", "--once", "--interval", "0.01"]);
    assert!(
        words.contains("1 connections") && words.contains("65"),
        "{words}"
    );
    // Looking leaves nothing behind.
    assert_eq!(place.client().rpc_status().unwrap().leases, 0);
    server.kill();
    client.end();
    assert_empty(&place, &[]);
}

#[test]
fn modes_claim_nothing_that_is_not_there() {
    let mut place = place();
    place.start();
    let all = json(&place, &["modes"]);
    let modes = all["modes"].as_array().unwrap();
    let of = |kind: &str, name: &str| {
        let mut found = modes
            .iter()
            .filter(|m| m["kind"] == kind && m["mode"] == name);
        found
            .next()
            .unwrap_or_else(|| panic!("{kind} {name}: {all}"))["state"]
            .clone()
    };
    assert_eq!(of("memory", "one writer"), "in force");
    for (kind, name) in [
        ("seal", "bpf-lsm"),
        ("seal", "userfaultfd"),
        ("seal", "seccomp"),
        ("seal", "mprotect"),
        ("sandbox", "keys"),
    ] {
        let state = of(kind, name);
        assert!(state.as_str().unwrap().starts_with("not built"), "{state}");
    }
    assert_eq!(of("sandbox", "process"), "chosen per channel");
    let words = text(&place, &["modes"]);
    assert!(words.contains("does not close"), "{words}");
    // The table that the attacks are run by.
    for attack in &vernal_rpc_core::modes::ATTACKS {
        assert!(words.contains(attack.what), "{}: {words}", attack.what);
    }
}

#[test]
fn top_shows_the_traffic_of_programs() {
    let mut place = place();
    place.start();
    let program = Path::new(env!("CARGO_BIN_EXE_puddled-rpc-program"));
    let run = |words: &[&str], name: &str| {
        let program = place.copy_of(program, name);
        let mut command = Command::new(&program);
        command.args(words);
        place.run_command(command, program, None)
    };
    let server = run(&["serve", "shop/stock"], "server");
    let client = run(&["call", "shop/stock", "5"], "client");
    // Its connections are short: a look may come between two of them.
    until("traffic is seen", || {
        let top = json(&place, &["top", "--interval", "0.01"]);
        let rows = top["connections"].as_array().expect("rows").clone();
        rows.iter().any(|r| {
            let sent = |side: &str| r[side].as_u64().unwrap_or(0);
            let seen = |what: &str| {
                let all = &r[what]["all"];
                let ns = |q: &str| all[q].as_u64().unwrap_or(0);
                ns("measured") > 0 && 0 < ns("p50_ns") && ns("p50_ns") <= ns("p99_ns")
            };
            let trusts = |side: &str| r[side] == "verify";
            sent("client_messages") > 0
                && sent("server_messages") > 0
                && seen("call")
                && seen("served")
                && trusts("client_trusts")
                && trusts("server_trusts")
                && r["sandbox"] == "none"
                && r["leases"].as_u64() >= Some(2)
        })
    });
    let words = text(&place, &["top", "--once", "--interval", "0.01"]);
    assert!(words.contains("CALL P50 / P99"), "{words}");
    client.kill();
    server.kill();
    assert_empty(&place, &[]);
}
