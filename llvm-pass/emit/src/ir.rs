//! LLVM's C interface in the few shapes that the pass uses.
//!
//! Every function here takes handles that LLVM gave out during the same pass run and that are alive: LLVM owns the IR, and
//! the pass deletes nothing. That is the invariant all `SAFETY` comments of the emitter refer to as "live IR".

use std::ffi::{CStr, CString};

use llvm_sys::comdat::{LLVMGetOrInsertComdat, LLVMSetComdat};
use llvm_sys::core::*;
use llvm_sys::prelude::{
    LLVMBasicBlockRef, LLVMContextRef, LLVMModuleRef, LLVMTypeRef, LLVMValueRef,
};
use llvm_sys::{LLVMAtomicOrdering, LLVMLinkage, LLVMOpcode, LLVMTypeKind};

pub type Value = LLVMValueRef;
pub type BasicBlock = LLVMBasicBlockRef;

/// The elements of one of LLVM's linked lists.
fn chain<T>(
    first: *mut T,
    next: unsafe extern "C" fn(*mut T) -> *mut T,
) -> impl Iterator<Item = *mut T> {
    let mut at = first;
    std::iter::from_fn(move || {
        let here = at;
        if here.is_null() {
            return None;
        }
        // SAFETY: live IR; `here` is an element of the list.
        at = unsafe { next(here) };
        Some(here)
    })
}

pub fn functions(m: LLVMModuleRef) -> impl Iterator<Item = Value> {
    // SAFETY: live IR.
    chain(unsafe { LLVMGetFirstFunction(m) }, LLVMGetNextFunction)
}

pub fn globals(m: LLVMModuleRef) -> impl Iterator<Item = Value> {
    // SAFETY: live IR.
    chain(unsafe { LLVMGetFirstGlobal(m) }, LLVMGetNextGlobal)
}

pub fn blocks(f: Value) -> impl Iterator<Item = BasicBlock> {
    // SAFETY: live IR; `f` is a function.
    chain(unsafe { LLVMGetFirstBasicBlock(f) }, LLVMGetNextBasicBlock)
}

pub fn instructions(b: BasicBlock) -> impl Iterator<Item = Value> {
    // SAFETY: live IR.
    chain(
        unsafe { LLVMGetFirstInstruction(b) },
        LLVMGetNextInstruction,
    )
}

/// The users of a value, once per use.
pub fn users(v: Value) -> impl Iterator<Item = Value> {
    // SAFETY: live IR.
    let mut at = unsafe { LLVMGetFirstUse(v) };
    std::iter::from_fn(move || {
        if at.is_null() {
            return None;
        }
        // SAFETY: live IR; `at` is a use.
        unsafe {
            let user = LLVMGetUser(at);
            at = LLVMGetNextUse(at);
            Some(user)
        }
    })
}

pub fn successors(b: BasicBlock) -> Vec<BasicBlock> {
    // SAFETY: live IR; a terminated block's successors are blocks.
    unsafe {
        let t = LLVMGetBasicBlockTerminator(b);
        if t.is_null() {
            return vec![];
        }
        let mut all = Vec::new();
        for i in 0..LLVMGetNumSuccessors(t) {
            let s = LLVMGetSuccessor(t, i);
            if !all.contains(&s) {
                all.push(s);
            }
        }
        all
    }
}

pub fn terminator(b: BasicBlock) -> Value {
    // SAFETY: live IR.
    unsafe { LLVMGetBasicBlockTerminator(b) }
}

pub fn parent(i: Value) -> BasicBlock {
    // SAFETY: live IR; `i` is an instruction.
    unsafe { LLVMGetInstructionParent(i) }
}

pub fn is_instruction(v: Value) -> bool {
    // SAFETY: live IR.
    unsafe { !LLVMIsAInstruction(v).is_null() }
}

pub fn is_argument(v: Value) -> bool {
    // SAFETY: live IR.
    unsafe { !LLVMIsAArgument(v).is_null() }
}

pub fn is_function(v: Value) -> bool {
    // SAFETY: live IR.
    unsafe { !LLVMIsAFunction(v).is_null() }
}

/// The opcode of an instruction, or of a constant expression.
pub fn opcode(v: Value) -> Option<LLVMOpcode> {
    // SAFETY: live IR; the casts answer null for other values.
    unsafe {
        if !LLVMIsAInstruction(v).is_null() {
            Some(LLVMGetInstructionOpcode(v))
        } else if !LLVMIsAConstantExpr(v).is_null() {
            Some(LLVMGetConstOpcode(v))
        } else {
            None
        }
    }
}

pub fn operand(v: Value, i: u32) -> Value {
    // SAFETY: live IR; callers pass an index that the opcode has.
    unsafe { LLVMGetOperand(v, i) }
}

pub fn operands(v: Value) -> u32 {
    // SAFETY: live IR; `v` is a user.
    unsafe { LLVMGetNumOperands(v) }.max(0) as u32
}

pub fn type_of(v: Value) -> LLVMTypeRef {
    // SAFETY: live IR.
    unsafe { LLVMTypeOf(v) }
}

pub fn is_pointer(v: Value) -> bool {
    // SAFETY: live IR.
    unsafe { LLVMGetTypeKind(type_of(v)) == LLVMTypeKind::LLVMPointerTypeKind }
}

pub fn address_space(v: Value) -> u32 {
    // SAFETY: live IR; `v` is a pointer.
    unsafe { LLVMGetPointerAddressSpace(type_of(v)) }
}

pub fn is_void(v: Value) -> bool {
    // SAFETY: live IR.
    unsafe { LLVMGetTypeKind(type_of(v)) == LLVMTypeKind::LLVMVoidTypeKind }
}

/// The value of a constant integer.
pub fn const_int(v: Value) -> Option<u64> {
    // SAFETY: live IR; the width is checked before the value is read.
    unsafe {
        let c = LLVMIsAConstantInt(v);
        (!c.is_null() && LLVMGetIntTypeWidth(type_of(c)) <= 64).then(|| LLVMConstIntGetZExtValue(c))
    }
}

pub fn name(v: Value) -> String {
    let mut len = 0;
    // SAFETY: live IR; the bytes are `len` long and copied at once.
    unsafe {
        let p = LLVMGetValueName2(v, &mut len);
        String::from_utf8_lossy(std::slice::from_raw_parts(p.cast(), len)).into_owned()
    }
}

pub fn has_body(f: Value) -> bool {
    // SAFETY: live IR; `f` is a function.
    unsafe {
        LLVMIsDeclaration(f) == 0
            && LLVMGetLinkage(f) != LLVMLinkage::LLVMAvailableExternallyLinkage
    }
}

pub fn is_local(f: Value) -> bool {
    // SAFETY: live IR; `f` is a global.
    let linkage = unsafe { LLVMGetLinkage(f) };
    matches!(
        linkage,
        LLVMLinkage::LLVMInternalLinkage | LLVMLinkage::LLVMPrivateLinkage
    )
}

pub fn is_call(v: Value) -> bool {
    matches!(
        opcode(v),
        Some(LLVMOpcode::LLVMCall | LLVMOpcode::LLVMInvoke | LLVMOpcode::LLVMCallBr)
    )
}

/// The function that a call names, if its type fits the call.
pub fn callee(call: Value) -> Option<Value> {
    // SAFETY: live IR; `call` is a call.
    unsafe {
        let f = LLVMIsAFunction(LLVMGetCalledValue(call));
        (!f.is_null() && LLVMGlobalGetValueType(f) == LLVMGetCalledFunctionType(call)).then_some(f)
    }
}

pub fn called_value(call: Value) -> Value {
    // SAFETY: live IR; `call` is a call.
    unsafe { LLVMGetCalledValue(call) }
}

pub fn args(call: Value) -> u32 {
    // SAFETY: live IR; `call` is a call.
    unsafe { LLVMGetNumArgOperands(call) }
}

pub fn params(f: Value) -> Vec<Value> {
    // SAFETY: live IR; `f` is a function and `n` its number of parameters.
    unsafe {
        (0..LLVMCountParams(f))
            .map(|n| LLVMGetParam(f, n))
            .collect()
    }
}

/// The name of the intrinsic that a call calls (`llvm.…`).
pub fn intrinsic(call: Value) -> Option<String> {
    let f = called_value(call);
    // SAFETY: live IR; asked only for functions.
    (is_function(f) && unsafe { LLVMGetIntrinsicID(f) } != 0).then(|| name(f))
}

pub fn is_volatile(i: Value) -> bool {
    // SAFETY: live IR; `i` is a load, store, atomicrmw or cmpxchg.
    unsafe { LLVMGetVolatile(i) != 0 }
}

pub fn ordering(i: Value) -> LLVMAtomicOrdering {
    // SAFETY: live IR; `i` is a load or store.
    unsafe { LLVMGetOrdering(i) }
}

pub fn alignment(i: Value) -> u64 {
    // SAFETY: live IR; `i` accesses memory.
    u64::from(unsafe { LLVMGetAlignment(i) })
}

fn cstr(s: &str) -> CString {
    CString::new(s).unwrap_or_default()
}

pub fn attribute_kind(name: &str) -> u32 {
    // SAFETY: the name is a byte range.
    unsafe { LLVMGetEnumAttributeKindForName(name.as_ptr().cast(), name.len()) }
}

const ON_FUNCTION: u32 = llvm_sys::LLVMAttributeFunctionIndex;

pub fn has_enum_attribute(f: Value, attr: &str) -> bool {
    // SAFETY: live IR; `f` is a function.
    unsafe { !LLVMGetEnumAttributeAtIndex(f, ON_FUNCTION, attribute_kind(attr)).is_null() }
}

/// The type of the object that a call makes where its first argument points to (`sret`).
pub fn returned_in_place(call: Value) -> Option<LLVMTypeRef> {
    const FIRST_ARGUMENT: u32 = 1;
    // SAFETY: live IR; `call` is a call, and `sret` is an attribute with a type.
    unsafe {
        let sret = LLVMGetCallSiteEnumAttribute(call, FIRST_ARGUMENT, attribute_kind("sret"));
        (!sret.is_null()).then(|| LLVMGetTypeAttributeValue(sret))
    }
}

pub fn has_string_attribute(f: Value, attr: &str) -> bool {
    // SAFETY: live IR; `f` is a function.
    unsafe {
        !LLVMGetStringAttributeAtIndex(f, ON_FUNCTION, attr.as_ptr().cast(), attr.len() as u32)
            .is_null()
    }
}

pub fn string_attribute(f: Value, attr: &str) -> Option<String> {
    let mut len = 0;
    // SAFETY: live IR; `f` is a function; the bytes are `len` long and copied at once.
    unsafe {
        let a =
            LLVMGetStringAttributeAtIndex(f, ON_FUNCTION, attr.as_ptr().cast(), attr.len() as u32);
        if a.is_null() {
            return None;
        }
        let p = LLVMGetStringAttributeValue(a, &mut len);
        Some(
            String::from_utf8_lossy(std::slice::from_raw_parts(p.cast(), len as usize))
                .into_owned(),
        )
    }
}

pub fn add_string_attribute(c: LLVMContextRef, f: Value, attr: &str) {
    // SAFETY: live IR; `f` is a function of context `c`.
    unsafe {
        let a =
            LLVMCreateStringAttribute(c, attr.as_ptr().cast(), attr.len() as u32, c"".as_ptr(), 0);
        LLVMAddAttributeAtIndex(f, ON_FUNCTION, a);
    }
}

pub fn add_enum_attribute(c: LLVMContextRef, f: Value, attr: &str, value: u64) {
    // SAFETY: live IR; `f` is a function of context `c`, and the attribute's name is LLVM's.
    unsafe {
        LLVMAddAttributeAtIndex(
            f,
            ON_FUNCTION,
            LLVMCreateEnumAttribute(c, attribute_kind(attr), value),
        )
    }
}

pub fn add_call_attribute(c: LLVMContextRef, call: Value, attr: &str, value: u64) {
    // SAFETY: live IR; `call` is a call of context `c`, and the attribute's name is LLVM's.
    unsafe {
        LLVMAddCallSiteAttribute(
            call,
            ON_FUNCTION,
            LLVMCreateEnumAttribute(c, attribute_kind(attr), value),
        )
    }
}

pub fn named_global(m: LLVMModuleRef, name: &str) -> Option<Value> {
    let name = cstr(name);
    // SAFETY: live IR; the name is terminated.
    let g = unsafe { LLVMGetNamedGlobal(m, name.as_ptr()) };
    (!g.is_null()).then_some(g)
}

pub fn named_function(m: LLVMModuleRef, name: &str) -> Option<Value> {
    let name = cstr(name);
    // SAFETY: live IR; the name is terminated.
    let f = unsafe { LLVMGetNamedFunction(m, name.as_ptr()) };
    (!f.is_null()).then_some(f)
}

pub fn add_function(m: LLVMModuleRef, name: &str, t: LLVMTypeRef) -> Value {
    let name = cstr(name);
    // SAFETY: live IR; the name is terminated.
    unsafe { LLVMAddFunction(m, name.as_ptr(), t) }
}

pub fn add_global(m: LLVMModuleRef, name: &str, t: LLVMTypeRef) -> Value {
    let name = cstr(name);
    // SAFETY: live IR; the name is terminated.
    unsafe { LLVMAddGlobal(m, t, name.as_ptr()) }
}

pub fn set_section(g: Value, section: &str) {
    let section = cstr(section);
    // SAFETY: live IR; LLVM copies the name.
    unsafe { LLVMSetSection(g, section.as_ptr()) }
}

/// Lets the linker keep one of all objects' globals with this name.
pub fn set_comdat(m: LLVMModuleRef, g: Value, name: &str) {
    let name = cstr(name);
    // SAFETY: live IR; the name is terminated, and the comdat belongs to the module.
    unsafe { LLVMSetComdat(g, LLVMGetOrInsertComdat(m, name.as_ptr())) };
}

pub fn module_name(m: LLVMModuleRef) -> String {
    let mut len = 0;
    // SAFETY: live IR; the bytes are `len` long and copied at once.
    unsafe {
        let p = LLVMGetModuleIdentifier(m, &mut len);
        String::from_utf8_lossy(std::slice::from_raw_parts(p.cast(), len)).into_owned()
    }
}

/// The text of an inline-assembly callee's constraints.
pub fn asm_constraints(callee: Value) -> Option<String> {
    let mut len = 0;
    // SAFETY: live IR; asked only for inline assembly, whose bytes are copied at once.
    unsafe {
        if LLVMIsAInlineAsm(callee).is_null() {
            return None;
        }
        let p = LLVMGetInlineAsmConstraintString(callee, &mut len);
        Some(String::from_utf8_lossy(std::slice::from_raw_parts(p.cast(), len)).into_owned())
    }
}

/// The words of the annotation strings of all functions: function, text.
pub fn annotations(m: LLVMModuleRef) -> Vec<(Value, String)> {
    let Some(g) = named_global(m, "llvm.global.annotations") else {
        return vec![];
    };
    let mut found = Vec::new();
    // SAFETY: live IR; every step is checked for the shape that clang gives the array.
    unsafe {
        let array = LLVMGetInitializer(g);
        if array.is_null() {
            return found;
        }
        for i in 0..operands(array) {
            let entry = operand(array, i);
            if operands(entry) < 2 {
                continue;
            }
            let (f, text) = (operand(entry, 0), LLVMIsAGlobalVariable(operand(entry, 1)));
            if text.is_null() || !is_function(f) {
                continue;
            }
            let data = LLVMGetInitializer(text);
            if !data.is_null() && LLVMIsConstantString(data) != 0 {
                let mut len = 0;
                let p = LLVMGetAsString(data, &mut len);
                let bytes = std::slice::from_raw_parts(p.cast::<u8>(), len);
                let text =
                    CStr::from_bytes_until_nul(bytes).map(|c| c.to_string_lossy().into_owned());
                found.push((f, text.unwrap_or_default()));
            }
        }
    }
    found
}
