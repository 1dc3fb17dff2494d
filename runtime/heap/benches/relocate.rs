//! Pointers per second of relocation on one core, interleaved with `memcpy` of the same bytes for scale.
//!
//! `cargo bench -p vernal-heap --bench relocate [-- --json]`. Each row is the median of several rounds; a round relocates
//! the whole pool there and the next one back, so that all pointers change every time.

#[path = "../tests/space/mod.rs"]
mod space;

use space::{Rng, Space, array, desc, ptr};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use vernal_abi::puddle::CHUNK_SIZE;
use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_heap::walk::{Plans, Rewrite, Translation};
use vernal_heap::{ObjectSpace, TYPE_FIRST};

const BASE: u64 = 0x5800_0000_0000;
const ROUNDS: usize = 11;

struct Case {
    name: &'static str,
    types: TypeDesc,
    bytes: u64,
    /// Bytes of one object; pointers go to random objects.
    object: u64,
    puddles: u64,
}

fn fill(case: &Case) -> (Space, Vec<u64>) {
    let size = case.bytes / case.puddles;
    let bases: Vec<u64> = (0..case.puddles)
        .map(|i| BASE + i * (size + CHUNK_SIZE))
        .collect();
    let mut space = Space::new(&bases, size, std::slice::from_ref(&case.types));
    let mut objects = Vec::new();
    for area in 0..bases.len() {
        while let Some(addr) = space.alloc(area, case.object, TYPE_FIRST) {
            objects.push(addr);
        }
    }
    let mut rng = Rng(7);
    let d = case.types.clone();
    for addr in &objects {
        for element in 0..d.elements_in(case.object) {
            for f in d.fields().iter().filter(|f| f.kind.is_address()) {
                for i in 0..u64::from(f.count) {
                    let at = addr + element * d.size() + f.offset + i * u64::from(f.stride);
                    space.set(at, objects[rng.below(objects.len() as u64) as usize]);
                }
            }
        }
    }
    (space, bases)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let json = std::env::args().any(|a| a == "--json");
    let node = || {
        desc(
            TypeBuilder::new("node", 16, 8)
                .member("next", 0, ptr("node"))
                .member("value", 8, Shape::Integer(8)),
        )
    };
    let btree = desc(
        TypeBuilder::new("btree", 256, 8)
            .member("count", 0, Shape::Integer(4))
            .member("key", 8, array(15, 8, Shape::Integer(8)))
            .member("child", 128, array(16, 8, ptr("btree"))),
    );
    let pointers = desc(TypeBuilder::of("node *", 8, 8, ptr("node")));
    let cases = [
        Case {
            name: "list, 1 puddle",
            types: node(),
            bytes: 64 << 20,
            object: 16,
            puddles: 1,
        },
        Case {
            name: "list, 16 puddles",
            types: node(),
            bytes: 64 << 20,
            object: 16,
            puddles: 16,
        },
        Case {
            name: "B-tree nodes, 1 puddle",
            types: btree.clone(),
            bytes: 64 << 20,
            object: 256,
            puddles: 1,
        },
        Case {
            name: "B-tree nodes, 16 puddles",
            types: btree,
            bytes: 64 << 20,
            object: 256,
            puddles: 16,
        },
        Case {
            name: "pointer arrays, 1 puddle",
            types: pointers.clone(),
            bytes: 64 << 20,
            object: 32 << 10,
            puddles: 1,
        },
        Case {
            name: "pointer arrays, 16 puddles",
            types: pointers,
            bytes: 64 << 20,
            object: 32 << 10,
            puddles: 16,
        },
    ];
    if !json {
        println!(
            "{:28} {:>12} {:>14} {:>10} {:>12}",
            "", "pointers", "M pointers/s", "GiB/s", "memcpy GiB/s"
        );
    }
    for case in &cases {
        let (space, bases) = fill(case);
        let new: Vec<u64> = bases.iter().rev().map(|b| b + (1 << 38)).collect();
        // Metadata stays at the old addresses: only the pointers go there and back.
        let moves: Vec<_> = bases
            .iter()
            .zip(&new)
            .map(|(old, new)| vernal_heap::walk::Move {
                old: *old,
                new: *new,
                len: case.bytes / case.puddles,
            })
            .collect();
        let there = Translation::new(&moves).expect("disjoint puddles");
        let back = there.inverse();
        let plans = Plans::of(&space);
        let (mut relocations, mut copies, mut count) = (Vec::new(), Vec::new(), 0);
        let mut copy = vec![0u64; (CHUNK_SIZE / 8) as usize];
        for round in 0..ROUNDS * 2 {
            let translation = if round % 2 == 0 { &there } else { &back };
            let rewrite = Rewrite {
                plans: &plans,
                pointers: translation,
                binding: None,
            };
            let (mut lines, start) = (0u64, Instant::now());
            count = 0;
            for chunk in 0..space.chunk_count() {
                let words = chunk_words(&space, chunk);
                let report = rewrite
                    .chunk(&space, chunk, words, &mut |_| lines += 1)
                    .expect("whole chunks");
                assert_eq!(report.pointers, report.changed);
                count += report.pointers;
            }
            relocations.push(start.elapsed().as_secs_f64());
            black_box(lines);
            let start = Instant::now();
            for chunk in 0..space.chunk_count() {
                for (to, from) in copy.iter_mut().zip(chunk_words(&space, chunk)) {
                    *to = from.load(Ordering::Relaxed);
                }
                black_box(&mut copy);
            }
            copies.push(start.elapsed().as_secs_f64());
        }
        let (relocate, copied) = (median(relocations), median(copies));
        let gib = case.bytes as f64 / (1u64 << 30) as f64;
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

fn chunk_words(space: &Space, chunk: usize) -> &[AtomicU64] {
    let (start, end) = space.chunk_range(chunk).expect("chunk");
    space
        .words(start, ((end - start) / 8) as usize)
        .expect("mapped")
}
