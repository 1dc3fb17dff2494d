//! Which functions may commit or publish: bottom-up over the calls of a module.
//!
//! A function whose body contains no barrier except its returns, and calls only such functions, cannot make its caller's
//! stores matter to anybody. It cannot unwind or fail to return by a jump either: both begin with a call that is a barrier.

use std::collections::{HashMap, HashSet};

use llvm_sys::LLVMOpcode;
use llvm_sys::prelude::LLVMModuleRef;

use super::ir::{self, Value};
use super::writers::{self, Calls};

/// The functions of a module that may commit or publish.
pub struct Effects(HashSet<Value>);

impl Effects {
    pub fn of(m: LLVMModuleRef) -> Self {
        let mut publishes: HashSet<Value> = HashSet::new();
        let mut callers: HashMap<Value, Vec<Value>> = HashMap::new();
        let mut work = Vec::new();
        for f in ir::functions(m).filter(|&f| ir::has_body(f)) {
            let mut own = false;
            for i in ir::blocks(f).flat_map(ir::instructions) {
                if ir::is_call(i)
                    && ir::asm_constraints(ir::called_value(i)).is_none()
                    && ir::intrinsic(i).is_none()
                {
                    match writers::barrier_of(i) {
                        Calls::Never => {}
                        Calls::Always => own = true,
                        Calls::Callee(g) => callers.entry(g).or_default().push(f),
                    }
                } else if ir::opcode(i) != Some(LLVMOpcode::LLVMRet) {
                    own |= writers::action(m, i, &|_| false).before;
                }
                if own {
                    break;
                }
            }
            if own {
                publishes.insert(f);
                work.push(f);
            }
        }
        while let Some(g) = work.pop() {
            for &f in callers.get(&g).into_iter().flatten() {
                if publishes.insert(f) {
                    work.push(f);
                }
            }
        }
        Self(publishes)
    }

    pub fn publishes(&self, f: Value) -> bool {
        self.0.contains(&f)
    }
}
