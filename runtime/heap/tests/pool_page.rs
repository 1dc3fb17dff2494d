//! Root object, type table, epochs and the directory, through commits, aborts and reopening.
mod common;

use std::sync::Arc;

use common::{MIB, pool, sound, uuid};
use vernal_format::types::{Shape, TypeBuilder};
use vernal_heap::{Heap, HeapError, ObjectSet, ObjectSpace, TYPE_FIRST, TYPE_META, TYPE_RAW};

fn blob(n: u64) -> Vec<u8> {
    let target = format!("type{n}");
    let pointer = Shape::Pointer {
        target: target.clone(),
        target_id: 0,
    };
    TypeBuilder::new(&target, 16, 8)
        .member("next", 8, pointer)
        .build()
        .unwrap()
}

#[test]
fn types_are_interned_once_and_found_again() {
    let (mem, heap) = pool(&[2 * MIB]);
    let mut cache = heap.thread_cache();
    for n in 0..300 {
        let index = heap.intern_type(&mut cache, &blob(n)).unwrap();
        assert_eq!(index, TYPE_FIRST + n as u32);
        assert_eq!(heap.intern_type(&mut cache, &blob(n)), Ok(index));
    }
    let object = heap.alloc(&mut cache, 16, 16, TYPE_FIRST + 299).unwrap();
    let again = Heap::open(Arc::clone(&mem), &mem.puddles()).unwrap();
    for heap in [&heap, &again] {
        assert_eq!(heap.type_end(), TYPE_FIRST + 300);
        for n in 0..300 {
            let desc = heap.type_desc(TYPE_FIRST + n).unwrap();
            assert_eq!(desc.name(), format!("type{n}"));
            assert_eq!(heap.type_blob(TYPE_FIRST + n).unwrap(), blob(n.into()));
            assert_eq!(heap.find_type(desc.id()), Some(TYPE_FIRST + n));
        }
        assert_eq!(heap.type_desc(TYPE_RAW), None);
        assert_eq!(heap.type_desc(TYPE_META), None);
        assert_eq!(heap.type_desc(TYPE_FIRST + 300), None);
        sound(heap);
    }
    // The table's own objects are no leaks.
    let leaks = heap.leaks(&ObjectSet::new()).unwrap();
    assert_eq!(leaks.iter().map(|o| o.addr).collect::<Vec<_>>(), [object]);
    assert!(heap.intern_type(&mut cache, b"no descriptor").is_err());
}

#[test]
fn an_abort_takes_types_root_and_puddles_back() {
    let mem = common::TestMemory::new(&[2 * MIB, 4 * MIB]);
    let puddles = mem.puddles();
    Heap::format_root(&mem, puddles[0], &common::identity()).unwrap();
    let heap = Heap::open(Arc::clone(&mem), &puddles[..1]).unwrap();
    let mut cache = heap.thread_cache();
    let first = heap.intern_type(&mut cache, &blob(0)).unwrap();
    let kept = heap.alloc(&mut cache, 100, 16, first).unwrap();
    heap.set_root(kept).unwrap();
    let abort = |snapshot: &[Vec<u64>]| {
        for (addr, len) in mem.restore(snapshot) {
            heap.restored(addr, len);
        }
    };
    let before = mem.snapshot();
    let report = sound(&heap);
    let aborted = heap.intern_type(&mut cache, &blob(1)).unwrap();
    assert_eq!(heap.type_desc(aborted).unwrap().name(), "type1");
    heap.add_puddle(puddles[1]).unwrap();
    let large = heap.alloc(&mut cache, 3 * MIB, 16, aborted).unwrap();
    heap.set_root(large).unwrap();
    heap.begin_address_epoch().unwrap();
    abort(&before);
    assert_eq!(heap.type_desc(aborted), None);
    assert_eq!(heap.root(), Some(kept));
    assert_eq!(heap.object_at(large), None);
    assert_eq!(heap.free(large), Err(HeapError::Outside { addr: large }));
    assert_eq!(sound(&heap), report);
    assert!(heap.alloc(&mut cache, 3 * MIB, 16, TYPE_RAW).is_err());

    // The same index now names another type, and a puddle that is removed comes back with its abort.
    assert_eq!(heap.intern_type(&mut cache, &blob(2)), Ok(aborted));
    assert_eq!(heap.type_desc(aborted).unwrap().name(), "type2");
    heap.add_puddle(puddles[1]).unwrap();
    let with_two = mem.snapshot();
    heap.remove_puddle(uuid(2)).unwrap();
    assert_eq!(heap.chunk_count(), 1);
    abort(&with_two);
    assert_eq!(heap.chunk_count(), 3);
    let large = heap.alloc(&mut cache, 3 * MIB, 16, aborted).unwrap();
    heap.set_root(large).unwrap();
    let again = Heap::open(Arc::clone(&mem), &puddles).unwrap();
    assert_eq!(again.root(), Some(large));
    heap.set_root(0).unwrap();
    assert_eq!(heap.root(), None);
    assert!(heap.set_root(large + 8).is_err());
    sound(&heap);
}

#[test]
fn moved_puddles_open_where_they_are() {
    let (mem, heap) = pool(&[2 * MIB, 4 * MIB]);
    let mut cache = heap.thread_cache();
    let index = heap.intern_type(&mut cache, &blob(0)).unwrap();
    let object = heap.alloc(&mut cache, 3 * MIB / 2, 16, index).unwrap();
    heap.set_root(object).unwrap();
    // The same words elsewhere.
    let mut moved = vernal_heap::OwnedMemory::new();
    let mut puddles = mem.puddles();
    for (puddle, words) in puddles.iter_mut().zip(mem.snapshot()) {
        puddle.addr += 1 << 36;
        moved.add_words(puddle.addr, words.into_iter().map(Into::into).collect());
    }
    let copy = Heap::open(moved, &puddles).unwrap();
    assert_eq!(copy.root(), Some(object + (1 << 36)));
    assert_eq!(copy.type_desc(index), heap.type_desc(index));
    sound(&copy);
    // Pointers are still those of the old addresses, until a new epoch says so and each chunk was rewritten.
    let old = heap.directory().unwrap();
    assert_eq!(copy.directory().unwrap(), old);
    assert_eq!(copy.epochs(), Ok((1, 1)));
    assert_eq!(copy.begin_address_epoch(), Ok(2));
    for (entry, old) in copy.directory().unwrap().iter().zip(&old) {
        assert_eq!(entry.previous, old.current);
        assert_eq!(entry.current, old.current + (1 << 36));
    }
    for chunk in 0..copy.chunk_count() {
        assert_eq!(copy.chunk_epochs(chunk), Ok((1, 1)));
        copy.set_chunk_epochs(chunk, 2, 1).unwrap();
        assert_eq!(copy.chunk_epochs(chunk), Ok((2, 1)));
    }
    assert!(copy.chunk_epochs(copy.chunk_count()).is_err());
    assert_eq!(copy.begin_binding_epoch(), Ok(2));
    sound(&copy);
}

#[test]
fn wrong_puddles_are_refused_by_name() {
    let (mem, _heap) = pool(&[2 * MIB, 4 * MIB]);
    let good = mem.puddles();
    let open = |puddles: &[vernal_heap::Mapped]| match Heap::open(Arc::clone(&mem), puddles) {
        Ok(_) => panic!("opened"),
        Err(e) => e.to_string(),
    };
    assert!(open(&[]).contains("not in the pool's directory"));
    assert!(open(&good[1..]).contains("not the root puddle"));
    assert!(open(&good[..1]).contains("is missing"));
    let mut other = good.clone();
    other[1].size = 2 * MIB;
    assert!(open(&other).contains("another size"));
    let mut other = good.clone();
    other[1].addr = good[0].addr;
    assert!(open(&other).contains("cannot be used"));
    let mut other = good.clone();
    other[0].addr += 4096;
    assert!(open(&other).contains("not that of a puddle"));
    let mut other = good;
    other[1].addr += 1 << 36;
    assert!(open(&other).contains("not mapped"));
}

#[test]
fn opening_reads_headers_and_not_the_heap() {
    let (mem, heap) = pool(&[2 * MIB, 2 * MIB, 4 * MIB, 8 * MIB]);
    let mut cache = heap.thread_cache();
    let index = heap.intern_type(&mut cache, &blob(0)).unwrap();
    let mut objects = Vec::new();
    while let Ok(addr) = heap.alloc(&mut cache, 1000, 16, index) {
        objects.push(addr);
    }
    assert!(objects.len() > 15_000);
    heap.free(objects[5000]).unwrap();
    mem.watch.store(true, std::sync::atomic::Ordering::Relaxed);
    mem.begin();
    let again = Heap::open(Arc::clone(&mem), &mem.puddles()).unwrap();
    // The first headers of four puddles, the pool page, the type table.
    assert!(mem.pages_touched() < 20, "{}", mem.pages_touched());
    mem.begin();
    // The one free slot of 8 chunks is found through the hint in its page's descriptor.
    let mut cache = again.thread_cache();
    let addr = again.alloc(&mut cache, 1000, 16, index);
    assert_eq!(addr, Ok(objects[5000]));
    assert!(mem.pages_touched() < 20, "{}", mem.pages_touched());
}
