//! Pools of persistent objects: opening them, shared access, transactions.

mod boxed;
mod persist;
mod text;
mod tx;
mod vec;

pub use boxed::PBox;
pub use persist::{Persist, Ptr};
pub use text::PString;
pub use tx::{RootMut, Tx};
pub use vec::PVec;

pub(crate) use tx::{inside, refuse_inside};

use std::ffi::CString;
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use crate::Ticket;
use crate::error::{Error, ErrorCode};
use crate::layout::Collector;
use crate::sys;

/// Ties a value to one transaction: invariant in the lifetime, and bound to the thread.
pub(crate) type Brand<'p> = PhantomData<(fn(&'p ()) -> &'p (), *mut ())>;

/// How to open a [`Pool`]: `Pool::<Root>::options().create(true).open(path, |tx| ...)`.
#[derive(Debug, Clone, Copy)]
pub struct PoolOptions<R> {
    flags: u32,
    root: PhantomData<fn() -> R>,
}

impl<R: Persist> PoolOptions<R> {
    fn with(mut self, flag: u32, on: bool) -> Self {
        self.flags = if on {
            self.flags | flag
        } else {
            self.flags & !flag
        };
        self
    }

    /// Make the pool when there is none.
    pub fn create(self, on: bool) -> Self {
        self.with(sys::VN_CREATE, on)
    }

    /// Make the pool, and fail when it exists.
    pub fn create_new(self, on: bool) -> Self {
        self.with(sys::VN_CREATE | sys::VN_EXCL, on)
    }

    /// A new pool is changed in place, on byte-addressable media, with undo logs.
    pub fn direct(self, on: bool) -> Self {
        self.with(sys::VN_DIRECT, on)
    }

    /// Read a committed image: [`Pool::root`] works, transactions are refused.
    pub fn read_only(self, on: bool) -> Self {
        self.with(sys::VN_READONLY, on)
    }

    /// Opens the pool in a directory of its own, recovering it first if its last writer died. `init` makes the root object
    /// of a pool that has none; it runs in a transaction.
    pub fn open(
        self,
        directory: impl AsRef<Path>,
        init: impl for<'p> FnMut(&Tx<'p>) -> Result<R::At<'p>, Error>,
    ) -> Result<Pool<R>, Error> {
        let path = directory.as_ref();
        // A name without a slash would be one of puddled's pools.
        let path = if path.as_os_str().as_bytes().contains(&b'/') {
            path.to_owned()
        } else {
            Path::new(".").join(path)
        };
        self.open_name(path.as_os_str().as_bytes(), init)
    }

    /// Opens a pool of puddled. The name has no slash in it.
    pub fn open_served(
        self,
        name: &str,
        init: impl for<'p> FnMut(&Tx<'p>) -> Result<R::At<'p>, Error>,
    ) -> Result<Pool<R>, Error> {
        if name.is_empty() || name.contains('/') {
            let text = format!(
                "{name:?} is not the name of a pool of puddled: it is empty or has a slash in it"
            );
            return Err(Error::new(ErrorCode::Invalid, text));
        }
        self.open_name(name.as_bytes(), init)
    }

    fn open_name(
        self,
        name: &[u8],
        mut init: impl for<'p> FnMut(&Tx<'p>) -> Result<R::At<'p>, Error>,
    ) -> Result<Pool<R>, Error> {
        refuse_inside("a pool is opened")?;
        let c_name = CString::new(name).map_err(|_| {
            let text = format!(
                "{:?}: a pool's name cannot hold a NUL byte",
                String::from_utf8_lossy(name)
            );
            Error::new(ErrorCode::Invalid, text)
        })?;
        let mut types = Collector::default();
        R::collect(&mut types);
        types.enter::<R>();
        types.register()?;
        // SAFETY: a C string that outlives the call.
        let handle = unsafe { sys::vn_pool_open(c_name.as_ptr(), self.flags) };
        let Some(handle) = NonNull::new(handle) else {
            return Err(Error::last_null());
        };
        let mut pool = Pool {
            handle,
            root: NonNull::dangling(),
            read_only: self.flags & sys::VN_READONLY != 0,
            joined: tx::Joined::default(),
            types: PhantomData,
        };
        pool.root = match pool.find_root()? {
            Some(root) => root,
            None => pool.make_root(&mut init)?,
        };
        Ok(pool)
    }
}

/// An open pool whose root object is an `R`. Objects are reached from there: by shared references outside of transactions
/// ([`root`](Self::root)), by exclusive ones inside ([`tx`](Self::tx)).
///
/// `R` is written without its brand, or with any: `Pool<Stock>`, `Pool<Stock<'static>>`.
///
/// Dropping it closes the pool; [`close`](Self::close) reports whether that worked. To share one between threads, put it
/// behind an `RwLock`: readers then run beside each other, and transactions alone.
pub struct Pool<R: Persist> {
    handle: NonNull<sys::VnPool>,
    root: NonNull<u8>,
    read_only: bool,
    joined: tx::Joined,
    types: PhantomData<fn() -> R>,
}

// SAFETY: transactions borrow the pool exclusively and end on the thread that began them; between them no thread matters.
unsafe impl<R: Persist> Send for Pool<R> {}
// SAFETY: a shared pool gives out shared references to persistent values, which threads may share (`Persist`).
unsafe impl<R: Persist> Sync for Pool<R> {}

impl<R: Persist> Pool<R> {
    /// How to open one.
    pub fn options() -> PoolOptions<R> {
        PoolOptions {
            flags: 0,
            root: PhantomData,
        }
    }

    /// Opens the pool in this directory, or makes it: `Pool::options().create(true).open(directory, init)`.
    pub fn open(
        directory: impl AsRef<Path>,
        init: impl for<'p> FnMut(&Tx<'p>) -> Result<R::At<'p>, Error>,
    ) -> Result<Self, Error> {
        Self::options().create(true).open(directory, init)
    }

    /// The root object, for reading. It sees everything that committed.
    ///
    /// # Panics
    ///
    /// After a transaction on this pool inside one on another pool, until that has ended: it may still be rolled back.
    #[track_caller]
    pub fn root(&self) -> &R::At<'_> {
        if self.joined.is_pending() {
            panic!("{}", tx::pending("a look"));
        }
        // SAFETY: the root is an initialised R, as its descriptor was compared, and nobody changes it while the pool is
        // borrowed.
        unsafe { self.root.cast().as_ref() }
    }

    /// Runs `body` as a transaction: what it does is durable when this returns `Ok`, and undone when it returns `Err` or
    /// panics. Values that come from the pool cannot leave the closure.
    ///
    /// An abort in another thread can take this transaction along; it is then run again, so `body` may be called more than
    /// once. What it changes outside of pools is not undone. Inside another transaction of this thread it is part of that
    /// one: it becomes durable with the outermost, and its failure makes the outermost fail.
    pub fn tx<T, E: From<Error>>(
        &mut self,
        body: impl for<'p> FnMut(&Tx<'p>, RootMut<'_, R::At<'p>>) -> Result<T, E>,
    ) -> Result<T, E> {
        Ok(self.run(true, body)?.0)
    }

    /// As [`tx`](Self::tx), but durable only at [`Ticket::wait`] or with a later commit, and atomic at once. Without a
    /// ticket inside another transaction.
    pub fn tx_async<T, E: From<Error>>(
        &mut self,
        body: impl for<'p> FnMut(&Tx<'p>, RootMut<'_, R::At<'p>>) -> Result<T, E>,
    ) -> Result<(T, Option<Ticket>), E> {
        self.run(false, body)
    }

    fn run<T, E: From<Error>>(
        &mut self,
        wait: bool,
        mut body: impl for<'p> FnMut(&Tx<'p>, RootMut<'_, R::At<'p>>) -> Result<T, E>,
    ) -> Result<(T, Option<Ticket>), E> {
        self.writable()?;
        let (handle, root) = (self.handle.as_ptr(), self.root);
        tx::run(&self.joined, wait, || {
            // SAFETY: inside a transaction until the closure returns; the pool is exclusively borrowed, so that this is
            // the only way to its root.
            let (tx, root) = unsafe { (Tx::new(handle), RootMut::new(root.cast())) };
            body(&tx, root)
        })
    }

    fn writable(&self) -> Result<(), Error> {
        if self.read_only {
            let text = "the pool was opened read-only: it has no transactions".to_owned();
            return Err(Error::new(ErrorCode::ReadOnly, text));
        }
        Ok(())
    }

    /// Closes the pool.
    pub fn close(self) -> Result<(), Error> {
        refuse_inside("a pool is closed")?;
        if self.joined.is_pending() {
            return Err(tx::pending("a close"));
        }
        let pool = std::mem::ManuallyDrop::new(self);
        // SAFETY: open, and not used again.
        Error::check(unsafe { sys::vn_pool_close(pool.handle.as_ptr()) })
    }

    /// The root, if there is one and it is an R.
    fn find_root(&self) -> Result<Option<NonNull<u8>>, Error> {
        let handle = self.handle.as_ptr();
        // SAFETY: open.
        if unsafe { sys::vn_get_root(handle) }.is_null() {
            return Ok(None);
        }
        let descriptor = R::descriptor().c_type()?;
        // SAFETY: open; the descriptor lives as long as the process. There is a root: it is compared, not made.
        let root = unsafe { sys::__vn_root_typed(handle, size_of::<R>(), descriptor) };
        match NonNull::new(root.cast()) {
            Some(root) => Ok(Some(root)),
            None => Err(Error::last_null()),
        }
    }

    fn make_root(
        &self,
        init: &mut impl for<'p> FnMut(&Tx<'p>) -> Result<R::At<'p>, Error>,
    ) -> Result<NonNull<u8>, Error> {
        if self.read_only {
            let text = "the pool has no root object yet, and was opened read-only".to_owned();
            return Err(Error::new(ErrorCode::NotFound, text));
        }
        let handle = self.handle.as_ptr();
        let made = tx::run(&self.joined, true, || {
            // SAFETY: inside a transaction until the closure returns.
            let tx = unsafe { Tx::new(handle) };
            let value = init(&tx)?;
            let place = tx.allocate::<R::At<'_>>(1)?;
            // SAFETY: new memory for one value, which becomes the root and is owned by the pool from here on.
            unsafe {
                place.as_ptr().write(value);
                tx::announce(place.as_ptr(), size_of::<R>())?;
                Error::check(sys::vn_set_root(handle, place.as_ptr().cast()))?;
            }
            Ok::<_, Error>(place.cast())
        })?;
        Ok(made.0)
    }
}

impl<R: Persist> std::fmt::Debug for Pool<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("handle", &self.handle)
            .field("root", &self.root)
            .field("type", &R::name())
            .finish()
    }
}

impl<R: Persist> Drop for Pool<R> {
    fn drop(&mut self) {
        // Inside a transaction on another pool it cannot be closed: it stays open.
        if !inside() && !self.joined.is_pending() {
            // SAFETY: open, and not used again. An error has nowhere to go; `close` reports it.
            let _ = unsafe { sys::vn_pool_close(self.handle.as_ptr()) };
        }
    }
}
