//! A made-up pool of any number of objects, as a walker sees it: a root, a directory of buckets, and linked sensors.

use std::sync::atomic::AtomicU64;
use vernal_abi::TRACKED_BASE;
use vernal_abi::puddle::CHUNK_SIZE;
use vernal_format::Uuid;
use vernal_format::types::{BuildError, Shape, TypeBuilder, TypeDesc};
use vernal_heap::{DirectoryEntry, Object, ObjectSpace};

/// Bytes of a sensor: next, id, reading, name.
const SENSOR: u64 = 48;
/// Where objects begin in the puddle.
const FIRST: u64 = 64 << 10;
/// Sensors to a bucket.
pub const CHAIN: u64 = 8;

/// Type indices.
const ROOT: u32 = 2;
const BUCKETS: u32 = 3;
const SENSORS: u32 = 4;

/// The pool.
pub struct Pool {
    base: u64,
    size: u64,
    words: Vec<AtomicU64>,
    objects: Vec<Object>,
    types: Vec<TypeDesc>,
}

impl Pool {
    /// A pool with `sensors` sensors, whose readings are their ids halved.
    pub fn new(sensors: u64) -> Result<Pool, BuildError> {
        let pointer = |target: &str| Shape::Pointer {
            target: target.into(),
            target_id: 0,
        };
        let array = |count, stride, element| Shape::Array {
            count,
            stride,
            element: Box::new(element),
        };
        let blobs = [
            TypeBuilder::new("network", 32, 8)
                .member("buckets", 0, pointer("buckets"))
                .member("sensors", 8, Shape::Integer(8))
                .member("title", 16, Shape::Bytes(16))
                .build()?,
            TypeBuilder::new("buckets", 8, 8)
                .member(
                    "slot",
                    0,
                    Shape::Flexible {
                        stride: 8,
                        element: Box::new(pointer("sensor")),
                    },
                )
                .build()?,
            TypeBuilder::new("sensor", SENSOR, 8)
                .member("next", 0, pointer("sensor"))
                .member("id", 8, Shape::Integer(8))
                .member("reading", 16, Shape::Float(8))
                .member("name", 24, array(16, 1, Shape::Integer(1)))
                .member("state", 40, Shape::Bool)
                .build()?,
        ];
        let types = blobs
            .iter()
            .map(|blob| TypeDesc::parse(blob))
            .collect::<Result<Vec<_>, _>>()?;
        let buckets = sensors.div_ceil(CHAIN);
        let need = FIRST + 64 + buckets * 8 + sensors * SENSOR;
        let size = need.max(CHUNK_SIZE).next_power_of_two();
        let mut words = Vec::new();
        words.resize_with((need / 8) as usize, || AtomicU64::new(0));
        let mut pool = Pool {
            base: TRACKED_BASE + (3 << 30),
            size,
            words,
            objects: Vec::new(),
            types,
        };
        pool.fill(sensors, buckets);
        Ok(pool)
    }

    fn fill(&mut self, sensors: u64, buckets: u64) {
        let root = self.base + FIRST;
        let table = root + 64;
        let first = table + buckets * 8;
        let sensor = |n: u64| first + n * SENSOR;
        self.object(root, 32, ROOT);
        self.object(table, buckets * 8, BUCKETS);
        self.set(root, table);
        self.set(root + 8, sensors);
        self.bytes(root + 16, b"field trial <b>");
        for n in 0..sensors {
            self.object(sensor(n), SENSOR, SENSORS);
            if n.is_multiple_of(CHAIN) {
                self.set(table + n / CHAIN * 8, sensor(n));
            }
            let last = n % CHAIN == CHAIN - 1 || n + 1 == sensors;
            self.set(sensor(n), if last { 0 } else { sensor(n + 1) });
            self.set(sensor(n) + 8, n);
            self.set(sensor(n) + 16, (n as f64 / 2.0).to_bits());
            self.bytes(sensor(n) + 24, format!("node {n}").as_bytes());
            self.set(sensor(n) + 40, n % 2);
        }
    }

    fn object(&mut self, addr: u64, size: u64, type_index: u32) {
        self.objects.push(Object {
            addr,
            size,
            type_index,
        });
    }

    fn set(&mut self, addr: u64, value: u64) {
        if let Some(word) = self.words.get_mut(((addr - self.base) / 8) as usize) {
            *word.get_mut() = value;
        }
    }

    fn bytes(&mut self, addr: u64, bytes: &[u8]) {
        for (n, part) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.set(addr + n as u64 * 8, u64::from_le_bytes(word));
        }
    }

    /// The address of sensor `n`.
    pub fn sensor(&self, n: u64) -> u64 {
        self.objects.get(n as usize + 2).map_or(0, |o| o.addr)
    }

    /// Its only puddle.
    pub fn directory(&self) -> Vec<DirectoryEntry> {
        vec![DirectoryEntry {
            slot: 0,
            uuid: Uuid([5; 16]),
            size: self.size,
            current: self.base,
            previous: self.base,
        }]
    }
}

impl ObjectSpace for Pool {
    fn object_at(&self, addr: u64) -> Option<Object> {
        let after = self.objects.partition_point(|o| o.addr <= addr);
        let object = self.objects.get(after.checked_sub(1)?)?;
        (addr < object.addr + object.size).then_some(*object)
    }

    fn chunk_count(&self) -> usize {
        (self.size / CHUNK_SIZE) as usize
    }

    fn chunk_range(&self, chunk: usize) -> Option<(u64, u64)> {
        let start = self.base + chunk as u64 * CHUNK_SIZE;
        (chunk < self.chunk_count()).then_some((start, start + CHUNK_SIZE))
    }

    fn for_each_object(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        let Some((start, end)) = self.chunk_range(chunk) else {
            return;
        };
        let from = self.objects.partition_point(|o| o.addr < start);
        for object in self.objects.iter().skip(from) {
            if object.addr >= end || !f(*object) {
                return;
            }
        }
    }

    fn for_each_overlapping(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        let start = self.chunk_range(chunk).map_or(0, |range| range.0);
        let before = self.object_at(start).filter(|o| o.addr < start);
        if before.is_none_or(&mut *f) {
            self.for_each_object(chunk, f);
        }
    }

    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        let at = (addr.checked_sub(self.base)? / 8) as usize;
        self.words.get(at..at.checked_add(count)?)
    }

    fn type_desc(&self, index: u32) -> Option<&TypeDesc> {
        self.types.get(index.checked_sub(ROOT)? as usize)
    }

    fn root(&self) -> Option<u64> {
        self.objects.first().map(|o| o.addr)
    }
}
