//! Allocation, freeing and resizing: what each call promises.
mod common;

use common::{MIB, fill, is_filled, is_zero, pool, sound, uuid};
use vernal_heap::{Heap, HeapError, ObjectSpace, TYPE_RAW};

type TestHeap = Heap<std::sync::Arc<common::TestMemory>>;

#[test]
fn a_new_pool_is_sound_and_opens_again() {
    let (mem, heap) = pool(&[2 * MIB, 4 * MIB]);
    let report = sound(&heap);
    assert_eq!(report.all.objects, 0);
    assert_eq!(report.total, 6 * MIB);
    assert_eq!(heap.identity().label, "test");
    let again = Heap::open(mem.clone(), &mem.puddles()).unwrap();
    assert_eq!(again.directory(), heap.directory());
    assert_eq!(again.chunk_count(), 3);
    sound(&again);
}

#[test]
fn every_size_is_aligned_zeroed_and_found() {
    let (mem, heap) = pool(&[2 * MIB, 16 * MIB]);
    let mut cache = heap.thread_cache();
    for size in (0..300).chain((300..70_000).step_by(977)) {
        for align in [1, 16, 64, 256, 4096] {
            let addr = heap.alloc(&mut cache, size, align, TYPE_RAW).unwrap();
            assert_eq!(addr % align.max(16), 0);
            let object = heap.object_at(addr).unwrap();
            assert_eq!(object.addr, addr);
            assert!(object.size >= size && object.size % 8 == 0);
            assert!(is_zero(&mem, addr, object.size), "{size} {align}");
            let last = addr + object.size - 1;
            assert_eq!(heap.object_at(last).unwrap(), object);
            assert_eq!(heap.object_exact(addr).unwrap(), object);
            // What it leaves behind must not be seen by the next one.
            fill(&mem, addr, object.size, u64::MAX);
            heap.free(addr).unwrap();
            assert_eq!(heap.object_at(addr), None);
        }
    }
    sound(&heap);
}

#[test]
fn large_objects_have_their_exact_size() {
    let (_, heap) = pool(&[16 * MIB]);
    let mut cache = heap.thread_cache();
    for size in [2049, 4096, 4097, 12_288, 100_000, MIB, MIB + 24] {
        let addr = heap.alloc(&mut cache, size, 16, TYPE_RAW).unwrap();
        let object = heap.object_at(addr).unwrap();
        assert_eq!(object.size, size.next_multiple_of(8));
        assert_eq!(heap.object_at(addr + object.size - 1), Some(object));
        // Behind it, in its last page, is no object.
        if size % 4096 != 0 {
            assert_eq!(heap.object_at(addr + object.size), None);
        }
    }
    sound(&heap);
}

#[test]
fn wrong_frees_name_the_address() {
    let (_, heap) = pool(&[2 * MIB, 4 * MIB]);
    let mut cache = heap.thread_cache();
    let small = heap.alloc(&mut cache, 100, 16, TYPE_RAW).unwrap();
    let two_k = heap.alloc(&mut cache, 2000, 16, TYPE_RAW).unwrap();
    let large = heap.alloc(&mut cache, 20_000, 16, TYPE_RAW).unwrap();
    let interior = |addr, object| Err(HeapError::Interior { addr, object });
    let none = |addr| Err(HeapError::NotAllocated { addr });
    for (object, offsets) in [
        (small, [1, 16, 111]),
        (two_k, [8, 1000, 2047]),
        (large, [8, 4096, 19_999]),
    ] {
        for offset in offsets {
            assert_eq!(
                heap.free(object + offset),
                interior(object + offset, object)
            );
        }
    }
    // The slab's header, the chunk header, the pool page, a free page.
    let span = small & !4095;
    for addr in [
        span,
        span + 8,
        common::BASE,
        common::BASE + 4096,
        common::BASE + MIB,
    ] {
        assert_eq!(heap.free(addr), none(addr));
    }
    for addr in [0, 8, 1, common::BASE - 16, common::BASE + 6 * MIB, u64::MAX] {
        assert_eq!(heap.free(addr), Err(HeapError::Outside { addr }));
    }
    for object in [small, two_k, large] {
        heap.free(object).unwrap();
        assert_eq!(heap.free(object), none(object));
    }
    let message = heap.free(small).unwrap_err().to_string();
    assert!(message.contains(&format!("{small:#x}")), "{message}");
    sound(&heap);
}

#[test]
fn impossible_requests_are_refused() {
    let (_, heap) = pool(&[2 * MIB]);
    let mut cache = heap.thread_cache();
    let mut alloc = |size, align, t| {
        heap.alloc(&mut cache, size, align, t)
            .map_err(|e| e.to_string())
    };
    for align in [0, 3, 48, 8192, u64::MAX] {
        assert!(alloc(8, align, TYPE_RAW).is_err_and(|e| e.contains("alignment")));
    }
    for size in [u64::MAX, u64::MAX - 4096, 1 << 40] {
        assert!(alloc(size, 16, TYPE_RAW).is_err_and(|e| e.contains("more than any puddle")));
    }
    for size in [8, 9000] {
        assert!(alloc(size, 16, 77).is_err_and(|e| e.contains("type index 77")));
    }
    let (_, other) = pool(&[2 * MIB]);
    let mut foreign = other.thread_cache();
    for size in [8, 9000] {
        let e = heap.alloc(&mut foreign, size, 16, TYPE_RAW);
        assert_eq!(e, Err(HeapError::ForeignCache));
    }
    sound(&heap);
}

#[test]
fn a_full_pool_says_what_it_needs_and_grows() {
    let mem = common::TestMemory::new(&[2 * MIB, 2 * MIB, 16 * MIB]);
    let puddles = mem.puddles();
    Heap::format_root(&mem, puddles[0], &common::identity()).unwrap();
    let heap = Heap::open(mem.clone(), &puddles[..1]).unwrap();
    let mut cache = heap.thread_cache();
    let mut objects = Vec::new();
    let full = loop {
        match heap.alloc(&mut cache, 1000, 16, TYPE_RAW) {
            Ok(addr) => objects.push(addr),
            Err(e) => break e,
        }
    };
    assert_eq!(full, HeapError::Full { need: 2 * MIB });
    assert!(objects.len() > 1900, "{}", objects.len());
    heap.add_puddle(puddles[1]).unwrap();
    objects.push(heap.alloc(&mut cache, 1000, 16, TYPE_RAW).unwrap());
    let e = heap.alloc(&mut cache, 10 * MIB, 16, TYPE_RAW);
    assert_eq!(e, Err(HeapError::Full { need: 16 * MIB }));
    heap.add_puddle(puddles[2]).unwrap();
    objects.push(heap.alloc(&mut cache, 10 * MIB, 16, TYPE_RAW).unwrap());
    sound(&heap);
    for object in objects {
        heap.free(object).unwrap();
    }
    let empty = heap.empty_puddles(&mut cache).unwrap();
    assert_eq!(empty, [uuid(2), uuid(3)]);
    heap.remove_puddle(uuid(2)).unwrap();
    heap.remove_puddle(uuid(3)).unwrap();
    assert!(heap.remove_puddle(uuid(1)).is_err());
    assert!(heap.remove_puddle(uuid(2)).is_err());
    let report = sound(&heap);
    assert_eq!((report.total, report.all.objects), (2 * MIB, 0));
    // And again, with what the removed puddles left behind.
    heap.add_puddle(puddles[2]).unwrap();
    heap.add_puddle(puddles[1]).unwrap();
    sound(&heap);
    Heap::open(mem.clone(), &puddles).unwrap();
    assert_eq!(
        Heap::open(mem.clone(), &puddles[..2]).map(drop),
        Err(HeapError::MissingPuddle { uuid: uuid(3) })
    );
}

#[test]
fn freed_pages_join_again() {
    let (_, heap) = pool(&[2 * MIB, 8 * MIB]);
    let mut cache = heap.thread_cache();
    let before = sound(&heap);
    let mut random = common::Random(7);
    for _ in 0..20 {
        let mut objects = Vec::new();
        while let Ok(addr) = heap.alloc(&mut cache, 2049 + random.below(60_000), 16, TYPE_RAW) {
            objects.push(addr);
        }
        assert!(objects.len() > 100);
        while !objects.is_empty() {
            let i = random.below(objects.len() as u64) as usize;
            heap.free(objects.swap_remove(i)).unwrap();
        }
        assert_eq!(sound(&heap), before);
    }
}

#[test]
fn an_object_can_take_a_whole_puddle() {
    for chunks in [1, 2, 8] {
        let (mem, heap) = pool(&[2 * MIB, chunks * 2 * MIB]);
        let mut cache = heap.thread_cache();
        let before = sound(&heap);
        let most = chunks * 511 * 4096;
        for size in [most, most - 4096, most - 4096 * 255 * chunks] {
            assert_eq!(TestHeap::puddle_size_for(most), Ok(chunks * 2 * MIB));
            let addr = heap.alloc(&mut cache, size, 16, TYPE_RAW).unwrap();
            fill(&mem, addr, size, 3);
            for at in [addr, addr + size / 2, addr + size - 1] {
                assert_eq!(heap.object_at(at).unwrap().addr, addr);
            }
            sound(&heap);
            heap.free(addr).unwrap();
            assert_eq!(sound(&heap), before);
        }
        assert!(heap.alloc(&mut cache, most + 1, 16, TYPE_RAW).is_err());
    }
}

#[test]
fn objects_of_chunks_are_complete_and_in_order() {
    let (_, heap) = pool(&[2 * MIB, 16 * MIB]);
    let mut cache = heap.thread_cache();
    let mut random = common::Random(11);
    let mut expected = std::collections::BTreeMap::new();
    for _ in 0..3000 {
        let size = if random.below(40) == 0 {
            random.below(3 * MIB)
        } else {
            random.below(3000)
        };
        if let Ok(addr) = heap.alloc(&mut cache, size, 16, TYPE_RAW) {
            expected.insert(addr, heap.object_at(addr).unwrap());
        }
    }
    let mut found = Vec::new();
    let mut straddling = 0;
    for chunk in 0..heap.chunk_count() {
        let (start, end) = heap.chunk_range(chunk).unwrap();
        let mut inside = Vec::new();
        heap.for_each_object(chunk, &mut |o| {
            assert!((start..end).contains(&o.addr));
            inside.push(o);
            true
        });
        let mut overlapping = Vec::new();
        heap.for_each_overlapping(chunk, &mut |o| {
            assert!(o.addr < end && o.addr + o.size > start);
            overlapping.push(o);
            true
        });
        let all: Vec<_> = expected
            .values()
            .filter(|o| o.addr < end && o.addr + o.size > start)
            .copied()
            .collect();
        assert_eq!(overlapping, all, "chunk {chunk}");
        straddling += overlapping.len() - inside.len();
        found.extend(inside);
    }
    assert_eq!(found, expected.values().copied().collect::<Vec<_>>());
    assert!(straddling > 0);
}

#[test]
fn resizing_keeps_the_content_and_zeroes_the_rest() {
    let (mem, heap) = pool(&[2 * MIB, 16 * MIB]);
    let mut cache = heap.thread_cache();
    let mut random = common::Random(5);
    let mut moved = 0;
    let mut addr = heap.alloc(&mut cache, 64, 16, TYPE_RAW).unwrap();
    let mut size = 64;
    fill(&mem, addr, 64, 9);
    for _ in 0..400 {
        let scale = [40, 300, 3000, 100_000, 250_000][random.below(5) as usize];
        let new = (1 + random.below(scale)) * 8;
        // Another object now and then, so that growing in place is not always possible.
        let other = heap
            .alloc(&mut cache, random.below(20_000), 16, TYPE_RAW)
            .unwrap();
        let to = heap.realloc(&mut cache, addr, new).unwrap();
        moved += u32::from(to != addr);
        let object = heap.object_exact(to).unwrap();
        assert!(object.size >= new);
        assert!(is_filled(&mem, to, size.min(new), 9));
        assert!(is_zero(
            &mem,
            to + size.min(new),
            object.size - size.min(new)
        ));
        heap.free(other).unwrap();
        fill(&mem, to, new, 9);
        (addr, size) = (to, new);
    }
    assert!(moved > 20 && moved < 400, "{moved}");
    heap.free(addr).unwrap();
    sound(&heap);
}

#[test]
fn byte_exact_shrinking_clears_the_rest_of_a_word() {
    let (mem, heap) = pool(&[2 * MIB]);
    let mut cache = heap.thread_cache();
    for (first, then) in [(24, 19), (5000, 4999), (8192, 4097), (9000, 2050)] {
        let addr = heap.alloc(&mut cache, first, 16, TYPE_RAW).unwrap();
        fill(&mem, addr, first & !7, u64::MAX);
        assert_eq!(heap.resize_in_place(addr, then), Ok(true));
        let object = heap.object_exact(addr).unwrap();
        let bytes: Vec<u8> = vernal_heap::PoolMemory::words(&*mem, addr, object.size as usize / 8)
            .unwrap()
            .iter()
            .flat_map(|w| w.load(std::sync::atomic::Ordering::Relaxed).to_le_bytes())
            .collect();
        assert!(bytes[..then as usize].iter().all(|b| *b == 255));
        assert!(bytes[then as usize..].iter().all(|b| *b == 0));
        // Grown again, the bytes are zero.
        let to = heap.realloc(&mut cache, addr, first).unwrap();
        assert!(is_zero(
            &mem,
            to + then.next_multiple_of(8),
            (first - then) & !7
        ));
    }
}
