//! Types: refused, changed, converted.

mod common;

use common::*;
use std::sync::Arc;
use vernal_format::types::{Shape, TypeBuilder};
use vernal_pool::program::{VnType, register};
use vernal_pool::{Error, Pool, capi, migrate, tx};

/// A type as the compiler emits it, for the life of the process.
fn emit(builder: &TypeBuilder) -> &'static VnType {
    let blob: &'static [u8] = builder.build().unwrap().leak();
    Box::leak(Box::new(VnType {
        blob: blob.as_ptr(),
        len: blob.len() as u32,
        bound_count: 0,
        bound: std::ptr::null(),
    }))
}

fn pointer(target: &str) -> Shape {
    Shape::Pointer {
        target: target.into(),
        target_id: 0,
    }
}

fn new(pool: &Pool, size: u64, ty: &'static VnType) -> Result<u64, Error> {
    // SAFETY: `ty` is what `emit` made.
    unsafe { capi::new(pool.handle(), size, ty) }
}

#[test]
fn an_unknown_type_and_a_refused_one_are_named() {
    let _turn = turn();
    let dir = Scratch::new("unknown");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    // SAFETY: NULL is allowed.
    let e = unsafe { capi::new(pool.handle(), 8, std::ptr::null()) }.unwrap_err();
    assert!(e.to_string().contains("vernal-cc"), "{e}");
    let refused = emit(&TypeBuilder::new("either", 8, 8).member(
        "u",
        0,
        Shape::Refused {
            size: 8,
            reason: "union".into(),
        },
    ));
    let e = new(&pool, 8, refused).unwrap_err();
    assert!(matches!(e, Error::Type { .. }), "{e}");
    assert!(e.to_string().contains("either"), "{e}");
    pool.close().unwrap();
}

#[test]
fn a_changed_type_is_refused_and_then_converted() {
    let _turn = turn();
    let dir = Scratch::new("changed");
    let pool = Pool::open(&dir.0, CREATE).unwrap();
    let old = emit(
        &TypeBuilder::new("item", 16, 8)
            .member("next", 0, pointer("item"))
            .member("value", 8, Shape::Integer(8)),
    );
    tx::begin().unwrap();
    // SAFETY: `old` is what `emit` made.
    let root = unsafe { capi::root(pool.handle(), 16, old) }.unwrap();
    let mut last = root;
    for n in 1..=1000 {
        let at = new(&pool, 16, old).unwrap();
        store(at + 8, n);
        store(last, at);
        last = at;
    }
    store(last, root); // a cycle
    tx::commit().unwrap();
    pool.close().unwrap();

    // The value has moved, and there is something new.
    let changed = emit(
        &TypeBuilder::new("item", 32, 8)
            .member("square", 0, Shape::Integer(8))
            .member("value", 8, Shape::Integer(8))
            .member("next", 16, pointer("item"))
            .member("more", 24, Shape::Integer(8)),
    );
    let table = [std::ptr::from_ref(changed)];
    forget_old();
    // SAFETY: an array of one type that lives as long as the process.
    unsafe { register(table.as_ptr(), table.as_ptr().wrapping_add(1)) };
    let e = Pool::open(&dir.0, CREATE).unwrap_err();
    assert!(matches!(e, Error::Type { .. }), "{e}");
    assert!(e.to_string().contains("item"), "{e}");
    migrate::register(
        "item",
        Arc::new(|old: &[u8], new: &mut [u8]| {
            let value = u64::from_le_bytes(old[8..16].try_into().unwrap());
            new[..8].copy_from_slice(&(value * value).to_le_bytes());
        }),
    );
    let reader = Pool::open(&dir.0, READ).unwrap_err();
    assert!(reader.to_string().contains("for writing"), "{reader}");
    for _ in 0..2 {
        let pool = Pool::open(&dir.0, CREATE).unwrap();
        let root = pool.root().unwrap();
        let mut at = load(root + 16);
        for n in 1..=1000 {
            assert_eq!((load(at), load(at + 8)), (n * n, n));
            at = load(at + 16);
        }
        assert_eq!(at, root);
        assert_sound(&pool);
        pool.close().unwrap();
    }
}

/// The test plays two programs: the first one's types are forgotten.
fn forget_old() {
    vernal_pool::program::forget_all();
}
