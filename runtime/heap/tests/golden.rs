//! A pool as version 1 wrote it: it must open, be sound and hold what it held, and the same calls must write the same words.
//! To write the image anew after a change of the format: `VERNAL_WRITE_GOLDEN=1 cargo test -p vernal-heap --test golden`,
//! under a new name with the new version; this one stays.
mod common;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use common::{BASE, MIB, TestMemory, fill, is_filled, pool, sound};
use vernal_format::types::{Shape, TypeBuilder};
use vernal_heap::{Heap, ObjectSpace, OwnedMemory, PoolMemory, TYPE_FIRST};

const IMAGE: &str = include_str!("golden/pool-v1.txt");

/// An object of each kind, linked by nothing.
fn build() -> (Arc<TestMemory>, [u64; 4]) {
    let (mem, heap) = pool(&[2 * MIB, 2 * MIB]);
    let mut cache = heap.thread_cache();
    let pointer = Shape::Pointer {
        target: "node".to_owned(),
        target_id: 0,
    };
    let blob = TypeBuilder::new("node", 16, 8)
        .member("next", 0, pointer)
        .member("key", 8, Shape::Integer(8))
        .build()
        .unwrap();
    let node = heap.intern_type(&mut cache, &blob).unwrap();
    let sizes = [16, 1000, 4000, 3 * MIB / 2];
    let objects = sizes.map(|size| {
        let addr = heap.alloc(&mut cache, size, 16, node).unwrap();
        fill(&mem, addr, 16, addr);
        addr
    });
    let gone = heap.alloc(&mut cache, 16, 16, node).unwrap();
    heap.free(gone).unwrap();
    heap.set_root(objects[1]).unwrap();
    heap.set_binding_record(objects[2]).unwrap();
    heap.set_chunk_epochs(1, 1, 1).unwrap();
    (mem, objects)
}

/// The words that are not zero, one a line.
fn text(mem: &TestMemory) -> String {
    let mut text = String::new();
    for (base, words) in mem.inner.areas() {
        for (i, word) in words.iter().enumerate() {
            let value = word.load(Relaxed);
            if value != 0 {
                writeln!(text, "{:x} {value:016x}", base + i as u64 * 8).unwrap();
            }
        }
    }
    text
}

#[test]
fn the_same_calls_write_the_same_words() {
    let now = text(&build().0);
    if std::env::var_os("VERNAL_WRITE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pool-v1.txt");
        std::fs::write(path, &now).unwrap();
    }
    let differs = IMAGE.lines().zip(now.lines()).find(|(a, b)| a != b);
    assert_eq!(
        differs, None,
        "the format has changed: give it a new version"
    );
    assert_eq!(IMAGE.len(), now.len());
}

#[test]
fn an_image_of_version_1_opens() {
    let mut mem = OwnedMemory::new();
    mem.add_zeroed(BASE, 2 * MIB);
    mem.add_zeroed(BASE + 2 * MIB, 2 * MIB);
    for line in IMAGE.lines() {
        let (addr, value) = line.split_once(' ').unwrap();
        let hex = |s| u64::from_str_radix(s, 16).unwrap();
        mem.words(hex(addr), 1).unwrap()[0].store(hex(value), Relaxed);
    }
    let (same, objects) = build();
    let heap = Heap::open(mem, &same.puddles()).unwrap();
    let report = sound(&heap);
    assert_eq!(report.all.objects, objects.len() as u64 + 2);
    assert_eq!(heap.root(), Some(objects[1]));
    assert_eq!(heap.binding_record(), Some(objects[2]));
    assert_eq!(heap.type_desc(TYPE_FIRST).unwrap().name(), "node");
    for addr in objects {
        assert_eq!(heap.object_exact(addr).unwrap().type_index, TYPE_FIRST);
        assert_eq!(heap.memory().words(addr, 1).unwrap()[0].load(Relaxed), addr);
        assert!(is_filled(&same, addr, 16, addr));
    }
}
