//! Gives every allocation in a pool the descriptor of what it allocates.
//!
//! Clang attaches the type to a call of an allocation function whose result is cast. At the start of the pipeline, before
//! inlining and merging of branches lose that, each such call gets the address of a `struct vn_type`:
//!
//! ```c
//! struct vn_type { const uint8_t *blob; uint32_t len; uint32_t bound_count; const void *const *bound; };
//! ```
//!
//! The structures, and a pointer to each in the section `vernal_types`, are named after their content, so that the linker
//! keeps one of each in a program or library; one constructor there registers all of them.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::Write as _;

use llvm_sys::core::*;
use llvm_sys::prelude::{LLVMContextRef, LLVMModuleRef, LLVMTypeRef};
use llvm_sys::{LLVMLinkage, LLVMVisibility};
use vernal_abi::types::{NEW, REGISTER, ROOT, SECTION};
use vernal_maps::{Bound, Described, Describer, NodeId};

use super::debug_info::DebugInfo;
use super::ir::{self, Value};
use super::plugin;
use super::shim;

/// Which argument of the allocation functions is the number of bytes.
const SIZE_ARGUMENT: u32 = 1;
/// Which one is the type.
const TYPE_ARGUMENT: u32 = 2;
/// The constructor that registers the types.
const CONSTRUCTOR: &str = "__vernal_types_init";
/// Runs ahead of constructors of the program, which may already open a pool, and behind those of the C library.
const PRIORITY: i32 = 100;

/// One run over a module.
pub fn run(m: LLVMModuleRef) {
    let calls: Vec<Value> = [NEW, ROOT]
        .iter()
        .filter_map(|name| ir::named_function(m, name))
        .flat_map(untyped_calls)
        .collect();
    if !calls.is_empty() {
        let info = DebugInfo::of(m);
        let mut emitter = Emitter {
            module: m,
            // SAFETY: live IR.
            context: unsafe { LLVMGetModuleContext(m) },
            describer: Describer::new(&info),
            types: HashMap::new(),
            said: HashSet::new(),
            printed: String::new(),
        };
        calls.into_iter().for_each(|call| emitter.call(call));
        print(&emitter.printed);
    }
    // SAFETY: live IR; nothing here keeps pointers into what this removes.
    unsafe { shim::vernal_shim_strip(m) };
}

/// The calls of an allocation function that have a null type.
fn untyped_calls(f: Value) -> Vec<Value> {
    let is_null = |v: Value| {
        // SAFETY: live IR.
        unsafe { LLVMIsNull(v) != 0 }
    };
    ir::users(f)
        .filter(|&u| ir::is_call(u) && ir::called_value(u) == f && ir::args(u) > TYPE_ARGUMENT)
        .filter(|&u| is_null(ir::operand(u, TYPE_ARGUMENT)))
        .collect()
}

struct Emitter<'a> {
    module: LLVMModuleRef,
    context: LLVMContextRef,
    describer: Describer<'a, DebugInfo>,
    /// What has been emitted, by debug information; none where a type has no layout. With what allocated sizes must be a
    /// multiple of.
    types: HashMap<NodeId, Option<(Value, Option<u64>)>>,
    /// Warnings given; one of each is enough.
    said: HashSet<String>,
    /// Layouts for `VERNAL_PASS_TYPES`.
    printed: String,
}

impl Emitter<'_> {
    fn call(&mut self, call: Value) {
        // SAFETY: live IR.
        let node = unsafe { shim::vernal_shim_allocated_type(call) } as NodeId;
        if node == 0 {
            let text = "allocation in a pool without a type, which will be refused when it runs: use vn_new(pool, T), or cast \
                        the result of the call to the type it is for (and compile with vernal-cc, or with -fdeclspec -g \
                        -fstandalone-debug)";
            return self.warn(call, text);
        }
        let found = match self.types.get(&node) {
            Some(&known) => known,
            None => {
                let made = self.describe(call, node);
                self.types.insert(node, made);
                made
            }
        };
        if let Some((value, size)) = found {
            if let Some(bytes) = ir::const_int(ir::operand(call, SIZE_ARGUMENT))
                && size.is_some_and(|s| bytes % s != 0)
            {
                let text = format!(
                    "allocates {bytes} bytes for objects of {} bytes, so it gets no type: clang takes the type from the last \
                     cast of the result; use vn_new(pool, T)",
                    size.unwrap_or_default()
                );
                return self.warn(call, &text);
            }
            // SAFETY: live IR; the argument is a pointer, as the value is.
            unsafe { LLVMSetOperand(call, TYPE_ARGUMENT, value) };
        }
    }

    fn describe(&mut self, call: Value, node: NodeId) -> Option<(Value, Option<u64>)> {
        match self.describer.describe(node) {
            Ok(described) => {
                for why in described.refusals() {
                    let text = format!("cannot be allocated in a pool: {why}");
                    self.warn(call, &text);
                }
                self.printed
                    .push_str(&format!("{}{}\n", described.text(), described.json()));
                let desc = &described.desc;
                let unit = Some(desc.size()).filter(|&s| s > 0 && !desc.is_flexible());
                Some((self.emit(&described), unit))
            }
            Err(e) => {
                self.warn(call, &e.to_string());
                None
            }
        }
    }

    fn warn(&mut self, at: Value, text: &str) {
        if plugin::warns() && (self.said.insert(text.to_owned()) || text.starts_with("alloca")) {
            // SAFETY: live IR; the text is copied or printed during the call.
            unsafe { shim::vernal_shim_warn(at, text.as_ptr().cast(), text.len()) };
        }
    }

    fn emit(&self, described: &Described) -> Value {
        let hash = described.symbol_hash();
        let symbol = |what: &str| format!("__vernal_{what}_{hash:016x}");
        let m = self.module;
        if let Some(known) = ir::named_global(m, &symbol("type")) {
            return known;
        }
        let blob = described.desc.blob();
        let vtables: Vec<Value> = described.bound.iter().map(|b| self.vtable(b)).collect();
        // A vtable that only this object has keeps the whole to this object.
        let shared = !vtables.iter().any(|&g| ir::is_local(g));
        let points: Vec<Value> = described
            .bound
            .iter()
            .zip(&vtables)
            .map(|(b, &g)| self.address(g, b.offset))
            .collect();
        // SAFETY: live IR; all constants are of the module's context and have the types they are said to have.
        unsafe {
            let pointer = LLVMPointerTypeInContext(self.context, 0);
            let bytes =
                LLVMConstStringInContext2(self.context, blob.as_ptr().cast(), blob.len(), 1);
            let blob_global = self.constant(&symbol("blob"), bytes, shared);
            let bound = match points.is_empty() {
                true => LLVMConstNull(pointer),
                false => {
                    let mut points = points;
                    let array = LLVMConstArray2(pointer, points.as_mut_ptr(), points.len() as u64);
                    self.constant(&symbol("bound"), array, shared)
                }
            };
            let int = LLVMInt32TypeInContext(self.context);
            let mut fields = [
                blob_global,
                LLVMConstInt(int, blob.len() as u64, 0),
                LLVMConstInt(int, described.bound.len() as u64, 0),
                bound,
            ];
            let value = LLVMConstStructInContext(self.context, fields.as_mut_ptr(), 4, 0);
            let ty = self.constant(&symbol("type"), value, shared);
            let entry = self.constant(&symbol("entry"), ty, shared);
            // Like the section in other objects: writable where addresses are relocated.
            LLVMSetGlobalConstant(entry, 0);
            ir::set_section(entry, SECTION);
            shim::vernal_shim_use(m, entry);
            self.constructor();
            ty
        }
    }

    /// A constant of the program or, if not `shared`, of this object.
    fn constant(&self, name: &str, value: Value, shared: bool) -> Value {
        const ALIGN: u32 = 8;
        let g = ir::add_global(self.module, name, ir::type_of(value));
        // SAFETY: live IR; the initialiser has the global's type.
        unsafe {
            LLVMSetInitializer(g, value);
            LLVMSetGlobalConstant(g, 1);
            LLVMSetAlignment(g, ALIGN);
        }
        self.place(g, name, shared);
        g
    }

    fn place(&self, g: Value, name: &str, shared: bool) {
        // SAFETY: live IR; `g` is a global of the module.
        unsafe {
            if !shared {
                LLVMSetLinkage(g, LLVMLinkage::LLVMInternalLinkage);
                return;
            }
            LLVMSetLinkage(g, LLVMLinkage::LLVMLinkOnceODRLinkage);
            LLVMSetVisibility(g, LLVMVisibility::LLVMHiddenVisibility);
            ir::set_comdat(self.module, g, name);
        }
    }

    /// The group of vtables; one that nothing here mentions may be missing from the program when no constructor runs.
    fn vtable(&self, bound: &Bound) -> Value {
        ir::named_global(self.module, &bound.symbol).unwrap_or_else(|| {
            // SAFETY: live IR.
            let byte = unsafe { LLVMInt8TypeInContext(self.context) };
            self.weak(&bound.symbol, byte)
        })
    }

    fn weak(&self, name: &str, ty: LLVMTypeRef) -> Value {
        let g = ir::add_global(self.module, name, ty);
        // SAFETY: live IR.
        unsafe { LLVMSetLinkage(g, LLVMLinkage::LLVMExternalWeakLinkage) };
        g
    }

    fn address(&self, g: Value, offset: u64) -> Value {
        // SAFETY: live IR; the types are of the module's context.
        unsafe {
            let byte = LLVMInt8TypeInContext(self.context);
            let mut index = [LLVMConstInt(
                LLVMInt64TypeInContext(self.context),
                offset,
                0,
            )];
            LLVMConstGEP2(byte, g, index.as_mut_ptr(), 1)
        }
    }

    /// Registers the section of this program or library, once however many objects bring the constructor.
    fn constructor(&self) {
        let m = self.module;
        if ir::named_function(m, CONSTRUCTOR).is_some() {
            return;
        }
        // SAFETY: live IR; all types are of the module's context.
        unsafe {
            let pointer = LLVMPointerTypeInContext(self.context, 0);
            let void = LLVMVoidTypeInContext(self.context);
            let mut two = [pointer, pointer];
            let register_type = LLVMFunctionType(void, two.as_mut_ptr(), 2, 0);
            let register = ir::named_function(m, REGISTER)
                .unwrap_or_else(|| ir::add_function(m, REGISTER, register_type));
            let mut ends = ["__start_", "__stop_"].map(|end| {
                let name = format!("{end}{SECTION}");
                let g = ir::named_global(m, &name).unwrap_or_else(|| self.weak(&name, pointer));
                LLVMSetVisibility(g, LLVMVisibility::LLVMHiddenVisibility);
                g
            });
            let f = ir::add_function(
                m,
                CONSTRUCTOR,
                LLVMFunctionType(void, std::ptr::null_mut(), 0, 0),
            );
            self.place(f, CONSTRUCTOR, true);
            ir::add_enum_attribute(self.context, f, "nounwind", 0);
            ir::add_enum_attribute(self.context, f, "uwtable", 2);
            let body = LLVMAppendBasicBlockInContext(self.context, f, c"".as_ptr());
            let builder = LLVMCreateBuilderInContext(self.context);
            LLVMPositionBuilderAtEnd(builder, body);
            LLVMBuildCall2(
                builder,
                register_type,
                register,
                ends.as_mut_ptr(),
                2,
                c"".as_ptr(),
            );
            LLVMBuildRetVoid(builder);
            LLVMDisposeBuilder(builder);
            shim::vernal_shim_constructor(m, f, PRIORITY);
        }
    }
}

/// Appends the layouts to the file that `VERNAL_PASS_TYPES` names.
fn print(text: &str) {
    let Ok(to) = std::env::var("VERNAL_PASS_TYPES") else {
        return;
    };
    let written = match to.as_str() {
        "-" => std::io::stdout().write_all(text.as_bytes()),
        file => OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .and_then(|mut f| f.write_all(text.as_bytes())),
    };
    if let Err(e) = written {
        eprintln!("vernal: cannot write the layouts of types to {to} (VERNAL_PASS_TYPES): {e}");
    }
}
