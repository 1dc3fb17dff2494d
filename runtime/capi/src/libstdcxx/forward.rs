//! Functions of libstdc++.so that leave a result in the caller's memory: libstdc++ does the work, the result is marked.
//!
//! The virtual ones (`num_get::do_get`, `streambuf::xsgetn`) are reached through vtables inside libstdc++.so; those refer to
//! the functions by name, so that the dynamic linker finds these here.
//!
//! Not covered: the pool resources of `std::pmr`, whose free lists live in memory from their upstream, and what libstdc++.so
//! allocates itself for an object that it returns, when the program's `operator new` takes from the file. The audit reports
//! both.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::mem::transmute;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function that the next library in the search order defines, looked up on first use.
struct Next {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            address: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// The address; null if no later library has the function.
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

    /// The address. Without it the program cannot go on: it is linked in a way that the driver refuses.
    fn get(&self) -> *mut c_void {
        let found = self.find();
        if found.is_null() {
            let name = self.name.to_string_lossy();
            eprintln!(
                "libvernal: {name} is in no library behind libvernal; link libstdc++ dynamically, with vernal-c++"
            );
            std::process::abort();
        }
        found
    }
}

/// Marks the NUL-terminated string at `s`, terminator included.
///
/// # Safety
///
/// `s` must hold a terminated string.
unsafe fn mark_str(s: *const c_char) {
    if vernal_abi::is_tracked(s as u64) {
        // SAFETY: terminated by the caller's promise.
        crate::mark(s.cast(), unsafe { libc::strlen(s) } + 1);
    }
}

/// What `from_chars` and `to_chars` return.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CharsResult {
    ptr: *mut c_char,
    ec: c_int,
}

macro_rules! from_chars {
    ($($function:ident $symbol:literal $size:literal;)*) => {$(
        /// `std::from_chars` into a floating-point number.
        ///
        /// # Safety
        ///
        /// As for the C++ function.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C" fn $function(
            first: *const c_char, last: *const c_char, value: *mut c_void, format: c_int,
        ) -> CharsResult {
            type F = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_void, c_int) -> CharsResult;
            static NEXT: Next = Next::new(match CStr::from_bytes_with_nul(concat!($symbol, "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!(),
            });
            // SAFETY: the symbol has this signature, a reference being a pointer; the arguments are the caller's.
            let result = unsafe { transmute::<*mut c_void, F>(NEXT.get())(first, last, value, format) };
            crate::mark(value.cast(), $size);
            result
        }
    )*};
}
from_chars! {
    from_chars_f32 "_ZSt10from_charsPKcS0_RfSt12chars_format" 4;
    from_chars_f64 "_ZSt10from_charsPKcS0_RdSt12chars_format" 8;
    from_chars_f80 "_ZSt10from_charsPKcS0_ReSt12chars_format" 16;
}

macro_rules! to_chars {
    ($($function:ident $symbol:literal ($($arg:ident: $type:ty),*);)*) => {$(
        /// `std::to_chars` of a floating-point number.
        ///
        /// # Safety
        ///
        /// As for the C++ function.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C" fn $function(first: *mut c_char, last: *mut c_char, $($arg: $type),*) -> CharsResult {
            type F = unsafe extern "C" fn(*mut c_char, *mut c_char, $($type),*) -> CharsResult;
            static NEXT: Next = Next::new(match CStr::from_bytes_with_nul(concat!($symbol, "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!(),
            });
            // SAFETY: the symbol has this signature; the arguments are the caller's.
            let result = unsafe { transmute::<*mut c_void, F>(NEXT.get())(first, last, $($arg),*) };
            // Whatever the result says, nothing beyond `last` was written; on failure all of it may have been.
            let end = if result.ec == 0 { result.ptr } else { last };
            crate::mark(first.cast(), (end as usize).saturating_sub(first as usize));
            result
        }
    )*};
}
to_chars! {
    to_chars_f32 "_ZSt8to_charsPcS_f" (value: f32);
    to_chars_f64 "_ZSt8to_charsPcS_d" (value: f64);
    to_chars_f32_format "_ZSt8to_charsPcS_fSt12chars_format" (value: f32, format: c_int);
    to_chars_f64_format "_ZSt8to_charsPcS_dSt12chars_format" (value: f64, format: c_int);
    to_chars_f32_precision "_ZSt8to_charsPcS_fSt12chars_formati" (value: f32, format: c_int, precision: c_int);
    to_chars_f64_precision "_ZSt8to_charsPcS_dSt12chars_formati" (value: f64, format: c_int, precision: c_int);
}

/// `std::__cxx11::basic_string`, for any character.
#[repr(C)]
pub struct CxxString {
    data: *mut c_void,
    length: usize,
    local: [u64; 2],
}

impl CxxString {
    /// Marks the object and its characters, terminator included.
    ///
    /// # Safety
    ///
    /// `this` must be a string of characters of `width` bytes.
    unsafe fn mark(this: *const Self, width: usize) {
        crate::mark(this.cast(), size_of::<Self>());
        // SAFETY: a string object by the caller's promise.
        let Self { data, length, .. } = unsafe { this.read() };
        crate::mark(data.cast(), length.saturating_add(1).saturating_mul(width));
    }
}

macro_rules! into_string {
    ($($function:ident $symbol:literal $width:literal ($($arg:ident: $type:ty),*);)*) => {$(
        /// `std::getline` or `operator>>` into a `std::string`: explicit specialisations inside libstdc++.so.
        ///
        /// # Safety
        ///
        /// As for the C++ function. It may throw.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C-unwind" fn $function(
            stream: *mut c_void, string: *mut CxxString, $($arg: $type),*
        ) -> *mut c_void {
            type F = unsafe extern "C-unwind" fn(*mut c_void, *mut CxxString, $($type),*) -> *mut c_void;
            static NEXT: Next = Next::new(match CStr::from_bytes_with_nul(concat!($symbol, "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!(),
            });
            /// Marks on every way out: part of the string may be written when a read throws.
            struct Marked(*mut CxxString);
            impl Drop for Marked {
                fn drop(&mut self) {
                    // SAFETY: the caller's string, well-formed also after an exception.
                    unsafe { CxxString::mark(self.0, $width) };
                }
            }
            let _marked = Marked(string);
            // SAFETY: the symbol has this signature, references being pointers; the arguments are the caller's.
            unsafe { transmute::<*mut c_void, F>(NEXT.get())(stream, string, $($arg),*) }
        }
    )*};
}
into_string! {
    getline_char "_ZSt7getlineIcSt11char_traitsIcESaIcEERSt13basic_istreamIT_T0_ES7_RNSt7__cxx1112basic_stringIS4_S5_T1_EES4_" 1 (delimiter: c_char);
    getline_char_newline "_ZSt7getlineIcSt11char_traitsIcESaIcEERSt13basic_istreamIT_T0_ES7_RNSt7__cxx1112basic_stringIS4_S5_T1_EE" 1 ();
    getline_wide "_ZSt7getlineIwSt11char_traitsIwESaIwEERSt13basic_istreamIT_T0_ES7_RNSt7__cxx1112basic_stringIS4_S5_T1_EES4_" 4 (delimiter: c_int);
    getline_wide_newline "_ZSt7getlineIwSt11char_traitsIwESaIwEERSt13basic_istreamIT_T0_ES7_RNSt7__cxx1112basic_stringIS4_S5_T1_EE" 4 ();
    extract_char "_ZStrsIcSt11char_traitsIcESaIcEERSt13basic_istreamIT_T0_ES7_RNSt7__cxx1112basic_stringIS4_S5_T1_EE" 1 ();
    extract_wide "_ZStrsIwSt11char_traitsIwESaIwEERSt13basic_istreamIT_T0_ES7_RNSt7__cxx1112basic_stringIS4_S5_T1_EE" 4 ();
}

macro_rules! into_buffer {
    ($($function:ident $symbol:literal $returns:ty, $args:tt $mark:block;)*) => {$(
        into_buffer!(@one $function $symbol $returns, $args $mark);
    )*};
    (@one $function:ident $symbol:literal $returns:ty, ($this:ident, $buffer:ident, $count:ident $(, $arg:ident: $type:ty)*) $mark:block) => {
        /// A member of the streams that fills the caller's buffer from inside libstdc++.so.
        ///
        /// # Safety
        ///
        /// As for the C++ function. It may throw.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C-unwind" fn $function(
            $this: *mut c_void, $buffer: *mut c_char, $count: c_long $(, $arg: $type)*
        ) -> $returns {
            type F = unsafe extern "C-unwind" fn(*mut c_void, *mut c_char, c_long $(, $type)*) -> $returns;
            static NEXT: Next = Next::new(match CStr::from_bytes_with_nul(concat!($symbol, "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!(),
            });
            // SAFETY: the symbol has this signature; the arguments are the caller's.
            let result = unsafe { transmute::<*mut c_void, F>(NEXT.get())($this, $buffer, $count $(, $arg)*) };
            $mark
            result
        }
    };
}

/// Marks the `count` characters of `width` bytes that a call may have written.
fn mark_buffer(buffer: *const c_char, count: c_long, width: usize) {
    crate::mark(
        buffer.cast(),
        usize::try_from(count).unwrap_or(0).saturating_mul(width),
    );
}

into_buffer! {
    filebuf_xsgetn "_ZNSt13basic_filebufIcSt11char_traitsIcEE6xsgetnEPcl" c_long, (this, buffer, count)
        { mark_buffer(buffer, count, 1) };
    filebuf_xsgetn_wide "_ZNSt13basic_filebufIwSt11char_traitsIwEE6xsgetnEPwl" c_long, (this, buffer, count)
        { mark_buffer(buffer, count, 4) };
    streambuf_xsgetn "_ZNSt15basic_streambufIcSt11char_traitsIcEE6xsgetnEPcl" c_long, (this, buffer, count)
        { mark_buffer(buffer, count, 1) };
    streambuf_xsgetn_wide "_ZNSt15basic_streambufIwSt11char_traitsIwEE6xsgetnEPwl" c_long, (this, buffer, count)
        { mark_buffer(buffer, count, 4) };
    stdio_xsgetn "_ZN9__gnu_cxx18stdio_sync_filebufIcSt11char_traitsIcEE6xsgetnEPcl" c_long, (this, buffer, count)
        { mark_buffer(buffer, count, 1) };
    stdio_xsgetn_wide "_ZN9__gnu_cxx18stdio_sync_filebufIwSt11char_traitsIwEE6xsgetnEPwl" c_long, (this, buffer, count)
        { mark_buffer(buffer, count, 4) };
    istream_getline "_ZNSi7getlineEPclc" *mut c_void, (this, buffer, count, delimiter: c_char) {
        if count > 0 {
            // SAFETY: with room for it, getline has terminated what it read.
            unsafe { mark_str(buffer) }
        }
    };
    istream_get_until "_ZNSi3getEPclc" *mut c_void, (this, buffer, count, delimiter: c_char) {
        if count > 0 {
            // SAFETY: with room for it, get has terminated what it read.
            unsafe { mark_str(buffer) }
        }
    };
    istream_extract_word "_ZSt17__istream_extractRSiPcl" (), (this, buffer, count) {
        if count > 0 {
            // SAFETY: with room for it, the extraction has terminated what it read.
            unsafe { mark_str(buffer) }
        }
    };
}

/// `std::istreambuf_iterator`: travels in two registers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct StreamIterator {
    buffer: *mut c_void,
    character: c_int,
}

macro_rules! num_get {
    ($($function:ident $symbol:literal $size:literal;)*) => {$(
        /// `std::num_get<char>::do_get`: `stream >> number`.
        ///
        /// # Safety
        ///
        /// As for the C++ function. It may throw.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C-unwind" fn $function(
            this: *const c_void, first: StreamIterator, last: StreamIterator, stream: *mut c_void, state: *mut c_int,
            value: *mut c_void,
        ) -> StreamIterator {
            type F = unsafe extern "C-unwind" fn(
                *const c_void, StreamIterator, StreamIterator, *mut c_void, *mut c_int, *mut c_void,
            ) -> StreamIterator;
            static NEXT: Next = Next::new(match CStr::from_bytes_with_nul(concat!($symbol, "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!(),
            });
            // SAFETY: the symbol has this signature, references being pointers; the arguments are the caller's.
            let result = unsafe { transmute::<*mut c_void, F>(NEXT.get())(this, first, last, stream, state, value) };
            crate::mark(value.cast(), $size);
            result
        }
    )*};
}
num_get! {
    get_bool "_ZNKSt7num_getIcSt19istreambuf_iteratorIcSt11char_traitsIcEEE6do_getES3_S3_RSt8ios_baseRSt12_Ios_IostateRb" 1;
    get_u16 "_ZNKSt7num_getIcSt19istreambuf_iteratorIcSt11char_traitsIcEEE6do_getES3_S3_RSt8ios_baseRSt12_Ios_IostateRt" 2;
    get_u32 "_ZNKSt7num_getIcSt19istreambuf_iteratorIcSt11char_traitsIcEEE6do_getES3_S3_RSt8ios_baseRSt12_Ios_IostateRj" 4;
    get_long "_ZNKSt7num_getIcSt19istreambuf_iteratorIcSt11char_traitsIcEEE6do_getES3_S3_RSt8ios_baseRSt12_Ios_IostateRl" 8;
    get_ulong "_ZNKSt7num_getIcSt19istreambuf_iteratorIcSt11char_traitsIcEEE6do_getES3_S3_RSt8ios_baseRSt12_Ios_IostateRm" 8;
    get_i64 "_ZNKSt7num_getIcSt19istreambuf_iteratorIcSt11char_traitsIcEEE6do_getES3_S3_RSt8ios_baseRSt12_Ios_IostateRx" 8;
    get_u64 "_ZNKSt7num_getIcSt19istreambuf_iteratorIcSt11char_traitsIcEEE6do_getES3_S3_RSt8ios_baseRSt12_Ios_IostateRy" 8;
    get_f32 "_ZNKSt7num_getIcSt19istreambuf_iteratorIcSt11char_traitsIcEEE6do_getES3_S3_RSt8ios_baseRSt12_Ios_IostateRf" 4;
    get_f64 "_ZNKSt7num_getIcSt19istreambuf_iteratorIcSt11char_traitsIcEEE6do_getES3_S3_RSt8ios_baseRSt12_Ios_IostateRd" 8;
    get_f80 "_ZNKSt7num_getIcSt19istreambuf_iteratorIcSt11char_traitsIcEEE6do_getES3_S3_RSt8ios_baseRSt12_Ios_IostateRe" 16;
    get_pointer "_ZNKSt7num_getIcSt19istreambuf_iteratorIcSt11char_traitsIcEEE6do_getES3_S3_RSt8ios_baseRSt12_Ios_IostateRPv" 8;
}

/// `std::__detail::_Prime_rehash_policy`: how `std::unordered_*` grows. Its `const` members write `next_resize`.
#[repr(C)]
pub struct RehashPolicy {
    max_load_factor: f32,
    next_resize: usize,
}

/// `std::pair<bool, std::size_t>`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NeedRehash {
    needed: bool,
    buckets: usize,
}

/// `_Prime_rehash_policy::_M_next_bkt(n)`: the number of buckets to use for at least `n`.
///
/// # Safety
///
/// As for the C++ function.
#[unsafe(export_name = "_ZNKSt8__detail20_Prime_rehash_policy11_M_next_bktEm")]
pub unsafe extern "C" fn next_buckets(this: *mut RehashPolicy, n: usize) -> usize {
    type F = unsafe extern "C" fn(*mut RehashPolicy, usize) -> usize;
    static NEXT: Next = Next::new(c"_ZNKSt8__detail20_Prime_rehash_policy11_M_next_bktEm");
    // SAFETY: the symbol has this signature; the arguments are the caller's.
    let buckets = unsafe { transmute::<*mut c_void, F>(NEXT.get())(this, n) };
    crate::mark(this.cast(), size_of::<RehashPolicy>());
    buckets
}

/// `_Prime_rehash_policy::_M_need_rehash(buckets, elements, inserts)`: whether an insertion must rehash, and to how many
/// buckets.
///
/// # Safety
///
/// As for the C++ function.
#[unsafe(export_name = "_ZNKSt8__detail20_Prime_rehash_policy14_M_need_rehashEmmm")]
pub unsafe extern "C" fn need_rehash(
    this: *mut RehashPolicy,
    buckets: usize,
    elements: usize,
    inserts: usize,
) -> NeedRehash {
    type F = unsafe extern "C" fn(*mut RehashPolicy, usize, usize, usize) -> NeedRehash;
    static NEXT: Next = Next::new(c"_ZNKSt8__detail20_Prime_rehash_policy14_M_need_rehashEmmm");
    // SAFETY: the policy is the caller's.
    if elements.saturating_add(inserts) <= unsafe { (*this).next_resize } {
        // Most insertions: nothing to decide, nothing written.
        return NeedRehash {
            needed: false,
            buckets: 0,
        };
    }
    // SAFETY: the symbol has this signature; the arguments are the caller's.
    let need = unsafe { transmute::<*mut c_void, F>(NEXT.get())(this, buckets, elements, inserts) };
    crate::mark(this.cast(), size_of::<RehashPolicy>());
    need
}

/// A `long double` as an argument: 16 bytes on the stack. The field that is not aligned puts the type into the ABI's class
/// MEMORY, as `long double` is; Rust has no such number.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct LongDouble(u8, u64, [u8; 7]);

const _: () = assert!(size_of::<LongDouble>() == 16);

to_chars! {
    to_chars_f80 "_ZSt8to_charsPcS_e" (value: LongDouble);
    to_chars_f80_format "_ZSt8to_charsPcS_eSt12chars_format" (value: LongDouble, format: c_int);
    to_chars_f80_precision "_ZSt8to_charsPcS_eSt12chars_formati" (value: LongDouble, format: c_int, precision: c_int);
}

macro_rules! time_get {
    ($($function:ident $symbol:literal;)*) => {$(
        /// `std::time_get<char>::get`: `stream >> std::get_time(tm, format)`.
        ///
        /// # Safety
        ///
        /// As for the C++ function. It may throw.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C-unwind" fn $function(
            this: *const c_void, first: StreamIterator, last: StreamIterator, stream: *mut c_void, state: *mut c_int,
            time: *mut libc::tm, format: *const c_char, format_end: *const c_char,
        ) -> StreamIterator {
            type F = unsafe extern "C-unwind" fn(
                *const c_void, StreamIterator, StreamIterator, *mut c_void, *mut c_int,
                *mut libc::tm, *const c_char, *const c_char,
            ) -> StreamIterator;
            static NEXT: Next = Next::new(match CStr::from_bytes_with_nul(concat!($symbol, "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!(),
            });
            // SAFETY: the symbol has this signature, references being pointers; the arguments are the caller's.
            let result = unsafe {
                transmute::<*mut c_void, F>(NEXT.get())(this, first, last, stream, state, time, format, format_end)
            };
            crate::mark(time.cast(), size_of::<libc::tm>());
            result
        }
    )*};
}
time_get! {
    time_get_old "_ZNKSt8time_getIcSt19istreambuf_iteratorIcSt11char_traitsIcEEE3getES3_S3_RSt8ios_baseRSt12_Ios_IostateP2tmPKcSC_";
    time_get_cxx11 "_ZNKSt7__cxx118time_getIcSt19istreambuf_iteratorIcSt11char_traitsIcEEE3getES4_S4_RSt8ios_baseRSt12_Ios_IostateP2tmPKcSD_";
}

macro_rules! into_value {
    ($($function:ident $symbol:literal $size:literal;)*) => {$(
        /// `stream >> value`, `stream.get(value)` for types whose last store is inside libstdc++.so.
        ///
        /// # Safety
        ///
        /// As for the C++ function. It may throw.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C-unwind" fn $function(stream: *mut c_void, value: *mut c_void) -> *mut c_void {
            type F = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void) -> *mut c_void;
            static NEXT: Next = Next::new(match CStr::from_bytes_with_nul(concat!($symbol, "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!(),
            });
            // SAFETY: the symbol has this signature, references being pointers; the arguments are the caller's.
            let result = unsafe { transmute::<*mut c_void, F>(NEXT.get())(stream, value) };
            crate::mark(value.cast(), $size);
            result
        }
    )*};
}
into_value! {
    istream_int "_ZNSirsERi" 4;
    istream_short "_ZNSirsERs" 2;
    istream_get_char "_ZNSi3getERc" 1;
    istream_char "_ZStrsIcSt11char_traitsIcEERSt13basic_istreamIT_T0_ES6_RS3_" 1;
}
