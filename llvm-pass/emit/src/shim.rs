//! Declarations of the C++ shim, `shim/shim.cpp`. It says what each function does.

use std::ffi::{c_char, c_int, c_uint, c_void};

use llvm_sys::prelude::{LLVMBasicBlockRef, LLVMModuleRef, LLVMTypeRef, LLVMValueRef};

/// `llvm::FunctionAnalysisManager`.
#[repr(C)]
pub struct AnalysisManager {
    opaque: [u8; 0],
}

/// Receives one loop: context, loop, parent, whether its exits are its own, blocks, exits.
pub type VisitLoop = unsafe extern "C" fn(
    *mut c_void,
    *mut c_void,
    *mut c_void,
    c_int,
    *const LLVMBasicBlockRef,
    usize,
    *const LLVMBasicBlockRef,
    usize,
);

unsafe extern "C" {
    pub fn vernal_shim_register(pass_builder: *mut c_void);
    pub fn vernal_shim_api_version() -> u32;
    pub fn vernal_shim_base(m: LLVMModuleRef, ptr: LLVMValueRef, offset: *mut i64) -> LLVMValueRef;
    pub fn vernal_shim_root(ptr: LLVMValueRef) -> LLVMValueRef;
    pub fn vernal_shim_store_size(m: LLVMModuleRef, t: LLVMTypeRef) -> u64;
    pub fn vernal_shim_is_interposable(f: LLVMValueRef) -> c_int;
    pub fn vernal_shim_may_write(call: LLVMValueRef) -> c_int;
    pub fn vernal_shim_arg_written(call: LLVMValueRef, arg: c_uint) -> c_int;
    pub fn vernal_shim_param_elementtype(call: LLVMValueRef, arg: c_uint) -> LLVMTypeRef;
    pub fn vernal_shim_is_musttail(call: LLVMValueRef) -> c_int;
    pub fn vernal_shim_arg_byval(arg: LLVMValueRef) -> c_int;
    pub fn vernal_shim_frequency(
        fam: *mut AnalysisManager,
        f: LLVMValueRef,
        b: LLVMBasicBlockRef,
    ) -> f64;
    pub fn vernal_shim_loops(
        fam: *mut AnalysisManager,
        f: LLVMValueRef,
        ctx: *mut c_void,
        visit: VisitLoop,
    );
    pub fn vernal_shim_loop_range(
        fam: *mut AnalysisManager,
        lp: *mut c_void,
        store: LLVMValueRef,
        ptr: LLVMValueRef,
        size: u64,
        first: *mut LLVMValueRef,
        length: *mut LLVMValueRef,
    ) -> c_int;
    pub fn vernal_shim_split_before(at: LLVMValueRef) -> LLVMBasicBlockRef;
    pub fn vernal_shim_split_edge(terminator: LLVMValueRef, to: LLVMBasicBlockRef) -> LLVMValueRef;
    pub fn vernal_shim_first_insertion(bb: LLVMBasicBlockRef) -> LLVMValueRef;
    pub fn vernal_shim_use(m: LLVMModuleRef, g: LLVMValueRef);
    pub fn vernal_shim_unuse(m: LLVMModuleRef, g: LLVMValueRef);
    pub fn vernal_shim_warn(at: LLVMValueRef, text: *const c_char, len: usize);
}
