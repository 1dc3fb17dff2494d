//! A value as it came from a peer, and how it came.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use vernal::Persist;

/// How an argument or a reply got here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Passed {
    /// As bytes in the message.
    Inline,
    /// Copied into this process' own memory, and verified on the way.
    Copied,
    /// In place and unchecked: this side trusts its peers.
    Plain,
    /// In a way that this version does not know.
    Other,
}

impl Passed {
    pub(crate) fn from_c(n: std::ffi::c_int) -> Self {
        match n {
            0 => Self::Inline,
            1 => Self::Copied,
            2 => Self::Plain,
            _ => Self::Other,
        }
    }
}

/// Who is at the other end, as the kernel says. Nothing is known of peers on other hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Peer {
    /// Its user.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
    /// Its process, as puddled sees it.
    pub pid: Option<u32>,
}

impl Peer {
    pub(crate) fn from_c(uid: i64, gid: i64, pid: i64) -> Self {
        let known = |n: i64| u32::try_from(n).ok();
        Self {
            uid: known(uid),
            gid: known(gid),
            pid: known(pid),
        }
    }
}

/// A value that a peer has passed. Nobody here owns what it owns: it is not dropped.
pub(crate) enum Value<T> {
    Here(ManuallyDrop<T>),
    There(NonNull<T>),
}

impl<T: Persist> Value<T> {
    /// A value from bytes that a peer wrote. `None`: they are none.
    ///
    /// # Safety
    ///
    /// `at` points to `len` bytes, or `len` is 0.
    pub unsafe fn from_bytes(at: *const c_void, len: usize) -> Option<Self> {
        let bytes = match len {
            0 => &[],
            // SAFETY: the caller's promise.
            _ => unsafe { std::slice::from_raw_parts(at.cast::<u8>(), len) },
        };
        if len != size_of::<T>() || !T::PLAIN || !T::is_valid(bytes) {
            return None;
        }
        // SAFETY: as many bytes as a T has, without pointers, and `is_valid` says that they are one.
        let value = unsafe { bytes.as_ptr().cast::<T>().read_unaligned() };
        Some(Self::Here(ManuallyDrop::new(value)))
    }

    /// A value where it lies. `None`: nowhere.
    ///
    /// # Safety
    ///
    /// `at` is NULL, or an initialised T that stays unchanged as long as this value is used.
    pub unsafe fn at(at: *const c_void) -> Option<Self> {
        NonNull::new(at.cast_mut().cast()).map(Self::There)
    }

    #[inline]
    pub fn get(&self) -> &T {
        match self {
            Self::Here(value) => value,
            // SAFETY: the promise to `at`.
            Self::There(at) => unsafe { at.as_ref() },
        }
    }
}

/// The bytes of a value without padding.
pub(crate) fn bytes_of<T: Persist>(value: &T) -> &[u8] {
    assert!(T::PLAIN && T::DENSE, "only plain types are bytes");
    // SAFETY: a dense type has no padding: each of its bytes is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}
