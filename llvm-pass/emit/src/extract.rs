//! The model of a function: its reachable blocks, the writes that may reach tracked memory, its barriers and loops.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};

use llvm_sys::LLVMOpcode;
use llvm_sys::prelude::LLVMModuleRef;
use vernal_select::{Access, Block, Counters, Event, Function, Key, Loop, Skip, Store};

use super::effects::Effects;
use super::ir::{self, BasicBlock, Value};
use super::objects::Objects;
use super::shim::{self, AnalysisManager};
use super::writers::{self, Action, Size, Target, Write};

/// A function's model, and what its numbers stand for.
pub struct Model {
    pub function: Function,
    pub blocks: Vec<BasicBlock>,
    /// Per block, per event: the instruction that a barrier stands before (null for stores).
    pub at: Vec<Vec<Value>>,
    /// Per key: the base value, and for a write of its own what it covers.
    pub keys: Vec<(Value, Option<Write>)>,
    /// Per root: the value to range-check.
    pub roots: Vec<Value>,
    /// Per block, how often it runs per call of the function, as LLVM guesses.
    pub frequency: Vec<f64>,
    /// Instructions about which nothing can be known, with the reason.
    pub unknown: Vec<(Value, String)>,
}

/// A loop as LLVM sees it.
struct Natural {
    handle: *mut c_void,
    blocks: Vec<BasicBlock>,
    exits: Vec<BasicBlock>,
    dedicated: bool,
}

pub struct Context<'a> {
    pub module: LLVMModuleRef,
    pub fam: *mut AnalysisManager,
    pub objects: &'a Objects,
    pub effects: &'a Effects,
}

/// Extracts the model of `f`.
pub fn extract(cx: &Context<'_>, f: Value, counters: &mut Counters) -> Model {
    split_invokes(cx, f);
    let blocks = reachable(f);
    let index: HashMap<BasicBlock, u32> = blocks
        .iter()
        .enumerate()
        .map(|(i, &b)| (b, i as u32))
        .collect();
    let actions: Vec<Vec<(Value, Action)>> = blocks
        .iter()
        .map(|&b| {
            ir::instructions(b)
                .map(|i| {
                    (
                        i,
                        writers::action(cx.module, i, &|g| cx.effects.publishes(g)),
                    )
                })
                .filter(|(_, a)| a.before || a.after || !a.writes.is_empty() || a.unknown.is_some())
                .collect()
        })
        .collect();
    let natural = loops(cx, f);
    let mut x = Extract {
        cx,
        index: &index,
        model: Model {
            function: Function::default(),
            at: vec![Vec::new(); blocks.len()],
            keys: vec![],
            roots: vec![],
            unknown: vec![],
            frequency: blocks
                .iter()
                // SAFETY: live IR; the block is of `f`.
                .map(|&b| unsafe { shim::vernal_shim_frequency(cx.fam, f, b) })
                .collect(),
            blocks: blocks.clone(),
        },
        events: vec![Vec::new(); blocks.len()],
        heads: vec![Vec::new(); blocks.len()],
        key_of: HashMap::new(),
        root_of: HashMap::new(),
        counters,
    };
    let quiet: Vec<&Natural> = natural
        .iter()
        .filter(|l| {
            l.dedicated
                && l.blocks.iter().all(|b| {
                    index.get(b).is_some_and(|&b| {
                        actions[b as usize]
                            .iter()
                            .all(|(_, a)| !a.before && !a.after)
                    })
                })
        })
        .collect();
    for (b, list) in actions.into_iter().enumerate() {
        for (i, action) in list {
            x.instruction(b, i, action, &quiet);
        }
    }
    x.finish(&natural)
}

struct Extract<'a, 'b> {
    cx: &'a Context<'a>,
    index: &'a HashMap<BasicBlock, u32>,
    model: Model,
    events: Vec<Vec<(Event, Value)>>,
    /// Events that belong to the start of a block: writes of whole loops and of invokes.
    heads: Vec<Vec<(Event, Value)>>,
    key_of: HashMap<Value, u32>,
    root_of: HashMap<Value, u32>,
    counters: &'b mut Counters,
}

const NONE: Value = std::ptr::null_mut();

impl Extract<'_, '_> {
    fn instruction(&mut self, b: usize, i: Value, action: Action, quiet: &[&Natural]) {
        if action.before {
            self.events[b].push((Event::Barrier, i));
        }
        if let Some(why) = action.unknown {
            self.model.unknown.push((i, why));
        }
        let invoke = ir::opcode(i) == Some(LLVMOpcode::LLVMInvoke);
        let mut wrote = false;
        for write in action.writes {
            for write in self.lanes(i, write) {
                let Some((event, at_exit)) = self.write(b, i, write, quiet) else {
                    continue;
                };
                wrote = true;
                if let Some(exit) = at_exit {
                    self.heads[exit as usize].push((event, NONE));
                } else if invoke {
                    let dest = ir::successors(ir::parent(i))[0];
                    self.heads[self.index[&dest] as usize].push((event, NONE));
                } else {
                    self.events[b].push((event, NONE));
                }
            }
        }
        if action.after && wrote {
            // SAFETY: live IR; atomics, volatile accesses and calls in the middle of a block have a successor.
            let next = unsafe { llvm_sys::core::LLVMGetNextInstruction(i) };
            if !next.is_null() {
                self.events[b].push((Event::Barrier, next));
            }
        }
    }

    /// The event for one write, unless it needs none; and the block whose start it belongs to, if it stands for a loop.
    fn write(
        &mut self,
        b: usize,
        i: Value,
        write: Write,
        quiet: &[&Natural],
    ) -> Option<(Event, Option<u32>)> {
        let Target::Ptr(ptr) = write.target else {
            return None;
        };
        if ir::address_space(ptr) != 0 {
            self.counters.skip(Skip::AddressSpace);
            return None;
        }
        if write.size == Size::Fixed(0) {
            self.counters.skip(Skip::Empty);
            return None;
        }
        if let Some(why) = self.cx.objects.untracked(ptr) {
            self.counters.skip(why);
            return None;
        }
        self.counters.stores += 1;
        self.counters.instrumented += 1;
        if let Size::Fixed(bytes) = write.size {
            if let Some(found) = self.whole_loop(b, i, ptr, bytes, quiet) {
                return Some(found);
            }
            if bytes <= 1 << 20 {
                let mut lo = 0;
                // SAFETY: live IR; `ptr` is a pointer.
                let base = unsafe { shim::vernal_shim_base(self.cx.module, ptr, &mut lo) };
                let key = self.key(base);
                let one_line = bytes <= 64 && bytes <= write.align.max(1);
                let access = Access::Fixed {
                    lo,
                    hi: lo + bytes as i64,
                    one_line,
                };
                return Some((
                    Event::Store(Store {
                        key,
                        access,
                        certain: true,
                    }),
                    None,
                ));
            }
        }
        let root = self.root(ptr);
        Some((self.whole(ptr, write, root, b as u32), None))
    }

    /// A write with a key of its own.
    fn whole(&mut self, ptr: Value, write: Write, root: u32, block: u32) -> Event {
        let key = self.model.keys.len() as u32;
        self.model.keys.push((ptr, Some(write)));
        self.model.function.keys.push(Key {
            root,
            def: Some(block),
        });
        Event::Store(Store {
            key,
            access: Access::Whole,
            certain: true,
        })
    }

    /// If `i` writes one element per iteration of a loop without barriers: the event for all of them, at the exit.
    fn whole_loop(
        &mut self,
        b: usize,
        i: Value,
        ptr: Value,
        bytes: u64,
        quiet: &[&Natural],
    ) -> Option<(Event, Option<u32>)> {
        let block = self.model.blocks[b];
        let innermost = quiet.iter().rev().find(|l| l.blocks.contains(&block))?;
        let [exit] = innermost.exits[..] else {
            return None;
        };
        let exit_index = *self.index.get(&exit)?;
        let (mut first, mut length) = (NONE, NONE);
        // SAFETY: live IR; the loop's handle belongs to the analysis that is still valid, as only instructions were added.
        let found = unsafe {
            shim::vernal_shim_loop_range(
                self.cx.fam,
                innermost.handle,
                i,
                ptr,
                bytes,
                &mut first,
                &mut length,
            )
        };
        if found == 0 {
            return None;
        }
        self.counters.in_loops += 1;
        let write = Write {
            target: Target::Ptr(first),
            size: Size::Value(length),
            align: 0,
        };
        // SAFETY: live IR; `ptr` is a pointer.
        let object = unsafe { shim::vernal_shim_root(ptr) };
        let inside = ir::is_instruction(object) && innermost.blocks.contains(&ir::parent(object));
        let root = if inside {
            self.root_index(first)
        } else {
            self.root_index(object)
        };
        Some((self.whole(first, write, root, exit_index), Some(exit_index)))
    }

    fn key(&mut self, base: Value) -> u32 {
        if let Some(&k) = self.key_of.get(&base) {
            return k;
        }
        let root = self.root(base);
        let def = ir::is_instruction(base)
            .then(|| self.index.get(&ir::parent(base)).copied())
            .flatten();
        let k = self.model.keys.len() as u32;
        self.model.keys.push((base, None));
        self.model.function.keys.push(Key { root, def });
        self.key_of.insert(base, k);
        k
    }

    fn root(&mut self, ptr: Value) -> u32 {
        // SAFETY: live IR; `ptr` is a pointer.
        self.root_index(unsafe { shim::vernal_shim_root(ptr) })
    }

    fn root_index(&mut self, root: Value) -> u32 {
        let next = self.model.roots.len() as u32;
        *self.root_of.entry(root).or_insert_with(|| {
            self.model.roots.push(root);
            next
        })
    }

    /// Turns a write through many pointers into writes through one each.
    fn lanes(&mut self, i: Value, write: Write) -> Vec<Write> {
        match write.target {
            Target::Ptr(_) => vec![write],
            Target::Lanes(_) | Target::Indexed(..) => super::lanes::lane_pointers(i, write.target)
                .into_iter()
                .map(|p| Write {
                    target: Target::Ptr(p),
                    align: 0,
                    ..write
                })
                .collect(),
            Target::Iovec(array, count) => {
                self.model.unknown.extend(ir::const_int(count).is_none_or(|n| n > 16).then(|| {
                    (i, "the buffers of this iovec call cannot be counted; call vernal_mark on them after it".to_owned())
                }));
                let n = ir::const_int(count).filter(|&n| n <= 16).unwrap_or(0);
                super::lanes::iovec_buffers(i, array, n)
            }
        }
    }

    fn finish(mut self, natural: &[Natural]) -> Model {
        for (b, block) in self.model.blocks.iter().enumerate() {
            let succs = ir::successors(*block)
                .iter()
                .map(|s| self.index[s])
                .collect();
            let all: Vec<(Event, Value)> = self.heads[b]
                .drain(..)
                .chain(self.events[b].drain(..))
                .collect();
            self.model.at[b] = all.iter().map(|e| e.1).collect();
            self.model.function.blocks.push(Block {
                succs,
                events: all.into_iter().map(|e| e.0).collect(),
            });
        }
        let known = |list: &[BasicBlock]| {
            list.iter()
                .map(|b| self.index.get(b).copied())
                .collect::<Option<Vec<u32>>>()
        };
        for l in natural {
            if let Some((blocks, exits)) = known(&l.blocks).zip(known(&l.exits)) {
                self.model.function.loops.push(Loop {
                    blocks,
                    exits: if l.dedicated { exits } else { vec![] },
                });
            }
        }
        self.model
    }
}

/// Blocks in depth-first order from the entry.
fn reachable(f: Value) -> Vec<BasicBlock> {
    let mut seen = std::collections::HashSet::new();
    let mut order = Vec::new();
    let mut work: Vec<BasicBlock> = ir::blocks(f).take(1).collect();
    while let Some(b) = work.pop() {
        if seen.insert(b) {
            order.push(b);
            work.extend(ir::successors(b).into_iter().rev());
        }
    }
    order
}

/// What an invoke writes is marked where it returns to: that block must be its own.
fn split_invokes(cx: &Context<'_>, f: Value) {
    let invokes: Vec<Value> = ir::blocks(f)
        .map(ir::terminator)
        .filter(|&t| ir::opcode(t) == Some(LLVMOpcode::LLVMInvoke))
        .collect();
    for i in invokes {
        if !writers::action(cx.module, i, &|_| true).writes.is_empty() {
            let dest = ir::successors(ir::parent(i))[0];
            // SAFETY: live IR; the edge to an invoke's normal destination can be split.
            unsafe { shim::vernal_shim_split_edge(i, dest) };
        }
    }
}

fn loops(cx: &Context<'_>, f: Value) -> Vec<Natural> {
    unsafe extern "C" fn visit(
        out: *mut c_void,
        handle: *mut c_void,
        _parent: *mut c_void,
        dedicated: c_int,
        blocks: *const BasicBlock,
        n_blocks: usize,
        exits: *const BasicBlock,
        n_exits: usize,
    ) {
        // SAFETY: the shim passes `out` through unchanged and arrays of the lengths it says; an empty one may be null.
        unsafe {
            let list = |p: *const BasicBlock, n: usize| {
                if n == 0 {
                    vec![]
                } else {
                    std::slice::from_raw_parts(p, n).to_vec()
                }
            };
            (*out.cast::<Vec<Natural>>()).push(Natural {
                handle,
                blocks: list(blocks, n_blocks),
                exits: list(exits, n_exits),
                dedicated: dedicated != 0,
            });
        }
    }
    let mut found: Vec<Natural> = Vec::new();
    // SAFETY: live IR; the callback is only used during the call.
    unsafe { shim::vernal_shim_loops(cx.fam, f, (&raw mut found).cast(), visit) };
    found
}
