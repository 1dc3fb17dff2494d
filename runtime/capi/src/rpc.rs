//! The C interface of `vernal_rpc.h`: what both sides share.

mod client;
mod server;

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vernal_pool::capi;
use vernal_pool::program::{VnType, lookup};
use vernal_rpc_core::registry::Puddled;
use vernal_rpc_core::shm::Shm;
use vernal_rpc_core::tcp::Tcp;
use vernal_rpc_core::{
    Body, ChannelOptions, Code, ConnectOptions, Error, Passed, Sandbox, TEXT_MAX, Trust, WaitPolicy,
};

const PLAIN: u32 = 1;
const SPIN: u32 = 2;
const BLOCK: u32 = 4;

/// The sandboxes.
const PROCESS: u32 = 1;

/// Bytes of the options that every version has.
const OPTIONS_MIN: usize = 40;
/// The kind of a failure that has a code of the application; the others have the numbers that travel.
const APPLICATION: u32 = 8;

/// What the other side said of the last failure of this thread.
#[derive(Default)]
struct Remote {
    kind: u32,
    code: u32,
    text: Option<CString>,
}

std::thread_local! {
    static REMOTE: RefCell<Remote> = const { RefCell::new(Remote { kind: 0, code: 0, text: None }) };
}

/// `struct vn_rpc_options` of `vernal_rpc.h`. Fields that are 0 have their usual value.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct VnRpcOptions {
    size: u32,
    flags: u32,
    mode: u32,
    threads: u32,
    slots: u32,
    timeout_ms: u32,
    max_bytes: u64,
    max_objects: u64,
    sandbox: u32,
    sandbox_ms: u32,
    sandbox_bytes: u64,
}

/// `vn_rpc_arg` of `vernal_rpc.h`: an object, or bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct VnRpcArg {
    object: *const c_void,
    bytes: *const c_void,
    len: usize,
}

/// `vernal_error` of the headers.
fn code(e: &Error) -> c_int {
    match e {
        Error::NotFound { .. } => -8,
        Error::Taken { .. } | Error::Backlog { .. } => -4,
        Error::Access { .. } => -7,
        Error::Os { .. } | Error::Sandbox { .. } => -2,
        Error::TooLarge { .. } => -3,
        Error::PeerDied { .. } => -20,
        Error::Closed { .. } => -21,
        Error::DeadlineExceeded { .. } => -22,
        Error::Remote { .. } => -23,
        Error::Unverified { .. } => -24,
        Error::Corrupt { .. } | Error::Incompatible { .. } => -25,
        Error::Registry { .. } => -26,
        _ => -1,
    }
}

#[cold]
fn fail(e: &Error) -> c_int {
    let code = code(e);
    let remote = match e {
        Error::Remote { failure, .. } => {
            let (kind, code) = match failure.code {
                Code::Application(n) => (APPLICATION, n),
                other => (other.to_wire(), 0),
            };
            // A text that a peer sent may hold anything.
            let text = CString::new(failure.text.replace('\0', "\u{fffd}"));
            Remote {
                kind,
                code,
                text: text.ok(),
            }
        }
        _ => Remote::default(),
    };
    REMOTE.set(remote);
    crate::remember_as(code, &e.to_string());
    code
}

#[cold]
fn fail_pool(e: &vernal_pool::Error) -> c_int {
    crate::pool::fail(e)
}

fn invalid(what: impl Into<String>, remedy: &'static str) -> Error {
    Error::Invalid {
        what: what.into(),
        remedy,
    }
}

fn status(r: Result<(), Error>) -> c_int {
    match r {
        Ok(()) => 0,
        Err(e) => fail(&e),
    }
}

/// A value that C holds by its address until it gives it back.
fn hand_out<T>(r: Result<T, Error>) -> *mut T {
    match r {
        Ok(value) => Box::into_raw(Box::new(value)),
        Err(e) => {
            fail(&e);
            std::ptr::null_mut()
        }
    }
}

/// The name and the options that a caller gave.
///
/// # Safety
///
/// `name` is NULL or a NUL-terminated string, `options` NULL or a `struct vn_rpc_options`.
unsafe fn given(
    name: *const c_char,
    options: *const VnRpcOptions,
) -> Result<(String, VnRpcOptions), Error> {
    if name.is_null() {
        return Err(invalid("the name is NULL", "pass the channel's name"));
    }
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    let mut given = VnRpcOptions::default();
    let mut known = true;
    if !options.is_null() {
        // SAFETY: the caller's promise: at least the size is there.
        let size = match unsafe { (*options).size } as usize {
            0 => size_of::<VnRpcOptions>(),
            size => size,
        };
        known = (OPTIONS_MIN..=size_of::<VnRpcOptions>()).contains(&size);
        let len = size.min(size_of::<VnRpcOptions>());
        // SAFETY: the structure has as many bytes as it says; what an older program does not know stays zero.
        unsafe {
            std::ptr::copy_nonoverlapping(options.cast::<u8>(), (&raw mut given).cast::<u8>(), len);
        }
    }
    let options = given;
    let unknown = options.flags & !(PLAIN | SPIN | BLOCK) != 0 || options.sandbox > PROCESS;
    if !known || unknown {
        return Err(invalid(
            format!(
                "options of {} bytes with flags {:#x} and sandbox {}",
                options.size, options.flags, options.sandbox
            ),
            "set size to sizeof(struct vn_rpc_options), and only the flags and sandboxes of vernal_rpc.h",
        ));
    }
    Ok((name.to_string_lossy().into_owned(), options))
}

impl VnRpcOptions {
    fn trust(&self) -> Trust {
        match self.flags & PLAIN != 0 {
            true => Trust::Plain,
            false => Trust::Verify,
        }
    }

    fn wait(&self) -> WaitPolicy {
        match (self.flags & SPIN != 0, self.flags & BLOCK != 0) {
            (true, _) => WaitPolicy::Spin,
            (false, true) => WaitPolicy::Block,
            _ => WaitPolicy::Adaptive,
        }
    }

    fn channel(&self) -> ChannelOptions {
        let mut o = ChannelOptions {
            trust: self.trust(),
            wait: self.wait(),
            threads: self.threads as usize,
            ..ChannelOptions::default()
        };
        if self.mode != 0 {
            o.mode = self.mode as u16;
        }
        if self.slots != 0 {
            o.slots = self.slots;
        }
        if self.max_bytes != 0 {
            o.max_bytes = self.max_bytes;
        }
        if self.max_objects != 0 {
            o.max_objects = self.max_objects;
        }
        if self.sandbox == PROCESS {
            o.sandbox = Sandbox::Process;
        }
        if self.sandbox_ms != 0 {
            o.sandbox_limit = Duration::from_millis(self.sandbox_ms.into());
        }
        if self.sandbox_bytes != 0 {
            o.sandbox_memory = self.sandbox_bytes;
        }
        o
    }

    fn connect(&self) -> ConnectOptions {
        let mut o = ConnectOptions {
            trust: self.trust(),
            wait: self.wait(),
            ..ConnectOptions::default()
        };
        if self.timeout_ms != 0 {
            o.timeout = Duration::from_millis(self.timeout_ms.into());
        }
        if self.slots != 0 {
            o.slots = self.slots;
        }
        if self.max_bytes != 0 {
            o.max_bytes = self.max_bytes;
        }
        if self.max_objects != 0 {
            o.max_objects = self.max_objects;
        }
        o
    }
}

/// puddled's names, asked for at first use.
fn shm() -> Result<Shm, Error> {
    static SHM: Mutex<Option<Shm>> = Mutex::new(None);
    let mut shm = SHM.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = &*shm {
        return Ok(known.clone());
    }
    let name = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&name).file_name().unwrap_or_default();
    let puddled = Puddled::new(&name.to_string_lossy())?;
    Ok(shm.insert(Shm::new(Arc::new(puddled))).clone())
}

/// A secret of TCP, or none.
///
/// # Safety
///
/// `token` points to `len` bytes, or `len` is 0.
unsafe fn tcp(token: *const c_void, len: usize) -> Result<Tcp, Error> {
    if token.is_null() || len == 0 {
        return Ok(Tcp::new());
    }
    // SAFETY: the caller's promise.
    Tcp::with_token(unsafe { std::slice::from_raw_parts(token.cast(), len) })
}

/// A number of a peer, as C has it: -1 if it is on another host.
fn number(n: Option<u32>) -> i64 {
    n.map_or(-1, i64::from)
}

/// A text that C gave.
///
/// # Safety
///
/// `text` is NULL or a NUL-terminated string.
unsafe fn text_of(text: *const c_char) -> String {
    match text.is_null() {
        true => String::new(),
        // SAFETY: the caller's promise.
        false => unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned(),
    }
}

/// The id of a type that the compiler emitted; `None` for NULL: plain bytes.
///
/// # Safety
///
/// `ty` is NULL or what the compiler emitted.
unsafe fn type_id(ty: *const VnType) -> Result<Option<u64>, Error> {
    if ty.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    match unsafe { lookup(ty) } {
        Ok(known) => Ok(Some(known.desc.id())),
        Err(e) => Err(invalid(
            e.to_string(),
            "compile the program again with vernal-cc",
        )),
    }
}

/// The body of an object that lies in the heap `handle`.
fn object_body(object: *const c_void, handle: usize) -> Result<Body, Error> {
    let addr = object as u64;
    if capi::handle_of(addr) != handle {
        return Err(invalid(
            format!("{addr:#x} does not lie in the heap that this side passes objects from"),
            "allocate it in that heap, or copy it there with vn_copy",
        ));
    }
    match capi::type_id(addr) {
        Ok(type_id) => Ok(Body::Object { addr, type_id }),
        Err(e) => Err(invalid(e.to_string(), "allocate objects with vn_new")),
    }
}

/// The body of plain bytes.
///
/// # Safety
///
/// `bytes` points to `len` bytes, or `len` is 0.
unsafe fn bytes_body(bytes: *const c_void, len: usize) -> Result<Body, Error> {
    if len == 0 {
        return Ok(Body::EMPTY);
    }
    if bytes.is_null() || len > TEXT_MAX {
        return Err(Error::TooLarge {
            what: "the number of plain bytes",
            value: len as u64,
            limit: TEXT_MAX as u64,
            remedy: "pass an object",
        });
    }
    // SAFETY: the caller's promise.
    let data = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) };
    Body::from_bytes(data).ok_or_else(|| invalid("too many bytes", "pass an object"))
}

fn passed(passed: Passed) -> c_int {
    match passed {
        Passed::Inline => 0,
        Passed::Copied => 1,
        Passed::Plain => 2,
        _ => -1,
    }
}

/// The application's code of this thread's last failed call. See `vernal_rpc.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_rpc_remote_code() -> u32 {
    REMOTE.with_borrow(|r| r.code)
}

/// What kind of failure that was. See `vernal_rpc.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_rpc_remote_kind() -> u32 {
    REMOTE.with_borrow(|r| r.kind)
}

/// Its text. See `vernal_rpc.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_rpc_remote_text() -> *const c_char {
    // It stays where it is until this thread's next failure.
    REMOTE.with_borrow(|r| r.text.as_ref().map_or(c"".as_ptr(), |t| t.as_ptr()))
}
