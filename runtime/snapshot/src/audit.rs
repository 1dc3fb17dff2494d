//! The audit (`VERNAL_AUDIT=1`): at each commit, what differs from home and was not marked.
//!
//! A store that the compiler did not see (an uninstrumented library, assembly) changes working memory without a mark, and
//! the commit misses it. The audit compares every page that the process has written to with home, outside the lines that
//! wait for a commit, and reports each difference. With several threads a store may be seen before its mark; such a
//! finding is kept as a suspicion and counts only if the line is still unmarked at a later look.

use crate::commit::Gather;
use crate::config;
use crate::deferred::is_deferred;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use vernal_abi as abi;
use vernal_sys::{cpu, mem, os, pages};

/// What a process ends with when the audit has found something.
pub const EXIT_STATUS: i32 = 86;
/// Findings that are printed one by one.
const PRINTED: usize = 20;

#[derive(Debug, Default)]
struct Findings {
    /// By address of the line.
    lines: BTreeMap<u64, Finding>,
    suspects: BTreeMap<u64, Finding>,
}

/// A line with bytes that were written without a mark.
#[derive(Debug, Clone)]
struct Finding {
    bytes: u32,
    /// Of the first of them, in the file.
    offset: u64,
    file: Arc<str>,
}

static FINDINGS: Mutex<Findings> = Mutex::new(Findings {
    lines: BTreeMap::new(),
    suspects: BTreeMap::new(),
});

/// Looks at every mapped file. Call under the commit lock, before gathering.
pub(crate) fn look(gather: &Gather, page_mode: bool, name: impl Fn(usize) -> String) {
    if page_mode {
        // Pages are found by the kernel: nothing can be missed, and nothing is marked.
        return;
    }
    let threads = !os::single_threaded();
    let mut f = FINDINGS.lock().unwrap_or_else(|e| e.into_inner());
    let old = std::mem::take(&mut f.suspects);
    for (i, e) in gather.extents.iter().enumerate() {
        let end = e.base + e.len;
        let file: Arc<str> = name(i).into();
        pages::private_pages(e.base, mem::page_up(e.len).unwrap_or(e.len), |lo, hi| {
            for line in (lo..hi.min(end)).step_by(abi::LINE_SIZE as usize) {
                let home = line + abi::HOME_DISTANCE;
                // SAFETY: lines of a mapped file and of its home view, both mapped and aligned.
                let differ =
                    unsafe { cpu::differing_words(line as *const u8, home as *const u8) } != 0;
                if !differ || gather.is_pending(i, line) || is_deferred(line) {
                    continue;
                }
                let Some(found) = differing_bytes(line, end) else {
                    continue;
                };
                let found = Finding {
                    bytes: found.0,
                    offset: found.1 - e.base,
                    file: Arc::clone(&file),
                };
                if threads && !old.contains_key(&line) {
                    f.suspects.insert(line, found);
                } else {
                    f.lines.insert(line, found);
                }
            }
        });
    }
}

fn differing_bytes(line: u64, end: u64) -> Option<(u32, u64)> {
    let mut count = 0;
    let mut first = None;
    for a in line..(line + abi::LINE_SIZE).min(end) {
        // SAFETY: inside a mapped line and its home line; volatile because other threads may write.
        let (w, h) = unsafe {
            (
                (a as *const u8).read_volatile(),
                ((a + abi::HOME_DISTANCE) as *const u8).read_volatile(),
            )
        };
        if w != h {
            count += 1;
            first.get_or_insert(a);
        }
    }
    first.map(|f| (count, f))
}

/// Bytes found so far.
pub fn missed() -> u64 {
    let f = FINDINGS.lock().unwrap_or_else(|e| e.into_inner());
    f.lines.values().map(|l| u64::from(l.bytes)).sum()
}

/// Prints what was found; returns the number of bytes.
pub(crate) fn report() -> u64 {
    let total = missed();
    let f = FINDINGS.lock().unwrap_or_else(|e| e.into_inner());
    if total == 0 {
        config::say(format_args!("audit: 0 bytes were written without a mark"));
        return 0;
    }
    eprintln!(
        "vernal: audit: {total} bytes in {} lines were written by code that vernal-cc has not compiled; a crash would lose \
         them. Compile that code with vernal-cc, call vernal_mark() after it, or use `vernal run`.",
        f.lines.len()
    );
    for (line, found) in f.lines.iter().take(PRINTED) {
        let Finding {
            bytes,
            offset,
            file,
        } = found;
        eprintln!(
            "vernal: audit:   {file}: {bytes} bytes in the line at {line:#x}, first at file offset {offset} (page {}), writer \
             unknown",
            offset / mem::PAGE_SIZE
        );
    }
    if f.lines.len() > PRINTED {
        eprintln!(
            "vernal: audit:   and {} more lines",
            f.lines.len() - PRINTED
        );
    }
    total
}
