//! The walker on real heaps: what is allocated is found, relocated, copied, and reclaimed when nothing reaches it.
mod common;
mod space;

use common::{MIB, pool, sound};
use space::{Rng, ptr};
use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_heap::walk::{
    Budget, CopyTarget, External, Flow, Move, Plans, Rewrite, Translation, VerifyOptions, copy,
    inspect, reach, verify,
};
use vernal_heap::{Heap, Object, ObjectSpace, OwnedMemory, PoolMemory, ThreadCache};

type AnyHeap<M> = Heap<M>;

fn tree_type() -> Vec<u8> {
    TypeBuilder::new("tree", 48, 8)
        .member("child", 0, Shape::array(3, 8, ptr("tree")))
        .member("list", 24, ptr("tree *"))
        .member("count", 32, Shape::Integer(8))
        .member("live", 40, Shape::Bool)
        .build()
        .unwrap()
}

fn pointers_type() -> Vec<u8> {
    TypeBuilder::of("tree *", 8, 8, ptr("tree"))
        .build()
        .unwrap()
}

fn put<M: PoolMemory>(heap: &AnyHeap<M>, addr: u64, value: u64) {
    heap.words(addr, 1).unwrap()[0].store(value, Relaxed);
}

fn get<M: PoolMemory>(heap: &AnyHeap<M>, addr: u64) -> u64 {
    heap.words(addr, 1).unwrap()[0].load(Relaxed)
}

/// Trees and arrays of pointers to them of every size, linked at random; returns the objects.
fn fill<M: PoolMemory>(heap: &AnyHeap<M>, cache: &mut ThreadCache, seed: u64) -> Vec<u64> {
    let tree = heap.intern_type(cache, &tree_type()).unwrap();
    let list = heap.intern_type(cache, &pointers_type()).unwrap();
    let mut rng = Rng(seed);
    let mut trees = Vec::new();
    let mut lists = Vec::new();
    for i in 0..3000 {
        let elements = 1 + rng.below(3) * rng.below(2);
        trees.push(heap.alloc(cache, 48 * elements, 16, tree).unwrap());
        let longest = if i % 200 == 0 { 60_000 } else { 40 };
        if i % 10 == 0 {
            lists.push(
                heap.alloc(cache, 8 * (1 + rng.below(longest)), 16, list)
                    .unwrap(),
            );
        }
    }
    let any = |rng: &mut Rng, of: &[u64]| match rng.below(4) {
        0 => 0,
        _ => of[rng.below(of.len() as u64) as usize],
    };
    for t in &trees {
        let size = heap.object_at(*t).unwrap().size;
        for element in 0..size / 48 {
            for word in 0..3 {
                put(heap, t + element * 48 + word * 8, any(&mut rng, &trees));
            }
            put(heap, t + element * 48 + 24, any(&mut rng, &lists));
            // Looks like a pointer, and is none.
            put(heap, t + element * 48 + 32, trees[0]);
        }
    }
    for l in &lists {
        for word in 0..heap.object_at(*l).unwrap().size / 8 {
            put(heap, l + word * 8, any(&mut rng, &trees));
        }
    }
    heap.set_root(trees[0]).unwrap();
    trees.extend(lists);
    trees
}

fn assert_verified<M: PoolMemory>(heap: &AnyHeap<M>) {
    let report = verify(heap, &Plans::of(heap), VerifyOptions::default());
    assert!(report.is_sound(), "{:?}", report.problems.first());
}

#[test]
fn what_is_allocated_is_verified_and_what_nothing_reaches_is_reclaimed() {
    let (_mem, heap) = pool(&[4 * MIB, 16 * MIB]);
    let mut cache = heap.thread_cache();
    let mut all = fill(&heap, &mut cache, 5);
    // Allocated and never linked: they know the others and each other.
    let tree = heap.intern_type(&mut cache, &tree_type()).unwrap();
    for i in 0..100 {
        let lost = heap.alloc(&mut cache, 48 * (1 + i % 3), 16, tree).unwrap();
        put(&heap, lost, all[i as usize]);
        put(&heap, lost + 8, lost);
        all.push(lost);
    }
    assert_verified(&heap);
    let plans = Plans::of(&heap);
    let mut reached = HashSet::new();
    inspect(&heap, &plans, Budget::default(), &mut |view, _| {
        reached.insert(view.object.addr);
        Flow::Continue
    });
    let (set, report) = reach(&heap, &plans, &[], Budget::default());
    assert!(!report.exhausted && reached.iter().all(|a| set.contains(*a)));
    let leaks: HashSet<u64> = heap.leaks(&set).unwrap().iter().map(|o| o.addr).collect();
    let expected: HashSet<u64> = all.iter().copied().filter(|a| !set.contains(*a)).collect();
    assert_eq!(leaks, expected);
    assert!(leaks.len() >= 100);
    let freed = heap.reclaim(&set).unwrap();
    assert_eq!(freed.objects, leaks.len() as u64);
    assert_verified(&heap);
    sound(&heap);
    let (again, _) = reach(&heap, &plans, &[], Budget::default());
    assert_eq!(heap.leaks(&again).unwrap(), []);
    // A pointer to what was freed is found.
    let root = heap.root().unwrap();
    put(&heap, root, *leaks.iter().next().unwrap());
    assert!(!verify(&heap, &plans, VerifyOptions::default()).is_sound());
}

/// Import under other addresses: open where the puddles are now, start an epoch, rewrite each chunk.
#[test]
fn a_pool_at_other_addresses_is_relocated_chunk_by_chunk() {
    let (mem, heap) = pool(&[4 * MIB, 16 * MIB]);
    let mut cache = heap.thread_cache();
    fill(&heap, &mut cache, 6);
    let from = mem.puddles();
    let mut to = from.clone();
    let mut moved = OwnedMemory::new();
    // The puddles change places, too.
    for (i, words) in mem.snapshot().into_iter().enumerate() {
        to[i].addr += (1 << 36) - ((i as u64) << 30);
        moved.add_words(to[i].addr, words.into_iter().map(Into::into).collect());
    }
    let other = Heap::open(moved, &to).unwrap();
    let epoch = other.begin_address_epoch().unwrap();
    let moves: Vec<Move> = other
        .directory()
        .unwrap()
        .iter()
        .map(|e| Move {
            old: e.previous,
            new: e.current,
            len: e.size,
        })
        .collect();
    let translation = Translation::new(&moves).unwrap();
    let plans = Plans::of(&other);
    let rewrite = Rewrite {
        plans: &plans,
        pointers: &translation,
        binding: None,
    };
    assert!(
        !verify(&other, &plans, VerifyOptions::default()).is_sound(),
        "nothing was relocated yet"
    );
    for chunk in (0..other.chunk_count()).rev() {
        let (start, end) = other.chunk_range(chunk).unwrap();
        let words = other.words(start, ((end - start) / 8) as usize).unwrap();
        let report = rewrite.chunk(&other, chunk, words, &mut |_| ()).unwrap();
        assert_eq!(report.unknown, 0);
        other.set_chunk_epochs(chunk, epoch, 1).unwrap();
    }
    sound(&other);
    assert_verified(&other);
    // Every object has the words of the original, pointers moved and everything else the same.
    for chunk in 0..heap.chunk_count() {
        heap.for_each_object(chunk, &mut |o| {
            let there = vernal_heap::walk::Translate::translate(&translation, o.addr);
            assert_eq!(other.object_at(there), Some(Object { addr: there, ..o }));
            for word in (0..o.size).step_by(8) {
                let (old, new) = (get(&heap, o.addr + word), get(&other, there + word));
                let is_count = heap
                    .type_desc(o.type_index)
                    .is_none_or(|d| d.name() == "tree" && word % 48 >= 32);
                let expected = if is_count {
                    old
                } else {
                    vernal_heap::walk::Translate::translate(&translation, old)
                };
                assert_eq!(new, expected, "{:#x} + {word}", o.addr);
            }
            true
        });
    }
}

struct Copies<'a, M: PoolMemory> {
    heap: &'a AnyHeap<M>,
    cache: ThreadCache,
}

impl<M: PoolMemory> CopyTarget for Copies<'_, M> {
    type Error = vernal_heap::HeapError;
    fn allocate(&mut self, object: &Object, desc: Option<&TypeDesc>) -> Result<u64, Self::Error> {
        let index = self
            .heap
            .intern_type(&mut self.cache, desc.unwrap().blob())?;
        self.heap.alloc(&mut self.cache, object.size, 16, index)
    }
    fn write(&mut self, addr: u64, words: &[u64]) -> Result<(), Self::Error> {
        let place = self.heap.words(addr, words.len()).unwrap();
        place
            .iter()
            .zip(words)
            .for_each(|(p, w)| p.store(*w, Relaxed));
        Ok(())
    }
}

#[test]
fn a_graph_is_copied_into_another_heap() {
    let (_mem, heap) = pool(&[4 * MIB, 16 * MIB]);
    let mut cache = heap.thread_cache();
    fill(&heap, &mut cache, 7);
    let (_other_mem, other) = pool(&[32 * MIB]);
    let mut target = Copies {
        heap: &other,
        cache: other.thread_cache(),
    };
    let plans = Plans::of(&heap);
    let root = heap.root().unwrap();
    let done = copy(
        &heap,
        &plans,
        root,
        External::Refuse,
        Budget::default(),
        &mut target,
    )
    .unwrap();
    other.set_root(done.root).unwrap();
    assert_verified(&other);
    sound(&other);
    let mut there = 0;
    inspect(
        &other,
        &Plans::of(&other),
        Budget::default(),
        &mut |_, _| {
            there += 1;
            Flow::Continue
        },
    );
    assert_eq!((there, done.external), (done.objects, 0));
    // A target without room says so.
    let (_small_mem, small) = pool(&[2 * MIB]);
    let mut target = Copies {
        heap: &small,
        cache: small.thread_cache(),
    };
    let error = copy(
        &heap,
        &plans,
        root,
        External::Refuse,
        Budget::default(),
        &mut target,
    )
    .unwrap_err();
    assert!(error.to_string().contains("another puddle"), "{error}");
}
