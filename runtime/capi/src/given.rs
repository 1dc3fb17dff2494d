//! Calls that give the program's memory to the kernel.
//!
//! The kernel's own accesses raise no signal, so memory of a pool that has moved is made accessible before the call
//! (docs/adr/0017). While no such pool is open that costs one load. What libc calls itself is not seen here, but for what these
//! functions name: `fread` and `fwrite` hand large buffers straight to the kernel.

use libc::{
    FILE, c_int, c_uint, c_void, iovec, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t,
};
use std::ffi::CStr;
use std::mem::transmute;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function of libc.
struct Next {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Next {
    fn find(&self) -> *mut c_void {
        let known = self.address.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.address.store(found, Ordering::Relaxed);
        found
    }

    fn get(&self) -> *mut c_void {
        let found = self.find();
        if found.is_null() {
            // Not `eprintln!`, which would come here again.
            std::process::abort();
        }
        found
    }
}

/// A buffer. Unsafe like the others, to be called alike.
unsafe fn touch(at: *const c_void, len: size_t) {
    vernal_pool::touch_range(at as u64, len as u64);
}

/// Buffers of a vector. The vector itself is read here first, which makes it accessible to the kernel, too.
unsafe fn touch_vector(vector: *const iovec, count: usize) {
    // More is refused by the kernel.
    const MOST: usize = 1024;
    if vernal_pool::any_waiting() && !vector.is_null() && count <= MOST {
        // SAFETY: the caller's vector, as the call requires it.
        for one in unsafe { std::slice::from_raw_parts(vector, count) } {
            // SAFETY: as above.
            unsafe { touch(one.iov_base, one.iov_len) };
        }
    }
}

unsafe fn touch_message(message: *const msghdr) {
    if vernal_pool::any_waiting() && !message.is_null() {
        // SAFETY: the caller's message, as the call requires it.
        let m = unsafe { &*message };
        // SAFETY: as above.
        unsafe {
            touch(m.msg_name, m.msg_namelen as usize);
            touch(m.msg_control, m.msg_controllen);
            touch_vector(m.msg_iov, m.msg_iovlen);
        }
    }
}

unsafe fn touch_address(address: *const sockaddr, len: *const socklen_t) {
    if vernal_pool::any_waiting() && !address.is_null() && !len.is_null() {
        // SAFETY: the caller's length, as the call requires it.
        unsafe { touch(address.cast(), *len as usize) };
    }
}

macro_rules! given {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty { $touch:expr })*) => { $(
        /// The function of libc, after what it gives the kernel was touched.
        ///
        /// # Safety
        ///
        /// As for the function of libc.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> $result {
            type F = unsafe extern "C" fn($($type),*) -> $result;
            // SAFETY: buffers, vectors, messages and addresses are the caller's, as the call requires them.
            unsafe { $touch };
            // SAFETY: the symbol has this signature; the arguments are the caller's.
            unsafe { transmute::<*mut c_void, F>(next::$name.get())($($arg),*) }
        }
    )*

    #[allow(non_upper_case_globals, reason = "named as the functions that they find")]
    mod next {
        use super::{AtomicPtr, CStr, Next};
        $(pub(super) static $name: Next = Next {
            name: match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!(),
            },
            address: AtomicPtr::new(std::ptr::null_mut()),
        };)*
    }

    /// Looks the functions up, so that a signal handler that calls one does not have to.
    pub(crate) fn find_all() {
        $(next::$name.find();)*
    }
    };
}

given! {
    read(fd: c_int, to: *mut c_void, n: size_t) -> ssize_t { touch(to, n) }
    write(fd: c_int, from: *const c_void, n: size_t) -> ssize_t { touch(from, n) }
    pread(fd: c_int, to: *mut c_void, n: size_t, at: off_t) -> ssize_t { touch(to, n) }
    pread64(fd: c_int, to: *mut c_void, n: size_t, at: off_t) -> ssize_t { touch(to, n) }
    pwrite(fd: c_int, from: *const c_void, n: size_t, at: off_t) -> ssize_t { touch(from, n) }
    pwrite64(fd: c_int, from: *const c_void, n: size_t, at: off_t) -> ssize_t { touch(from, n) }
    __read_chk(fd: c_int, to: *mut c_void, n: size_t, room: size_t) -> ssize_t { touch(to, n) }
    __pread_chk(fd: c_int, to: *mut c_void, n: size_t, at: off_t, room: size_t) -> ssize_t { touch(to, n) }
    __pread64_chk(fd: c_int, to: *mut c_void, n: size_t, at: off_t, room: size_t) -> ssize_t { touch(to, n) }
    recv(fd: c_int, to: *mut c_void, n: size_t, flags: c_int) -> ssize_t { touch(to, n) }
    __recv_chk(fd: c_int, to: *mut c_void, n: size_t, room: size_t, flags: c_int) -> ssize_t { touch(to, n) }
    send(fd: c_int, from: *const c_void, n: size_t, flags: c_int) -> ssize_t { touch(from, n) }
    getrandom(to: *mut c_void, n: size_t, flags: c_uint) -> ssize_t { touch(to, n) }
    fread(to: *mut c_void, size: size_t, n: size_t, stream: *mut FILE) -> size_t { touch(to, size.saturating_mul(n)) }
    fread_unlocked(to: *mut c_void, size: size_t, n: size_t, stream: *mut FILE) -> size_t { touch(to, size.saturating_mul(n)) }
    __fread_chk(to: *mut c_void, room: size_t, size: size_t, n: size_t, stream: *mut FILE) -> size_t { touch(to, size.saturating_mul(n)) }
    fwrite(from: *const c_void, size: size_t, n: size_t, stream: *mut FILE) -> size_t { touch(from, size.saturating_mul(n)) }
    fwrite_unlocked(from: *const c_void, size: size_t, n: size_t, stream: *mut FILE) -> size_t { touch(from, size.saturating_mul(n)) }

    readv(fd: c_int, to: *const iovec, n: c_int) -> ssize_t { touch_vector(to, n as usize) }
    writev(fd: c_int, from: *const iovec, n: c_int) -> ssize_t { touch_vector(from, n as usize) }
    preadv(fd: c_int, to: *const iovec, n: c_int, at: off_t) -> ssize_t { touch_vector(to, n as usize) }
    preadv64(fd: c_int, to: *const iovec, n: c_int, at: off_t) -> ssize_t { touch_vector(to, n as usize) }
    pwritev(fd: c_int, from: *const iovec, n: c_int, at: off_t) -> ssize_t { touch_vector(from, n as usize) }
    pwritev64(fd: c_int, from: *const iovec, n: c_int, at: off_t) -> ssize_t { touch_vector(from, n as usize) }
    recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t { touch_message(message) }
    sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t { touch_message(message) }
    recvfrom(fd: c_int, to: *mut c_void, n: size_t, flags: c_int, from: *mut sockaddr, len: *mut socklen_t) -> ssize_t {
        { touch(to, n); touch_address(from, len) }
    }
    sendto(fd: c_int, from: *const c_void, n: size_t, flags: c_int, to: *const sockaddr, len: socklen_t) -> ssize_t {
        { touch(from, n); touch(to.cast(), len as usize) }
    }
}
