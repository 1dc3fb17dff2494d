//! Mutants of the runtime: dirty lists, gathering, brackets, lengths.

use super::{Edit, Mutant};

/// The runtime in one process, with threads.
const RUNTIME: &[&str] = &["test", "-p", "vernal-snapshot", "--test", "runtime"];
/// Pools that were moved before they were recovered.
const MOVED: &[&str] = &[
    "test",
    "-p",
    "vernal-puddled-tests",
    "--test",
    "golden_pools",
];

/// The runtime in a process with one thread.
const PLAIN: &[&str] = &["test", "-p", "vernal-snapshot", "--test", "plain"];

/// Marks that are interrupted at each of their instructions.
const STEPS: &[&str] = &["test", "-p", "vernal-snapshot", "--test", "steps"];

/// Every mutant of the runtime.
pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a line that a commit has cleared is not looked at again",
        edits: &[Edit {
            file: "runtime/snapshot/src/commit.rs",
            search: "        let threads = !os::single_threaded();",
            replace: "        let threads = std::hint::black_box(false);",
        }],
        test: RUNTIME,
    },
    Mutant {
        name: "what an abort has taken back counts as committed when it is stored again",
        edits: &[Edit {
            file: "runtime/snapshot/src/commit.rs",
            search: "            c.known = false;",
            replace: "            c.known |= false;",
        }],
        test: RUNTIME,
    },
    Mutant {
        name: "marks that were dropped are not searched for",
        edits: &[Edit {
            file: "runtime/snapshot/src/commit.rs",
            search: "        if scan && failed.is_none() {",
            replace: "        if scan && failed.is_some() {",
        }],
        test: RUNTIME,
    },
    Mutant {
        name: "the shadow byte stays set",
        edits: &[Edit {
            file: "runtime/snapshot/src/commit.rs",
            search: "        shadow(line).store(abi::SHADOW_CLEAN, Ordering::Relaxed);\n        match deferred(line, true) {",
            replace: "        match deferred(line, true) {",
        }],
        test: RUNTIME,
    },
    Mutant {
        name: "asynchronous commits are taken for applied",
        edits: &[Edit {
            file: "runtime/snapshot/src/runtime/pipeline.rs",
            search: "let pending = engine.has_pending();",
            replace: "let pending = false;",
        }],
        test: RUNTIME,
    },
    Mutant {
        name: "abort leaves the changes",
        edits: &[Edit {
            file: "runtime/snapshot/src/runtime/tx.rs",
            search: "        self.gather.roll_back(own, |line| restored.push(line));\n",
            replace: "        let _ = own;\n        restored.extend(std::iter::empty::<u64>());\n",
        }],
        test: RUNTIME,
    },
    Mutant {
        name: "a commit does not wait for operations",
        edits: &[Edit {
            file: "runtime/snapshot/src/gate.rs",
            search: "    wait_until(|| !busy());",
            replace: "    wait_until(|| std::hint::black_box(true) || !busy());",
        }],
        test: RUNTIME,
    },
    Mutant {
        name: "a group commit serves those who came after it had gathered",
        edits: &[Edit {
            file: "runtime/snapshot/src/runtime/pipeline.rs",
            search: "        self.served = self.target;",
            replace: "        self.served = self.target.saturating_add(3);",
        }],
        test: RUNTIME,
    },
    Mutant {
        name: "what a shrink has cut comes back",
        edits: &[Edit {
            file: "runtime/snapshot/src/runtime/files.rs",
            search: "            let stale = have.min(len);",
            replace: "            let stale = old;",
        }],
        test: RUNTIME,
    },
    Mutant {
        name: "a shadow byte is set before the list announces the line",
        edits: &[Edit {
            file: "runtime/snapshot/src/thread.rs",
            search: "        slot.store(line >> abi::LINE_SHIFT | run, Ordering::Release);\n        set();\n",
            replace: "        set();\n        slot.store(line >> abi::LINE_SHIFT | run, Ordering::Release);\n",
        }],
        test: STEPS,
    },
    Mutant {
        name: "a commit passes over a line that is announced",
        edits: &[Edit {
            file: "runtime/snapshot/src/thread.rs",
            search: "            if v > TAKEN {\n",
            replace: "            if v > TAKEN && !unfilled {\n",
        }],
        test: STEPS,
    },
    Mutant {
        name: "a mark that is dropped is not announced",
        edits: &[Edit {
            file: "runtime/snapshot/src/thread.rs",
            search: "        self.dropping.store(n + 1, Ordering::Release);",
            replace: "        self.dropping.store(n, Ordering::Release);",
        }],
        test: STEPS,
    },
    Mutant {
        name: "only the first line of a range is listed",
        edits: &[Edit {
            file: "runtime/snapshot/src/thread.rs",
            search: "        c.append(first, (line - first).div_ceil(abi::LINE_SIZE), || {",
            replace: "        c.append(first, 1, || {",
        }],
        test: RUNTIME,
    },
    Mutant {
        name: "a waiter is not given what it waits for",
        edits: &[Edit {
            file: "runtime/snapshot/src/runtime/pipeline.rs",
            search: "    if s.durable < ticket\n",
            replace: "    if s.durable > ticket\n",
        }],
        test: RUNTIME,
    },
    Mutant {
        name: "the plain commit leaves the shadow byte set",
        edits: &[Edit {
            file: "runtime/snapshot/src/commit/whole.rs",
            search: "        clear_shadow(line, count);\n",
            replace: "        let _ = clear_shadow;\n",
        }],
        test: PLAIN,
    },
    Mutant {
        name: "the plain commit clears the shadow byte after it has read the line",
        edits: &[
            Edit {
                file: "runtime/snapshot/src/commit/whole.rs",
                search: "        clear_shadow(line, count);\n",
                replace: "",
            },
            Edit {
                file: "runtime/snapshot/src/commit/whole.rs",
                search: "        stage(line, lines);\n        true\n",
                replace: "        stage(line, lines);\n        for _ in 0..100 {\n            std::hint::spin_loop();\n        }\n        clear_shadow(line, count);\n        true\n",
            },
        ],
        test: PLAIN,
    },
    Mutant {
        name: "a run of lines counts as its first",
        edits: &[Edit {
            file: "runtime/snapshot/src/thread.rs",
            search: "!take(line, (v >> RUN_SHIFT) + 1)",
            replace: "!take(line, 1)",
        }],
        test: PLAIN,
    },
    Mutant {
        name: "what the plain commit has not looked at is forgotten",
        edits: &[Edit {
            file: "runtime/snapshot/src/runtime/plain.rs",
            search: "            give_back(engine, gather);\n            return None;",
            replace: "            let _ = give_back;\n            engine.abort();\n            return None;",
        }],
        test: PLAIN,
    },
    Mutant {
        name: "the plain commit does not see a new length",
        edits: &[Edit {
            file: "runtime/snapshot/src/runtime/plain.rs",
            search: "            && !self.resizing\n",
            replace: "",
        }],
        test: PLAIN,
    },
];

/// Those of soak.
pub const MORE: &[Mutant] = &[
    Mutant {
        name: "a line of a moved pool that nobody has stored to is committed alone",
        edits: &[Edit {
            file: "runtime/snapshot/src/commit.rs",
            search: "            Deferred::Untouched => return Ok(()),",
            replace: "            Deferred::Untouched => {}",
        }],
        test: &["test", "-p", "vernal-pool", "--test", "deferred"],
    },
    Mutant {
        name: "a journal is removed although files that were moved with it need it",
        edits: &[Edit {
            file: "runtime/snapshot/src/file.rs",
            search: "            .is_deletable(|p| look(beside(p)))\n            .is_ok_and(|yes| yes);",
            replace: "            .is_deletable(|p| look(beside(p)))\n            .is_ok();",
        }],
        test: MOVED,
    },
    Mutant {
        name: "the logs of a direct pool mean the place where the pool was",
        edits: &[Edit {
            file: "runtime/pool/src/direct/files.rs",
            search: "                0 => dir.to_owned(),\n",
            replace: "                0 if index > 0 => dir.to_owned(),\n",
        }],
        test: MOVED,
    },
];
