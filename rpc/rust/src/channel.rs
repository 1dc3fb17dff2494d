//! The server's side: a channel and what it serves.

use std::ffi::{c_char, c_int, c_void};
use std::net::SocketAddr;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use vernal::{Persist, Tx};

use crate::call::{Call, Items, Reply};
use crate::error::{Code, Error, Failure, c_name};
use crate::method::{Form, Method, StreamMethod};
use crate::options::milliseconds;
use crate::sys;

/// A channel that this process serves. Clones are the same one; its name is free again when it was shut down, or the last clone is
/// dropped, or the process ends.
#[derive(Debug, Clone)]
pub struct Channel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    raw: NonNull<sys::Channel>,
}

// SAFETY: a channel may be used by any thread.
unsafe impl Send for Inner {}
// SAFETY: by several at once, too.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: nobody runs it: whoever does holds a clone.
        unsafe { sys::vn_rpc_close(self.raw.as_ptr()) };
    }
}

impl Channel {
    /// Opens the channel `name` with the usual options: parts of letters, digits, `.`, `_` and `-`, with `/` between them. One server
    /// has a name at a time.
    pub fn open(name: &str) -> Result<Self, Error> {
        Self::open_with(name, &sys::Options::USUAL)
    }

    pub(crate) fn open_with(name: &str, options: &sys::Options) -> Result<Self, Error> {
        let name = c_name(name)?;
        // SAFETY: a C string and a structure that outlive the call.
        let raw = unsafe { sys::vn_rpc_open(name.as_ptr(), options) };
        let raw = NonNull::new(raw).ok_or_else(Error::last)?;
        Ok(Self {
            inner: Arc::new(Inner { raw }),
        })
    }

    fn raw(&self) -> *mut sys::Channel {
        self.inner.raw.as_ptr()
    }

    /// Serves a method; also while the channel runs. The handler must return soon if the channel has no threads of its own for handlers:
    /// all clients wait for it. If it panics, its call fails.
    pub fn serve<A, R, F>(&self, method: Method<A, R>, handler: F) -> Result<(), Error>
    where
        A: Persist,
        R: Persist,
        F: for<'c> Fn(Call<'c, A>) -> Result<Reply<'c, R>, Failure> + Send + Sync + 'static,
    {
        extern "C" fn run<A, R, F>(call: *mut sys::Call, arg: *mut c_void) -> c_int
        where
            A: Persist,
            R: Persist,
            F: for<'c> Fn(Call<'c, A>) -> Result<Reply<'c, R>, Failure>,
        {
            // SAFETY: what `serve` boxed; it lives while a thread runs the handler.
            let served = unsafe { &*arg.cast::<Served<F>>() };
            outcome(call, || {
                // SAFETY: the call of the handler that runs, whose lifetime ends here.
                let argument = unsafe { Call::new(call, served.takes, served.channel) }?;
                (served.handler)(argument)?.set(call, served.gives)
            })
        }
        self.register(method, run::<A, R, F>, handler)
    }

    /// Serves a method that answers with a stream: the handler sends items, and the stream ends when it returns.
    pub fn serve_stream<A, R, F>(&self, method: StreamMethod<A, R>, handler: F) -> Result<(), Error>
    where
        A: Persist,
        R: Persist,
        F: for<'c> Fn(Call<'c, A>, Items<'c, R>) -> Result<(), Failure> + Send + Sync + 'static,
    {
        extern "C" fn run<A, R, F>(call: *mut sys::Call, arg: *mut c_void) -> c_int
        where
            A: Persist,
            R: Persist,
            F: for<'c> Fn(Call<'c, A>, Items<'c, R>) -> Result<(), Failure>,
        {
            // SAFETY: as for `serve`.
            let served = unsafe { &*arg.cast::<Served<F>>() };
            outcome(call, || {
                // SAFETY: as for `serve`.
                let (argument, items) = unsafe {
                    (
                        Call::new(call, served.takes, served.channel)?,
                        Items::new(call, served.gives),
                    )
                };
                (served.handler)(argument, items)?;
                // SAFETY: the call of the handler that runs.
                unsafe { sys::vn_rpc_is_stream(call) };
                Ok(())
            })
        }
        self.register(method.0, run::<A, R, F>, handler)
    }

    fn register<A: Persist, R: Persist, F>(
        &self,
        method: Method<A, R>,
        run: sys::Handler,
        handler: F,
    ) -> Result<(), Error> {
        let (takes, gives) = (method.takes(), method.gives());
        let (argument, reply) = (takes.type_of::<A>()?, gives.type_of::<R>()?);
        let served = Box::into_raw(Box::new(Served {
            handler,
            takes,
            gives,
            channel: self.raw().cast_const(),
        }));
        // SAFETY: the channel is open; `run` takes what `served` is, and `forget` drops it when no thread runs the handler.
        Error::check(unsafe {
            sys::vn_rpc_serve_owned(
                self.raw(),
                method.number,
                argument,
                reply,
                run,
                served.cast(),
                forget::<F>,
            )
        })
    }

    /// Takes clients over TCP, too; returns what they connect to. With a token of 1 to 256 bytes nobody connects without it. TCP knows no
    /// users, and nothing is encrypted.
    pub fn listen_tcp(&self, at: SocketAddr, token: Option<&[u8]>) -> Result<String, Error> {
        let at = c_name(&at.to_string())?;
        let token = token.unwrap_or_default();
        let mut address = [0u8; 512];
        // SAFETY: the channel is open; strings, token and room are as long as they say.
        Error::check(unsafe {
            sys::vn_rpc_listen_tcp(
                self.raw(),
                at.as_ptr(),
                token.as_ptr().cast(),
                token.len(),
                address.as_mut_ptr().cast::<c_char>(),
                address.len(),
            )
        })?;
        let end = address.iter().position(|b| *b == 0).unwrap_or_default();
        Ok(String::from_utf8_lossy(&address[..end]).into_owned())
    }

    /// Makes the sandbox of a channel that was opened with one; [`run`](Self::run) does if nobody has. When all methods are served, before
    /// other threads run, and before keys and other people's data are loaded: what is there already is in the sandbox, too.
    pub fn prefork(&self) -> Result<(), Error> {
        // SAFETY: the channel is open.
        Error::check(unsafe { sys::vn_rpc_prefork(self.raw()) })
    }

    /// Serves clients on this thread, until [`shutdown`](Self::shutdown).
    pub fn run(&self) -> Result<(), Error> {
        // SAFETY: the channel is open as long as this clone of it.
        Error::check(unsafe { sys::vn_rpc_run(self.raw()) })
    }

    /// Serves clients on a thread of its own, until the result is dropped or [`shutdown`](Self::shutdown) is called.
    pub fn start(&self) -> Result<Running, Error> {
        let channel = self.clone();
        let thread = std::thread::Builder::new()
            .name("rpc".to_owned())
            .spawn(move || channel.run())
            .map_err(|e| Error::Other {
                code: -2,
                text: format!("starting the thread of a channel failed: {e}"),
            })?;
        Ok(Running {
            channel: self.clone(),
            thread: Some(thread),
        })
    }

    /// From any thread or handler: new calls are refused, those that run may end within `grace`; then [`run`](Self::run) returns.
    pub fn shutdown(&self, grace: Duration) {
        let grace = match grace.is_zero() {
            true => 0,
            false => milliseconds(grace),
        };
        // SAFETY: the channel is open.
        unsafe { sys::vn_rpc_shutdown(self.raw(), grace) };
    }

    /// Builds an object that all clients may read, as often as [`Call::share`] says: a table, a configuration. It stays as long as the
    /// channel.
    pub fn share<T: Persist>(
        &self,
        build: impl for<'p> FnOnce(&Tx<'p>) -> Result<T::At<'p>, vernal::Error>,
    ) -> Result<Shared<T>, Error> {
        vernal::layout::for_peers::<T>()?;
        // SAFETY: the channel is open.
        let heap = unsafe { sys::vn_rpc_shared_heap(self.raw()) };
        if heap.is_null() {
            return Err(Error::last());
        }
        // SAFETY: a volatile heap that is open as long as the channel; the brand ends with this call.
        let heap = unsafe { Tx::of_heap(heap) };
        let at = heap.place(build(&heap)?)?;
        Ok(Shared {
            at: at.cast(),
            channel: Arc::clone(&self.inner),
        })
    }
}

/// What C holds for a handler.
struct Served<F> {
    handler: F,
    takes: Form,
    gives: Form,
    /// To be compared with, not followed.
    channel: *const sys::Channel,
}

extern "C" fn forget<F>(arg: *mut c_void) {
    // A panic of what the closure has captured must not unwind into C.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: what `register` boxed, given back once.
        drop(unsafe { Box::from_raw(arg.cast::<Served<F>>()) });
    }));
}

/// Runs a handler; what it returned is what C hears.
fn outcome(call: *mut sys::Call, handler: impl FnOnce() -> Result<(), Failure>) -> c_int {
    let failure = match catch_unwind(AssertUnwindSafe(handler)) {
        Ok(Ok(())) => return 0,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            // What was thrown may panic again when it is dropped.
            std::mem::forget(panic);
            Failure::of(Code::Internal, format!("the handler panicked: {text}"))
        }
    };
    failure.tell(call)
}

/// A channel that runs on a thread of its own.
#[derive(Debug)]
#[must_use = "dropping it shuts the channel down"]
pub struct Running {
    channel: Channel,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Running {
    /// Shuts the channel down; calls that run may end within `grace`.
    pub fn stop(mut self, grace: Duration) -> Result<(), Error> {
        self.channel.shutdown(grace);
        self.join()
    }

    /// Waits until somebody else shuts the channel down.
    pub fn wait(mut self) -> Result<(), Error> {
        self.join()
    }

    fn join(&mut self) -> Result<(), Error> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ran)) => ran,
            _ => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.channel.shutdown(Duration::ZERO);
            let _ = self.join();
        }
    }
}

/// An object that all clients of a channel may read.
#[derive(Debug)]
pub struct Shared<T: Persist> {
    at: NonNull<T::At<'static>>,
    channel: Arc<Inner>,
}

// SAFETY: it gives out shared references to persistent values, which threads may share (`Persist`).
unsafe impl<T: Persist> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Persist> Sync for Shared<T> {}

impl<T: Persist> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            at: self.at,
            channel: Arc::clone(&self.channel),
        }
    }
}

impl<T: Persist> Deref for Shared<T> {
    type Target = T::At<'static>;
    fn deref(&self) -> &T::At<'static> {
        // SAFETY: built by `share`, never changed or freed, in a heap that is open as long as the channel.
        unsafe { self.at.as_ref() }
    }
}

impl<T: Persist> Shared<T> {
    pub(crate) fn at(&self) -> NonNull<T::At<'static>> {
        self.at
    }

    pub(crate) fn is_of(&self, channel: *const sys::Channel) -> bool {
        std::ptr::eq(self.channel.raw.as_ptr(), channel)
    }
}
