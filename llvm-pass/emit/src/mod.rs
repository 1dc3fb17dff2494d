//! From LLVM IR to the model of `vernal-select`, and from its plan back to IR.
//!
//! * [`plugin`]: what LLVM loads; one run over a module.
//! * [`ir`]: the few shapes of LLVM's C interface that the rest uses.
//! * [`shim`]: what only C++ can do (declarations of `shim/shim.cpp`).
//! * [`objects`]: what a pointer may point to, across functions; [`effects`]: which calls may commit or publish.
//! * [`writers`]: what an instruction writes; [`extract`]: the model of a function.
//! * [`insert`]: the marks in IR; [`guard`]: the range check; [`thunk`]: what cold blocks call; [`lanes`]: scatters;
//!   [`lto`]: the notes that tie objects to the ABI and to the link.
//! * [`types`]: the types of allocations, from what [`debug_info`] reads, as `vernal-maps` describes them.

mod debug_info;
mod effects;
mod extract;
mod guard;
mod insert;
mod ir;
mod lanes;
mod lto;
mod objects;
mod plugin;
mod shim;
mod thunk;
mod types;
mod writers;
