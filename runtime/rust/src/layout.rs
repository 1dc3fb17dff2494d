//! What `#[derive(Persist)]` and hand-written implementations say about layouts.
//!
//! A [`Descriptor`] is made once per type and process: the bytes that the pool keeps (`vernal_format::types`), and the C
//! structure that libvernal takes with each allocation.

use std::any::TypeId;
use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{PoisonError, RwLock};

use crate::error::{Error, ErrorCode};
use crate::pool::Persist;
use crate::sys;
use vernal_format::types::TypeBuilder;

pub use vernal_format::types::{Member, Shape};

/// A type's descriptor as libvernal takes it. Lives as long as the process.
#[derive(Debug)]
pub struct Descriptor {
    name: String,
    made: Result<sys::VnType, String>,
}

// SAFETY: the pointers in it lead to bytes that are leaked at creation and never written again.
unsafe impl Send for Descriptor {}
// SAFETY: as above.
unsafe impl Sync for Descriptor {}

impl Descriptor {
    /// Builds the descriptor of `T`. Called once per type, by [`Persist::descriptor`].
    pub fn of<T: Persist>() -> Self {
        let name = T::name();
        let align = u32::try_from(align_of::<T>()).unwrap_or(u32::MAX);
        let blob = TypeBuilder::of(&name, size_of::<T>() as u64, align, T::shape()).build();
        let made = match blob {
            Ok(blob) => {
                let blob: &'static [u8] = Vec::leak(blob);
                u32::try_from(blob.len())
                    .map(|len| sys::VnType {
                        blob: blob.as_ptr(),
                        len,
                        bound_count: 0,
                        bound: std::ptr::null(),
                    })
                    .map_err(|_| format!("type {name}: its descriptor is too long"))
            }
            Err(e) => Err(e.to_string()),
        };
        Self { name, made }
    }

    /// The type's name in pools.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes that pools keep, unless the type cannot be described.
    pub fn blob(&self) -> Option<&'static [u8]> {
        let vn = self.made.as_ref().ok()?;
        // SAFETY: pointer and length are those of the slice that `of` leaked.
        Some(unsafe { std::slice::from_raw_parts(vn.blob, vn.len as usize) })
    }

    pub(crate) fn c_type(&'static self) -> Result<&'static sys::VnType, Error> {
        self.made
            .as_ref()
            .map_err(|e| Error::new(ErrorCode::Type, e.clone()))
    }
}

/// Passes a `TypeId` through: it is a hash already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 ^= n;
    }
}

type Registry = HashMap<TypeId, &'static Descriptor, BuildHasherDefault<Identity>>;

static REGISTRY: RwLock<Option<Registry>> = RwLock::new(None);

/// The descriptor of `T`, made at the first call: for generic types, whose instances cannot have a static each.
pub fn registered<T: Persist>() -> &'static Descriptor {
    // The brand is erased: all brands of a type have one layout.
    let key = TypeId::of::<T::At<'static>>();
    let known = REGISTRY.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.as_ref().and_then(|r| r.get(&key)) {
        return found;
    }
    drop(known);
    // Built outside the lock: building calls into the implementations of other types.
    let built = Box::new(Descriptor::of::<T>());
    let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
    registry
        .get_or_insert_default()
        .entry(key)
        .or_insert_with(|| Box::leak(built))
}

/// Collects the descriptors of all types that objects of one type lead to.
#[derive(Debug, Default)]
pub struct Collector {
    seen: HashSet<TypeId>,
    found: Vec<&'static Descriptor>,
}

impl Collector {
    /// Whether `T` is new, so that what it leads to has to be collected too.
    pub fn enter<T: Persist>(&mut self) -> bool {
        let new = self.seen.insert(TypeId::of::<T::At<'static>>());
        if new {
            self.found.push(T::descriptor());
        }
        new
    }

    /// Tells libvernal, so that opening a pool compares them with the types that it holds.
    pub(crate) fn register(&self) -> Result<(), Error> {
        let types: Result<Vec<*const sys::VnType>, Error> = self
            .found
            .iter()
            .map(|d| d.c_type().map(std::ptr::from_ref))
            .collect();
        let types = types?;
        let range = types.as_ptr_range();
        // SAFETY: the range holds pointers to structures that live as long as the process.
        unsafe { sys::__vernal_register_types(range.start, range.end) };
        Ok(())
    }
}

/// A field of type `F` called `name` at `offset`.
pub fn member<F: Persist>(name: &str, offset: usize) -> Member {
    Member::new(name, offset as u64, F::shape())
}

/// The shape of a struct with these fields.
pub fn record<T: Persist>(members: Vec<Member>) -> Shape {
    Shape::Record {
        name: T::name(),
        size: size_of::<T>() as u64,
        members,
    }
}

/// The shape of an enum without data that has these values.
pub fn enumeration<T: Persist>(values: &[i128]) -> Shape {
    let bound = |n: Option<&i128>| n.and_then(|n| i32::try_from(*n).ok());
    match (bound(values.iter().min()), bound(values.iter().max())) {
        (Some(min), Some(max)) => Shape::Enum {
            name: T::name(),
            size: size_of::<T>() as u32,
            min,
            max,
        },
        // A descriptor's range has 32 bits.
        _ => Shape::Integer(size_of::<T>() as u32),
    }
}

/// `base<a, b>`
pub fn generic_name(base: String, arguments: &[String]) -> String {
    format!("{base}<{}>", arguments.join(", "))
}

/// The address of an object for libvernal.
pub(crate) fn address<T>(object: *const T) -> *const c_void {
    object.cast()
}
