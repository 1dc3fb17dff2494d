//! A call as its handler sees it, and what the handler answers.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use vernal::{Persist, Tx};

use crate::channel::Shared;
use crate::error::{Code, Error, Failure};
use crate::method::Form;
use crate::sys;
use crate::value::{Passed, Peer, Value, bytes_of};

/// A call: dereferences to its argument, which is gone when the handler returns.
pub struct Call<'c, A: Persist> {
    raw: *mut sys::Call,
    channel: *const sys::Channel,
    argument: Value<A::At<'c>>,
}

impl<'c, A: Persist> Call<'c, A> {
    /// The call of a handler, with its argument.
    ///
    /// # Safety
    ///
    /// `raw` is the call of the handler that runs, and `'c` ends before it returns; `takes` is how the method was registered.
    pub(crate) unsafe fn new(
        raw: *mut sys::Call,
        takes: Form,
        channel: *const sys::Channel,
    ) -> Result<Self, Failure> {
        let mut len = 0;
        // SAFETY: the caller's promise. An object was verified as a value of the type that the method was registered with, A's.
        let argument = unsafe {
            match takes {
                Form::Bytes => {
                    let bytes = sys::vn_rpc_argument_bytes(raw, &mut len);
                    Value::from_bytes(bytes, len)
                }
                Form::Object => Value::at(sys::vn_rpc_argument(raw)),
            }
        };
        match argument {
            Some(argument) => Ok(Self {
                raw,
                channel,
                argument,
            }),
            None => Err(Failure::of(
                Code::BadArgument,
                format!("{len} bytes that are no {}", A::name()),
            )),
        }
    }

    /// Who calls.
    pub fn peer(&self) -> Peer {
        // SAFETY: the call of the handler that runs.
        unsafe {
            Peer::from_c(
                sys::vn_rpc_caller_uid(self.raw),
                sys::vn_rpc_caller_gid(self.raw),
                sys::vn_rpc_caller_pid(self.raw),
            )
        }
    }

    /// How the argument got here.
    pub fn passed(&self) -> Passed {
        // SAFETY: the call of the handler that runs.
        Passed::from_c(unsafe { sys::vn_rpc_argument_passed(self.raw) })
    }

    /// Whether nobody waits for the answer any more: cancelled, past its deadline, or its client is gone.
    pub fn is_cancelled(&self) -> bool {
        // SAFETY: the call of the handler that runs, by its thread.
        unsafe { sys::vn_rpc_is_cancelled(self.raw) != 0 }
    }

    /// When the caller gives up. `None`: it waits as long as this process lives.
    pub fn deadline(&self) -> Option<Instant> {
        // SAFETY: the call of the handler that runs.
        let left = unsafe { sys::vn_rpc_time_left(self.raw) };
        let left = u64::try_from(left).ok()?;
        Instant::now().checked_add(Duration::from_nanos(left))
    }

    /// A reply, built in the heap that this server gives replies to this client from. It is dropped there when the client needs it no more, or
    /// is gone.
    pub fn reply<R: Persist>(
        &self,
        build: impl for<'p> FnOnce(&Tx<'p>) -> Result<R::At<'p>, vernal::Error>,
    ) -> Result<Reply<'c, R>, Failure> {
        let heap = self.heap()?;
        // SAFETY: a volatile heap that is open as long as the call; the brand ends with this call.
        let heap = unsafe { Tx::of_heap(heap) };
        let at = heap.place(build(&heap)?)?;
        Ok(Reply {
            what: What::Object(at.cast()),
            call: PhantomData,
        })
    }

    fn heap(&self) -> Result<*mut c_void, Failure> {
        // SAFETY: the call of the handler that runs.
        let heap = unsafe { sys::vn_rpc_reply_heap(self.raw) };
        match heap.is_null() {
            true => Err(Error::last().into()),
            false => Ok(heap),
        }
    }

    /// A reply that all clients of the channel may read: nothing is built.
    pub fn share<R: Persist>(&self, shared: &Shared<R>) -> Result<Reply<'c, R>, Failure> {
        if !shared.is_of(self.channel) {
            let text = "the object belongs to another channel: share it in this one";
            return Err(Failure::of(Code::Internal, text));
        }
        Ok(Reply {
            what: What::Shared(shared.clone()),
            call: PhantomData,
        })
    }
}

impl<'c, A: Persist> Deref for Call<'c, A> {
    type Target = A::At<'c>;
    fn deref(&self) -> &A::At<'c> {
        self.argument.get()
    }
}

impl<A: Persist> std::fmt::Debug for Call<'_, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("peer", &self.peer())
            .field("passed", &self.passed())
            .finish_non_exhaustive()
    }
}

/// What a handler answers with.
#[must_use = "a handler returns it"]
pub struct Reply<'c, R: Persist> {
    what: What<R>,
    /// It lies in the heap of the call's client.
    call: PhantomData<(&'c (), *mut ())>,
}

enum What<R: Persist> {
    Plain(ManuallyDrop<R::At<'static>>),
    Object(NonNull<R::At<'static>>),
    Shared(Shared<R>),
    /// It was handed over.
    Gone,
}

impl<R: Persist> Reply<'_, R> {
    /// A value without pointers and padding, such as a number.
    pub fn value(value: R::At<'static>) -> Self {
        const {
            assert!(
                R::PLAIN && R::DENSE,
                "this type has pointers or padding: build the reply with Call::reply"
            )
        };
        Self {
            what: What::Plain(ManuallyDrop::new(value)),
            call: PhantomData,
        }
    }

    /// Makes it the call's reply, or its next item.
    pub(crate) fn set(mut self, call: *mut sys::Call, gives: Form) -> Result<(), Failure> {
        let what = std::mem::replace(&mut self.what, What::Gone);
        match (&what, gives) {
            (What::Plain(value), Form::Bytes) => set_bytes(call, &**value),
            (What::Plain(value), Form::Object) => {
                // SAFETY: a plain value owns nothing, so that it may be there twice; `call` is the call of the handler that runs.
                let value = unsafe { std::ptr::read(&**value) };
                // SAFETY: as above.
                let heap = unsafe { sys::vn_rpc_reply_heap(call) };
                if heap.is_null() {
                    return Err(Error::last().into());
                }
                // SAFETY: a volatile heap that is open as long as the call.
                let at = unsafe { Tx::of_heap(heap) }.place(value)?;
                self.what = What::Object(at);
                self.set(call, gives)
            }
            (What::Object(at), Form::Bytes) => {
                let at = *at;
                self.what = what;
                // SAFETY: an object that this reply owns, and drops after this.
                set_bytes(call, unsafe { at.as_ref() })
            }
            (What::Object(at), Form::Object) => {
                // SAFETY: the call of the handler that runs; an object that nobody else owns, and that `release` gives back. The
                // library says whether it lies in the right heap.
                let set = unsafe {
                    sys::vn_rpc_set_object(
                        call,
                        at.as_ptr().cast(),
                        release::<R::At<'static>>,
                        std::ptr::null_mut(),
                    )
                };
                if set != 0 {
                    let failure = Error::last().into();
                    self.what = what;
                    return Err(failure);
                }
                Ok(())
            }
            (What::Shared(shared), Form::Bytes) => set_bytes(call, &**shared),
            (What::Shared(shared), Form::Object) => {
                // SAFETY: the call of the handler that runs; the object stays as long as its channel.
                let set = unsafe { sys::vn_rpc_set_shared(call, shared.at().as_ptr().cast()) };
                Ok(Error::check(set)?)
            }
            (What::Gone, _) => Err(Failure::of(Code::Internal, "the reply was sent before")),
        }
    }
}

fn set_bytes<T: Persist>(call: *mut sys::Call, value: &T) -> Result<(), Failure> {
    let bytes = bytes_of(value);
    // SAFETY: the call of the handler that runs, and bytes that outlive the call.
    let set = unsafe { sys::vn_rpc_set_bytes(call, bytes.as_ptr().cast(), bytes.len()) };
    Ok(Error::check(set)?)
}

impl<R: Persist> Drop for Reply<'_, R> {
    fn drop(&mut self) {
        if let What::Object(at) = std::mem::replace(&mut self.what, What::Gone) {
            // SAFETY: the reply owns it, and its heap is open as long as the call.
            unsafe { destroy(at) };
        }
    }
}

impl<R: Persist> std::fmt::Debug for Reply<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.what {
            What::Plain(_) => "Reply(plain)",
            What::Object(_) => "Reply(object)",
            What::Shared(_) => "Reply(shared)",
            What::Gone => "Reply(sent)",
        })
    }
}

/// Drops an object and frees its memory.
///
/// # Safety
///
/// It lies in an open heap, nobody else owns it, and nobody reads it any more.
pub(crate) unsafe fn destroy<T>(at: NonNull<T>) {
    // SAFETY: the caller's promise.
    unsafe {
        std::ptr::drop_in_place(at.as_ptr());
        sys::vn_free(at.as_ptr().cast());
    }
}

/// The client needs a reply no more.
extern "C" fn release<T>(object: *mut c_void, _: *mut c_void) {
    let Some(at) = NonNull::new(object.cast::<T>()) else {
        return;
    };
    // A panic of a user's destructor must not unwind into C.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: called once, for an object that `set` gave away; from now on nobody reads it.
        unsafe { destroy(at) };
    }));
}

/// Where a handler sends the items of a stream to.
pub struct Items<'c, R> {
    raw: *mut sys::Call,
    gives: Form,
    call: PhantomData<&'c ()>,
    item: PhantomData<fn(R)>,
}

impl<'c, R: Persist> Items<'c, R> {
    /// The items of a handler's call.
    ///
    /// # Safety
    ///
    /// As for `Call::new`.
    pub(crate) unsafe fn new(raw: *mut sys::Call, gives: Form) -> Self {
        Self {
            raw,
            gives,
            call: PhantomData,
            item: PhantomData,
        }
    }

    /// Sends an item; waits while the client has enough before it. An error: nobody takes the stream any more.
    pub fn send(&mut self, item: Reply<'c, R>) -> Result<(), Failure> {
        item.set(self.raw, self.gives)?;
        // SAFETY: the call of the handler that runs.
        match unsafe { sys::vn_rpc_send_item(self.raw) } {
            0 => Ok(()),
            _ => Err(Failure::of(Code::Cancelled, Error::last().to_string())),
        }
    }
}

impl<R> std::fmt::Debug for Items<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Items")
    }
}
