//! What the tests of mapped pools share: a type, a directory in memory, instrumented stores.
#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard};
use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_pool::program::ProgramType;
use vernal_pool::{OpenOptions, Pool};

/// A list node: `next`, `value`, as `struct node { struct node *next; uint64_t value; }`.
pub static NODE: LazyLock<ProgramType> = LazyLock::new(|| {
    let blob = TypeBuilder::new("node", 16, 8)
        .member(
            "next",
            0,
            Shape::Pointer {
                target: "node".into(),
                target_id: 0,
            },
        )
        .member("value", 8, Shape::Integer(8))
        .build()
        .expect("a valid type");
    ProgramType {
        desc: TypeDesc::parse(&blob).expect("a valid type"),
        bound: Vec::new(),
    }
});

static TURN: Mutex<()> = Mutex::new(());

/// Transactions are of the process: tests that use them take turns.
pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|e| e.into_inner())
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A directory of its own, removed when the test ends.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!(
            "/dev/shm/vernal-pool-{}-{n}-{name}",
            std::process::id()
        ));
        let _ = std::fs::remove_dir_all(&path);
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub const CREATE: OpenOptions = OpenOptions {
    create: true,
    exclusive: false,
    read_only: false,
    direct: false,
    eager: false,
};

pub const READ: OpenOptions = OpenOptions {
    create: false,
    exclusive: false,
    read_only: true,
    direct: false,
    eager: false,
};

/// What compiled code does: a store and its mark.
pub fn store(addr: u64, value: u64) {
    // SAFETY: the tests pass addresses of words of open pools.
    unsafe { (addr as *mut u64).write_volatile(value) };
    vernal_snapshot::thread::mark_range(addr, 8);
}

pub fn load(addr: u64) -> u64 {
    // SAFETY: as above.
    unsafe { (addr as *const u64).read_volatile() }
}

pub fn node(pool: &Pool) -> u64 {
    pool.alloc(16, &NODE, 1).expect("a node")
}

/// Puts a node with this value at the front of the list whose first node is the root object's successor.
pub fn push(pool: &Pool, value: u64) {
    let root = root(pool);
    let n = node(pool);
    store(n, load(root));
    store(n + 8, value);
    store(root, n);
    store(root + 8, load(root + 8) + 1);
}

/// The root node: `value` counts the list.
pub fn root(pool: &Pool) -> u64 {
    match pool.root() {
        Some(r) => r,
        None => {
            let r = node(pool);
            pool.set_root(r).expect("a root");
            r
        }
    }
}

/// The values of the list, front first; the root's count must agree.
pub fn list(pool: &Pool) -> Vec<u64> {
    let Some(root) = pool.root() else {
        return Vec::new();
    };
    let mut values = Vec::new();
    let mut at = load(root);
    let count = load(root + 8);
    while at != 0 {
        values.push(load(at + 8));
        at = load(at);
        assert!(
            values.len() as u64 <= count,
            "the list is longer than its count"
        );
    }
    assert_eq!(values.len() as u64, count);
    values
}

pub fn assert_sound(pool: &Pool) {
    let report = pool.check();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

/// Gives the puddles of a pool homes that are old addresses of others, or overlap their own: a pointer that is rewritten twice,
/// or not at all, then leads somewhere else, instead of nowhere.
pub fn shuffle(path: &std::path::Path) {
    let mut dir = vernal_pool::dir::PoolDir::open(path).expect("a pool");
    let (_, slots) = vernal_pool::archive::peek(path).expect("a pool page");
    let mut next: Vec<(u64, u64)> = slots.iter().map(|s| (s.size, s.current)).collect();
    let alone = |size: u64| slots.iter().filter(|s| s.size == size).count() == 1;
    dir.assign_addresses(|size| {
        // The last of its size first: two of a size swap.
        let at = next.iter().rposition(|(s, _)| *s == size).expect("a size");
        let (_, addr) = next.remove(at);
        Ok(match alone(size) {
            // Up or down: further moves stay near, and in the embedded half of the space.
            true if addr.is_multiple_of(size.max(4 << 20)) => addr + (2 << 20),
            true => addr - (2 << 20),
            false => addr,
        })
    })
    .expect("new homes");
}
