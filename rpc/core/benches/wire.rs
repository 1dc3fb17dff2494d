//! A B-tree-like graph to bytes and back, beside a copy of as many bytes.
//!
//! `cargo bench -p vernal-rpc-core --bench wire [-- --json] [--rounds N]`. The rows of a round follow each other; each is the
//! median of its rounds.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use vernal_abi::RPC_BASE;
use vernal_format::Uuid;
use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_heap::walk::{Arena, Budget, KnownTypes};
use vernal_heap::{Heap, Mapped, ObjectSpace, OwnedMemory, PoolIdentity};
use vernal_rpc_core::wire::{Decoder, Encoder};

/// `struct node { u64 count; u64 keys[KEYS]; node *child[KEYS + 1]; }`
fn node(keys: u64) -> TypeDesc {
    let pointer = Shape::Pointer {
        target: "node".into(),
        target_id: 0,
    };
    let array = |count, element| Shape::Array {
        count,
        stride: 8,
        element: Box::new(element),
    };
    let blob = TypeBuilder::new("node", 16 + keys * 16, 8)
        .member("count", 0, Shape::Integer(8))
        .member("keys", 8, array(keys, Shape::Integer(8)))
        .member("child", 8 + keys * 8, array(keys + 1, pointer))
        .build()
        .expect("a type");
    TypeDesc::parse(&blob).expect("a type")
}

fn tree(desc: &TypeDesc, keys: usize, nodes: usize) -> (Heap<OwnedMemory>, u64) {
    let size = (nodes as u64 * desc.size() * 2)
        .next_power_of_two()
        .max(2 << 20);
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
        .map(|_| {
            heap.alloc(&mut cache, desc.size(), 16, index)
                .expect("room")
        })
        .collect();
    for (i, addr) in made.iter().enumerate() {
        let words = heap
            .words(*addr, (desc.size() / 8) as usize)
            .expect("mapped");
        for key in 0..keys {
            words[1 + key].store((i * keys + key) as u64, Relaxed);
        }
        for child in 0..=keys {
            let to = made.get(i * (keys + 1) + 1 + child).copied();
            words[1 + keys + child].store(to.unwrap_or(0), Relaxed);
        }
    }
    (heap, made[0])
}

/// Computing time of this thread, which other programs do not lengthen; elapsed time where the kernel does not say.
fn now() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat");
    let ns = stat
        .ok()
        .and_then(|s| s.split(' ').next()?.parse::<f64>().ok());
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    ns.map_or_else(
        || START.get_or_init(Instant::now).elapsed().as_secs_f64(),
        |ns| ns / 1e9,
    )
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let json = args.iter().any(|a| a == "--json");
    let rounds = args.iter().position(|a| a == "--rounds");
    let rounds = rounds
        .and_then(|at| args.get(at + 1)?.parse().ok())
        .unwrap_or(15);
    for (keys, nodes) in [(8, 29), (8, 1000), (12, 1000), (8, 100_000), (12, 100_000)] {
        let desc = node(keys as u64);
        let (heap, root) = tree(&desc, keys, nodes);
        let known = Arc::new(KnownTypes::new([&desc]));
        let (mut encoder, mut decoder) = (Encoder::new(known.clone()), Decoder::new(known));
        let (mut arena, mut bytes, mut other) = (Arena::new(), Vec::new(), Vec::new());
        let mut times = [const { Vec::new() }; 3];
        let repeat = (500_000 / nodes).max(1);
        let mut graph = 0;
        for _ in 0..rounds {
            let each = |start: f64| (now() - start) / repeat as f64;
            let start = now();
            for _ in 0..repeat {
                bytes.clear();
                let report = encoder.encode(&heap, root, desc.id(), Budget::default(), &mut bytes);
                graph = report.expect("sound").bytes;
            }
            times[0].push(each(start));
            let start = now();
            for _ in 0..repeat {
                arena.clear();
                let copied = decoder.decode(&bytes, desc.id(), Budget::default(), &mut arena);
                black_box(copied.expect("sound"));
            }
            times[1].push(each(start));
            let start = now();
            for _ in 0..repeat {
                other.clear();
                other.extend_from_slice(&bytes);
                black_box(&other);
            }
            times[2].push(each(start));
        }
        for (what, times) in ["encode", "decode", "memcpy"].iter().zip(&mut times) {
            let best = times.iter().copied().fold(f64::INFINITY, f64::min);
            let t = median(times);
            let (gb, best_gb) = (graph as f64 / t / 1e9, graph as f64 / best / 1e9);
            let ns = t * 1e9 / nodes as f64;
            let size = desc.size();
            if json {
                println!(
                    r#"{{"bench":"wire","nodes":{nodes},"node_bytes":{size},"what":"{what}","gb_per_s":{gb:.3},"best_gb_per_s":{best_gb:.3},"ns_per_object":{ns:.1}}}"#
                );
            } else {
                println!(
                    "{nodes:>7} nodes of {size} B  {what}  {gb:6.2} GB/s  best {best_gb:6.2} GB/s  {ns:6.1} ns/object"
                );
            }
        }
    }
}
