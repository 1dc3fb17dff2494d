//! A pool whose words are hostile: opened, checked, walked, and used.

use crate::input::Input;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use vernal_abi::TRACKED_BASE;
use vernal_abi::puddle::PUDDLE_MIN;
use vernal_format::Uuid;
use vernal_format::types::{Shape, TypeBuilder};
use vernal_heap::walk::{Budget, Plans, PoolRanges, VerifyOptions, reach, scan_external, verify};
use vernal_heap::{Heap, HeapError, Mapped, ObjectSpace, OwnedMemory, PoolIdentity};

const ROOT: Mapped = Mapped {
    uuid: Uuid([1; 16]),
    addr: TRACKED_BASE + (1 << 30),
    size: PUDDLE_MIN,
};
/// Words of a page.
const PAGE: usize = 512;
/// Pages in which the allocator's metadata and the first objects lie.
const PAGES: usize = 48;
/// Objects and bytes that a walk may visit.
const BUDGET: Budget = Budget {
    objects: 10_000,
    bytes: 1 << 20,
};

/// A small pool with lists, an array and a large object.
fn healthy() -> &'static [u64] {
    static WORDS: OnceLock<Vec<u64>> = OnceLock::new();
    WORDS.get_or_init(|| match make() {
        Ok(words) => words,
        Err(e) => panic!("the healthy pool cannot be made: {e}"),
    })
}

fn make() -> Result<Vec<u64>, HeapError> {
    let mut memory = OwnedMemory::new();
    memory.add_zeroed(ROOT.addr, ROOT.size);
    let identity = PoolIdentity {
        uuid: Uuid([7; 16]),
        label: "fuzz".into(),
        direct: false,
    };
    Heap::format_root(&memory, ROOT, &identity)?;
    let heap = Heap::open(&memory, &[ROOT])?;
    let mut cache = heap.thread_cache();
    let pointer = |target: &str| Shape::Pointer {
        target: target.into(),
        target_id: 0,
    };
    let node = TypeBuilder::new("node", 32, 8)
        .member("next", 0, pointer("node"))
        .member("other", 8, pointer("void"))
        .member("value", 16, Shape::Integer(8))
        .build();
    let table = TypeBuilder::new("table", 8, 8)
        .member("slot", 0, pointer("node"))
        .build();
    let (Ok(node), Ok(table)) = (node, table) else {
        return Ok(Vec::new());
    };
    let node = heap.intern_type(&mut cache, &node)?;
    let table = heap.intern_type(&mut cache, &table)?;
    let root = heap.alloc(&mut cache, 800, 8, table)?;
    heap.set_root(root)?;
    let set = |addr: u64, value: u64| {
        if let Some([word]) = ObjectSpace::words(&heap, addr, 1) {
            word.store(value, Ordering::Relaxed);
        }
    };
    for slot in 0..100 {
        let (first, second) = (
            heap.alloc(&mut cache, 32, 8, node)?,
            heap.alloc(&mut cache, 32, 8, node)?,
        );
        set(root + slot * 8, first);
        set(first, second);
        set(second + 8, root);
    }
    let large = heap.alloc(&mut cache, 20_000, 8, vernal_heap::TYPE_RAW)?;
    set(root + 8, large);
    drop(cache);
    drop(heap);
    let words = memory.areas().flat_map(|(_, words)| words);
    Ok(words.map(|word| word.load(Ordering::Relaxed)).collect())
}

/// Changes words of a healthy pool as the input says, then uses it.
pub(crate) fn hostile(bytes: &[u8]) {
    let mut words = healthy().to_vec();
    let mut input = Input(bytes);
    while !input.is_empty() {
        let place = usize::from(input.u16());
        let at = place % (PAGE * PAGES);
        let value = match input.u8() {
            0 => input.u64(),
            1 => ROOT.addr + u64::from(input.u32()) % (PUDDLE_MIN + 4096),
            2 => u64::from(input.u16()),
            flip => words.get(at).copied().unwrap_or(0) ^ 1 << (flip & 63),
        };
        if let Some(word) = words.get_mut(at) {
            *word = value;
        }
    }
    let mut memory = OwnedMemory::new();
    memory.add_words(ROOT.addr, words.into_iter().map(AtomicU64::new).collect());
    match Heap::read_directory(&memory, ROOT) {
        Ok(entries) => assert!(!entries.is_empty()),
        Err(e) => drop(e.to_string()),
    }
    let heap = match Heap::open(&memory, &[ROOT]) {
        Ok(heap) => heap,
        Err(e) => return drop(e.to_string()),
    };
    let report = heap.check();
    assert!(report.problems.len() <= vernal_heap::CheckReport::MAX_PROBLEMS);
    let plans = Plans::of(&heap);
    let options = VerifyOptions {
        budget: BUDGET,
        ..VerifyOptions::default()
    };
    for problem in verify(&heap, &plans, options).problems {
        let _ = problem.to_string();
    }
    let ranges = PoolRanges::of(&heap);
    for chunk in 0..heap.chunk_count() {
        scan_external(&heap, &plans, &ranges, chunk, true, &mut |finding| {
            let _ = finding.name(&heap);
            true
        });
    }
    let (reached, _) = reach(&heap, &plans, &[], BUDGET);
    let _ = heap.leaks(&reached);
    let mut cache = heap.thread_cache();
    for size in [16, 200, 3000, 9000] {
        if let Ok(addr) = heap.alloc(&mut cache, size, 8, vernal_heap::TYPE_RAW) {
            let _ = heap.resize_in_place(addr, size * 2);
            let _ = heap.free(addr);
        }
    }
    if let Some(root) = heap.root() {
        let _ = heap.free(root);
    }
}
