//! Recovery without the application, and who gets to see what.

use vernal_puddled_tests::{Place, USER_A, USER_B, need_root};

fn place() -> Place {
    Place::new(
        env!("CARGO_BIN_EXE_puddled-under-test"),
        env!("CARGO_BIN_EXE_puddled-actor"),
    )
}

/// Offset of data in a puddle with one chunk: behind its header and the pool page.
const DATA: u64 = 8192;

#[test]
fn a_writer_is_killed_and_its_program_deleted_and_a_reader_without_write_access_sees_the_last_commit()
 {
    if !need_root("killed writer") {
        return;
    }
    let mut place = place();
    place.start();
    let mut writer = place.actor("writer", Some(USER_A));
    writer.ok("create sensors 0644");
    writer.ok("open sensors w");
    for i in 0..10 {
        writer.ok(&format!("write sensors 0 {DATA} commit-{i}"));
        writer.ok("commit");
    }
    // Not committed: nobody ever sees it.
    writer.ok(&format!("write sensors 0 {DATA} torn-----"));
    let mut reader = place.actor("reader", Some(USER_B));
    let busy = reader.refused("open sensors r", "Busy");
    assert!(busy.contains(&writer.pid().to_string()), "{busy}");
    assert!(busy.contains(&USER_A.to_string()), "{busy}");
    std::fs::remove_file(&writer.program).unwrap();
    writer.kill();
    let denied = reader.refused("open sensors w", "Access");
    assert!(denied.contains("0644"), "{denied}");
    reader.ok("open sensors r");
    assert_eq!(reader.ok(&format!("read sensors 0 {DATA} 8")), "commit-9");
    assert_eq!(reader.ok("is-read-only sensors"), "true false");
    reader.end();
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}

#[test]
fn credentials_are_revoked_before_recovery() {
    if !need_root("revoked credentials") {
        return;
    }
    let mut place = place();
    place.start();
    let mut owner = place.actor("owner", Some(USER_B));
    owner.ok("create shared 0666");
    let mut writer = place.actor("writer", Some(USER_A));
    writer.ok("open shared w");
    writer.ok(&format!("write shared 0 {DATA} granted"));
    writer.ok("commit");
    // The writer loses its right, then puddled and the writer die: what it had committed while it had the right stays.
    owner.ok("set_mode shared 0600");
    place.kill();
    writer.kill();
    place.start();
    let mut after = place.actor("after", Some(USER_A));
    after.refused("open shared r", "NotFound");
    let mut owner = place.actor("owner2", Some(USER_B));
    owner.ok("open shared r");
    assert_eq!(owner.ok(&format!("read shared 0 {DATA} 7")), "granted");
    owner.end();
}

#[test]
fn a_forged_journal_reaches_nobody_else() {
    if !need_root("forged journal") {
        return;
    }
    let mut place = place();
    place.start();
    let mut victim = place.actor("victim", Some(USER_B));
    victim.ok("create victim 0600");
    let puddle = victim.ok("open victim w");
    victim.ok(&format!("write victim 0 {DATA} precious"));
    victim.ok("commit");
    victim.ok("close victim");
    let mut attacker = place.actor("attacker", Some(USER_A));
    attacker.ok("create own 0600");
    attacker.ok("create other 0600");
    attacker.ok("open own w");
    attacker.ok(&format!("write own 0 {DATA} mine"));
    attacker.ok("commit");
    attacker.ok(&format!("forge {puddle} stolen!!"));
    attacker.kill();
    let mut after = place.actor("after", Some(USER_A));
    let text = after.refused("open own w", "Quarantine");
    assert!(text.contains("was not granted"), "{text}");
    // What the forger did not write with this journal is not concerned, and the victim least of all.
    after.ok("open other w");
    victim.ok("open victim r");
    assert_eq!(victim.ok(&format!("read victim 0 {DATA} 8")), "precious");
    // The reason outlives puddled; the owner takes the pool as it is, or removes it.
    after.end();
    place.stop();
    assert_eq!(place.registry().quarantine.len(), 1);
    place.start();
    let mut after = place.actor("after2", Some(USER_A));
    after.refused("open own r", "Quarantine");
    let mut stranger = place.actor("stranger", Some(USER_B));
    stranger.refused("accept own", "NotFound");
    after.ok("accept own");
    after.ok("open own r");
    assert_eq!(after.ok(&format!("read own 0 {DATA} 4")), "mine");
    after.end();
    victim.end();
    stranger.end();
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}

#[test]
fn hostile_journals_are_quarantined_and_nothing_is_applied() {
    let mut place = place();
    place.start();
    for (i, (attack, why)) in [
        ("forge-len p 4096", "length"),
        ("journal-len 3000000000", "allowed"),
        ("lookalikes", "is damaged"),
        ("journal-bytes 0 garbage", ""),
        (
            "forge 00000000000000000000000000000001 0x588000000000 64 x",
            "damag",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut writer = place.actor(&format!("w{i}"), None);
        writer.ok("create p 0600");
        writer.ok("open p w");
        writer.ok(&format!("write p 0 {DATA} before"));
        writer.ok("commit");
        let answer = writer.ask(attack);
        if attack.starts_with("forge 0") {
            // The journal itself refuses a member that overlaps another.
            assert!(answer.starts_with("err"), "{answer}");
            writer.end();
            place.wait_settled();
        } else if attack.starts_with("journal-bytes") {
            // One damaged slot of two: nothing is lost.
            writer.kill();
        } else {
            assert!(answer.starts_with("ok"), "{attack}: {answer}");
            writer.kill();
            let mut after = place.actor(&format!("a{i}"), None);
            let text = after.refused("open p r", "Quarantine");
            assert!(text.contains(why), "{text}");
            after.ok("accept p");
            if attack.starts_with("forge-len") {
                // The forger has cut its own file: that is found, and only that pool is lost.
                after.refused("open p r", "Damaged");
                after.ok("remove p");
                after.end();
                continue;
            }
            after.end();
        }
        let mut after = place.actor(&format!("b{i}"), None);
        after.ok("open p r");
        assert_eq!(after.ok(&format!("read p 0 {DATA} 6")), "before");
        after.ok("close p");
        after.ok("remove p");
        after.end();
    }
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}

#[test]
fn a_freed_puddle_is_reassigned_before_replay() {
    if !need_root("reassigned puddle") {
        return;
    }
    let mut place = place();
    place.start();
    let mut writer = place.actor("writer", Some(USER_A));
    writer.ok("create pool 0600");
    writer.ok("open pool w");
    let grown = writer.ok("grow pool 2097152");
    writer.ok("adopt pool");
    writer.ok(&format!("write pool 1 {DATA} old-owner"));
    writer.ok("commit");
    let grown: Vec<&str> = grown.split(' ').collect();
    let (id, addr) = (grown[0], grown[1]);
    // Still part of the heap: not to be had.
    let text = writer.refused(&format!("shrink pool {id}"), "Invalid");
    assert!(text.contains("still part of pool"), "{text}");
    writer.ok(&format!("leave pool {id}"));
    writer.ok(&format!("shrink pool {id}"));
    // Somebody else gets the address.
    let mut other = place.actor("other", Some(USER_B));
    other.ok("create heir 0600");
    let heir = other.ok("open heir w");
    assert!(heir.contains(addr), "{heir} is not at {addr}");
    other.ok(&format!("write heir 0 {DATA} new-owner"));
    other.ok("commit");
    other.ok("close heir");
    // The writer's journal names the puddle that it once had: harmless, and nothing is replayed there.
    writer.ok(&format!("forge {id} {addr} 2097152 hijacked!"));
    writer.ok(&format!("write pool 0 {DATA} kept"));
    writer.ok("commit");
    writer.kill();
    let mut after = place.actor("after", Some(USER_A));
    after.ok("open pool r");
    assert_eq!(after.ok(&format!("read pool 0 {DATA} 4")), "kept");
    other.ok("open heir r");
    assert_eq!(other.ok(&format!("read heir 0 {DATA} 9")), "new-owner");
    after.end();
    other.end();
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}

#[test]
fn growth_that_no_commit_followed_is_dropped() {
    let mut place = place();
    place.start();
    let mut writer = place.actor("writer", None);
    writer.ok("create pool 0600");
    writer.ok("open pool w");
    writer.ok("grow pool 2097152");
    writer.ok("adopt pool");
    writer.ok("commit");
    writer.ok("grow pool 4194304");
    writer.ok("adopt pool");
    writer.kill();
    let mut after = place.actor("after", None);
    let opened = after.ok("open pool w");
    assert_eq!(
        opened.split(' ').count(),
        6,
        "root and one puddle: {opened}"
    );
    // The same in an orderly close.
    after.ok("grow pool 4194304");
    after.ok("close pool");
    assert_eq!(after.ok("stat pool"), "Ready 2 0600");
    after.end();
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}

#[test]
fn clients_outlive_puddled() {
    let mut place = place();
    place.start();
    let mut writer = place.actor("writer", None);
    writer.ok("create pool 0600");
    writer.ok("open pool w");
    writer.ok(&format!("write pool 0 {DATA} one"));
    writer.ok("commit");
    place.kill();
    // Without puddled it goes on committing.
    writer.ok(&format!("write pool 0 {DATA} two"));
    writer.ok("commit");
    place.start();
    let mut reader = place.actor("reader", None);
    let text = reader.refused("open pool r", "Busy");
    assert!(
        text.contains("still has it mapped") || text.contains("recovered"),
        "{text}"
    );
    assert!(text.contains(&writer.pid().to_string()), "{text}");
    reader.refused("remove pool", "Busy");
    writer.ok(&format!("write pool 0 {DATA} six"));
    writer.ok("commit");
    writer.kill();
    place.wait_settled_with(2);
    reader.ok("open pool r");
    assert_eq!(reader.ok(&format!("read pool 0 {DATA} 3")), "six");
    reader.end();
    // SIGTERM is as good.
    let mut writer = place.actor("writer2", None);
    writer.ok("open pool w");
    writer.ok(&format!("write pool 0 {DATA} ten"));
    writer.ok("commit");
    place.stop();
    writer.kill();
    place.start();
    let mut reader = place.actor("reader2", None);
    reader.ok("open pool r");
    assert_eq!(reader.ok(&format!("read pool 0 {DATA} 3")), "ten");
}

#[test]
fn a_pool_is_not_closed_as_long_as_it_is_open_or_served() {
    let mut place = place();
    place.start();
    let mut writer = place.actor("writer", None);
    writer.ok("create pool 0600");
    writer.ok("open pool w");
    writer.ok("keep pool");
    let text = writer.refused("close pool", "Busy");
    assert!(text.contains("still has it mapped"), "{text}");
    writer.kill();
    let mut next = place.actor("next", None);
    next.ok("open pool w");
    next.ok("close pool");
    next.ok("open pool w");
    next.end();
}

#[test]
fn direct_pools_have_several_writers_and_logs_stay_in_their_bounds() {
    if !need_root("direct pools") {
        return;
    }
    let mut place = place();
    place.start();
    let mut a = place.actor("a", Some(USER_A));
    a.ok("create both 0666 direct");
    let info = a.ok("open both w");
    assert!(info.contains("0x574"), "{info}");
    let mut b = place.actor("b", Some(USER_B));
    b.ok("open both w");
    a.ok(&format!("undo both {DATA} committed"));
    a.ok("end-tx");
    // Half a transaction: undone, though another writer goes on.
    a.ok(&format!("undo both {DATA} unfinished"));
    assert_eq!(b.ok(&format!("read both 0 {DATA} 10")), "unfinished");
    a.refused("close both", "Busy");
    a.kill();
    place.wait_settled_with(2);
    let mut a = place.actor("a2", Some(USER_A));
    assert_eq!(b.ok(&format!("read both 0 {DATA} 10")), "committed.");
    // A log that names another pool's addresses is quarantined with the pools of its client.
    b.ok("create victim 0600 direct");
    let victim = b.ok("open victim w");
    b.ok(&format!("store victim 0 {DATA} precious"));
    let addr: Vec<&str> = victim.split(' ').collect();
    a.ok("create own 0600 direct");
    a.ok("open own w");
    a.ok(&format!("undo-at {} stolen", addr[1]));
    a.kill();
    let mut after = place.actor("after", Some(USER_A));
    let text = after.refused("open own r", "Quarantine");
    assert!(text.contains("log"), "{text}");
    assert_eq!(b.ok(&format!("read victim 0 {DATA} 8")), "precious");
    // A snapshot wants no writers; the second writer gets new puddles by asking.
    after.refused("open both s", "Busy");
    after.ok("open both w");
    after.ok("grow both 2097152");
    assert_eq!(b.ok("refresh both"), "2");
}
