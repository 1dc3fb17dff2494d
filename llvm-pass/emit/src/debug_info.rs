//! LLVM's debug information and vtables as `vernal-maps` wants to see them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::rc::Rc;

use llvm_sys::LLVMTypeKind;
use llvm_sys::core::*;
use llvm_sys::prelude::{LLVMModuleRef, LLVMTypeRef};
use vernal_maps::{Die, DieFlags, NodeId, Slot, Source, VtableView};

use super::ir::{self, Value};
use super::shim::{self, RawDie, die_flags};

const ELEMENTS: c_int = 0;
const TEMPLATE_ARGUMENTS: c_int = 1;
const NOTES: c_int = 2;
/// Symbols of groups of vtables and of type information begin so.
const VTABLE: &str = "_ZTV";
const TYPE_INFO: &str = "_ZTI";

/// The debug information of a module. Node ids are addresses of LLVM's metadata nodes, which live as long as the module.
pub struct DebugInfo {
    module: LLVMModuleRef,
    dies: RefCell<HashMap<NodeId, Rc<Die>>>,
}

impl DebugInfo {
    pub fn of(module: LLVMModuleRef) -> Self {
        DebugInfo {
            module,
            dies: RefCell::default(),
        }
    }
}

impl Source for DebugInfo {
    fn die(&self, id: NodeId) -> Rc<Die> {
        if let Some(die) = self.dies.borrow().get(&id) {
            return die.clone();
        }
        let die = Rc::new(read(id as *mut c_void));
        self.dies.borrow_mut().insert(id, die.clone());
        die
    }

    fn vtable(&self, symbol: &str) -> VtableView {
        ir::named_global(self.module, symbol)
            .and_then(vtable)
            .unwrap_or(VtableView::Absent)
    }

    fn vtables(&self) -> Vec<(String, String)> {
        ir::globals(self.module)
            .map(ir::name)
            .filter(|name| name.starts_with(VTABLE))
            .filter_map(|symbol| {
                let class = demangled(&symbol).strip_prefix("vtable for ")?.to_owned();
                Some((symbol, class))
            })
            .collect()
    }
}

/// `node` is the address of a node: 0 is never asked for.
fn read(node: *mut c_void) -> Die {
    let mut raw = RawDie {
        tag: 0,
        encoding: 0,
        flags: 0,
        align: 0,
        size: 0,
        offset: 0,
        value: 0,
        name: std::ptr::null(),
        identifier: std::ptr::null(),
        name_len: 0,
        identifier_len: 0,
        base: std::ptr::null_mut(),
        scope: std::ptr::null_mut(),
    };
    // SAFETY: live IR: the node belongs to the module; `raw` is written during the call.
    unsafe { shim::vernal_shim_die(node, &mut raw) };
    let has = |bit: u32| raw.flags & bit != 0;
    let ids = |which| list(node, which).into_iter().map(|e| e.0).collect();
    Die {
        tag: raw.tag as u16,
        // SAFETY: live IR: the strings are LLVM's, of the given lengths.
        name: unsafe { text(raw.name, raw.name_len) },
        // SAFETY: as above.
        identifier: unsafe { text(raw.identifier, raw.identifier_len) },
        size: raw.size,
        offset: raw.offset,
        align: raw.align,
        encoding: raw.encoding,
        flags: DieFlags {
            forward: has(die_flags::FORWARD),
            is_virtual: has(die_flags::VIRTUAL),
            bit_field: has(die_flags::BIT_FIELD),
            is_static: has(die_flags::STATIC),
            artificial: has(die_flags::ARTIFICIAL),
            enum_class: has(die_flags::ENUM_CLASS),
            vector: has(die_flags::VECTOR),
        },
        base: raw.base as NodeId,
        scope: raw.scope as NodeId,
        elements: ids(ELEMENTS),
        params: ids(TEMPLATE_ARGUMENTS),
        notes: list(node, NOTES).into_iter().map(|e| e.1).collect(),
        value: match has(die_flags::UNSIGNED_VALUE) {
            true => raw.value.into(),
            false => (raw.value as i64).into(),
        },
    }
}

/// # Safety
///
/// `text` is null or has `len` bytes.
unsafe fn text(text: *const c_char, len: usize) -> String {
    if text.is_null() || len == 0 {
        return String::new();
    }
    // SAFETY: the caller's promise; copied at once.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast(), len) };
    String::from_utf8_lossy(bytes).into_owned()
}

type Seen = Vec<(NodeId, String)>;

unsafe extern "C" fn collect(
    ctx: *mut c_void,
    node: *mut c_void,
    chars: *const c_char,
    len: usize,
) {
    // SAFETY: `ctx` is the vector that the caller of the shim passed, and nothing else refers to it during the call.
    let seen = unsafe { &mut *ctx.cast::<Seen>() };
    // SAFETY: the shim passes null or a string of that length.
    seen.push((node as NodeId, unsafe { text(chars, len) }));
}

fn list(node: *mut c_void, which: c_int) -> Seen {
    let mut seen = Seen::new();
    let ctx = (&raw mut seen).cast();
    // SAFETY: live IR; `collect` gets the vector it expects.
    unsafe { shim::vernal_shim_die_list(node, which, ctx, collect) };
    seen
}

fn demangled(symbol: &str) -> String {
    let mut seen = Seen::new();
    let ctx = (&raw mut seen).cast();
    // SAFETY: the symbol's length is given; `collect` gets the vector it expects.
    unsafe {
        shim::vernal_shim_demangle(symbol.as_ptr().cast(), symbol.len(), ctx, collect);
    }
    seen.pop().map(|s| s.1).unwrap_or_default()
}

/// The tables of a group: clang gives it the type of a struct of arrays of pointers.
fn vtable(group: Value) -> Option<VtableView> {
    // SAFETY: live IR; `group` is a global variable, and kinds are checked before what only they have is asked for.
    unsafe {
        let ty = LLVMGlobalGetValueType(group);
        if LLVMGetTypeKind(ty) != LLVMTypeKind::LLVMStructTypeKind {
            return None;
        }
        let arrays = (0..LLVMCountStructElementTypes(ty))
            .map(|i| array_length(LLVMStructGetTypeAtIndex(ty, i)))
            .collect::<Option<Vec<u64>>>()?;
        let value = LLVMGetInitializer(group);
        if value.is_null() {
            return Some(VtableView::Declared(arrays));
        }
        let mut tables = Vec::new();
        for (i, &length) in arrays.iter().enumerate() {
            let array = LLVMGetAggregateElement(value, i as u32);
            let slots = (0..length as u32).map(|k| slot(LLVMGetAggregateElement(array, k)));
            tables.push(slots.collect::<Option<Vec<Slot>>>()?);
        }
        Some(VtableView::Defined(tables))
    }
}

fn array_length(ty: LLVMTypeRef) -> Option<u64> {
    const MAX: u64 = 1 << 20;
    // SAFETY: live IR; the kind is checked before the length is read.
    unsafe {
        let array = LLVMGetTypeKind(ty) == LLVMTypeKind::LLVMArrayTypeKind;
        let length = if array { LLVMGetArrayLength2(ty) } else { MAX };
        (length < MAX).then_some(length)
    }
}

fn slot(entry: Value) -> Option<Slot> {
    if entry.is_null() {
        return None;
    }
    // SAFETY: live IR; `entry` is a constant.
    if unsafe { LLVMIsNull(entry) } != 0 {
        return Some(Slot::Number(0));
    }
    if ir::opcode(entry) == Some(llvm_sys::LLVMOpcode::LLVMIntToPtr) {
        return ir::const_int(ir::operand(entry, 0)).map(|n| Slot::Number(n as i64));
    }
    Some(match ir::name(entry).starts_with(TYPE_INFO) {
        true => Slot::TypeInfo,
        false => Slot::Code,
    })
}
