//! The heap of a pool.

use std::sync::atomic::AtomicU64;

use vernal_format::Uuid;
use vernal_format::types::TypeDesc;

use crate::{HeapError, Object, ObjectSet, ObjectSpace, PoolMemory, ThreadCache};

/// A puddle as it is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// Its identity.
    pub uuid: Uuid,
    /// Where it is mapped.
    pub addr: u64,
    /// Its bytes.
    pub size: u64,
}

/// What a new pool is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolIdentity {
    /// The pool's identity.
    pub uuid: Uuid,
    /// Its name, at most 63 bytes.
    pub label: String,
    /// Whether the pool is changed in place.
    pub direct: bool,
}

/// A puddle as the pool's directory has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its place in the directory; 0 is the root puddle.
    pub slot: usize,
    /// Its identity.
    pub uuid: Uuid,
    /// Its bytes.
    pub size: u64,
    /// The address for which pointers of the current epoch are valid.
    pub current: u64,
    /// The address for which pointers of the epoch before are valid.
    pub previous: u64,
}

/// Something that `check` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub addr: u64,
    /// What.
    pub what: String,
    /// Whether the heap works on, only wasting memory.
    pub harmless: bool,
}

/// Objects of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TypeUse {
    /// Objects.
    pub objects: u64,
    /// Their usable bytes.
    pub bytes: u64,
}

/// What `check` found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Problems, at most 1000.
    pub problems: Vec<Problem>,
    /// Problems beyond those listed.
    pub more_problems: u64,
    /// By type index.
    pub types: Vec<(u32, TypeUse)>,
    /// All objects.
    pub objects: u64,
    /// Bytes of objects.
    pub used: u64,
    /// Bytes of free pages and free slots.
    pub free: u64,
    /// Bytes of free pages in the largest free block.
    pub largest_free: u64,
    /// Bytes of headers, slab headers and rounding.
    pub overhead: u64,
    /// Bytes of all puddles.
    pub total: u64,
}

/// The heap of a pool.
#[derive(Debug)]
pub struct Heap<M: PoolMemory> {
    mem: M,
}

#[allow(unused_variables)]
impl<M: PoolMemory> Heap<M> {
    /// Writes an empty heap into the zeroed puddle `root`, which becomes the root puddle of a new pool.
    pub fn format_root(mem: &M, root: Mapped, id: &PoolIdentity) -> Result<(), HeapError> {
        unimplemented!()
    }
    /// Opens the pool whose root puddle is `puddles[0]`. All puddles of its directory must be given.
    pub fn open(mem: M, puddles: &[Mapped]) -> Result<Self, HeapError> {
        unimplemented!()
    }
    /// The directory of the pool with this root puddle, without opening it: which puddles to map.
    pub fn read_directory(mem: &M, root: Mapped) -> Result<Vec<DirectoryEntry>, HeapError> {
        unimplemented!()
    }
    /// The memory.
    pub fn memory(&self) -> &M {
        &self.mem
    }
    /// Who the pool is.
    pub fn identity(&self) -> PoolIdentity {
        unimplemented!()
    }
    /// The puddles.
    pub fn directory(&self) -> Vec<DirectoryEntry> {
        unimplemented!()
    }
    /// Formats the zeroed puddle and makes it part of the pool.
    pub fn add_puddle(&self, puddle: Mapped) -> Result<(), HeapError> {
        unimplemented!()
    }
    /// Takes an empty puddle out of the pool.
    pub fn remove_puddle(&self, uuid: Uuid) -> Result<(), HeapError> {
        unimplemented!()
    }
    /// Puddles that `remove_puddle` would take.
    pub fn empty_puddles(&self) -> Vec<Uuid> {
        unimplemented!()
    }
    /// Smallest puddle in which an object of `size` bytes fits.
    pub fn puddle_size_for(size: u64) -> Result<u64, HeapError> {
        unimplemented!()
    }
    /// A cache for the calling thread.
    pub fn thread_cache(&self) -> ThreadCache {
        unimplemented!()
    }
    /// Allocates `size` zeroed bytes.
    pub fn alloc(
        &self,
        cache: &mut ThreadCache,
        size: u64,
        align: u64,
        type_index: u32,
    ) -> Result<u64, HeapError> {
        unimplemented!()
    }
    /// Frees the object at `addr`.
    pub fn free(&self, addr: u64) -> Result<(), HeapError> {
        unimplemented!()
    }
    /// The object that begins at `addr`: what `free` would check, without freeing (direct pools free at commit).
    pub fn object_exact(&self, addr: u64) -> Result<Object, HeapError> {
        unimplemented!()
    }
    /// Changes the size where the object lies; `false` when it has to move.
    pub fn resize_in_place(&self, addr: u64, size: u64) -> Result<bool, HeapError> {
        unimplemented!()
    }
    /// Changes the size of an object; its address may change. Bytes that are new are zero.
    pub fn realloc(&self, cache: &mut ThreadCache, addr: u64, size: u64) -> Result<u64, HeapError> {
        unimplemented!()
    }
    /// Makes the object at `addr` the root object; 0: none.
    pub fn set_root(&self, addr: u64) -> Result<(), HeapError> {
        unimplemented!()
    }
    /// The type with this descriptor, taken into the type table if it is new.
    pub fn intern_type(&self, cache: &mut ThreadCache, blob: &[u8]) -> Result<u32, HeapError> {
        unimplemented!()
    }
    /// The index of the type with this id.
    pub fn find_type(&self, id: u64) -> Option<u32> {
        unimplemented!()
    }
    /// Entries of the type table are `TYPE_FIRST..type_end()`.
    pub fn type_end(&self) -> u32 {
        unimplemented!()
    }
    /// The descriptor as it was interned.
    pub fn type_blob(&self, index: u32) -> Option<Vec<u8>> {
        unimplemented!()
    }
    /// The binding record: an object whose content the pool layer defines; 0: none.
    pub fn binding_record(&self) -> u64 {
        unimplemented!()
    }
    /// Sets the binding record.
    pub fn set_binding_record(&self, addr: u64) -> Result<(), HeapError> {
        unimplemented!()
    }
    /// The pool's address epoch and binding epoch.
    pub fn epochs(&self) -> (u64, u64) {
        unimplemented!()
    }
    /// Starts a new address epoch: each puddle's previous address is what current was, current is where it is mapped now.
    pub fn begin_address_epoch(&self) -> Result<u64, HeapError> {
        unimplemented!()
    }
    /// Starts a new binding epoch.
    pub fn begin_binding_epoch(&self) -> Result<u64, HeapError> {
        unimplemented!()
    }
    /// The epochs for which the pointers and process-bound values of a chunk (numbered as in `ObjectSpace`) are valid.
    pub fn chunk_epochs(&self, chunk: usize) -> Option<(u64, u64)> {
        unimplemented!()
    }
    /// Sets them.
    pub fn set_chunk_epochs(
        &self,
        chunk: usize,
        address: u64,
        binding: u64,
    ) -> Result<(), HeapError> {
        unimplemented!()
    }
    /// `len` bytes at `addr` were set back to earlier values by an abort. No other thread is inside the heap.
    pub fn restored(&self, addr: u64, len: u64) {
        unimplemented!()
    }
    /// Validates everything. No other thread is inside the heap.
    pub fn check(&self) -> CheckReport {
        unimplemented!()
    }
    /// Objects that are not in `reachable` and not the pool's own.
    pub fn leaks(&self, reachable: &ObjectSet) -> Vec<Object> {
        unimplemented!()
    }
    /// Frees the leaks; returns how many objects and bytes.
    pub fn reclaim(&self, reachable: &ObjectSet) -> Result<TypeUse, HeapError> {
        unimplemented!()
    }
}

#[allow(unused_variables)]
impl<M: PoolMemory> ObjectSpace for Heap<M> {
    fn object_at(&self, addr: u64) -> Option<Object> {
        unimplemented!()
    }
    fn chunk_count(&self) -> usize {
        unimplemented!()
    }
    fn chunk_range(&self, chunk: usize) -> Option<(u64, u64)> {
        unimplemented!()
    }
    fn for_each_object(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        unimplemented!()
    }
    fn for_each_overlapping(&self, chunk: usize, f: &mut dyn FnMut(Object) -> bool) {
        unimplemented!()
    }
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        self.mem.words(addr, count)
    }
    fn type_desc(&self, index: u32) -> Option<&TypeDesc> {
        unimplemented!()
    }
    fn root(&self) -> Option<u64> {
        unimplemented!()
    }
}
