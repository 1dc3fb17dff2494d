//! What planted bugs have shown to need a test of its own: races at their worst moment, and what is lost without being wrong.
mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use common::{MIB, TestMemory, pool, sound};
use vernal_format::types::TypeBuilder;
use vernal_heap::{Heap, HeapError, TYPE_RAW};

type TestHeap = Heap<Arc<TestMemory>>;

/// The largest object that fits into an otherwise empty puddle.
fn largest(heap: &TestHeap) -> u64 {
    let mut cache = heap.thread_cache();
    let pages = (1..512).rev().find(|pages| {
        let addr = heap.alloc(&mut cache, pages * 4096, 16, TYPE_RAW);
        addr.is_ok_and(|addr| heap.free(addr).is_ok())
    });
    pages.expect("there is room") * 4096
}

/// How many objects of a page fit into what is free.
fn pages(heap: &TestHeap) -> usize {
    let mut cache = heap.thread_cache();
    let alloc = || heap.alloc(&mut cache, 4096, 16, TYPE_RAW).ok();
    let all: Vec<u64> = std::iter::from_fn(alloc).collect();
    for addr in &all {
        heap.free(*addr).unwrap();
    }
    all.len()
}

#[test]
fn two_processes_that_claim_one_slot_get_two() {
    let (mem, ours) = pool(&[2 * MIB]);
    let mut cache = ours.thread_cache();
    let first = ours.alloc(&mut cache, 48, 16, TYPE_RAW).unwrap();
    // Opened when there is a span with free slots, whose owner it does not know.
    let theirs = Heap::open(Arc::clone(&mem), &mem.puddles()).unwrap();
    let mut their_cache = theirs.thread_cache();
    let second = theirs.alloc(&mut their_cache, 48, 16, TYPE_RAW).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    // They have chosen a slot; before they take it, we take it.
    *mem.hook_anywhere.lock().unwrap() = Some(Box::new(move || {
        let addr = ours.alloc(&mut cache, 48, 16, TYPE_RAW);
        sender.send((addr, cache, ours)).unwrap();
    }));
    let fourth = theirs.alloc(&mut their_cache, 48, 16, TYPE_RAW).unwrap();
    let (third, _cache, ours) = receiver.try_recv().unwrap();
    let mut all = vec![first, second, third.unwrap(), fourth];
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 4, "{all:x?}");
    assert_eq!(sound(&ours).all.objects, 4);
}

#[test]
fn of_two_who_free_one_object_the_later_is_refused() {
    let (mem, heap) = pool(&[2 * MIB]);
    let heap = Arc::new(heap);
    let mut cache = heap.thread_cache();
    let kept = heap.alloc(&mut cache, 48, 16, TYPE_RAW).unwrap();
    let addr = heap.alloc(&mut cache, 48, 16, TYPE_RAW).unwrap();
    // The object was seen; before it is taken away, another thread frees it.
    let other = Arc::clone(&heap);
    let hook = move || other.free(addr).unwrap();
    *mem.hook_anywhere.lock().unwrap() = Some(Box::new(hook));
    assert_eq!(heap.free(addr), Err(HeapError::NotAllocated { addr }));
    assert_eq!(sound(&heap).all.objects, 1);
    heap.free(kept).unwrap();
}

#[test]
fn objects_of_one_size_keep_their_types_apart() {
    let (_, heap) = pool(&[2 * MIB]);
    let mut cache = heap.thread_cache();
    let types: Vec<u32> = (0..5)
        .map(|n| {
            let blob = TypeBuilder::new(&format!("type{n}"), 48, 16).build();
            heap.intern_type(&mut cache, &blob.unwrap()).unwrap()
        })
        .collect();
    let mut objects = Vec::new();
    for _ in 0..200 {
        for ty in &types {
            objects.push((heap.alloc(&mut cache, 48, 16, *ty).unwrap(), *ty));
        }
    }
    for (addr, ty) in objects {
        assert_eq!(heap.object_exact(addr).unwrap().type_index, ty);
    }
    sound(&heap);
}

#[test]
fn what_memory_refuses_is_not_lost() {
    let (mem, heap) = pool(&[2 * MIB]);
    let most = largest(&heap);
    let mut cache = heap.thread_cache();
    let mut refused = 0;
    for budget in 0..6 {
        for size in [5000, 70_000, 700_000] {
            mem.budget.store(budget, SeqCst);
            match heap.alloc(&mut cache, size, 16, TYPE_RAW) {
                Ok(addr) => {
                    mem.budget.store(u64::MAX, SeqCst);
                    heap.free(addr).unwrap();
                }
                Err(e) => {
                    assert!(matches!(e, HeapError::Refused { .. }), "{e}");
                    refused += 1;
                }
            }
            mem.budget.store(u64::MAX, SeqCst);
            // All of it is still there, and can be had in one piece.
            let all = heap.alloc(&mut cache, most, 16, TYPE_RAW).unwrap();
            // What has to be freed and cannot be is still an object.
            mem.budget.store(0, SeqCst);
            assert!(heap.free(all).is_err());
            mem.budget.store(u64::MAX, SeqCst);
            heap.free(all).unwrap();
        }
    }
    assert!(refused > 5, "{refused}");
    sound(&heap);
}

#[test]
fn spans_that_a_dead_process_left_empty_are_given_back() {
    let (mem, dead) = pool(&[2 * MIB]);
    let all = pages(&dead);
    let mut cache = dead.thread_cache();
    for size in [16, 48, 512, 2048] {
        let addr = dead.alloc(&mut cache, size, 16, TYPE_RAW).unwrap();
        dead.free(addr).unwrap();
    }
    // Its thread owned the spans, so they stayed; now nobody does.
    std::mem::forget(cache);
    let heap = Heap::open(Arc::clone(&mem), &mem.puddles()).unwrap();
    assert_eq!(pages(&heap), all);
    sound(&heap);
}

#[test]
fn spans_of_a_thread_that_has_ended_are_used_by_others() {
    let (_, heap) = pool(&[2 * MIB]);
    let all = pages(&heap);
    let mut objects = Vec::new();
    for _ in 0..40 {
        // Each thread ends with a span that has room.
        let mut cache = heap.thread_cache();
        objects.push(heap.alloc(&mut cache, 1024, 16, TYPE_RAW).unwrap());
    }
    let spans: BTreeSet<u64> = objects.iter().map(|a| a >> 15).collect();
    assert!(spans.len() <= 2, "40 objects lie in {} spans", spans.len());
    for addr in objects {
        heap.free(addr).unwrap();
    }
    assert_eq!(pages(&heap), all);
    sound(&heap);
}

#[test]
fn an_object_that_moves_keeps_the_alignment_of_its_type() {
    let (_, heap) = pool(&[2 * MIB]);
    let mut cache = heap.thread_cache();
    let blob = TypeBuilder::new("wide", 64, 64).build().unwrap();
    let wide = heap.intern_type(&mut cache, &blob).unwrap();
    for _ in 0..20 {
        let addr = heap.alloc(&mut cache, 64, 64, wide).unwrap();
        let moved = heap.realloc(&mut cache, addr, 80).unwrap();
        assert_ne!(moved, addr);
        assert_eq!((addr % 64, moved % 64), (0, 0));
    }
    sound(&heap);
}
