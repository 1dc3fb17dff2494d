//! Mutants of the compiler pass: stores that are not seen, marks that come too early or too late.

use super::{Edit, Mutant};

/// One rule, one file, through opt and FileCheck.
const RULES: &[&str] = &["test", "-p", "vernal-pass-tests", "--test", "filecheck"];
/// Placement against a checker of all paths.
const PLACEMENT: &[&str] = &["test", "-p", "vernal-select"];

/// Every mutant of the pass.
pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "compare-and-exchange is not a store",
        edits: &[Edit {
            file: "llvm-pass/emit/src/writers.rs",
            search: "Some(LLVMOpcode::LLVMAtomicRMW | LLVMOpcode::LLVMAtomicCmpXchg) => fenced(",
            replace: "Some(LLVMOpcode::LLVMAtomicRMW) => fenced(",
        }],
        test: RULES,
    },
    Mutant {
        name: "marks sink below a call that may commit",
        edits: &[Edit {
            file: "llvm-pass/emit/src/writers.rs",
            search: "            Calls::Always => true,",
            replace: "            Calls::Always => false,",
        }],
        test: RULES,
    },
    Mutant {
        name: "a barrier forgets what was pending",
        edits: &[Edit {
            file: "llvm-pass/select/src/place.rs",
            search: "                        if !now.is_empty() {\n                            sites.push((\n                                Point::Before {",
            replace: "                        if now.is_empty() {\n                            sites.push((\n                                Point::Before {",
        }],
        test: PLACEMENT,
    },
    Mutant {
        name: "what is pending at a return is not marked",
        edits: &[Edit {
            file: "llvm-pass/select/src/place.rs",
            search: "                    sites.push((Point::End(b as u32), now));",
            replace: "                    let _ = (Point::End(b as u32), now);",
        }],
        test: PLACEMENT,
    },
];
