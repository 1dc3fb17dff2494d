//! Directories of pools as version 1 left them when their writer was killed: they open, recover, and hold every value.
//!
//! `cargo test -p vernal-puddled-tests --test golden_pools -- --ignored` writes those of the current version. A new version of a
//! format adds images and keeps the old ones.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_format::{
    LOG_CONTROL_OFFSET, LOG_HEADER_LEN, LogControl, LogHeader, LogSeed, SequenceRange,
};
use vernal_heap::ObjectSpace;
use vernal_pool::program::ProgramType;
use vernal_pool::{OpenOptions, Pool, capi, tx};
use vernal_puddled_tests::{pack, unpack};

const MIB: u64 = 1 << 20;
/// Nodes of the list when the pool was closed, and when its writer was killed.
const CLOSED: u64 = 40;
const KILLED: u64 = 47;
/// Slots of the table.
const SLOTS: u64 = 24;

static TURN: Mutex<()> = Mutex::new(());

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
}

fn pointer(target: &str) -> Shape {
    Shape::Pointer {
        target: target.into(),
        target_id: 0,
    }
}

fn program_type(builder: TypeBuilder) -> ProgramType {
    let blob = builder.build().expect("a valid type");
    ProgramType {
        desc: TypeDesc::parse(&blob).expect("a valid type"),
        bound: Vec::new(),
    }
}

/// `struct store { struct node *first; struct table *table; void *big; uint64_t count; char name[24]; double mean; bool open; }`
static STORE: LazyLock<ProgramType> = LazyLock::new(|| {
    let bytes = Shape::Array {
        count: 24,
        stride: 1,
        element: Box::new(Shape::Integer(1)),
    };
    program_type(
        TypeBuilder::new("store", 72, 8)
            .member("first", 0, pointer("node"))
            .member("table", 8, pointer("table"))
            .member("big", 16, pointer("void"))
            .member("count", 24, Shape::Integer(8))
            .member("name", 32, bytes)
            .member("mean", 56, Shape::Float(8))
            .member("open", 64, Shape::Bool),
    )
});
/// `struct node { struct node *next; uint64_t value; }`
static NODE: LazyLock<ProgramType> = LazyLock::new(|| {
    program_type(
        TypeBuilder::new("node", 16, 8)
            .member("next", 0, pointer("node"))
            .member("value", 8, Shape::Integer(8)),
    )
});
/// `struct table { uint64_t count; struct node *slots[]; }`
static TABLE: LazyLock<ProgramType> = LazyLock::new(|| {
    let slots = Shape::Flexible {
        stride: 8,
        element: Box::new(pointer("node")),
    };
    program_type(
        TypeBuilder::new("table", 8, 8)
            .member("count", 0, Shape::Integer(8))
            .member("slots", 8, slots),
    )
});

/// What compiled code does: a store and its mark.
fn store(addr: u64, value: u64) {
    // SAFETY: the address of a word of an object in an open pool.
    unsafe { (addr as *mut u64).write_volatile(value) };
    vernal_snapshot::thread::mark_range(addr, 8);
}

fn load(addr: u64) -> u64 {
    // SAFETY: as for `store`.
    unsafe { (addr as *const u64).read_volatile() }
}

fn text(words: [u8; 24]) -> [u64; 3] {
    let (words, _) = words.as_chunks::<8>();
    std::array::from_fn(|i| u64::from_le_bytes(words[i]))
}

const NAME: [u8; 24] = *b"written by version one!\0";
const LATER: [u8; 24] = *b"committed, not applied.\0";

fn options(direct: bool) -> OpenOptions {
    OpenOptions {
        create: true,
        direct,
        ..OpenOptions::default()
    }
}

fn big_word(i: u64) -> u64 {
    i.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn push(pool: &Pool, root: u64, value: u64) {
    let node = pool.alloc(16, &NODE, 2).unwrap();
    store(node, load(root));
    store(node + 8, value);
    store(root, node);
    store(root + 24, value + 1);
}

/// The buffered pool's first life: everything that a pool can hold, then closed.
fn fill(dir: &Path) {
    let pool = Pool::open(dir, options(false)).unwrap();
    tx::begin().unwrap();
    let root = pool.alloc(72, &STORE, 1).unwrap();
    pool.set_root(root).unwrap();
    for (i, word) in text(NAME).into_iter().enumerate() {
        store(root + 32 + i as u64 * 8, word);
    }
    store(root + 56, 2.5f64.to_bits());
    store(root + 64, 1);
    for value in 0..CLOSED {
        push(&pool, root, value);
    }
    let table = pool.alloc(8 + 8 * SLOTS, &TABLE, 3).unwrap();
    store(table, SLOTS);
    let mut node = load(root);
    for slot in 0..SLOTS {
        // Every third one is empty.
        if slot % 3 != 2 {
            store(table + 8 + slot * 8, node);
        }
        node = load(node);
    }
    store(root + 8, table);
    tx::commit().unwrap();
    // More than the first puddle has.
    tx::begin().unwrap();
    let big = pool.alloc_bytes(3 * MIB).unwrap();
    for i in (0..3 * MIB / 8).step_by(4096) {
        store(big + i * 8, big_word(i));
    }
    store(root + 16, big);
    let gone = pool.alloc_bytes(20_000).unwrap();
    tx::commit().unwrap();
    tx::begin().unwrap();
    pool.free(gone).unwrap();
    tx::commit().unwrap();
    pool.close().unwrap();
}

/// Its second life: commits, growth, an abort, and death in the middle of a transaction.
fn go_on(dir: &Path) {
    let pool = Pool::open(dir, options(false)).unwrap();
    let root = pool.root().unwrap();
    for value in CLOSED..KILLED {
        tx::begin().unwrap();
        push(&pool, root, value);
        tx::commit().unwrap();
    }
    tx::begin().unwrap();
    for (i, word) in text(LATER).into_iter().enumerate() {
        store(root + 32 + i as u64 * 8, word);
    }
    let more = pool.alloc_bytes(5 * MIB).unwrap();
    store(more, 0x5a5a);
    store(load(root + 16) + 8, more);
    tx::commit().unwrap();
    tx::begin().unwrap();
    push(&pool, root, 1_000);
    tx::abort().unwrap();
    tx::begin().unwrap();
    push(&pool, root, 2_000);
    store(root + 56, 0);
}

/// Checks every value. `big + 8` leads to the third puddle's object, in memory without type: a plain number.
fn check(pool: &Pool) {
    let root = pool.root().expect("a root object");
    assert_eq!(load(root + 24), KILLED);
    let (mut nodes, mut node) = (Vec::new(), load(root));
    while node != 0 {
        nodes.push(node);
        assert_eq!(load(node + 8), KILLED - nodes.len() as u64);
        node = load(node);
    }
    assert_eq!(nodes.len() as u64, KILLED);
    let table = load(root + 8);
    assert_eq!(load(table), SLOTS);
    for slot in 0..SLOTS {
        let expected = nodes[(KILLED - CLOSED + slot) as usize];
        let expected = if slot % 3 == 2 { 0 } else { expected };
        assert_eq!(load(table + 8 + slot * 8), expected, "slot {slot}");
    }
    let name: Vec<u64> = (0..3).map(|i| load(root + 32 + i * 8)).collect();
    assert_eq!(name, text(LATER));
    assert_eq!(f64::from_bits(load(root + 56)), 2.5);
    assert_eq!(load(root + 64), 1);
    let big = load(root + 16);
    for i in (0..3 * MIB / 8).step_by(4096) {
        assert_eq!(load(big + i * 8), big_word(i));
    }
    let report = pool.check();
    assert!(report.is_sound(), "{report:?}");
    let directory = pool.directory().unwrap();
    assert_eq!(directory.len(), 3);
    assert!(!pool.identity().direct);
    // Types by name and layout, objects of each, and nothing besides.
    let space = pool.space();
    let mut counts = std::collections::BTreeMap::new();
    for chunk in 0..space.chunk_count() {
        space.for_each_object(chunk, &mut |object| {
            let name = space.type_desc(object.type_index).map(|t| t.name());
            *counts.entry(name.unwrap_or_default()).or_insert(0u64) += 1;
            true
        });
    }
    for (ty, count) in [(&STORE, 1), (&NODE, KILLED), (&TABLE, 1)] {
        assert_eq!(counts.get(ty.desc.name()), Some(&count), "{counts:?}");
        let index = [root, nodes[0], table]
            .iter()
            .filter_map(|addr| space.object_at(*addr))
            .find(|object| {
                space
                    .type_desc(object.type_index)
                    .is_some_and(|t| t.name() == ty.desc.name())
            })
            .expect("an object of the type");
        let desc = space.type_desc(index.type_index).unwrap();
        assert_eq!(desc.id(), ty.desc.id(), "{}", desc.name());
    }
    let more = directory.iter().map(|e| e.size).max().unwrap();
    assert!(more >= 5 * MIB, "{directory:?}");
}

/// The direct pool: values, their doubles, and how many there are.
fn push_direct(pool: &Pool, root: u64, value: u64, redo: bool) {
    let node = pool.alloc_bytes(24).unwrap();
    for (i, word) in [load(root), value, value * 2].into_iter().enumerate() {
        store(node + i as u64 * 8, word);
    }
    let length = value + 1;
    if redo {
        // SAFETY: both values are 8 bytes.
        unsafe {
            capi::tx_set(root, (&raw const node).cast(), 8).unwrap();
            capi::tx_set(root + 8, (&raw const length).cast(), 8).unwrap();
        }
    } else {
        capi::tx_add(root, 16).unwrap();
        store(root, node);
        store(root + 8, length);
    }
}

/// Committed transactions with undo and redo entries, then one that ends by the hand of the test: in its middle, or at an
/// injection point.
fn live_direct(dir: &Path, redo: bool) {
    let pool = Pool::open(dir, options(true)).unwrap();
    tx::begin().unwrap();
    let root = pool.alloc_bytes(16).unwrap();
    pool.set_root(root).unwrap();
    tx::commit().unwrap();
    for value in 0..20 {
        tx::begin().unwrap();
        push_direct(&pool, root, value, value % 2 == 0);
        tx::commit().unwrap();
    }
    tx::begin().unwrap();
    // Both kinds of entries: the second one's redo follows the first one's change in place.
    push_direct(&pool, root, 20, false);
    push_direct(&pool, root, 21, redo);
    if redo {
        // What is in place when the commit begins; the test puts it back. The copy's name says that it is no puddle.
        for name in names(dir).iter().filter(|n| n.ends_with(".puddle")) {
            fs::copy(dir.join(name), dir.join(format!("{name}.before"))).unwrap();
        }
        tx::commit().unwrap();
    }
}

/// Sets a pool back to the moment at which its last transaction had committed, and nothing of its redo entries was in place.
fn decided(dir: &Path) {
    for name in names(dir) {
        if let Some(puddle) = name.strip_suffix(".before") {
            fs::rename(dir.join(&name), dir.join(puddle)).unwrap();
        }
        if name.contains(".vernal-log-") {
            let file = fs::File::options()
                .read(true)
                .write(true)
                .open(dir.join(&name))
                .unwrap();
            let mut header = [0; LOG_HEADER_LEN];
            file.read_exact_at(&mut header, 0).unwrap();
            let seed = LogSeed::new(LogHeader::decode(&header).unwrap().log);
            let mut word = [0; 8];
            file.read_exact_at(&mut word, LOG_CONTROL_OFFSET).unwrap();
            let done = LogControl::decode(u64::from_le_bytes(word), seed).unwrap();
            let decided = LogControl {
                generation: done.generation - 1,
                range: SequenceRange::REDO,
            };
            file.write_all_at(&decided.encode(seed).to_le_bytes(), LOG_CONTROL_OFFSET)
                .unwrap();
        }
    }
}

fn check_direct(pool: &Pool, nodes: u64) {
    let root = pool.root().expect("a root object");
    let (mut left, mut node) = (nodes, load(root));
    while node != 0 {
        left -= 1;
        assert_eq!((load(node + 8), load(node + 16)), (left, left * 2));
        node = load(node);
    }
    assert_eq!((left, load(root + 8)), (0, nodes));
    let report = pool.check();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.all.objects, nodes + 1);
    assert!(pool.identity().direct);
}

const LIFE: &str = "VERNAL_GOLDEN_LIFE";
const DIR: &str = "VERNAL_GOLDEN_DIR";

#[test]
fn life() {
    let (Some(life), Some(dir)) = (std::env::var_os(LIFE), std::env::var_os(DIR)) else {
        return;
    };
    vernal_snapshot::runtime::init();
    let dir = PathBuf::from(dir);
    match life.to_str().unwrap() {
        "fill" => return fill(&dir),
        "go on" => go_on(&dir),
        "undo" => live_direct(&dir, false),
        "redo" => live_direct(&dir, true),
        other => panic!("no life is called {other}"),
    }
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
}

/// Runs a life; whether it was killed.
fn live(life: &str, dir: &Path) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life", "--test-threads=1"])
        .env(LIFE, life)
        .env(DIR, dir)
        .status()
        .unwrap();
    assert!(status.success() || status.signal() == Some(9), "{status}");
    !status.success()
}

/// A copy of an image, on a file system of the kind that its pool wants.
fn unpacked(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::Builder::new()
        .prefix("vernal-golden-")
        .tempdir_in(if name.starts_with("direct") {
            Path::new("/dev/shm").to_owned()
        } else {
            std::env::temp_dir()
        })
        .unwrap();
    let pool = dir.path().join("pool");
    unpack(&golden(name), &pool).unwrap();
    (dir, pool)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_buffered_pool_of_version_1_with_a_journal_that_is_pending() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (_dir, dir) = unpacked("pool-v1");
    // Everything since the pool was closed hangs on the journal: without it, the puddles are of another time.
    assert!(
        names(&dir).iter().any(|n| n.contains(".vernal-journal-")),
        "{:?}",
        names(&dir)
    );
    let pool = Pool::open(&dir, OpenOptions::default()).unwrap();
    check(&pool);
    // It goes on as any other.
    let root = pool.root().unwrap();
    tx::begin().unwrap();
    push(&pool, root, KILLED);
    tx::commit().unwrap();
    pool.close().unwrap();
    assert!(
        !names(&dir).iter().any(|n| n.contains("journal")),
        "{:?}",
        names(&dir)
    );
    let pool = Pool::open(&dir, OpenOptions::default()).unwrap();
    assert_eq!(load(pool.root().unwrap() + 24), KILLED + 1);
    pool.close().unwrap();
}

#[test]
fn a_reader_opens_a_buffered_pool_of_version_1() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (_dir, dir) = unpacked("pool-v1");
    let options = OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    };
    let pool = Pool::open(&dir, options).unwrap();
    check(&pool);
    pool.close().unwrap();
}

#[test]
fn direct_pools_of_version_1_whose_logs_are_undone_or_redone() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, nodes) in [("direct-undo-v1", 20), ("direct-redo-v1", 22)] {
        let (_dir, dir) = unpacked(name);
        let logs = |dir: &Path| {
            names(dir)
                .iter()
                .filter(|n| n.contains("vernal-log"))
                .count()
        };
        assert!(logs(&dir) >= 2, "{:?}", names(&dir));
        let pool = Pool::open(
            &dir,
            OpenOptions {
                direct: true,
                ..OpenOptions::default()
            },
        )
        .unwrap();
        check_direct(&pool, nodes);
        let root = pool.root().unwrap();
        tx::begin().unwrap();
        push_direct(&pool, root, nodes, true);
        tx::commit().unwrap();
        check_direct(&pool, nodes + 1);
        pool.close().unwrap();
        assert_eq!(logs(&dir), 0, "{:?}", names(&dir));
    }
}

/// Where images are made: a place that no machine that opens them has.
fn workshop(name: &str) -> PathBuf {
    let dir = PathBuf::from(format!("/dev/shm/vernal-golden-{}", std::process::id())).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.parent().unwrap()).unwrap();
    dir
}

#[test]
#[ignore = "writes the golden images of a new format version"]
fn write_golden() {
    fs::create_dir_all(golden("")).unwrap();
    let dir = workshop("pool");
    assert!(!live("fill", &dir));
    let puddles = |dir: &Path| {
        let all = names(dir).into_iter().filter(|n| n.ends_with(".puddle"));
        all.map(|n| (n.clone(), fs::read(dir.join(&n)).unwrap()))
            .collect::<Vec<_>>()
    };
    let before = puddles(&dir);
    assert_eq!(before.len(), 2);
    assert!(live("go on", &dir));
    // The puddles were not flushed since: a crash may leave all of them as they were, so that everything hangs on the journal.
    let after = puddles(&dir);
    assert_eq!(after.len(), 3);
    for (name, content) in before {
        fs::write(dir.join(name), content).unwrap();
    }
    pack(&dir, &golden("pool-v1")).unwrap();
    fs::remove_dir_all(&dir).unwrap();

    let dir = workshop("direct");
    assert!(live("undo", &dir));
    pack(&dir, &golden("direct-undo-v1")).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert!(live("redo", &dir));
    decided(&dir);
    pack(&dir, &golden("direct-redo-v1")).unwrap();
    fs::remove_dir_all(dir.parent().unwrap()).unwrap();
}
