//! A mapped file and how to open one.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use crate::error::{Error, ErrorCode};
use crate::pool::{inside, refuse_inside};
use crate::sys;

/// How to open a [`Map`].
#[derive(Debug, Clone, Copy, Default)]
pub struct MapOptions {
    create: bool,
    len: usize,
}

impl MapOptions {
    /// Create the file when it does not exist.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// The length in bytes. 0, the default, takes the file's own; a larger value grows the file with zeros.
    pub fn len(mut self, len: usize) -> Self {
        self.len = len;
        self
    }

    /// Maps the file at its home address, recovering it first if its last writer died.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Map, Error> {
        let path = path.as_ref();
        let c_path = CString::new(path.as_os_str().as_bytes()).map_err(|_| {
            Error::new(
                ErrorCode::Invalid,
                format!("{}: a path cannot hold a NUL byte", path.display()),
            )
        })?;
        let flags = if self.create { sys::VERNAL_CREATE } else { 0 };
        // SAFETY: the path is a C string that outlives the call.
        let base = unsafe { sys::vernal_map(c_path.as_ptr(), self.len, flags) };
        match NonNull::new(base.cast()) {
            Some(base) => Ok(Map { base }),
            None => Err(Error::last_null()),
        }
    }
}

/// A file mapped at its home address. Dropping it commits (discards, while the thread panics) and unmaps it.
#[derive(Debug)]
pub struct Map {
    base: NonNull<u8>,
}

// SAFETY: a Map is an address that the runtime accepts from any thread; it gives no access to what it points to by itself.
unsafe impl Send for Map {}
// SAFETY: as above; the shared methods only ask the runtime, which locks.
unsafe impl Sync for Map {}

impl Map {
    /// How to open a map: `Map::options().create(true).len(n).open(path)`.
    pub fn options() -> MapOptions {
        MapOptions::default()
    }

    /// The address of the file's first byte: page-aligned, and the same in every run.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        // SAFETY: asks the runtime about an address; nothing is read through it.
        unsafe { sys::vernal_length(self.base.as_ptr().cast()) }
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Commits this and every other mapped file together: see [`crate::commit`].
    pub fn commit(&self) -> Result<(), Error> {
        crate::commit()
    }

    /// Commits asynchronously: see [`crate::commit_async`].
    pub fn commit_async(&self) -> Result<crate::Ticket, Error> {
        crate::commit_async()
    }

    /// Changes the length in bytes, in place; durable at the next commit. Memory beyond a smaller length is gone: nothing may
    /// refer to it any more.
    pub fn resize(&mut self, len: usize) -> Result<(), Error> {
        // SAFETY: the map is exclusively borrowed; raw pointers beyond the new end are their users' responsibility.
        Error::check(unsafe { sys::vernal_resize(self.base.as_ptr().cast(), len) })
    }

    /// Commits what is uncommitted and unmaps the file. Nothing may refer to it any more.
    pub fn close(self) -> Result<(), Error> {
        refuse_inside("a file is closed")?;
        let base = self.into_base();
        // SAFETY: the address is that of a map that no `Map` owns any more.
        Error::check(unsafe { sys::vernal_unmap(base.as_ptr().cast()) })
    }

    /// Unmaps the file and forgets what is uncommitted. Nothing may refer to it any more.
    pub fn discard(self) -> Result<(), Error> {
        refuse_inside("a file is closed")?;
        let base = self.into_base();
        // SAFETY: the address is that of a map that no `Map` owns any more.
        Error::check(unsafe { sys::vernal_unmap_discard(base.as_ptr().cast()) })
    }

    fn into_base(self) -> NonNull<u8> {
        std::mem::ManuallyDrop::new(self).base
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if inside() {
            // Unmapping commits: a transaction in progress would be cut in two. The file stays mapped.
            return;
        }
        let base = self.base.as_ptr().cast();
        // An error has nowhere to go; `close` reports it. The last commit is safe in any case.
        // SAFETY: the address is that of a map that this value owns and that is not used again.
        let _ = unsafe {
            if std::thread::panicking() {
                sys::vernal_unmap_discard(base)
            } else {
                sys::vernal_unmap(base)
            }
        };
    }
}
