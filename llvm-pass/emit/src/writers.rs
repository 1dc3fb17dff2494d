//! What one instruction writes, and whether it is a barrier.

use llvm_sys::core::{LLVMGetElementType, LLVMGetInlineAsmAsmString, LLVMGetVectorSize};
use llvm_sys::prelude::{LLVMModuleRef, LLVMTypeRef};
use llvm_sys::{LLVMAtomicOrdering, LLVMOpcode, LLVMTypeKind};
use vernal_select::libc::{self, Len, Writes};

use super::ir::{self, Value};
use super::shim;

/// How many bytes a write covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    Fixed(u64),
    /// A value, computed before the write.
    Value(Value),
    /// A value times a constant.
    Times(Value, u64),
    Product(Value, Value),
    /// The result of the call if positive, times a value or 1.
    Result(Value, Option<Value>),
    Cstr,
}

/// Where a write goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Ptr(Value),
    /// Every lane of a vector of pointers.
    Lanes(Value),
    /// Base, vector of indices, scale.
    Indexed(Value, Value, u64),
    /// Array of `iovec`, its length.
    Iovec(Value, Value),
}

/// One write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Write {
    pub target: Target,
    pub size: Size,
    /// Known alignment of the address; 0 if unknown.
    pub align: u64,
}

/// What an instruction does.
#[derive(Default, Debug)]
pub struct Action {
    /// Pending stores must be marked before it.
    pub before: bool,
    /// Its own writes must be marked at once.
    pub after: bool,
    pub writes: Vec<Write>,
    /// Something that cannot be known, for a warning.
    pub unknown: Option<String>,
}

/// Whether a call is a barrier, as far as one call tells.
pub enum Calls {
    Never,
    Always,
    /// As much as this function, whose body is known.
    Callee(Value),
}

fn write(ptr: Value, bytes: u64, align: u64) -> Write {
    Write {
        target: Target::Ptr(ptr),
        size: Size::Fixed(bytes),
        align,
    }
}

fn store_size(m: LLVMModuleRef, t: LLVMTypeRef) -> u64 {
    // SAFETY: live IR; the type is sized, since values of it are stored.
    unsafe { shim::vernal_shim_store_size(m, t) }
}

fn atomic(o: LLVMAtomicOrdering) -> bool {
    !matches!(
        o,
        LLVMAtomicOrdering::LLVMAtomicOrderingNotAtomic
            | LLVMAtomicOrdering::LLVMAtomicOrderingUnordered
    )
}

/// What `i` does, where `publishes` tells which functions may commit or publish.
pub fn action(m: LLVMModuleRef, i: Value, publishes: &dyn Fn(Value) -> bool) -> Action {
    let fenced = |fence: bool, w: Write| Action {
        before: fence,
        after: fence,
        writes: vec![w],
        unknown: None,
    };
    let barrier = || Action {
        before: true,
        ..Action::default()
    };
    match ir::opcode(i) {
        Some(LLVMOpcode::LLVMStore) => {
            let w = write(
                ir::operand(i, 1),
                store_size(m, ir::type_of(ir::operand(i, 0))),
                ir::alignment(i),
            );
            fenced(ir::is_volatile(i) || atomic(ir::ordering(i)), w)
        }
        Some(LLVMOpcode::LLVMAtomicRMW | LLVMOpcode::LLVMAtomicCmpXchg) => fenced(
            true,
            write(
                ir::operand(i, 0),
                store_size(m, ir::type_of(ir::operand(i, 1))),
                ir::alignment(i),
            ),
        ),
        Some(LLVMOpcode::LLVMVAArg) => Action {
            writes: vec![write(ir::operand(i, 0), 24, 0)],
            ..Action::default()
        },
        Some(LLVMOpcode::LLVMLoad) if ir::is_volatile(i) => barrier(),
        Some(
            LLVMOpcode::LLVMFence
            | LLVMOpcode::LLVMRet
            | LLVMOpcode::LLVMResume
            | LLVMOpcode::LLVMIndirectBr,
        ) => barrier(),
        Some(LLVMOpcode::LLVMCall | LLVMOpcode::LLVMInvoke | LLVMOpcode::LLVMCallBr) => {
            call(m, i, publishes)
        }
        _ => Action::default(),
    }
}

fn call(m: LLVMModuleRef, i: Value, publishes: &dyn Fn(Value) -> bool) -> Action {
    if let Some(a) = inline_asm(m, i) {
        return a;
    }
    if let Some(name) = ir::intrinsic(i) {
        return intrinsic(m, i, &name);
    }
    let before = ir::opcode(i) != Some(LLVMOpcode::LLVMCall)
        || match barrier_of(i) {
            Calls::Never => false,
            Calls::Always => true,
            Calls::Callee(f) => publishes(f),
        };
    let mut writes = match ir::callee(i) {
        Some(f) if !ir::has_body(f) => library(i, &plain_name(f)),
        _ => vec![],
    };
    // An object returned by value may be made in place by code that is not compiled here.
    if ir::callee(i).is_none_or(|f| !ir::has_body(f))
        && let Some(t) = ir::returned_in_place(i)
    {
        writes.push(write(ir::operand(i, 0), store_size(m, t), 0));
    }
    Action {
        before,
        after: false,
        writes,
        unknown: None,
    }
}

/// Whether a call is a barrier. Intrinsics and inline assembly are judged by [`action`].
pub fn barrier_of(i: Value) -> Calls {
    // SAFETY: live IR; `i` is a call.
    if unsafe { shim::vernal_shim_is_musttail(i) } != 0 {
        return Calls::Always;
    }
    let Some(f) = ir::callee(i) else {
        return Calls::Always;
    };
    // SAFETY: live IR; `f` is a function.
    if ir::has_body(f) && unsafe { shim::vernal_shim_is_interposable(f) } == 0 {
        return Calls::Callee(f);
    }
    let name = plain_name(f);
    if libc::is_harmless(&name) || libc::writer(&name).is_some_and(|k| !k.barrier) {
        return Calls::Never;
    }
    // SAFETY: live IR; `i` is a call.
    let writes = unsafe { shim::vernal_shim_may_write(i) } != 0;
    if !writes && ir::has_enum_attribute(f, "nounwind") && ir::has_enum_attribute(f, "memory") {
        return Calls::Never;
    }
    Calls::Always
}

/// A function's name without the mark that keeps it from being mangled.
pub fn plain_name(f: Value) -> String {
    let name = ir::name(f);
    name.strip_prefix('\u{1}')
        .map(str::to_owned)
        .unwrap_or(name)
}

fn library(i: Value, name: &str) -> Vec<Write> {
    let Some(known) = libc::writer(name) else {
        return vec![];
    };
    let n = ir::args(i);
    let arg = |a: u8| (u32::from(a) < n).then(|| ir::operand(i, u32::from(a)));
    let pointer = |a: u8| arg(a).filter(|&v| ir::is_pointer(v));
    let ptr = |p: Value, size: Size| Write {
        target: Target::Ptr(p),
        size,
        align: 0,
    };
    let mut writes = Vec::new();
    for w in known.writes {
        match *w {
            Writes::Arg(a, len) => {
                let size = match len {
                    Len::Bytes(b) => Some(Size::Fixed(b)),
                    Len::Arg(l) => {
                        arg(l).map(|v| ir::const_int(v).map_or(Size::Value(v), Size::Fixed))
                    }
                    Len::Product(x, y) => arg(x).zip(arg(y)).map(|(x, y)| Size::Product(x, y)),
                    Len::Times(l, k) => arg(l).map(|v| Size::Times(v, k)),
                    Len::Ret => (!ir::is_void(i)).then_some(Size::Result(i, None)),
                    Len::RetTimes(l) => arg(l).map(|v| Size::Result(i, Some(v))),
                    Len::Cstr => Some(Size::Cstr),
                };
                writes.extend(pointer(a).zip(size).map(|(p, s)| ptr(p, s)));
            }
            Writes::Rest(from) => {
                for p in (from..n.min(255) as u8).filter_map(pointer) {
                    writes.push(ptr(p, Size::Cstr));
                    writes.push(ptr(p, Size::Fixed(16)));
                }
            }
            Writes::Iovec(array, count) => {
                if let Some((array, count)) = pointer(array).zip(arg(count)) {
                    writes.push(Write {
                        target: Target::Iovec(array, count),
                        size: Size::Result(i, None),
                        align: 0,
                    });
                }
            }
            Writes::Result => {
                if ir::is_pointer(i) {
                    writes.push(ptr(i, Size::Cstr));
                }
            }
        }
    }
    writes
}

/// Intrinsics that LLVM says write memory, but that no program can see writing.
const NO_WRITE: &[&str] = &[
    "llvm.lifetime.",
    "llvm.prefetch",
    "llvm.invariant.",
    "llvm.launder.",
    "llvm.strip.",
    "llvm.dbg.",
    "llvm.assume",
    "llvm.experimental.noalias.scope",
    "llvm.stackrestore",
    "llvm.stacksave",
    "llvm.va_end",
    "llvm.sideeffect",
    "llvm.pseudoprobe",
    "llvm.var.annotation",
    "llvm.ptr.annotation",
    "llvm.annotation",
    "llvm.instrprof.",
    "llvm.objectsize",
    "llvm.trap",
    "llvm.debugtrap",
    "llvm.ubsantrap",
    "llvm.eh.",
    "llvm.clear_cache",
    "llvm.donothing",
    "llvm.masked.load",
    "llvm.masked.gather",
    "llvm.masked.expandload",
    "llvm.set.rounding",
    "llvm.reset.fpenv",
    "llvm.localescape",
    "llvm.codeview",
    "llvm.type.",
    "llvm.fake.use",
    "llvm.allow.",
    "llvm.vp.load",
    "llvm.vp.gather",
    "llvm.experimental.constrained",
    "llvm.x86.sse2.pause",
    "llvm.x86.sse.ldmxcsr",
    "llvm.x86.rdtsc",
    "llvm.x86.rdtscp",
    "llvm.x86.flags.",
    "llvm.x86.avx.vzero",
    "llvm.x86.clrssbsy",
    "llvm.x86.clflush",
    "llvm.x86.clwb",
    "llvm.x86.cldemote",
    "llvm.x86.sse2.clflush",
    "llvm.x86.fxrstor",
    "llvm.x86.xrstor",
    "llvm.x86.rdrand",
    "llvm.x86.rdseed",
    "llvm.x86.xgetbv",
    "llvm.x86.avx2.gather",
    "llvm.x86.avx512.gather",
    "llvm.x86.avx512.mask.gather",
    "llvm.x86.avx.maskload",
    "llvm.x86.avx2.maskload",
    "llvm.readcyclecounter",
    "llvm.get.dynamic.area",
    "llvm.thread.pointer",
    "llvm.init.trampoline.none",
];

/// Target intrinsics that write through a pointer: name prefix, pointer argument, bytes (0: as the given value's type),
/// value argument, whether it is atomic.
const TARGET: &[(&str, u32, u64, u32, bool)] = &[
    ("llvm.x86.avx.maskstore.", 0, 0, 2, false),
    ("llvm.x86.avx2.maskstore.", 0, 0, 2, false),
    ("llvm.x86.avx512.mask.pmov", 0, 0, 1, false),
    ("llvm.x86.avx512.mask.store", 0, 0, 1, false),
    ("llvm.x86.avx512.mask.compress.store", 0, 0, 1, false),
    ("llvm.x86.sse2.maskmov.dqu", 2, 16, 0, false),
    ("llvm.x86.mmx.maskmovq", 2, 8, 0, false),
    ("llvm.x86.sse.movnt", 0, 16, 0, false),
    ("llvm.x86.mmx.movnt", 0, 8, 0, false),
    ("llvm.x86.sse.stmxcsr", 0, 4, 0, false),
    ("llvm.x86.directstore32", 0, 4, 0, false),
    ("llvm.x86.directstore64", 0, 8, 0, false),
    ("llvm.x86.movdir64b", 0, 64, 0, false),
    ("llvm.x86.fxsave", 0, 512, 0, false),
    // The size depends on the CPU; more than there is does no harm.
    ("llvm.x86.xsave", 0, 16384, 0, false),
    ("llvm.x86.atomic.", 0, 8, 0, true),
    ("llvm.x86.aadd", 0, 8, 0, true),
    ("llvm.x86.aand", 0, 8, 0, true),
    ("llvm.x86.aor", 0, 8, 0, true),
    ("llvm.x86.axor", 0, 8, 0, true),
    ("llvm.x86.cmpccxadd", 0, 8, 0, true),
    ("llvm.x86.wrss", 1, 8, 0, false),
    ("llvm.init.trampoline", 0, 64, 0, false),
    ("llvm.va_start", 0, 24, 0, false),
    ("llvm.va_copy", 0, 24, 0, false),
    ("llvm.masked.store.", 1, 0, 0, false),
    ("llvm.masked.compressstore.", 1, 0, 0, false),
    ("llvm.vp.store.", 1, 0, 0, false),
];

fn intrinsic(m: LLVMModuleRef, i: Value, name: &str) -> Action {
    let of = |writes: Vec<Write>| Action {
        writes,
        ..Action::default()
    };
    // SAFETY: live IR; `i` is a call.
    if unsafe { shim::vernal_shim_may_write(i) } == 0
        || NO_WRITE.iter().any(|p| name.starts_with(p))
    {
        return Action::default();
    }
    if ["llvm.memcpy.", "llvm.memmove.", "llvm.memset."]
        .iter()
        .any(|p| name.starts_with(p))
    {
        let len = ir::operand(i, 2);
        let size = ir::const_int(len).map_or(Size::Value(len), Size::Fixed);
        let volatile = ir::args(i) > 3
            && !name.contains("element.unordered")
            && ir::const_int(ir::operand(i, 3)) != Some(0);
        let w = Write {
            target: Target::Ptr(ir::operand(i, 0)),
            size,
            align: 0,
        };
        return Action {
            before: volatile,
            after: volatile,
            ..of(vec![w])
        };
    }
    if name.starts_with("llvm.masked.scatter.") || name.starts_with("llvm.vp.scatter.") {
        // SAFETY: live IR; the stored value is a vector.
        let element = unsafe { LLVMGetElementType(ir::type_of(ir::operand(i, 0))) };
        let size = Size::Fixed(store_size(m, element));
        return of(vec![Write {
            target: Target::Lanes(ir::operand(i, 1)),
            size,
            align: 0,
        }]);
    }
    if name.starts_with("llvm.x86.avx512.mask.scatter")
        || name.starts_with("llvm.x86.avx512.scatter")
    {
        // (base, mask, indices, values, scale)
        let (indices, values) = (ir::operand(i, 2), ir::operand(i, 3));
        let scale = ir::const_int(ir::operand(i, 4)).unwrap_or(1);
        // SAFETY: live IR; the stored value is a vector.
        let element = unsafe { LLVMGetElementType(ir::type_of(values)) };
        let target = Target::Indexed(ir::operand(i, 0), indices, scale);
        return of(vec![Write {
            target,
            size: Size::Fixed(store_size(m, element)),
            align: 0,
        }]);
    }
    if let Some(&(_, ptr, bytes, value, fence)) = TARGET.iter().find(|t| name.starts_with(t.0))
        && ptr < ir::args(i)
        && ir::is_pointer(ir::operand(i, ptr))
    {
        let bytes = match bytes {
            0 => store_size(m, ir::type_of(ir::operand(i, value))),
            n => n,
        };
        let target = Target::Ptr(ir::operand(i, ptr));
        let w = Write {
            target,
            size: Size::Fixed(bytes),
            align: 0,
        };
        return Action {
            before: fence,
            after: fence,
            ..of(vec![w])
        };
    }
    let written = (0..ir::args(i)).any(|a| {
        // SAFETY: live IR; the index is in range.
        ir::is_pointer(ir::operand(i, a)) && unsafe { shim::vernal_shim_arg_written(i, a) } != 0
    });
    Action {
        before: true,
        after: true,
        writes: vec![],
        unknown: written.then(|| format!("what the intrinsic {name} writes is not known and is not marked; call vernal_mark after it")),
    }
}

/// Inline assembly: indirect outputs have a size; a bare memory clobber has not.
fn inline_asm(m: LLVMModuleRef, i: Value) -> Option<Action> {
    let callee = ir::called_value(i);
    let constraints = ir::asm_constraints(callee)?;
    let mut action = Action::default();
    let mut arg = 0;
    let (mut clobbers, mut pointers) = (false, false);
    for c in constraints.split(',') {
        if c.starts_with('~') {
            clobbers |= c == "~{memory}";
            continue;
        }
        if c.starts_with('!') || (c.starts_with('=') && !c.contains('*')) {
            continue;
        }
        if arg >= ir::args(i) {
            break;
        }
        let value = ir::operand(i, arg);
        if c.starts_with('=') {
            // SAFETY: live IR; the index is in range.
            let t = unsafe { shim::vernal_shim_param_elementtype(i, arg) };
            if t.is_null() {
                action.unknown = Some("the size of an output of inline assembly is not known; call vernal_mark after it".into());
            } else {
                action.writes.push(write(value, store_size(m, t), 0));
            }
        } else {
            pointers |= !c.contains('*') && ir::is_pointer(value);
        }
        arg += 1;
    }
    let mut len = 0;
    // SAFETY: live IR; the bytes are only counted.
    unsafe { LLVMGetInlineAsmAsmString(callee, &mut len) };
    // SAFETY: live IR; `i` is a call.
    let effects = unsafe { shim::vernal_shim_may_write(i) } != 0;
    action.before = clobbers || (effects && len > 0);
    action.after = action.before;
    if clobbers && pointers && len > 0 {
        action.unknown = Some(
            "inline assembly that clobbers memory is given a pointer; what it writes there is not marked: name it as an \
             output (\"=m\") or call vernal_mark after it"
                .into(),
        );
    }
    Some(action)
}

/// The number of lanes of a vector value, if it is one of fixed length.
pub fn lanes(v: Value) -> Option<u32> {
    // SAFETY: live IR; the size is asked only of vectors.
    unsafe {
        let t = ir::type_of(v);
        (llvm_sys::core::LLVMGetTypeKind(t) == LLVMTypeKind::LLVMVectorTypeKind)
            .then(|| LLVMGetVectorSize(t))
    }
}
