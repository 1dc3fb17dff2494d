//! Copies of graphs, annotated pointers, and random graphs, whole and damaged.

mod copies;
mod space;

use copies::Into;
use proptest::prelude::*;
use space::{Rng, Space, desc, graph, ptr};
use std::collections::HashSet;
use vernal_abi::puddle::CHUNK_SIZE;
use vernal_format::types::{TypeBuilder, TypeDesc};
use vernal_heap::walk::{
    Budget, CopyError, CopyTarget, External, Fault, Flow, Plans, PoolRanges, VerifyOptions,
    VerifyReport, copy, inspect, reach, scan_external, verify,
};
use vernal_heap::{Object, ObjectSpace, TYPE_FIRST};

const A: u64 = 0x5800_0000_0000;
const B: u64 = 0x5840_0000_0000;

fn check(space: &Space) -> VerifyReport {
    verify(space, &Plans::of(space), VerifyOptions::default())
}

fn faults(space: &Space) -> Vec<(String, Fault)> {
    check(space)
        .problems
        .into_iter()
        .map(|p| (p.path, p.fault))
        .collect()
}

#[test]
fn copies_keep_sharing_and_refuse_what_leads_out() {
    let mut space = Space::new(&[A], CHUNK_SIZE, &space::types());
    let (node, table) = (space.type_index("node"), space.type_index("table"));
    let shared = space.alloc(0, 32, node).unwrap();
    let root = space.alloc(0, 176, table).unwrap();
    space.root = Some(root);
    space.set(root + 16, shared);
    space.set(root + 24 + 16, shared);
    space.set(root + 168, root);
    // Into the middle of an object, and to its end.
    let text = space.alloc(0, 16, space.type_index("text")).unwrap();
    space.set(root + 24 * 4, text + 5);
    space.set(root + 24 * 5, text + 16);
    let plans = Plans::of(&space);
    let run = |space: &Space, external| {
        let mut other = Space::new(&[B], CHUNK_SIZE, &space::types());
        copy(
            space,
            &plans,
            root,
            external,
            Budget::default(),
            &mut Into(&mut other),
        )
        .map(|r| (r, other))
    };
    let (done, other) = run(&space, External::Refuse).unwrap();
    assert_eq!((done.objects, other.objects.len()), (3, 3));
    let there = other.get(done.root + 24 * 4) - 5;
    assert_eq!(other.object_at(there).unwrap().addr, there);
    assert_eq!(other.get(done.root + 24 * 5), there + 16);
    assert_eq!(other.get(done.root + 16), other.get(done.root + 40));
    assert_eq!(other.get(done.root + 168), done.root);
    space.set(root + 48 + 16, 0x1000);
    let error = run(&space, External::Refuse).unwrap_err();
    assert!(
        matches!(&error, CopyError::External { path, value: 0x1000 } if path == "root.slot[2].node"),
        "{error}"
    );
    let (done, other) = run(&space, External::Keep).unwrap();
    assert_eq!((other.get(done.root + 64), done.external), (0x1000, 1));
    let (done, other) = run(&space, External::Null).unwrap();
    assert_eq!(other.get(done.root + 64), 0);
    // No room there.
    space.set(root + 64, 0);
    let mut tiny = Space::new(&[B], 4096 + 64, &space::types());
    let error = copy(
        &space,
        &plans,
        root,
        External::Refuse,
        Budget::default(),
        &mut Into(&mut tiny),
    )
    .unwrap_err();
    assert_eq!(error, CopyError::Target("full".to_string()));
    let error = copy(
        &space,
        &plans,
        root + 8,
        External::Refuse,
        Budget::default(),
        &mut Into(&mut tiny),
    )
    .unwrap_err();
    assert!(matches!(error, CopyError::NoObject { .. }));
}

/// `VN_TAGGED` and `VN_ACTIVE`: a tag in the low bits, or the other member of a union.
#[test]
fn annotated_pointers_may_be_tagged_or_something_else() {
    let types = [desc(
        TypeBuilder::new("value", 16, 8)
            .annotated("link", 0, ptr("value"))
            .member("next", 8, ptr("value")),
    )];
    let mut space = Space::new(&[A], CHUNK_SIZE, &types);
    let first = space.alloc(0, 16, TYPE_FIRST).unwrap();
    let second = space.alloc(0, 48, TYPE_FIRST).unwrap();
    space.root = Some(first);
    space.set(first, second + 16 + 5);
    space.set(second, 42);
    assert_eq!(faults(&space), []);
    let plans = Plans::of(&space);
    assert_eq!(reach(&space, &plans, &[], Budget::default()).0.len(), 2);
    let mut listed = 0;
    scan_external(
        &space,
        &plans,
        &PoolRanges::of(&space),
        0,
        true,
        &mut |_| {
            listed += 1;
            true
        },
    );
    assert_eq!(listed, 0);
    let mut other = Space::new(&[B], CHUNK_SIZE, &types);
    let done = copy(
        &space,
        &plans,
        first,
        External::Refuse,
        Budget::default(),
        &mut Into(&mut other),
    )
    .unwrap();
    let there = other.get(done.root) - 21;
    assert_eq!(
        (
            other.object_at(there).unwrap().size,
            other.get(there),
            done.external
        ),
        (48, 42, 0)
    );
    // In the pool it must still be right.
    space.set(first, second + 8 + 1);
    assert!(matches!(faults(&space)[0].1, Fault::WrongType { .. }));
    space.set(first, second + 640);
    assert!(matches!(faults(&space)[0].1, Fault::Free { .. }));
}

/// What can be reached, by a program that knows nothing of the walker.
fn oracle(space: &Space) -> HashSet<u64> {
    let mut seen = HashSet::new();
    let mut todo: Vec<u64> = space.root.into_iter().collect();
    while let Some(addr) = todo.pop() {
        let Some(o) = space.object_at(addr) else {
            continue;
        };
        if !seen.insert(o.addr) {
            continue;
        }
        let d = space.type_desc(o.type_index).unwrap();
        for element in 0..d.elements_in(o.size) {
            for f in d
                .fields()
                .iter()
                .filter(|f| f.kind == vernal_format::types::FieldKind::Pointer)
            {
                let count = if f.is_flex() {
                    (o.size - d.size()) / 24
                } else {
                    f.count.into()
                };
                for i in 0..count {
                    let at = o.addr + element * d.size() + f.offset + i * u64::from(f.stride);
                    todo.extend(Some(space.get(at)).filter(|v| *v != 0));
                }
            }
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_verify_copy_and_reach(seed in any::<u64>()) {
        let bases = [A, A + 8 * CHUNK_SIZE];
        let space = graph(seed, &bases, 4 * CHUNK_SIZE, 300);
        let report = check(&space);
        prop_assert!(report.is_sound(), "{:?}", report.problems.first());
        let plans = Plans::of(&space);
        let expected = oracle(&space);
        let mut found = HashSet::new();
        inspect(&space, &plans, Budget::default(), &mut |view, _| { found.insert(view.object.addr); Flow::Continue });
        prop_assert_eq!(&found, &expected);
        prop_assert!(report.unreachable as usize + expected.len() == space.objects.len());
        // A copy verifies, and a copy of the copy at the same place is the same.
        let copied = |from: &Space| {
            let mut to = Space::new(&[B], 9 * CHUNK_SIZE, &space::types());
            let root = from.root.unwrap();
            let done = copy(from, &Plans::of(from), root, External::Refuse, Budget::default(), &mut Into(&mut to)).unwrap();
            to.root = Some(done.root);
            to
        };
        let first = copied(&space);
        prop_assert_eq!(first.objects.len(), expected.len());
        prop_assert!(check(&first).is_sound());
        let second = copied(&first);
        prop_assert_eq!(first.image(), second.image());
    }

    #[test]
    fn damaged_graphs_are_answers(seed in any::<u64>()) {
        let mut space = graph(seed, &[A], 2 * CHUNK_SIZE, 60);
        let mut rng = Rng(seed);
        for _ in 0..200 {
            let at = A + 4096 + rng.below(CHUNK_SIZE / 16) * 8;
            let value = match rng.below(4) {
                0 => rng.next(),
                1 => A + rng.below(2 * CHUNK_SIZE),
                2 => u64::MAX - rng.below(16),
                _ => A + 2 * CHUNK_SIZE - rng.below(16) + 8,
            };
            space.set(at, value);
        }
        // Damaged metadata, too.
        for _ in 0..10 {
            let at = rng.below(space.objects.len() as u64) as usize;
            space.objects[at].type_index = rng.below(12) as u32;
        }
        let plans = Plans::of(&space);
        let budget = Budget { objects: 1000, ..Budget::default() };
        let report = verify(&space, &plans, VerifyOptions { budget, ..VerifyOptions::default() });
        prop_assert!(report.problem_count as usize >= report.problems.len());
        let _ = reach(&space, &plans, &[rng.next(), A + 1], budget);
        inspect(&space, &plans, budget, &mut |view, trail| {
            let _ = trail.path(&space);
            view.for_each_field(&mut |_| true);
            Flow::Continue
        });
        let mut other = Space::new(&[B], 4 * CHUNK_SIZE, &space::types());
        struct Any<'a>(&'a mut Space);
        impl CopyTarget for Any<'_> {
            type Error = ();
            fn allocate(&mut self, o: &Object, _: Option<&TypeDesc>) -> Result<u64, ()> {
                self.0.alloc(0, o.size, o.type_index).ok_or(())
            }
            fn write(&mut self, _: u64, _: &[u64]) -> Result<(), ()> {
                Ok(())
            }
        }
        let _ = copy(&space, &plans, space.root.unwrap(), External::Keep, budget, &mut Any(&mut other));
    }
}
