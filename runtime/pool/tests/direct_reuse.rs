//! Direct pools: memory that a transaction gives up is not used for anything else before it has committed, so an abort or a
//! killed process brings objects back with their content.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vernal_pool::{OpenOptions, Pool, capi, tx};

const LIFE: &str = "VERNAL_TEST_LIFE";
const DIR: &str = "VERNAL_TEST_DIR";
const OPTIONS: OpenOptions = OpenOptions {
    create: true,
    exclusive: false,
    read_only: false,
    direct: true,
    eager: false,
};
/// Sizes before and after: slab to slab, in place, slab to pages, pages to slab, pages given back, pages added.
const SIZES: [(u64, u64); 8] = [
    (24, 200),
    (200, 120),
    (24, 9000),
    (2000, 24),
    (40_000, 24),
    (40_000, 5000),
    (4096, 40_000),
    (300_000, 8192),
];

fn word(addr: u64, i: u64) -> *mut u64 {
    (addr + 8 * i) as *mut u64
}

fn fill(addr: u64, size: u64, seed: u64) {
    for i in 0..size / 8 {
        // SAFETY: words of an object of the pool, freshly allocated or logged.
        unsafe { word(addr, i).write_volatile(seed + i) };
    }
}

fn check_filled(addr: u64, size: u64, seed: u64) {
    for i in 0..size / 8 {
        // SAFETY: words of an object of the pool.
        let value = unsafe { word(addr, i).read_volatile() };
        assert_eq!(value, seed + i, "word {i} of {size} bytes at {addr:#x}");
    }
}

/// The root object: the address of each object.
fn objects(pool: &Pool) -> Vec<u64> {
    let root = pool.root().unwrap();
    (0..SIZES.len() as u64)
        // SAFETY: words of the root object.
        .map(|i| unsafe { word(root, i).read_volatile() })
        .collect()
}

fn make(pool: &Pool) {
    tx::begin().unwrap();
    let root = pool.alloc_bytes(8 * SIZES.len() as u64).unwrap();
    for (i, (size, _)) in SIZES.into_iter().enumerate() {
        let at = pool.alloc_bytes(size).unwrap();
        fill(at, size, size);
        fill(root + 8 * i as u64, 8, at);
    }
    pool.set_root(root).unwrap();
    // Spans that are empty, and still this thread's, for the heap to give back when it runs out of pages.
    let spare: Vec<u64> = (0..2000).map(|_| pool.alloc_bytes(96).unwrap()).collect();
    tx::commit().unwrap();
    tx::begin().unwrap();
    for at in spare {
        pool.free(at).unwrap();
    }
    tx::commit().unwrap();
}

fn check(pool: &Pool) {
    for (at, (size, _)) in objects(pool).into_iter().zip(SIZES) {
        assert!(capi::usable_size(at).unwrap() >= size);
        check_filled(at, size, size);
    }
    let report = pool.check();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.all.objects, SIZES.len() as u64 + 1);
}

/// Resizes everything and then uses all the memory that there is.
fn resize_and_reuse(pool: &Pool) {
    for (at, (old, new)) in objects(pool).into_iter().zip(SIZES) {
        let to = capi::realloc(at, new).unwrap();
        check_filled(to, old.min(new) / 8 * 8, old);
        if to != at {
            assert!(capi::realloc(at, old).is_err(), "it was freed");
            assert!(capi::free(at).is_err(), "it was freed");
            fill(to, new, 0xdead_0000);
        }
    }
    for (size, count) in [(24, 300), (200, 100), (2000, 50), (4096, 200), (40_000, 20)] {
        for _ in 0..count {
            let at = pool.alloc_bytes(size).unwrap();
            fill(at, size, 0xbad_0000);
        }
    }
    // One puddle is 512 pages.
    for _ in 0..520 {
        let at = pool.alloc_bytes(4096).unwrap();
        fill(at, 4096, 0xbad_0000);
    }
}

#[test]
fn life() {
    let (Some(life), Some(dir)) = (std::env::var_os(LIFE), std::env::var_os(DIR)) else {
        return;
    };
    let pool = Pool::open(&PathBuf::from(dir), OPTIONS).unwrap();
    match life.to_str().unwrap() {
        "aborts" => {
            make(&pool);
            for _ in 0..3 {
                tx::begin().unwrap();
                resize_and_reuse(&pool);
                tx::abort().unwrap();
                check(&pool);
            }
            pool.close().unwrap();
        }
        "dies" => {
            if pool.root().is_none() {
                make(&pool);
            }
            check(&pool);
            tx::begin().unwrap();
            resize_and_reuse(&pool);
            std::process::abort();
        }
        "commits" => {
            check(&pool);
            tx::begin().unwrap();
            let root = pool.root().unwrap();
            for (i, (at, (_, new))) in objects(&pool).into_iter().zip(SIZES).enumerate() {
                let to = capi::realloc(at, new).unwrap();
                capi::tx_add(root, 8 * SIZES.len() as u64).unwrap();
                fill(root + 8 * i as u64, 8, to);
            }
            tx::commit().unwrap();
            for (at, (old, new)) in objects(&pool).into_iter().zip(SIZES) {
                check_filled(at, old.min(new) / 8 * 8, old);
            }
            let report = pool.check();
            assert!(report.problems.is_empty(), "{:?}", report.problems);
            assert_eq!(
                report.all.objects,
                SIZES.len() as u64 + 1,
                "the old places are free"
            );
            pool.close().unwrap();
        }
        other => panic!("no life is called {other}"),
    }
}

fn live(life: &str, dir: &Path) -> (Option<i32>, String) {
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life", "--nocapture", "--test-threads=1"])
        .env(LIFE, life)
        .env(DIR, dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    (out.status.code(), said)
}

fn temp() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("vernal-direct-reuse-")
        .tempdir_in("/dev/shm")
        .unwrap()
}

#[test]
fn an_abort_brings_objects_back_with_their_content() {
    let temp = temp();
    let (code, said) = live("aborts", &temp.path().join("pool"));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_killed_process_leaves_objects_with_their_content() {
    let temp = temp();
    let dir = temp.path().join("pool");
    for _ in 0..3 {
        let (code, said) = live("dies", &dir);
        assert_eq!(code, None, "it should have been killed: {said}");
    }
    let (code, said) = live("commits", &dir);
    assert_eq!(code, Some(0), "{said}");
}
