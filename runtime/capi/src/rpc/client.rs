//! The client's side of `vernal_rpc.h`.

use std::ffi::{c_char, c_int, c_void};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use vernal_pool::program::VnType;
use vernal_rpc_core::tcp::SCHEME;
use vernal_rpc_core::transport::Dial;
use vernal_rpc_core::{Body, CallOptions, Connection, Error, PendingCall, Reply, Stream};

use super::{
    VnRpcArg, VnRpcOptions, bytes_body, fail, given, hand_out, invalid, number, object_body, shm,
    tcp, type_id,
};
use crate::pool::VnPool;

/// Connects. See `vernal_rpc.h`.
///
/// # Safety
///
/// `name` is NULL or a NUL-terminated string, `options` NULL or a `struct vn_rpc_options`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_connect(
    name: *const c_char,
    options: *const VnRpcOptions,
) -> *mut Connection {
    // SAFETY: the caller's promise.
    unsafe { vn_rpc_connect_with_token(name, std::ptr::null(), 0, options) }
}

/// Connects, with a secret if it goes over TCP. See `vernal_rpc.h`.
///
/// # Safety
///
/// As for `vn_rpc_connect`; `token` points to `len` bytes, or `len` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_connect_with_token(
    name: *const c_char,
    token: *const c_void,
    len: usize,
    options: *const VnRpcOptions,
) -> *mut Connection {
    // SAFETY: the caller's promise.
    let (given, tcp) = unsafe { (given(name, options), tcp(token, len)) };
    hand_out(given.and_then(|(name, options)| {
        let dial: &dyn Dial = match name.starts_with(SCHEME) {
            true => &tcp?,
            false => &shm()?,
        };
        Connection::connect(dial, &name, &options.connect())
    }))
}

/// The server's user. See `vernal_rpc.h`.
///
/// # Safety
///
/// `conn` is what `vn_rpc_connect` returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_server_uid(conn: *const Connection) -> i64 {
    // SAFETY: the caller's promise.
    number(unsafe { &*conn }.peer().uid)
}

/// The server's group. See `vernal_rpc.h`.
///
/// # Safety
///
/// `conn` is what `vn_rpc_connect` returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_server_gid(conn: *const Connection) -> i64 {
    // SAFETY: the caller's promise.
    number(unsafe { &*conn }.peer().gid)
}

/// The server's process. See `vernal_rpc.h`.
///
/// # Safety
///
/// `conn` is what `vn_rpc_connect` returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_server_pid(conn: *const Connection) -> i64 {
    // SAFETY: the caller's promise.
    number(unsafe { &*conn }.peer().pid)
}

/// Ends the connection. See `vernal_rpc.h`.
///
/// # Safety
///
/// `conn` is NULL or what `vn_rpc_connect` returned, and not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_disconnect(conn: *mut Connection) {
    if !conn.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(conn) });
    }
}

/// Whether calls can be made. See `vernal_rpc.h`.
///
/// # Safety
///
/// `conn` is what `vn_rpc_connect` returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_is_open(conn: *const Connection) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { &*conn }.is_open().into()
}

/// The heap of arguments. See `vernal_rpc.h`.
///
/// # Safety
///
/// `conn` is what `vn_rpc_connect` returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_heap(conn: *const Connection) -> *mut VnPool {
    // SAFETY: the caller's promise.
    match unsafe { &*conn }.link().heap() {
        Ok(pool) => pool.handle() as *mut VnPool,
        Err(e) => {
            fail(&e);
            std::ptr::null_mut()
        }
    }
}

/// What a call is made of.
///
/// # Safety
///
/// As for `vn_rpc_call`.
unsafe fn request(
    conn: &Connection,
    arg: VnRpcArg,
    reply: *const VnType,
    timeout_ms: u32,
) -> Result<(Body, CallOptions), Error> {
    let body = match arg.object.is_null() {
        // SAFETY: the caller's promise.
        true => unsafe { bytes_body(arg.bytes, arg.len) }?,
        false => object_body(arg.object, conn.link().heap()?.handle())?,
    };
    let options = CallOptions {
        deadline: (timeout_ms != 0).then(|| Duration::from_millis(timeout_ms.into())),
        // SAFETY: the caller's promise.
        reply_type: unsafe { type_id(reply) }?,
    };
    Ok((body, options))
}

/// Calls and waits. See `vernal_rpc.h`.
///
/// # Safety
///
/// `conn` is what `vn_rpc_connect` returned, `arg` names an object or bytes, `reply` is NULL or what the compiler emitted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_call_type(
    conn: *const Connection,
    method: u32,
    arg: VnRpcArg,
    reply: *const VnType,
    timeout_ms: u32,
) -> *mut Reply {
    // SAFETY: the caller's promise.
    let conn = unsafe { &*conn };
    // SAFETY: the caller's promise.
    let request = unsafe { request(conn, arg, reply, timeout_ms) };
    hand_out(request.and_then(|(body, options)| conn.call(method, body, &options)))
}

/// Calls and does not wait. See `vernal_rpc.h`.
///
/// # Safety
///
/// As for `vn_rpc_call_type`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_start_type(
    conn: *const Connection,
    method: u32,
    arg: VnRpcArg,
    reply: *const VnType,
    timeout_ms: u32,
) -> *mut PendingCall {
    // SAFETY: the caller's promise.
    let conn = unsafe { &*conn };
    // SAFETY: the caller's promise.
    let request = unsafe { request(conn, arg, reply, timeout_ms) };
    hand_out(request.and_then(|(body, options)| conn.start(method, body, &options)))
}

/// Waits for a reply. See `vernal_rpc.h`.
///
/// # Safety
///
/// `pending` is what `vn_rpc_start_type` returned, and not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_wait(pending: *mut PendingCall) -> *mut Reply {
    if pending.is_null() {
        return hand_out(Err(invalid(
            "vn_rpc_wait: the call is NULL",
            "look at what vn_rpc_start returned",
        )));
    }
    // SAFETY: the caller's promise.
    hand_out(unsafe { Box::from_raw(pending) }.wait())
}

/// Whether the reply is there. See `vernal_rpc.h`.
///
/// # Safety
///
/// `pending` is what `vn_rpc_start_type` returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_is_ready(pending: *const PendingCall) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { &*pending }.is_ready().into()
}

/// Gives a call up. See `vernal_rpc.h`.
///
/// # Safety
///
/// `pending` is NULL or what `vn_rpc_start_type` returned, and not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_cancel(pending: *mut PendingCall) {
    if !pending.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(pending) });
    }
}

type WakeFn = extern "C" fn(*mut c_void);

/// A waker of a C program. `drop`, if there is one, is called when nothing can wake any more.
struct CWaker {
    wake: WakeFn,
    drop: Option<WakeFn>,
    arg: usize,
}

impl Wake for CWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        (self.wake)(self.arg as *mut c_void);
    }
}

impl Drop for CWaker {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            drop(self.arg as *mut c_void);
        }
    }
}

fn waker(wake: WakeFn, drop: Option<WakeFn>, arg: *mut c_void) -> Waker {
    Waker::from(Arc::new(CWaker {
        wake,
        drop,
        arg: arg as usize,
    }))
}

/// Looks for the reply, and arranges to be told. See `vernal_rpc.h`.
///
/// # Safety
///
/// `pending` is what `vn_rpc_start_type` returned, `reply` takes a pointer; `wake` may be called with `arg` once, from any
/// thread, as long as the call is not over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_poll(
    pending: *mut PendingCall,
    wake: WakeFn,
    arg: *mut c_void,
    reply: *mut *mut Reply,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { vn_rpc_poll_owned(pending, wake, None, arg, reply) }
}

/// The same, and says when `arg` is needed no more. See `vernal_rpc.h`.
///
/// # Safety
///
/// `pending` is what `vn_rpc_start_type` returned, `reply` takes a pointer; `wake` may be called with `arg`, from any thread, until
/// `drop` was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_poll_owned(
    pending: *mut PendingCall,
    wake: WakeFn,
    drop: Option<WakeFn>,
    arg: *mut c_void,
    reply: *mut *mut Reply,
) -> c_int {
    let waker = waker(wake, drop, arg);
    // SAFETY: the caller's promise.
    let (pending, reply) = unsafe { (&mut *pending, &mut *reply) };
    *reply = std::ptr::null_mut();
    match Pin::new(pending).poll(&mut Context::from_waker(&waker)) {
        Poll::Pending => 0,
        Poll::Ready(Ok(r)) => {
            *reply = Box::into_raw(Box::new(r));
            1
        }
        Poll::Ready(Err(e)) => fail(&e),
    }
}

/// Calls a method that answers with a stream. See `vernal_rpc.h`.
///
/// # Safety
///
/// As for `vn_rpc_call_type`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_stream_type(
    conn: *const Connection,
    method: u32,
    arg: VnRpcArg,
    item: *const VnType,
    timeout_ms: u32,
) -> *mut Stream {
    // SAFETY: the caller's promise.
    let conn = unsafe { &*conn };
    // SAFETY: the caller's promise.
    let request = unsafe { request(conn, arg, item, timeout_ms) };
    hand_out(request.and_then(|(body, options)| conn.stream(method, body, &options)))
}

/// The next item. See `vernal_rpc.h`.
///
/// # Safety
///
/// `stream` is what `vn_rpc_stream_type` returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_next(stream: *mut Stream) -> *mut Reply {
    // SAFETY: the caller's promise.
    match unsafe { &mut *stream }.next() {
        Some(item) => hand_out(item),
        None => {
            crate::remember_as(0, "");
            std::ptr::null_mut()
        }
    }
}

/// The next item, without waiting. See `vernal_rpc.h`.
///
/// # Safety
///
/// `stream` is what `vn_rpc_stream_type` returned; the rest as for `vn_rpc_poll_owned`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_poll_next(
    stream: *mut Stream,
    wake: WakeFn,
    drop: Option<WakeFn>,
    arg: *mut c_void,
    reply: *mut *mut Reply,
) -> c_int {
    let waker = waker(wake, drop, arg);
    // SAFETY: the caller's promise.
    let (stream, reply) = unsafe { (&mut *stream, &mut *reply) };
    *reply = std::ptr::null_mut();
    match stream.poll_item(&mut Context::from_waker(&waker)) {
        Poll::Pending => 0,
        Poll::Ready(None) => 2,
        Poll::Ready(Some(Ok(item))) => {
            *reply = Box::into_raw(Box::new(item));
            1
        }
        Poll::Ready(Some(Err(e))) => fail(&e),
    }
}

/// Ends a stream. See `vernal_rpc.h`.
///
/// # Safety
///
/// `stream` is NULL or what `vn_rpc_stream_type` returned, and not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_stream_close(stream: *mut Stream) {
    if !stream.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(stream) });
    }
}

/// The object of a reply. See `vernal_rpc.h`.
///
/// # Safety
///
/// `reply` is what a call returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_reply_object(reply: *const Reply) -> *const c_void {
    // SAFETY: the caller's promise.
    unsafe { &*reply }.object().unwrap_or(0) as *const c_void
}

/// The bytes of a reply. See `vernal_rpc.h`.
///
/// # Safety
///
/// `reply` is what a call returned; `len` is NULL or takes a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_reply_bytes(reply: *const Reply, len: *mut usize) -> *const c_void {
    // SAFETY: the caller's promise.
    let bytes = unsafe { &*reply }.bytes();
    if !len.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *len = bytes.len() };
    }
    bytes.as_ptr().cast()
}

/// How a reply got here. See `vernal_rpc.h`.
///
/// # Safety
///
/// `reply` is what a call returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_reply_passed(reply: *const Reply) -> c_int {
    // SAFETY: the caller's promise.
    super::passed(unsafe { &*reply }.passed())
}

/// A reply is no longer needed. See `vernal_rpc.h`.
///
/// # Safety
///
/// `reply` is NULL or what a call returned, and neither it nor its object is used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_release(reply: *mut Reply) {
    if !reply.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(reply) });
    }
}
