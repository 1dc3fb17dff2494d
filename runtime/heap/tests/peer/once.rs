//! What was read of a peer is not read again, and what an object must be is asked of its page: both without a race, so that a bug
//! shows each time.

use crate::world::*;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_heap::walk::{
    Allowed, Budget, Examiner, Fault, GraphError, GraphTarget, KnownTypes, Placed,
};

/// A target that is in league with the sender: when room for an object is asked for, all that the receiver has copied so far, and
/// the metadata of the pages that it has decided about, is overwritten.
struct Liar<'a> {
    graph: &'a Graph,
    copies: Recorded,
    /// Copies of nodes, whose keys say which nodes they are of.
    nodes: Vec<Placed>,
    slabs: Vec<(u64, u64)>,
}

impl GraphTarget for Liar<'_> {
    type Error = Infallible;

    fn place(
        &mut self,
        size: u64,
        align: u64,
        ty: Option<&TypeDesc>,
    ) -> Result<Placed, Infallible> {
        let world = &self.graph.world;
        for at in &self.nodes {
            let words = self.copies.arena.words(*at, 9).expect("a copy");
            let original = self.graph.nodes[words[8].load(Relaxed) as usize];
            for word in 0..9 {
                world.set(original + word * 8, 0x6666_0000_0000 + word * 4);
            }
        }
        if self.nodes.len() == 1 {
            // Nothing is there any more, and it is of another type.
            for (page, _) in &self.slabs {
                (1..6).for_each(|word| world.set(page + word * 8, 0));
            }
        }
        let at = self.copies.place(size, align, ty)?;
        if ty.is_some_and(|t| t.name() == "node") {
            self.nodes.push(at);
        }
        Ok(at)
    }

    fn words(&self, at: Placed, count: usize) -> Option<&[AtomicU64]> {
        self.copies.words(at, count)
    }
}

#[test]
fn what_was_copied_or_decided_is_not_looked_at_again() {
    let graph = graph(40);
    // All nodes lie on one page, which the root decides.
    let page = graph.root & !4095;
    assert!(graph.nodes.iter().all(|at| at & !4095 == page));
    let mut liar = Liar {
        graph: &graph,
        copies: Recorded::default(),
        nodes: Vec::new(),
        slabs: vec![(page, graph.world.get(page))],
    };
    let mut examiner = Examiner::new(Arc::clone(&graph.known));
    let (space, id) = (&graph.world.space, graph.node.id());
    let copied = examiner.copy(space, graph.root, id, Budget::default(), &mut liar);
    let copied = copied.expect("what was read first is sound");
    assert_eq!(liar.nodes.len(), 40);
    // The copy is the graph as it was.
    let (copies, mut seen) = (&liar.copies, vec![false; 40]);
    let mut todo = vec![copied.root];
    while let Some(at) = todo.pop() {
        let key = copies.get(at + 64) as usize;
        if std::mem::replace(&mut seen[key], true) {
            continue;
        }
        let first = copies.get(at);
        assert!(first & 0xff <= 1 && (1..=3).contains(&(first >> 8 & 0xff)));
        let children = (8..40).step_by(8).map(|offset| copies.get(at + offset));
        todo.extend(children.filter(|to| *to != 0));
    }
    assert!(seen.iter().all(|seen| *seen), "{seen:?}");
}

fn look(world: &World, known: &Arc<KnownTypes>, at: u64, id: u64) -> Option<Fault> {
    let mut examiner = Examiner::new(Arc::clone(known));
    let verified = examiner.verify(&world.space, at, id, Allowed::All, Budget::default());
    let mut copies = Recorded::default();
    let copied = examiner.copy(&world.space, at, id, Budget::default(), &mut copies);
    assert_eq!(copied.map(|c| c.report), verified);
    match verified {
        Ok(_) => None,
        Err(GraphError::Fault { fault, .. }) => Some(fault),
        Err(e) => panic!("{e}"),
    }
}

/// A page of objects that are too small for their type, or not aligned as it demands, is refused, whatever points there.
#[test]
fn what_a_type_needs_is_asked_of_the_page() {
    let wide = built(TypeBuilder::new("wide", 64, 64).member("a", 0, Shape::Integer(8)));
    let owner = built(TypeBuilder::new("owner", 8, 8).member("wide", 0, pointer("wide")));
    let known = Arc::new(KnownTypes::new([&wide, &owner]));
    let mut world = World::new();
    let at = world.alloc(&owner, 8);
    let id = owner.id();
    let good = world.alloc(&wide, 64);
    world.set(at, good);
    assert_eq!(look(&world, &known, at, id), None);
    // Slots of 80 bytes begin at multiples of 16.
    let unaligned = world.alloc(&wide, 80);
    world.set(at, unaligned);
    let fault = look(&world, &known, at, id);
    assert!(matches!(fault, Some(Fault::Unaligned { .. })), "{fault:?}");
    let small = world.alloc(&wide, 32);
    world.set(at, small);
    let fault = look(&world, &known, at, id);
    assert!(matches!(fault, Some(Fault::TooSmall { .. })), "{fault:?}");
}

/// Memory without type holds what has no pointers, aligned and whole.
#[test]
fn memory_without_type_is_measured() {
    let plain = built(TypeBuilder::new("plain", 16, 8).member("a", 0, Shape::Integer(8)));
    let owner = built(
        TypeBuilder::new("owner", 16, 8)
            .member("plain", 0, pointer("plain"))
            .member("number", 8, pointer("u64")),
    );
    let known = Arc::new(KnownTypes::new([&plain, &owner]));
    let mut world = World::new();
    let at = world.alloc(&owner, 16);
    let id = owner.id();
    // A slot, and an object of whole pages, whose last one is not full.
    for bytes in [48, 5000] {
        let raw = world.raw(bytes);
        let last = raw + bytes.next_multiple_of(8);
        for (field, value, good) in [
            (at, raw, true),
            (at, raw + 8, true),
            (at, last - 16, true),
            (at, last - 8, false),
            (at, raw + 4, false),
            (at + 8, raw + 16, true),
            (at + 8, last - 8, true),
            (at + 8, raw + 12, false),
            (at + 8, raw + 4096 * 3, false),
        ] {
            world.set(at, 0);
            world.set(at + 8, 0);
            world.set(field, value);
            let fault = look(&world, &known, at, id);
            assert_eq!(
                fault.is_none(),
                good,
                "{bytes} bytes, +{:#x}: {fault:?}",
                value - raw
            );
        }
    }
}
