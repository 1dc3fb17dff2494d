//! Pointers per second of relocation on one core, interleaved with `memcpy` of the same bytes for scale.
//!
//! `cargo bench -p vernal-heap --bench relocate [-- --json]`. Each row is the median over all
//! chunks of several rounds; a round relocates the whole pool there and the next one back, so that all pointers change
//! every time.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use vernal_abi::puddle::CHUNK_SIZE;
use vernal_format::Uuid;
use vernal_format::types::{FieldKind, Shape, TypeBuilder};
use vernal_heap::walk::{Move, Plans, Rewrite, Translation};
use vernal_heap::{Heap, Mapped, ObjectSpace, OwnedMemory, PoolIdentity};

const BASE: u64 = 0x5800_0000_0000;
/// Bytes of each pool.
const POOL: u64 = 64 << 20;
const ROUNDS: usize = 11;

struct Case {
    name: &'static str,
    blob: Vec<u8>,
    /// Bytes of one object; pointers go to random objects.
    object: u64,
    puddles: u64,
}

/// A full pool in ordinary memory.
fn fill(case: &Case) -> (Heap<OwnedMemory>, Vec<Mapped>) {
    let size = POOL / case.puddles;
    let puddles: Vec<Mapped> = (0..case.puddles)
        .map(|i| Mapped {
            uuid: Uuid([i as u8 + 1; 16]),
            addr: BASE + i * (size + CHUNK_SIZE),
            size,
        })
        .collect();
    let mut memory = OwnedMemory::new();
    for p in &puddles {
        memory.add_zeroed(p.addr, p.size);
    }
    let identity = PoolIdentity {
        uuid: Uuid([99; 16]),
        label: "bench".into(),
        direct: false,
    };
    Heap::format_root(&memory, puddles[0], &identity).expect("formatted");
    let heap = Heap::open(memory, &puddles[..1]).expect("opened");
    for p in &puddles[1..] {
        heap.add_puddle(*p).expect("added");
    }
    let mut cache = heap.thread_cache();
    let index = heap.intern_type(&mut cache, &case.blob).expect("type");
    let mut objects = Vec::new();
    while let Ok(addr) = heap.alloc(&mut cache, case.object, 16, index) {
        objects.push(addr);
    }
    let mut seed = 7u64;
    let mut any = || {
        seed = seed
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        objects[((seed >> 33) % objects.len() as u64) as usize]
    };
    let d = heap.type_desc(index).expect("interned").clone();
    for addr in &objects {
        let words = heap
            .words(*addr, (case.object / 8) as usize)
            .expect("mapped");
        for element in 0..d.elements_in(case.object) {
            for f in d.fields().iter().filter(|f| f.kind == FieldKind::Pointer) {
                for i in 0..u64::from(f.count) {
                    let at = element * d.size() + f.offset + i * u64::from(f.stride);
                    words[(at / 8) as usize].store(any(), Ordering::Relaxed);
                }
            }
        }
    }
    (heap, puddles)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let json = std::env::args().any(|a| a == "--json");
    let node = TypeBuilder::new("node", 16, 8)
        .member("next", 0, Shape::pointer("node"))
        .member("value", 8, Shape::Integer(8))
        .build()
        .expect("type");
    let btree = TypeBuilder::new("btree", 256, 8)
        .member("count", 0, Shape::Integer(4))
        .member("key", 8, Shape::array(15, 8, Shape::Integer(8)))
        .member("child", 128, Shape::array(16, 8, Shape::pointer("btree")))
        .build()
        .expect("type");
    let pointers = TypeBuilder::of("node *", 8, 8, Shape::pointer("node"))
        .build()
        .expect("type");
    let case = |name, blob: &Vec<u8>, object, puddles| Case {
        name,
        blob: blob.clone(),
        object,
        puddles,
    };
    let cases = [
        case("list, 1 puddle", &node, 16, 1),
        case("list, 16 puddles", &node, 16, 16),
        case("B-tree nodes, 1 puddle", &btree, 256, 1),
        case("B-tree nodes, 16 puddles", &btree, 256, 16),
        case("pointer arrays, 1 puddle", &pointers, 32 << 10, 1),
        case("pointer arrays, 16 puddles", &pointers, 32 << 10, 16),
    ];
    if !json {
        println!(
            "{:28} {:>12} {:>14} {:>10} {:>12}",
            "", "pointers", "M pointers/s", "GiB/s", "memcpy GiB/s"
        );
    }
    for case in &cases {
        let (heap, puddles) = fill(case);
        // Metadata stays where it is: only the pointers go there and back, and the puddles change their order.
        let moves: Vec<Move> = puddles
            .iter()
            .zip(puddles.iter().rev())
            .map(|(p, q)| Move {
                old: p.addr,
                new: q.addr + (1 << 38),
                len: p.size,
            })
            .collect();
        let there = Translation::new(&moves).expect("disjoint puddles");
        let back = there.inverse();
        let plans = Plans::of(&heap);
        let (mut relocations, mut copies, mut count) = (Vec::new(), Vec::new(), 0);
        let mut copy = vec![0u64; (CHUNK_SIZE / 8) as usize];
        for round in 0..ROUNDS * 2 {
            let translation = if round % 2 == 0 { &there } else { &back };
            let rewrite = Rewrite {
                plans: &plans,
                pointers: translation,
                binding: None,
            };
            let mut lines = 0u64;
            count = 0;
            for chunk in 0..heap.chunk_count() {
                let words = chunk_words(&heap, chunk);
                let start = Instant::now();
                let report = rewrite
                    .chunk(&heap, chunk, words, &mut |_| lines += 1)
                    .expect("whole chunks");
                relocations.push(start.elapsed().as_secs_f64());
                assert_eq!(report.pointers, report.changed);
                count += report.pointers;
                let start = Instant::now();
                for (to, from) in copy.iter_mut().zip(words) {
                    *to = from.load(Ordering::Relaxed);
                }
                black_box(&mut copy);
                copies.push(start.elapsed().as_secs_f64());
            }
            black_box(lines);
        }
        // Medians of single chunks: other programs on the machine interrupt a few of them, and not every round.
        let chunks = heap.chunk_count() as f64;
        let (relocate, copied) = (median(relocations) * chunks, median(copies) * chunks);
        let gib = POOL as f64 / (1u64 << 30) as f64;
        let rate = count as f64 / relocate / 1e6;
        if json {
            println!(
                "{{\"bench\":\"relocate\",\"case\":\"{}\",\"pointers\":{count},\"million_pointers_per_second\":{rate:.1},\"gib_per_second\":{:.2},\"copy_gib_per_second\":{:.2}}}",
                case.name,
                gib / relocate,
                gib / copied
            );
        } else {
            println!(
                "{:28} {count:>12} {rate:>14.1} {:>10.2} {:>12.2}",
                case.name,
                gib / relocate,
                gib / copied
            );
        }
    }
}

fn chunk_words(heap: &Heap<OwnedMemory>, chunk: usize) -> &[AtomicU64] {
    let (start, end) = heap.chunk_range(chunk).expect("chunk");
    heap.words(start, ((end - start) / 8) as usize)
        .expect("mapped")
}
