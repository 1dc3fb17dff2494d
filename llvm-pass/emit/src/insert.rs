//! Puts the marks of a plan into a function.
//!
//! All marks of a root stand behind one range check:
//!
//! ```text
//!     if (unlikely((root >> TRACKED_SHIFT) == TRACKED_TAG)) { thunk(address); … }
//! ```
//!
//! How often a point runs (by LLVM's block frequencies) decides the [`Form`]: time where it is hot, size where it is cold.
//! The thunks check the tag themselves, so that the check may be left out.

use llvm_sys::LLVMIntPredicate;
use llvm_sys::core::*;
use llvm_sys::debuginfo::LLVMInstructionGetDebugLoc;
use llvm_sys::prelude::{LLVMModuleRef, LLVMTypeRef};
use vernal_select::{Counters, Mark, MarkKind, Plan, Point};

use super::extract::Model;
use super::guard;
use super::ir::{self, Value};
use super::shim;
use super::thunk::{MAX_SPAN, Shape, Thunks};
use super::writers::{Size, Write};

const NAME: *const std::ffi::c_char = c"".as_ptr();

/// Emits marks into the functions of a module.
pub struct Emitter {
    thunks: Thunks,
    /// Stands for a range check until it is lowered.
    guard: (Value, LLVMTypeRef),
    /// Branch weights of a range check whose marks belong at the end of the function.
    far: Value,
    /// Branch weights of one whose marks are jumped over.
    near: Value,
    prof: u32,
}

/// How the marks of a point are emitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A range check that falls through, marks out of the way: the fastest.
    Far,
    /// A range check that jumps over the marks: two thirds of the code, one taken branch.
    Near,
    /// The thunk is called without a check: a third of the code.
    Call,
}

impl Emitter {
    pub fn new(m: LLVMModuleRef) -> Self {
        let thunks = Thunks::new(m);
        let c = thunks.context;
        // SAFETY: live IR; types and metadata belong to the module's context.
        unsafe {
            let i32 = LLVMInt32TypeInContext(c);
            let weights = |yes: u64, no: u64| {
                let mut weights = [
                    LLVMMDStringInContext2(c, c"branch_weights".as_ptr(), 14),
                    LLVMValueAsMetadata(LLVMConstInt(i32, yes, 0)),
                    LLVMValueAsMetadata(LLVMConstInt(i32, no, 0)),
                ];
                LLVMMetadataAsValue(
                    c,
                    LLVMMDNodeInContext2(c, weights.as_mut_ptr(), weights.len()),
                )
            };
            Self {
                guard: guard::guard(m, c, LLVMPointerTypeInContext(c, 0)),
                far: weights(1, (1 << 20) - 1),
                near: weights(1, 1),
                prof: LLVMGetMDKindIDInContext(c, c"prof".as_ptr(), 4),
                thunks,
            }
        }
    }

    /// Puts the marks of `plan` into the function. `form` says how at each point.
    pub fn emit(
        &self,
        model: &Model,
        plan: &Plan,
        form: &dyn Fn(Point) -> Form,
        counters: &mut Counters,
    ) {
        // Edges first: they are named by blocks, which splitting at an instruction would rename.
        let mut at: Vec<(Value, Form, &[Mark])> = Vec::new();
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
                at.push((place, form(site.at), &site.marks));
            }
        }
        for (place, form, marks) in at {
            for same in marks.chunk_by(|x, y| root(model, x) == root(model, y)) {
                self.site(model, place, form, same, counters);
            }
        }
    }

    /// The marks of one root before `place`.
    fn site(
        &self,
        model: &Model,
        place: Value,
        form: Form,
        marks: &[Mark],
        counters: &mut Counters,
    ) {
        counters.marks += marks.len() as u64;
        let b = self.thunks.builder;
        // SAFETY: live IR; `place` is an instruction that the keys and roots of its marks dominate (the placement's rule).
        unsafe {
            let head = ir::parent(place);
            let f = LLVMGetBasicBlockParent(head);
            LLVMSetCurrentDebugLocation2(b, LLVMInstructionGetDebugLoc(place));
            if form == Form::Call {
                LLVMPositionBuilderBefore(b, place);
                marks.iter().for_each(|m| self.mark(f, model, m));
                return;
            }
            counters.checks += 1;
            let cont = shim::vernal_shim_split_before(place);
            let br = ir::terminator(head);
            LLVMPositionBuilderBefore(b, br);
            let cold = match form {
                Form::Near => LLVMInsertBasicBlockInContext(
                    self.thunks.context,
                    cont,
                    c"vernal.cold".as_ptr(),
                ),
                _ => LLVMAppendBasicBlockInContext(self.thunks.context, f, c"vernal.cold".as_ptr()),
            };
            let mut root = [model.roots[root(model, &marks[0]) as usize]];
            let check = LLVMBuildCall2(b, self.guard.1, self.guard.0, root.as_mut_ptr(), 1, NAME);
            let branch = LLVMBuildCondBr(b, check, cold, cont);
            LLVMSetMetadata(
                branch,
                self.prof,
                if form == Form::Far {
                    self.far
                } else {
                    self.near
                },
            );
            LLVMInstructionEraseFromParent(br);
            LLVMPositionBuilderAtEnd(b, cold);
            marks.iter().for_each(|m| self.mark(f, model, m));
            LLVMBuildBr(b, cont);
        }
    }

    fn mark(&self, f: Value, model: &Model, m: &Mark) {
        let (base, write) = model.keys[m.key as usize];
        match (m.kind, write) {
            (MarkKind::Line(off), _) => {
                self.thunks
                    .call(f, Shape::Line, self.offset(base, off), None)
            }
            (MarkKind::Range(lo, hi), _) => {
                self.range(f, self.offset(base, lo), Size::Fixed((hi - lo) as u64))
            }
            (
                MarkKind::Whole,
                Some(Write {
                    size: Size::Cstr, ..
                }),
            ) => self.thunks.call(f, Shape::Cstr, base, None),
            (MarkKind::Whole, Some(w)) => self.range(f, base, w.size),
            // Keys of their own always carry their write.
            (MarkKind::Whole, None) => {}
        }
    }

    fn range(&self, f: Value, at: Value, size: Size) {
        match size {
            Size::Fixed(n) if n <= MAX_SPAN => self.thunks.call(f, Shape::Span(n), at, None),
            size => self
                .thunks
                .call(f, Shape::Range, at, Some(self.length(size))),
        }
    }

    fn offset(&self, base: Value, by: i64) -> Value {
        if by == 0 {
            return base;
        }
        let mut by = [self.word(by as u64)];
        // SAFETY: live IR; the builder stands where `base` dominates.
        unsafe {
            let byte = LLVMInt8TypeInContext(self.thunks.context);
            LLVMBuildGEP2(self.thunks.builder, byte, base, by.as_mut_ptr(), 1, NAME)
        }
    }

    fn word(&self, n: u64) -> Value {
        // SAFETY: the type is of the live context.
        unsafe { LLVMConstInt(self.thunks.i64, n, 0) }
    }

    /// A write's length as a 64-bit value.
    fn length(&self, size: Size) -> Value {
        let b = self.thunks.builder;
        // SAFETY: live IR; the operands dominate the mark, as they dominate the write.
        unsafe {
            let wide = |v: Value| LLVMBuildIntCast2(b, v, self.thunks.i64, 0, NAME);
            match size {
                Size::Fixed(n) => self.word(n),
                Size::Value(v) => wide(v),
                Size::Times(v, k) => LLVMBuildMul(b, wide(v), self.word(k), NAME),
                Size::Product(x, y) => LLVMBuildMul(b, wide(x), wide(y), NAME),
                Size::Result(call, times) => {
                    let zero = LLVMConstInt(LLVMTypeOf(call), 0, 0);
                    let some = LLVMBuildICmp(b, LLVMIntPredicate::LLVMIntSGT, call, zero, NAME);
                    let n = wide(LLVMBuildSelect(b, some, call, zero, NAME));
                    times.map_or(n, |t| LLVMBuildMul(b, n, wide(t), NAME))
                }
                Size::Cstr => self.word(0),
            }
        }
    }
}

fn root(model: &Model, m: &Mark) -> u32 {
    model.function.keys[m.key as usize].root
}
