//! Writes through many pointers at once (scatters, `iovec` arrays), turned into one pointer each.

use llvm_sys::core::*;
use llvm_sys::prelude::{LLVMBuilderRef, LLVMContextRef};

use super::ir::{self, Value};
use super::writers::{self, Size, Target, Write};

const NAME: *const std::ffi::c_char = c"".as_ptr();

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
