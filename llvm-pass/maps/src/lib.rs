//! Pointer maps: what debug information says about a type, as the descriptor that pools and archives keep.
//!
//! The pass gives this crate the debug information that clang attaches to an allocation, node by node ([`Source`]), and
//! gets back a [`Described`]: the descriptor's bytes and the address points of its vtable pointers. Everything that has
//! to be decided is decided here, without LLVM, so that it is tested by plain unit tests:
//!
//! * [`names`](name_of): what a type is called, alike in C and C++ and for every version of clang;
//! * which union can be walked, and what the program's annotations say ([`Notes`]);
//! * where virtual bases lie and what vtable pointers must hold ([`VtableView`]);
//! * what libstdc++ hides in untyped buffers.
//!
//! How nested types become leaf fields is `vernal_format::types`, which the derive for Rust shares.
#![forbid(unsafe_code)]

mod align;
mod describe;
mod die;
mod names;
mod notes;
mod print;
mod record;
mod shapes;
mod unions;
mod vtable;

#[cfg(test)]
mod tests;

pub use describe::{DescribeError, Described, Describer};
pub use die::{Die, DieFlags, NodeId, Source, ate, tag};
pub use names::name_of;
pub use notes::Notes;
pub use vtable::{Bound, Slot, VtableView};
