//! Transactions.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Brand;
use super::boxed::PBox;
use super::persist::Persist;
use super::text::PString;
use super::vec::PVec;
use crate::Ticket;
use crate::error::{Error, ErrorCode};
use crate::layout::address;
use crate::sys;
use vernal_abi::{DIRECT_BASE, DIRECT_SIZE};

/// A transaction in progress on one pool. `'p` is its brand: no two transactions have the same, and what carries it
/// cannot leave the closure that was given the transaction, nor get into another pool.
pub struct Tx<'p> {
    pool: *mut sys::VnPool,
    brand: Brand<'p>,
}

impl<'p> Tx<'p> {
    /// A transaction handle.
    ///
    /// # Safety
    ///
    /// The pool is open, the calling thread is inside a transaction, and `'p` ends before either does.
    pub(super) unsafe fn new(pool: *mut sys::VnPool) -> Self {
        Self {
            pool,
            brand: PhantomData,
        }
    }

    /// A handle for building objects in a heap without transactions: that of an RPC connection.
    ///
    /// # Safety
    ///
    /// The heap is volatile, and open for as long as `'p`.
    #[doc(hidden)]
    pub unsafe fn of_heap(heap: *mut std::ffi::c_void) -> Self {
        // SAFETY: a volatile heap takes nothing back: it needs no transaction.
        unsafe { Self::new(heap.cast()) }
    }

    /// Moves `value` into a new object that nobody owns yet.
    #[doc(hidden)]
    pub fn place<T: Persist>(&self, value: T) -> Result<NonNull<T>, Error> {
        // Not `allocate`: what passes values of any type asks for those without bytes, too, in code that never runs.
        let at = self.memory::<T>(1)?;
        // SAFETY: new memory for one T.
        unsafe { at.as_ptr().write(value) };
        Ok(at)
    }

    /// Moves `value` into a new object of the pool.
    pub fn alloc<T: Persist<At<'p> = T>>(&self, value: T) -> Result<PBox<'p, T>, Error> {
        let at = self.allocate::<T>(1)?;
        // SAFETY: new memory for one T; announced after the store, and nothing else refers to it.
        unsafe {
            at.as_ptr().write(value);
            let object = PBox::own(at);
            announce(at.as_ptr(), size_of::<T>())?;
            Ok(object)
        }
    }

    /// A vector with these elements.
    pub fn vec<T: Persist<At<'p> = T>>(
        &self,
        items: impl IntoIterator<Item = T>,
    ) -> Result<PVec<'p, T>, Error> {
        let mut vec = PVec::new();
        vec.extend(self, items)?;
        Ok(vec)
    }

    /// A string with this text.
    pub fn string(&self, text: &str) -> Result<PString<'p>, Error> {
        let mut string = PString::new();
        string.push_str(self, text)?;
        Ok(string)
    }

    /// Zeroed memory for `count` objects of type T.
    pub(super) fn allocate<T: Persist>(&self, count: usize) -> Result<NonNull<T>, Error> {
        const {
            assert!(
                size_of::<T>() > 0,
                "an object in a pool has at least one byte"
            )
        };
        self.memory(count)
    }

    fn memory<T: Persist>(&self, count: usize) -> Result<NonNull<T>, Error> {
        let descriptor = T::descriptor().c_type()?;
        let bytes = count
            .checked_mul(size_of::<T>())
            .filter(|bytes| *bytes <= isize::MAX as usize)
            .ok_or_else(|| {
                let text = format!("{count} objects of type {} are more than memory", T::name());
                Error::new(ErrorCode::NoSpace, text)
            })?;
        // SAFETY: the pool is open while the brand lives, and the descriptor lives as long as the process.
        let at = unsafe { sys::__vn_new_typed(self.pool, bytes, descriptor) };
        let at: NonNull<T> = NonNull::new(at.cast()).ok_or_else(Error::last_null)?;
        if !at.is_aligned() {
            // SAFETY: just allocated, nothing refers to it.
            unsafe { super::boxed::free(at) };
            let text = format!(
                "type {}: the allocator does not align to {} bytes",
                T::name(),
                align_of::<T>()
            );
            return Err(Error::new(ErrorCode::Type, text));
        }
        Ok(at)
    }
}

impl std::fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").field("pool", &self.pool).finish()
    }
}

/// The root object inside a transaction: reads are free, a write announces the whole object.
pub struct RootMut<'t, T> {
    at: NonNull<T>,
    lent: PhantomData<&'t mut T>,
}

impl<T> RootMut<'_, T> {
    /// The root of a pool.
    ///
    /// # Safety
    ///
    /// `at` is the initialised root, nothing else accesses it for as long as the result lives, and the calling thread is
    /// inside a transaction for that long.
    pub(super) unsafe fn new(at: NonNull<T>) -> Self {
        Self {
            at,
            lent: PhantomData,
        }
    }
}

impl<T> Deref for RootMut<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the promise to `new`.
        unsafe { self.at.as_ref() }
    }
}

impl<T> DerefMut for RootMut<'_, T> {
    /// # Panics
    ///
    /// As [`PBox`]'s.
    #[track_caller]
    fn deref_mut(&mut self) -> &mut T {
        if let Err(e) = announce(self.at.as_ptr(), size_of::<T>()) {
            panic!("the root cannot be changed: {e}");
        }
        // SAFETY: the promise to `new`; self is exclusively borrowed.
        unsafe { self.at.as_mut() }
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for RootMut<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

/// Says that the transaction will change, or has changed, these bytes. In a direct pool before the change: its undo log takes
/// the old bytes. In a buffered one at any time inside the transaction: it marks the lines, and no commit comes in between.
pub(super) fn announce<T>(at: *const T, len: usize) -> Result<(), Error> {
    if (at as u64).wrapping_sub(DIRECT_BASE) < DIRECT_SIZE {
        // SAFETY: the bytes belong to an object of an open pool.
        return Error::check(unsafe { sys::vn_tx_add(address(at), len) });
    }
    // SAFETY: nothing is read through the address.
    unsafe { sys::vernal_mark(address(at), len) };
    Ok(())
}

/// Which outermost transaction a pool is part of through an inner one; 0 for none. Until that ends, what the inner one did
/// can still be rolled back, so nobody may hold references into the pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Joined(Arc<AtomicU64>);

impl Joined {
    /// Whether the outermost transaction is still running.
    pub(super) fn is_pending(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// For an inner transaction: joins this thread's outermost one.
    fn join(&self) -> Result<(), Error> {
        let own = OUTERMOST.get();
        match self
            .0
            .compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => {
                JOINED.with_borrow_mut(|joined| joined.push(self.clone()));
                Ok(())
            }
            Err(id) if id == own => Ok(()),
            Err(_) => Err(pending("a transaction")),
        }
    }
}

/// The error for what is done to a pool meanwhile.
pub(super) fn pending(what: &str) -> Error {
    let text = format!(
        "{what} on a pool that another pool's transaction has changed and that has not ended yet: wait for its end"
    );
    Error::new(ErrorCode::Busy, text)
}

static NEXT_OUTERMOST: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// Number of this thread's outermost transaction, and the pools that joined it.
    static OUTERMOST: Cell<u64> = const { Cell::new(0) };
    static JOINED: RefCell<Vec<Joined>> = const { RefCell::new(Vec::new()) };
    /// Depth of this thread's Rust transactions, and whether one of them has failed.
    static NESTING: Cell<(u32, bool)> = const { Cell::new((0, false)) };
}

/// Whether the calling thread is inside a transaction.
pub(crate) fn inside() -> bool {
    NESTING.get().0 > 0
}

/// A commit inside a transaction would make half of it durable.
pub(crate) fn refuse_inside(what: &str) -> Result<(), Error> {
    if inside() {
        let text = format!(
            "{what} inside a transaction: it would be cut in two; do it after the transaction"
        );
        return Err(Error::new(ErrorCode::Busy, text));
    }
    Ok(())
}

/// How often a transaction that was rolled back together with another thread's is run again.
const RETRIES: u32 = 1000;

/// Runs `body` as a transaction, again when another thread's abort has taken it along. Durable when this returns, or at
/// the ticket if `wait` is false; inside another transaction of this thread, with the outermost.
pub(super) fn run<T, E: From<Error>>(
    pool: &Joined,
    wait: bool,
    mut body: impl FnMut() -> Result<T, E>,
) -> Result<(T, Option<Ticket>), E> {
    let mut attempt = 0;
    loop {
        match once(pool, wait, &mut body) {
            Ok(done) => return Ok(done),
            Err(Failure::Conflict(_)) if attempt < RETRIES => attempt += 1,
            Err(Failure::Conflict(e)) => return Err(e.into()),
            Err(Failure::Other(e)) => return Err(e),
        }
    }
}

enum Failure<E> {
    Conflict(Error),
    Other(E),
}

fn once<T, E: From<Error>>(
    pool: &Joined,
    wait: bool,
    body: &mut impl FnMut() -> Result<T, E>,
) -> Result<(T, Option<Ticket>), Failure<E>> {
    let other = |e: Error| Failure::Other(E::from(e));
    let (depth, failed_before) = NESTING.get();
    if depth == 0 {
        if pool.is_pending() {
            return Err(other(pending("a transaction")));
        }
        // SAFETY: paired with the commit or abort below, on this thread.
        Error::check(unsafe { sys::vn_tx_begin() }).map_err(other)?;
        NESTING.set((1, false));
        OUTERMOST.set(NEXT_OUTERMOST.fetch_add(1, Ordering::Relaxed));
    } else {
        pool.join().map_err(other)?;
        NESTING.set((depth + 1, failed_before));
    }
    // What an unwinding closure has broken in the pool is rolled back before anyone sees it.
    let outcome = catch_unwind(AssertUnwindSafe(body));
    let failed = !matches!(outcome, Ok(Ok(_))) || NESTING.get().1;
    NESTING.set((depth, failed && depth > 0));
    if depth > 0 {
        // The closures around this one still refer to the pool: rolling back is left to the outermost.
        return match outcome {
            Ok(Ok(value)) => Ok((value, None)),
            Ok(Err(e)) => Err(Failure::Other(e)),
            Err(panic) => resume_unwind(panic),
        };
    }
    let _release = Release;
    match outcome {
        Ok(Ok(value)) if !failed => match finish(wait) {
            Ok(ticket) => Ok((value, ticket)),
            Err(e) if e.code() == ErrorCode::Conflict => Err(Failure::Conflict(e)),
            Err(e) => Err(other(e)),
        },
        Ok(Ok(_)) => {
            roll_back().map_err(other)?;
            let text = "a transaction inside this one has failed: both are rolled back";
            Err(other(Error::new(ErrorCode::Aborted, text.to_owned())))
        }
        Ok(Err(e)) => {
            roll_back().map_err(other)?;
            Err(Failure::Other(e))
        }
        Err(panic) => {
            // The panic says more than a second failure would.
            let _ = roll_back();
            resume_unwind(panic)
        }
    }
}

/// Lets the pools go that joined, when the outermost transaction has committed or has been rolled back.
struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        JOINED.with_borrow_mut(|joined| {
            joined
                .drain(..)
                .for_each(|pool| pool.0.store(0, Ordering::Release));
        });
    }
}

/// Rolls the outermost transaction back. No reference into a pool is left: the closures have returned.
fn roll_back() -> Result<(), Error> {
    // SAFETY: pairs with the begin in `once`.
    match unsafe { sys::vn_tx_abort() } {
        0 | sys::EABORTED => Ok(()),
        code => Err(Error::last(code)),
    }
}

/// Commits the outermost transaction.
fn finish(wait: bool) -> Result<Option<Ticket>, Error> {
    if wait {
        // SAFETY: pairs with the begin in `once`.
        Error::check(unsafe { sys::vn_tx_commit() })?;
        return Ok(None);
    }
    // SAFETY: as above.
    Ticket::of(unsafe { sys::vn_tx_commit_async() }).map(Some)
}
