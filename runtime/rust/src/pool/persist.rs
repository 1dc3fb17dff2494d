//! Which types may live in a pool.

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::layout::{self, Collector, Demands, Descriptor, Shape};
use crate::pool::boxed::PBox;

/// A type whose values may live in a pool: `#[derive(Persist)]`.
///
/// # Safety
///
/// The pool trusts the implementation, in every later run too:
///
/// - [`shape`](Self::shape) describes every byte that is a pointer, at its offset, and describes no other byte as one;
/// - every pointer in a value leads into the same pool, or is null;
/// - values hold no references, function pointers, vtables or anything else that is bound to the process;
/// - nothing in a value changes behind a shared reference (no `Cell`), and values may be shared by threads;
/// - [`At`](Self::At) is the same type with another brand, laid out alike;
/// - [`demand`](Self::demand) names every pointer that is never null, and every integer that is not of any value, as an enum's;
/// - [`PLAIN`](Self::PLAIN), [`DENSE`](Self::DENSE) and [`is_valid`](Self::is_valid) say what they are documented to say.
///
/// The derive sees to all of that.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot live in a pool",
    label = "not persistent",
    note = "persistent are: integers, floats, bool, char, arrays of these, PBox, Ptr, Option of both, PVec, PString, and \
            structs and enums with #[derive(Persist)]"
)]
pub unsafe trait Persist: Sized {
    /// The same type for the transactions (or the shared access) with brand `'q`.
    type At<'q>: Persist + 'q;

    /// The type's name in pools.
    fn name() -> String;

    /// Where what lies in a value.
    fn shape() -> Shape;

    /// Adds the type and everything that values lead to.
    fn collect(types: &mut Collector) {
        types.enter::<Self>();
    }

    /// What a peer's value has to be besides what the shape says, for a value at offset `at`.
    fn demand(at: u64, demands: &mut Demands) {
        let _ = (at, demands);
    }

    /// Whether values are nothing but bytes, and [`is_valid`](Self::is_valid) knows which bytes are values.
    const PLAIN: bool = false;

    /// Whether no byte of a value is padding.
    const DENSE: bool = false;

    /// Whether these bytes are a value. Only plain types are asked.
    fn is_valid(bytes: &[u8]) -> bool {
        let _ = bytes;
        false
    }

    /// The descriptor, made once.
    fn descriptor() -> &'static Descriptor {
        layout::registered::<Self>()
    }
}

macro_rules! plain {
    ($($ty:ty => $shape:expr, $valid:expr;)*) => {$(
        // SAFETY: any bytes that a value of this type can have mean the same in every process, and none is a pointer.
        unsafe impl Persist for $ty {
            type At<'q> = $ty;
            fn name() -> String {
                stringify!($ty).to_owned()
            }
            fn shape() -> Shape {
                $shape
            }
            fn collect(_: &mut Collector) {}
            const PLAIN: bool = true;
            const DENSE: bool = true;
            fn is_valid(bytes: &[u8]) -> bool {
                let is_valid: fn([u8; size_of::<$ty>()]) -> bool = $valid;
                bytes.try_into().is_ok_and(is_valid)
            }
        }
    )*};
}

plain! {
    u8 => Shape::Integer(1), |_| true; i8 => Shape::Integer(1), |_| true;
    u16 => Shape::Integer(2), |_| true; i16 => Shape::Integer(2), |_| true;
    u32 => Shape::Integer(4), |_| true; i32 => Shape::Integer(4), |_| true;
    u64 => Shape::Integer(8), |_| true; i64 => Shape::Integer(8), |_| true;
    usize => Shape::Integer(8), |_| true; isize => Shape::Integer(8), |_| true;
    u128 => Shape::Integer(16), |_| true; i128 => Shape::Integer(16), |_| true;
    f32 => Shape::Float(4), |_| true; f64 => Shape::Float(8), |_| true;
    bool => Shape::Bool, |[byte]| byte < 2;
    char => Shape::Enum { name: "char".to_owned(), size: 4, min: 0, max: 0x10_ffff },
        |bytes| char::from_u32(u32::from_le_bytes(bytes)).is_some();
    () => Shape::Bytes(0), |_| true;
}

// SAFETY: an array is its elements one after the other.
unsafe impl<T: Persist, const N: usize> Persist for [T; N] {
    type At<'q> = [T::At<'q>; N];
    fn name() -> String {
        format!("[{}; {N}]", T::name())
    }
    fn shape() -> Shape {
        Shape::Array {
            count: N as u64,
            stride: size_of::<T>() as u64,
            element: Box::new(T::shape()),
        }
    }
    fn collect(types: &mut Collector) {
        T::collect(types);
    }
    fn demand(at: u64, demands: &mut Demands) {
        for n in 0..N {
            T::demand(at + (n * size_of::<T>()) as u64, demands);
        }
    }
    const PLAIN: bool = T::PLAIN;
    const DENSE: bool = T::DENSE;
    fn is_valid(bytes: &[u8]) -> bool {
        let one = size_of::<T>();
        bytes.len() == N * one && (one == 0 || bytes.chunks_exact(one).all(T::is_valid))
    }
}

// SAFETY: no bytes at all.
unsafe impl<T: Persist> Persist for PhantomData<T> {
    type At<'q> = PhantomData<T::At<'q>>;
    fn name() -> String {
        format!("PhantomData<{}>", T::name())
    }
    fn shape() -> Shape {
        Shape::Bytes(0)
    }
    fn collect(_: &mut Collector) {}
    const PLAIN: bool = true;
    const DENSE: bool = true;
    fn is_valid(bytes: &[u8]) -> bool {
        bytes.is_empty()
    }
}

/// The shape of a pointer to a `T`, or to several.
pub(crate) fn pointer_to<T: Persist>() -> Shape {
    Shape::Pointer {
        target: T::name(),
        target_id: 0,
    }
}

// SAFETY: one pointer, to an object of type T that the transactions of brand 'p allocated in their pool.
unsafe impl<'p, T: Persist> Persist for PBox<'p, T> {
    type At<'q> = PBox<'q, T::At<'q>>;
    fn name() -> String {
        format!("vernal::PBox<{}>", T::name())
    }
    fn shape() -> Shape {
        pointer_to::<T>()
    }
    fn collect(types: &mut Collector) {
        T::collect(types);
        types.pointee::<T>();
    }
    fn demand(at: u64, demands: &mut Demands) {
        demands.not_null(at);
        demands.target::<T>(at);
    }
}

// SAFETY: as for PBox; `None` is null, by the layout that Rust guarantees for an optional NonNull.
unsafe impl<'p, T: Persist> Persist for Option<PBox<'p, T>> {
    type At<'q> = Option<PBox<'q, T::At<'q>>>;
    fn name() -> String {
        format!("Option<vernal::PBox<{}>>", T::name())
    }
    fn shape() -> Shape {
        pointer_to::<T>()
    }
    fn collect(types: &mut Collector) {
        T::collect(types);
        types.pointee::<T>();
    }
    fn demand(at: u64, demands: &mut Demands) {
        demands.target::<T>(at);
    }
}

// SAFETY: as for PBox: it is made from one.
unsafe impl<'p, T: Persist> Persist for Ptr<'p, T> {
    type At<'q> = Ptr<'q, T::At<'q>>;
    fn name() -> String {
        format!("vernal::Ptr<{}>", T::name())
    }
    fn shape() -> Shape {
        pointer_to::<T>()
    }
    fn collect(types: &mut Collector) {
        T::collect(types);
        types.pointee::<T>();
    }
    fn demand(at: u64, demands: &mut Demands) {
        demands.not_null(at);
        demands.target::<T>(at);
    }
}

// SAFETY: as for PBox.
unsafe impl<'p, T: Persist> Persist for Option<Ptr<'p, T>> {
    type At<'q> = Option<Ptr<'q, T::At<'q>>>;
    fn name() -> String {
        format!("Option<vernal::Ptr<{}>>", T::name())
    }
    fn shape() -> Shape {
        pointer_to::<T>()
    }
    fn collect(types: &mut Collector) {
        T::collect(types);
        types.pointee::<T>();
    }
    fn demand(at: u64, demands: &mut Demands) {
        demands.target::<T>(at);
    }
}

const _: () = assert!(size_of::<Option<PBox<'static, u64>>>() == 8);
const _: () = assert!(size_of::<Option<Ptr<'static, u64>>>() == 8);

/// A pointer that owns nothing: to a parent, to the previous node. It may be compared and stored; following it is unsafe,
/// because nothing keeps the object alive, or keeps `&mut` references to it away.
///
/// Set it to `None` before the object is dropped: `vernal pool check` reports a pointer that leads to no object.
#[repr(transparent)]
pub struct Ptr<'p, T> {
    at: NonNull<T>,
    brand: crate::pool::Brand<'p>,
}

impl<T> Copy for Ptr<'_, T> {}
impl<T> Clone for Ptr<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> PartialEq for Ptr<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl<T> Eq for Ptr<'_, T> {}
impl<T> std::fmt::Debug for Ptr<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ptr({:p})", self.at)
    }
}

// SAFETY: it gives out only an address, and following that is unsafe.
unsafe impl<T> Sync for Ptr<'_, T> {}

impl<'p, T> Ptr<'p, T> {
    /// A pointer to what `owner` owns.
    pub fn to(owner: &PBox<'p, T>) -> Self {
        Self {
            at: owner.at(),
            brand: PhantomData,
        }
    }

    /// Whether it points to this object.
    pub fn is(self, object: &T) -> bool {
        std::ptr::eq(self.at.as_ptr(), object)
    }

    /// The object.
    ///
    /// # Safety
    ///
    /// The object has not been dropped, and no `&mut` to it, or to what it lies in, lives as long as the result.
    pub unsafe fn get<'a>(self) -> &'a T
    where
        'p: 'a,
    {
        // SAFETY: the caller's promise; the brand keeps the pool open.
        unsafe { self.at.as_ref() }
    }
}
