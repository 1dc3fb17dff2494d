//! The marking functions that instrumented code calls from its cold blocks.
//!
//! They have a calling convention of their own, the cheapest for the code around the call: the address goes in r11 (a
//! register that hardly anything lives in), a length in r10, and every other general-purpose register is kept. The call is
//! inline assembly, so that a function does not stop being a leaf, nor spills, nor aligns its stack, for a mark that never
//! happens. What the hooks may destroy (the vector registers) is a clobber: values that live there are saved in the cold
//! block only. Functions with marks have no red zone, since the call pushes a return address.
//!
//! A thunk looks at the tag and at the shadow byte itself, so a call without a range check before it is right too.

use std::ffi::CString;

use llvm_sys::comdat::{LLVMGetOrInsertComdat, LLVMSetComdat};
use llvm_sys::core::*;
use llvm_sys::prelude::{LLVMBuilderRef, LLVMContextRef, LLVMModuleRef, LLVMTypeRef};
use llvm_sys::{LLVMInlineAsmDialect, LLVMLinkage, LLVMUnnamedAddr, LLVMVisibility};
use vernal_abi::{
    LINE_SHIFT, LINE_SIZE, SHADOW_BASE, SHADOW_CLEAN, TRACKED_BASE, TRACKED_SHIFT, TRACKED_TAG,
    hooks,
};

use super::ir::{self, Value};

/// `preserve_most` in LLVM's numbering.
const PRESERVE_MOST: u32 = 14;
/// `memory(argmem: read, inaccessiblemem: readwrite)`: loads may move over a mark, stores to the marked object may not.
const MARK_MEMORY: u64 = 0b11_01;
const NAME: *const std::ffi::c_char = c"".as_ptr();

/// What a thunk marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// The line of a byte.
    Line,
    /// This many bytes, at most a line's length.
    Span(u64),
    /// As many bytes as r10 says.
    Range,
    /// A terminated string.
    Cstr,
}

// The thunks rotate the tag into the low 16 bits; what remains above is the offset in the tracked range.
const _: () = assert!(TRACKED_SHIFT >= 32 && TRACKED_TAG < 1 << 15 && SHADOW_CLEAN == 0);

impl Shape {
    fn name(self) -> String {
        match self {
            Self::Line => "__vernal_thunk_line".into(),
            Self::Span(n) => format!("__vernal_thunk_span{n}"),
            Self::Range => "__vernal_thunk_range".into(),
            Self::Cstr => "__vernal_thunk_cstr".into(),
        }
    }

    /// The hook behind it, and whether that takes a length.
    fn hook(self) -> (&'static str, bool) {
        match self {
            Self::Line => (hooks::MARK_LINE, false),
            Self::Span(_) | Self::Range => (hooks::MARK_RANGE, true),
            Self::Cstr => (hooks::MARK_CSTR, false),
        }
    }

    /// The thunk's code; `${0:P}` is the hook.
    fn code(self) -> String {
        let up = 64 - TRACKED_SHIFT;
        let down = up + LINE_SHIFT;
        let tag = format!("rolq $$ {up}, %r11\ncmpw $$ {TRACKED_TAG}, %r11w\njne 9f\n");
        let call = "pushq %rbp\nmovq %rsp, %rbp\nandq $$ -16, %rsp\ncallq ${0:P}\nmovq %rbp, %rsp\npopq %rbp\n";
        let text = match self {
            Self::Line => format!(
                "{tag}shrq $$ {down}, %r11\npushq %rax\nmovabsq $$ {SHADOW_BASE}, %rax\ncmpb $$ 0, (%rax,%r11)\n\
                 popq %rax\njne 9f\n\
                 pushq %rdi\nmovabsq $$ {TRACKED_BASE}, %rdi\nshlq $$ {LINE_SHIFT}, %r11\norq %r11, %rdi\n{call}popq %rdi\n\
                 9: retq"
            ),
            Self::Span(n) => format!(
                "{tag}pushq %rax\npushq %rcx\nmovabsq $$ {SHADOW_BASE}, %rax\n\
                 movq %r11, %rcx\nshrq $$ {down}, %rcx\ncmpb $$ 0, (%rax,%rcx)\nje 1f\n\
                 leaq {last}(%r11), %rcx\nshrq $$ {down}, %rcx\ncmpb $$ 0, (%rax,%rcx)\n\
                 1: popq %rcx\npopq %rax\njne 9f\n\
                 rorq $$ {up}, %r11\npushq %rdi\npushq %rsi\nmovq %r11, %rdi\nmovl $$ {n}, %esi\n{call}popq %rsi\npopq %rdi\n\
                 9: retq",
                last = (n - 1) << up,
            ),
            Self::Range => format!(
                "{tag}rorq $$ {up}, %r11\npushq %rdi\npushq %rsi\nmovq %r11, %rdi\nmovq %r10, %rsi\n{call}popq %rsi\n\
                 popq %rdi\n9: retq"
            ),
            Self::Cstr => format!(
                "{tag}rorq $$ {up}, %r11\npushq %rdi\nmovq %r11, %rdi\n{call}popq %rdi\n9: retq"
            ),
        };
        text.replace("$$ ", "$$")
    }
}

/// The marking functions of a module.
pub struct Thunks {
    module: LLVMModuleRef,
    pub context: LLVMContextRef,
    pub builder: LLVMBuilderRef,
    pub i64: LLVMTypeRef,
    ptr: LLVMTypeRef,
    void: LLVMTypeRef,
}

impl Drop for Thunks {
    fn drop(&mut self) {
        // SAFETY: the builder is this value's own.
        unsafe { LLVMDisposeBuilder(self.builder) }
    }
}

impl Thunks {
    pub fn new(module: LLVMModuleRef) -> Self {
        // SAFETY: live IR; types and builder belong to the module's context.
        unsafe {
            let context = LLVMGetModuleContext(module);
            Self {
                module,
                context,
                builder: LLVMCreateBuilderInContext(context),
                i64: LLVMInt64TypeInContext(context),
                ptr: LLVMPointerTypeInContext(context, 0),
                void: LLVMVoidTypeInContext(context),
            }
        }
    }

    /// Calls a thunk where the builder stands, with an address and, for [`Shape::Range`], a length. `f` is the function the
    /// call is in.
    pub fn call(&self, f: Value, shape: Shape, address: Value, length: Option<Value>) {
        let thunk = self.thunk(shape);
        let mut constraints = String::from("={r11},");
        let mut args = vec![address, thunk];
        let mut types = vec![self.ptr, self.ptr];
        let text = match length {
            None => {
                constraints.push_str("0,i");
                "callq ${2:P}"
            }
            Some(n) => {
                constraints.push_str("0,i,{r10}");
                args.push(n);
                types.push(self.i64);
                "callq ${2:P}"
            }
        };
        for r in vector_registers(f) {
            constraints.push_str(",~{");
            constraints.push_str(&r);
            constraints.push('}');
        }
        constraints.push_str(",~{dirflag},~{fpsr},~{flags}");
        // SAFETY: live IR; the constraints name one output and as many inputs as the type has.
        unsafe {
            let t = LLVMFunctionType(self.ptr, types.as_mut_ptr(), types.len() as u32, 0);
            let asm = LLVMGetInlineAsm(
                t,
                text.as_ptr().cast(),
                text.len(),
                constraints.as_ptr().cast(),
                constraints.len(),
                1,
                0,
                LLVMInlineAsmDialect::LLVMInlineAsmDialectATT,
                0,
            );
            let call = LLVMBuildCall2(
                self.builder,
                t,
                asm,
                args.as_mut_ptr(),
                args.len() as u32,
                NAME,
            );
            ir::add_call_attribute(self.context, call, "nounwind", 0);
            ir::add_call_attribute(self.context, call, "memory", MARK_MEMORY);
        }
        ir::add_enum_attribute(self.context, f, "noredzone", 0);
    }

    /// Finds or makes a thunk.
    fn thunk(&self, shape: Shape) -> Value {
        let name = shape.name();
        if let Some(f) = ir::named_function(self.module, &name) {
            return f;
        }
        let hook = self.slow(shape);
        // SAFETY: live IR; the function is new and gets its whole body here, with a builder of its own.
        unsafe {
            let t = LLVMFunctionType(self.void, std::ptr::null_mut(), 0, 0);
            let f = self.odr(&name, t);
            for a in ["naked", "noinline", "nounwind", "cold"] {
                ir::add_enum_attribute(self.context, f, a, 0);
            }
            let at = LLVMFunctionType(self.void, [self.ptr].as_mut_ptr(), 1, 0);
            let (text, constraints) = (shape.code(), "i,~{memory},~{dirflag},~{fpsr},~{flags}");
            let asm = LLVMGetInlineAsm(
                at,
                text.as_ptr().cast(),
                text.len(),
                constraints.as_ptr().cast(),
                constraints.len(),
                1,
                0,
                LLVMInlineAsmDialect::LLVMInlineAsmDialectATT,
                0,
            );
            let b = LLVMCreateBuilderInContext(self.context);
            LLVMPositionBuilderAtEnd(b, LLVMAppendBasicBlockInContext(self.context, f, NAME));
            LLVMBuildCall2(b, at, asm, [hook].as_mut_ptr(), 1, NAME);
            LLVMBuildUnreachable(b);
            LLVMDisposeBuilder(b);
            f
        }
    }

    /// The function between a thunk and its hook: assembly may only name symbols of this module. It goes through the GOT and
    /// never through a lazy PLT, whose resolver would destroy what `preserve_most` keeps.
    fn slow(&self, shape: Shape) -> Value {
        let (hook, length) = shape.hook();
        let name = hook.replace("__vernal_", "__vernal_slow_");
        if let Some(f) = ir::named_function(self.module, &name) {
            return f;
        }
        // SAFETY: live IR; the function is new and gets its whole body here, with a builder of its own.
        unsafe {
            let mut types = [self.ptr, self.i64];
            let n = if length { 2 } else { 1 };
            let t = LLVMFunctionType(self.void, types.as_mut_ptr(), n, 0);
            let f = self.odr(&name, t);
            let target = ir::named_function(self.module, hook)
                .unwrap_or_else(|| ir::add_function(self.module, hook, t));
            for g in [f, target] {
                for a in ["nounwind", "cold", "willreturn", "noinline"] {
                    ir::add_enum_attribute(self.context, g, a, 0);
                }
                LLVMSetFunctionCallConv(g, PRESERVE_MOST);
            }
            ir::add_enum_attribute(self.context, target, "nonlazybind", 0);
            let b = LLVMCreateBuilderInContext(self.context);
            LLVMPositionBuilderAtEnd(b, LLVMAppendBasicBlockInContext(self.context, f, NAME));
            let mut args: Vec<Value> = (0..n).map(|i| LLVMGetParam(f, i)).collect();
            let call = LLVMBuildCall2(b, t, target, args.as_mut_ptr(), n, NAME);
            LLVMSetInstructionCallConv(call, PRESERVE_MOST);
            LLVMSetTailCall(call, 1);
            LLVMBuildRetVoid(b);
            LLVMDisposeBuilder(b);
            f
        }
    }

    /// A function that the linker merges over all modules.
    fn odr(&self, name: &str, t: LLVMTypeRef) -> Value {
        let f = ir::add_function(self.module, name, t);
        ir::add_string_attribute(self.context, f, super::plugin::INSTRUMENTED);
        let key = CString::new(name).unwrap_or_default();
        // SAFETY: live IR; LLVM copies the name.
        unsafe {
            LLVMSetLinkage(f, LLVMLinkage::LLVMLinkOnceODRLinkage);
            LLVMSetVisibility(f, LLVMVisibility::LLVMHiddenVisibility);
            LLVMSetUnnamedAddress(f, LLVMUnnamedAddr::LLVMGlobalUnnamedAddr);
            LLVMSetComdat(f, LLVMGetOrInsertComdat(self.module, key.as_ptr()));
        }
        f
    }
}

/// The vector registers that code in `f` can use, by its target features.
fn vector_registers(f: Value) -> Vec<String> {
    let features = ir::string_attribute(f, "target-features").unwrap_or_default();
    let has = |name: &str| {
        features
            .split(',')
            .any(|x| x.strip_prefix('+') == Some(name))
    };
    let (kind, n) = match () {
        () if has("avx512f") => ("zmm", 32),
        () if has("avx") => ("ymm", 16),
        () => ("xmm", 16),
    };
    let masks = if has("avx512f") { 8 } else { 0 };
    (0..n)
        .map(|i| format!("{kind}{i}"))
        .chain((0..masks).map(|i| format!("k{i}")))
        .collect()
}

/// A span thunk covers at most two lines.
pub const MAX_SPAN: u64 = LINE_SIZE;
