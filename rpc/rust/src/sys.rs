//! The C interface of libvernal, as in vernal_rpc.h.

use std::ffi::{c_char, c_int, c_void};

/// A channel (`vn_rpc_channel`).
#[repr(C)]
pub(crate) struct Channel {
    _opaque: [u8; 0],
}

/// A call in its handler (`vn_rpc_call`).
#[repr(C)]
pub(crate) struct Call {
    _opaque: [u8; 0],
}

/// A connection (`vn_rpc_conn`).
#[repr(C)]
pub(crate) struct Conn {
    _opaque: [u8; 0],
}

/// A call that is under way (`vn_rpc_pending`).
#[repr(C)]
pub(crate) struct Pending {
    _opaque: [u8; 0],
}

/// A reply in many items (`vn_rpc_stream`).
#[repr(C)]
pub(crate) struct Stream {
    _opaque: [u8; 0],
}

/// A reply, or an item (`vn_rpc_reply`).
#[repr(C)]
pub(crate) struct Reply {
    _opaque: [u8; 0],
}

/// `struct vn_rpc_options`, as far as this crate knows it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub size: u32,
    pub flags: u32,
    pub mode: u32,
    pub threads: u32,
    pub slots: u32,
    pub timeout_ms: u32,
    pub max_bytes: u64,
    pub max_objects: u64,
    pub sandbox: u32,
    pub sandbox_ms: u32,
    pub sandbox_bytes: u64,
}

const _: () = assert!(size_of::<Options>() == 56);

impl Options {
    /// The usual values.
    pub const USUAL: Self = Self {
        size: size_of::<Self>() as u32,
        flags: 0,
        mode: 0,
        threads: 0,
        slots: 0,
        timeout_ms: 0,
        max_bytes: 0,
        max_objects: 0,
        sandbox: 0,
        sandbox_ms: 0,
        sandbox_bytes: 0,
    };
}

pub(crate) const PLAIN: u32 = 1;
pub(crate) const SPIN: u32 = 2;
pub(crate) const BLOCK: u32 = 4;
pub(crate) const SANDBOX_PROCESS: u32 = 1;

/// `vn_rpc_arg`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arg {
    pub object: *const c_void,
    pub bytes: *const c_void,
    pub len: usize,
}

/// `struct vn_type`: `vernal::layout::for_peers` gives its address.
pub(crate) type Type = *const c_void;
pub(crate) type Handler = extern "C" fn(*mut Call, *mut c_void) -> c_int;
pub(crate) type Drop = extern "C" fn(*mut c_void);
pub(crate) type Release = extern "C" fn(*mut c_void, *mut c_void);

unsafe extern "C" {
    pub(crate) fn vernal_last_error() -> *const c_char;
    pub(crate) fn vernal_last_error_code() -> c_int;
    pub(crate) fn vn_free(object: *mut c_void) -> c_int;

    pub(crate) fn vn_rpc_open(name: *const c_char, options: *const Options) -> *mut Channel;
    pub(crate) fn vn_rpc_serve_owned(
        channel: *mut Channel,
        method: u32,
        argument: Type,
        reply: Type,
        handler: Handler,
        arg: *mut c_void,
        drop: Drop,
    ) -> c_int;
    pub(crate) fn vn_rpc_listen_tcp(
        channel: *mut Channel,
        at: *const c_char,
        token: *const c_void,
        token_len: usize,
        address: *mut c_char,
        room: usize,
    ) -> c_int;
    pub(crate) fn vn_rpc_prefork(channel: *mut Channel) -> c_int;
    pub(crate) fn vn_rpc_run(channel: *mut Channel) -> c_int;
    pub(crate) fn vn_rpc_shutdown(channel: *mut Channel, grace_ms: u32);
    pub(crate) fn vn_rpc_close(channel: *mut Channel);
    pub(crate) fn vn_rpc_shared_heap(channel: *mut Channel) -> *mut c_void;

    pub(crate) fn vn_rpc_argument(call: *const Call) -> *const c_void;
    pub(crate) fn vn_rpc_argument_bytes(call: *const Call, len: *mut usize) -> *const c_void;
    pub(crate) fn vn_rpc_argument_passed(call: *const Call) -> c_int;
    pub(crate) fn vn_rpc_caller_uid(call: *const Call) -> i64;
    pub(crate) fn vn_rpc_caller_gid(call: *const Call) -> i64;
    pub(crate) fn vn_rpc_caller_pid(call: *const Call) -> i64;
    pub(crate) fn vn_rpc_time_left(call: *const Call) -> i64;
    pub(crate) fn vn_rpc_is_cancelled(call: *mut Call) -> c_int;
    pub(crate) fn vn_rpc_reply_heap(call: *const Call) -> *mut c_void;
    pub(crate) fn vn_rpc_set_object(
        call: *mut Call,
        object: *mut c_void,
        release: Release,
        arg: *mut c_void,
    ) -> c_int;
    pub(crate) fn vn_rpc_set_shared(call: *mut Call, object: *const c_void) -> c_int;
    pub(crate) fn vn_rpc_set_bytes(call: *mut Call, bytes: *const c_void, len: usize) -> c_int;
    pub(crate) fn vn_rpc_send_item(call: *mut Call) -> c_int;
    pub(crate) fn vn_rpc_is_stream(call: *mut Call);
    pub(crate) fn vn_rpc_fail(call: *mut Call, code: u32, text: *const c_char) -> c_int;
    pub(crate) fn vn_rpc_fail_as(call: *mut Call, kind: u32, text: *const c_char) -> c_int;

    pub(crate) fn vn_rpc_connect_with_token(
        name: *const c_char,
        token: *const c_void,
        token_len: usize,
        options: *const Options,
    ) -> *mut Conn;
    pub(crate) fn vn_rpc_disconnect(conn: *mut Conn);
    pub(crate) fn vn_rpc_is_open(conn: *const Conn) -> c_int;
    pub(crate) fn vn_rpc_server_uid(conn: *const Conn) -> i64;
    pub(crate) fn vn_rpc_server_gid(conn: *const Conn) -> i64;
    pub(crate) fn vn_rpc_server_pid(conn: *const Conn) -> i64;
    pub(crate) fn vn_rpc_heap(conn: *const Conn) -> *mut c_void;
    pub(crate) fn vn_rpc_call_type(
        conn: *const Conn,
        method: u32,
        arg: Arg,
        reply: Type,
        timeout_ms: u32,
    ) -> *mut Reply;
    pub(crate) fn vn_rpc_start_type(
        conn: *const Conn,
        method: u32,
        arg: Arg,
        reply: Type,
        timeout_ms: u32,
    ) -> *mut Pending;
    pub(crate) fn vn_rpc_wait(pending: *mut Pending) -> *mut Reply;
    pub(crate) fn vn_rpc_cancel(pending: *mut Pending);
    pub(crate) fn vn_rpc_poll_owned(
        pending: *mut Pending,
        wake: Drop,
        drop: Drop,
        arg: *mut c_void,
        reply: *mut *mut Reply,
    ) -> c_int;
    pub(crate) fn vn_rpc_stream_type(
        conn: *const Conn,
        method: u32,
        arg: Arg,
        item: Type,
        timeout_ms: u32,
    ) -> *mut Stream;
    pub(crate) fn vn_rpc_next(stream: *mut Stream) -> *mut Reply;
    pub(crate) fn vn_rpc_poll_next(
        stream: *mut Stream,
        wake: Drop,
        drop: Drop,
        arg: *mut c_void,
        reply: *mut *mut Reply,
    ) -> c_int;
    pub(crate) fn vn_rpc_stream_close(stream: *mut Stream);
    pub(crate) fn vn_rpc_reply_object(reply: *const Reply) -> *const c_void;
    pub(crate) fn vn_rpc_reply_bytes(reply: *const Reply, len: *mut usize) -> *const c_void;
    pub(crate) fn vn_rpc_reply_passed(reply: *const Reply) -> c_int;
    pub(crate) fn vn_rpc_release(reply: *mut Reply);
    pub(crate) fn vn_rpc_remote_code() -> u32;
    pub(crate) fn vn_rpc_remote_kind() -> u32;
    pub(crate) fn vn_rpc_remote_text() -> *const c_char;
}
