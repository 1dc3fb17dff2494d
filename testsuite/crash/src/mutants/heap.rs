//! Mutants of the heap: allocation, free, pages, aborts, caches. The most telling ones are in every run, the others in soak.

use super::{Edit, Mutant};

/// Models, aborts, hostile words and threads, on memory that checks what is announced and reported.
const HEAP: &[&str] = &[
    "test",
    "-p",
    "vernal-heap",
    "--test",
    "alloc",
    "--test",
    "model",
];

/// Those of every run.
pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a slot is taken without a word to the log",
        edits: &[Edit {
            file: "runtime/heap/src/alloc.rs",
            search: "                self.mem.before_write(addr, 8)?;\n                // Claimed",
            replace: "                // Claimed",
        }],
        test: HEAP,
    },
    Mutant {
        name: "an object keeps what the last one in its place held",
        edits: &[Edit {
            file: "runtime/heap/src/alloc.rs",
            search: "            for word in object {\n                word.store(0, Relaxed);\n            }\n",
            replace: "",
        }],
        test: HEAP,
    },
    Mutant {
        name: "an abort takes no span away from a thread",
        edits: &[Edit {
            file: "runtime/heap/src/alloc.rs",
            search: "if cache.generation != self.generation.load(Relaxed) || cache.heap != self.id {",
            replace: "if cache.heap != self.id {",
        }],
        test: HEAP,
    },
    Mutant {
        name: "a span that some thread owns is given to another",
        edits: &[Edit {
            file: "runtime/heap/src/alloc.rs",
            search: "self.puddles.set_owned(slot, ext.page_of(span), true);",
            replace: "self.puddles.set_owned(slot, ext.page_of(span), false);",
        }],
        test: HEAP,
    },
    Mutant {
        name: "a slot that is freed while its span is found full is lost",
        edits: &[Edit {
            file: "runtime/heap/src/heap.rs",
            search: "            if full(bitmap) {\n                return Ok(());\n            }\n",
            replace: "            if std::hint::black_box(true) {\n                return Ok(());\n            }\n",
        }],
        test: HEAP,
    },
    Mutant {
        name: "the header of a released span is not logged",
        edits: &[Edit {
            file: "runtime/heap/src/heap.rs",
            search: "                mem.before_write(ext.page_addr(block.page), SLAB_LINE)?;\n",
            replace: "",
        }],
        test: HEAP,
    },
    Mutant {
        name: "the list of free pages is believed",
        edits: &[Edit {
            file: "runtime/heap/src/pages.rs",
            search: "if desc != Some(PageDesc::Free { order: o }) {",
            replace: "if desc.is_none() && page == u32::MAX {",
        }],
        test: HEAP,
    },
    Mutant {
        name: "the rest of a block that was cut is lost",
        edits: &[Edit {
            file: "runtime/heap/src/pages.rs",
            search: "                self.plan_free(batch, page64 + pages, page64 + (1 << o));\n",
            replace: "",
        }],
        test: HEAP,
    },
    Mutant {
        name: "free blocks of different sizes are joined",
        edits: &[Edit {
            file: "runtime/heap/src/pages.rs",
            search: "if self.desc(mem, batch, buddy)? != Some(PageDesc::Free { order }) {",
            replace: "if !matches!(self.desc(mem, batch, buddy)?, Some(PageDesc::Free { .. })) {",
        }],
        test: HEAP,
    },
    Mutant {
        name: "the last chunk of what an abort restored is not read again",
        edits: &[Edit {
            file: "runtime/heap/src/heap.rs",
            search: "let chunks = ext.page_of(from)..ext.page_of(to - 1) + 1;",
            replace: "let chunks = ext.page_of(from)..ext.page_of(to - 1).max(ext.page_of(from));",
        }],
        test: HEAP,
    },
];

/// Those of soak.
pub const MORE: &[Mutant] = &[
    Mutant {
        name: "large objects are not zeroed",
        edits: &[Edit {
            file: "runtime/heap/src/alloc.rs",
            search: "                    for word in line {\n                        word.store(0, Relaxed);\n                    }\n",
            replace: "",
        }],
        test: HEAP,
    },
    Mutant {
        name: "a new span's header is not reported",
        edits: &[Edit {
            file: "runtime/heap/src/alloc.rs",
            search: "            mem.after_write(addr, 64);\n",
            replace: "",
        }],
        test: HEAP,
    },
    Mutant {
        name: "a free is not reported",
        edits: &[Edit {
            file: "runtime/heap/src/free.rs",
            search: "        self.mem.after_write(small.word_addr, 8);\n        if old",
            replace: "        if old",
        }],
        test: HEAP,
    },
    Mutant {
        name: "what an object no longer needs keeps its bytes",
        edits: &[Edit {
            file: "runtime/heap/src/free.rs",
            search: "            self.clear(addr + size, new_end.min(used_end))?;\n",
            replace: "",
        }],
        test: HEAP,
    },
    Mutant {
        name: "what an object gains is not zero",
        edits: &[Edit {
            file: "runtime/heap/src/free.rs",
            search: "            self.zero(used_end, new_end - used_end)?;\n",
            replace: "            let _ = used_end;\n",
        }],
        test: HEAP,
    },
];
