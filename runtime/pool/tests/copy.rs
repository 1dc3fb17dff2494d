//! Graphs that are copied from one pool into another.

mod common;

use common::*;
use std::collections::HashSet;
use vernal_heap::{ObjectSpace, TYPE_RAW};
use vernal_pool::{Error, OpenOptions, Pool, capi, tx};

fn two(name: &str, direct: bool) -> (Scratch, Pool, Scratch, Pool) {
    let (a, b) = (Scratch::new(name), Scratch::new(name));
    let from = Pool::open(&a.0, CREATE).unwrap();
    let options = OpenOptions { direct, ..CREATE };
    let to = Pool::open(&b.0, options).unwrap();
    (a, from, b, to)
}

fn objects(pool: &Pool) -> u64 {
    assert_sound(pool);
    pool.check().all.objects
}

#[test]
fn a_long_list_is_copied_in_order_and_the_copies_outlive_the_source() {
    for direct in [false, true] {
        let _turn = turn();
        let (_a, from, b, to) = two("list", direct);
        tx::begin().unwrap();
        for n in 0..100_000 {
            push(&from, n);
        }
        tx::commit().unwrap();
        let root = from.root().unwrap();
        for _ in 0..2 {
            tx::begin().unwrap();
            let copy = capi::copy(to.handle(), root).unwrap();
            to.set_root(copy).unwrap();
            tx::commit().unwrap();
        }
        let want: Vec<u64> = (0..100_000).rev().collect();
        assert_eq!(list(&to), want);
        assert_eq!(list(&from), want);
        from.close().unwrap();
        assert_eq!(list(&to), want);
        to.close().unwrap();
        let to = Pool::open(&b.0, OpenOptions { direct, ..CREATE }).unwrap();
        assert_eq!(list(&to), want);
        to.close().unwrap();
    }
}

#[test]
fn circles_sharing_and_pointers_out_stay_what_they_are() {
    let _turn = turn();
    let (_a, from, _b, to) = two("circle", false);
    tx::begin().unwrap();
    let stranger = node(&to);
    // A circle of ten, the fifth of which two others point to; the value of one is untyped, and means nothing.
    let ring: Vec<u64> = (0..10).map(|_| node(&from)).collect();
    for (i, at) in ring.iter().enumerate() {
        store(*at, ring[(i + 1) % 10]);
        store(at + 8, i as u64);
    }
    let tail = node(&from);
    store(tail, ring[5]);
    store(tail + 8, ring[0]);
    let out = node(&from);
    store(out, stranger);
    let lost = node(&from);
    tx::commit().unwrap();
    let before = objects(&to);

    tx::begin().unwrap();
    let copy = capi::copy(to.handle(), tail).unwrap();
    let other = capi::copy(to.handle(), out).unwrap();
    tx::commit().unwrap();
    assert_eq!(load(copy + 8), ring[0], "a number is no pointer");
    assert_eq!(load(other), stranger);
    let mut seen = HashSet::new();
    let mut at = load(copy);
    for i in 0..10 {
        assert_eq!(capi::handle_of(at), to.handle());
        assert_eq!(load(at + 8), (5 + i) % 10);
        assert!(seen.insert(at));
        at = load(at);
    }
    assert_eq!(at, load(copy), "the circle is closed");
    // The circle and its tail, and the node that points out; nothing that was not reached.
    assert_eq!(objects(&to), before + 11 + 1);
    assert_ne!(lost, 0);

    // Within a pool, and bytes without type.
    tx::begin().unwrap();
    let again = capi::copy(to.handle(), copy).unwrap();
    assert!(!seen.contains(&load(again)));
    let bytes = from.alloc_bytes(5000).unwrap();
    store(bytes + 4992, ring[0]);
    let bytes = capi::copy(to.handle(), bytes).unwrap();
    tx::commit().unwrap();
    assert_eq!(load(bytes + 4992), ring[0]);
    assert_eq!(to.space().object_at(bytes).unwrap().type_index, TYPE_RAW);
    from.close().unwrap();
    to.close().unwrap();
}

#[test]
fn an_abort_in_the_middle_leaves_nothing() {
    for direct in [false, true] {
        let _turn = turn();
        let (_a, from, _b, to) = two("abort", direct);
        tx::begin().unwrap();
        for n in 0..30_000 {
            push(&from, n);
        }
        tx::commit().unwrap();
        let before = objects(&to);
        for _ in 0..2 {
            tx::begin().unwrap();
            capi::copy(to.handle(), from.root().unwrap()).unwrap();
            tx::abort().unwrap();
            assert_eq!(objects(&to), before);
            assert_eq!(to.root(), None);
        }
        assert_eq!(list(&from).len(), 30_000);
        from.close().unwrap();
        to.close().unwrap();
    }
}

#[test]
fn what_cannot_be_copied_is_said() {
    let _turn = turn();
    let (_a, from, b, to) = two("refused", false);
    tx::begin().unwrap();
    push(&from, 1);
    tx::commit().unwrap();
    let root = from.root().unwrap();
    let refused = |r: Result<u64, Error>, why: &str| {
        let said = r.unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    };
    refused(capi::copy(to.handle(), root), "without a transaction");
    tx::begin().unwrap();
    refused(capi::copy(to.handle(), root + 8), "no object");
    refused(capi::copy(to.handle(), 0), "no open pool");
    refused(capi::copy(0, root), "no open pool");
    tx::commit().unwrap();
    assert_eq!(objects(&to), 0);
    to.close().unwrap();
    let to = Pool::open(&b.0, READ).unwrap();
    tx::begin().unwrap();
    refused(capi::copy(to.handle(), root), "for reading");
    tx::abort().unwrap();
    to.close().unwrap();
    from.close().unwrap();
}
