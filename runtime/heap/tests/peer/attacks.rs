//! Sound graphs pass and are copied; every attack is named.

use crate::world::*;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use vernal_abi::RPC_BASE;
use vernal_format::types::Shape;
use vernal_format::types::TypeBuilder;
use vernal_heap::walk::Allowed;
use vernal_heap::walk::Budget;
use vernal_heap::walk::Examiner;
use vernal_heap::walk::Fault;
use vernal_heap::walk::GraphError;
use vernal_heap::walk::KnownTypes;
#[test]
fn a_sound_graph_passes_and_its_copy_is_the_same_graph() {
    let g = graph(400);
    // Nodes, items that are used, the name.
    assert_eq!(g.verify(), Ok(400 + 200 + 1));
    let mut copies = Recorded::default();
    let mut examiner = Examiner::new(Arc::clone(&g.known));
    for round in 0..3 {
        copies.given.clear();
        copies.arena.clear();
        let copied = examiner
            .copy(
                &g.world.space,
                g.root,
                g.node.id(),
                Budget::default(),
                &mut copies,
            )
            .expect("sound");
        assert_eq!(copies.given.len(), 601, "round {round}");
        let mut same: HashMap<u64, u64> = HashMap::new();
        let mut todo = vec![(g.root, copied.root)];
        while let Some((old, new)) = todo.pop() {
            if let Some(known) = same.insert(old, new) {
                assert_eq!(known, new, "what is shared is shared");
                continue;
            }
            assert_eq!(copies.given[&new].2, "node");
            assert_eq!(g.world.get(old), copies.get(new));
            assert_eq!(g.world.get(old + 64), copies.get(new + 64));
            for at in (8..40).step_by(8) {
                let (o, n) = (g.world.get(old + at), copies.get(new + at));
                assert_eq!(o == 0, n == 0);
                if o != 0 {
                    todo.push((o, n));
                }
            }
            let items = (g.world.get(old + 40), copies.get(new + 40));
            assert_eq!(*same.entry(items.0).or_insert(items.1), items.1);
            assert_eq!(copies.given[&items.1].2, "item");
            assert_eq!(copies.get(copies.get(new + 56)), g.world.get(g.text));
        }
        assert_eq!(same.len(), 600);
    }
}

#[test]
fn every_attack_is_named() {
    let attack = |change: &dyn Fn(&mut Graph)| {
        let mut g = graph(40);
        change(&mut g);
        g.fault()
    };
    let child = |g: &Graph, value: u64| g.world.set(g.nodes[7] + 8, value);
    // A wild pointer, and one into memory of the receiver that is no part of the heap.
    let receiver = Box::new(7u64);
    let private = std::ptr::from_ref(&*receiver) as u64;
    for value in [
        8,
        0xdead_beef_0000,
        private,
        RPC_BASE + SIZE,
        RPC_BASE - 8,
        u64::MAX,
    ] {
        let fault = attack(&|g| child(g, value));
        assert_eq!(fault, Fault::Outside { value });
    }
    // Metadata and free memory.
    for at in [0, 64, 2048, 8192, SIZE - 4096] {
        let fault = attack(&|g| child(g, RPC_BASE + at));
        assert!(matches!(fault, Fault::Free { .. }), "{fault}");
    }
    // Into the middle, and not aligned.
    for by in [1, 4, 8, 16, 71] {
        let fault = attack(&|g| child(g, g.nodes[3] + by));
        assert!(matches!(fault, Fault::Interior { .. }), "{by}: {fault}");
    }
    // Another type; memory without type; a part where the whole is wanted.
    let fault = attack(&|g| child(g, g.items[0]));
    assert!(matches!(fault, Fault::WrongType { .. }), "{fault}");
    let fault = attack(&|g| child(g, g.text));
    assert!(matches!(fault, Fault::WrongType { .. }), "{fault}");
    let fault = attack(&|g| g.world.set(g.nodes[2] + 40, g.nodes[1]));
    assert!(matches!(fault, Fault::WrongType { .. }), "{fault}");
    let fault = attack(&|g| g.world.set(g.nodes[2] + 40, g.items[1] + 8));
    assert!(matches!(fault, Fault::Interior { .. }), "{fault}");
    // A freed object.
    let fault = attack(&|g| g.world.heap.free(g.nodes[5]).expect("freed"));
    assert!(matches!(fault, Fault::Free { .. }), "{fault}");
    // Values.
    let fault = attack(&|g| g.world.set(g.nodes[9], 2 | 1 << 8));
    assert_eq!(fault, Fault::Bool { value: 2 });
    for color in [0u64, 4, 255] {
        let fault = attack(&|g| g.world.set(g.nodes[9], color << 8));
        assert!(matches!(fault, Fault::Enum { .. }), "{fault}");
    }
    // A string without end.
    let fault = attack(&|g| g.world.bytes(g.text, &[b'x'; 32]));
    assert!(matches!(fault, Fault::Text { .. }), "{fault}");
    // The root itself.
    let fault = attack(&|g| g.root += 8);
    assert!(matches!(fault, Fault::Interior { .. }), "{fault}");
    let fault = attack(&|g| g.root = g.items[0]);
    assert!(matches!(fault, Fault::WrongType { .. }), "{fault}");
    let fault = attack(&|g| g.root = 0);
    assert!(matches!(fault, Fault::Outside { .. }), "{fault}");
}

#[test]
fn cycles_end_and_budgets_hold() {
    let g = graph(100);
    for (i, at) in g.nodes.iter().enumerate() {
        for c in 0..4 {
            g.world
                .set(at + 8 + c * 8, g.nodes[(i * 7 + c as usize * 13) % 100]);
        }
    }
    assert!(g.verify().is_ok());
    let objects = g.verify().expect("sound");
    let budget = |objects, bytes| Budget { objects, bytes };
    let all = g.verify_in(Allowed::All, budget(objects, 1 << 20));
    assert_eq!(all, Ok(objects));
    let few = g.verify_in(Allowed::All, budget(objects - 1, 1 << 20));
    assert!(matches!(few, Err(GraphError::Budget { .. })), "{few:?}");
    let few = g.verify_in(Allowed::All, budget(1000, 4096));
    assert!(matches!(few, Err(GraphError::Budget { .. })), "{few:?}");
    // Many pointers to one long text are not many times its work.
    let mut g = graph(100);
    let long = g.world.raw(300_000);
    g.world.bytes(long, &[b'x'; 299_999]);
    for at in &g.nodes {
        g.world.set(at + 56, long);
    }
    let much = g.verify_in(Allowed::All, budget(1000, 1 << 20));
    assert!(matches!(much, Err(GraphError::Budget { .. })), "{much:?}");
    assert!(g.verify_in(Allowed::All, budget(1000, 64 << 20)).is_ok());
}

#[test]
fn only_what_is_sealed_is_looked_at() {
    let g = graph(200);
    let (low, high) = (RPC_BASE, RPC_BASE + SIZE);
    assert!(
        g.verify_in(Allowed::Ranges(&[(low, high)]), Budget::default())
            .is_ok()
    );
    let pages: HashSet<u64> = g
        .nodes
        .iter()
        .chain(&g.items)
        .chain([&g.text])
        .map(|a| a >> 12)
        .collect();
    let mut ranges: Vec<(u64, u64)> = pages.iter().map(|p| (p << 12, (p + 1) << 12)).collect();
    ranges.sort_unstable();
    assert!(
        g.verify_in(Allowed::Ranges(&ranges), Budget::default())
            .is_ok()
    );
    for leave in 0..ranges.len() {
        let mut fewer = ranges.clone();
        let gone = fewer.remove(leave);
        let found = g.verify_in(Allowed::Ranges(&fewer), Budget::default());
        let Err(GraphError::Fault { fault, .. }) = found else {
            panic!("without {gone:x?}: {found:?}");
        };
        assert!(
            matches!(fault, Fault::NotSealed { .. } | Fault::Root { .. }),
            "{fault}"
        );
    }
    assert!(
        g.verify_in(Allowed::Ranges(&[]), Budget::default())
            .is_err()
    );
}

#[test]
fn types_are_the_receivers() {
    // The peer has another layout under the same name, or a type that nobody knows.
    let g = graph(10);
    let other = built(
        TypeBuilder::new("node", 72, 8)
            .member("leaf", 0, Shape::Bool)
            .member("child", 8, pointer("node")),
    );
    let mut examiner = Examiner::new(Arc::new(KnownTypes::new([&other, &item()])));
    let found = examiner.verify(
        &g.world.space,
        g.root,
        other.id(),
        Allowed::All,
        Budget::default(),
    );
    let Err(GraphError::Fault { fault, .. }) = found else {
        panic!("{found:?}");
    };
    assert!(matches!(fault, Fault::ForeignType { .. }), "{fault}");
    let found = examiner.verify(
        &g.world.space,
        g.root,
        g.node.id(),
        Allowed::All,
        Budget::default(),
    );
    assert_eq!(found, Err(GraphError::Expected { id: g.node.id() }));
    // Code of another process is not called.
    let callback = built(TypeBuilder::new("hook", 8, 8).member(
        "f",
        0,
        Shape::Function {
            signature: "void ()".into(),
        },
    ));
    let mut world = World::new();
    let at = world.alloc(&callback, 8);
    let mut examiner = Examiner::new(Arc::new(KnownTypes::new([&callback])));
    let found = examiner.verify(
        &world.space,
        at,
        callback.id(),
        Allowed::All,
        Budget::default(),
    );
    let Err(GraphError::Fault { fault, .. }) = found else {
        panic!("{found:?}");
    };
    assert!(matches!(fault, Fault::RefusedType { .. }), "{fault}");
}
