//! Objects at chosen addresses, without an allocator: what the walker is tested and measured on.
#![allow(
    dead_code,
    missing_docs,
    reason = "each test and benchmark uses its own part of this"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use vernal_abi::puddle::CHUNK_SIZE;
use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_heap::walk::Move;
use vernal_heap::{Object, ObjectSpace, TYPE_FIRST};

/// Bytes at the front of each puddle that are no objects.
pub const HEADER: u64 = 4096;

pub fn ptr(target: &str) -> Shape {
    Shape::Pointer {
        target: target.into(),
        target_id: 0,
    }
}

pub fn array(count: u64, stride: u64, element: Shape) -> Shape {
    Shape::Array {
        count,
        stride,
        element: Box::new(element),
    }
}

pub fn desc(builder: TypeBuilder) -> TypeDesc {
    TypeDesc::parse(&builder.build().unwrap()).unwrap()
}

#[derive(Debug, Default)]
pub struct Space {
    pub areas: Vec<(u64, Vec<AtomicU64>)>,
    /// By address.
    pub objects: Vec<Object>,
    pub types: Vec<TypeDesc>,
    pub root: Option<u64>,
    cursors: Vec<u64>,
}

impl Space {
    /// Puddles of `size` bytes at these addresses.
    pub fn new(bases: &[u64], size: u64, types: &[TypeDesc]) -> Space {
        let mut space = Space {
            types: types.to_vec(),
            ..Space::default()
        };
        for base in bases {
            let words = (0..size / 8).map(|_| AtomicU64::new(0)).collect();
            space.areas.push((*base, words));
            space.cursors.push(base + HEADER);
        }
        space
    }

    pub fn type_index(&self, name: &str) -> u32 {
        let at = self.types.iter().position(|t| t.name() == name).unwrap();
        at as u32 + TYPE_FIRST
    }

    /// An object in the puddle `area`, `None` when that is full.
    pub fn alloc(&mut self, area: usize, bytes: u64, type_index: u32) -> Option<u64> {
        let (base, words) = &self.areas[area];
        let size = bytes.next_multiple_of(16).max(16);
        let addr = self.cursors[area];
        if addr + size > base + words.len() as u64 * 8 {
            return None;
        }
        self.cursors[area] += size;
        let object = Object {
            addr,
            size,
            type_index,
        };
        let at = self.objects.partition_point(|o| o.addr < addr);
        self.objects.insert(at, object);
        Some(addr)
    }

    pub fn set(&self, addr: u64, value: u64) {
        self.words(addr, 1).unwrap()[0].store(value, Ordering::Relaxed);
    }

    pub fn get(&self, addr: u64) -> u64 {
        self.words(addr, 1).unwrap()[0].load(Ordering::Relaxed)
    }

    pub fn set_byte(&self, addr: u64, value: u8) {
        let shift = addr % 8 * 8;
        let word = self.get(addr & !7) & !(0xff << shift);
        self.set(addr & !7, word | u64::from(value) << shift);
    }

    pub fn image(&self) -> Vec<Vec<u64>> {
        let words =
            |(_, w): &(u64, Vec<AtomicU64>)| w.iter().map(|w| w.load(Ordering::Relaxed)).collect();
        self.areas.iter().map(words).collect()
    }

    /// The same words mapped at other addresses: metadata follows, pointers do not.
    pub fn moved_to(mut self, bases: &[u64]) -> (Space, Vec<Move>) {
        let mut moves = Vec::new();
        for (area, new) in self.areas.iter_mut().zip(bases) {
            moves.push(Move {
                old: area.0,
                new: *new,
                len: area.1.len() as u64 * 8,
            });
            area.0 = *new;
        }
        let place = |addr: u64| {
            let m = moves.iter().find(|m| addr >= m.old && addr - m.old < m.len);
            m.map_or(addr, |m| addr - m.old + m.new)
        };
        for o in &mut self.objects {
            o.addr = place(o.addr);
        }
        self.objects.sort_by_key(|o| o.addr);
        self.root = self.root.map(place);
        (self, moves)
    }
}

impl ObjectSpace for Space {
    fn object_at(&self, addr: u64) -> Option<Object> {
        let at = self.objects.partition_point(|o| o.addr <= addr);
        let object = self.objects.get(at.checked_sub(1)?)?;
        (addr - object.addr < object.size).then_some(*object)
    }

    fn chunk_count(&self) -> usize {
        let chunks =
            |(_, w): &(u64, Vec<AtomicU64>)| (w.len() as u64 * 8).div_ceil(CHUNK_SIZE) as usize;
        self.areas.iter().map(chunks).sum()
    }

    fn chunk_range(&self, chunk: usize) -> Option<(u64, u64)> {
        let mut left = chunk as u64;
        for (base, words) in &self.areas {
            let size = words.len() as u64 * 8;
            let chunks = size.div_ceil(CHUNK_SIZE);
            if left < chunks {
                let start = base + left * CHUNK_SIZE + if left == 0 { HEADER } else { 0 };
                return Some((start, base + size.min((left + 1) * CHUNK_SIZE)));
            }
            left -= chunks;
        }
        None
    }

    fn for_each_object(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        let Some((start, end)) = self.chunk_range(chunk) else {
            return;
        };
        let at = self.objects.partition_point(|o| o.addr < start);
        for o in &self.objects[at..] {
            if o.addr >= end || !f(*o) {
                return;
            }
        }
    }

    fn for_each_overlapping(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        let Some((start, _)) = self.chunk_range(chunk) else {
            return;
        };
        match self.object_at(start).filter(|o| o.addr < start) {
            Some(o) if !f(o) => {}
            _ => self.for_each_object(chunk, f),
        }
    }

    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        self.areas.iter().find_map(|(base, words)| {
            let at = usize::try_from(addr.checked_sub(*base)? / 8).ok()?;
            words.get(at..at.checked_add(count)?)
        })
    }

    fn type_desc(&self, index: u32) -> Option<&TypeDesc> {
        self.types.get(index.checked_sub(TYPE_FIRST)? as usize)
    }

    fn root(&self) -> Option<u64> {
        self.root
    }
}

/// A small generator, so that a seed gives the same graph everywhere.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Types with every way to hold a pointer.
pub fn types() -> Vec<TypeDesc> {
    let pair = Shape::Record {
        name: "pair".into(),
        size: 24,
        members: vec![
            vernal_format::types::Member::new("key", 0, ptr("text")),
            vernal_format::types::Member::new("hash", 8, Shape::Integer(8)),
            vernal_format::types::Member::new("node", 16, ptr("node")),
        ],
    };
    vec![
        desc(
            TypeBuilder::new("node", 32, 8)
                .member("next", 0, ptr("node"))
                .member("value", 8, Shape::Integer(8))
                .member("other", 16, ptr("table"))
                .member("live", 24, Shape::Bool)
                .member(
                    "color",
                    28,
                    Shape::Enum {
                        name: "color".into(),
                        size: 4,
                        min: 0,
                        max: 5,
                    },
                ),
        ),
        desc(
            TypeBuilder::new("table", 24 * 7 + 8, 8)
                .member("slot", 0, array(7, 24, pair.clone()))
                .member("up", 168, ptr("table")),
        ),
        desc(TypeBuilder::of("node *", 8, 8, ptr("node"))),
        desc(
            TypeBuilder::new("message", 8, 8)
                .member("count", 0, Shape::Integer(8))
                .member(
                    "tail",
                    8,
                    Shape::Flexible {
                        stride: 24,
                        element: Box::new(pair),
                    },
                ),
        ),
        desc(TypeBuilder::of("text", 1, 1, Shape::Integer(1))),
        desc(
            TypeBuilder::new("shape", 24, 8)
                .base(
                    "base",
                    0,
                    Shape::Record {
                        name: "base".into(),
                        size: 16,
                        members: vec![
                            vernal_format::types::Member::new(
                                "vptr",
                                0,
                                Shape::Vtable {
                                    class: "shape".into(),
                                },
                            ),
                            vernal_format::types::Member::new("peer", 8, ptr("base")),
                        ],
                    },
                )
                .member(
                    "draw",
                    16,
                    Shape::Function {
                        signature: "void ()".into(),
                    },
                ),
        ),
    ]
}

/// A random graph in puddles at `bases`: the same seed gives the same objects at the same distances.
pub fn graph(seed: u64, bases: &[u64], size: u64, objects: usize) -> Space {
    let mut rng = Rng(seed);
    let mut space = Space::new(bases, size, &types());
    let mut made: Vec<Object> = Vec::new();
    for _ in 0..objects {
        let (area, kind) = (
            rng.below(bases.len() as u64) as usize,
            rng.below(6) as usize,
        );
        let elements = if rng.below(50) == 0 {
            1 + rng.below(20_000)
        } else {
            1 + rng.below(4)
        };
        let bytes = space.types[kind].size() * elements;
        let bytes = if kind == 3 { 8 + 24 * elements } else { bytes };
        let Some(addr) = space.alloc(area, bytes, kind as u32 + TYPE_FIRST) else {
            continue;
        };
        made.push(space.object_at(addr).unwrap());
    }
    let by_type = |name: &str| -> Vec<Object> {
        let index = space.type_index(name);
        made.iter()
            .filter(|o| o.type_index == index)
            .copied()
            .collect()
    };
    let targets: Vec<(&str, Vec<Object>)> = ["node", "table", "text", "base"]
        .map(|n| (n, by_type(if n == "base" { "shape" } else { n })))
        .into();
    for o in &made {
        let d = space.type_desc(o.type_index).unwrap();
        let elements = d.elements_in(o.size);
        for element in 0..elements {
            for f in d.fields() {
                let count = match f.is_flex() {
                    true => (o.size - d.size()) / 24,
                    false => f.count.into(),
                };
                for i in 0..count {
                    let at = o.addr + element * d.size() + f.offset + i * u64::from(f.stride);
                    match f.kind {
                        vernal_format::types::FieldKind::Pointer => {
                            let (_, list) = targets.iter().find(|(n, _)| *n == f.target).unwrap();
                            if rng.below(5) > 0 && !list.is_empty() {
                                space.set(at, list[rng.below(list.len() as u64) as usize].addr);
                            }
                        }
                        vernal_format::types::FieldKind::Integer if f.elem_size == 8 => {
                            space.set(at, rng.next())
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    space.root = made.first().map(|o| o.addr);
    space
}
