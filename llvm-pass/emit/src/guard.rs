//! The range check, as it travels through the optimiser and as it ends.
//!
//! It travels as a call of a function without effects: the optimiser would rewrite a shift and compare into a mask and
//! compare with two 64-bit constants, and keep those in callee-saved registers.

use llvm_sys::LLVMIntPredicate;
use llvm_sys::core::*;
use llvm_sys::prelude::{LLVMContextRef, LLVMModuleRef, LLVMTypeRef};

use super::ir::{self, Value};

const NAME: *const std::ffi::c_char = c"".as_ptr();

/// The function that stands for a range check while the optimiser runs.
const GUARD: &str = "__vernal_is_tracked";

/// Finds or declares it.
pub fn guard(m: LLVMModuleRef, c: LLVMContextRef, ptr: LLVMTypeRef) -> (Value, LLVMTypeRef) {
    // SAFETY: live IR; types are of the module's context.
    let t = unsafe { LLVMFunctionType(LLVMInt1TypeInContext(c), [ptr].as_mut_ptr(), 1, 0) };
    let f = ir::named_function(m, GUARD).unwrap_or_else(|| {
        let f = ir::add_function(m, GUARD, t);
        for a in ["nounwind", "willreturn", "nosync", "nofree", "speculatable"] {
            ir::add_enum_attribute(c, f, a, 0);
        }
        ir::add_enum_attribute(c, f, "memory", 0);
        f
    });
    (f, t)
}

/// Turns the stand-ins for range checks into a shift and a compare.
pub fn lower(m: LLVMModuleRef) {
    let Some(f) = ir::named_function(m, GUARD) else {
        return;
    };
    let calls: Vec<Value> = ir::users(f).collect();
    // SAFETY: live IR; all uses of the stand-in are direct calls made by this pass or copies of them.
    unsafe {
        let c = LLVMGetModuleContext(m);
        let (i64, b) = (LLVMInt64TypeInContext(c), LLVMCreateBuilderInContext(c));
        for call in calls {
            LLVMPositionBuilderBefore(b, call);
            let at = LLVMBuildPtrToInt(b, ir::operand(call, 0), i64, NAME);
            let tag = LLVMBuildLShr(
                b,
                at,
                LLVMConstInt(i64, u64::from(vernal_abi::TRACKED_SHIFT), 0),
                NAME,
            );
            let is = LLVMConstInt(i64, vernal_abi::TRACKED_TAG, 0);
            LLVMReplaceAllUsesWith(
                call,
                LLVMBuildICmp(b, LLVMIntPredicate::LLVMIntEQ, tag, is, NAME),
            );
            LLVMInstructionEraseFromParent(call);
        }
        LLVMDisposeBuilder(b);
        LLVMDeleteFunction(f);
    }
}
