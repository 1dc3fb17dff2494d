//! The data directory of a puddled of version 1, as it was when puddled and its clients were killed: a puddled of today starts on
//! it, recovers what they left, and knows everything that was in the registry.
//!
//! `cargo test -p vernal-puddled-tests --test golden_data -- --ignored` writes that of the current version, as root. A new version
//! adds its own and keeps the old ones.

use std::path::{Path, PathBuf};

use vernal_puddled_proto::{Access, Condition, PoolKind};
use vernal_puddled_tests::{Place, USER_A, USER_B, need_root, pack, unpack};

const MIB: u64 = 1 << 20;
/// Offset of data in a puddle with one chunk: behind its header and the pool page.
const DATA: u64 = 8192;

fn place() -> Place {
    Place::new(
        env!("CARGO_BIN_EXE_puddled-under-test"),
        env!("CARGO_BIN_EXE_puddled-actor"),
    )
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
}

#[test]
fn a_data_directory_of_version_1_with_dead_clients() {
    let mut place = place();
    unpack(&golden("data-v1"), place.layout().data()).unwrap();
    // What the killed puddled knew, before anything is settled.
    let before = place.registry();
    assert_eq!(before.grants.len(), 3, "{:?}", before.grants);
    assert_eq!(before.quarantine.len(), 1);
    place.start();
    place.wait_settled();
    let mut client = place.client();
    let list = client.list().unwrap();
    let facts: Vec<_> = list
        .iter()
        .map(|p| (p.name.as_str(), p.owner, p.group, p.mode, p.kind, p.puddles))
        .collect();
    let (buffered, direct) = (PoolKind::Buffered, PoolKind::Direct);
    assert_eq!(
        facts,
        [
            ("closed", USER_A, USER_A, 0o640, buffered, 1),
            ("forged", USER_B, USER_B, 0o600, buffered, 1),
            ("grown", USER_A, USER_A, 0o600, buffered, 2),
            ("live", USER_A, USER_A, 0o644, buffered, 1),
            ("shared", USER_B, USER_B, 0o666, direct, 1),
        ]
    );
    for pool in &list {
        assert!(pool.created > 1_700_000_000, "{pool:?}");
        let known = before.pools.iter().find(|p| p.id == pool.id).unwrap();
        let (_, puddles) = client.stat(&pool.name).unwrap();
        for puddle in &puddles {
            let same = known.puddles.iter().find(|p| p.id == puddle.id).unwrap();
            assert_eq!((same.addr, same.size), (puddle.addr, puddle.size));
        }
        match (&pool.condition, pool.name.as_str()) {
            (Condition::Quarantined { reason, .. }, "forged") => {
                assert!(reason.contains("was not granted"), "{reason}");
            }
            (Condition::Ready, _) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.quota(USER_A).unwrap(), (8 * MIB, Some(64 * MIB)));
    assert_eq!(client.quota(USER_B).unwrap(), (4 * MIB, None));
    assert_eq!(client.quota(61_003).unwrap(), (0, Some(0)));
    // The bytes: what was committed last, with and without puddled; what was not, is undone; growth that no commit followed is gone.
    drop(client);
    let mut actor = place.actor("reader", None);
    for (pool, puddle, bytes) in [
        ("closed", 0, "closed in order"),
        ("live", 0, "committed while puddled was dead"),
        ("grown", 0, "with two puddles"),
        ("grown", 1, "the second one"),
        ("shared", 0, "both committed"),
    ] {
        if puddle == 0 {
            actor.ok(&format!("open {pool} r"));
        }
        let bytes = bytes.replace(' ', "_");
        let len = bytes.len() + 1;
        let read = actor.ok(&format!("read {pool} {puddle} {DATA} {len}"));
        assert_eq!(read, format!("{bytes}."), "{pool}");
    }
    let text = actor.refused("open forged r", "Quarantine");
    assert!(text.contains("was not granted"), "{text}");
    actor.ok("accept forged");
    actor.ok("open forged r");
    assert_eq!(actor.ok(&format!("read forged 0 {DATA} 6")), "before");
    // And it goes on.
    actor.ok("close closed");
    actor.ok("open closed w");
    actor.ok(&format!("write closed 0 {DATA} later"));
    actor.ok("commit");
    actor.ok("close closed");
    actor.ok("create another 0600");
    actor.end();
    let mut client = place.client();
    for name in ["closed", "forged", "grown", "live"] {
        let pool = client.open(name, Access::Read).unwrap();
        assert_eq!(pool.puddles[0].info.size, 2 * MIB, "{name}");
    }
    drop(client);
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}

#[test]
#[ignore = "writes the golden data directory of a new version"]
fn write_golden() {
    assert!(need_root("writing the golden data directory"));
    let say = |text: &str| text.replace(' ', "_");
    let mut place = place();
    place.start();
    let mut root = place.client();
    root.set_quota(USER_A, Some(64 * MIB)).unwrap();
    root.set_quota(61_003, Some(0)).unwrap();
    drop(root);
    let mut a = place.actor("a", Some(USER_A));
    a.ok("create closed 0640");
    a.ok("open closed w");
    a.ok(&format!("write closed 0 {DATA} {}", say("closed in order")));
    a.ok("commit");
    a.ok("close closed");
    let mut forger = place.actor("forger", Some(USER_B));
    forger.ok("create forged 0600");
    forger.ok("open forged w");
    forger.ok(&format!("write forged 0 {DATA} before"));
    forger.ok("commit");
    forger.ok("forge 000000000000000000000000000000ff 0x58f000000000 2097152 evil");
    forger.kill();
    let mut b = place.actor("b", Some(USER_B));
    b.refused("open forged r", "Quarantine");
    b.ok("create shared 0666 direct");
    b.ok("open shared w");
    b.ok(&format!("undo shared {DATA} {}", say("both committed")));
    b.ok("end-tx");
    b.ok(&format!("undo shared {DATA} {}", say("not committed!")));
    let mut live = place.actor("live", Some(USER_A));
    live.ok("create live 0644");
    live.ok("open live w");
    live.ok(&format!("write live 0 {DATA} {}", say("committed")));
    live.ok("commit");
    a.ok("create grown 0600");
    a.ok("open grown w");
    a.ok("grow grown 2097152");
    a.ok("adopt grown");
    a.ok(&format!("write grown 0 {DATA} {}", say("with two puddles")));
    a.ok(&format!("write grown 1 {DATA} {}", say("the second one")));
    a.ok("commit");
    a.ok("grow grown 4194304");
    a.ok("adopt grown");
    // Both die, puddled first: what the clients do then hangs on their journals and logs.
    place.kill();
    let last = say("committed while puddled was dead");
    live.ok(&format!("write live 0 {DATA} {last}"));
    live.ok("commit");
    live.kill();
    a.kill();
    b.kill();
    std::fs::create_dir_all(golden("")).unwrap();
    pack(place.layout().data(), &golden("data-v1")).unwrap();
}
