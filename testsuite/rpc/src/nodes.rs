//! A list in a heap, as a program has it: the objects that the tests pass.

use std::sync::{Arc, LazyLock};

use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_pool::Pool;
use vernal_pool::program::ProgramType;
use vernal_rpc_core::KnownTypes;

/// `struct node { struct node *next; uint64_t value; }`.
pub static NODE: LazyLock<ProgramType> = LazyLock::new(|| {
    let next = Shape::Pointer {
        target: "node".into(),
        target_id: 0,
    };
    let blob = TypeBuilder::new("node", 16, 8)
        .member("next", 0, next)
        .member("value", 8, Shape::Integer(8))
        .build()
        .expect("a valid type");
    ProgramType {
        desc: TypeDesc::parse(&blob).expect("a valid type"),
        bound: Vec::new(),
    }
});

/// A type that is as large, and has no pointer.
pub static PAIR: LazyLock<ProgramType> = LazyLock::new(|| {
    let blob = TypeBuilder::new("pair", 16, 8)
        .member("first", 0, Shape::Integer(8))
        .member("second", 8, Shape::Integer(8))
        .build()
        .expect("a valid type");
    ProgramType {
        desc: TypeDesc::parse(&blob).expect("a valid type"),
        bound: Vec::new(),
    }
});

/// What the processes of the tests know.
pub fn types() -> Arc<KnownTypes> {
    Arc::new(KnownTypes::new([&NODE.desc, &PAIR.desc]))
}

/// Writes a word of an object of this process.
pub fn store(addr: u64, value: u64) {
    // SAFETY: callers pass the address of a word of an object that they have allocated and not freed.
    unsafe { (addr as *mut u64).write_volatile(value) };
}

/// Reads a word of an object.
pub fn load(addr: u64) -> u64 {
    // SAFETY: callers pass the address of a word of an object that is theirs, or that was admitted.
    unsafe { (addr as *const u64).read_volatile() }
}

/// A list of these values; the first node, 0 if there is none.
pub fn list(pool: &Pool, values: impl DoubleEndedIterator<Item = u64>) -> u64 {
    let mut first = 0;
    for value in values.rev() {
        let node = pool.alloc(16, &NODE, 1).expect("a node");
        store(node, first);
        store(node + 8, value);
        first = node;
    }
    first
}

/// Frees a list.
pub fn free(pool: &Pool, mut at: u64) {
    while at != 0 {
        let next = load(at);
        pool.free(at).expect("a node");
        at = next;
    }
}

/// Its length and the sum of its values.
pub fn sum(mut at: u64) -> (u64, u64) {
    let (mut count, mut sum) = (0, 0u64);
    while at != 0 && count < 10_000_000 {
        sum = sum.wrapping_add(load(at + 8));
        at = load(at);
        count += 1;
    }
    (count, sum)
}
