//! A pool with a list in it, made without mapping it.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::Ordering;
use vernal_format::types::{Shape, TypeBuilder};
use vernal_format::{Meta, MetaState, Uuid};
use vernal_heap::{Heap, HeapError, Mapped, ObjectSpace, PoolIdentity, PoolMemory, TYPE_RAW};
use vernal_pool::dir::{PoolDir, puddle_path};
use vernal_sys::{WordMap, WordMode};

/// Puddles as files, changed in place.
#[derive(Default)]
struct Files(Vec<(u64, WordMap)>);

impl PoolMemory for Files {
    fn words(&self, addr: u64, count: usize) -> Option<&[std::sync::atomic::AtomicU64]> {
        self.0.iter().find_map(|(base, map)| {
            let at = usize::try_from(addr.checked_sub(*base)? / 8).ok()?;
            map.words().get(at..at.checked_add(count)?)
        })
    }
    fn before_write(&self, _addr: u64, _len: u64) -> Result<(), HeapError> {
        Ok(())
    }
    fn after_write(&self, _addr: u64, _len: u64) {}
}

fn map(path: &Path) -> WordMap {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    WordMap::new(&file, WordMode::Shared).unwrap()
}

/// Makes the pool `dir`: a list of `nodes` nodes of `size` bytes {next, value}, in puddles of the sizes that a growing pool has. The
/// last node points to `last`, and `lost` further nodes are reached by nothing.
pub fn pool(dir: &Path, nodes: u64, size: u64, last: u64, lost: u64) {
    let identity = PoolIdentity {
        uuid: Uuid([9; 16]),
        label: "made".into(),
        direct: false,
    };
    let base = vernal_abi::TRACKED_BASE + (3 << 30);
    PoolDir::create_at(dir, &identity, Uuid([1; 16]), base).unwrap();
    let mut puddles = vec![Mapped {
        uuid: Uuid([1; 16]),
        addr: base,
        size: 2 << 20,
    }];
    let mut memory = Files::default();
    memory.0.push((base, map(&dir.join("root.puddle"))));
    let need = nodes * size * 9 / 8 + (4 << 20);
    let (mut total, mut next) = (2 << 20, base + (1 << 30));
    while total < need {
        let size = total;
        let uuid = Uuid([puddles.len() as u8 + 1; 16]);
        let path = puddle_path(dir, uuid);
        let file = std::fs::File::create_new(&path).unwrap();
        file.set_len(size).unwrap();
        let meta = Meta {
            update: 0,
            file: uuid,
            home_addr: next,
            slot_len: size,
            committed_len: size,
            state: MetaState::Clean,
        };
        vernal_snapshot::write_meta(&path, meta).unwrap();
        memory.0.push((next, map(&path)));
        puddles.push(Mapped {
            uuid,
            addr: next,
            size,
        });
        total += size;
        next += size + (1 << 30);
    }
    let heap = Heap::open(memory, &puddles[..1]).unwrap();
    for puddle in &puddles[1..] {
        heap.add_puddle(*puddle).unwrap();
    }
    let mut cache = heap.thread_cache();
    let pointer = Shape::Pointer {
        target: "node".into(),
        target_id: 0,
    };
    let blob = TypeBuilder::new("node", size, 8)
        .member("next", 0, pointer)
        .member("value", 8, Shape::Integer(8))
        .build()
        .unwrap();
    let ty = heap.intern_type(&mut cache, &blob).unwrap();
    let set = |addr: u64, value: u64| {
        ObjectSpace::words(&heap, addr, 1).unwrap()[0].store(value, Ordering::Relaxed);
    };
    let mut before = 0;
    for n in 0..nodes {
        let node = heap.alloc(&mut cache, size, 8, ty).unwrap();
        set(node + 8, n);
        match before {
            0 => heap.set_root(node).unwrap(),
            before => set(before, node),
        }
        before = node;
    }
    set(before, last);
    for _ in 0..lost {
        heap.alloc(&mut cache, size, 8, ty).unwrap();
    }
    drop(cache);
    heap.memory()
        .0
        .iter()
        .for_each(|(_, map)| map.sync().unwrap());
}

/// Adds to the pool `dir`, made by [`pool`], memory without type whose second word is the address of the root, `times` times: a
/// number that is none. The addresses of the memory and of the root.
pub fn untyped(dir: &Path, times: u64) -> (u64, u64) {
    let image = vernal_pool::archive::PoolImage::repair(dir).unwrap();
    let heap = image.heap();
    let mut cache = heap.thread_cache();
    let memory = heap.alloc(&mut cache, 64, 16, TYPE_RAW).unwrap();
    let root = heap.root().unwrap();
    let words = ObjectSpace::words(heap, memory, 8).unwrap();
    words[0].store(12_345, Ordering::Relaxed);
    words[1].store(root * times, Ordering::Relaxed);
    drop(cache);
    image.sync().unwrap();
    (memory, root)
}
