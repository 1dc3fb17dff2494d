//! How fast a peer's graph is verified where it lies, and copied while it is verified, on one core: B-trees of several sizes.

use crate::results::Spread;
use crate::{Failure, Result};
use serde::Serialize;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use vernal_abi::RPC_BASE;
use vernal_format::Uuid;
use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_heap::walk::{Allowed, Arena, Budget, Examiner, KnownTypes};
use vernal_heap::{ForeignSpace, Heap, Mapped, ObjectSpace, OwnedMemory, PoolIdentity};

/// Keys of a node; it has one child more.
const KEYS: u64 = 8;
/// Nodes of the trees: one argument of 4 KiB, one that stays in the caches, one that does not.
const NODES: [usize; 3] = [29, 1000, 100_000];

/// What was measured for one tree.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    bench: &'static str,
    part: &'static str,
    /// `verify` or `copy`.
    pub what: &'static str,
    /// Nodes of the tree.
    pub nodes: usize,
    /// Bytes of objects in a second.
    pub gb_per_s: Spread,
    /// Pointers that are not null, in a second.
    pub mpointers_per_s: Spread,
}

/// `struct node { u32 count; bool leaf; u64 keys[KEYS]; node *child[KEYS + 1]; }`
fn node_type() -> Result<TypeDesc> {
    let pointer = Shape::Pointer {
        target: "node".into(),
        target_id: 0,
    };
    let array = |count: u64, element| Shape::Array {
        count,
        stride: 8,
        element: Box::new(element),
    };
    let blob = TypeBuilder::new("node", node_words() as u64 * 8, 8)
        .member("count", 0, Shape::Integer(4))
        .member("leaf", 4, Shape::Bool)
        .member("keys", 8, array(KEYS, Shape::Integer(8)))
        .member("child", 8 + KEYS * 8, array(KEYS + 1, pointer))
        .build()
        .map_err(fail("type"))?;
    TypeDesc::parse(&blob).map_err(fail("type"))
}

const fn node_words() -> usize {
    (1 + KEYS + KEYS + 1) as usize
}

fn fail<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> Failure {
    move |e| Failure(format!("{what}: {e}"))
}

/// A full tree in a heap that is a peer's: its memory, and the address of its root.
fn tree(desc: &TypeDesc, nodes: usize) -> Result<(ForeignSpace<OwnedMemory>, u64)> {
    let bytes = node_words() as u64 * 8;
    let root = Mapped {
        uuid: Uuid([1; 16]),
        addr: RPC_BASE,
        size: (nodes as u64 * bytes * 2).next_power_of_two().max(2 << 20),
    };
    let mut memory = OwnedMemory::new();
    memory.add_zeroed(root.addr, root.size);
    let identity = PoolIdentity {
        uuid: Uuid([9; 16]),
        label: "bench".into(),
        direct: false,
    };
    Heap::format_root(&memory, root, &identity).map_err(fail("heap"))?;
    let heap = Heap::open(memory, &[root]).map_err(fail("heap"))?;
    let mut cache = heap.thread_cache();
    let ty = heap
        .intern_type(&mut cache, desc.blob())
        .map_err(fail("type"))?;
    let made: Vec<u64> = (0..nodes)
        .map(|_| heap.alloc(&mut cache, bytes, 16, ty).map_err(fail("alloc")))
        .collect::<Result<_>>()?;
    let children = KEYS as usize + 1;
    for (i, addr) in made.iter().enumerate() {
        let words = heap.words(*addr, node_words());
        let words = words.ok_or_else(|| Failure("a node is not mapped".to_owned()))?;
        let leaf = i * children + 1 >= nodes;
        words[0].store(KEYS | u64::from(leaf) << 32, Ordering::Relaxed);
        for c in 0..children {
            let child = made.get(i * children + 1 + c).copied().unwrap_or(0);
            words[1 + KEYS as usize + c].store(child, Ordering::Relaxed);
        }
    }
    let words = heap.words(root.addr, (root.size / 8) as usize);
    let words = words.ok_or_else(|| Failure("the heap is not mapped".to_owned()))?;
    let words = words
        .iter()
        .map(|w| AtomicU64::new(w.load(Ordering::Relaxed)));
    let mut copy = OwnedMemory::new();
    copy.add_words(root.addr, words.collect());
    let space = ForeignSpace::new(copy);
    space.add(root.addr, root.size);
    let first = made.first().copied().unwrap_or_default();
    Ok((space, first))
}

/// Measures in `rounds` rounds.
pub fn run(rounds: u32) -> Result<Vec<Throughput>> {
    let desc = node_type()?;
    let mut all = Vec::new();
    for nodes in NODES {
        let (space, root) = tree(&desc, nodes)?;
        let mut examiner = Examiner::new(Arc::new(KnownTypes::new([&desc])));
        let mut arena = Arena::new();
        let mut seconds = [Vec::new(), Vec::new()];
        let mut seen = Default::default();
        // Small graphs are repeated, or the clock is what is measured.
        let repeat = (100_000 / nodes).max(1);
        for _ in 0..rounds {
            let start = Instant::now();
            for _ in 0..repeat {
                seen = examiner
                    .verify(&space, root, desc.id(), Allowed::All, Budget::default())
                    .map_err(fail("verify"))?;
            }
            seconds[0].push(start.elapsed().as_secs_f64() / repeat as f64);
            let start = Instant::now();
            for _ in 0..repeat {
                arena.clear();
                let copy = examiner
                    .copy(&space, root, desc.id(), Budget::default(), &mut arena)
                    .map_err(fail("copy"))?;
                black_box(copy);
            }
            seconds[1].push(start.elapsed().as_secs_f64() / repeat as f64);
        }
        if seen.objects != nodes as u64 {
            return Err(Failure(format!(
                "{} of {nodes} nodes were verified",
                seen.objects
            )));
        }
        for (what, seconds) in ["verify", "copy"].into_iter().zip(&seconds) {
            let rate = |amount: f64| {
                let rates: Vec<f64> = seconds.iter().map(|s| amount / s).collect();
                Spread::of(&rates).ok_or_else(|| Failure("no rounds".to_owned()))
            };
            all.push(Throughput {
                bench: "rpc",
                part: "graphs",
                what,
                nodes,
                gb_per_s: rate(seen.bytes as f64 / 1e9)?,
                mpointers_per_s: rate(seen.pointers as f64 / 1e6)?,
            });
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tree_is_verified_and_copied() {
        let all = run(1).unwrap();
        assert_eq!(all.len(), 2 * NODES.len());
        assert!(all.iter().all(|t| t.gb_per_s.median > 0.0));
    }
}
