//! What `#[derive(Persist)]` and hand-written implementations say about layouts.
//!
//! A [`Descriptor`] is made once per type and process: the bytes that the pool keeps (`vernal_format::types`), and the C
//! structure that libvernal takes with each allocation.

use std::any::TypeId;
use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::error::{Error, ErrorCode};
use crate::pool::Persist;
use crate::sys;
use vernal_format::types::{TypeBuilder, TypeDesc};

pub use vernal_format::types::{Member, Shape};

/// A type's descriptor as libvernal takes it. Lives as long as the process.
#[derive(Debug)]
pub struct Descriptor {
    name: String,
    made: Result<sys::VnType, String>,
    /// Whether libvernal knows all that verifying a peer's values of this type needs.
    for_peers: AtomicBool,
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
        Self {
            name,
            made,
            for_peers: AtomicBool::new(false),
        }
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

    /// Its id. 0: it cannot be described.
    fn id(&self) -> u64 {
        let parsed = self.blob().and_then(|blob| TypeDesc::parse(blob).ok());
        parsed.map_or(0, |desc| desc.id())
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
    found: Vec<Found>,
    /// Types of what pointers lead to that are no structs or enums: numbers, arrays, pointers. Pools do not compare them.
    seen_pointees: HashSet<TypeId>,
    pointees: Vec<Found>,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    descriptor: &'static Descriptor,
    demand: fn(u64, &mut Demands),
}

impl Found {
    fn of<T: Persist>() -> Self {
        Self {
            descriptor: T::descriptor(),
            demand: T::demand,
        }
    }
}

impl Collector {
    /// Whether `T` is new, so that what it leads to has to be collected too.
    pub fn enter<T: Persist>(&mut self) -> bool {
        let new = self.seen.insert(TypeId::of::<T::At<'static>>());
        if new {
            self.found.push(Found::of::<T>());
        }
        new
    }

    /// Pointers lead to objects of type `T`. After its `collect`.
    pub fn pointee<T: Persist>(&mut self) {
        let id = TypeId::of::<T::At<'static>>();
        // An object in a pool has at least one byte.
        if size_of::<T>() > 0 && !self.seen.contains(&id) && self.seen_pointees.insert(id) {
            self.pointees.push(Found::of::<T>());
        }
    }

    /// Tells libvernal all that it needs to verify values that a peer passes.
    fn register_for_peers(&self) -> Result<(), Error> {
        self.register()?;
        let all = self.found.iter().chain(&self.pointees);
        let mut demands = Vec::new();
        for found in all {
            let ty = found.descriptor.c_type()?;
            let mut of_type = Demands::default();
            (found.demand)(0, &mut of_type);
            demands.push((ty, of_type));
        }
        // All types before the demands that name them, and everything before the first demand counts.
        let pointees = self.pointees.iter().map(|f| f.descriptor.c_type());
        register(pointees.collect::<Result<Vec<_>, _>>()?);
        for (ty, demands) in &demands {
            demands.register(ty)?;
        }
        Ok(())
    }

    /// Tells libvernal, so that opening a pool compares them with the types that it holds.
    pub(crate) fn register(&self) -> Result<(), Error> {
        let types = self.found.iter().map(|f| f.descriptor.c_type());
        register(types.collect::<Result<Vec<_>, _>>()?);
        Ok(())
    }
}

fn register(types: Vec<&'static sys::VnType>) {
    let types: Vec<*const sys::VnType> = types.into_iter().map(std::ptr::from_ref).collect();
    let range = types.as_ptr_range();
    // SAFETY: the range holds pointers to structures that live as long as the process.
    unsafe { sys::__vernal_register_types(range.start, range.end) };
}

/// What a peer's values have to be besides what their shapes say.
#[derive(Debug, Default)]
pub struct Demands {
    list: Vec<(u32, u64, u32, Vec<u64>)>,
}

impl Demands {
    /// The pointer at this offset is never null.
    pub fn not_null(&mut self, at: u64) {
        self.list.push((sys::VN_DEMAND_NOT_NULL, at, 0, Vec::new()));
    }

    /// The pointer at this offset leads to a `T`, whatever else has its name.
    pub fn target<T: Persist>(&mut self, at: u64) {
        let id = vec![T::descriptor().id()];
        self.list.push((sys::VN_DEMAND_TARGET, at, 0, id));
    }

    /// The integer at this offset is an enum without data that has these values.
    pub fn one_of<T: Persist>(&mut self, at: u64, values: &[i128]) {
        let size = size_of::<T>() as u32;
        let (least, most) = (values.iter().min(), values.iter().max());
        let gapless = least.zip(most).is_some_and(|(a, b)| {
            b - a + 1 == values.len() as i128
                && i32::try_from(*a).is_ok()
                && i32::try_from(*b).is_ok()
        });
        if gapless {
            // The shape says as much.
            return;
        }
        let values = values.iter().map(|n| low_bytes(*n, size as usize));
        self.list
            .push((sys::VN_DEMAND_ONE_OF, at, size, values.collect()));
    }

    fn register(&self, ty: &'static sys::VnType) -> Result<(), Error> {
        let list: Vec<sys::VnDemand> = self
            .list
            .iter()
            .map(|(kind, offset, size, values)| sys::VnDemand {
                offset: *offset,
                size: *size,
                kind: *kind,
                count: values.len(),
                values: values.as_ptr(),
            })
            .collect();
        // SAFETY: the type lives as long as the process; the list and its values outlive the call.
        Error::check(unsafe { sys::__vernal_demand(ty, list.as_ptr(), list.len()) })
    }
}

/// The lowest bytes of a number, as an unsigned one.
fn low_bytes(n: i128, size: usize) -> u64 {
    n as u64 & u64::MAX >> (64 - 8 * size.clamp(1, 8))
}

/// Whether the bytes of an integer are one of these values.
pub fn is_listed(bytes: &[u8], values: &[i128]) -> bool {
    let mut word = [0; 8];
    let Some(place) = word.get_mut(..bytes.len()) else {
        return false;
    };
    place.copy_from_slice(bytes);
    let raw = u64::from_le_bytes(word);
    values.iter().any(|n| low_bytes(*n, bytes.len()) == raw)
}

/// Whether the bytes of a field are a value of its type.
pub fn is_valid_field<F: Persist>(bytes: &[u8], offset: usize) -> bool {
    let field = bytes
        .get(offset..)
        .and_then(|rest| rest.get(..size_of::<F>()));
    field.is_some_and(F::is_valid)
}

/// The type for calls between processes: `struct vn_type` of `vernal_pool.h`. What libvernal needs to verify a peer's values of
/// it, and of all that they lead to, it knows when this returns.
pub fn for_peers<T: Persist>() -> Result<*const c_void, Error> {
    let descriptor = T::descriptor();
    if !descriptor.for_peers.load(Ordering::Acquire) {
        let mut types = Collector::default();
        T::collect(&mut types);
        types.enter::<T>();
        types.register_for_peers()?;
        descriptor.for_peers.store(true, Ordering::Release);
    }
    Ok(std::ptr::from_ref(descriptor.c_type()?).cast())
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
