//! Mutants of what stands between a peer's graph and its receiver: the examination of peers' heaps, graphs as bytes, frames over TCP.
//! Each is caught without a race; the most telling ones are in every run, the others in soak.

use super::{Edit, Mutant};

/// Attacks on heaps that a peer owns.
const ATTACKS: &[&str] = &["test", "-p", "vernal-heap", "--test", "peer", "attacks::"];
/// Lengths, ends and text beside pointers.
const LENGTHS: &[&str] = &["test", "-p", "vernal-heap", "--test", "peer", "lengths::"];
/// Words that are read twice, and what a page must be.
const ONCE: &[&str] = &["test", "-p", "vernal-heap", "--test", "peer", "once::"];
/// Graphs as bytes.
const WIRE: &[&str] = &["test", "-p", "vernal-rpc-core", "--test", "wire"];
/// Frames and greetings over TCP.
const TCP: &[&str] = &["test", "-p", "vernal-rpc-core", "--lib", "tcp::"];

const EXAMINE: &str = "runtime/heap/src/walk/peer/examine.rs";
const DECIDED: &str = "runtime/heap/src/walk/peer/decided.rs";
const BOUNDS: &str = "runtime/heap/src/walk/peer/bounds.rs";
const DECODE: &str = "rpc/core/src/wire/decode.rs";

const fn mutant(
    name: &'static str,
    test: &'static [&'static str],
    edits: &'static [Edit],
) -> Mutant {
    Mutant { name, edits, test }
}

/// Those of every run.
pub const MUTANTS: &[Mutant] = &[
    mutant(
        "a pointer to an object of another type is followed",
        ATTACKS,
        &[Edit {
            file: EXAMINE,
            search: "if spot.slot != rule.exact || spot.offset != 0 || spot.slot == RAW {",
            replace: "if spot.offset != 0 || spot.slot == RAW {",
        }],
    ),
    mutant(
        "a pointer into the middle of an object is followed",
        ATTACKS,
        &[Edit {
            file: EXAMINE,
            search: "if spot.slot != rule.exact || spot.offset != 0 || spot.slot == RAW {",
            replace: "if spot.slot != rule.exact || spot.slot == RAW {",
        }],
    ),
    mutant(
        "free slots count as objects",
        ATTACKS,
        &[Edit {
            file: DECIDED,
            search: "    if line[TAKEN + word] & bit == 0 {",
            replace: "    if line[TAKEN + word] & bit == 0 && addr == 0 {",
        }],
    ),
    mutant(
        "the objects of a graph are not counted",
        ATTACKS,
        &[Edit {
            file: EXAMINE,
            search: "if self.report.objects > self.budget.objects || self.report.bytes",
            replace: "if self.report.bytes",
        }],
    ),
    mutant(
        "what is not sealed is examined",
        ATTACKS,
        &[Edit {
            file: EXAMINE,
            search: "            inside(ranges, spot)?;\n",
            replace: "            let _ = inside(ranges, spot);\n",
        }],
    ),
    mutant(
        "bools and enums may hold anything",
        ATTACKS,
        &[Edit {
            file: EXAMINE,
            search: "            if !values.takes(raw) {",
            replace: "            if !values.takes(raw) && !K::COPIES {",
        }],
    ),
    mutant(
        "a word that was copied is read from the peer again",
        ONCE,
        &[Edit {
            file: EXAMINE,
            search: "                let from = self.copied(todo).get(word..word + count);",
            replace: "                let from = self.view(todo.addr, (todo.size / 8) as usize);\n                let from = from.and_then(|f| f.get(word..word + count));",
        }],
    ),
    mutant(
        "a page is asked about at each pointer",
        ONCE,
        &[Edit {
            file: DECIDED,
            search: "        if line[0] & KIND == SLOTS {\n            return slot_at(line, addr);\n        }\n        // The first",
            replace: "        let visited = *line;\n        line[0] = 0;\n        if visited[0] & KIND == SLOTS {\n            let page = (addr.wrapping_sub(base) >> PAGE_SHIFT) as usize;\n            self.decide(space, known, at, page, addr, copies)?;\n            let (_, line) = self.page(at, addr).ok_or_else(|| free(addr))?;\n            for word in [3, 5, 7, 9, COPIES] {\n                line[word] = visited[word];\n            }\n            return slot_at(line, addr);\n        }\n        // The first",
        }],
    ),
    mutant(
        "objects need not be as long as their type",
        ONCE,
        &[Edit {
            file: DECIDED,
            search: "        if size < ty.desc.size() {",
            replace: "        if size == 0 {",
        }],
    ),
    mutant(
        "a length may count more than the capacity",
        LENGTHS,
        &[Edit {
            file: BOUNDS,
            search: "if len > capacity || (value == 0) != (capacity == 0) {",
            replace: "if (value == 0) != (capacity == 0) {",
        }],
    ),
    mutant(
        "the checksum of a graph is not compared",
        WIRE,
        &[Edit {
            file: DECODE,
            search: "    if found != expected {\n        return Err(WireError::Checksum",
            replace: "    if found != expected && bytes.is_empty() {\n        return Err(WireError::Checksum",
        }],
    ),
    mutant(
        "objects come with messages that nobody takes them from",
        TCP,
        &[Edit {
            file: "rpc/core/src/tcp/frame.rs",
            search: "        if sends && !matches!(kind, Kind::Call | Kind::Reply | Kind::Item) {",
            replace: "        if sends && kind == Kind::Release {",
        }],
    ),
];

/// Those of soak.
pub const MORE: &[Mutant] = &[
    mutant(
        "the root may be the middle of an object",
        ATTACKS,
        &[Edit {
            file: EXAMINE,
            search: "        if spot.slot != slot || spot.offset != 0 {",
            replace: "        if spot.slot != slot {",
        }],
    ),
    mutant(
        "the root may be of another type",
        ATTACKS,
        &[Edit {
            file: EXAMINE,
            search: "        if spot.slot != slot || spot.offset != 0 {",
            replace: "        if spot.offset != 0 {",
        }],
    ),
    mutant(
        "the bytes of a graph are not counted",
        ATTACKS,
        &[Edit {
            file: EXAMINE,
            search: "if self.report.objects > self.budget.objects || self.report.bytes > self.budget.bytes {",
            replace: "if self.report.objects > self.budget.objects {",
        }],
    ),
    mutant(
        "what is looked at again is free",
        ATTACKS,
        &[Edit {
            file: BOUNDS,
            search: "self.looked_at = self.looked_at.saturating_add(bytes);",
            replace: "self.looked_at = self.looked_at.saturating_add(bytes & 1);",
        }],
    ),
    mutant(
        "an object that was visited is visited again",
        ATTACKS,
        &[Edit {
            file: DECIDED,
            search: "    line[VISITED + word] |= bit;\n",
            replace: "",
        }],
    ),
    mutant(
        "text need not end",
        ATTACKS,
        &[Edit {
            file: BOUNDS,
            search: "                if !bytes.contains(&0) {",
            replace: "                if bytes.is_empty() {",
        }],
    ),
    mutant(
        "code of another process is taken",
        ATTACKS,
        &[Edit {
            file: DECIDED,
            search: "        if let Some((field, cause)) = &ty.refused {",
            replace: "        if let Some((field, cause)) = ty.refused.as_ref().filter(|_| size == 0) {",
        }],
    ),
    mutant(
        "objects need not be aligned as their type demands",
        ONCE,
        &[Edit {
            file: DECIDED,
            search: "        if u64::from(ty.desc.align()) > align {",
            replace: "        if align == 0 {",
        }],
    ),
    mutant(
        "objects in memory without type need not be aligned",
        ONCE,
        &[Edit {
            file: BOUNDS,
            search: "                    None => target.plain && aligned,",
            replace: "                    None => target.plain || aligned,",
        }],
    ),
    mutant(
        "numbers in memory without type need not be aligned",
        ONCE,
        &[Edit {
            file: BOUNDS,
            search: "                    None => value.is_multiple_of(u64::from(n)),",
            replace: "                    None => n > 0,",
        }],
    ),
    mutant(
        "what a pointer names may end behind its object",
        ONCE,
        &[Edit {
            file: BOUNDS,
            search: "        if behind > spot.size || spot.offset >= spot.size {",
            replace: "        if spot.offset >= spot.size {",
        }],
    ),
    mutant(
        "a capacity may be larger than the object",
        LENGTHS,
        &[Edit {
            file: BOUNDS,
            search: "        let behind = spot.offset.checked_add(bytes).ok_or_else(misfit)?;",
            replace: "        let behind = spot.offset.checked_add(bytes.min(one)).ok_or_else(misfit)?;",
        }],
    ),
    mutant(
        "strings may hold what is not UTF-8",
        LENGTHS,
        &[Edit {
            file: BOUNDS,
            search: "                    if std::str::from_utf8(bytes).is_err() {",
            replace: "                    if bytes.len() as u64 != len {",
        }],
    ),
    mutant(
        "the end of a vector may come before its beginning",
        LENGTHS,
        &[Edit {
            file: BOUNDS,
            search: "if value == 0 || used > all || !whole || capacity == 0 {",
            replace: "if value == 0 || !whole || capacity == 0 {",
        }],
    ),
    mutant(
        "short text may be longer than its room",
        LENGTHS,
        &[Edit {
            file: BOUNDS,
            search: "            if len >= LOCAL || here + LOCAL > todo.size || byte(self) & 0xff != 0 {",
            replace: "            if here + LOCAL > todo.size || byte(self) & 0xff != 0 {",
        }],
    ),
    mutant(
        "what is behind a length is copied",
        LENGTHS,
        &[Edit {
            file: EXAMINE,
            search: "            let from = words.get(..(used.min(spot.size) as usize).div_ceil(8));",
            replace: "            let from = words.get(..(spot.size as usize).div_ceil(8));",
        }],
    ),
    mutant(
        "a box may be null",
        LENGTHS,
        &[Edit {
            file: EXAMINE,
            search: "        if value == 0 {\n            return Err(null(rule));\n        }\n",
            replace: "        if value == 0 {\n            return Ok(());\n        }\n",
        }],
    ),
    mutant(
        "a graph may have objects that nothing leads to",
        WIRE,
        &[Edit {
            file: DECODE,
            search: "        if copy.report.objects != header.objects {",
            replace: "        if copy.report.objects > header.objects {",
        }],
    ),
    mutant(
        "a type of the same id is believed to be the same",
        WIRE,
        &[Edit {
            file: DECODE,
            search: "    if desc.name() != name() {",
            replace: "    if desc.name().is_empty() {",
        }],
    ),
    mutant(
        "addresses behind an image belong to it",
        WIRE,
        &[Edit {
            file: "rpc/core/src/wire/image.rs",
            search: "        if offset >= self.end {\n            return None;\n        }\n",
            replace: "",
        }],
    ),
    mutant(
        "a frame is as long as its sender likes",
        TCP,
        &[Edit {
            file: "rpc/core/src/tcp/frame.rs",
            search: "        if length > most {",
            replace: "        if length > most.max(u64::MAX >> 1) {",
        }],
    ),
    mutant(
        "a greeting is as long as its sender likes",
        TCP,
        &[Edit {
            file: "rpc/core/src/tcp/hello.rs",
            search: "        if name > NAME_MAX || token > TOKEN_MAX || word(4) >> 32 != 0 {",
            replace: "        if word(4) >> 32 != 0 {",
        }],
    ),
    mutant(
        "the beginning of a token is enough",
        TCP,
        &[Edit {
            file: "rpc/core/src/tcp/hello.rs",
            search: "    let mut difference = a.len() ^ b.len();",
            replace: "    let mut difference = a.len() & b.len() & 0;",
        }],
    ),
    mutant(
        "graphs wait without limit",
        TCP,
        &[Edit {
            file: "rpc/core/src/tcp/graphs.rs",
            search: "        let image = match state.bytes.saturating_add(length) > limit {",
            replace: "        let image = match length > limit {",
        }],
    ),
    mutant(
        "arguments of answered calls are kept",
        TCP,
        &[Edit {
            file: "rpc/core/src/tcp/graphs.rs",
            search: "        if let Some(handle) = state.by_call.remove(&call) {\n            state.remove(handle);\n        }\n",
            replace: "        state.by_call.remove(&call);\n",
        }],
    ),
];
