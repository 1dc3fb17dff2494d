//! Mutants of the direct mode: fences, stages, what counts as an entry, what recovery checks.

use super::{Edit, Mutant};

/// One life of direct transactions.
macro_rules! life {
    ($scenario:literal) => {
        &["test", "-p", "vernal-crash", "--test", "direct", $scenario]
    };
}
const DAMAGE: &[&str] = &["test", "-p", "vernal-crash", "--test", "direct_damage"];
const LOG: &str = "runtime/journal/src/direct/log.rs";
const READER: &str = "runtime/journal/src/direct/reader.rs";
const RECOVER: &str = "runtime/journal/src/direct/recover.rs";

/// Every mutant of the direct mode.
pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "an undo entry is not fenced before the store",
        edits: &[Edit {
            file: LOG,
            search: "            self.fence(home, \"fencing undo entries\")?;\n",
            replace: "",
        }],
        test: life!("direct_undo"),
    },
    Mutant {
        name: "a transaction ends before its lines are written back",
        edits: &[Edit {
            file: LOG,
            search: "self.lines.iter().try_for_each(|l| home.write_back(l.addr))",
            replace: "self.lines.iter().take(1).try_for_each(|l| home.write_back(l.addr))",
        }],
        test: life!("direct_undo"),
    },
    Mutant {
        name: "a transaction ends before its lines are fenced",
        edits: &[Edit {
            file: LOG,
            search: "            self.fence(home, \"fencing changed lines\")?;\n",
            replace: "",
        }],
        test: life!("direct_hybrid"),
    },
    Mutant {
        name: "redo entries are applied before the range is durable",
        edits: &[Edit {
            file: LOG,
            search: "            self.fence(home, \"committing redo entries\")?;\n",
            replace: "",
        }],
        test: life!("direct_redo"),
    },
    Mutant {
        name: "a generation ends before redo entries are applied durably",
        edits: &[Edit {
            file: LOG,
            search: "            self.fence(home, \"fencing applied redo entries\")?;\n",
            replace: "",
        }],
        test: life!("direct_redo"),
    },
    Mutant {
        name: "a commit returns before its generation has ended",
        edits: &[Edit {
            file: LOG,
            search: "                // Rule 5: what another thread changes next must not be undone or redone by this log.\n                \
                     self.fence(home, \"ending a generation\")?;\n",
            replace: "",
        }],
        test: life!("direct_undo"),
    },
    Mutant {
        name: "what an abort undoes is not fenced",
        edits: &[Edit {
            file: LOG,
            search: "            self.fence(home, \"fencing what was undone\")?;\n",
            replace: "",
        }],
        test: life!("direct_abort"),
    },
    Mutant {
        name: "an abort leaves its generation to the next transaction",
        edits: &[Edit {
            file: LOG,
            search: "        if self.index > 0 {\n            // Rule 6",
            replace: "        if self.undo > 0 {\n            // Rule 6",
        }],
        test: life!("direct_abort"),
    },
    Mutant {
        name: "entries of an earlier transaction count",
        edits: &[Edit {
            file: READER,
            search: "raw.generation() != self.control.generation\n",
            replace: "raw.generation() > self.control.generation\n",
        }],
        test: life!("direct_undo"),
    },
    Mutant {
        name: "the checksum of an entry leaves out address, size and index",
        edits: &[
            Edit {
                file: "runtime/format/src/log.rs",
                search: "bytes.get(8..sum_end)",
                replace: "bytes.get(24..sum_end)",
            },
            Edit {
                file: "runtime/format/src/log.rs",
                search: "whole.get(8..end)",
                replace: "whole.get(24..end)",
            },
        ],
        test: DAMAGE,
    },
    Mutant {
        name: "redo entries count although some are torn",
        edits: &[Edit {
            file: READER,
            search: "if self.control.range == SequenceRange::REDO && !sealed {",
            replace: "if self.control.range == SequenceRange::NONE && !sealed {",
        }],
        test: life!("direct_redo"),
    },
    Mutant {
        name: "an entry that had been durable is missed",
        edits: &[Edit {
            file: READER,
            search: "                    if missing < first_unfenced {",
            replace: "                    if missing > first_unfenced {",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "undo entries are applied from the first to the last",
        edits: &[Edit {
            file: RECOVER,
            search: "        .iter()\n        .rev()\n",
            replace: "        .iter()\n",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "recovery ends a generation before what it applied is durable",
        edits: &[Edit {
            file: RECOVER,
            search: ".filter(|(_, touched)| *touched)",
            replace: ".filter(|(_, touched)| !*touched)",
        }],
        test: life!("direct_chain"),
    },
    Mutant {
        name: "an entry may name memory that its owner could not write",
        edits: &[Edit {
            file: RECOVER,
            search: "        if place(live, locate, targets).is_none() {",
            replace: "        if false && place(live, locate, targets).is_none() {",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "generations that start again find old entries",
        edits: &[Edit {
            file: LOG,
            search: "                if let Err(e) = self.files[i].write(at, &zeros) {",
            replace: "                if let Err(e) = self.files[i].write(at, &zeros[..0]) {",
        }],
        test: life!("direct_generations"),
    },
];
