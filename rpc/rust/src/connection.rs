//! The client's side: a connection, its arguments and calls.

use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use vernal::{Persist, Tx};

use crate::call::destroy;
use crate::error::{Error, c_name};
use crate::method::{Form, Method, StreamMethod};
use crate::options::milliseconds;
use crate::pending::Pending;
use crate::reference::Ref;
use crate::stream::Stream;
use crate::sys;
use crate::value::{Peer, bytes_of};

/// A connection to a server. Clones are the same connection, for any thread; it ends when the last one is dropped, and no argument, call,
/// stream or reply of it is held any more.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: Arc<Inner>,
    timeout_ms: u32,
}

#[derive(Debug)]
struct Inner {
    raw: NonNull<sys::Conn>,
}

// SAFETY: a connection may be used by any thread.
unsafe impl Send for Inner {}
// SAFETY: by several at once, too.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        unsafe { sys::vn_rpc_disconnect(self.raw.as_ptr()) };
    }
}

impl Connection {
    pub(crate) fn open(address: &str, options: &sys::Options, token: &[u8]) -> Result<Self, Error> {
        let address = c_name(address)?;
        // SAFETY: a C string, bytes and a structure that outlive the call.
        let raw = unsafe {
            sys::vn_rpc_connect_with_token(
                address.as_ptr(),
                token.as_ptr().cast(),
                token.len(),
                options,
            )
        };
        let raw = NonNull::new(raw).ok_or_else(Error::last)?;
        Ok(Self {
            inner: Arc::new(Inner { raw }),
            timeout_ms: 0,
        })
    }

    fn raw(&self) -> *const sys::Conn {
        self.inner.raw.as_ptr()
    }

    /// The same connection, whose calls may take this long each. Streams: all of their items together.
    pub fn timeout(&self, time: Duration) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            timeout_ms: milliseconds(time),
        }
    }

    /// Who serves.
    pub fn peer(&self) -> Peer {
        // SAFETY: connected as long as this clone of it.
        unsafe {
            Peer::from_c(
                sys::vn_rpc_server_uid(self.raw()),
                sys::vn_rpc_server_gid(self.raw()),
                sys::vn_rpc_server_pid(self.raw()),
            )
        }
    }

    /// Whether calls can be made still.
    pub fn is_open(&self) -> bool {
        // SAFETY: as above.
        unsafe { sys::vn_rpc_is_open(self.raw()) != 0 }
    }

    /// Calls a method and waits for its reply. The argument is a value without pointers and padding, or an [`Arg`] that
    /// [`build`](Self::build) has made.
    #[inline]
    pub fn call<A: Persist, R: Persist>(
        &self,
        method: Method<A, R>,
        argument: impl Argument<A>,
    ) -> Result<Ref<R>, Error> {
        let (gives, sent) = (method.gives(), self.send(&argument, method.takes())?);
        let ty = gives.type_of::<R>()?;
        // SAFETY: connected; argument and type are what the library takes, and the argument stays as it is until it returns.
        let reply = unsafe {
            sys::vn_rpc_call_type(self.raw(), method.number, sent.raw, ty, self.timeout_ms)
        };
        Ref::new(reply, gives)
    }

    /// Builds an argument, calls the method, and frees the argument again.
    pub fn call_with<A: Persist, R: Persist>(
        &self,
        method: Method<A, R>,
        build: impl for<'p> FnOnce(&Tx<'p>) -> Result<A::At<'p>, vernal::Error>,
    ) -> Result<Ref<R>, Error> {
        let argument = self.build::<A>(build)?;
        self.call(method, &argument)
    }

    /// Calls a method and does not wait: the result is a future for any executor, or is waited for later. As many calls as there are slots
    /// may be under way. Dropping it cancels the call.
    pub fn call_async<'a, A: Persist, R: Persist>(
        &self,
        method: Method<A, R>,
        argument: impl Argument<A> + 'a,
    ) -> Pending<'a, R> {
        let start = || {
            let (gives, sent) = (method.gives(), self.send(&argument, method.takes())?);
            let ty = gives.type_of::<R>()?;
            // SAFETY: as for `call`; the argument is borrowed, or kept, as long as the call is under way.
            let raw = unsafe {
                sys::vn_rpc_start_type(self.raw(), method.number, sent.raw, ty, self.timeout_ms)
            };
            let raw = NonNull::new(raw).ok_or_else(Error::last)?;
            Ok((raw, gives, sent.keep))
        };
        Pending::new(start())
    }

    /// Calls a method that answers with a stream.
    pub fn stream<'a, A: Persist, R: Persist>(
        &self,
        method: StreamMethod<A, R>,
        argument: impl Argument<A> + 'a,
    ) -> Result<Stream<'a, R>, Error> {
        let method = method.0;
        let (gives, sent) = (method.gives(), self.send(&argument, method.takes())?);
        let ty = gives.type_of::<R>()?;
        // SAFETY: as for `call_async`.
        let raw = unsafe {
            sys::vn_rpc_stream_type(self.raw(), method.number, sent.raw, ty, self.timeout_ms)
        };
        let raw = NonNull::new(raw).ok_or_else(Error::last)?;
        Ok(Stream::new(raw, gives, sent.keep))
    }

    /// Builds an argument in this connection's heap, where the server can read it: for one call or many.
    pub fn build<T: Persist>(
        &self,
        build: impl for<'p> FnOnce(&Tx<'p>) -> Result<T::At<'p>, vernal::Error>,
    ) -> Result<Arg<T>, Error> {
        vernal::layout::for_peers::<T>()?;
        let heap = self.heap()?;
        let at = heap.place(build(&heap)?)?;
        Ok(Arg {
            at: at.cast(),
            conn: self.clone(),
        })
    }

    /// The heap of arguments. Its brand must not outlive the function that asks for it.
    fn heap<'p>(&self) -> Result<Tx<'p>, Error> {
        // SAFETY: connected.
        let heap = unsafe { sys::vn_rpc_heap(self.raw()) };
        if heap.is_null() {
            return Err(Error::last());
        }
        // SAFETY: a volatile heap that is open as long as the connection, which the callers hold.
        Ok(unsafe { Tx::of_heap(heap) })
    }

    /// An argument in the form that the method takes.
    #[inline]
    fn send<A: Persist>(&self, argument: &impl Argument<A>, takes: Form) -> Result<Sent, Error> {
        let bytes = |value: &[u8]| sys::Arg {
            object: std::ptr::null(),
            bytes: value.as_ptr().cast(),
            len: value.len(),
        };
        let object = |at: *const u8| sys::Arg {
            object: at.cast(),
            bytes: std::ptr::null(),
            len: 0,
        };
        Ok(match (argument.given(Sealed), takes) {
            (Given::Plain(value), Form::Bytes) => Sent::of(bytes(bytes_of(value))),
            (Given::Built(value), Form::Bytes) => Sent::of(bytes(bytes_of(&**value))),
            // That it belongs to this connection the library checks.
            (Given::Built(value), Form::Object) => Sent::of(object(value.at.as_ptr().cast())),
            (Given::Plain(value), Form::Object) => {
                // SAFETY: a plain value owns nothing, so that it may be there twice.
                let copy = self.heap()?.place(unsafe { std::ptr::read(value) })?;
                Sent {
                    raw: object(copy.as_ptr().cast()),
                    keep: Some(Keep {
                        object: copy.cast(),
                        conn: self.clone(),
                    }),
                }
            }
        })
    }
}

/// An argument on its way. What it refers to is borrowed or kept by whoever has this.
struct Sent {
    raw: sys::Arg,
    keep: Option<Keep>,
}

impl Sent {
    fn of(raw: sys::Arg) -> Self {
        Self { raw, keep: None }
    }
}

/// A plain value that was copied into the heap for one call.
#[derive(Debug)]
pub(crate) struct Keep {
    object: NonNull<u8>,
    /// Its heap goes with it.
    #[allow(dead_code, reason = "held, not read")]
    conn: Connection,
}

// SAFETY: it owns bytes.
unsafe impl Send for Keep {}
// SAFETY: nothing reads through it.
unsafe impl Sync for Keep {}

impl Drop for Keep {
    fn drop(&mut self) {
        // SAFETY: an object of an open heap that nobody else owns, and that has nothing to drop.
        unsafe { sys::vn_free(self.object.as_ptr().cast()) };
    }
}

/// What a method that takes an `A` is called with: `&A` if that is a value without pointers and padding, else `&Arg<A>`.
pub trait Argument<A: Persist> {
    #[doc(hidden)]
    fn given(&self, _: Sealed) -> Given<'_, A>;
}

/// Nobody else can name it.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Sealed;

#[doc(hidden)]
pub enum Given<'a, A: Persist> {
    Plain(&'a A),
    Built(&'a Arg<A>),
}

impl<A: Persist> std::fmt::Debug for Given<'_, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Given")
    }
}

impl<A: Persist> Argument<A> for &A {
    fn given(&self, _: Sealed) -> Given<'_, A> {
        const {
            assert!(
                A::PLAIN && A::DENSE,
                "this type has pointers or padding: build the argument with Connection::build"
            )
        };
        Given::Plain(self)
    }
}

impl<A: Persist> Argument<A> for &Arg<A> {
    fn given(&self, _: Sealed) -> Given<'_, A> {
        Given::Built(self)
    }
}

/// An argument in a connection's heap. Dropping it frees it.
#[derive(Debug)]
pub struct Arg<T: Persist> {
    at: NonNull<T::At<'static>>,
    conn: Connection,
}

// SAFETY: it gives out references to a persistent value, which threads may share (`Persist`); the heap may be used by any thread.
unsafe impl<T: Persist> Send for Arg<T> {}
// SAFETY: as above; `change` needs it exclusively.
unsafe impl<T: Persist> Sync for Arg<T> {}

impl<T: Persist> Arg<T> {
    /// Changes it between calls: what is built for it lies in the same heap.
    pub fn change<O>(
        &mut self,
        change: impl for<'p> FnOnce(&Tx<'p>, &mut T::At<'p>) -> Result<O, vernal::Error>,
    ) -> Result<O, Error> {
        fn with<'p, T: Persist, O>(
            heap: &Tx<'p>,
            mut at: NonNull<T::At<'p>>,
            change: impl FnOnce(&Tx<'p>, &mut T::At<'p>) -> Result<O, vernal::Error>,
        ) -> Result<O, vernal::Error> {
            // SAFETY: the argument owns the object and is exclusively borrowed; brands have one layout.
            change(heap, unsafe { at.as_mut() })
        }
        let heap = self.conn.heap()?;
        Ok(with::<T, O>(&heap, self.at.cast(), change)?)
    }
}

impl<T: Persist> Deref for Arg<T> {
    type Target = T::At<'static>;
    fn deref(&self) -> &T::At<'static> {
        // SAFETY: it owns an initialised object.
        unsafe { self.at.as_ref() }
    }
}

impl<T: Persist> Drop for Arg<T> {
    fn drop(&mut self) {
        // SAFETY: it owns the object, and its connection's heap is open.
        unsafe { destroy(self.at) };
    }
}

/// Ties what is under way to the argument that it reads.
pub(crate) type Borrowed<'a> = PhantomData<&'a ()>;
