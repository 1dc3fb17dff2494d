//! Pools whose words somebody has changed: every call returns, nothing panics, and a heap that `check` calls sound hands out
//! no memory twice.
mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use common::{MIB, Random, TestMemory, pool};
use vernal_format::types::{Shape, TypeBuilder};
use vernal_heap::{Heap, ObjectSet, ObjectSpace, PoolMemory, TYPE_FIRST, TYPE_RAW};

/// A pool with something of everything, and the addresses of the words that its metadata consists of.
fn sample() -> (Arc<TestMemory>, Vec<u64>, Vec<u64>) {
    let (mem, heap) = pool(&[2 * MIB, 4 * MIB]);
    let mut cache = heap.thread_cache();
    for n in 0..3 {
        let blob = TypeBuilder::new(&format!("type{n}"), 16, 8)
            .member("value", 0, Shape::Integer(8))
            .build()
            .unwrap();
        heap.intern_type(&mut cache, &blob).unwrap();
    }
    let mut random = Random(1);
    let mut objects = Vec::new();
    for n in 0..400 {
        let size = match n % 40 {
            0 => random.below(200_000),
            1..5 => random.below(6000),
            _ => random.below(300),
        };
        let index = TYPE_FIRST + n as u32 % 3;
        objects.push(heap.alloc(&mut cache, size, 16, index).unwrap());
    }
    for _ in 0..200 {
        let i = random.below(objects.len() as u64) as usize;
        heap.free(objects.swap_remove(i)).unwrap();
    }
    heap.set_root(objects[0]).unwrap();
    // Every word that is not zero outside of objects is metadata; so are the objects of type META.
    let user = |addr| {
        heap.object_at(addr)
            .is_some_and(|o| o.type_index >= TYPE_FIRST)
    };
    let mut metadata = Vec::new();
    for (base, words) in mem.inner.areas() {
        let addrs = (base..).step_by(8).zip(words);
        let changed = addrs.filter(|(addr, w)| w.load(Relaxed) != 0 && !user(*addr));
        metadata.extend(changed.map(|(addr, _)| addr));
    }
    (mem, metadata, objects)
}

/// A value that is more likely to be believed than a random one.
fn mutate(old: u64, random: &mut Random, any: u64) -> u64 {
    match random.below(9) {
        0 => random.next(),
        1 => 0,
        2 => u64::MAX,
        3 => old.wrapping_add(1),
        4 => old ^ 1 << random.below(64),
        5 => old ^ (1 << random.below(64) | 1 << random.below(64)),
        6 => any,
        7 => old & !0xffff_ffff | random.below(1 << 12),
        _ => old.rotate_left(32),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Refused,
    Damaged,
    Sound,
}

/// Everything that can be called, on whatever is there.
fn exercise(mem: &Arc<TestMemory>, random: &mut Random, objects: &[u64]) -> Outcome {
    let Ok(heap) = Heap::open(Arc::clone(mem), &mem.puddles()) else {
        return Outcome::Refused;
    };
    let report = heap.check();
    let sound = report.is_sound();
    let mut live = BTreeMap::new();
    for chunk in 0..heap.chunk_count() {
        heap.for_each_object(chunk, &mut |o| {
            live.insert(o.addr, o);
            true
        });
        heap.for_each_overlapping(chunk, &mut |_| true);
    }
    if sound {
        assert_eq!(live.len() as u64, report.all.objects);
        let mut end = 0;
        for (addr, object) in &live {
            assert!(*addr >= end, "objects overlap at {addr:#x}");
            end = addr + object.size;
            assert_eq!(heap.object_at(*addr), Some(*object));
        }
    }
    let mut cache = heap.thread_cache();
    for n in 0..60 {
        let size = match n % 10 {
            0 => random.below(3 * MIB),
            1..3 => random.below(8000),
            _ => random.below(300),
        };
        let index = [TYPE_RAW, TYPE_FIRST, TYPE_FIRST + 2, 9][random.below(4) as usize];
        let Ok(addr) = heap.alloc(&mut cache, size, 16, index) else {
            continue;
        };
        // Memory of the pool at least, whatever the metadata says.
        assert!(mem.words(addr & !7, (size / 8) as usize).is_some());
        if sound {
            let object = heap.object_exact(addr).unwrap();
            let before = live.range(..addr + object.size).next_back();
            assert!(
                before.is_none_or(|(_, o)| o.addr + o.size <= addr),
                "{addr:#x} is in use"
            );
            live.insert(addr, object);
        }
        if n % 4 == 0 {
            let _ = heap.realloc(&mut cache, addr, random.below(10_000));
            if sound {
                live.remove(&addr);
                heap.for_each_object(0, &mut |_| true);
                live.clear();
                for chunk in 0..heap.chunk_count() {
                    heap.for_each_object(chunk, &mut |o| {
                        live.insert(o.addr, o);
                        true
                    });
                }
            }
        }
    }
    for _ in 0..30 {
        let addr = objects[random.below(objects.len() as u64) as usize];
        let _ = heap.object_at(addr + random.below(64));
        let _ = heap.free(addr + random.below(2) * 8);
        let _ = heap.free(random.next() % (6 * MIB) + common::BASE);
    }
    heap.restored(common::BASE, 6 * MIB);
    let _ = heap.empty_puddles(&mut cache);
    let _ = heap.alloc(&mut cache, 100, 16, TYPE_RAW);
    let _ = heap.intern_type(&mut cache, heap.type_blob(TYPE_FIRST).unwrap_or_default());
    let _ = (
        heap.root(),
        heap.binding_record(),
        heap.epochs(),
        heap.directory(),
    );
    let _ = (
        heap.begin_address_epoch(),
        heap.chunk_epochs(1),
        heap.set_chunk_epochs(2, 2, 2),
    );
    let _ = heap.leaks(&ObjectSet::new());
    let _ = heap.reclaim(&ObjectSet::new());
    let _ = heap.remove_puddle(common::uuid(2));
    let _ = heap.check();
    if sound {
        Outcome::Sound
    } else {
        Outcome::Damaged
    }
}

/// Every outcome has been seen often.
fn all_seen(outcomes: &[Outcome]) {
    for outcome in [Outcome::Refused, Outcome::Damaged, Outcome::Sound] {
        let seen = outcomes.iter().filter(|o| **o == outcome).count();
        println!("{outcome:?}: {seen}");
        assert!(seen > 5, "{outcome:?}: {seen}");
    }
}

#[test]
fn one_changed_word_of_metadata() {
    let (mem, metadata, objects) = sample();
    let clean = mem.snapshot();
    assert!(metadata.len() > 300, "{}", metadata.len());
    let mut random = Random(42);
    let mut outcomes = Vec::new();
    for addr in metadata.iter().chain(&metadata).chain(&metadata) {
        let word = &mem.words(*addr, 1).unwrap()[0];
        let old = word.load(Relaxed);
        word.store(mutate(old, &mut random, metadata[0]), Relaxed);
        outcomes.push(exercise(&mem, &mut random, &objects));
        restore(&mem, &clean);
    }
    all_seen(&outcomes);
}

#[test]
fn several_changed_words_and_pages() {
    let (mem, metadata, objects) = sample();
    let clean = mem.snapshot();
    let mut outcomes = Vec::new();
    for seed in 0..400 {
        let mut random = Random(seed);
        for _ in 0..1 + random.below(6) {
            let addr = match random.below(6) {
                // Anywhere in the headers or the pool page.
                0 => common::BASE + random.below(1024) * 8,
                1 => common::BASE + 2 * MIB + random.below(1024) * 8,
                _ => metadata[random.below(metadata.len() as u64) as usize],
            };
            let other = metadata[random.below(metadata.len() as u64) as usize];
            let other = mem.words(other, 1).unwrap()[0].load(Relaxed);
            let word = &mem.words(addr, 1).unwrap()[0];
            word.store(mutate(word.load(Relaxed), &mut random, other), Relaxed);
        }
        println!("seed {seed}");
        outcomes.push(exercise(&mem, &mut random, &objects));
        restore(&mem, &clean);
    }
    all_seen(&outcomes);
}

#[test]
fn descriptors_of_every_kind_at_every_page() {
    use vernal_format::puddle::{Extent, PageDesc};
    let (mem, _, objects) = sample();
    let clean = mem.snapshot();
    let ext = Extent::new(common::BASE, 2 * MIB).unwrap();
    let mut random = Random(9);
    for page in (0..512).step_by(7) {
        let (type_index, unused) = (TYPE_FIRST, random.below(512));
        let kinds = [
            PageDesc::None,
            PageDesc::Free {
                order: random.below(10) as u32,
            },
            PageDesc::Free { order: 26 },
            PageDesc::Slab {
                class: random.below(24) as usize,
                hint: true,
                type_index,
            },
            PageDesc::Page { unused, type_index },
            PageDesc::Run { unused, type_index },
            PageDesc::Ext {
                pages: random.below(1 << 29),
            },
            PageDesc::Pool,
        ];
        let desc = kinds[random.below(8) as usize];
        let (addr, shift) = ext.desc_word(page);
        let word = &mem.words(addr, 1).unwrap()[0];
        let kept = word.load(Relaxed) & !(0xffff_ffff << shift);
        word.store(kept | u64::from(desc.encode()) << shift, Relaxed);
        println!("{desc:?} at page {page}");
        exercise(&mem, &mut random, &objects);
        restore(&mem, &clean);
    }
}

#[test]
fn every_contradiction_is_reported() {
    // What the check must see: a word of allocated metadata that is not what it was, unless it is only a bit of a bitmap, a
    // hint, an epoch or an address, which another valid heap could have.
    let (mem, metadata, _) = sample();
    let clean = mem.snapshot();
    let mut found = [0, 0];
    for addr in &metadata {
        let word = &mem.words(*addr, 1).unwrap()[0];
        let old = word.load(Relaxed);
        word.store(old ^ 0x0f0f_0000_0f0f_0000, Relaxed);
        let sound = match Heap::open(Arc::clone(&mem), &mem.puddles()) {
            Ok(heap) => heap.check().is_sound(),
            Err(_) => false,
        };
        found[usize::from(sound)] += 1;
        if sound {
            let page = addr % 4096;
            let bitmap = (16..48).contains(&page);
            let epoch_or_address =
                *addr < common::BASE + 2 * 4096 || *addr >= common::BASE + 2 * MIB;
            assert!(
                bitmap || epoch_or_address,
                "{addr:#x} {old:#x} was not noticed"
            );
        }
        word.store(old, Relaxed);
    }
    assert!(found[0] > 5 * found[1], "{found:?}");
    restore(&mem, &clean);
}

/// Sets back what has changed.
fn restore(mem: &TestMemory, clean: &[Vec<u64>]) {
    mem.begin();
    mem.restore(clean);
}
