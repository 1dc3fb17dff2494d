//! Notes in the object file: the ABI it was compiled for, and whether a link-time run of the pass is still due.

use llvm_sys::LLVMLinkage;
use llvm_sys::LLVMVisibility;
use llvm_sys::core::*;
use llvm_sys::prelude::LLVMModuleRef;
use vernal_abi::{ABI_SYMBOL, LTO_PENDING_SYMBOL};

use super::{ir, shim};

/// The pointer in an object that refers to the ABI symbol.
const ABI_NOTE: &str = "__vernal_abi_note";
/// The pointer in an LTO object that refers to the pending symbol.
const PENDING_NOTE: &str = "__vernal_lto_note";

/// Adds a retained pointer to the symbol `to`.
fn note(m: LLVMModuleRef, name: &str, to: &str, section: &str) {
    if ir::named_global(m, name).is_some() {
        return;
    }
    // SAFETY: live IR; types are of the module's context.
    unsafe {
        let c = LLVMGetModuleContext(m);
        let target = ir::named_global(m, to)
            .unwrap_or_else(|| ir::add_global(m, to, LLVMInt8TypeInContext(c)));
        let g = ir::add_global(m, name, LLVMPointerTypeInContext(c, 0));
        LLVMSetInitializer(g, target);
        LLVMSetGlobalConstant(g, 1);
        LLVMSetLinkage(g, LLVMLinkage::LLVMLinkOnceODRLinkage);
        LLVMSetVisibility(g, LLVMVisibility::LLVMHiddenVisibility);
        ir::set_section(g, section);
        shim::vernal_shim_use(m, g);
    }
}

/// Ties the module to the ABI version it was instrumented for.
pub fn add_abi_note(m: LLVMModuleRef) {
    note(m, ABI_NOTE, ABI_SYMBOL, ".vernal.abi");
}

/// Notes that the module must still be instrumented when it is linked.
pub fn add_pending(m: LLVMModuleRef) {
    note(m, PENDING_NOTE, LTO_PENDING_SYMBOL, ".vernal.lto");
}

/// Whether the note is there.
pub fn is_pending(m: LLVMModuleRef) -> bool {
    ir::named_global(m, PENDING_NOTE).is_some()
}

/// Takes the note away: the module is being instrumented.
pub fn remove_pending(m: LLVMModuleRef) {
    let Some(g) = ir::named_global(m, PENDING_NOTE) else {
        return;
    };
    // SAFETY: live IR; the note is used by `llvm.used` alone, and its target by the note alone.
    unsafe {
        shim::vernal_shim_unuse(m, g);
        LLVMDeleteGlobal(g);
        if let Some(s) = ir::named_global(m, LTO_PENDING_SYMBOL)
            && ir::users(s).next().is_none()
        {
            LLVMDeleteGlobal(s);
        }
    }
}

/// Whether clang made this module for an LTO link: it sets one flag for full LTO and both kinds share the other.
pub fn has_lto_flag(m: LLVMModuleRef) -> bool {
    [c"ThinLTO", c"EnableSplitLTOUnit"].iter().any(|flag| {
        // SAFETY: live IR; the name's length is given.
        unsafe { !LLVMGetModuleFlag(m, flag.as_ptr(), flag.count_bytes()).is_null() }
    })
}
