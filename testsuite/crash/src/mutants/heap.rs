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
/// Races at their worst moment, and what is lost without being wrong.
const PLANTED: &[&str] = &["test", "-p", "vernal-heap", "--test", "planted"];

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
        name: "what memory refuses is gone from the list of free pages",
        edits: &[Edit {
            file: "runtime/heap/src/pages.rs",
            search: "            if done.is_err() {\n                continue;\n            }\n",
            replace: "",
        }],
        test: PLANTED,
    },
    Mutant {
        name: "objects of different types share a span",
        edits: &[Edit {
            file: "runtime/heap/src/cache.rs",
            search: "    u64::from(type_index) << 8 | (class as u64 + 1)",
            replace: "    u64::from(type_index) >> 32 | (class as u64 + 1)",
        }],
        test: PLANTED,
    },
    Mutant {
        name: "of two who free one object both succeed",
        edits: &[Edit {
            file: "runtime/heap/src/free.rs",
            search: "        if old & small.bit == 0 {",
            replace: "        if old & small.bit == 0 && std::hint::black_box(false) {",
        }],
        test: PLANTED,
    },
    Mutant {
        name: "two who claim one slot both get it",
        edits: &[Edit {
            file: "runtime/heap/src/alloc.rs",
            search: "if self.mem.change_bits(word, 0, bit) & bit == 0 {",
            replace: "if self.mem.change_bits(word, 0, bit) & bit == 0 || std::hint::black_box(true) {",
        }],
        test: PLANTED,
    },
];

/// Those of soak.
pub const MORE: &[Mutant] = &[
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
        name: "the last chunk of what an abort restored is not read again",
        edits: &[Edit {
            file: "runtime/heap/src/heap.rs",
            search: "let chunks = ext.page_of(from)..ext.page_of(to - 1) + 1;",
            replace: "let chunks = ext.page_of(from)..ext.page_of(to - 1).max(ext.page_of(from));",
        }],
        test: HEAP,
    },
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
        name: "spans that an abort left empty are never given back",
        edits: &[Edit {
            file: "runtime/heap/src/alloc.rs",
            search: "            if !self.release_empty_spans(slow)? {",
            replace: "            if std::hint::black_box(true) {",
        }],
        test: PLANTED,
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
    Mutant {
        name: "an object that moves loses its alignment",
        edits: &[Edit {
            file: "runtime/heap/src/free.rs",
            search: "u64::from(t.align()).clamp(16, PAGE_BYTES)",
            replace: "u64::from(t.align()).clamp(16, 16)",
        }],
        test: PLANTED,
    },
    Mutant {
        name: "blocks are joined beyond the end of the puddle",
        edits: &[Edit {
            file: "runtime/heap/src/pages.rs",
            search: "if buddy < self.ext.first_page() || buddy + (1 << order) > self.ext.pages() {",
            replace: "if buddy < self.ext.first_page() {",
        }],
        test: HEAP,
    },
    Mutant {
        name: "free blocks are never joined",
        edits: &[Edit {
            file: "runtime/heap/src/pages.rs",
            search: "if self.desc(mem, batch, buddy)? != Some(PageDesc::Free { order }) {",
            replace: "if order < 60 {",
        }],
        test: HEAP,
    },
    Mutant {
        name: "an object grows to where no object of its size may begin",
        edits: &[Edit {
            file: "runtime/heap/src/pages.rs",
            search: "if !(aligned || page == self.ext.first_page()) || page + new > self.ext.pages() {",
            replace: "let _ = aligned;\n        if page + new > self.ext.pages() {",
        }],
        test: HEAP,
    },
    Mutant {
        name: "an object grows over what follows it",
        edits: &[Edit {
            file: "runtime/heap/src/pages.rs",
            search: "            let Kind::Free { order } = block.kind else {\n                return Ok(false);\n            };",
            replace: "            let order = match block.kind {\n                Kind::Free { order } => order,\n                _ => block.pages.ilog2(),\n            };",
        }],
        test: HEAP,
    },
    Mutant {
        name: "what an abort restored stays in the list of free pages",
        edits: &[Edit {
            file: "runtime/heap/src/pages.rs",
            search: "        self.unread.insert(chunk as u32);\n",
            replace: "",
        }],
        test: HEAP,
    },
    Mutant {
        name: "a cache gives back a span that an abort took from it",
        edits: &[Edit {
            file: "runtime/heap/src/heap.rs",
            search: "if self.puddles.restored(slot, page / CHUNK_PAGES) > generation {",
            replace: "if self.puddles.restored(slot, page / CHUNK_PAGES) > generation.saturating_add(1 << 40) {",
        }],
        test: HEAP,
    },
    Mutant {
        name: "a cache that ends keeps its spans",
        edits: &[Edit {
            file: "runtime/heap/src/cache.rs",
            search: "        self.orphans.add(orphans);\n",
            replace: "        drop(orphans);\n",
        }],
        test: PLANTED,
    },
    Mutant {
        name: "changes of pages are not announced",
        edits: &[Edit {
            file: "runtime/heap/src/batch.rs",
            search: "            mem.before_write(range.0, range.1)?;\n",
            replace: "            let _ = range;\n",
        }],
        test: HEAP,
    },
    Mutant {
        name: "a change of pages does not see what it has prepared itself",
        edits: &[Edit {
            file: "runtime/heap/src/batch.rs",
            search: "(edit.mask & mask == mask).then_some",
            replace: "(edit.mask & mask == mask && mask == 0).then_some",
        }],
        test: HEAP,
    },
    Mutant {
        name: "the pages of a span are given away although a thread owns it",
        edits: &[
            Edit {
                file: "runtime/heap/src/free.rs",
                search: "                || self.puddles.is_owned(slot, small.page))",
                replace: "                || small.page == u64::MAX)",
            },
            Edit {
                file: "runtime/heap/src/heap.rs",
                search: "        if block.page != page || self.puddles.is_owned(slot, page) {",
                replace: "        if block.page != page {",
            },
        ],
        test: HEAP,
    },
];
