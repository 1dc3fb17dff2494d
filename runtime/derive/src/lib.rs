//! `#[derive(Persist)]`: lets a Rust type live in a pool, and describes its layout to the pool.
//!
//! Used through the `vernal` crate, whose documentation says what may be persistent.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod expand;
mod fields;
mod options;

use proc_macro::TokenStream;

/// Implements `vernal::Persist` for a struct with `#[repr(C)]` or `#[repr(transparent)]`, or for an enum without fields
/// and with `#[repr(u8)]` or another integer.
///
/// - At most one lifetime parameter: the brand of the transaction, which the type's `PBox`, `PVec` and `PString` fields
///   carry.
/// - Type parameters get the bound `Persist`.
/// - `#[persist(name = "node")]` gives the type's name in the pool, which is `module::path::Type` otherwise. With it a
///   type can be moved to another module, or shared with C and C++.
#[proc_macro_derive(Persist, attributes(persist))]
pub fn derive_persist(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::persist(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
