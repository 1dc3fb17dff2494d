//! Vernal's compiler pass as a plugin: `-fpass-plugin=`, `opt -load-pass-plugin` and lld's `--load-pass-plugin`.
//!
//! The sources are shared by the plugins for all LLVM versions: see `llvm-pass/emit`.

#[path = "../../emit/src/mod.rs"]
mod emit;
