//! The table of mutants. A new one: a file, a text that occurs in it once, what it becomes, and the test that must fail.

use super::{Edit, Mutant};

/// Enumerated crash states of one scenario.
macro_rules! enumerate {
    ($scenario:literal) => {
        &[
            "test",
            "-p",
            "vernal-crash",
            "--test",
            "enumerate",
            $scenario,
        ]
    };
}
const CHECKPOINT: &[&str] = enumerate!("checkpoint");
const ASYNC: &[&str] = enumerate!("asynchronous");
const ABORT: &[&str] = enumerate!("abort");
const TWO_FILES: &[&str] = enumerate!("two_files");
const RESIZE: &[&str] = enumerate!("resize");
const SESSIONS: &[&str] = enumerate!("sessions");
const GROW: &[&str] = enumerate!("grow_journal");
/// Decay and tampering.
const DAMAGE: &[&str] = &["test", "-p", "vernal-crash", "--test", "damage"];
/// Failing media.
const FAULTS: &[&str] = &["test", "-p", "vernal-crash", "--test", "faults"];
/// Counts of flushes.
const FLUSHES: &[&str] = &["test", "-p", "vernal-crash", "--test", "flushes"];
/// The parsers.
const FORMAT: &[&str] = &["test", "-p", "vernal-format", "--test", "parse"];
/// The journal's own tests.
const JOURNAL_UNIT: &[&str] = &["test", "-p", "vernal-journal", "--lib"];

/// Every mutant.
pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a commit's record is not flushed",
        edits: &[Edit {
            file: "runtime/journal/src/journal.rs",
            search: ".write_durable(self.sb.log_offset + self.head, bytes)",
            replace: ".write(self.sb.log_offset + self.head, bytes)",
        }],
        test: CHECKPOINT,
    },
    Mutant {
        name: "asynchronous records are not fenced",
        edits: &[Edit {
            file: "runtime/journal/src/journal.rs",
            search: r##"                self.media.persist()
            } else {"##,
            replace: r##"                Ok(())
            } else {"##,
        }],
        test: ASYNC,
    },
    Mutant {
        name: "buffered records are written without a flush",
        edits: &[Edit {
            file: "runtime/journal/src/journal.rs",
            search: r##"                self.media
                    .write_durable(self.sb.log_offset + self.buffer_at"##,
            replace: r##"                self.media
                    .write(self.sb.log_offset + self.buffer_at"##,
        }],
        test: ASYNC,
    },
    Mutant {
        name: "the checksum leaves out the record's last word",
        edits: &[
            Edit {
                file: "runtime/format/src/record.rs",
                search: "words[0] = key.checksum_by(&words[1..], accumulate).to_le();",
                replace: r##"let end = words.len() - 1;
    words[0] = key.checksum_by(&words[1..end], accumulate).to_le();"##,
            },
            Edit {
                file: "runtime/format/src/record.rs",
                search: "u64::from_le(words[0]) == key.checksum(&words[1..])",
                replace: "u64::from_le(words[0]) == key.checksum(&words[1..words.len() - 1])",
            },
        ],
        test: CHECKPOINT,
    },
    Mutant {
        name: "the checksum is not looked at",
        edits: &[Edit {
            file: "runtime/journal/src/reader.rs",
            search: "Ok(verify_record(words, key).then_some(header))",
            replace: r##"let _ = (words, key, verify_record);
        Ok(Some(header))"##,
        }],
        test: CHECKPOINT,
    },
    Mutant {
        name: "the checksum's seed leaves out the generation",
        edits: &[Edit {
            file: "runtime/format/src/checksum.rs",
            search: "xxh3_64(&journal.0).wrapping_add(generation)",
            replace: r##"{
        let _ = generation;
        xxh3_64(&journal.0)
    }"##,
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "the checksum's seed leaves out the journal",
        edits: &[Edit {
            file: "runtime/format/src/checksum.rs",
            search: "xxh3_64(&journal.0).wrapping_add(generation)",
            replace: r##"{
        let _ = journal;
        generation
    }"##,
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "the recovery loop is bounded by a field that commits leave zero",
        edits: &[Edit {
            file: "runtime/journal/src/reader.rs",
            search: r##"            summary.records += 1;
"##,
            replace: r##"            summary.records += 1;
            if summary.records > u64::from(header.unflushed) {
                break;
            }
"##,
        }],
        test: CHECKPOINT,
    },
    Mutant {
        name: "a checkpoint does not start a new generation",
        edits: &[Edit {
            file: "runtime/journal/src/journal.rs",
            search: "sb.generation += 1;",
            replace: "sb.generation += 0;",
        }],
        test: FLUSHES,
    },
    Mutant {
        name: "stale records look alive: same generation, sequences start over",
        edits: &[
            Edit {
                file: "runtime/journal/src/journal.rs",
                search: "sb.generation += 1;",
                replace: "sb.generation += 0;",
            },
            Edit {
                file: "runtime/journal/src/journal.rs",
                search: "sb.first_sequence = self.next_sequence;",
                replace: "sb.first_sequence = 1;\n        self.next_sequence = 1;",
            },
        ],
        test: CHECKPOINT,
    },
    Mutant {
        name: "the generation in the header is not checked",
        edits: &[Edit {
            file: "runtime/journal/src/reader.rs",
            search: "header.filter(|h| h.generation == generation && wanted(h))",
            replace: "header.filter(|h| (h.generation == generation || h.generation > 0) && wanted(h))",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "the sequence is not checked",
        edits: &[Edit {
            file: "runtime/journal/src/reader.rs",
            search: "self.record_at(offset, |h| h.sequence == sequence)?",
            replace: "self.record_at(offset, |h| h.sequence == sequence || h.sequence > 0)?",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "a new generation starts before the homes are durable",
        edits: &[
            Edit {
                file: "runtime/journal/src/committer.rs",
                search: r##"        for home in self.homes.iter_mut().flatten() {
            if home.dirty {"##,
                replace: r##"        self.journal.recycle()?;
        for home in self.homes.iter_mut().flatten() {
            if home.dirty {"##,
            },
            Edit {
                file: "runtime/journal/src/committer.rs",
                search: r##"        self.journal.recycle()?;
        self.announced = false;"##,
                replace: "        self.announced = false;",
            },
        ],
        test: CHECKPOINT,
    },
    Mutant {
        name: "a checkpoint does not flush the homes",
        edits: &[Edit {
            file: "runtime/journal/src/committer.rs",
            search: r##"            if home.dirty {
                if let Err(e) = home.media.persist() {"##,
            replace: r##"            if home.dirty {
                if let Err(e) = Ok::<(), io::Error>(()) {"##,
        }],
        test: CHECKPOINT,
    },
    Mutant {
        name: "a checkpoint flushes the first home only",
        edits: &[Edit {
            file: "runtime/journal/src/committer.rs",
            search: r##"        for home in self.homes.iter_mut().flatten() {
            if home.dirty {"##,
            replace: r##"        for home in self.homes.iter_mut().flatten().take(1) {
            if home.dirty {"##,
        }],
        test: TWO_FILES,
    },
    Mutant {
        name: "a commit is applied before it is durable",
        edits: &[Edit {
            file: "runtime/journal/src/committer.rs",
            search: "        let sequence = match self.journal.append(&mut self.builder) {",
            replace: r##"        self.apply_staged()?;
        let sequence = match self.journal.append(&mut self.builder) {"##,
        }],
        test: CHECKPOINT,
    },
    Mutant {
        name: "an asynchronous commit is applied before its flush",
        edits: &[Edit {
            file: "runtime/journal/src/committer.rs",
            search: r##"        self.pending.absorb(&self.builder);
"##,
            replace: r##"        self.pending.absorb(&self.builder);
        self.apply_staged()?;
"##,
        }],
        test: ASYNC,
    },
    Mutant {
        name: "asynchronous commits are not looked at by the next diff",
        edits: &[Edit {
            file: "runtime/journal/src/committer.rs",
            search: r##"        if !self.pending.is_empty() {
            return self.stage_over_pending"##,
            replace: r##"        if self.pending.lines().len() > 1_000_000 {
            return self.stage_over_pending"##,
        }],
        test: ASYNC,
    },
    Mutant {
        name: "an abort restores the home without the asynchronous commits",
        edits: &[Edit {
            file: "runtime/journal/src/committer.rs",
            search: r##"            self.pending.committed(line, home)
        }
    }

    /// Stages a new length."##,
            replace: r##"            let _ = line;
            *home
        }
    }

    /// Stages a new length."##,
        }],
        test: ABORT,
    },
    Mutant {
        name: "only one of several files gets its part of a commit",
        edits: &[Edit {
            file: "runtime/journal/src/committer.rs",
            search: r##"    let Some(home) = &mut homes[*last] else {
        return Ok(());
    };
    home.dirty = true;"##,
            replace: r##"    if *last > 0 {
        return Ok(());
    }
    let Some(home) = &mut homes[*last] else {
        return Ok(());
    };
    home.dirty = true;"##,
        }],
        test: TWO_FILES,
    },
    Mutant {
        name: "the last word of a line is not compared",
        edits: &[Edit {
            file: "runtime/journal/src/diff.rs",
            search: r##"for i in 0..8 {
        mask |="##,
            replace: r##"for i in 0..7 {
        mask |="##,
        }],
        test: JOURNAL_UNIT,
    },
    Mutant {
        name: "recovery ignores new lengths",
        edits: &[Edit {
            file: "runtime/journal/src/recover.rs",
            search: r##"                && base_line == base
"##,
            replace: r##"                && base_line == base + 1
"##,
        }],
        test: RESIZE,
    },
    Mutant {
        name: "the superblock forgets new lengths",
        edits: &[Edit {
            file: "runtime/journal/src/committer.rs",
            search: r##"            self.journal.note_len(home.member.file, home.len);
"##,
            replace: "",
        }],
        test: RESIZE,
    },
    Mutant {
        name: "bytes beyond the end of the file come back",
        edits: &[Edit {
            file: "runtime/journal/src/apply.rs",
            search: "if start + LINE_SIZE <= len {",
            replace: "if start < len {",
        }],
        test: RESIZE,
    },
    Mutant {
        name: "a file shrinks before the record says so",
        edits: &[Edit {
            file: "runtime/journal/src/committer.rs",
            search: r##"            if len > home.media.len()
"##,
            replace: r##"            if len != home.media.len()
"##,
        }],
        test: RESIZE,
    },
    Mutant {
        name: "the superblock has one slot only",
        edits: &[Edit {
            file: "runtime/journal/src/journal.rs",
            search: "            let slot = (self.sb_slot + 1) % SLOT_COUNT;",
            replace: "            let slot = 0;",
        }],
        test: CHECKPOINT,
    },
    Mutant {
        name: "the metadata has one slot only",
        edits: &[Edit {
            file: "runtime/journal/src/meta_file.rs",
            search: "            let slot = (self.slot + 1) % SLOT_COUNT;",
            replace: "            let slot = 0;",
        }],
        test: SESSIONS,
    },
    Mutant {
        name: "the other slot keeps the old value",
        edits: &[Edit {
            file: "runtime/journal/src/meta_file.rs",
            search: r##"        for _ in 0..SLOT_COUNT {
            next.update"##,
            replace: r##"        for _ in 0..1 {
            next.update"##,
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "the newest slot is not preferred",
        edits: &[Edit {
            file: "runtime/format/src/slot.rs",
            search: "b.update() > a.update()",
            replace: "b.update() < a.update()",
        }],
        test: FORMAT,
    },
    Mutant {
        name: "a slot's checksum leaves out its version",
        edits: &[
            Edit {
                file: "runtime/format/src/slot.rs",
                search: "const SUMMED_FROM: usize = 16;",
                replace: "const SUMMED_FROM: usize = 24;",
            },
            Edit {
                file: "runtime/format/src/slot.rs",
                search: r##"    assert!(std::mem::offset_of!(SlotHead, version) == SUMMED_FROM);
"##,
                replace: "",
            },
        ],
        test: DAMAGE,
    },
    Mutant {
        name: "a newer version is read as if it were ours",
        edits: &[Edit {
            file: "runtime/format/src/slot.rs",
            search: "v if v > Self::VERSION =>",
            replace: "v if v > Self::VERSION + 100 =>",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "metadata is active before the file is a member",
        edits: &[Edit {
            file: "runtime/journal/src/committer.rs",
            search: r##"        self.journal.add_member(member, meta_path)?;
        if let Err(e) = meta.activate(self.journal.uuid(), journal_path, len) {"##,
            replace: r##"        let activated = meta.activate(self.journal.uuid(), journal_path, len);
        self.journal.add_member(member, meta_path)?;
        if let Err(e) = activated {"##,
        }],
        test: SESSIONS,
    },
    Mutant {
        name: "metadata is never active",
        edits: &[Edit {
            file: "runtime/journal/src/committer.rs",
            search: "if let Err(e) = meta.activate(self.journal.uuid(), journal_path, len) {",
            replace: r##"let _ = journal_path;
        if let Err(e) = meta.set_clean(len) {"##,
        }],
        test: CHECKPOINT,
    },
    Mutant {
        name: "metadata is clean before the home is durable",
        edits: &[Edit {
            file: "runtime/journal/src/committer.rs",
            search: r##"        self.checkpoint()?;
        if let Err(e) = meta.set_clean(len) {
            self.journal.set_poison(&e);
            return Err(e);
        }
"##,
            replace: r##"        if let Err(e) = meta.set_clean(len) {
            self.journal.set_poison(&e);
            return Err(e);
        }
        self.checkpoint()?;
"##,
        }],
        test: CHECKPOINT,
    },
    Mutant {
        name: "recovery does not flush the home",
        edits: &[Edit {
            file: "runtime/journal/src/recover.rs",
            search: r##"    home.persist()
        .map_err("##,
            replace: r##"    Ok(())
        .map_err("##,
        }],
        test: CHECKPOINT,
    },
    Mutant {
        name: "a record's place in its flush is not told",
        edits: &[Edit {
            file: "runtime/journal/src/journal.rs",
            search: r##"            unflushed: self.unflushed,
        }
    }"##,
            replace: r##"            unflushed: 0,
        }
    }"##,
        }],
        test: ASYNC,
    },
    Mutant {
        name: "records go on beyond the end of the log",
        edits: &[Edit {
            file: "runtime/journal/src/journal.rs",
            search: "align_up(self.head + record.record_bytes(), self.unit as u64) <= self.sb.log_len",
            replace: "align_up(self.head + record.record_bytes(), self.unit as u64) <= self.sb.log_len + 4096",
        }],
        test: CHECKPOINT,
    },
    Mutant {
        name: "a larger journal is promised before it is durable",
        edits: &[Edit {
            file: "runtime/journal/src/journal.rs",
            search: r##"        if let Err(e) = self.media.persist() {
            return Err(self.fail("growing", e));
        }
"##,
            replace: "",
        }],
        test: GROW,
    },
    Mutant {
        name: "decay in the middle of the log passes for its end",
        edits: &[Edit {
            file: "runtime/journal/src/recover.rs",
            search: "if let LogEnd::Damaged { later } = scan.end {",
            replace: "if let (LogEnd::Damaged { later }, true) = (scan.end, scan.records > 1_000_000) {",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "a record may name any line",
        edits: &[Edit {
            file: "runtime/journal/src/recover.rs",
            search: "Entry::Line { line, .. } if sb.member_at(line).is_none() => {",
            replace: "Entry::Line { line, .. } if sb.member_at(line).is_none() && line == 0 => {",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "stray bits in an entry are ignored",
        edits: &[Edit {
            file: "runtime/format/src/record.rs",
            search: "KIND_LINE if mask != 0 && line_entry_header(line, mask) == header => count,",
            replace: "KIND_LINE if mask != 0 => count,",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "entries are not counted",
        edits: &[Edit {
            file: "runtime/format/src/record.rs",
            search: "return if self.index == self.stated {",
            replace: "return if self.index <= self.stated {",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "a missing part of the journal passes for its end",
        edits: &[Edit {
            file: "runtime/journal/src/reader.rs",
            search: "        if self.media.len() < expected {",
            replace: "        if self.media.len() < self.sb.log_offset {",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "a truncated file is filled with zeros",
        edits: &[Edit {
            file: "runtime/journal/src/recover.rs",
            search: "    if home.len() < shortest {",
            replace: "    if home.len() > shortest && home.len() < shortest {",
        }],
        test: DAMAGE,
    },
    Mutant {
        name: "commits go on after a failed flush",
        edits: &[Edit {
            file: "runtime/journal/src/journal.rs",
            search: r##"JournalError> {
        match &self.poison {
            None => Ok(()),"##,
            replace: r##"JournalError> {
        match &None::<String> {
            None => Ok(()),"##,
        }],
        test: FAULTS,
    },
    Mutant {
        name: "a full disk stops the committer for good",
        edits: &[Edit {
            file: "runtime/journal/src/error.rs",
            search: "StorageFull | QuotaExceeded | FileTooLarge | OutOfMemory => JournalError::NoSpace {",
            replace: "StorageFull | QuotaExceeded | FileTooLarge | OutOfMemory if needed == 0 => JournalError::NoSpace {",
        }],
        test: FAULTS,
    },
    Mutant {
        name: "each commit flushes twice",
        edits: &[Edit {
            file: "runtime/journal/src/journal.rs",
            search: r##"        self.head += bytes.len() as u64;
        self.next_sequence += 1;"##,
            replace: r##"        let len = bytes.len() as u64;
        let _ = self.media.persist();
        self.head += len;
        self.next_sequence += 1;"##,
        }],
        test: FLUSHES,
    },
];
