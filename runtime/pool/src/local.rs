//! What a thread keeps of a pool: its heap cache, and which types of the program are which of the pool.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use vernal_heap::{HeapError, ObjectSpace, ThreadCache};

use crate::inner::{Bracket, Inner, lock};
use crate::program::ProgramType;
use crate::{Error, registry};

/// What a thread keeps of a pool.
#[derive(Debug)]
pub(crate) struct Local {
    pub pool: Arc<Inner>,
    pub cache: ThreadCache,
    /// Types of the program by their place: index in the pool, alignment.
    pub types: HashMap<usize, (u32, u64)>,
    /// The type that was looked up last.
    pub last: (usize, u32, u64),
    /// Roll-backs that the types have seen.
    pub rolled_back: u64,
}

impl Local {
    pub fn new(pool: Arc<Inner>) -> Self {
        Local {
            cache: pool.heap.thread_cache(),
            pool,
            types: HashMap::new(),
            last: (0, 0, 0),
            rolled_back: registry::rolled_back(),
        }
    }

    /// Runs an operation of the heap until it does not ask for another puddle.
    #[inline]
    pub fn with_room<R>(
        &mut self,
        mut f: impl FnMut(&Inner, &mut ThreadCache) -> Result<R, HeapError>,
    ) -> Result<R, Error> {
        let Local { pool, cache, .. } = self;
        pool.with_room(|p| f(p, cache))
    }

    #[inline]
    pub fn alloc(&mut self, size: u64, align: u64, index: u32) -> Result<u64, Error> {
        self.with_room(|pool, cache| pool.heap.alloc(cache, size, align, index))
    }

    /// Allocates an object of the type that `key` stands for; `ty` tells when it is not known.
    #[inline]
    pub fn alloc_typed<T: std::ops::Deref<Target = ProgramType>>(
        &mut self,
        size: u64,
        key: usize,
        ty: impl FnOnce() -> Result<T, Error>,
    ) -> Result<u64, Error> {
        let _bracket = Bracket::of(&self.pool);
        let (index, align) = self.type_index(key, ty)?;
        self.alloc(size, align, index)
    }

    #[inline]
    pub fn type_index<T: std::ops::Deref<Target = ProgramType>>(
        &mut self,
        key: usize,
        ty: impl FnOnce() -> Result<T, Error>,
    ) -> Result<(u32, u64), Error> {
        let rolled_back = registry::rolled_back();
        if self.rolled_back != rolled_back {
            // A roll-back may have taken types out of the pool again.
            self.rolled_back = rolled_back;
            self.types.clear();
            self.last = (0, 0, 0);
        }
        if key != 0 && self.last.0 == key {
            return Ok((self.last.1, self.last.2));
        }
        self.type_index_slowly(key, ty)
    }

    #[cold]
    fn type_index_slowly<T: std::ops::Deref<Target = ProgramType>>(
        &mut self,
        key: usize,
        ty: impl FnOnce() -> Result<T, Error>,
    ) -> Result<(u32, u64), Error> {
        if let Some(&(index, align)) = self.types.get(&key)
            && key != 0
        {
            self.last = (key, index, align);
            return Ok((index, align));
        }
        let ty = ty()?;
        if let Some(field) = ty.desc.refused() {
            return Err(Error::Type {
                what: format!(
                    "objects of type {} cannot lie in a pool: its field {} is refused; say with an annotation what it holds, \
                     or change it",
                    ty.desc.name(),
                    field.name
                ),
            });
        }
        let align = u64::from(ty.desc.align()).max(16);
        let index = self.with_room(|pool, cache| pool.heap.intern_type(cache, ty.desc.blob()))?;
        crate::binding::note_type(&self.pool, &mut self.cache, index)?;
        if key != 0 {
            self.types.insert(key, (index, align));
            self.last = (key, index, align);
        }
        Ok((index, align))
    }

    pub fn realloc(&mut self, addr: u64, size: u64) -> Result<u64, Error> {
        let Local { pool, cache, .. } = self;
        pool.realloc(cache, addr, size)
    }

    /// The root object; allocated when there is none.
    pub fn root<T: std::ops::Deref<Target = ProgramType>>(
        &mut self,
        size: u64,
        key: usize,
        ty: impl FnOnce() -> Result<T, Error>,
    ) -> Result<u64, Error> {
        let read_only = self.pool.info.read_only;
        if let Some(root) = self.pool.heap.root() {
            let ty = ty()?;
            let object = self.pool.heap.object_exact(root);
            let object = object.map_err(|e| self.pool.heap_error(e))?;
            if let Some(have) = self.pool.heap.type_desc(object.type_index)
                && (have.name() != ty.desc.name() || object.size < size)
            {
                return Err(Error::Type {
                    what: format!(
                        "the root object of pool {} is a {} of {} bytes, and the program asks for a {} of {size} bytes: ask for \
                         the type that it has",
                        self.pool.info.name,
                        have.name(),
                        object.size,
                        ty.desc.name()
                    ),
                });
            }
            return Ok(root);
        }
        if read_only {
            return Err(Error::Access {
                what: format!(
                    "pool {} has no root object yet, and is open for reading",
                    self.pool.info.name
                ),
            });
        }
        let _bracket = Bracket::of(&self.pool);
        let (index, align) = self.type_index(key, ty)?;
        // Two threads that both find no root agree on one.
        static MAKING: Mutex<()> = Mutex::new(());
        let _making = lock(&MAKING);
        if let Some(root) = self.pool.heap.root() {
            return Ok(root);
        }
        let pool = Arc::clone(&self.pool);
        pool.in_heap(|| {
            let root = self.alloc(size, align, index)?;
            let set = pool.heap.set_root(root);
            set.map_err(|e| pool.heap_error(e))?;
            Ok(root)
        })
    }
}
