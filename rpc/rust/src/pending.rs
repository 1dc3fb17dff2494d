//! A call that is under way: waited for, or awaited.

use std::ffi::c_void;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};

use vernal::Persist;

use crate::connection::{Borrowed, Keep};
use crate::error::Error;
use crate::method::Form;
use crate::reference::Ref;
use crate::sys;

/// A call that is under way: a future that needs no particular executor. Dropping it cancels the call, which the server is told.
#[must_use = "dropping it cancels the call"]
pub struct Pending<'a, R> {
    state: State,
    argument: Borrowed<'a>,
    reply: PhantomData<fn() -> R>,
}

enum State {
    UnderWay {
        call: Started,
        gives: Form,
        /// Dropped after the call.
        keep: Option<Keep>,
    },
    Failed(Error),
    Over,
}

struct Started(NonNull<sys::Pending>);

// SAFETY: a call that is under way may be used by any thread, one at a time.
unsafe impl Send for Started {}
// SAFETY: nothing is done through a shared one.
unsafe impl Sync for Started {}

impl Drop for Started {
    fn drop(&mut self) {
        // SAFETY: what `vn_rpc_start` returned, not used again.
        unsafe { sys::vn_rpc_cancel(self.0.as_ptr()) };
    }
}

impl<R: Persist> Pending<'_, R> {
    pub(crate) fn new(started: Result<(NonNull<sys::Pending>, Form, Option<Keep>), Error>) -> Self {
        let state = match started {
            Ok((raw, gives, keep)) => State::UnderWay {
                call: Started(raw),
                gives,
                keep,
            },
            Err(e) => State::Failed(e),
        };
        Self {
            state,
            argument: PhantomData,
            reply: PhantomData,
        }
    }

    /// Waits for the reply.
    pub fn wait(mut self) -> Result<Ref<R>, Error> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::UnderWay { call, gives, keep } => {
                let raw = std::mem::ManuallyDrop::new(call).0;
                // SAFETY: what `vn_rpc_start` returned; this frees it.
                let reply = Ref::new(unsafe { sys::vn_rpc_wait(raw.as_ptr()) }, gives);
                drop(keep);
                reply
            }
            State::Failed(e) => Err(e),
            State::Over => Err(over()),
        }
    }
}

fn over() -> Error {
    Error::Closed("the call's reply was taken before".to_owned())
}

/// Wakes the task that C holds.
pub(crate) extern "C" fn wake(arg: *mut c_void) {
    // An executor's waker that panics must not unwind into C.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: what `hold` boxed, not dropped yet.
        unsafe { &*arg.cast::<Waker>() }.wake_by_ref();
    }));
}

/// C needs a waker no more.
pub(crate) extern "C" fn forget(arg: *mut c_void) {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: what `hold` boxed, given back once.
        drop(unsafe { Box::from_raw(arg.cast::<Waker>()) });
    }));
}

/// A waker for C.
pub(crate) fn hold(context: &Context<'_>) -> *mut c_void {
    Box::into_raw(Box::new(context.waker().clone())).cast()
}

impl<R: Persist> Future for Pending<'_, R> {
    type Output = Result<Ref<R>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let State::UnderWay { call, gives, .. } = &self.state else {
            return Poll::Ready(Err(match std::mem::replace(&mut self.state, State::Over) {
                State::Failed(e) => e,
                _ => over(),
            }));
        };
        let mut reply = std::ptr::null_mut();
        // SAFETY: what `vn_rpc_start` returned; `wake` and `forget` take what `hold` gives.
        let polled = unsafe {
            sys::vn_rpc_poll_owned(call.0.as_ptr(), wake, forget, hold(context), &mut reply)
        };
        let done = match polled {
            0 => return Poll::Pending,
            1 => Ref::new(reply, *gives),
            _ => Err(Error::last()),
        };
        self.state = State::Over;
        Poll::Ready(done)
    }
}

impl<R> std::fmt::Debug for Pending<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.state {
            State::UnderWay { .. } => "Pending(under way)",
            State::Failed(_) => "Pending(failed)",
            State::Over => "Pending(over)",
        })
    }
}
