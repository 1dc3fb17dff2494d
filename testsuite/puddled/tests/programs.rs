//! Programs with pools of puddled, through `vernal-pool`: transactions, growth, kills, several pools in one process.

use std::path::Path;

use vernal_format::Uuid;
use vernal_pool::archive::{Arrived, Identities, PoolImage, set_identities};
use vernal_puddled_tests::{Actor, Place, USER_A, USER_B, need_root};

fn place() -> Place {
    Place::new(
        env!("CARGO_BIN_EXE_puddled-under-test"),
        env!("CARGO_BIN_EXE_puddled-actor"),
    )
}

fn program(place: &Place, name: &str, uid: Option<u32>) -> Actor {
    place.run(Path::new(env!("CARGO_BIN_EXE_puddled-program")), name, uid)
}

#[test]
fn a_program_is_killed_and_deleted_and_its_transactions_stay() {
    if !need_root("killed program") {
        return;
    }
    let mut place = place();
    place.start();
    let mut writer = program(&place, "writer", Some(USER_A));
    writer.ok("open sensors c");
    writer.ok("push sensors 1 3");
    // Larger than the root puddle: grows through puddled.
    writer.ok("big sensors 3000000");
    writer.ok("push sensors 10 2");
    writer.ok("torn sensors 99");
    let mut other = program(&place, "other", Some(USER_B));
    other.refused("open sensors r", "NotFound");
    let mut root = place.client();
    root.set_mode("sensors", 0o644).unwrap();
    let busy = other.refused("open sensors r", "Busy");
    assert!(busy.contains(&writer.pid().to_string()), "{busy}");
    std::fs::remove_file(&writer.program).unwrap();
    writer.kill();
    other.refused("open sensors w", "Access");
    other.ok("open sensors r");
    assert_eq!(other.ok("list sensors"), "11,10,3,2,1");
    other.ok("close sensors");
    drop(root);
    other.end();
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}

#[test]
fn several_pools_in_one_process_share_its_journal() {
    let mut place = place();
    place.start();
    let mut p = program(&place, "p", None);
    p.ok("open one c");
    p.ok("push one 1 2");
    p.ok("close one");
    // The journal's second life: what the first one holds must not come back.
    p.ok("open one w");
    p.ok("open two c");
    p.ok("push two 5 1");
    p.ok("push one 3 1");
    p.ok("close two");
    // Open, granted, and first committed when the other one is closed.
    p.ok("open three c");
    p.ok("close one");
    p.ok("push three 7 1");
    p.kill();
    let mut q = program(&place, "q", None);
    for (pool, list) in [("one", "3,2,1"), ("two", "5"), ("three", "7")] {
        q.ok(&format!("open {pool} r"));
        assert_eq!(q.ok(&format!("list {pool}")), list);
    }
    q.end();
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}

#[test]
fn a_program_goes_on_when_puddled_dies() {
    let mut place = place();
    place.start();
    let mut p = program(&place, "p", None);
    p.ok("open pool c");
    p.ok("push pool 1 1");
    place.kill();
    p.ok("push pool 2 1");
    place.start();
    p.ok("push pool 3 1");
    // The connection is gone, so it cannot grow; what it has goes on.
    let text = p.ask("big pool 3000000");
    assert!(text.contains("ended the connection"), "{text}");
    p.kill();
    let mut q = program(&place, "q", None);
    q.ok("open pool r");
    assert_eq!(q.ok("list pool"), "3,2,1");
}

/// As `vernal pool clone` does it.
fn clone(place: &Place, from: &str, to: &str) {
    let mut client = place.client();
    let staged = client.clone_begin(from, to, 0o600).unwrap();
    let files: Vec<_> = staged
        .puddles
        .iter()
        .map(|p| (to.into(), p.file.try_clone().unwrap()))
        .collect();
    let copies = files
        .iter()
        .map(|(_, f): &(std::path::PathBuf, std::fs::File)| f.try_clone());
    let image = PoolImage::of_files(from, copies.map(Result::unwrap).collect()).unwrap();
    let arrived = Arrived {
        manifest: image.manifest(),
        files,
        taken: None,
    };
    drop(image);
    let identities = Identities {
        pool: staged.id.into(),
        label: to.to_owned(),
        puddles: staged
            .puddles
            .iter()
            .map(|p| Uuid::from(p.info.id))
            .collect(),
    };
    set_identities(&arrived, &identities).unwrap();
    let id = staged.id;
    drop((staged, arrived));
    client.import_finish(id).unwrap();
}

#[test]
fn a_pool_that_was_relocated_is_closed_and_opened_again() {
    let mut place = place();
    place.start();
    let mut p = program(&place, "p", None);
    p.ok("open one c");
    p.ok("push one 1 3");
    p.ok("close one");
    clone(&place, "one", "two");
    // The image from which chunks are relocated is gone when puddled is told that the pool is closed.
    for how in ["w", "w", "r"] {
        p.ok(&format!("open two {how}"));
        assert_eq!(p.ok("list two"), "3,2,1");
        p.ok("close two");
    }
    clone(&place, "two", "three");
    // Closed before anything of it was touched.
    p.ok("open three w");
    p.ok("close three");
    p.ok("open three w");
    assert_eq!(p.ok("list three"), "3,2,1");
    p.ok("close three");
    p.end();
    place.wait_settled();
    place.stop();
    place.assert_tidy();
}
