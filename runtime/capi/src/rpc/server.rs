//! The server's side of `vernal_rpc.h`.

use std::ffi::{c_char, c_int, c_void};
use std::time::{Duration, Instant};

use vernal_pool::program::VnType;
use vernal_pool::{Error as PoolError, capi};
use vernal_rpc_core::{Answer, Body, Call, Channel, Code, Error, Failure, Signature};

use super::{
    VnRpcOptions, bytes_body, fail, fail_pool, given, hand_out, invalid, number, object_body, shm,
    status, tcp, text_of, type_id,
};
use crate::pool::VnPool;

/// A call as a handler in C has it.
#[derive(Debug)]
pub struct VnRpcCall<'a, 'b> {
    call: &'a mut Call<'b>,
    answer: Option<Answer>,
    failure: Option<Failure>,
    /// Items were sent: the answer is a stream.
    stream: bool,
}

type HandlerFn = extern "C" fn(*mut VnRpcCall<'_, '_>, *mut c_void) -> c_int;
type ReleaseFn = extern "C" fn(*mut c_void, *mut c_void);

/// Opens a channel. See `vernal_rpc.h`.
///
/// # Safety
///
/// `name` is NULL or a NUL-terminated string, `options` NULL or a `struct vn_rpc_options`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_open(
    name: *const c_char,
    options: *const VnRpcOptions,
) -> *mut Channel {
    // SAFETY: the caller's promise.
    let given = unsafe { given(name, options) };
    hand_out(given.and_then(|(name, options)| Channel::open(&shm()?, &name, options.channel())))
}

/// Serves a method. See `vernal_rpc.h`.
///
/// # Safety
///
/// `channel` is what `vn_rpc_open` returned; the types are NULL or what the compiler emitted; `handler` may be called with
/// `arg` from any thread that runs the channel, as long as it is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_serve_type(
    channel: *const Channel,
    method: u32,
    argument: *const VnType,
    reply: *const VnType,
    handler: Option<HandlerFn>,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { vn_rpc_serve_owned(channel, method, argument, reply, handler, arg, None) }
}

/// What a handler is called with; C is told when that is no more.
struct Owned {
    arg: usize,
    drop: Option<extern "C" fn(*mut c_void)>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            drop(self.arg as *mut c_void);
        }
    }
}

/// Serves a method, and says when its handler is called no more. See `vernal_rpc.h`.
///
/// # Safety
///
/// As for `vn_rpc_serve_type`; `handler` may be called with `arg` until `drop` was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_serve_owned(
    channel: *const Channel,
    method: u32,
    argument: *const VnType,
    reply: *const VnType,
    handler: Option<HandlerFn>,
    arg: *mut c_void,
    drop: Option<extern "C" fn(*mut c_void)>,
) -> c_int {
    let owned = Owned {
        arg: arg as usize,
        drop,
    };
    let Some(handler) = handler else {
        return fail(&invalid("the handler is NULL", "pass a function"));
    };
    // SAFETY: the caller's promise.
    let types = unsafe { type_id(argument).and_then(|a| Ok((a, type_id(reply)?))) };
    let (argument, reply) = match types {
        Ok(types) => types,
        Err(e) => return fail(&e),
    };
    // SAFETY: the caller's promise.
    unsafe { &*channel }.serve(method, Signature { argument, reply }, move |call| {
        // All of it moves in here: it is dropped when no thread runs the handler.
        let owned: &Owned = &owned;
        handle(call, handler, owned.arg)
    });
    0
}

fn handle(call: &mut Call<'_>, handler: HandlerFn, arg: usize) -> Result<Answer, Failure> {
    let mut state = VnRpcCall {
        call,
        answer: None,
        failure: None,
        stream: false,
    };
    let result = handler(&mut state, arg as *mut c_void);
    if result == 0 && state.failure.is_none() {
        let none = match state.stream {
            true => Answer::Ended,
            false => Answer::EMPTY,
        };
        return Ok(state.answer.take().unwrap_or(none));
    }
    give_back(state.answer.take());
    Err(match state.failure.take() {
        Some(failure) => failure,
        None if result > 0 => Failure::application(result as u32, ""),
        None => Failure::new(Code::Internal, crate::last_error_text()),
    })
}

/// Releases the object of an answer that nobody gets.
fn give_back(answer: Option<Answer>) {
    if let Some(Answer::Object { release, .. }) = answer {
        release();
    }
}

/// Makes the channel's sandbox. See `vernal_rpc.h`.
///
/// # Safety
///
/// `channel` is what `vn_rpc_open` returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_prefork(channel: *const Channel) -> c_int {
    // SAFETY: the caller's promise.
    status(unsafe { &*channel }.prefork())
}

/// Keeps memory out of sandboxes. See `vernal_rpc.h`.
///
/// # Safety
///
/// `memory` points to `len` bytes of this process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_hide(memory: *const c_void, len: usize) -> c_int {
    if memory.is_null() {
        return fail(&invalid("the memory is NULL", "pass whole pages"));
    }
    // SAFETY: the caller's promise. Nothing reads it through this.
    let pages = unsafe { std::slice::from_raw_parts(memory.cast::<u8>(), len) };
    status(vernal_rpc_core::hide(pages))
}

/// Serves on this thread. See `vernal_rpc.h`.
///
/// # Safety
///
/// `channel` is what `vn_rpc_open` returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_run(channel: *const Channel) -> c_int {
    // SAFETY: the caller's promise.
    status(unsafe { &*channel }.run())
}

/// Goes away. See `vernal_rpc.h`.
///
/// # Safety
///
/// `channel` is what `vn_rpc_open` returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_shutdown(channel: *const Channel, grace_ms: u32) {
    // SAFETY: the caller's promise.
    unsafe { &*channel }.shutdown(Duration::from_millis(grace_ms.into()));
}

/// Closes a channel. See `vernal_rpc.h`.
///
/// # Safety
///
/// `channel` is NULL or what `vn_rpc_open` returned, no thread is in `vn_rpc_run` with it, and it is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_close(channel: *mut Channel) {
    if !channel.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(channel) });
    }
}

fn pool(r: Result<vernal_pool::Pool, Error>) -> *mut VnPool {
    match r {
        Ok(pool) => pool.handle() as *mut VnPool,
        Err(e) => {
            fail(&e);
            std::ptr::null_mut()
        }
    }
}

/// The heap that all clients read. See `vernal_rpc.h`.
///
/// # Safety
///
/// `channel` is what `vn_rpc_open` returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_shared_heap(channel: *const Channel) -> *mut VnPool {
    // SAFETY: the caller's promise.
    let heap = unsafe { &*channel }.shared_heap();
    pool(heap.map_or_else(
        || {
            Err(invalid(
                "this channel has no shared memory",
                "open it on this host",
            ))
        },
        vernal_rpc_core::shm::ChannelHeap::pool,
    ))
}

/// The argument's object. See `vernal_rpc.h`.
///
/// # Safety
///
/// `call` is what the handler that runs was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_argument(call: *const VnRpcCall<'_, '_>) -> *const c_void {
    // SAFETY: the caller's promise.
    unsafe { &*call }.call.object().unwrap_or(0) as *const c_void
}

/// The argument's bytes. See `vernal_rpc.h`.
///
/// # Safety
///
/// `call` is what the handler that runs was given; `len` is NULL or takes a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_argument_bytes(
    call: *const VnRpcCall<'_, '_>,
    len: *mut usize,
) -> *const c_void {
    // SAFETY: the caller's promise.
    let bytes = unsafe { &*call }.call.bytes();
    if !len.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *len = bytes.len() };
    }
    bytes.as_ptr().cast()
}

/// How the argument got here. See `vernal_rpc.h`.
///
/// # Safety
///
/// `call` is what the handler that runs was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_argument_passed(call: *const VnRpcCall<'_, '_>) -> c_int {
    // SAFETY: the caller's promise.
    super::passed(unsafe { &*call }.call.passed())
}

/// The caller's user; -1: another host's.
///
/// # Safety
///
/// `call` is what the handler that runs was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_caller_uid(call: *const VnRpcCall<'_, '_>) -> i64 {
    // SAFETY: the caller's promise.
    number(unsafe { &*call }.call.peer().uid)
}

/// The caller's group; -1: another host's.
///
/// # Safety
///
/// `call` is what the handler that runs was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_caller_gid(call: *const VnRpcCall<'_, '_>) -> i64 {
    // SAFETY: the caller's promise.
    number(unsafe { &*call }.call.peer().gid)
}

/// The caller's process; -1: another host's.
///
/// # Safety
///
/// `call` is what the handler that runs was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_caller_pid(call: *const VnRpcCall<'_, '_>) -> i64 {
    // SAFETY: the caller's promise.
    number(unsafe { &*call }.call.peer().pid)
}

/// How long the caller waits still. See `vernal_rpc.h`.
///
/// # Safety
///
/// `call` is what the handler that runs was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_time_left(call: *const VnRpcCall<'_, '_>) -> i64 {
    // SAFETY: the caller's promise.
    let deadline = unsafe { &*call }.call.deadline();
    let left = deadline.map(|d| d.saturating_duration_since(Instant::now()).as_nanos());
    left.map_or(-1, |ns| i64::try_from(ns).unwrap_or(i64::MAX))
}

/// Whether nobody waits any more. See `vernal_rpc.h`.
///
/// # Safety
///
/// `call` is what the handler that runs was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_is_cancelled(call: *mut VnRpcCall<'_, '_>) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { &mut *call }.call.is_cancelled().into()
}

/// The heap that replies come from. See `vernal_rpc.h`.
///
/// # Safety
///
/// `call` is what the handler that runs was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_reply_heap(call: *const VnRpcCall<'_, '_>) -> *mut VnPool {
    // SAFETY: the caller's promise.
    pool(unsafe { &*call }.call.heap())
}

fn set(call: &mut VnRpcCall<'_, '_>, answer: Result<Answer, Error>) -> c_int {
    match answer {
        Ok(answer) => {
            give_back(call.answer.replace(answer));
            0
        }
        Err(e) => fail(&e),
    }
}

/// Replies with bytes. See `vernal_rpc.h`.
///
/// # Safety
///
/// `call` is what the handler that runs was given; `bytes` points to `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_set_bytes(
    call: *mut VnRpcCall<'_, '_>,
    bytes: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    let (call, body) = unsafe { (&mut *call, bytes_body(bytes, len)) };
    set(call, body.map(Answer::Body))
}

/// Replies with an object. See `vernal_rpc.h`.
///
/// # Safety
///
/// `call` is what the handler that runs was given; `release` may be called with `object` and `arg` once, from any thread that
/// runs the channel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_set_object(
    call: *mut VnRpcCall<'_, '_>,
    object: *mut c_void,
    release: Option<ReleaseFn>,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    let call = unsafe { &mut *call };
    let (at, arg) = (object as usize, arg as usize);
    let answer = call.call.heap().and_then(|heap| {
        let body = object_body(object, heap.handle())?;
        let Body::Object { addr, type_id } = body else {
            return Err(invalid("no object", "pass one"));
        };
        let release = Box::new(move || match release {
            Some(release) => release(at as *mut c_void, arg as *mut c_void),
            // The object alone: what it points to is the handler's business.
            None => {
                let _: Result<(), PoolError> = capi::free(at as u64);
            }
        });
        Ok(Answer::Object {
            addr,
            type_id,
            release,
        })
    });
    set(call, answer)
}

/// Replies with an object of the heap that all clients read. See `vernal_rpc.h`.
///
/// # Safety
///
/// `call` is what the handler that runs was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_set_shared(
    call: *mut VnRpcCall<'_, '_>,
    object: *const c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    let call = unsafe { &mut *call };
    let addr = object as u64;
    match capi::type_id(addr) {
        Ok(type_id) => set(call, Ok(Answer::Shared { addr, type_id })),
        Err(e) => fail_pool(&e),
    }
}

/// Sends what was set as an item of a stream. See `vernal_rpc.h`.
///
/// # Safety
///
/// `call` is what the handler that runs was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_send_item(call: *mut VnRpcCall<'_, '_>) -> c_int {
    // SAFETY: the caller's promise.
    let call = unsafe { &mut *call };
    let item = call.answer.take().unwrap_or(Answer::EMPTY);
    match call.call.send(item) {
        Ok(()) => {
            call.stream = true;
            0
        }
        Err(failure) => {
            let e = Error::Closed {
                what: failure.to_string(),
            };
            call.failure = Some(failure);
            fail(&e)
        }
    }
}

/// The answer is a stream, also if no item was sent. See `vernal_rpc.h`.
///
/// # Safety
///
/// `call` is what the handler that runs was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_is_stream(call: *mut VnRpcCall<'_, '_>) {
    // SAFETY: the caller's promise.
    unsafe { &mut *call }.stream = true;
}

/// Fails the call. See `vernal_rpc.h`.
///
/// # Safety
///
/// `call` is what the handler that runs was given; `text` is NULL or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_fail(
    call: *mut VnRpcCall<'_, '_>,
    code: u32,
    text: *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    let (call, text) = unsafe { (&mut *call, text_of(text)) };
    call.failure = Some(Failure::application(code, text));
    0
}

/// Fails the call for a reason that is none of the application's. See `vernal_rpc.h`.
///
/// # Safety
///
/// As for `vn_rpc_fail`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_fail_as(
    call: *mut VnRpcCall<'_, '_>,
    kind: u32,
    text: *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    let (call, text) = unsafe { (&mut *call, text_of(text)) };
    call.failure = Some(Failure::new(Code::from_wire(kind), text));
    0
}

/// Takes clients over TCP, too. See `vernal_rpc.h`.
///
/// # Safety
///
/// `channel` is what `vn_rpc_open` returned, `at` is NULL or a NUL-terminated string, `token` points to `len` bytes or `len` is
/// 0, `address` is NULL or has room for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_rpc_listen_tcp(
    channel: *const Channel,
    at: *const c_char,
    token: *const c_void,
    len: usize,
    address: *mut c_char,
    room: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    let (channel, at, tcp) = unsafe { (&*channel, text_of(at), tcp(token, len)) };
    let bound = at.parse().map_err(|_| {
        invalid(
            format!("{at:?} is no address to listen at"),
            "use 127.0.0.1:7000 or [::1]:0",
        )
    });
    let listens = bound.and_then(|at| channel.listen_tcp(&tcp?, at));
    let listens = match listens {
        Ok(listens) => listens,
        Err(e) => return fail(&e),
    };
    if !address.is_null() && room > 0 {
        let count = listens.len().min(room - 1);
        // SAFETY: the caller's promise: `count` bytes and the zero behind them fit.
        unsafe {
            std::ptr::copy_nonoverlapping(listens.as_ptr().cast(), address, count);
            *address.add(count) = 0;
        }
    }
    0
}
