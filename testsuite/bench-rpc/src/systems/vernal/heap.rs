//! Objects of Vernal's heaps: their types, and buffers that are used again.

use super::documents;
use crate::systems::fail;
use crate::{Failure, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use vernal_format::types::{Member, Shape, TypeBuilder, TypeDesc, type_id};
use vernal_pool::Pool;
use vernal_pool::program::ProgramType;
use vernal_rpc_core::KnownTypes;

/// A type of this program.
#[derive(Clone)]
pub struct Type {
    ty: Arc<ProgramType>,
    id: u64,
}

impl Type {
    fn new(builder: &TypeBuilder) -> Result<Self> {
        let blob = builder.build().map_err(fail("type"))?;
        let desc = TypeDesc::parse(&blob).map_err(fail("type"))?;
        let id = type_id(&desc);
        Ok(Self {
            ty: Arc::new(ProgramType {
                desc,
                bound: Vec::new(),
            }),
            id,
        })
    }

    /// Its number on the wire.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A new object of it.
    pub fn alloc(&self, pool: &Pool, bytes: usize) -> Result<u64> {
        // The type's own address names it in the thread's cache.
        let key = Arc::as_ptr(&self.ty) as usize;
        pool.alloc(bytes as u64, &self.ty, key)
            .map_err(fail("alloc"))
    }
}

/// All types that cross.
#[derive(Clone)]
pub struct Types {
    /// A count of bytes, and so many.
    pub words: Type,
    /// A count of bytes, and pointers to documents.
    pub found: Type,
    /// A value of a document.
    pub value: Type,
    /// A document.
    pub document: Type,
}

impl Types {
    /// Builds them.
    pub fn new() -> Result<Self> {
        let counted = |name: &str, element: Shape| {
            TypeBuilder::new(name, 8, 8)
                .member("bytes", 0, Shape::Integer(8))
                .push(Member::new(
                    "at",
                    8,
                    Shape::Flexible {
                        stride: 8,
                        element: Box::new(element),
                    },
                ))
        };
        let pointer = Shape::Pointer {
            target: documents::DOCUMENT.to_owned(),
            target_id: 0,
        };
        Ok(Self {
            words: Type::new(&counted("bench::Words", Shape::Integer(8)))?,
            found: Type::new(&counted("bench::Found", pointer))?,
            value: Type::new(&documents::value_type())?,
            document: Type::new(&documents::document_type())?,
        })
    }

    /// For those who check what comes in.
    pub fn known(&self) -> Arc<KnownTypes> {
        let all = [&self.words, &self.found, &self.value, &self.document];
        Arc::new(KnownTypes::new(all.map(|t| &t.ty.desc)))
    }
}

/// The bytes of a counted object.
///
/// # Safety
///
/// `addr` is an object whose first word counts the bytes behind it, and it stays as it is while the result is used.
pub unsafe fn words<'a>(addr: u64) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe {
        let count = *(addr as *const u64) as usize;
        std::slice::from_raw_parts((addr as *const u8).add(8), count)
    }
}

/// A counted object of this process.
pub struct Buffer {
    addr: u64,
    bytes: usize,
}

impl Buffer {
    /// Its address.
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Its bytes, behind the count.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: an object of this size, which is nobody else's until it is sent, and then only read.
        unsafe { std::slice::from_raw_parts_mut((self.addr as *mut u8).add(8), self.bytes) }
    }
}

/// Gives a buffer back.
pub type Release = Box<dyn FnOnce() + Send>;

/// Counted objects that are used again, by size: an object of 1 MiB is not cleared for each call.
#[derive(Clone, Default)]
pub struct Buffers(Arc<Mutex<Free>>);

/// Addresses by size, for each heap. Heaps are known by their names, which are used once: that of a client that has gone is
/// never taken for another's. The newest is looked at first.
type Free = Vec<(String, HashMap<usize, Vec<u64>>)>;

fn of_heap<'a>(all: &'a mut Free, heap: &str) -> &'a mut HashMap<usize, Vec<u64>> {
    let known = all.iter().rposition(|(name, _)| name == heap);
    let at = known.unwrap_or_else(|| {
        all.push((heap.to_owned(), HashMap::new()));
        all.len() - 1
    });
    &mut all[at].1
}

impl Buffers {
    /// A buffer of `bytes` bytes, a multiple of 8, in `pool`; and what gives it back when nobody reads it any more.
    pub fn take(&self, pool: &Pool, ty: &Type, bytes: usize) -> Result<(Buffer, Release)> {
        let free = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            of_heap(&mut all, pool.name())
                .get_mut(&bytes)
                .and_then(Vec::pop)
        };
        let addr = match free {
            Some(addr) => addr,
            None => {
                let addr = ty.alloc(pool, bytes + 8)?;
                if addr == 0 {
                    return Err(Failure("no room in the heap".to_owned()));
                }
                // SAFETY: a new object of at least eight bytes.
                unsafe { *(addr as *mut u64) = bytes as u64 };
                addr
            }
        };
        let (home, heap) = (self.clone(), pool.clone());
        let release = move || {
            let mut all = home.0.lock().unwrap_or_else(PoisonError::into_inner);
            let free = of_heap(&mut all, heap.name());
            free.entry(bytes).or_default().push(addr);
        };
        Ok((Buffer { addr, bytes }, Box::new(release)))
    }
}
