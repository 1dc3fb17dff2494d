//! Range checks, cold blocks and thunks.
//!
//! At a point with marks, for each root:
//!
//! ```text
//!     if (unlikely((root >> TRACKED_SHIFT) == TRACKED_TAG)) { thunk(address); … }
//! ```
//!
//! The thunks (one set per module, merged by the linker) look at the shadow byte and call the runtime's hook if it is
//! clean. They and the hooks keep all general-purpose registers, so the hot path spills nothing for them.

use llvm_sys::comdat::{LLVMGetOrInsertComdat, LLVMSetComdat};
use llvm_sys::core::*;
use llvm_sys::debuginfo::LLVMInstructionGetDebugLoc;
use llvm_sys::prelude::{LLVMBuilderRef, LLVMContextRef, LLVMModuleRef, LLVMTypeRef};
use llvm_sys::{LLVMIntPredicate, LLVMLinkage, LLVMVisibility};
use vernal_select::{Counters, Mark, MarkKind, Plan, Point};

use super::extract::Model;
use super::ir::{self, BasicBlock, Value};
use super::shim;
use super::writers::{self, Size, Target, Write};

/// `preserve_most` in LLVM's numbering.
const PRESERVE_MOST: u32 = 14;
/// `memory(argmem: read, inaccessiblemem: readwrite)`: loads may move over a mark, stores to the marked object may not.
const MARK_MEMORY: u64 = 0b11_01;

/// The marking functions of a module.
pub struct Thunks {
    context: LLVMContextRef,
    builder: LLVMBuilderRef,
    i64: LLVMTypeRef,
    line: (Value, LLVMTypeRef),
    range: (Value, LLVMTypeRef),
    cstr: (Value, LLVMTypeRef),
    /// Stands for a range check until [`lower`].
    guard: (Value, LLVMTypeRef),
    /// Branch weights of a range check.
    unlikely: Value,
    prof: u32,
}

impl Drop for Thunks {
    fn drop(&mut self) {
        // SAFETY: the builder is this value's own.
        unsafe { LLVMDisposeBuilder(self.builder) }
    }
}

impl Thunks {
    /// Finds or makes the thunks of `m`.
    pub fn new(m: LLVMModuleRef) -> Self {
        // SAFETY: live IR; types, builder and metadata belong to the module's context.
        unsafe {
            let context = LLVMGetModuleContext(m);
            let builder = LLVMCreateBuilderInContext(context);
            let (ptr, i64, void) = (
                LLVMPointerTypeInContext(context, 0),
                LLVMInt64TypeInContext(context),
                LLVMVoidTypeInContext(context),
            );
            let one = LLVMFunctionType(void, [ptr].as_mut_ptr(), 1, 0);
            let two = LLVMFunctionType(void, [ptr, i64].as_mut_ptr(), 2, 0);
            let hook = |name, t| hook(m, context, name, t);
            let mark_line = hook(vernal_abi::hooks::MARK_LINE, one);
            let mark_range = hook(vernal_abi::hooks::MARK_RANGE, two);
            let mark_cstr = hook(vernal_abi::hooks::MARK_CSTR, one);
            let i32 = LLVMInt32TypeInContext(context);
            let mut weights = [
                LLVMMDStringInContext2(context, c"branch_weights".as_ptr(), 14),
                LLVMValueAsMetadata(LLVMConstInt(i32, 1, 0)),
                LLVMValueAsMetadata(LLVMConstInt(i32, (1 << 20) - 1, 0)),
            ];
            let unlikely = LLVMMetadataAsValue(
                context,
                LLVMMDNodeInContext2(context, weights.as_mut_ptr(), weights.len()),
            );
            let mut me = Self {
                context,
                builder,
                i64,
                line: (mark_line, one),
                range: (mark_range, two),
                cstr: (mark_cstr, one),
                guard: guard(m, context, ptr),
                unlikely,
                prof: LLVMGetMDKindIDInContext(context, c"prof".as_ptr(), 4),
            };
            me.line.0 = me.thunk(m, "__vernal_thunk_line", one, |t, f, entry, clean| {
                let at = t.int(LLVMGetParam(f, 0));
                t.if_tracked_else_return(f, entry, at);
                let b = t.shadow(at);
                t.if_clean(f, b, clean);
                t.tail_call(clean, mark_line, one, &[LLVMGetParam(f, 0)]);
            });
            me.range.0 = me.thunk(m, "__vernal_thunk_range", two, |t, f, entry, clean| {
                let (at, len) = (t.int(LLVMGetParam(f, 0)), LLVMGetParam(f, 1));
                // Up to one line long: its first and last byte tell. Longer, or partly outside: the hook looks.
                let last = LLVMBuildAdd(
                    t.builder,
                    at,
                    LLVMBuildSub(t.builder, len, t.word(1), NAME),
                    NAME,
                );
                let short = LLVMBuildICmp(
                    t.builder,
                    LLVMIntPredicate::LLVMIntULE,
                    len,
                    t.word(vernal_abi::LINE_SIZE),
                    NAME,
                );
                let both = LLVMBuildAnd(t.builder, t.tracked(at), t.tracked(last), NAME);
                let quick = LLVMBuildAnd(t.builder, short, both, NAME);
                let look = LLVMAppendBasicBlockInContext(t.context, f, NAME);
                LLVMBuildCondBr(t.builder, quick, look, clean);
                LLVMPositionBuilderAtEnd(t.builder, look);
                let _ = entry;
                let dirty = LLVMBuildAnd(t.builder, t.dirty(at), t.dirty(last), NAME);
                let b = LLVMBuildICmp(
                    t.builder,
                    LLVMIntPredicate::LLVMIntEQ,
                    dirty,
                    LLVMConstInt(LLVMTypeOf(dirty), 0, 0),
                    NAME,
                );
                t.if_clean(f, b, clean);
                t.tail_call(clean, mark_range, two, &[LLVMGetParam(f, 0), len]);
            });
            me
        }
    }

    fn thunk(
        &self,
        m: LLVMModuleRef,
        name: &str,
        t: LLVMTypeRef,
        body: impl FnOnce(&Self, Value, BasicBlock, BasicBlock),
    ) -> Value {
        if let Some(f) = ir::named_function(m, name).filter(|&f| ir::has_body(f)) {
            return f;
        }
        let f = ir::named_function(m, name).unwrap_or_else(|| ir::add_function(m, name, t));
        attributes(self.context, f);
        ir::add_enum_attribute(self.context, f, "noinline", 0);
        ir::add_string_attribute(self.context, f, super::plugin::INSTRUMENTED);
        // SAFETY: live IR; the function is new and gets its whole body here.
        unsafe {
            LLVMSetLinkage(f, LLVMLinkage::LLVMLinkOnceODRLinkage);
            LLVMSetVisibility(f, LLVMVisibility::LLVMHiddenVisibility);
            LLVMSetUnnamedAddress(f, llvm_sys::LLVMUnnamedAddr::LLVMGlobalUnnamedAddr);
            let key = std::ffi::CString::new(name).unwrap_or_default();
            LLVMSetComdat(f, LLVMGetOrInsertComdat(m, key.as_ptr()));
            let entry = LLVMAppendBasicBlockInContext(self.context, f, NAME);
            let clean = LLVMAppendBasicBlockInContext(self.context, f, NAME);
            LLVMPositionBuilderAtEnd(self.builder, entry);
            body(self, f, entry, clean);
        }
        f
    }

    fn word(&self, n: u64) -> Value {
        // SAFETY: the type is of the live context.
        unsafe { LLVMConstInt(self.i64, n, 0) }
    }

    fn int(&self, ptr: Value) -> Value {
        // SAFETY: live IR; the builder stands in a block.
        unsafe { LLVMBuildPtrToInt(self.builder, ptr, self.i64, NAME) }
    }

    /// Whether an address (as an integer) is tracked.
    fn tracked(&self, at: Value) -> Value {
        // SAFETY: live IR; the builder stands in a block.
        unsafe {
            let tag = LLVMBuildLShr(
                self.builder,
                at,
                self.word(u64::from(vernal_abi::TRACKED_SHIFT)),
                NAME,
            );
            LLVMBuildICmp(
                self.builder,
                LLVMIntPredicate::LLVMIntEQ,
                tag,
                self.word(vernal_abi::TRACKED_TAG),
                NAME,
            )
        }
    }

    /// The shadow byte of a tracked address.
    fn dirty(&self, at: Value) -> Value {
        // SAFETY: live IR; the builder stands in a block.
        unsafe {
            let line = LLVMBuildLShr(
                self.builder,
                at,
                self.word(u64::from(vernal_abi::LINE_SHIFT)),
                NAME,
            );
            let shadow = LLVMBuildAdd(
                self.builder,
                line,
                self.word(vernal_abi::SHADOW_OFFSET),
                NAME,
            );
            let byte = LLVMInt8TypeInContext(self.context);
            let ptr = LLVMBuildIntToPtr(
                self.builder,
                shadow,
                LLVMPointerTypeInContext(self.context, 0),
                NAME,
            );
            let load = LLVMBuildLoad2(self.builder, byte, ptr, NAME);
            // Another thread's commit may clear the byte at any time.
            LLVMSetVolatile(load, 1);
            load
        }
    }

    /// Whether the line of a tracked address is clean.
    fn shadow(&self, at: Value) -> Value {
        let byte = self.dirty(at);
        // SAFETY: live IR; the builder stands in a block.
        unsafe {
            let clean = LLVMConstInt(LLVMTypeOf(byte), u64::from(vernal_abi::SHADOW_CLEAN), 0);
            LLVMBuildICmp(self.builder, LLVMIntPredicate::LLVMIntEQ, byte, clean, NAME)
        }
    }

    /// Goes on in a new block if `at` is tracked, returns otherwise.
    fn if_tracked_else_return(&self, f: Value, _entry: BasicBlock, at: Value) {
        // SAFETY: live IR; the builder stands at the end of a block of `f`.
        unsafe {
            let (yes, no) = (
                LLVMAppendBasicBlockInContext(self.context, f, NAME),
                LLVMAppendBasicBlockInContext(self.context, f, NAME),
            );
            LLVMBuildCondBr(self.builder, self.tracked(at), yes, no);
            LLVMPositionBuilderAtEnd(self.builder, no);
            LLVMBuildRetVoid(self.builder);
            LLVMPositionBuilderAtEnd(self.builder, yes);
        }
    }

    /// Goes to `clean` if `condition`, returns otherwise.
    fn if_clean(&self, f: Value, condition: Value, clean: BasicBlock) {
        // SAFETY: live IR; the builder stands at the end of a block of `f`.
        unsafe {
            let done = LLVMAppendBasicBlockInContext(self.context, f, NAME);
            let br = LLVMBuildCondBr(self.builder, condition, clean, done);
            LLVMSetMetadata(br, self.prof, self.unlikely);
            LLVMPositionBuilderAtEnd(self.builder, done);
            LLVMBuildRetVoid(self.builder);
        }
    }

    fn tail_call(&self, block: BasicBlock, hook: Value, t: LLVMTypeRef, args: &[Value]) {
        // SAFETY: live IR; the arguments fit the hook's type.
        unsafe {
            LLVMPositionBuilderAtEnd(self.builder, block);
            let mut args = args.to_vec();
            let call = LLVMBuildCall2(
                self.builder,
                t,
                hook,
                args.as_mut_ptr(),
                args.len() as u32,
                NAME,
            );
            LLVMSetInstructionCallConv(call, PRESERVE_MOST);
            LLVMSetTailCall(call, 1);
            LLVMBuildRetVoid(self.builder);
        }
    }

    /// Puts the marks of `plan` into the function.
    pub fn emit(&self, model: &Model, plan: &Plan, counters: &mut Counters) {
        // Edges first: they are named by blocks, which splitting at an instruction would rename.
        let mut at: Vec<(Value, &[Mark])> = Vec::new();
        for site in &plan.sites {
            let block = |b: u32| model.blocks[b as usize];
            // SAFETY: live IR; nothing is pending after an edge that cannot be split, because its terminator is a barrier.
            let place = unsafe {
                match site.at {
                    Point::Before { block, event } => model.at[block as usize][event as usize],
                    Point::Start(b) => shim::vernal_shim_first_insertion(block(b)),
                    Point::End(b) => ir::terminator(block(b)),
                    Point::Edge(a, b) => {
                        shim::vernal_shim_split_edge(ir::terminator(block(a)), block(b))
                    }
                }
            };
            if !place.is_null() {
                at.push((place, &site.marks));
            }
        }
        for (place, marks) in at {
            for same in marks.chunk_by(|x, y| root(model, x) == root(model, y)) {
                self.check(model, place, same, counters);
            }
        }
    }

    /// One range check before `place`, with the marks of one root behind it.
    fn check(&self, model: &Model, place: Value, marks: &[Mark], counters: &mut Counters) {
        counters.checks += 1;
        counters.marks += marks.len() as u64;
        // SAFETY: live IR; `place` is an instruction that the keys and roots of its marks dominate (the placement's rule).
        unsafe {
            let head = ir::parent(place);
            let f = LLVMGetBasicBlockParent(head);
            let cont = shim::vernal_shim_split_before(place);
            let br = ir::terminator(head);
            LLVMPositionBuilderBefore(self.builder, br);
            LLVMSetCurrentDebugLocation2(self.builder, LLVMInstructionGetDebugLoc(place));
            let cold = LLVMAppendBasicBlockInContext(self.context, f, c"vernal.cold".as_ptr());
            let mut root = [model.roots[root(model, &marks[0]) as usize]];
            let check = LLVMBuildCall2(
                self.builder,
                self.guard.1,
                self.guard.0,
                root.as_mut_ptr(),
                1,
                NAME,
            );
            let guard = LLVMBuildCondBr(self.builder, check, cold, cont);
            LLVMSetMetadata(guard, self.prof, self.unlikely);
            LLVMInstructionEraseFromParent(br);
            LLVMPositionBuilderAtEnd(self.builder, cold);
            for m in marks {
                self.mark(model, m);
            }
            LLVMBuildBr(self.builder, cont);
        }
    }

    fn mark(&self, model: &Model, m: &Mark) {
        let (base, write) = model.keys[m.key as usize];
        let at = |off: i64| {
            if off == 0 {
                base
            } else {
                self.offset(base, self.word(off as u64))
            }
        };
        match (m.kind, write) {
            (MarkKind::Line(off), _) => self.call(self.line, &mut [at(off)]),
            (MarkKind::Range(lo, hi), _) => {
                self.call(self.range, &mut [at(lo), self.word((hi - lo) as u64)])
            }
            (
                MarkKind::Whole,
                Some(Write {
                    size: Size::Cstr, ..
                }),
            ) => self.call(self.cstr, &mut [base]),
            (MarkKind::Whole, Some(w)) => self.call(self.range, &mut [base, self.length(w.size)]),
            (MarkKind::Whole, None) => {}
        }
    }

    fn offset(&self, base: Value, by: Value) -> Value {
        // SAFETY: live IR; the builder stands in a block that `base` dominates.
        unsafe {
            LLVMBuildGEP2(
                self.builder,
                LLVMInt8TypeInContext(self.context),
                base,
                [by].as_mut_ptr(),
                1,
                NAME,
            )
        }
    }

    /// A write's length as a 64-bit value.
    fn length(&self, size: Size) -> Value {
        // SAFETY: live IR; the operands dominate the mark, as they dominate the write.
        unsafe {
            let wide = |v: Value| LLVMBuildIntCast2(self.builder, v, self.i64, 0, NAME);
            match size {
                Size::Fixed(n) => self.word(n),
                Size::Value(v) => wide(v),
                Size::Times(v, k) => LLVMBuildMul(self.builder, wide(v), self.word(k), NAME),
                Size::Product(x, y) => LLVMBuildMul(self.builder, wide(x), wide(y), NAME),
                Size::Result(call, times) => {
                    let zero = LLVMConstInt(LLVMTypeOf(call), 0, 0);
                    let some =
                        LLVMBuildICmp(self.builder, LLVMIntPredicate::LLVMIntSGT, call, zero, NAME);
                    let n = wide(LLVMBuildSelect(self.builder, some, call, zero, NAME));
                    times.map_or(n, |t| LLVMBuildMul(self.builder, n, wide(t), NAME))
                }
                Size::Cstr => self.word(0),
            }
        }
    }

    fn call(&self, (f, t): (Value, LLVMTypeRef), args: &mut [Value]) {
        // SAFETY: live IR; the arguments fit the thunk's type.
        unsafe {
            let call = LLVMBuildCall2(
                self.builder,
                t,
                f,
                args.as_mut_ptr(),
                args.len() as u32,
                NAME,
            );
            LLVMSetInstructionCallConv(call, PRESERVE_MOST);
            ir::add_call_attribute(self.context, call, "nounwind", 0);
            ir::add_call_attribute(self.context, call, "memory", MARK_MEMORY);
        }
    }
}

const NAME: *const std::ffi::c_char = c"".as_ptr();

fn root(model: &Model, m: &Mark) -> u32 {
    model.function.keys[m.key as usize].root
}

fn attributes(c: LLVMContextRef, f: Value) {
    for a in ["nounwind", "cold", "willreturn"] {
        ir::add_enum_attribute(c, f, a, 0);
    }
    // SAFETY: live IR; `f` is a function.
    unsafe { LLVMSetFunctionCallConv(f, PRESERVE_MOST) };
}

/// Declares a hook of the runtime. Never through a lazy PLT, whose resolver would clobber what `preserve_most` keeps.
fn hook(m: LLVMModuleRef, c: LLVMContextRef, name: &str, t: LLVMTypeRef) -> Value {
    let f = ir::named_function(m, name).unwrap_or_else(|| ir::add_function(m, name, t));
    attributes(c, f);
    ir::add_enum_attribute(c, f, "nonlazybind", 0);
    f
}

/// The function that stands for a range check while the optimiser runs.
const GUARD: &str = "__vernal_is_tracked";

fn guard(m: LLVMModuleRef, c: LLVMContextRef, ptr: LLVMTypeRef) -> (Value, LLVMTypeRef) {
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

/// A builder after `i`, for address arithmetic.
fn after(i: Value, build: impl FnOnce(LLVMBuilderRef, LLVMContextRef)) {
    // SAFETY: live IR; `i` is no terminator (vector intrinsics and plain calls are not).
    unsafe {
        let next = LLVMGetNextInstruction(i);
        if next.is_null() {
            return;
        }
        let c = LLVMGetTypeContext(ir::type_of(i));
        let b = LLVMCreateBuilderInContext(c);
        LLVMPositionBuilderBefore(b, next);
        build(b, c);
        LLVMDisposeBuilder(b);
    }
}

/// The pointers of a scatter, one value per lane, computed after it.
pub fn lane_pointers(i: Value, target: Target) -> Vec<Value> {
    let mut out = Vec::new();
    // SAFETY: live IR; lanes are in range, types as the intrinsics' signatures say.
    after(i, |b, c| unsafe {
        let (i32, i64, i8) = (
            LLVMInt32TypeInContext(c),
            LLVMInt64TypeInContext(c),
            LLVMInt8TypeInContext(c),
        );
        let lane = |v: Value, n: u32| {
            LLVMBuildExtractElement(b, v, LLVMConstInt(i32, u64::from(n), 0), NAME)
        };
        match target {
            Target::Lanes(v) => out.extend((0..writers::lanes(v).unwrap_or(0)).map(|n| lane(v, n))),
            Target::Indexed(base, indices, scale) => {
                for n in 0..writers::lanes(indices).unwrap_or(0) {
                    let index = LLVMBuildIntCast2(b, lane(indices, n), i64, 1, NAME);
                    let by = LLVMBuildMul(b, index, LLVMConstInt(i64, scale, 0), NAME);
                    out.push(LLVMBuildGEP2(b, i8, base, [by].as_mut_ptr(), 1, NAME));
                }
            }
            _ => {}
        }
    });
    out
}

/// The writes of the first `n` buffers of an `iovec` array, each to its full length.
pub fn iovec_buffers(i: Value, array: Value, n: u64) -> Vec<Write> {
    let mut out = Vec::new();
    // SAFETY: live IR; the array has `n` entries of a pointer and a length.
    after(i, |b, c| unsafe {
        let (ptr, i64, i8) = (
            LLVMPointerTypeInContext(c, 0),
            LLVMInt64TypeInContext(c),
            LLVMInt8TypeInContext(c),
        );
        for k in 0..n {
            let field = |off: u64, t| {
                let p = LLVMBuildGEP2(
                    b,
                    i8,
                    array,
                    [LLVMConstInt(i64, k * 16 + off, 0)].as_mut_ptr(),
                    1,
                    NAME,
                );
                LLVMBuildLoad2(b, t, p, NAME)
            };
            let (base, len) = (field(0, ptr), field(8, i64));
            out.push(Write {
                target: Target::Ptr(base),
                size: Size::Value(len),
                align: 0,
            });
        }
    });
    out
}
