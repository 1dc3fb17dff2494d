//! A reply, for its caller.

use std::ops::Deref;
use std::ptr::NonNull;

use vernal::Persist;

use crate::error::Error;
use crate::method::Form;
use crate::sys;
use crate::value::{Passed, Value};

/// A reply: dereferences to its value. It keeps the value, and the connection, alive; the server hears that it is needed no more when
/// this is dropped.
pub struct Ref<R: Persist> {
    /// First, so that nothing refers to what `reply` keeps when that goes.
    value: Value<R::At<'static>>,
    reply: Held,
}

struct Held(NonNull<sys::Reply>);

// SAFETY: a reply may be used and released by any thread, one at a time.
unsafe impl Send for Held {}
// SAFETY: what can be asked of it changes nothing.
unsafe impl Sync for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: what a call returned, not used again.
        unsafe { sys::vn_rpc_release(self.0.as_ptr()) };
    }
}

// SAFETY: it gives out shared references to a persistent value, which threads may share (`Persist`), and drops none.
unsafe impl<R: Persist> Send for Ref<R> {}
// SAFETY: as above.
unsafe impl<R: Persist> Sync for Ref<R> {}

impl<R: Persist> Ref<R> {
    /// What a call returned.
    #[inline]
    pub(crate) fn new(reply: *mut sys::Reply, gives: Form) -> Result<Self, Error> {
        let reply = Held(NonNull::new(reply).ok_or_else(Error::last)?);
        let raw = reply.0.as_ptr();
        let mut len = 0;
        // SAFETY: the reply that was just returned. An object was verified as a value of the type that was asked for, R's, and stays as long
        // as the reply.
        let value = unsafe {
            match gives {
                Form::Bytes => {
                    let bytes = sys::vn_rpc_reply_bytes(raw, &mut len);
                    Value::from_bytes(bytes, len)
                }
                Form::Object => Value::at(sys::vn_rpc_reply_object(raw)),
            }
        };
        match value {
            Some(value) => Ok(Self { value, reply }),
            None => Err(Error::Unverified(format!(
                "the server replied with {len} bytes that are no {}: build both sides from the same definition",
                R::name()
            ))),
        }
    }

    /// How it got here.
    pub fn passed(&self) -> Passed {
        // SAFETY: a reply that is not released.
        Passed::from_c(unsafe { sys::vn_rpc_reply_passed(self.reply.0.as_ptr()) })
    }
}

impl<R: Persist> Deref for Ref<R> {
    type Target = R::At<'static>;
    #[inline]
    fn deref(&self) -> &R::At<'static> {
        self.value.get()
    }
}

impl<R: Persist> std::fmt::Debug for Ref<R>
where
    R::At<'static>: std::fmt::Debug,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}
