//! The types of the running program, as its compiled modules register them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};
use vernal_format::types::TypeDesc;
use vernal_heap::walk::{Demand, KnownTypes};

use crate::Error;

/// `struct vn_type` of `vernal_pool.h`: what the compiler emits for a type that is allocated.
#[repr(C)]
#[derive(Debug)]
pub struct VnType {
    /// The descriptor.
    pub blob: *const u8,
    /// Its bytes.
    pub len: u32,
    /// Entries of `bound`.
    pub bound_count: u32,
    /// The address points of the descriptor's vtable fields, in order.
    pub bound: *const *const libc::c_void,
}

/// A type of the program.
#[derive(Debug)]
pub struct ProgramType {
    /// Its descriptor.
    pub desc: TypeDesc,
    /// The address points of its vtable fields, in this process.
    pub bound: Vec<u64>,
}

#[derive(Default)]
struct Types {
    by_place: HashMap<usize, Arc<ProgramType>>,
    /// What values have to be besides what their descriptors say, by the ids of their types.
    demands: HashMap<u64, Vec<Demand>>,
}

/// Changes with every type and demand that is taken in: programs load modules, and types of generic code are made at first use.
static GENERATION: AtomicU64 = AtomicU64::new(1);

static TYPES: LazyLock<RwLock<Types>> = LazyLock::new(RwLock::default);

/// Descriptors are at most this long.
const BLOB_MAX: u32 = 64 << 20;

/// Reads what the compiler emitted.
///
/// # Safety
///
/// `place` is NULL or points to a `struct vn_type` whose pointers and lengths are right, for the life of the process.
unsafe fn read(place: *const VnType) -> Result<ProgramType, Error> {
    let bad = |why: String| Error::Type {
        what: format!(
            "a type of this program is not usable: {why}; compile it again with vernal-cc"
        ),
    };
    // SAFETY: the caller's promise.
    let t = unsafe { &*place };
    if t.blob.is_null() || t.len > BLOB_MAX {
        return Err(bad(format!("its descriptor has {} bytes", t.len)));
    }
    // SAFETY: as above.
    let blob = unsafe { std::slice::from_raw_parts(t.blob, t.len as usize) };
    let desc = TypeDesc::parse(blob).map_err(|e| bad(e.to_string()))?;
    let bound = if t.bound.is_null() {
        &[]
    } else {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(t.bound, t.bound_count as usize) }
    };
    Ok(ProgramType {
        desc,
        bound: bound.iter().map(|p| *p as u64).collect(),
    })
}

/// The type at `place`; taken in if it is new.
///
/// # Safety
///
/// `place` is NULL or points to a `struct vn_type` of the program, which stays as it is.
pub unsafe fn lookup(place: *const VnType) -> Result<Arc<ProgramType>, Error> {
    if place.is_null() {
        return Err(Error::Type {
            what: "the object's type is not known: compile the call with vernal-cc, or use vn_new_bytes for data without pointers"
                .into(),
        });
    }
    {
        let types = TYPES.read().unwrap_or_else(|e| e.into_inner());
        if let Some(t) = types.by_place.get(&(place as usize)) {
            return Ok(Arc::clone(t));
        }
    }
    // SAFETY: the caller's promise.
    let new = Arc::new(unsafe { read(place) }?);
    let mut types = TYPES.write().unwrap_or_else(|e| e.into_inner());
    types.by_place.insert(place as usize, Arc::clone(&new));
    GENERATION.fetch_add(1, Ordering::Release);
    Ok(new)
}

/// Demands more of the values of a type than its descriptor says.
///
/// # Safety
///
/// As for [`lookup`].
pub unsafe fn demand(place: *const VnType, demands: Vec<Demand>) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    let id = unsafe { lookup(place) }?.desc.id();
    let mut types = TYPES.write().unwrap_or_else(|e| e.into_inner());
    let known = types.demands.entry(id).or_default();
    let before = known.len();
    for demand in demands {
        if !known.contains(&demand) {
            known.push(demand);
        }
    }
    if known.len() > before {
        GENERATION.fetch_add(1, Ordering::Release);
    }
    Ok(())
}

/// Takes in the types of a module; called by its constructor. A descriptor that cannot be read is refused when an object of
/// its type is allocated.
///
/// # Safety
///
/// `start..stop` is an array of NULL or pointers to `struct vn_type`.
pub unsafe fn register(start: *const *const VnType, stop: *const *const VnType) {
    let mut at = start;
    while !at.is_null() && at < stop {
        // SAFETY: the caller's promise.
        let place = unsafe { *at };
        if !place.is_null() {
            // SAFETY: the caller's promise.
            let _ = unsafe { lookup(place) };
        }
        at = at.wrapping_add(1);
    }
}

/// Every type of the program.
pub fn all() -> Vec<Arc<ProgramType>> {
    let types = TYPES.read().unwrap_or_else(|e| e.into_inner());
    types.by_place.values().cloned().collect()
}

/// Changes when [`known`] does.
#[inline]
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// Every type of the program with what is demanded of its values, for checking what others pass. Made once for a generation.
pub fn known() -> Arc<KnownTypes> {
    static MADE: Mutex<Option<(u64, Arc<KnownTypes>)>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    // Before the types are read: what comes meanwhile counts as new.
    let now = generation();
    if let Some((generation, known)) = &*made
        && *generation == now
    {
        return Arc::clone(known);
    }
    let all = all();
    let mut known = KnownTypes::new(all.iter().map(|t| &t.desc));
    let types = TYPES.read().unwrap_or_else(|e| e.into_inner());
    for (id, demands) in &types.demands {
        known.require(*id, demands);
    }
    drop(types);
    let known = Arc::new(known);
    *made = Some((now, Arc::clone(&known)));
    known
}

/// Forgets every type: a module that is unloaded takes its descriptors away.
pub fn forget_all() {
    let mut types = TYPES.write().unwrap_or_else(|e| e.into_inner());
    types.by_place.clear();
    GENERATION.fetch_add(1, Ordering::Release);
}
