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

/// One node of debug information, by tag; pointers are null and numbers 0 where it has none.
#[repr(C)]
pub struct RawDie {
    pub tag: u32,
    pub encoding: u32,
    pub flags: u32,
    pub align: u32,
    pub size: u64,
    pub offset: u64,
    pub value: u64,
    pub name: *const c_char,
    pub identifier: *const c_char,
    pub name_len: usize,
    pub identifier_len: usize,
    pub base: *mut c_void,
    pub scope: *mut c_void,
}

/// Bits of [`RawDie::flags`].
pub mod die_flags {
    pub const FORWARD: u32 = 1;
    pub const VIRTUAL: u32 = 2;
    pub const BIT_FIELD: u32 = 4;
    pub const STATIC: u32 = 8;
    pub const ARTIFICIAL: u32 = 16;
    pub const ENUM_CLASS: u32 = 32;
    pub const VECTOR: u32 = 64;
    pub const UNSIGNED_VALUE: u32 = 128;
}

/// Receives a node or a text.
pub type VisitNode = unsafe extern "C" fn(*mut c_void, *mut c_void, *const c_char, usize);

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
    pub fn vernal_shim_die(node: *mut c_void, out: *mut RawDie);
    pub fn vernal_shim_die_list(
        node: *mut c_void,
        which: c_int,
        ctx: *mut c_void,
        visit: VisitNode,
    );
    pub fn vernal_shim_allocated_type(call: LLVMValueRef) -> *mut c_void;
    pub fn vernal_shim_strip(m: LLVMModuleRef);
    pub fn vernal_shim_demangle(
        symbol: *const c_char,
        len: usize,
        ctx: *mut c_void,
        visit: VisitNode,
    );
    pub fn vernal_shim_constructor(m: LLVMModuleRef, f: LLVMValueRef, priority: c_int);
}
