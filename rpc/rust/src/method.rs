//! Methods: a number, and the types that both sides agree on.

use std::fmt;
use std::marker::PhantomData;

use vernal::Persist;
use vernal::layout::for_peers;

use crate::error::Error;
use crate::sys;

/// Plain bytes that one message takes at most.
const BYTES_MAX: usize = 4096;

/// A method that takes an `A` and gives an `R`, under a number of its channel. Both sides name the same constant:
///
/// ```no_run
/// # use vernal_rpc::Method;
/// const SQUARE: Method<u32, u64> = Method::new(1);
/// ```
///
/// Types without pointers and padding, of at most 4096 bytes, travel as bytes inside the message (in C: `VN_RPC_BYTES`); all others as
/// objects.
pub struct Method<A, R> {
    pub(crate) number: u32,
    objects: bool,
    types: PhantomData<fn(A) -> R>,
}

impl<A, R> Copy for Method<A, R> {}
impl<A, R> Clone for Method<A, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, R> fmt::Debug for Method<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Method({})", self.number)
    }
}

impl<A: Persist, R: Persist> Method<A, R> {
    /// The method with this number.
    pub const fn new(number: u32) -> Self {
        Self {
            number,
            objects: false,
            types: PhantomData,
        }
    }

    /// The same, whose plain arguments and replies travel as objects, too: for a peer in C or C++ that names their types.
    pub const fn of_objects(number: u32) -> Self {
        Self {
            objects: true,
            ..Self::new(number)
        }
    }

    pub(crate) fn takes(self) -> Form {
        Form::of::<A>(self.objects)
    }

    pub(crate) fn gives(self) -> Form {
        Form::of::<R>(self.objects)
    }
}

/// A method that takes an `A` and answers with a stream of `R`.
pub struct StreamMethod<A, R>(pub(crate) Method<A, R>);

impl<A, R> Copy for StreamMethod<A, R> {}
impl<A, R> Clone for StreamMethod<A, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, R> fmt::Debug for StreamMethod<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamMethod({})", self.0.number)
    }
}

impl<A: Persist, R: Persist> StreamMethod<A, R> {
    /// The method with this number.
    pub const fn new(number: u32) -> Self {
        Self(Method::new(number))
    }

    /// As [`Method::of_objects`].
    pub const fn of_objects(number: u32) -> Self {
        Self(Method::of_objects(number))
    }
}

/// How values of a type travel: both sides find it from the type alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Bytes,
    Object,
}

impl Form {
    fn of<T: Persist>(objects: bool) -> Self {
        let fits = size_of::<T>() == 0 || !objects && size_of::<T>() <= BYTES_MAX;
        match T::PLAIN && T::DENSE && fits {
            true => Self::Bytes,
            false => Self::Object,
        }
    }

    /// The type as libvernal takes it; NULL for bytes.
    #[inline]
    pub fn type_of<T: Persist>(self) -> Result<sys::Type, Error> {
        match self {
            Self::Bytes => Ok(std::ptr::null()),
            Self::Object => Ok(for_peers::<T>()?),
        }
    }
}
