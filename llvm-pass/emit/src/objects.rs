//! What a pointer may point to: is it memory that no mapping can hold?
//!
//! Walks in-bounds address arithmetic, phis and selects down to the object. Across functions it starts from the hope that
//! every argument of an internal function, and what internal functions return, is untracked, and drops what a call or a
//! return contradicts until nothing changes.

use std::collections::HashSet;

use llvm_sys::LLVMOpcode;
use llvm_sys::core::{LLVMIsAGlobalAlias, LLVMIsAGlobalObject, LLVMIsNull, LLVMIsUndef};
use llvm_sys::prelude::LLVMModuleRef;
use vernal_select::{Skip, libc};

use super::ir::{self, Value};
use super::{shim, writers};

/// Steps through phis and selects before a pointer counts as tracked.
const LIMIT: usize = 64;

/// What is known about the pointers of a module.
pub struct Objects {
    args: HashSet<Value>,
    returns: HashSet<Value>,
    track_malloc: bool,
}

impl Objects {
    pub fn of(m: LLVMModuleRef, track_malloc: bool) -> Self {
        let mut me = Self {
            args: HashSet::new(),
            returns: HashSet::new(),
            track_malloc,
        };
        let mut calls: Vec<(Value, Value)> = Vec::new();
        let mut rets: Vec<(Value, Value)> = Vec::new();
        for f in ir::functions(m).filter(|&f| ir::has_body(f)) {
            // SAFETY: live IR; `f` is a function.
            if unsafe { shim::vernal_shim_is_interposable(f) } == 0 {
                me.returns.insert(f);
                for b in ir::blocks(f) {
                    let t = ir::terminator(b);
                    if ir::opcode(t) == Some(LLVMOpcode::LLVMRet)
                        && ir::operands(t) == 1
                        && ir::is_pointer(ir::operand(t, 0))
                    {
                        rets.push((f, ir::operand(t, 0)));
                    }
                }
            }
            if !ir::is_local(f) {
                continue;
            }
            let uses: Vec<Value> = ir::users(f).collect();
            if uses
                .iter()
                .all(|&u| ir::is_call(u) && ir::callee(u) == Some(f) && !passes(u, f))
            {
                me.args
                    .extend(ir::params(f).into_iter().filter(|&p| ir::is_pointer(p)));
                calls.extend(uses.iter().map(|&u| (f, u)));
            }
        }
        loop {
            let mut drop_args = Vec::new();
            for &(f, call) in &calls {
                for (n, p) in ir::params(f).into_iter().enumerate() {
                    if me.args.contains(&p) && me.untracked(ir::operand(call, n as u32)).is_none() {
                        drop_args.push(p);
                    }
                }
            }
            let gone: Vec<Value> = rets
                .iter()
                .filter(|&&(f, v)| me.returns.contains(&f) && me.untracked(v).is_none())
                .map(|r| r.0)
                .collect();
            if drop_args.is_empty() && gone.is_empty() {
                return me;
            }
            drop_args.iter().for_each(|a| {
                me.args.remove(a);
            });
            gone.iter().for_each(|f| {
                me.returns.remove(f);
            });
        }
    }

    /// Why stores through `ptr` need no mark, if so.
    pub fn untracked(&self, ptr: Value) -> Option<Skip> {
        let mut seen = HashSet::new();
        let mut work = vec![ptr];
        let mut why = None;
        while let Some(v) = work.pop() {
            // SAFETY: live IR; `v` is a pointer.
            let v = unsafe { shim::vernal_shim_root(v) };
            if !seen.insert(v) {
                continue;
            }
            if seen.len() > LIMIT {
                return None;
            }
            match ir::opcode(v) {
                Some(LLVMOpcode::LLVMPHI | LLVMOpcode::LLVMSelect) => {
                    let first = u32::from(ir::opcode(v) == Some(LLVMOpcode::LLVMSelect));
                    work.extend((first..ir::operands(v)).map(|n| ir::operand(v, n)));
                }
                _ => {
                    let here = self.object(v)?;
                    why = Some(match why {
                        None => here,
                        Some(w) if w == here => w,
                        Some(_) => Skip::Mixed,
                    });
                }
            }
        }
        // Phis that only feed each other never run.
        Some(why.unwrap_or(Skip::Constant))
    }

    fn object(&self, v: Value) -> Option<Skip> {
        if ir::address_space(v) != 0 {
            return Some(Skip::AddressSpace);
        }
        // SAFETY: live IR.
        let (global, alias, nothing) = unsafe {
            (
                !LLVMIsAGlobalObject(v).is_null(),
                !LLVMIsAGlobalAlias(v).is_null(),
                LLVMIsNull(v) != 0 || LLVMIsUndef(v) != 0,
            )
        };
        if global || alias {
            return Some(Skip::Global);
        }
        if nothing {
            return Some(Skip::Constant);
        }
        if ir::is_argument(v) {
            // SAFETY: live IR; `v` is an argument.
            if unsafe { shim::vernal_shim_arg_byval(v) } != 0 {
                return Some(Skip::ByValue);
            }
            return self.args.contains(&v).then_some(Skip::Argument);
        }
        match ir::opcode(v) {
            Some(LLVMOpcode::LLVMAlloca) => Some(Skip::Stack),
            Some(LLVMOpcode::LLVMCall | LLVMOpcode::LLVMInvoke) => self.result(v),
            _ => None,
        }
    }

    fn result(&self, call: Value) -> Option<Skip> {
        if ir::intrinsic(call).is_some_and(|n| n.starts_with("llvm.threadlocal.address")) {
            return Some(Skip::Global);
        }
        let f = ir::callee(call)?;
        if ir::has_body(f) {
            return self.returns.contains(&f).then_some(Skip::Returned);
        }
        let name = writers::plain_name(f);
        if !self.track_malloc && libc::is_allocator(&name) {
            return Some(Skip::Malloc);
        }
        matches!(
            name.as_str(),
            "__errno_location" | "__tls_get_addr" | "__cxa_allocate_exception"
        )
        .then_some(Skip::Global)
    }
}

/// Whether a call passes `f` itself as an argument.
fn passes(call: Value, f: Value) -> bool {
    (0..ir::args(call)).any(|n| ir::operand(call, n) == f)
}
