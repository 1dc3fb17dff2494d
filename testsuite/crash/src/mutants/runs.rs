//! Mutants of runs: whole lines that are one entry of a record.

use super::{Edit, Mutant};

/// Enumerated crash states of the scenario of runs.
const RUNS: &[&str] = &["test", "-p", "vernal-crash", "--test", "enumerate", "runs"];
/// Decay and tampering.
const DAMAGE: &[&str] = &["test", "-p", "vernal-crash", "--test", "damage"];
/// The journal's own tests.
const UNIT: &[&str] = &["test", "-p", "vernal-journal", "--lib"];

/// Every mutant of runs.
pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "stray bits in the header of a run are ignored",
        edits: &[Edit {
            file: "runtime/format/src/record.rs",
            search: "KIND_RUN if is_run(header, line) =>",
            replace: "KIND_RUN if is_run(header & !0xff, line) =>",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "a run may end in another file",
        edits: &[Edit {
            file: "runtime/journal/src/recover.rs",
            search: "sb.member_at(line).is_some_and(|m| m.contains(last))",
            replace: "sb.member_at(line).is_some_and(|m| m.contains(last) || last > line)",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "a run goes on into the next file",
        edits: &[Edit {
            file: "runtime/journal/src/committer.rs",
            search: "            self.builder.end_run();\n",
            replace: "",
        }],
        test: &["test", "-p", "vernal-crash", "--test", "runs"],
    },
    Mutant {
        name: "a run is applied beyond the end of the file",
        edits: &[Edit {
            file: "runtime/journal/src/apply.rs",
            search: "if start + size_of_val(words) as u64 <= len {",
            replace: "if start < len {",
        }],
        test: RUNS,
    },
    Mutant {
        name: "a run is one line longer than its header says",
        edits: &[Edit {
            file: "runtime/journal/src/builder.rs",
            search: "            self.words[at] = run_entry_header(first, count + 1).to_le();\n",
            replace: "            self.words[at] = run_entry_header(first, count).to_le();\n",
        }],
        test: UNIT,
    },
];
