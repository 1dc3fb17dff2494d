//! The pool's type table: descriptors by index, parsed once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Mutex, OnceLock, PoisonError};

use vernal_format::puddle::{
    Place, TYPE_BLOCK_COUNT, TYPE_BLOCK_FIRST, TYPE_ENTRY_WORDS, pool_field, type_block_of,
};
use vernal_format::types::{MAX_TYPE_LEN, TypeDesc};

use crate::block::{load, word};
use crate::heap::damaged;
use crate::locks::Locks;
use crate::{Heap, HeapError, ObjectSet, PoolMemory, TYPE_FIRST, TYPE_META, TYPE_RAW, ThreadCache};

/// Blocks of the arena of parsed descriptors, each twice as large as the one before.
const ARENA_BLOCKS: usize = 24;

/// What a process keeps of the type table. A parsed descriptor stays where it is as long as the heap, because others hold
/// references to it; so a type whose entry an abort has taken away leaves a descriptor behind that no index names.
#[derive(Debug)]
pub(crate) struct TypeTable {
    /// Index minus [`TYPE_FIRST`], by block of the table: place in the arena plus 1.
    index: [OnceLock<Box<[AtomicU32]>>; TYPE_BLOCK_COUNT],
    arena: [OnceLock<Box<[OnceLock<TypeDesc>]>>; ARENA_BLOCKS],
    end: AtomicU32,
    changes: Mutex<Changes>,
}

#[derive(Debug, Default)]
struct Changes {
    by_id: HashMap<u64, u32>,
    /// Places of the arena in use.
    parsed: u64,
}

/// Block and place in it of element `n`, with blocks of 64, 128, 256, …
pub(crate) fn split(n: u64) -> (usize, usize) {
    let block = (n / TYPE_BLOCK_FIRST + 1).ilog2();
    let first = ((1u64 << block) - 1) * TYPE_BLOCK_FIRST;
    (block as usize, (n - first) as usize)
}

impl TypeTable {
    pub fn new() -> TypeTable {
        TypeTable {
            index: std::array::from_fn(|_| OnceLock::new()),
            arena: std::array::from_fn(|_| OnceLock::new()),
            end: AtomicU32::new(TYPE_FIRST),
            changes: Mutex::default(),
        }
    }

    /// The descriptor of a type. Takes no lock and allocates nothing.
    pub fn get(&self, index: u32) -> Option<&TypeDesc> {
        if index >= self.end.load(Acquire) {
            return None;
        }
        let (block, at) = split(index.checked_sub(TYPE_FIRST)?.into());
        let place = self.index.get(block)?.get()?.get(at)?.load(Acquire);
        let (block, at) = split(place.checked_sub(1)?.into());
        self.arena.get(block)?.get()?.get(at)?.get()
    }

    /// Whether objects may have this type.
    pub fn validate(&self, index: u32) -> Result<(), HeapError> {
        let end = self.end.load(Acquire);
        if index < end {
            return Ok(());
        }
        let count = u64::from(end - TYPE_FIRST);
        Err(HeapError::UnknownType { index, count })
    }

    fn insert(&self, changes: &mut Changes, index: u32, desc: TypeDesc) {
        let id = desc.id();
        let n = changes.parsed;
        let (block, at) = split(n);
        let place = self.arena.get(block).and_then(|b| {
            b.get_or_init(|| (0..64usize << block).map(|_| OnceLock::new()).collect())
                .get(at)
        });
        let (b, i) = split(u64::from(index - TYPE_FIRST));
        let entry = self.index.get(b).and_then(|blk| {
            blk.get_or_init(|| (0..64usize << b).map(|_| AtomicU32::new(0)).collect())
                .get(i)
        });
        if let (Some(place), Some(entry)) = (place, entry) {
            let _ = place.set(desc);
            changes.parsed += 1;
            entry.store(changes.parsed as u32, Release);
            // Two entries with one id: the first counts.
            changes.by_id.entry(id).or_insert(index);
            self.end.fetch_max(index + 1, Release);
        }
    }
}

impl<M: PoolMemory, L: Locks> Heap<M, L> {
    pub(crate) fn type_count(&self) -> Result<u64, HeapError> {
        let addr = self.pool_word(pool_field::TYPES)?;
        Ok(word(&self.mem, addr)?.load(Relaxed))
    }

    /// Address of entry `n`.
    fn type_entry(&self, n: u64) -> Result<u64, HeapError> {
        let (block, at) = type_block_of(n).ok_or_else(|| damaged("the type count", 0, n))?;
        let addr = self.pool_word(pool_field::TYPE_BLOCKS + block as u64 * 8)?;
        let place = word(&self.mem, addr)?.load(Relaxed);
        self.puddles
            .address(Place(place))
            .and_then(|a| a.checked_add(at * TYPE_ENTRY_WORDS as u64 * 8))
            .ok_or_else(|| damaged("a block of the type table", addr, place))
    }

    /// Addresses of the objects that the type table is made of: blocks and descriptors.
    pub(crate) fn type_objects(&self) -> Result<Vec<u64>, HeapError> {
        let mut all = Vec::new();
        for block in 0..TYPE_BLOCK_COUNT as u64 {
            let addr = self.pool_word(pool_field::TYPE_BLOCKS + block * 8)?;
            let place = Place(word(&self.mem, addr)?.load(Relaxed));
            all.extend(self.puddles.address(place));
        }
        for n in 0..self.type_count()? {
            let [_, place, _] = load(&self.mem, self.type_entry(n)?)?;
            all.extend(self.puddles.address(Place(place)));
        }
        Ok(all)
    }

    fn read_blob(&self, n: u64) -> Result<Vec<u8>, HeapError> {
        let entry = self.type_entry(n)?;
        let [_, place, len] = load(&self.mem, entry)?;
        if len > MAX_TYPE_LEN as u64 {
            return Err(damaged("the length of a type descriptor", entry + 16, len));
        }
        let addr = self
            .puddles
            .address(Place(place))
            .filter(|a| a % 8 == 0)
            .ok_or_else(|| damaged("the place of a type descriptor", entry + 8, place))?;
        let count = (len as usize).div_ceil(8);
        let words = self
            .mem
            .words(addr, count)
            .ok_or(HeapError::Unmapped { addr, len })?;
        let mut bytes: Vec<u8> = words
            .iter()
            .flat_map(|w| w.load(Relaxed).to_le_bytes())
            .collect();
        bytes.truncate(len as usize);
        Ok(bytes)
    }

    fn read_type(&self, n: u64) -> Result<TypeDesc, HeapError> {
        let entry = self.type_entry(n)?;
        let [id, _, _] = load(&self.mem, entry)?;
        let desc = TypeDesc::parse(&self.read_blob(n)?).map_err(|e| HeapError::BadType {
            why: format!("type index {}: {e}", n + u64::from(TYPE_FIRST)),
        })?;
        if desc.id() != id {
            return Err(damaged("the id of a type", entry, id));
        }
        Ok(desc)
    }

    /// Reads all types: at open, so that nothing has to be parsed where a signal handler needs them.
    pub(crate) fn load_types(&self) -> Result<(), HeapError> {
        let mut changes = self.changes();
        *changes = Changes {
            parsed: changes.parsed,
            by_id: HashMap::new(),
        };
        self.types.end.store(TYPE_FIRST, Release);
        let count = self.type_count()?;
        self.validate_type_objects()?;
        for n in 0..count {
            let desc = self.read_type(n)?;
            self.types.insert(&mut changes, TYPE_FIRST + n as u32, desc);
        }
        Ok(())
    }

    /// Whether blocks and descriptors are objects of the pool's own, each its own object: else a small pool could name one
    /// long descriptor a million times.
    fn validate_type_objects(&self) -> Result<(), HeapError> {
        let mut seen = ObjectSet::new();
        let mut own = |addr: u64, bytes: u64| {
            let object = self.object_exact(addr)?;
            if object.type_index != TYPE_META || object.size < bytes || !seen.insert(addr) {
                return Err(damaged("an object of the type table", addr, bytes));
            }
            Ok(())
        };
        for n in 0..self.type_count()? {
            let entry = self.type_entry(n)?;
            if let Some((block, 0)) = type_block_of(n) {
                own(
                    entry,
                    (TYPE_BLOCK_FIRST << block) * TYPE_ENTRY_WORDS as u64 * 8,
                )?;
            }
            let [_, place, len] = load(&self.mem, entry)?;
            own(self.puddles.address(Place(place)).unwrap_or(0), len)?;
        }
        Ok(())
    }

    /// Whether the type table is intact and still says what was read of it.
    pub(crate) fn validate_types(&self) -> Result<(), HeapError> {
        self.validate_type_objects()?;
        for n in 0..self.type_count()? {
            let desc = self.read_type(n)?;
            if self.types.get(TYPE_FIRST + n as u32) != Some(&desc) {
                let entry = self.type_entry(n)?;
                return Err(damaged("a type that has changed", entry, desc.id()));
            }
        }
        Ok(())
    }

    fn changes(&self) -> std::sync::MutexGuard<'_, Changes> {
        let lock = self.types.changes.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }

    /// The type with this descriptor, taken into the type table if its id is new.
    pub fn intern_type(&self, cache: &mut ThreadCache, blob: &[u8]) -> Result<u32, HeapError> {
        let desc = TypeDesc::parse(blob).map_err(|e| HeapError::BadType { why: e.to_string() })?;
        let mut changes = self.changes();
        if let Some(index) = changes.by_id.get(&desc.id()) {
            return Ok(*index);
        }
        let n = self.type_count()?;
        let Some((block, at)) = type_block_of(n) else {
            let why = format!("the pool has {n} types, which is the limit");
            return Err(HeapError::BadType { why });
        };
        let block_word = self.pool_word(pool_field::TYPE_BLOCKS + block as u64 * 8)?;
        let entry_bytes = TYPE_ENTRY_WORDS as u64 * 8;
        let mut block_addr = 0;
        if at == 0 {
            let bytes = (TYPE_BLOCK_FIRST << block) * entry_bytes;
            block_addr = self.alloc(cache, bytes, 16, TYPE_META)?;
        }
        let addr = match self.alloc(cache, blob.len() as u64, 16, TYPE_META) {
            Ok(addr) => addr,
            Err(e) => {
                if block_addr != 0 {
                    self.free(block_addr)?;
                }
                return Err(e);
            }
        };
        self.write_fresh(addr, blob)?;
        let place = |addr| {
            let place = self.puddles.place(addr);
            place.ok_or(HeapError::Outside { addr })
        };
        let entry = [desc.id(), place(addr)?.0, blob.len() as u64];
        let to = match block_addr {
            0 => self.type_entry(n)?,
            fresh => fresh,
        };
        let mut slow = self.lock();
        for (i, value) in entry.into_iter().enumerate() {
            slow.batch.word(to + i as u64 * 8, value);
        }
        if block_addr != 0 {
            slow.batch.word(block_word, place(block_addr)?.0);
        }
        slow.batch.word(self.pool_word(pool_field::TYPES)?, n + 1);
        let done = slow.batch.apply(&self.mem);
        slow.batch.clear();
        done?;
        drop(slow);
        let index = TYPE_FIRST + n as u32;
        self.types.insert(&mut changes, index, desc);
        Ok(index)
    }

    /// Writes bytes into an object that was just allocated.
    fn write_fresh(&self, addr: u64, bytes: &[u8]) -> Result<(), HeapError> {
        let len = bytes.len() as u64;
        let words = self
            .mem
            .words(addr, bytes.len().div_ceil(8))
            .ok_or(HeapError::Unmapped { addr, len })?;
        for (word, bytes) in words.iter().zip(bytes.chunks(8)) {
            let mut le = [0; 8];
            for (to, from) in le.iter_mut().zip(bytes) {
                *to = *from;
            }
            word.store(u64::from_le_bytes(le), Relaxed);
        }
        self.mem.after_write(addr, len);
        Ok(())
    }

    /// The index of the type with this id.
    pub fn find_type(&self, id: u64) -> Option<u32> {
        self.changes().by_id.get(&id).copied()
    }

    /// The types of the type table are `TYPE_FIRST..type_end()`.
    pub fn type_end(&self) -> u32 {
        self.types.end.load(Acquire)
    }

    /// The descriptor as it lies in the pool.
    pub fn type_blob(&self, index: u32) -> Option<&[u8]> {
        self.types.get(index).map(TypeDesc::blob)
    }
}

const _: () = assert!(TYPE_RAW < TYPE_META && TYPE_META < TYPE_FIRST);
