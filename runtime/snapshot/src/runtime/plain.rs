//! The plain commit: one thread, every file on byte-addressable media and active, nothing pending.
//!
//! It is what the general pipeline does then, with everything left out that cannot occur: the record, its one flush and the
//! order of writes are the journal's, and the same. Whatever it meets that is not plain (a part of home without blocks, a
//! journal that is full, a place on the list of marks that is yet to be filled) it leaves to the general pipeline, with all marks in place
//! (docs/adr/0016).

use super::pipeline::{give_back, journal_error};
use super::{Engine, STATE, State, puddles, tx};
use crate::commit::{Gather, Look, SCAN_SHADOW};
use crate::deferred::none_deferred;
use crate::error::Error;
use crate::inject::{self, Site};
use crate::thread::Control;
use std::path::Path;
use std::sync::atomic::{Ordering, compiler_fence};
use vernal_abi as abi;
use vernal_journal::JournalError;
use vernal_sys::{Media, os};

/// Says that this thread is inside a commit, to its signal handlers.
struct Inside<'a>(&'a Control);

impl Drop for Inside<'_> {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        self.0.in_commit.store(false, Ordering::Relaxed);
    }
}

/// A durable commit of everything that `own` has marked; `None`: the general pipeline has to do it.
#[inline]
pub(super) fn commit(own: &'static Control) -> Option<Result<(), Box<Error>>> {
    if !os::single_threaded() || own.in_commit.load(Ordering::Relaxed) {
        return None;
    }
    own.in_commit.store(true, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    let inside = Inside(own);
    // SAFETY: `in_commit` was clear, so this thread does not hold the lock, and there is no other.
    let state = unsafe { STATE.alone() };
    let result = state.as_mut().and_then(|s| s.commit_plainly(own));
    drop(inside);
    result
}

#[cold]
fn failed(engine: &mut Engine, gather: &mut Gather, path: &Path, e: JournalError) -> Box<Error> {
    if e.is_recoverable() {
        give_back(engine, gather);
    }
    Box::new(journal_error(path, e))
}

impl State {
    #[inline]
    fn commit_plainly(&mut self, own: &Control) -> Option<Result<(), Box<Error>>> {
        let plain = self.active
            && self.single
            && self.look == Look::WholeLines
            && self.tracker.is_none()
            && !self.audited
            && !self.resizing
            && !puddles::any_arriving()
            && !tx::abort_pending()
            && !SCAN_SHADOW.load(Ordering::Relaxed)
            && self.gather.nothing_to_recheck()
            && none_deferred()
            && own.is_only();
        if !plain {
            return None;
        }
        let (engine, path) = self.engine.as_mut()?;
        if engine.poison().is_some() || engine.has_pending() {
            return None;
        }
        inject::point(Site::CommitStart);
        if !own.has_marks() {
            self.stats.empty += 1;
            return Some(Ok(()));
        }
        let gather = &mut self.gather;
        let mut hint = 0;
        let builder = engine.builder();
        let all = own.drain_only(|line, count| {
            gather.take_plainly(line, count, &mut hint, |line, lines| {
                builder.push_run(abi::line_of(line), lines);
            })
        });
        inject::point(Site::CommitStaged);
        let (bytes, lines) = (builder.record_bytes(), builder.line_count() as u64);
        let flushes = engine.journal().media().flushes();
        // A full journal is recycled, or grows: the general pipeline knows what to do when that fails.
        let done = if all && lines != 0 {
            engine.commit_runs()
        } else {
            None
        };
        let Some(done) = done else {
            give_back(engine, gather);
            return None;
        };
        if let Err(e) = done {
            return Some(Err(failed(engine, gather, path, e)));
        }
        self.stats.lines += lines;
        self.stats.lines_changed += lines;
        self.stats.commits += 1;
        self.stats.bytes += bytes;
        self.stats.flushes += engine.journal().media().flushes() - flushes;
        inject::point(Site::CommitDone);
        Some(Ok(()))
    }
}
