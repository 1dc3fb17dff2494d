//! Embedded pools: made, opened, grown, shrunk, refused.

mod common;

use common::*;
use vernal_pool::{Error, Pool, tx};

#[test]
fn a_pool_keeps_what_was_committed() {
    let _turn = turn();
    let dir = Scratch::new("keeps");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    assert_eq!(list(&pool), []);
    tx::begin().unwrap();
    push(&pool, 1);
    push(&pool, 2);
    tx::commit().unwrap();
    let root_addr = pool.root();
    assert_sound(&pool);
    pool.close().unwrap();

    let pool = Pool::open(&dir.0, CREATE).unwrap();
    assert_eq!(pool.root(), root_addr, "home addresses do not change");
    assert_eq!(list(&pool), [2, 1]);
    assert_sound(&pool);
    pool.close().unwrap();
    let left: Vec<_> = std::fs::read_dir(&dir.0)
        .unwrap()
        .flatten()
        .map(|e| e.file_name().into_string().unwrap())
        .filter(|n| n.contains("journal"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_abort_takes_everything_back() {
    let _turn = turn();
    let dir = Scratch::new("abort");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    tx::begin().unwrap();
    push(&pool, 1);
    tx::commit().unwrap();
    let before = pool.check();
    tx::begin().unwrap();
    let called = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    for n in [1, 2] {
        let called = called.clone();
        tx::on_abort(Box::new(move || called.borrow_mut().push(n))).unwrap();
    }
    for n in 0..10_000 {
        push(&pool, n);
    }
    let puddles = pool.directory().unwrap().len();
    // Large enough that the pool grows.
    let big = pool.alloc_bytes(5 << 20).unwrap();
    store(big, 7);
    assert!(pool.directory().unwrap().len() > puddles);
    tx::abort().unwrap();
    assert_eq!(*called.borrow(), [2, 1]);
    assert_eq!(list(&pool), [1]);
    assert_sound(&pool);
    let after = pool.check();
    assert_eq!(after.all, before.all);
    assert_eq!(pool.directory().unwrap().len(), puddles);
    // The puddle is used again, and what was in it is gone.
    tx::begin().unwrap();
    let big = pool.alloc_bytes(5 << 20).unwrap();
    assert_eq!(load(big), 0);
    push(&pool, 2);
    tx::commit().unwrap();
    assert_sound(&pool);
    pool.close().unwrap();
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    assert_eq!(list(&pool), [2, 1]);
    assert_sound(&pool);
    pool.close().unwrap();
}

#[test]
fn levels_end_together() {
    let _turn = turn();
    let dir = Scratch::new("nested");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    tx::begin().unwrap();
    push(&pool, 1);
    tx::begin().unwrap();
    push(&pool, 2);
    assert_eq!(tx::depth(), 2);
    tx::commit().unwrap();
    tx::commit().unwrap();
    assert_eq!(list(&pool), [2, 1]);
    tx::begin().unwrap();
    push(&pool, 3);
    tx::begin().unwrap();
    push(&pool, 4);
    tx::abort().unwrap();
    assert!(matches!(tx::begin(), Err(Error::Aborted)));
    assert!(matches!(tx::commit(), Err(Error::Aborted)));
    assert_eq!(tx::depth(), 0);
    assert_eq!(list(&pool), [2, 1]);
    assert!(matches!(tx::commit(), Err(Error::Invalid { .. })));
    pool.close().unwrap();
}

#[test]
fn a_pool_grows_and_shrinks_by_puddles() {
    let _turn = turn();
    let dir = Scratch::new("grow");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    let mut objects = Vec::new();
    for _ in 0..20 {
        tx::begin().unwrap();
        let at = pool.alloc_bytes(1 << 20).unwrap();
        store(at, at);
        objects.push(at);
        tx::commit().unwrap();
    }
    let puddles = pool.directory().unwrap();
    assert!(puddles.len() >= 4, "{puddles:?}");
    let sizes: Vec<u64> = puddles.iter().map(|p| p.size).collect();
    pool.close().unwrap();
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    assert_eq!(
        pool.directory()
            .unwrap()
            .iter()
            .map(|p| p.size)
            .collect::<Vec<_>>(),
        sizes
    );
    for &at in &objects {
        assert_eq!(load(at), at);
    }
    tx::begin().unwrap();
    for at in objects {
        pool.free(at).unwrap();
    }
    tx::commit().unwrap();
    assert!(pool.shrink().unwrap() >= 3);
    assert_eq!(pool.directory().unwrap().len(), 1);
    let files = std::fs::read_dir(&dir.0).unwrap().flatten();
    let files: Vec<_> = files
        .map(|e| e.file_name().into_string().unwrap())
        .filter(|n| n.ends_with(".puddle"))
        .collect();
    assert_eq!(files, ["root.puddle"]);
    assert_sound(&pool);
    pool.close().unwrap();
}

#[test]
fn wrong_calls_are_errors_with_reasons() {
    let _turn = turn();
    let dir = Scratch::new("wrong");
    let none = Pool::open(&dir.0, common::READ).unwrap_err();
    assert!(matches!(none, Error::NotFound { .. }), "{none}");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    let again = Pool::open(&dir.0, CREATE).unwrap_err();
    assert!(matches!(again, Error::Busy { .. }), "{again}");
    let mut exclusive = CREATE;
    exclusive.exclusive = true;
    let exists = Pool::open(&dir.0, exclusive).unwrap_err();
    assert!(matches!(exists, Error::Exists { .. }), "{exists}");
    let n = node(&pool);
    assert!(pool.free(n + 8).is_err());
    pool.free(n).unwrap();
    assert!(pool.free(n).is_err());
    let local = 0u64;
    let foreign = vernal_pool::capi::free(&raw const local as u64).unwrap_err();
    assert!(foreign.to_string().contains("no open pool"), "{foreign}");
    tx::begin().unwrap();
    let inside = pool.clone().close().unwrap_err();
    assert!(inside.to_string().contains("transaction"), "{inside}");
    tx::commit().unwrap();
    let handle = pool.handle();
    pool.close().unwrap();
    assert!(vernal_pool::capi::new_bytes(handle, 8).is_err());
}

#[test]
fn damaged_and_missing_puddles_are_named() {
    let _turn = turn();
    let dir = Scratch::new("damaged");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    let big = pool.alloc_bytes(3 << 20).unwrap();
    store(big, 1);
    pool.close().unwrap();
    let other = std::fs::read_dir(&dir.0)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "puddle") && !p.ends_with("root.puddle"))
        .unwrap();
    let name = other.file_name().unwrap().to_string_lossy().into_owned();
    let aside = dir.0.join("aside");
    std::fs::rename(&other, &aside).unwrap();
    let missing = Pool::open(&dir.0, CREATE).unwrap_err().to_string();
    assert!(
        missing.contains(&name) && missing.contains("missing"),
        "{missing}"
    );
    std::fs::rename(&aside, &other).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&other)
        .unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len / 2).unwrap();
    let short = Pool::open(&dir.0, CREATE).unwrap_err().to_string();
    assert!(short.contains(&name), "{short}");
    file.set_len(len).unwrap();
    // A pool page of noise.
    let root = dir.0.join("root.puddle");
    let good = std::fs::read(&root).unwrap();
    let mut bad = good.clone();
    for (i, b) in bad[4096..8192].iter_mut().enumerate() {
        *b ^= (i * 31 + 7) as u8;
    }
    std::fs::write(&root, &bad).unwrap();
    assert!(Pool::open(&dir.0, CREATE).is_err());
    std::fs::write(&root, &good).unwrap();
}

#[test]
fn readers_share_a_committed_image() {
    let _turn = turn();
    let dir = Scratch::new("readers");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    tx::begin().unwrap();
    push(&pool, 5);
    tx::commit().unwrap();
    let busy = Pool::open(&dir.0, READ).unwrap_err();
    assert!(matches!(busy, Error::Busy { .. }), "{busy}");
    pool.close().unwrap();
    let pool = Pool::open(&dir.0, READ).unwrap();
    assert!(pool.is_read_only());
    assert_eq!(list(&pool), [5]);
    assert!(pool.alloc_bytes(8).is_err());
    assert!(pool.set_root(0).is_err());
    let busy = Pool::open(&dir.0, CREATE).unwrap_err();
    assert!(matches!(busy, Error::Busy { .. }), "{busy}");
    pool.close().unwrap();
    Pool::open(&dir.0, CREATE).unwrap().close().unwrap();
}

#[test]
fn one_transaction_spans_pools() {
    let _turn = turn();
    let (a, b) = (Scratch::new("span-a"), Scratch::new("span-b"));
    let (pa, pb) = (
        Pool::open(&a.0, CREATE).unwrap(),
        Pool::open(&b.0, CREATE).unwrap(),
    );
    tx::begin().unwrap();
    push(&pa, 1);
    push(&pb, 2);
    tx::commit().unwrap();
    tx::begin().unwrap();
    push(&pa, 3);
    push(&pb, 4);
    tx::abort().unwrap();
    assert_eq!((list(&pa), list(&pb)), (vec![1], vec![2]));
    assert_eq!(Pool::containing(root(&pb)).unwrap().name(), pb.name());
    pa.close().unwrap();
    push(&pb, 6);
    pb.close().unwrap();
    let pb = Pool::open(&b.0, CREATE).unwrap();
    assert_eq!(list(&pb), [6, 2]);
    pb.close().unwrap();
}
