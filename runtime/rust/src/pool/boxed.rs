//! An owned object in a pool.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use super::Brand;
use super::tx::announce;
use crate::error::Error;
use crate::layout::address;
use crate::sys;

/// Owns one object in a pool, as `Box` owns one on the heap: an ordinary pointer of 8 bytes.
///
/// It is made by [`Tx::alloc`](crate::Tx::alloc), and dropping it frees the object. `'p` is the brand of the transaction:
/// the value cannot leave it, except into the pool. Writing through it announces the whole object to the transaction, so
/// that plain `cargo` is enough; keep large arrays in a [`PVec`](crate::PVec), which announces one element.
///
/// A box that is leaked with `mem::forget` stays allocated: `vernal pool check --reclaim` finds it.
#[repr(transparent)]
pub struct PBox<'p, T> {
    at: NonNull<T>,
    brand: Brand<'p>,
}

// SAFETY: sharing a box shares the object and nothing else: the shared methods do not touch the transaction.
unsafe impl<T: Sync> Sync for PBox<'_, T> {}

impl<T> PBox<'_, T> {
    /// Takes ownership.
    ///
    /// # Safety
    ///
    /// `at` is an initialised object that this pool's allocator handed out for one `T`, and nothing else owns it.
    pub(crate) unsafe fn own(at: NonNull<T>) -> Self {
        Self {
            at,
            brand: PhantomData,
        }
    }

    pub(crate) fn at(&self) -> NonNull<T> {
        self.at
    }

    /// As `deref_mut`, for pools whose log can be full.
    pub fn try_mut(&mut self) -> Result<&mut T, Error> {
        announce(self.at.as_ptr(), size_of::<T>())?;
        // SAFETY: the box owns the object and is exclusively borrowed.
        Ok(unsafe { self.at.as_mut() })
    }

    /// Takes the value out and frees the object.
    pub fn into_inner(self) -> T {
        let at = std::mem::ManuallyDrop::new(self).at;
        // SAFETY: the value is moved out and the memory, which the box owned, is freed without dropping it again.
        unsafe {
            let value = at.as_ptr().read();
            free(at);
            value
        }
    }
}

/// Frees an object's memory.
///
/// # Safety
///
/// The pool's allocator handed it out, and nothing refers to it.
pub(crate) unsafe fn free<T>(at: NonNull<T>) {
    // SAFETY: the caller's promise. It fails for addresses that are no object only.
    let _ = unsafe { sys::vn_free(address(at.as_ptr()).cast_mut()) };
}

impl<T> Drop for PBox<'_, T> {
    fn drop(&mut self) {
        // Whoever has this value is inside a transaction: the brand keeps it there. After an abort it comes back.
        // The object's own destructor may write to it.
        if std::mem::needs_drop::<T>() {
            let _ = announce(self.at.as_ptr(), size_of::<T>());
        }
        // SAFETY: the box owns the object, and it is not used again.
        unsafe {
            ptr::drop_in_place(self.at.as_ptr());
            free(self.at);
        }
    }
}

impl<T> Deref for PBox<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the box owns an initialised object.
        unsafe { self.at.as_ref() }
    }
}

impl<T> DerefMut for PBox<'_, T> {
    /// # Panics
    ///
    /// In a direct pool whose undo log has no space left; the transaction is aborted. [`PBox::try_mut`] returns that as an
    /// error.
    #[track_caller]
    fn deref_mut(&mut self) -> &mut T {
        match self.try_mut() {
            Ok(object) => object,
            Err(e) => panic!("the object cannot be changed: {e}"),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for PBox<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
impl<T: fmt::Display> fmt::Display for PBox<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
impl<T: PartialEq> PartialEq for PBox<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl<T: Eq> Eq for PBox<'_, T> {}
impl<T: PartialOrd> PartialOrd for PBox<'_, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (**self).partial_cmp(&**other)
    }
}
impl<T: Ord> Ord for PBox<'_, T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}
impl<T: Hash> Hash for PBox<'_, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}
