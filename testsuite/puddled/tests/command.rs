//! The command `vernal` on pools of a real puddled: quotas and the end of a quarantine, with all that is refused.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use vernal_puddled_tests::{Place, USER_A, USER_B, need_root, spawn};

const MIB: u64 = 1 << 20;
/// Offset of data in a puddle with one chunk: behind its header and the pool page.
const DATA: u64 = 8192;

fn place() -> Place {
    Place::new(
        env!("CARGO_BIN_EXE_puddled-under-test"),
        env!("CARGO_BIN_EXE_puddled-actor"),
    )
}

/// `vernal pool WORDS` as the user `uid`: its exit code and what it says.
fn run(place: &Place, uid: u32, words: &[&str]) -> (i32, String) {
    let program = place.dir().join("actor-vernal");
    if !program.exists() {
        place.copy_of(Path::new(env!("CARGO_BIN_EXE_vernal-under-test")), "vernal");
    }
    let mut command = Command::new(program);
    command
        .arg("pool")
        .args(words)
        .env("VERNAL_PUDDLED", place.socket())
        .current_dir(place.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .gid(uid)
        .uid(uid);
    let output = spawn(&mut command).wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    (output.status.code().expect("it ends by itself"), text)
}

/// With `--json`, and it must succeed.
fn done(place: &Place, uid: u32, words: &[&str]) -> Value {
    let (code, text) = run(place, uid, &[words, &["--json"]].concat());
    assert_eq!(code, 0, "{words:?}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{words:?}: {e}: {text}"))
}

/// It must be refused, with a sentence that holds all `parts`, in words and in JSON.
fn refused(place: &Place, uid: u32, words: &[&str], parts: &[&str]) {
    let (code, text) = run(place, uid, words);
    assert_eq!(code, 2, "{words:?}: {text}");
    assert!(text.starts_with("vernal: "), "{words:?}: {text}");
    let (code, json) = run(place, uid, &[words, &["--json"]].concat());
    assert_eq!(code, 2, "{words:?}: {json}");
    let json: Value = serde_json::from_str(&json).unwrap();
    let said = json["error"].as_str().unwrap_or_default();
    for part in parts {
        assert!(
            text.contains(part) && said.contains(part),
            "{words:?}: no {part:?} in {text}{json}"
        );
    }
}

#[test]
fn quotas_are_shown_set_kept_and_refused() {
    if !need_root("vernal pool quota") {
        return;
    }
    let mut place = place();
    place.args = vec!["--quota-default".into(), "8M".into()];
    place.start();
    let (a, b) = (USER_A.to_string(), USER_B.to_string());
    let quota = |place: &Place, uid: u32, words: &[&str]| {
        let said = done(place, uid, &[&["quota"], words].concat());
        (
            said["uid"].as_u64(),
            said["used"].as_u64(),
            said["limit"].as_u64(),
        )
    };
    let user = Some(u64::from(USER_A));
    // Everybody sees the own quota; root and puddled's user see all.
    assert_eq!(quota(&place, USER_A, &[&a]), (user, Some(0), Some(8 * MIB)));
    done(&place, USER_A, &["create", "one", "--size", "4194304"]);
    assert_eq!(
        quota(&place, 0, &[&a]),
        (user, Some(4 * MIB), Some(8 * MIB))
    );
    let (code, text) = run(&place, USER_A, &["quota", &a]);
    assert_eq!(
        (code, text.as_str()),
        (
            0,
            &*format!("user {a}: 4194304 bytes in puddles, of 8388608\n")
        )
    );
    // Others may neither look nor set, and nobody but root may set the own one.
    refused(
        &place,
        USER_B,
        &["quota", &a],
        &[&a, &b, "may not see", "root"],
    );
    for change in [&["--set", "99999999"][..], &["--default"]] {
        for whose in [&a, &b] {
            let words = [&["quota", whose.as_str()], change].concat();
            refused(&place, USER_B, &words, &[&b, "may not set", "root"]);
        }
    }
    assert_eq!(
        quota(&place, 0, &[&a]),
        (user, Some(4 * MIB), Some(8 * MIB))
    );
    // What a quota keeps out is told what there is, and who can help.
    let more = &["create", "two", "--size", "8388608"];
    refused(
        &place,
        USER_A,
        more,
        &["4194304", "8388608", "vernal pool quota", "remove"],
    );
    assert_eq!(
        quota(&place, 0, &[&a, "--set", "12582912"]),
        (user, Some(4 * MIB), Some(12 * MIB))
    );
    done(&place, USER_A, more);
    // Less than there is: what there is stays, and nothing comes on top.
    assert_eq!(
        quota(&place, 0, &[&a, "--set", "0"]),
        (user, Some(12 * MIB), Some(0))
    );
    refused(
        &place,
        USER_A,
        &["create", "three"],
        &["12582912", "may have 0"],
    );
    done(&place, USER_A, &["check", "two"]);
    // It outlives puddled; then it is everybody's again, and another user's never changed.
    place.wait_settled();
    place.kill();
    place.start();
    assert_eq!(
        quota(&place, USER_A, &[&a]),
        (user, Some(12 * MIB), Some(0))
    );
    assert_eq!(
        quota(&place, 0, &[&a, "--default"]),
        (user, Some(12 * MIB), Some(8 * MIB))
    );
    assert_eq!(quota(&place, USER_B, &[&b]).1, Some(0));
    for pool in ["one", "two"] {
        done(&place, USER_A, &["rm", pool]);
    }
    assert_eq!(quota(&place, USER_A, &[&a]), (user, Some(0), Some(8 * MIB)));
    // Wrong command lines, and no puddled at all.
    for words in [
        &["quota"][..],
        &["quota", "somebody"],
        &["quota", "-1"],
        &["quota", "4294967296"],
        &["quota", &a, "--set", "much"],
        &["quota", &a, "--set", "1", "--default"],
    ] {
        let (code, text) = run(&place, 0, words);
        assert!(code == 2 && !text.is_empty(), "{words:?}: {code}: {text}");
    }
    place.wait_settled();
    place.stop();
    place.assert_tidy();
    let socket = place.socket().display().to_string();
    refused(&place, 0, &["quota", &a], &[&socket]);
    refused(&place, 0, &["quota", &a, "--set", "1"], &[&socket]);
}

#[test]
fn a_quarantine_ends_for_the_owner_only() {
    if !need_root("vernal pool accept") {
        return;
    }
    let mut place = place();
    place.start();
    let mut writer = place.actor("writer", Some(USER_A));
    writer.ok("create pool 0644");
    writer.ok("create other 0600");
    writer.ok("open pool w");
    writer.ok(&format!("write pool 0 {DATA} committed"));
    writer.ok("commit");
    refused(
        &place,
        USER_A,
        &["accept", "other"],
        &["\"other\"", "not in quarantine"],
    );
    refused(&place, USER_A, &["accept", "none"], &["none"]);
    refused(
        &place,
        USER_A,
        &["accept", "./pool"],
        &["only pools of puddled"],
    );
    // A journal that names a puddle which was never granted.
    writer.ok("forge 000000000000000000000000000000ff 0x58f000000000 2097152 evil");
    writer.kill();
    refused(
        &place,
        USER_A,
        &["check", "pool"],
        &["quarantine", "vernal pool accept pool"],
    );
    // A list that shows trouble says so with its code.
    let (code, list) = run(&place, USER_A, &["ls", "--json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(code, 1, "{list}");
    let state = |list: &Value| {
        let pools = list["pools"].as_array().cloned().unwrap_or_default();
        let pool = pools.iter().find(|p| p["pool"] == "pool").cloned();
        pool.map(|p| p["state"].to_string()).unwrap_or_default()
    };
    assert!(state(&list).contains("quarantine"), "{list}");
    // Who may read it may not release it; who may not see the other one is not told that it is there.
    refused(
        &place,
        USER_B,
        &["accept", "pool"],
        &[&USER_A.to_string(), "only that user and root"],
    );
    refused(&place, USER_B, &["accept", "other"], &["other"]);
    // Not lost with puddled.
    place.wait_settled();
    place.kill();
    place.start();
    refused(&place, USER_A, &["check", "pool"], &["quarantine"]);
    assert_eq!(
        done(&place, USER_A, &["accept", "pool"])["state"],
        "accepted"
    );
    refused(&place, USER_A, &["accept", "pool"], &["not in quarantine"]);
    let mut reader = place.actor("reader", Some(USER_B));
    reader.ok("open pool r");
    assert_eq!(reader.ok(&format!("read pool 0 {DATA} 9")), "committed");
    reader.end();
    let list = done(&place, USER_A, &["ls"]);
    assert!(!state(&list).contains("quarantine"), "{list}");
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}
