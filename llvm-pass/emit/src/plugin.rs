//! What LLVM loads, and one run of the pass over a module.
//!
//! Environment:
//! * `VERNAL_PASS_STATS=FILE` (`-` for standard error): appends one JSON object per module.
//! * `VERNAL_PASS_TYPES=FILE` (`-` for standard output): appends the layout of every type that a module allocates in pools.
//! * `VERNAL_PASS_OPTIONS=LIST`: comma-separated `track-malloc` (memory from the C library's allocator may be tracked),
//!   `no-warn` (no warnings about writers that cannot be known), `far=F` and `near=F` (how often a point must run per call
//!   of its function to be worth the faster but longer forms of a range check).

use std::collections::HashSet;
use std::ffi::{c_char, c_int, c_void};
use std::fs::OpenOptions;
use std::io::Write as _;

use llvm_sys::core::LLVMGetModuleContext;
use llvm_sys::prelude::LLVMModuleRef;
use vernal_select::{Counters, Point, Skip, place};

use super::effects::Effects;
use super::extract::{self, Context};
use super::insert::{Emitter, Form};
use super::ir::{self, Value};
use super::objects::Objects;
use super::shim::{self, AnalysisManager};
use super::{lto, writers};

/// Attribute of functions that are done.
pub const INSTRUMENTED: &str = "vernal-instrumented";
/// Points that run at least this often per call of their function get [`Form::Far`].
const FAR: f64 = 2.0;
/// Points that run at least this often per call of their function get [`Form::Near`], all others [`Form::Call`].
const NEAR: f64 = 0.002;
/// Attribute, or annotation (with an underscore), of functions to leave alone.
const SKIP: [&str; 2] = ["vernal-skip", "vernal_skip"];

/// The variable with the pass's options.
const OPTIONS: &str = "VERNAL_PASS_OPTIONS";

fn has_option(options: &str, name: &str) -> bool {
    options.split(',').any(|o| o.trim() == name)
}

/// Whether warnings are wanted.
pub fn warns() -> bool {
    !has_option(&std::env::var(OPTIONS).unwrap_or_default(), "no-warn")
}

/// `llvm::PassPluginLibraryInfo`. Its last field exists from LLVM 22 on; 19 ignores what follows the fields it knows.
#[repr(C)]
pub struct PluginInfo {
    api_version: u32,
    name: *const c_char,
    version: *const c_char,
    register: unsafe extern "C" fn(*mut c_void),
    pre_codegen: Option<unsafe extern "C" fn()>,
}

/// The entry point that LLVM looks up.
#[unsafe(no_mangle)]
pub extern "C" fn llvmGetPassPluginInfo() -> PluginInfo {
    PluginInfo {
        // SAFETY: returns a constant.
        api_version: unsafe { shim::vernal_shim_api_version() },
        name: c"vernal".as_ptr(),
        version: concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast(),
        register: shim::vernal_shim_register,
        pre_codegen: None,
    }
}

/// Runs the pass over a module. `prelink`: 0 instruments, 1 leaves a note for the link, 2 asks the module which.
///
/// # Safety
///
/// Called by the shim with a module and its analysis manager, both alive during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vernal_run_module(
    m: LLVMModuleRef,
    fam: *mut AnalysisManager,
    prelink: c_int,
) {
    guarded(m, || run(m, fam, prelink));
}

/// Gives allocations in pools the types of what they allocate, and removes debug information that only this needed.
///
/// # Safety
///
/// Called by the shim with a live module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vernal_type_module(m: LLVMModuleRef) {
    guarded(m, || super::types::run(m));
}

/// A panic must not unwind into C++.
fn guarded(m: LLVMModuleRef, run: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
        eprintln!(
            "vernal: internal error while compiling {}; please report it",
            ir::module_name(m)
        );
        std::process::abort();
    }
}

/// Lowers the range checks that [`vernal_run_module`] left for the optimiser to move.
///
/// # Safety
///
/// Called by the shim with a live module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vernal_lower_module(m: LLVMModuleRef) {
    super::guard::lower(m);
}

fn run(m: LLVMModuleRef, fam: *mut AnalysisManager, prelink: c_int) {
    // LLVM 19 does not say whether a link will follow. Clang's module flag does; on the second visit (the native half of a
    // fat LTO object, or the link) our own note is there.
    let prelink = match prelink {
        2 => !lto::is_pending(m) && lto::has_lto_flag(m),
        p => p == 1,
    };
    if prelink {
        lto::add_pending(m);
        return;
    }
    lto::remove_pending(m);
    let options = std::env::var(OPTIONS).unwrap_or_default();
    let option = |name: &str| has_option(&options, name);
    let number = |name: &str, default: f64| {
        let find = |o: &str| o.trim().strip_prefix(name)?.strip_prefix('=')?.parse().ok();
        options.split(',').find_map(find).unwrap_or(default)
    };
    let (far, near) = (number("far", FAR), number("near", NEAR));
    let mut counters = Counters::default();
    // SAFETY: live IR.
    let context = unsafe { LLVMGetModuleContext(m) };
    let skipped: HashSet<Value> = ir::annotations(m)
        .into_iter()
        .filter(|(_, text)| SKIP.contains(&text.as_str()))
        .map(|a| a.0)
        .collect();
    let todo: Vec<Value> = ir::functions(m)
        .filter(|&f| ir::has_body(f) && !ir::has_string_attribute(f, INSTRUMENTED))
        .collect();
    if todo.is_empty() {
        return;
    }
    let objects = Objects::of(m, option("track-malloc"));
    let effects = Effects::of(m);
    let cx = Context {
        module: m,
        fam,
        objects: &objects,
        effects: &effects,
    };
    let emitter = Emitter::new(m);
    for f in todo {
        counters.functions += 1;
        let skip = skipped.contains(&f) || SKIP.iter().any(|s| ir::has_string_attribute(f, s));
        if skip || ir::has_enum_attribute(f, "naked") {
            for i in ir::blocks(f).flat_map(ir::instructions) {
                (0..writers::action(m, i, &|_| true).writes.len())
                    .for_each(|_| counters.skip(Skip::Function));
            }
            continue;
        }
        let model = extract::extract(&cx, f, &mut counters);
        if !option("no-warn") {
            for (at, why) in &model.unknown {
                counters.warnings += 1;
                // SAFETY: live IR; the text is copied or printed during the call.
                unsafe { shim::vernal_shim_warn(*at, why.as_ptr().cast(), why.len()) };
            }
        }
        let plan = place(&model.function);
        if !plan.sites.is_empty() {
            counters.functions_marked += 1;
        }
        let small = ["cold", "optnone", "minsize"]
            .iter()
            .any(|a| ir::has_enum_attribute(f, a));
        let frequency = |b: u32| model.frequency[b as usize];
        let form = |at: Point| {
            let runs = match at {
                Point::Before { block, .. } => frequency(block),
                Point::Start(b) | Point::End(b) => frequency(b),
                Point::Edge(a, b) => frequency(a).min(frequency(b)),
            };
            match runs {
                _ if small => Form::Call,
                r if r >= far => Form::Far,
                r if r >= near => Form::Near,
                _ => Form::Call,
            }
        };
        emitter.emit(&model, &plan, &form, &mut counters);
        ir::add_string_attribute(context, f, INSTRUMENTED);
    }
    lto::add_abi_note(m);
    report(m, &counters);
}

fn report(m: LLVMModuleRef, counters: &Counters) {
    let Ok(to) = std::env::var("VERNAL_PASS_STATS") else {
        return;
    };
    let line = counters.json(&ir::module_name(m)) + "\n";
    let written = match to.as_str() {
        "-" => std::io::stderr().write_all(line.as_bytes()),
        file => OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .and_then(|mut f| f.write_all(line.as_bytes())),
    };
    if let Err(e) = written {
        eprintln!("vernal: cannot write statistics to {to} (VERNAL_PASS_STATS): {e}");
    }
}
