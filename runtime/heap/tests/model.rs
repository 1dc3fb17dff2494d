//! Random programs against a model: transactions that commit or abort, reopened pools, threads, memory that refuses.
mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;

use common::{MIB, Random, TestMemory, fill, is_filled, is_zero, pool, sound};
use vernal_heap::{Heap, HeapError, ObjectSet, ObjectSpace, TYPE_RAW, ThreadCache};

type TestHeap = Heap<Arc<TestMemory>>;

/// Live objects: address, size asked for, value of every word of it.
#[derive(Clone, Default)]
struct Model {
    objects: BTreeMap<u64, (u64, u64)>,
}

impl Model {
    fn pick(&self, random: &mut Random) -> Option<u64> {
        let n = random.below(self.objects.len().max(1) as u64) as usize;
        self.objects.keys().nth(n).copied()
    }

    fn verify(&self, mem: &TestMemory, heap: &TestHeap) {
        let report = sound(heap);
        assert_eq!(report.all.objects, self.objects.len() as u64);
        let mut end = 0;
        for (addr, (size, value)) in &self.objects {
            assert!(*addr >= end, "{addr:#x} overlaps");
            let object = heap.object_exact(*addr).unwrap();
            assert!(object.size >= *size);
            end = addr + object.size;
            assert!(
                is_filled(mem, *addr, *size, *value),
                "{addr:#x} was overwritten"
            );
        }
    }
}

fn size(random: &mut Random) -> u64 {
    let limit = [64, 300, 2300, 2300, 20_000, 200_000][random.below(6) as usize];
    (1 + random.below(limit / 8)) * 8
}

/// One allocation, free or resize; `free`: whether objects may be freed.
fn step(
    mem: &TestMemory,
    heap: &TestHeap,
    caches: &mut [ThreadCache],
    model: &mut Model,
    random: &mut Random,
    free: bool,
) -> Result<(), HeapError> {
    let which = random.below(caches.len() as u64) as usize;
    let cache = &mut caches[which];
    let value = random.next() | 1;
    match random.below(10) {
        0..5 => {
            let size = size(random);
            let align = 1 << random.below(13);
            let addr = match heap.alloc(cache, size, align, TYPE_RAW) {
                Err(HeapError::Full { .. }) => return Ok(()),
                other => other?,
            };
            let object = heap.object_exact(addr).unwrap();
            assert!(is_zero(mem, addr, object.size));
            assert_eq!(addr % align, 0);
            fill(mem, addr, size, value);
            vernal_heap::PoolMemory::after_write(mem, addr, size);
            assert!(model.objects.insert(addr, (size, value)).is_none());
        }
        5..8 if free => {
            if let Some(addr) = model.pick(random) {
                heap.free(addr)?;
                model.objects.remove(&addr);
            }
        }
        8..10 if free => {
            if let Some(addr) = model.pick(random) {
                let (old, value) = model.objects[&addr];
                let size = size(random);
                let to = match heap.realloc(cache, addr, size) {
                    Err(HeapError::Full { .. }) => return Ok(()),
                    other => other?,
                };
                let kept = old.min(size);
                assert!(is_filled(mem, to, kept, value));
                let object = heap.object_exact(to).unwrap();
                assert!(is_zero(mem, to + kept, object.size - kept));
                fill(mem, to, size, value);
                vernal_heap::PoolMemory::after_write(mem, to, size);
                model.objects.remove(&addr);
                assert!(model.objects.insert(to, (size, value)).is_none());
            }
        }
        _ => {}
    }
    Ok(())
}

#[test]
fn transactions_commit_or_leave_nothing() {
    for seed in 0..8 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let (mem, mut heap) = pool(&[2 * MIB, 2 * MIB]);
        let mut caches: Vec<_> = (0..3).map(|_| heap.thread_cache()).collect();
        let mut model = Model::default();
        for _ in 0..40 {
            let snapshot = mem.snapshot();
            let before = model.clone();
            mem.begin();
            for _ in 0..random.below(60) {
                step(&mem, &heap, &mut caches, &mut model, &mut random, true).unwrap();
            }
            mem.assert_reported(&snapshot);
            match random.below(8) {
                // An abort copies the lines back that had changed.
                0..3 => {
                    let lines = mem.restore(&snapshot);
                    for (addr, len) in lines {
                        heap.restored(addr, len);
                    }
                    model = before;
                }
                3 => {
                    // The process dies, another opens the pool.
                    heap = Heap::open(Arc::clone(&mem), &mem.puddles()).unwrap();
                    caches = (0..3).map(|_| heap.thread_cache()).collect();
                }
                4 => heap.reset_caches(),
                5 => caches[0] = heap.thread_cache(),
                _ => {}
            }
            model.verify(&mem, &heap);
        }
        for addr in model.objects.keys() {
            heap.free(*addr).unwrap();
        }
        caches.clear();
        let mut cache = heap.thread_cache();
        assert_eq!(heap.empty_puddles(&mut cache).unwrap().len(), 1);
        let report = sound(&heap);
        assert_eq!((report.all.objects, report.free_slots), (0, 0));
    }
}

#[test]
fn undoing_what_was_announced_is_enough() {
    for seed in 100..110 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let (mem, heap) = pool(&[2 * MIB, 4 * MIB]);
        let mut caches: Vec<_> = (0..2).map(|_| heap.thread_cache()).collect();
        let mut model = Model::default();
        for _ in 0..50 {
            let before = model.clone();
            mem.begin();
            // Frees come last, as in a pool that frees at commit: memory that the transaction has freed is not allocated
            // again before the transaction ends.
            for _ in 0..random.below(40) {
                step(&mem, &heap, &mut caches, &mut model, &mut random, false).unwrap();
            }
            for _ in 0..random.below(20) {
                if let Some(addr) = model.pick(&mut random) {
                    heap.free(addr).unwrap();
                    model.objects.remove(&addr);
                }
            }
            if random.below(2) == 0 {
                for (addr, len) in mem.undo() {
                    heap.restored(addr, len);
                }
                model = before;
            }
            model.verify(&mem, &heap);
        }
    }
}

#[test]
fn a_change_that_memory_refuses_is_not_made() {
    for seed in 200..206 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let (mem, heap) = pool(&[2 * MIB, 2 * MIB]);
        let mut caches = vec![heap.thread_cache()];
        let mut model = Model::default();
        let mut refused = 0;
        for _ in 0..300 {
            mem.begin();
            let before = model.clone();
            mem.budget.store(random.below(12), SeqCst);
            let mut failed = false;
            for _ in 0..6 {
                let step = step(&mem, &heap, &mut caches, &mut model, &mut random, true);
                failed |= matches!(step, Err(HeapError::Refused { .. }));
                if failed {
                    break;
                }
                step.unwrap();
            }
            mem.budget.store(u64::MAX, SeqCst);
            refused += u32::from(failed);
            // Whatever was refused: the descriptors agree with each other before anything is undone.
            let report = heap.check();
            assert!(report.is_sound(), "{:#?}", report.problems);
            if failed {
                let snapshot_free = report.all.objects;
                assert!(snapshot_free + 2 >= model.objects.len() as u64);
                // The transaction cannot go on. (Its frees were not deferred here, so memory may hold anything: only the
                // objects' existence is compared.)
                for (addr, len) in mem.undo() {
                    heap.restored(addr, len);
                }
                model = before;
                let objects = sound(&heap).all.objects;
                assert_eq!(objects, model.objects.len() as u64);
                for (addr, (size, value)) in &model.objects {
                    fill(&mem, *addr, *size, *value);
                    let all = heap.object_exact(*addr).unwrap().size;
                    fill(&mem, addr + size, all - size, 0);
                }
            }
            model.verify(&mem, &heap);
        }
        assert!(refused > 80, "{refused}");
    }
}

#[test]
fn threads_allocate_and_free_each_others_objects() {
    const THREADS: usize = 4;
    for round in 0..3 {
        let (mem, heap) = pool(&[2 * MIB, 4 * MIB, 16 * MIB]);
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS)
            .map(|_| mpsc::channel::<(u64, u64, u64)>())
            .unzip();
        let (mem_ref, heap_ref) = (&mem, &heap);
        std::thread::scope(|scope| {
            for (i, receiver) in receivers.into_iter().enumerate() {
                let to = senders[(i + 1) % THREADS].clone();
                scope.spawn(move || {
                    let mut random = Random(round * 100 + i as u64);
                    let mut cache = heap_ref.thread_cache();
                    for n in 0..2000u64 {
                        let size = if random.below(50) == 0 {
                            8192
                        } else {
                            (1 + random.below(40)) * 8
                        };
                        let addr = heap_ref.alloc(&mut cache, size, 16, TYPE_RAW).unwrap();
                        assert!(is_zero(mem_ref, addr, size));
                        fill(mem_ref, addr, size, addr ^ n);
                        // The next thread gets some of them, this one frees the others itself.
                        if random.below(3) > 0 {
                            // A thread that is through takes no more: then it is lost.
                            let _ = to.send((addr, size, addr ^ n));
                        } else {
                            assert!(is_filled(mem_ref, addr, size, addr ^ n));
                            heap_ref.free(addr).unwrap();
                        }
                        while let Ok((addr, size, value)) = receiver.try_recv() {
                            assert!(is_filled(mem_ref, addr, size, value));
                            heap_ref.free(addr).unwrap();
                        }
                    }
                    drop(to);
                    drop(cache);
                    receiver
                });
            }
            drop(senders);
        });
        // What was still on its way has no owner any more: leaks, of which nothing is reachable.
        let left = sound(&heap).all.objects;
        let freed = heap.reclaim(&ObjectSet::new()).unwrap();
        assert_eq!(freed.objects, left);
        let mut cache = heap.thread_cache();
        assert_eq!(heap.empty_puddles(&mut cache).unwrap().len(), 2);
        assert_eq!(sound(&heap).free_slots, 0);
    }
}

#[test]
fn two_threads_that_free_one_object_get_one_error() {
    let (_, heap) = pool(&[2 * MIB]);
    let mut cache = heap.thread_cache();
    for n in 0..300 {
        let addr = heap
            .alloc(&mut cache, if n % 3 == 0 { 5000 } else { 48 }, 16, TYPE_RAW)
            .unwrap();
        let barrier = std::sync::Barrier::new(2);
        let results: Vec<_> = std::thread::scope(|scope| {
            let free = || {
                barrier.wait();
                heap.free(addr)
            };
            let threads = [scope.spawn(free), scope.spawn(free)];
            threads.map(|t| t.join().unwrap()).into()
        });
        assert_eq!(
            results.iter().filter(|r| r.is_ok()).count(),
            1,
            "{results:?}"
        );
        assert!(results.contains(&Err(HeapError::NotAllocated { addr })));
    }
    sound(&heap);
}

#[test]
fn small_allocations_touch_their_slab_line_and_nothing_else() {
    let (mem, heap) = pool(&[2 * MIB]);
    let mut cache = heap.thread_cache();
    heap.alloc(&mut cache, 64, 16, TYPE_RAW).unwrap();
    mem.begin();
    let addr = heap.alloc(&mut cache, 64, 16, TYPE_RAW).unwrap();
    // One word of the bitmap; the object was zero before.
    assert_eq!(mem.traffic(), (1, 8));
    mem.begin();
    heap.free(addr).unwrap();
    assert_eq!(mem.traffic(), (1, 8));
    fill(&mem, addr, 64, 1);
    mem.begin();
    assert_eq!(heap.alloc(&mut cache, 64, 16, TYPE_RAW), Ok(addr));
    assert_eq!(mem.traffic(), (1, 8 + 64));
}

#[test]
fn leaks_are_what_nothing_reaches() {
    let (_, heap) = pool(&[2 * MIB]);
    let mut cache = heap.thread_cache();
    let mut reachable = ObjectSet::new();
    let mut lost = Vec::new();
    for n in 0..500u64 {
        let addr = heap.alloc(&mut cache, n * 13 % 5000, 16, TYPE_RAW).unwrap();
        if n % 3 == 0 {
            lost.push(heap.object_at(addr).unwrap());
        } else {
            assert!(reachable.insert(addr) && !reachable.insert(addr));
        }
    }
    lost.sort_by_key(|o| o.addr);
    assert_eq!(heap.leaks(&reachable).unwrap(), lost);
    let freed = heap.reclaim(&reachable).unwrap();
    assert_eq!(freed.objects, lost.len() as u64);
    assert_eq!(sound(&heap).all.objects, reachable.len());
    assert_eq!(heap.leaks(&reachable).unwrap(), []);
}

#[test]
fn a_heap_that_another_process_has_changed_is_read_again() {
    let (mem, ours) = pool(&[2 * MIB, 2 * MIB]);
    let theirs = Heap::open(Arc::clone(&mem), &mem.puddles()).unwrap();
    let heaps = [&ours, &theirs];
    let mut caches = heaps.map(Heap::thread_cache);
    let mut random = Random(3);
    let mut model = Model::default();
    for _ in 0..60 {
        // One at a time, each reads again what the other has done.
        let i = random.below(2) as usize;
        heaps[i].restored(0, u64::MAX);
        for _ in 0..random.below(30) {
            let caches = &mut caches[i..=i];
            step(&mem, heaps[i], caches, &mut model, &mut random, true).unwrap();
        }
        model.verify(&mem, heaps[i]);
    }
}

#[test]
fn a_slot_that_is_freed_while_its_span_is_found_full_is_not_lost() {
    let (mem, heap) = pool(&[2 * MIB]);
    let heap = Arc::new(heap);
    let mut cache = heap.thread_cache();
    let mut alloc = || heap.alloc(&mut cache, 2048, 16, TYPE_RAW).unwrap();
    let objects: Vec<_> = (0..15).map(|_| alloc()).collect();
    // The span is full. Its owner sees that, and before it can say so another thread frees a slot.
    let (freeing, victim) = (Arc::clone(&heap), objects[7]);
    let hook = move || freeing.free(victim).unwrap();
    *mem.hook.lock().unwrap() = Some(Box::new(hook));
    assert_eq!(alloc(), victim);
    assert!(mem.hook.lock().unwrap().is_none());
    let next = alloc();
    assert!(!objects.contains(&next));
    sound(&heap);
}

#[test]
fn a_free_list_that_is_out_of_date_is_not_believed() {
    let (mem, ours) = pool(&[2 * MIB]);
    let theirs = Heap::open(Arc::clone(&mem), &mem.puddles()).unwrap();
    let heaps = [&ours, &theirs];
    let mut caches = heaps.map(Heap::thread_cache);
    let mut all = BTreeMap::new();
    // Neither is told what the other does: they may find no memory, but never the same.
    for n in 0..200 {
        let i = n % 2;
        let size = 3000 + n as u64 * 100;
        if let Ok(addr) = heaps[i].alloc(&mut caches[i], size, 16, TYPE_RAW) {
            all.insert(addr, size);
        }
    }
    assert!(all.len() > 50, "{}", all.len());
    let mut end = 0;
    for (addr, size) in all {
        assert!(addr >= end);
        end = addr + size;
    }
    sound(&ours);
}
