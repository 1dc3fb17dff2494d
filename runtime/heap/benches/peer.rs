//! Verification in place and deep copy of a peer's graph on one core, beside a plain walk over the same pointers.
//!
//! `cargo bench -p vernal-heap --bench peer [-- --json --rounds N --nodes N]`. Each row is the median of several rounds.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use vernal_abi::RPC_BASE;
use vernal_format::Uuid;
use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_heap::walk::{Allowed, Arena, Budget, Examiner, KnownTypes};
use vernal_heap::{ForeignSpace, Heap, Mapped, ObjectSpace, OwnedMemory, PoolIdentity};

/// `struct node { u32 count; bool leaf; u64 keys[KEYS]; node *child[KEYS + 1]; }`
fn node(keys: u32) -> (TypeDesc, u64) {
    let size = 8 + u64::from(keys) * 8 + u64::from(keys + 1) * 8;
    let pointer = Shape::Pointer {
        target: "node".into(),
        target_id: 0,
    };
    let array = |count: u32, element| Shape::Array {
        count: count.into(),
        stride: 8,
        element: Box::new(element),
    };
    let blob = TypeBuilder::new("node", size, 8)
        .member("count", 0, Shape::Integer(4))
        .member("leaf", 4, Shape::Bool)
        .member("keys", 8, array(keys, Shape::Integer(8)))
        .member("child", 8 + u64::from(keys) * 8, array(keys + 1, pointer))
        .build()
        .expect("a type");
    (TypeDesc::parse(&blob).expect("a type"), size)
}

struct Case {
    name: String,
    space: ForeignSpace<OwnedMemory>,
    desc: TypeDesc,
    root: u64,
    children: u64,
}

/// A full tree of so many nodes, in order of their levels or in the order in which a depth-first insertion makes them.
fn tree(keys: u32, nodes: usize) -> Case {
    let (desc, bytes) = node(keys);
    let size = (nodes as u64 * bytes * 2).next_power_of_two().max(2 << 20);
    let root = Mapped {
        uuid: Uuid([1; 16]),
        addr: RPC_BASE,
        size,
    };
    let mut memory = OwnedMemory::new();
    memory.add_zeroed(root.addr, root.size);
    let identity = PoolIdentity {
        uuid: Uuid([9; 16]),
        label: "bench".into(),
        direct: false,
    };
    Heap::format_root(&memory, root, &identity).expect("formatted");
    let heap = Heap::open(memory, &[root]).expect("opened");
    let mut cache = heap.thread_cache();
    let index = heap.intern_type(&mut cache, desc.blob()).expect("a type");
    let made: Vec<u64> = (0..nodes)
        .map(|_| heap.alloc(&mut cache, bytes, 16, index).expect("room"))
        .collect();
    let children = u64::from(keys) + 1;
    let first_child = 1 + keys as usize;
    for (i, addr) in made.iter().enumerate() {
        let words = heap.words(*addr, (bytes / 8) as usize).expect("mapped");
        let leaf = i * children as usize + 1 >= nodes;
        words[0].store(u64::from(keys) | u64::from(leaf) << 32, Ordering::Relaxed);
        for c in 0..children as usize {
            let child = made.get(i * children as usize + 1 + c).copied();
            words[first_child + c].store(child.unwrap_or(0), Ordering::Relaxed);
        }
    }
    let words = heap.words(root.addr, (size / 8) as usize).expect("mapped");
    let mut copy = OwnedMemory::new();
    let words = words
        .iter()
        .map(|w| AtomicU64::new(w.load(Ordering::Relaxed)));
    copy.add_words(root.addr, words.collect());
    let space = ForeignSpace::new(copy);
    assert!(space.add(root.addr, root.size));
    Case {
        name: format!("{nodes} nodes of {bytes} B"),
        space,
        desc,
        root: made[0],
        children,
    }
}

/// What the handler would do: goes over all nodes.
fn walk(case: &Case, stack: &mut Vec<u64>) -> u64 {
    let (mut sum, words) = (0, case.desc.size() as usize / 8);
    stack.push(case.root);
    while let Some(at) = stack.pop() {
        let node = case.space.words(at, words).expect("mapped");
        sum += node
            .iter()
            .map(|w| w.load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
            & 1;
        let children = node.len() - case.children as usize;
        stack.extend(
            node[children..]
                .iter()
                .map(|w| w.load(Ordering::Relaxed))
                .filter(|c| *c != 0),
        );
    }
    sum
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |name: &str| {
        let at = args.iter().position(|a| a == name)?;
        args.get(at + 1)?.parse::<usize>().ok()
    };
    let json = args.iter().any(|a| a == "--json");
    let rounds = number("--rounds").unwrap_or(15);
    for (keys, nodes) in [
        (8, 29),
        (8, 1000),
        (12, 1000),
        (8, 100_000),
        (12, 100_000),
        (8, 1_000_000),
    ] {
        if number("--nodes").is_some_and(|n| n != nodes) {
            continue;
        }
        let case = tree(keys, nodes);
        let known = Arc::new(KnownTypes::new([&case.desc]));
        let mut examiner = Examiner::new(known);
        let mut arena = Arena::new();
        let (mut verify, mut copy, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        let mut stack = Vec::new();
        let mut report = None;
        // Small graphs are repeated, or the clock is what is measured.
        let repeat = (200_000 / nodes).max(1);
        for _ in 0..rounds {
            let each = |start: Instant| start.elapsed().as_secs_f64() / repeat as f64;
            let start = Instant::now();
            for _ in 0..repeat {
                let id = case.desc.id();
                let found =
                    examiner.verify(&case.space, case.root, id, Allowed::All, Budget::default());
                report = Some(found.expect("sound"));
            }
            verify.push(each(start));
            let start = Instant::now();
            for _ in 0..repeat {
                arena.clear();
                let id = case.desc.id();
                let copied =
                    examiner.copy(&case.space, case.root, id, Budget::default(), &mut arena);
                black_box(copied.expect("sound"));
            }
            copy.push(each(start));
            let start = Instant::now();
            for _ in 0..repeat {
                black_box(walk(&case, &mut stack));
            }
            plain.push(each(start));
        }
        let report = report.expect("a round");
        assert_eq!(report.objects, nodes as u64);
        for (what, times) in [("verify", verify), ("copy", copy), ("walk", plain)] {
            let t = median(times);
            let (gb, pointers) = (
                report.bytes as f64 / t / 1e9,
                report.pointers as f64 / t / 1e6,
            );
            let ns = t * 1e9 / nodes as f64;
            if json {
                println!(
                    "{{\"bench\":\"peer\",\"case\":\"{}\",\"what\":\"{what}\",\"gb_per_s\":{gb:.3},\"mpointers_per_s\":{pointers:.1},\"ns_per_object\":{ns:.1}}}",
                    case.name
                );
            } else {
                println!(
                    "{:<24} {what:<7} {gb:6.2} GB/s {pointers:7.1} M pointers/s {ns:6.1} ns/object",
                    case.name
                );
            }
        }
    }
}
