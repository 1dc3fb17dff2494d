//! The graph walks: what they find, what they refuse, and that no graph is too deep, too cyclic or too damaged for them.

mod copies;
mod space;

use copies::Into;
use space::{Space, array, desc, ptr};
use vernal_abi::puddle::CHUNK_SIZE;
use vernal_format::types::{Member, Shape, TypeBuilder, TypeDesc};
use vernal_heap::walk::{
    Budget, CopyError, External, Fault, Flow, Match, Plans, PoolRanges, Value, VerifyOptions,
    VerifyReport, copy, inspect, pointer_matches, reach, scan_external, verify,
};
use vernal_heap::{ObjectSpace, TYPE_FIRST, TYPE_RAW};

const A: u64 = 0x5800_0000_0000;
const B: u64 = 0x5840_0000_0000;

fn node() -> TypeDesc {
    desc(
        TypeBuilder::new("node", 16, 8)
            .member("next", 0, ptr("node"))
            .member("value", 8, Shape::Integer(8)),
    )
}

/// A list of `n` nodes; the last points to the first.
fn ring(n: u64) -> Space {
    let mut space = Space::new(
        &[A],
        (n * 16 + 8192).next_multiple_of(CHUNK_SIZE),
        &[node()],
    );
    let nodes: Vec<u64> = (0..n)
        .map(|_| space.alloc(0, 16, TYPE_FIRST).unwrap())
        .collect();
    for (i, addr) in nodes.iter().enumerate() {
        space.set(*addr, nodes[(i + 1) % nodes.len()]);
        space.set(addr + 8, i as u64);
    }
    space.root = nodes.first().copied();
    space
}

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
fn a_ring_of_a_million_nodes_is_walked_without_recursion() {
    let space = ring(1_000_000);
    let plans = Plans::of(&space);
    let (set, report) = reach(&space, &plans, &[], Budget::default());
    assert_eq!(
        (set.len(), report.objects, report.exhausted),
        (1_000_000, 1_000_000, false)
    );
    assert!(check(&space).is_sound());
    let mut other = Space::new(&[B], 32 << 20, &[node()]);
    let done = copy(
        &space,
        &plans,
        space.root.unwrap(),
        External::Refuse,
        Budget::default(),
        &mut Into(&mut other),
    )
    .unwrap();
    assert_eq!(done.objects, 1_000_000);
    let mut at = done.root;
    for i in 0..1_000_000 {
        assert_eq!(other.get(at + 8), i);
        at = other.get(at);
    }
    assert_eq!(at, done.root, "the ring closes in the copy");
    // The path of the farthest node is a line, not a megabyte.
    let last = space.objects.last().unwrap().addr;
    space.set(last, 0x1230);
    let found = faults(&space);
    assert_eq!(found[0].0, "root.next{999999 times}.next");
}

#[test]
fn budgets_end_walks() {
    let space = ring(1000);
    let plans = Plans::of(&space);
    let few = Budget {
        objects: 10,
        ..Budget::default()
    };
    let (_, report) = reach(&space, &plans, &[], few);
    assert_eq!((report.objects, report.exhausted), (10, true));
    let bytes = Budget {
        bytes: 100,
        ..Budget::default()
    };
    assert_eq!(reach(&space, &plans, &[], bytes).1.objects, 6);
    // Exactly enough is enough.
    let exact = Budget {
        objects: 1000,
        bytes: 16000,
    };
    assert!(!reach(&space, &plans, &[], exact).1.exhausted);
    let mut other = Space::new(&[B], 32 << 20, &[node()]);
    let error = copy(
        &space,
        &plans,
        space.root.unwrap(),
        External::Refuse,
        few,
        &mut Into(&mut other),
    )
    .unwrap_err();
    assert!(
        matches!(error, CopyError::Budget { objects: 10, .. }),
        "{error}"
    );
    let report = verify(
        &space,
        &plans,
        VerifyOptions {
            budget: few,
            ..VerifyOptions::default()
        },
    );
    assert!(!report.is_sound() && report.walk.exhausted);
}

#[test]
fn unreachable_objects_are_leaks_but_not_those_in_doubt() {
    let mut space = ring(10);
    let leak = space.alloc(0, 16, TYPE_FIRST).unwrap();
    let kept = space.alloc(0, 16, TYPE_FIRST).unwrap();
    let raw = space.alloc(0, 64, TYPE_RAW).unwrap();
    space.set(raw + 40, kept + 8);
    space.set(leak, leak);
    let plans = Plans::of(&space);
    let (set, _) = reach(&space, &plans, &[raw], Budget::default());
    assert!(!set.contains(leak) && set.contains(kept) && set.contains(raw));
    // One past the end of `leak` is where `kept` begins, which is what such a pointer means.
    let first = space.root.unwrap();
    space.set(first, kept);
    let (set, _) = reach(&space, &plans, &[], Budget::default());
    assert!(!set.contains(leak) && set.contains(kept));
}

#[test]
fn each_wild_pointer_is_named_with_its_path() {
    let types = [
        desc(
            TypeBuilder::new("tree", 64, 8)
                .member("child", 0, array(4, 8, ptr("tree")))
                .member("text", 32, ptr("char"))
                .member("any", 40, ptr("void"))
                .member("live", 48, Shape::Bool)
                .member(
                    "color",
                    52,
                    Shape::Enum {
                        name: "color".into(),
                        size: 4,
                        min: -1,
                        max: 2,
                    },
                )
                .member("n", 56, Shape::Integer(8)),
        ),
        desc(
            TypeBuilder::new("other", 16, 8)
                .member("n", 0, Shape::Integer(8))
                .member("f", 8, Shape::Float(8)),
        ),
    ];
    let build = || {
        let mut space = Space::new(&[A], CHUNK_SIZE, &types);
        let root = space.alloc(0, 64, TYPE_FIRST).unwrap();
        let child = space.alloc(0, 64, TYPE_FIRST).unwrap();
        // No object of interest begins where another of the right type ends: that would be a pointer to an end.
        space.alloc(0, 16, TYPE_FIRST + 1).unwrap();
        let other = space.alloc(0, 16, TYPE_FIRST + 1).unwrap();
        space.root = Some(root);
        space.set(root + 24, child);
        // Pointers to anything go anywhere in an object, and the end of one is fine.
        space.set(child + 32, other + 3);
        space.set(child + 40, other + 16);
        (space, child, other)
    };
    let (space, ..) = build();
    assert_eq!(faults(&space), []);
    let free = A + 4096 + 64 + 64 + 32 + 128;
    let plant = |set: &dyn Fn(&Space, u64, u64)| {
        let (space, child, other) = build();
        set(&space, child, other);
        let found = faults(&space);
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    };
    let (path, fault) = plant(&|s, c, o| s.set(c + 8, o));
    assert_eq!(path, "root.child[3].child[1]");
    assert!(
        matches!(fault, Fault::WrongType { ref expected, ref found, .. } if expected == "tree" && found == "other")
    );
    assert!(matches!(
        plant(&|s, c, _| s.set(c + 8, c + 4)).1,
        Fault::Interior { .. }
    ));
    assert!(matches!(
        plant(&|s, c, _| s.set(c + 8, c + 8)).1,
        Fault::WrongType { .. }
    ));
    assert!(matches!(
        plant(&|s, c, _| s.set(c + 8, c + 1)).1,
        Fault::Interior { .. }
    ));
    assert!(matches!(
        plant(&|s, c, _| s.set(c, free)).1,
        Fault::Free { .. }
    ));
    assert!(
        matches!(plant(&|s, c, _| s.set(c, A + 8)).1, Fault::Free { .. }),
        "the heap's own"
    );
    assert!(matches!(
        plant(&|s, c, _| s.set(c, B)).1,
        Fault::Outside { value: B }
    ));
    assert!(matches!(
        plant(&|s, c, _| s.set(c + 32, u64::MAX)).1,
        Fault::Outside { .. }
    ));
    assert!(matches!(
        plant(&|s, c, _| s.set_byte(c + 48, 2)).1,
        Fault::Bool { value: 2 }
    ));
    assert!(matches!(
        plant(&|s, c, _| s.set_byte(c + 52, 3)).1,
        Fault::Enum { value: 3, .. }
    ));
    let (path, fault) = plant(&|s, c, _| {
        for i in 0..4 {
            s.set_byte(c + 52 + i, 0xfe | u8::from(i > 0));
        }
    });
    assert!(matches!(fault, Fault::Enum { value: -2, .. }), "{fault}");
    assert_eq!(path, "root.child[3].color");
    // Refused or listed.
    let (space, child, _) = build();
    space.set(child, B);
    let listed = verify(
        &space,
        &Plans::of(&space),
        VerifyOptions {
            refuse_external: false,
            ..VerifyOptions::default()
        },
    );
    assert!(listed.is_sound() && listed.external == 1);
}

#[test]
fn objects_that_contradict_their_type_are_faults() {
    let types = [
        desc(TypeBuilder::new("big", 64, 8).member("p", 56, ptr("big"))),
        desc(TypeBuilder::new("variant", 8, 8).member(
            "u",
            0,
            Shape::Refused {
                size: 8,
                reason: "union without annotation".into(),
            },
        )),
    ];
    let mut space = Space::new(&[A], CHUNK_SIZE, &types);
    space.alloc(0, 32, TYPE_FIRST).unwrap();
    space.alloc(0, 16, TYPE_FIRST + 1).unwrap();
    space.alloc(0, 16, 77).unwrap();
    let raw = space.alloc(0, 16, TYPE_RAW).unwrap();
    space.set(raw, raw);
    space.root = Some(A + 64);
    let found = faults(&space);
    let kinds: Vec<String> = found.iter().map(|(p, f)| format!("{p} {f}")).collect();
    assert_eq!(found.len(), 5, "{kinds:?}");
    assert!(kinds[0].starts_with("root is"));
    assert!(kinds[1].contains("big@") && kinds[1].contains("has 32 bytes"));
    assert!(kinds[2].contains("`u` is refused: union without annotation"));
    assert!(kinds[3].contains("type index 77"));
    assert!(kinds[4].contains("memory without type, and 1 of its words"));
}

/// Bases, members, elements and ends: where a pointer of a type may go.
#[test]
fn pointers_fit_parts_of_objects() {
    let link = || Shape::Record {
        name: "link".into(),
        size: 16,
        members: vec![
            Member::new("next", 0, ptr("link")),
            Member::new("prev", 8, ptr("link")),
        ],
    };
    let types = [
        desc(
            TypeBuilder::new("item", 48, 8)
                .base(
                    "base",
                    0,
                    Shape::Record {
                        name: "base".into(),
                        size: 8,
                        members: vec![Member::new("id", 0, Shape::Integer(8))],
                    },
                )
                .member("link", 8, link())
                .member("sub", 24, array(2, 8, ptr("item")))
                .member("x", 40, Shape::Float(8)),
        ),
        desc(TypeBuilder::of("int", 4, 4, Shape::Integer(4))),
        desc(
            TypeBuilder::new("message", 8, 8)
                .member("n", 0, Shape::Integer(8))
                .member(
                    "tail",
                    8,
                    Shape::Flexible {
                        stride: 16,
                        element: Box::new(link()),
                    },
                ),
        ),
    ];
    let mut space = Space::new(&[A], CHUNK_SIZE, &types);
    let item = space.alloc(0, 96, TYPE_FIRST).unwrap();
    space.alloc(0, 16, TYPE_FIRST + 1).unwrap();
    let ints = space.alloc(0, 32, TYPE_FIRST + 1).unwrap();
    space.alloc(0, 16, TYPE_FIRST + 1).unwrap();
    let message = space.alloc(0, 8 + 32, TYPE_FIRST + 2).unwrap();
    let fits = |target: &str, value: u64| pointer_matches(&space, target, 0, value);
    for (target, value) in [
        ("item", item),
        ("item", item + 48),
        ("base", item),
        ("base", item + 48),
        ("link", item + 8),
        ("link", item + 56),
        ("double", item + 40),
        ("item *", item + 24),
        ("item *", item + 32),
        ("item *", item + 40),
        ("long", item),
        ("int", ints + 12),
        ("int", ints + 32),
        ("item", item + 96),
        ("message", message),
        ("link", message + 8),
        ("link", message + 24),
        ("link", message + 40),
        ("int[2]", ints + 8),
        ("int[4][2]", ints),
    ] {
        assert_eq!(
            fits(target, value),
            Match::Fits,
            "{target} at +{}",
            value - item
        );
    }
    for (target, value) in [
        ("link", item),
        ("item", item + 8),
        ("item", ints),
        ("int", item + 40),
        ("double", ints),
        ("link", message),
        ("base", message),
        ("stranger", item),
    ] {
        assert_eq!(
            fits(target, value),
            Match::WrongType,
            "{target} at +{}",
            value - item
        );
    }
    for (target, value) in [
        ("item", item + 4),
        ("int", ints + 2),
        ("link", item + 12),
        ("link", message + 12),
    ] {
        assert_eq!(
            fits(target, value),
            Match::Interior,
            "{target} at +{}",
            value - item
        );
    }
    // By id a renamed type fits, too.
    assert_eq!(
        pointer_matches(&space, "renamed", types[0].id(), item),
        Match::Fits
    );
}

#[test]
fn external_pointers_are_listed_by_name() {
    let mut space = Space::new(&[A, B], CHUNK_SIZE, &space::types());
    let (table, shape) = (space.type_index("table"), space.type_index("shape"));
    let t = space.alloc(0, 176, table).unwrap();
    let s = space.alloc(1, 24, shape).unwrap();
    space.set(t + 3 * 24, 0xdead_0000);
    space.set(t + 168, t);
    space.set(t, B + CHUNK_SIZE);
    space.set(s, 0x5555_0000);
    let plans = Plans::of(&space);
    let ranges = PoolRanges::of(&space);
    let all = |code: bool| {
        let mut found = Vec::new();
        for chunk in 0..space.chunk_count() {
            scan_external(&space, &plans, &ranges, chunk, code, &mut |f| {
                found.push((f.name(&space), f.value));
                true
            });
        }
        found
    };
    assert_eq!(all(false), [("table.slot[3].key".to_string(), 0xdead_0000)]);
    assert_eq!(all(true)[1], ("shape.base::vptr".to_string(), 0x5555_0000));
    let mut calls = 0;
    scan_external(&space, &plans, &ranges, 0, true, &mut |_| {
        calls += 1;
        false
    });
    assert_eq!(calls, 1);
}

#[test]
fn inspection_streams_fields_nearest_first() {
    let mut space = Space::new(&[A], CHUNK_SIZE, &space::types());
    let node = space.type_index("node");
    let first = space.alloc(0, 64, node).unwrap();
    let second = space.alloc(0, 32, node).unwrap();
    space.root = Some(first);
    space.set(first + 32, second);
    space.set(second + 8, 42);
    space.set_byte(second + 24, 1);
    space.set_byte(second + 28, 4);
    let plans = Plans::of(&space);
    let mut lines = Vec::new();
    let report = inspect(&space, &plans, Budget::default(), &mut |view, trail| {
        lines.push(trail.path(&space).unwrap());
        view.for_each_field(&mut |f| {
            if !matches!(
                f.value,
                Value::Pointer(0) | Value::Integer(0) | Value::Bool(false) | Value::Enum(0)
            ) {
                lines.push(format!("{} {:?}", f.name, f.value));
            }
            true
        });
        Flow::Continue
    });
    assert_eq!(report.objects, 2);
    assert_eq!(
        lines,
        [
            "root".to_string(),
            format!("[1].next Pointer({second})"),
            "root[1].next".to_string(),
            "value Integer(42)".to_string(),
            "live Bool(true)".to_string(),
            "color Enum(4)".to_string()
        ]
    );
}
