//! The C interface of `vernal_pool.h`.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use vernal_heap::walk::Demand;
use vernal_pool::program::VnType;
use vernal_pool::{Error, OpenOptions, Pool, capi, tx};
use vernal_snapshot::{runtime, thread};

const CREATE: c_uint = 1;
const DIRECT: c_uint = 2;
const READONLY: c_uint = 4;
const EXCL: c_uint = 8;

/// What `vn_type_of` of `vernal_rpc.h` passes for a pool: the type is what it wants.
const TYPE_OF: usize = usize::MAX;

/// A pool towards C: never looked into, only compared.
#[repr(C)]
#[derive(Debug)]
pub struct VnPool {
    _opaque: [u8; 0],
}

/// `vernal_error` of the two headers.
fn code(e: &Error) -> c_int {
    match e {
        Error::Snapshot(e) => crate::code(e),
        Error::Heap { source, .. } => match source {
            vernal_heap::HeapError::Damaged { .. }
            | vernal_heap::HeapError::MissingPuddle { .. }
            | vernal_heap::HeapError::BadPuddle { .. } => -6,
            vernal_heap::HeapError::TooLarge { .. }
            | vernal_heap::HeapError::TooManyPuddles { .. }
            | vernal_heap::HeapError::Full { .. } => -3,
            vernal_heap::HeapError::UnknownType { .. } | vernal_heap::HeapError::BadType { .. } => {
                -11
            }
            vernal_heap::HeapError::Refused { .. } => -14,
            _ => -1,
        },
        Error::Io { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound => -8,
            std::io::ErrorKind::PermissionDenied => -7,
            std::io::ErrorKind::ReadOnlyFilesystem => -9,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => -3,
            _ => -2,
        },
        Error::NotFound { .. } => -8,
        Error::Busy { .. } => -4,
        Error::Puddle { .. } => -6,
        Error::Type { .. } => -11,
        Error::Conflict => -10,
        Error::Aborted => -12,
        Error::Access { .. } => -14,
        Error::Quarantined { .. } => -13,
        _ => -1,
    }
}

#[cold]
pub(crate) fn fail(e: &Error) -> c_int {
    let code = code(e);
    crate::remember_as(code, &e.to_string());
    code
}

fn status(r: Result<(), Error>) -> c_int {
    match r {
        Ok(()) => 0,
        Err(e) => fail(&e),
    }
}

#[inline]
fn address(r: Result<u64, Error>) -> *mut c_void {
    match r {
        Ok(at) => at as *mut c_void,
        Err(e) => {
            fail(&e);
            std::ptr::null_mut()
        }
    }
}

fn invalid(what: impl Into<String>) -> Error {
    Error::Invalid { what: what.into() }
}

fn open(name: &[u8], flags: c_uint) -> Result<Pool, Error> {
    if flags & !(CREATE | DIRECT | READONLY | EXCL) != 0 {
        return Err(invalid(format!(
            "vn_pool_open: flags {flags:#x} are not valid: use VN_CREATE, VN_DIRECT, VN_READONLY, VN_EXCL"
        )));
    }
    let on = |flag| flags & flag != 0;
    if on(READONLY) && on(CREATE) {
        return Err(invalid(
            "vn_pool_open: VN_READONLY with VN_CREATE: a new pool would stay empty",
        ));
    }
    let options = OpenOptions {
        create: on(CREATE),
        exclusive: on(EXCL),
        read_only: on(READONLY),
        direct: on(DIRECT),
        eager: std::env::var_os("VERNAL_RELOCATE").is_some_and(|v| v == "eager"),
    };
    let path = Path::new(std::ffi::OsStr::from_bytes(name));
    if name.contains(&b'/') {
        Pool::open(path, options)
    } else {
        Pool::open_served(&String::from_utf8_lossy(name), options)
    }
}

/// Opens a pool. See `vernal_pool.h`.
///
/// # Safety
///
/// `name` is NULL or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_pool_open(name: *const c_char, flags: c_uint) -> *mut VnPool {
    let _inside = runtime::enter();
    let result = if name.is_null() {
        Err(invalid("vn_pool_open: the name is NULL"))
    } else {
        // SAFETY: the caller's promise.
        open(unsafe { CStr::from_ptr(name) }.to_bytes(), flags)
    };
    address(result.map(|p| p.handle() as u64)).cast()
}

/// Commits and closes. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_pool_close(pool: *mut VnPool) -> c_int {
    let _inside = runtime::enter();
    status(capi::pool(pool as usize).and_then(Pool::close))
}

/// The pool of an object. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_pool_of(obj: *const c_void) -> *mut VnPool {
    capi::handle_of(obj as u64) as *mut VnPool
}

/// Allocates. See `vernal_pool.h`.
///
/// # Safety
///
/// `ty` is NULL or what the compiler emitted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vn_new(
    pool: *mut VnPool,
    bytes: usize,
    ty: *const VnType,
) -> *mut c_void {
    if pool as usize == TYPE_OF {
        return ty.cast_mut().cast();
    }
    // SAFETY: the caller's promise.
    address(unsafe { capi::new(pool as usize, bytes as u64, ty) })
}

/// As `__vn_new`, never rewritten by the compiler.
///
/// # Safety
///
/// As for `__vn_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vn_new_typed(
    pool: *mut VnPool,
    bytes: usize,
    ty: *const VnType,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    address(unsafe { capi::new(pool as usize, bytes as u64, ty) })
}

/// Allocates bytes without pointers. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_new_bytes(pool: *mut VnPool, bytes: usize) -> *mut c_void {
    address(capi::new_bytes(pool as usize, bytes as u64))
}

/// The root object, allocated at first. See `vernal_pool.h`.
///
/// # Safety
///
/// As for `__vn_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vn_root(
    pool: *mut VnPool,
    bytes: usize,
    ty: *const VnType,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    address(unsafe { capi::root(pool as usize, bytes as u64, ty) })
}

/// As `__vn_root`, never rewritten by the compiler.
///
/// # Safety
///
/// As for `__vn_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vn_root_typed(
    pool: *mut VnPool,
    bytes: usize,
    ty: *const VnType,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    address(unsafe { capi::root(pool as usize, bytes as u64, ty) })
}

/// Frees. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_free(obj: *mut c_void) -> c_int {
    if obj.is_null() {
        return 0;
    }
    status(capi::free(obj as u64))
}

/// Changes a size. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_realloc(obj: *mut c_void, bytes: usize) -> *mut c_void {
    address(capi::realloc(obj as u64, bytes as u64))
}

/// Copies a graph. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_copy(to: *mut VnPool, object: *const c_void) -> *mut c_void {
    address(capi::copy(to as usize, object as u64))
}

/// The size of an object. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_usable_size(obj: *const c_void) -> usize {
    match capi::usable_size(obj as u64) {
        Ok(size) => size as usize,
        Err(e) => {
            fail(&e);
            0
        }
    }
}

/// The root object. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_get_root(pool: *mut VnPool) -> *mut c_void {
    address(capi::pool(pool as usize).map(|p| p.root().unwrap_or(0)))
}

/// Sets the root object. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_set_root(pool: *mut VnPool, obj: *mut c_void) -> c_int {
    status(capi::pool(pool as usize).and_then(|p| p.set_root(obj as u64)))
}

/// Which levels of the transaction are blocks of VN_TX, lowest bit innermost.
#[inline]
fn blocks() -> u64 {
    thread::known().map_or(0, |c| c.tx.blocks.load(Relaxed))
}

#[inline]
fn set_blocks(blocks: u64) {
    if let Some(c) = thread::known() {
        c.tx.blocks.store(blocks, Relaxed);
    }
}

#[inline]
fn ended(result: c_int) -> c_int {
    if let Some(c) = thread::known() {
        c.tx.result.store(result, Relaxed);
    }
    result
}

#[inline]
fn begin(block: bool) -> c_int {
    if let Some(c) = thread::known()
        && tx::begin_plainly(c)
    {
        let blocks = c.tx.blocks.load(Relaxed) << 1 | u64::from(block);
        c.tx.blocks.store(blocks, Relaxed);
        return 0;
    }
    begin_with_care(block)
}

#[inline(never)]
fn begin_with_care(block: bool) -> c_int {
    if tx::depth() >= 64 {
        return fail(&invalid(
            "transactions are nested 64 deep: one is never ended",
        ));
    }
    match tx::begin() {
        Ok(()) => {
            set_blocks(blocks() << 1 | u64::from(block));
            0
        }
        Err(e) => fail(&e),
    }
}

/// Begins a transaction. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_tx_begin() -> c_int {
    begin(false)
}

#[inline]
fn end() -> c_int {
    if let Some(c) = thread::known()
        && let Some(done) = tx::commit_plainly(c)
    {
        c.tx.blocks.store(c.tx.blocks.load(Relaxed) >> 1, Relaxed);
        let result = match done {
            Ok(()) => 0,
            Err(e) => fail(&e),
        };
        c.tx.result.store(result, Relaxed);
        return result;
    }
    end_with_care()
}

#[inline(never)]
fn end_with_care() -> c_int {
    set_blocks(blocks() >> 1);
    match tx::commit() {
        Ok(()) => ended(0),
        Err(e) => ended(fail(&e)),
    }
}

#[inline]
fn check_no_block(call: &str) -> Result<(), Error> {
    if blocks() & 1 == 1 && tx::depth() > 0 {
        return Err(in_a_block(call));
    }
    Ok(())
}

#[cold]
fn in_a_block(call: &str) -> Error {
    invalid(format!(
        "{call} inside a VN_TX block, which ends itself: leave the block"
    ))
}

/// Commits. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_tx_commit() -> c_int {
    match check_no_block("vn_tx_commit") {
        Ok(()) => end(),
        Err(e) => fail(&e),
    }
}

/// Aborts. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_tx_abort() -> c_int {
    if tx::depth() > 0 && blocks() & 1 == 1 {
        return status(tx::doom());
    }
    set_blocks(blocks() >> 1);
    let result = status(tx::abort());
    if result == 0 && tx::depth() == 0 {
        ended(-12);
    }
    result
}

/// Commits without waiting. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_tx_commit_async() -> i64 {
    if let Err(e) = check_no_block("vn_tx_commit_async") {
        return fail(&e).into();
    }
    set_blocks(blocks() >> 1);
    match tx::commit_async() {
        Ok(ticket) => {
            ended(0);
            ticket.map_or(0, |t| t as i64)
        }
        Err(e) => ended(fail(&e)).into(),
    }
}

/// How many levels are open. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_tx_depth() -> c_int {
    tx::depth() as c_int
}

/// How the last transaction ended. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_tx_result() -> c_int {
    thread::known().map_or(0, |c| c.tx.result.load(Relaxed))
}

/// Enters a VN_TX block. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn __vn_tx_enter() -> c_int {
    match begin(true) {
        0 => 1,
        e => {
            ended(e);
            0
        }
    }
}

/// Leaves a VN_TX block. See `vernal_pool.h`.
///
/// # Safety
///
/// `entered` points to what `__vn_tx_enter` returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vn_tx_leave(entered: *const c_int) {
    // SAFETY: the caller's promise.
    if unsafe { *entered } != 0 {
        end();
    }
}

/// Says what will be written. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_tx_add(p: *const c_void, n: usize) -> c_int {
    status(capi::tx_add(p as u64, n as u64))
}

/// Changes memory. See `vernal_pool.h`.
///
/// # Safety
///
/// `value` points to `n` bytes, and `p` to `n` bytes of an open pool.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_tx_set(p: *mut c_void, value: *const c_void, n: usize) -> c_int {
    // SAFETY: the caller's promise.
    status(unsafe { capi::tx_set(p as u64, value.cast(), n) })
}

/// A callback after a roll-back. See `vernal_pool.h`.
#[unsafe(no_mangle)]
pub extern "C" fn vn_tx_on_abort(f: Option<extern "C" fn(*mut c_void)>, arg: *mut c_void) -> c_int {
    let Some(f) = f else {
        return fail(&invalid("vn_tx_on_abort: the function is NULL"));
    };
    status(tx::on_abort(Box::new(move || f(arg))))
}

/// What a migration calls.
type MigrateFn = extern "C" fn(*const c_void, usize, *mut c_void, *mut c_void);

/// Registers a migration. See `vernal_pool.h`.
///
/// # Safety
///
/// `type_name` is NULL or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vn_migrate(
    type_name: *const c_char,
    f: Option<MigrateFn>,
    arg: *mut c_void,
) -> c_int {
    let (Some(f), false) = (f, type_name.is_null()) else {
        return fail(&invalid(
            "vn_migrate: the type's name or the function is NULL",
        ));
    };
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(type_name) }.to_string_lossy();
    let arg = arg as usize;
    vernal_pool::migrate::register(
        &name,
        std::sync::Arc::new(move |old: &[u8], new: &mut [u8]| {
            f(
                old.as_ptr().cast(),
                old.len(),
                new.as_mut_ptr().cast(),
                arg as *mut c_void,
            );
        }),
    );
    0
}

/// The types of a module. See `vernal_pool.h`.
///
/// # Safety
///
/// Called by constructors that the compiler emitted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vernal_register_types(
    start: *const *const VnType,
    stop: *const *const VnType,
) {
    // SAFETY: the caller's promise.
    unsafe { vernal_pool::program::register(start, stop) };
}

/// `struct vn_demand` of `vernal_pool.h`.
#[repr(C)]
#[derive(Debug)]
pub struct VnDemand {
    offset: u64,
    size: u32,
    kind: u32,
    count: usize,
    values: *const u64,
}

/// What values of a type have to be besides what its descriptor says. See `vernal_pool.h`.
///
/// # Safety
///
/// `ty` is NULL or what the compiler emitted; `demands` points to `count` structures, whose values are as many as they say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vernal_demand(
    ty: *const VnType,
    demands: *const VnDemand,
    count: usize,
) -> c_int {
    /// The slice that C gave.
    ///
    /// # Safety
    ///
    /// `at` points to `count` values, or `count` is 0.
    unsafe fn slice<'a, T>(at: *const T, count: usize) -> &'a [T] {
        match count == 0 || at.is_null() {
            true => &[],
            // SAFETY: the caller's promise.
            false => unsafe { std::slice::from_raw_parts(at, count) },
        }
    }
    // SAFETY: the caller's promise.
    let given = unsafe { slice(demands, count) };
    let mut list = Vec::with_capacity(given.len());
    for d in given {
        // SAFETY: the caller's promise.
        let values = unsafe { slice(d.values, d.count) };
        list.push(match (d.kind, values) {
            (0, []) => Demand::NotNull { offset: d.offset },
            (1, values) => Demand::OneOf {
                offset: d.offset,
                size: d.size,
                values: values.to_vec(),
            },
            (2, [id]) => Demand::Target {
                offset: d.offset,
                id: *id,
            },
            _ => {
                return fail(&invalid(format!(
                    "__vernal_demand: kind {} with {} values is none",
                    d.kind, d.count
                )));
            }
        });
    }
    // SAFETY: the caller's promise.
    status(unsafe { vernal_pool::program::demand(ty, list) })
}
