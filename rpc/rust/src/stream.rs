//! A reply in many items.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use vernal::Persist;

use crate::connection::{Borrowed, Keep};
use crate::error::Error;
use crate::method::Form;
use crate::pending::{forget, hold, wake};
use crate::reference::Ref;
use crate::sys;

/// The items that answer a call: an iterator that waits, or [`next_item`](Stream::next_item) for tasks. Dropping it cancels the call.
pub struct Stream<'a, R> {
    raw: NonNull<sys::Stream>,
    gives: Form,
    over: bool,
    keep: Option<Keep>,
    argument: Borrowed<'a>,
    item: PhantomData<fn() -> R>,
}

// SAFETY: a stream may be used by any thread, one at a time.
unsafe impl<R> Send for Stream<'_, R> {}
// SAFETY: nothing is done through a shared one.
unsafe impl<R> Sync for Stream<'_, R> {}

impl<R> Drop for Stream<'_, R> {
    fn drop(&mut self) {
        // SAFETY: what `vn_rpc_stream` returned, not used again.
        unsafe { sys::vn_rpc_stream_close(self.raw.as_ptr()) };
    }
}

impl<R: Persist> Stream<'_, R> {
    pub(crate) fn new(raw: NonNull<sys::Stream>, gives: Form, keep: Option<Keep>) -> Self {
        Self {
            raw,
            gives,
            over: false,
            keep,
            argument: PhantomData,
            item: PhantomData,
        }
    }

    /// An item, or the end. An error is the last item.
    fn given(&mut self, item: Option<Result<Ref<R>, Error>>) -> Option<Result<Ref<R>, Error>> {
        self.over = !matches!(item, Some(Ok(_)));
        item
    }

    /// The next item, for tasks of any executor. `None`: the stream has ended well.
    pub async fn next_item(&mut self) -> Option<Result<Ref<R>, Error>> {
        poll_fn(|context| self.poll_item(context)).await
    }

    /// As [`next_item`](Self::next_item), for those who poll by themselves.
    pub fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Ref<R>, Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let mut reply = std::ptr::null_mut();
        // SAFETY: what `vn_rpc_stream` returned; `wake` and `forget` take what `hold` gives.
        let polled = unsafe {
            sys::vn_rpc_poll_next(self.raw.as_ptr(), wake, forget, hold(context), &mut reply)
        };
        let item = match polled {
            0 => return Poll::Pending,
            1 => Some(Ref::new(reply, self.gives)),
            2 => None,
            _ => Some(Err(Error::last())),
        };
        Poll::Ready(self.given(item))
    }
}

impl<R: Persist> Iterator for Stream<'_, R> {
    type Item = Result<Ref<R>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        // SAFETY: what `vn_rpc_stream` returned.
        let (reply, code) = unsafe {
            let reply = sys::vn_rpc_next(self.raw.as_ptr());
            (reply, sys::vernal_last_error_code())
        };
        let item = match reply.is_null() && code == 0 {
            true => None,
            false => Some(Ref::new(reply, self.gives)),
        };
        self.given(item)
    }
}

impl<R> std::fmt::Debug for Stream<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("over", &self.over)
            .field("keeps", &self.keep)
            .finish_non_exhaustive()
    }
}
