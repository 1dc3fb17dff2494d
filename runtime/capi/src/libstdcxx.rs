//! The functions of libstdc++'s shared library that write into their caller's objects.
//!
//! `std::map`, `std::set` and `std::list` are templates, and so compiled and instrumented with the program, but they link
//! and balance their nodes by functions inside libstdc++.so, which no pass has seen. libvernal comes before libstdc++ in
//! the search order, so that these functions are found here instead: the same contracts, and everything that is written
//! is marked. They work on any memory; marking is a range check outside the tracked range.
//!
//! - [`tree`]: red-black insertion and removal (`std::map`, `set`, `multimap`, `multiset`)
//! - [`list`]: node linking (`std::list`)
//! - [`forward`]: functions whose result lies in the caller's memory and that are called as they are and marked afterwards
//!   (rehash policy of `std::unordered_*`, number conversions, `getline`, ...)
//!
//! Members of `std::string`, which libstdc++.so also holds ready-made, are not here: vernal-c++ has them compiled with the
//! program (`tools/vernal-cc/include-cxx`).

mod forward;
mod list;
mod tree;

/// Writes `value` to `*place` and marks it.
///
/// # Safety
///
/// `place` must be valid for a write of `T` and no other thread may access it now.
#[inline(always)]
unsafe fn put<T>(place: *mut T, value: T) {
    // SAFETY: the caller's promise is that of `write`.
    unsafe { place.write(value) };
    crate::mark(place.cast(), size_of::<T>());
}
